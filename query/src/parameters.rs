//! The parameters of a statement: `$1`, or `?` in the order in which they stand.
//!
//! Owns:     their numbers, and writing their values into the statement.
//! Does not: find out their types (`describe` does).
//!
//! A value takes the place of its parameter in the tree of the statement, never in its text. So it means what a constant
//! of its type would mean there, in a query and in a change alike, and cannot be taken for SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, CastKind, DataType as SqlType, ExactNumberInfo, Expr, LimitClause, Query, TimezoneInfo,
    UnaryOperator, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::QueryError;

/// Parameters that a statement may have, as in PostgreSQL's protocol.
const PARAMETERS_MAX: usize = 65_535;

/// Numbers `?`, so that only `$1` is left.
///
/// # Errors
/// [`QueryError::Plan`] for a statement that has both.
pub(crate) fn number(tokens: &mut [TokenWithSpan]) -> Result<(), QueryError> {
    let mut marks = 0;
    let mut has_numbers = false;
    for token in tokens {
        let Token::Placeholder(text) = &mut token.token else { continue };
        if text == "?" {
            marks += 1;
            *text = format!("${marks}");
        } else {
            has_numbers = true;
        }
    }
    if marks > 0 && has_numbers {
        return Err(QueryError::Plan("parameters are either all written ?, or all $1, $2 and so on".into()));
    }
    Ok(())
}

/// Numbers parameters that have names, `$room`, in the order in which they first stand.
///
/// Gives for each number the place of its name in `names`. Names that no parameter has are no mistake.
///
/// # Errors
/// [`QueryError::Plan`] for a parameter that is none of `names`.
pub(crate) fn number_named(tokens: &mut [TokenWithSpan], names: &[String]) -> Result<Vec<usize>, QueryError> {
    let mut places: Vec<usize> = Vec::new();
    for token in tokens {
        let Token::Placeholder(text) = &mut token.token else { continue };
        let named = text.strip_prefix('$').and_then(|name| names.iter().position(|known| known == name));
        let Some(place) = named else {
            let known: Vec<String> = names.iter().map(|name| format!("${name}")).collect();
            return Err(QueryError::Plan(format!("{text} has no value; those that came have {}", known.join(", "))));
        };
        let number = places.iter().position(|known| *known == place).unwrap_or_else(|| {
            places.push(place);
            places.len() - 1
        });
        *text = format!("${}", number + 1);
    }
    Ok(places)
}

/// The parameters of a statement.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The largest number.
    pub(crate) count: usize,
    /// Those that are the number of rows in LIMIT or OFFSET.
    pub(crate) limits: BTreeSet<usize>,
    /// What is cast where it stands, and to which type: the first of each.
    pub(crate) casts: BTreeMap<usize, SqlType>,
}

/// Looks for parameters.
///
/// # Errors
/// [`QueryError::Plan`] for one that is no number, or too large a one.
pub(crate) fn find(statement: &mut impl VisitMut) -> Result<Found, QueryError> {
    let mut found = Found::default();
    match statement.visit(&mut found) {
        ControlFlow::Continue(()) => Ok(found),
        ControlFlow::Break(name) => Err(unknown(&name)),
    }
}

impl VisitorMut for Found {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
            let exprs = limit.iter().chain(offset.iter().map(|offset| &offset.value));
            self.limits.extend(exprs.filter_map(parameter).filter_map(number_of));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        if let Expr::Cast { expr, data_type, .. } = expr
            && let Some(number) = parameter(expr).and_then(number_of)
        {
            self.casts.entry(number).or_insert_with(|| data_type.clone());
        }
        let Some(name) = parameter(expr) else { return ControlFlow::Continue(()) };
        match number_of(name) {
            Some(number) => self.count = self.count.max(number),
            None => return ControlFlow::Break(name.to_owned()),
        }
        ControlFlow::Continue(())
    }
}

/// Writes values into a statement: `values[0]` for `$1`.
///
/// # Errors
/// [`QueryError::Plan`] unless there is exactly one value for each parameter.
pub(crate) fn bind(statement: &mut impl VisitMut, values: &[ScalarValue]) -> Result<(), QueryError> {
    let last = find(statement)?.count;
    if last != values.len() {
        let needed = if last == 1 { "1 parameter".to_owned() } else { format!("{last} parameters") };
        return Err(QueryError::Plan(format!("the statement has {needed}, and {} values came with it", values.len())));
    }
    let known: Vec<Option<&ScalarValue>> = values.iter().map(Some).collect();
    bind_known(statement, &known)
}

/// As [`bind`], leaving the parameters that have no value.
///
/// # Errors
/// [`QueryError::Unsupported`] for a value of a type that no constant has.
pub(crate) fn bind_known(statement: &mut impl VisitMut, values: &[Option<&ScalarValue>]) -> Result<(), QueryError> {
    match statement.visit(&mut Bind(values)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Bind<'a>(&'a [Option<&'a ScalarValue>]);

impl VisitorMut for Bind<'_> {
    type Break = QueryError;

    // After its parts: a constant that was written has parts that must not be visited.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        let value = parameter(expr).and_then(number_of).and_then(|number| self.0.get(number - 1).copied().flatten());
        if let Some(value) = value {
            match constant(value) {
                Ok(constant) => *expr = constant,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}

/// The name of the parameter that the whole of `expr` is.
pub(crate) fn parameter(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

fn number_of(name: &str) -> Option<usize> {
    let digits = name.strip_prefix('$').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|number| (1..=PARAMETERS_MAX).contains(number))
}

fn unknown(name: &str) -> QueryError {
    QueryError::Plan(format!("{name} is no parameter; they are written $1 to ${PARAMETERS_MAX}, or ?"))
}

/// A value as SQL writes it, of exactly its type.
///
/// # Errors
/// [`QueryError::Unsupported`] for a type that no constant has.
pub(crate) fn constant(value: &ScalarValue) -> Result<Expr, QueryError> {
    use ScalarValue as S;
    let typed = |text: String| sql_type(&value.data_type()).map(|to| cast(quoted(text), to));
    let whole = |digits: String| match digits.strip_prefix('-') {
        Some(digits) => negative(digits),
        None => number_text(digits),
    };
    Ok(match value {
        S::Null => Expr::value(Value::Null),
        _ if value.is_null() => cast(Expr::value(Value::Null), sql_type(&value.data_type())?),
        S::Boolean(Some(truth)) => Expr::value(Value::Boolean(*truth)),
        // Its digits alone are those of a larger type.
        S::Int64(Some(i64::MIN)) => return typed(i64::MIN.to_string()),
        S::Int64(Some(number)) => whole(number.to_string()),
        S::Float64(Some(number)) if number.is_finite() => {
            // With an exponent it is a float whatever its digits.
            let text = format!("{:e}", number.abs());
            if number.is_sign_negative() { negative(&text) } else { number_text(text) }
        }
        S::Float32(Some(number)) => return typed(number.to_string()),
        S::Float64(Some(number)) => return typed(number.to_string()),
        S::Utf8(Some(text)) | S::LargeUtf8(Some(text)) | S::Utf8View(Some(text)) => quoted(text.clone()),
        S::Binary(Some(bytes)) | S::LargeBinary(Some(bytes)) | S::BinaryView(Some(bytes)) => {
            Expr::value(Value::HexStringLiteral(bytes.iter().map(|byte| format!("{byte:02X}")).collect()))
        }
        S::List(list) => return array(&list.value(0)),
        S::LargeList(list) => return array(&list.value(0)),
        S::IntervalMonthDayNano(Some(interval)) => {
            let text =
                format!("{} months {} days {} nanoseconds", interval.months, interval.days, interval.nanoseconds);
            return typed(text);
        }
        S::Int8(_) | S::Int16(_) | S::Int32(_) | S::UInt8(_) | S::UInt16(_) | S::UInt32(_) | S::UInt64(_) => {
            return typed(value.to_string());
        }
        S::Decimal128(..)
        | S::Date32(_)
        | S::Time64Microsecond(_)
        | S::TimestampSecond(..)
        | S::TimestampMillisecond(..)
        | S::TimestampMicrosecond(..)
        | S::TimestampNanosecond(..) => return typed(shown(value)?),
        other => return Err(no_constant(&other.data_type())),
    })
}

/// As Arrow writes it.
fn shown(value: &ScalarValue) -> Result<String, QueryError> {
    let internal = |error: &dyn std::fmt::Display| QueryError::Internal(format!("show a parameter: {error}"));
    let array = value.to_array().map_err(|error| internal(&error))?;
    arrow::util::display::array_value_to_string(&array, 0).map_err(|error| internal(&error))
}

fn array(elements: &dyn arrow::array::Array) -> Result<Expr, QueryError> {
    let element = |index| {
        let value = ScalarValue::try_from_array(elements, index);
        constant(&value.map_err(|error| QueryError::Internal(format!("read a parameter: {error}")))?)
    };
    let elem = (0..elements.len()).map(element).collect::<Result<_, _>>()?;
    Ok(Expr::Array(Array { elem, named: true }))
}

fn quoted(text: String) -> Expr {
    Expr::value(Value::SingleQuotedString(text))
}

fn number_text(text: String) -> Expr {
    Expr::value(Value::Number(text, false))
}

fn negative(digits: &str) -> Expr {
    // In parentheses: what stands before it may bind closer than the sign.
    let expr = Box::new(number_text(digits.to_owned()));
    Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr }))
}

/// `CAST(expr AS data_type)`.
pub(crate) fn cast(expr: Expr, data_type: SqlType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// How SQL calls a type.
fn sql_type(data_type: &DataType) -> Result<SqlType, QueryError> {
    Ok(match data_type {
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Text,
        DataType::Boolean => SqlType::Boolean,
        DataType::Int8 => SqlType::TinyInt(None),
        DataType::Int16 => SqlType::SmallInt(None),
        DataType::Int32 => SqlType::Int(None),
        DataType::Int64 => SqlType::BigInt(None),
        DataType::UInt8 => SqlType::TinyIntUnsigned(None),
        DataType::UInt16 => SqlType::SmallIntUnsigned(None),
        DataType::UInt32 => SqlType::IntUnsigned(None),
        DataType::UInt64 => SqlType::BigIntUnsigned(None),
        DataType::Float32 => SqlType::Real,
        DataType::Float64 => SqlType::DoublePrecision,
        DataType::Decimal128(digits, scale) => {
            SqlType::Decimal(ExactNumberInfo::PrecisionAndScale(u64::from(*digits), i64::from(*scale)))
        }
        DataType::Date32 => SqlType::Date,
        DataType::Time64(_) => SqlType::Time(None, TimezoneInfo::None),
        DataType::Timestamp(_, None) => SqlType::Timestamp(Some(6), TimezoneInfo::None),
        DataType::Timestamp(_, Some(_)) => SqlType::Timestamp(Some(6), TimezoneInfo::WithTimeZone),
        DataType::Interval(_) => SqlType::Interval { fields: None, precision: None },
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => SqlType::Bytea,
        DataType::List(element) | DataType::LargeList(element) => {
            let element = Box::new(sql_type(element.data_type())?);
            SqlType::Array(ArrayElemTypeDef::SquareBracket(element, None))
        }
        other => return Err(no_constant(other)),
    })
}

fn no_constant(data_type: &DataType) -> QueryError {
    QueryError::Unsupported(format!("a parameter of type {data_type} is not supported"))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn parsed(sql: &str) -> Result<Statement, QueryError> {
        let dialect = GenericDialect {};
        let mut tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().unwrap();
        number(&mut tokens)?;
        Ok(Parser::new(&dialect).with_tokens_with_locations(tokens).parse_statement().unwrap())
    }

    fn bound(sql: &str, values: &[ScalarValue]) -> Result<String, QueryError> {
        let mut statement = parsed(sql)?;
        bind(&mut statement, values)?;
        Ok(statement.to_string())
    }

    #[test]
    fn values_are_constants_of_their_type() {
        let utc = Some("UTC".into());
        for (value, expected) in [
            (ScalarValue::Null, "NULL"),
            (ScalarValue::Int64(Some(-3)), "(-3)"),
            (ScalarValue::Int64(Some(i64::MIN)), "CAST('-9223372036854775808' AS BIGINT)"),
            (ScalarValue::Int32(Some(-3)), "CAST('-3' AS INT)"),
            (ScalarValue::Int32(None), "CAST(NULL AS INT)"),
            (ScalarValue::Float64(Some(20.5)), "2.05e1"),
            (ScalarValue::Float64(Some(-2.0)), "(-2e0)"),
            (ScalarValue::Float64(Some(f64::NAN)), "CAST('NaN' AS DOUBLE PRECISION)"),
            (ScalarValue::from("it's; -- \\"), "'it''s; -- \\'"),
            (ScalarValue::Decimal128(Some(-1_050), 6, 2), "CAST('-10.50' AS DECIMAL(6,2))"),
            (
                ScalarValue::TimestampMicrosecond(Some(1_500_000), utc),
                "CAST('1970-01-01T00:00:01.500Z' AS TIMESTAMP(6) WITH TIME ZONE)",
            ),
            (ScalarValue::Date32(Some(1)), "CAST('1970-01-02' AS DATE)"),
            (ScalarValue::Binary(Some(vec![0, 255])), "X'00FF'"),
        ] {
            assert_eq!(bound("SELECT $1", &[value]).unwrap(), format!("SELECT {expected}"));
        }
    }

    #[test]
    fn question_marks_are_numbered_and_numbers_may_repeat() {
        let (a, b) = (ScalarValue::from("a"), ScalarValue::Int64(Some(1)));
        let values = [a, b];
        assert_eq!(bound("SELECT ?, ? LIMIT 1", &values).unwrap(), "SELECT 'a', 1 LIMIT 1");
        assert_eq!(bound("SELECT $2, $1, $2", &values).unwrap(), "SELECT 1, 'a', 1");
        assert_eq!(
            bound("DELETE FROM t WHERE a = $1 AND b IN ($2)", &values).unwrap(),
            "DELETE FROM t WHERE a = 'a' AND b IN (1)"
        );
    }

    #[test]
    fn wrong_numbers_of_values_are_refused() {
        let one = [ScalarValue::Int64(Some(1))];
        for (sql, values, expected) in [
            ("SELECT 1", &one[..], "the statement has 0 parameters, and 1 values came with it"),
            ("SELECT $1", &[], "the statement has 1 parameter, and 0 values came with it"),
            ("SELECT $3", &one, "the statement has 3 parameters, and 1 values came with it"),
            ("SELECT $0", &one, "$0 is no parameter; they are written $1 to $65535, or ?"),
            ("SELECT $65536", &one, "$65536 is no parameter; they are written $1 to $65535, or ?"),
            ("SELECT $1, ?", &one, "parameters are either all written ?, or all $1, $2 and so on"),
        ] {
            assert_eq!(bound(sql, values).unwrap_err().to_string(), expected, "{sql}");
        }
    }
}
