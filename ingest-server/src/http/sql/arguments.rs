//! The values of a statement's parameters, as clients of CrateDB send them in JSON.
//!
//! Owns:     `args` and `bulk_args`, which type each value has, and the answer to many executions of one statement.
//! Does not: put values into a statement (`query` does).
//!
//! A number for a parameter that is a time is milliseconds, as in CrateDB's answers and ours; for a time in an INSERT as
//! everywhere else, by its magnitude.

use arrow::datatypes::DataType;
use query::{QueryEngine, QueryError, QueryRequest, QueryResult, ScalarValue};
use serde_json::{Value, json};

use super::super::sql_error::SqlError;

/// Executions of one statement that one request may ask for.
const BULK_MAX: usize = 100_000;

/// The arguments of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Arguments {
    Once(Vec<ScalarValue>),
    /// The statement again and again, each time with others.
    Bulk(Vec<Vec<ScalarValue>>),
}

impl Arguments {
    /// Reads `args` and `bulk_args`.
    ///
    /// # Errors
    /// If both are there, one of them is no array, or a value is an object.
    pub(super) fn read(args: Value, bulk_args: Value) -> Result<Arguments, SqlError> {
        let args = list("args", args)?;
        let bulk = list("bulk_args", bulk_args)?;
        if !args.is_empty() && !bulk.is_empty() {
            return Err(SqlError::request("args and bulk_args cannot both be there; send one of them"));
        }
        if bulk.is_empty() {
            return Ok(Arguments::Once(args.into_iter().map(scalar).collect::<Result<_, _>>()?));
        }
        if bulk.len() > BULK_MAX {
            let message = format!("bulk_args has {} rows; at most {BULK_MAX} are taken, send less at once", bulk.len());
            return Err(SqlError::request(message));
        }
        let row = |row| list("each row of bulk_args", row)?.into_iter().map(scalar).collect();
        Ok(Arguments::Bulk(bulk.into_iter().map(row).collect::<Result<_, _>>()?))
    }
}

fn list(name: &str, value: Value) -> Result<Vec<Value>, SqlError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => Ok(values),
        _ => Err(SqlError::request(format!("{name} must be an array of values"))),
    }
}

/// A value of JSON as a parameter.
///
/// # Errors
/// If it is an object, or has one in it.
pub(in crate::http) fn scalar(value: Value) -> Result<ScalarValue, SqlError> {
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(truth) => truth.into(),
        Value::String(text) => text.into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => whole.into(),
            (_, Some(whole), _) => whole.into(),
            (.., Some(float)) => float.into(),
            _ => return Err(SqlError::request(format!("the argument {number} is out of range"))),
        },
        Value::Array(values) => {
            let values: Vec<ScalarValue> = values.into_iter().map(scalar).collect::<Result<_, _>>()?;
            let of_type = values.iter().map(ScalarValue::data_type).find(|of_type| *of_type != DataType::Null);
            let of_type = of_type.unwrap_or(DataType::Utf8);
            let cast = |value: ScalarValue| value.cast_to(&of_type);
            let values: Vec<ScalarValue> = values.into_iter().map(cast).collect::<Result<_, _>>().map_err(|error| {
                SqlError::request(format!("the values of an array must be of one type: {}", error.strip_backtrace()))
            })?;
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &of_type))
        }
        Value::Object(_) => {
            return Err(SqlError::unsupported("objects as arguments are not supported; send their values one by one"));
        }
    })
}

/// Makes times of the numbers in `request` whose parameters are times.
///
/// # Errors
/// Those of planning the statement.
pub(super) async fn with_times(engine: &QueryEngine, mut request: QueryRequest) -> Result<QueryRequest, QueryError> {
    let is_number = |value: &ScalarValue| matches!(value, ScalarValue::Int64(Some(_)) | ScalarValue::Float64(Some(_)));
    if !request.parameters.iter().any(is_number) {
        return Ok(request);
    }
    let untyped = QueryRequest { parameters: Vec::new(), ..request.clone() };
    // What cannot be described is told by running it.
    let Ok(described) = engine.describe(untyped).await else { return Ok(request) };
    for (value, wanted) in request.parameters.iter_mut().zip(&described.parameters) {
        if let DataType::Timestamp(..) = wanted {
            let us = match value {
                ScalarValue::Int64(Some(ms)) => ms.checked_mul(1_000),
                ScalarValue::Float64(Some(ms)) => Some((*ms * 1_000.0).round() as i64),
                _ => continue,
            };
            let out_of_range = || QueryError::Plan(format!("the argument {value} is out of the range of times"));
            let us = us.ok_or_else(out_of_range)?;
            *value = ScalarValue::TimestampMicrosecond(Some(us), None);
        }
    }
    Ok(request)
}

/// Runs the statement once for each row of arguments: as one where it is an INSERT of one row of values, so that all of
/// them wait for one sync. Gives what became of each.
///
/// # Errors
/// What keeps all of them from being run.
pub(super) async fn run_bulk(
    engine: &QueryEngine,
    request: QueryRequest,
    rows: Vec<Vec<ScalarValue>>,
) -> Result<Vec<Value>, SqlError> {
    let together = engine.execute(QueryRequest { rows: rows.clone(), ..request.clone() }).await;
    match together {
        Ok(QueryResult::Done { .. }) => return Ok(vec![json!({ "rowcount": 1 }); rows.len()]),
        // One of the rows, perhaps: each by itself says which. Or none of it is for all rows at once.
        Err(QueryError::Plan(_) | QueryError::Unsupported(_)) => {}
        Err(error) => return Err(error.into()),
        Ok(QueryResult::Rows(_)) => return Err(only_changes()),
    }
    let mut results = Vec::with_capacity(rows.len());
    for parameters in rows {
        let request = QueryRequest { parameters, ..request.clone() };
        let request = with_times(engine, request).await?;
        results.push(match engine.execute(request).await {
            Ok(QueryResult::Done { rows, .. }) => json!({ "rowcount": rows.map_or(-1, |rows| rows as i64) }),
            Ok(QueryResult::Rows(_)) => return Err(only_changes()),
            Err(error) => SqlError::from(error).of_one_row(),
        });
    }
    Ok(results)
}

fn only_changes() -> SqlError {
    SqlError::unsupported("bulk_args are for INSERT, UPDATE and DELETE; send args, one statement at a time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_types_that_json_gives_them() {
        let args = json!([null, true, -3, 18_446_744_073_709_551_615_u64, 20.5, "a", [1, null]]);
        let Ok(Arguments::Once(values)) = Arguments::read(args, Value::Null) else { panic!("they are arguments") };
        assert_eq!(values[..3], [ScalarValue::Null, true.into(), (-3_i64).into()]);
        assert_eq!(values[3..6], [u64::MAX.into(), 20.5_f64.into(), "a".into()]);
        assert_eq!(values[6].to_string(), "[1, ]");
        let bulk = Arguments::read(json!([]), json!([[1], [2]])).unwrap();
        assert_eq!(bulk, Arguments::Bulk(vec![vec![1_i64.into()], vec![2_i64.into()]]));
    }

    #[test]
    fn what_is_no_arguments_is_refused() {
        for (args, bulk, said) in [
            (json!([1]), json!([[1]]), "cannot both be there"),
            (json!({ "a": 1 }), Value::Null, "args must be an array"),
            (Value::Null, json!([1]), "each row of bulk_args must be an array"),
            (json!([{ "a": 1 }]), Value::Null, "objects as arguments are not supported"),
            (json!([[1, "a"]]), Value::Null, "must be of one type"),
        ] {
            let error = Arguments::read(args, bulk).unwrap_err();
            assert!(error.message.contains(said), "{error:?}");
        }
    }
}
