//! SQL's types, under the names that people know, as the types of fields.
//!
//! Owns:     which names there are and what they mean here.
//! Does not: check limits that nobody keeps: a type with a length or a width is refused, not stored without it.
//!
//! Numbers are kept in 64 bits: REAL is a DOUBLE and INTEGER a BIGINT, since what they promise holds for those too.

use datafusion::sql::sqlparser::ast::{DataType, ExactNumberInfo, ObjectName};
use model::{FieldType, decimal};

use crate::error::QueryError;
use crate::resolve::folded;

/// What there is, for errors.
const TYPES: &str = "TEXT, DOUBLE, BIGINT, DECIMAL(p,s), NUMERIC(20,0), BOOLEAN, and TIMESTAMP for the column time";

/// Digits of NUMERIC(20,0), as unsigned integers of 64 bits are shown.
const UNSIGNED_DIGITS: u64 = 20;

/// Finest time, digits of a second.
const TIME_DIGITS_MAX: u64 = 6;

/// The type of a field that is declared as `data_type`.
///
/// # Errors
/// [`QueryError::Unsupported`] with the list of what there is.
pub(super) fn of_field(data_type: &DataType) -> Result<FieldType, QueryError> {
    use DataType as D;
    let field_type = match data_type {
        D::Text | D::String(None) | D::Varchar(None) | D::CharVarying(None) | D::CharacterVarying(None) => {
            FieldType::Text
        }
        D::Double(ExactNumberInfo::None) | D::DoublePrecision | D::Float(ExactNumberInfo::None) => FieldType::F64,
        D::Float8 | D::Float64 | D::Float4 | D::Float32 | D::Real => FieldType::F64,
        D::BigInt(None) | D::Int8(None) | D::Int64 | D::Integer(None) | D::Int(None) | D::Int4(None) => FieldType::I64,
        D::Int32 | D::SmallInt(None) | D::Int2(None) | D::Int16 | D::TinyInt(None) => FieldType::I64,
        D::BigIntUnsigned(None) | D::UBigInt | D::Int8Unsigned(None) | D::UInt64 => FieldType::U64,
        D::Unsigned | D::UnsignedInteger | D::IntegerUnsigned(None) | D::IntUnsigned(None) | D::UInt32 => {
            FieldType::U64
        }
        D::Boolean | D::Bool => FieldType::Bool,
        D::Decimal(digits) | D::Numeric(digits) | D::Dec(digits) => return number(data_type, digits),
        D::Custom(name, modifiers) if modifiers.is_empty() => return named(data_type, name),
        D::Timestamp(..) | D::TimestampNtz(_) | D::Datetime(_) => {
            return Err(QueryError::Unsupported(format!(
                "a field of type {data_type} is not supported: only the column time holds a time; there are {TYPES}"
            )));
        }
        D::Varchar(Some(_)) | D::CharVarying(Some(_)) | D::CharacterVarying(Some(_)) | D::Char(_) | D::Character(_) => {
            return Err(QueryError::Unsupported(format!(
                "type {data_type} is not supported: nothing limits the length of a text; use TEXT"
            )));
        }
        _ => return Err(unknown(data_type)),
    };
    Ok(field_type)
}

/// Names that are no keywords of SQL: those of InfluxDB, of Arrow and of CrateDB.
fn named(data_type: &DataType, name: &ObjectName) -> Result<FieldType, QueryError> {
    let [part] = name.0.as_slice() else { return Err(unknown(data_type)) };
    match part.as_ident().map(folded).as_deref() {
        Some("utf8") => Ok(FieldType::Text),
        Some("uinteger" | "uint") => Ok(FieldType::U64),
        Some("long" | "short" | "byte") => Ok(FieldType::I64),
        _ => Err(unknown(data_type)),
    }
}

fn unknown(data_type: &DataType) -> QueryError {
    QueryError::Unsupported(format!("type {} is not supported; there are {TYPES}", shortened(&data_type.to_string())))
}

/// The type of a number with so many digits.
fn number(data_type: &DataType, digits: &ExactNumberInfo) -> Result<FieldType, QueryError> {
    let (precision, scale) = match digits {
        ExactNumberInfo::None => {
            return Err(QueryError::Unsupported(format!(
                "type {data_type} is not supported without digits: its scale is the resolution in which values are \
                 kept; DECIMAL(18,1) keeps tenths"
            )));
        }
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if (precision, scale) == (UNSIGNED_DIGITS, 0) {
        return Ok(FieldType::U64);
    }
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(digits @ 1..=decimal::DIGITS_MAX), Ok(scale)) if scale <= digits => {
            Ok(FieldType::Decimal { digits, scale })
        }
        _ => Err(QueryError::Unsupported(format!(
            "type {data_type} is not supported: a decimal has 1 to {} digits, and at most as many \
             behind the point: DECIMAL(18,1); NUMERIC(20,0) is an unsigned integer of 64 bits",
            decimal::DIGITS_MAX
        ))),
    }
}

/// Checks the type of the column `time`.
///
/// # Errors
/// [`QueryError::Unsupported`] unless it is TIMESTAMP in microseconds or coarser, with or without a zone.
pub(super) fn check_time(data_type: &DataType) -> Result<(), QueryError> {
    match data_type {
        DataType::Timestamp(digits, _) | DataType::TimestampNtz(digits) | DataType::Datetime(digits) => {
            if digits.is_none_or(|digits| digits <= TIME_DIGITS_MAX) {
                return Ok(());
            }
            Err(QueryError::Unsupported(format!(
                "type {data_type} is not supported: times are kept in microseconds; use TIMESTAMP"
            )))
        }
        other => Err(QueryError::Unsupported(format!(
            "the column time is a TIMESTAMP, not {}: it is when a reading was measured",
            shortened(&other.to_string())
        ))),
    }
}

/// A text that came from a statement, short enough for an error.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn data_type(sql: &str) -> DataType {
        Parser::new(&GenericDialect {}).try_with_sql(sql).unwrap().parse_data_type().unwrap()
    }

    #[test]
    fn types_have_the_names_that_people_use() {
        for (names, expected) in [
            ("TEXT, text, VARCHAR, CHARACTER VARYING, STRING, utf8", FieldType::Text),
            ("DOUBLE, DOUBLE PRECISION, FLOAT, FLOAT8, REAL, FLOAT4, float64", FieldType::F64),
            ("BIGINT, INT8, int64, INTEGER, INT, INT4, SMALLINT", FieldType::I64),
            ("BIGINT UNSIGNED, UBIGINT, uint64, uinteger, unsigned", FieldType::U64),
            ("NUMERIC(20,0)", FieldType::U64),
            ("NUMERIC(20)", FieldType::U64),
            ("BOOLEAN, BOOL", FieldType::Bool),
        ] {
            // A comma in parentheses parts no names.
            let names: Vec<&str> = if names.contains('(') { vec![names] } else { names.split(", ").collect() };
            for name in names {
                assert_eq!(of_field(&data_type(name)).ok(), Some(expected), "{name}");
            }
        }
    }

    #[test]
    fn what_there_is_not_is_refused_with_what_there_is() {
        for (name, said) in [
            ("JSON", "there are TEXT, DOUBLE"),
            ("UUID", "there are TEXT, DOUBLE"),
            ("TEXT[]", "there are TEXT, DOUBLE"),
            ("BYTEA", "there are TEXT, DOUBLE"),
            ("DATE", "there are TEXT, DOUBLE"),
            ("no_such_type", "type no_such_type is not supported; there are"),
            ("a.b", "there are TEXT"),
            ("VARCHAR(255)", "use TEXT"),
            ("CHAR(3)", "use TEXT"),
            ("BIGINT(20)", "there are TEXT"),
            ("TIMESTAMP", "only the column time"),
            ("TIMESTAMPTZ", "only the column time"),
            ("DECIMAL", "DECIMAL(18,1) keeps tenths"),
            ("NUMERIC", "DECIMAL(18,1) keeps tenths"),
            ("DECIMAL(19,1)", "1 to 18 digits"),
            ("DECIMAL(20,1)", "1 to 18 digits"),
            ("DECIMAL(38,18)", "1 to 18 digits"),
            ("DECIMAL(3,4)", "1 to 18 digits"),
            ("DECIMAL(3,-1)", "1 to 18 digits"),
            ("DECIMAL(0)", "1 to 18 digits"),
            ("DECIMAL(18,300)", "1 to 18 digits"),
        ] {
            match of_field(&data_type(name)) {
                Err(QueryError::Unsupported(message)) => assert!(message.contains(said), "{name}: {message}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_digits_are_the_declared_ones() {
        for (name, digits, scale) in [
            ("DECIMAL(18,1)", 18, 1),
            ("NUMERIC(18,18)", 18, 18),
            ("DEC(5,2)", 5, 2),
            ("DECIMAL(10)", 10, 0),
            ("DECIMAL(1)", 1, 0),
        ] {
            assert_eq!(of_field(&data_type(name)).ok(), Some(FieldType::Decimal { digits, scale }), "{name}");
        }
        assert!(of_field(&data_type("NUMERIC(19,0)")).is_err());
    }

    #[test]
    fn time_is_a_timestamp() {
        for name in ["TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP(6)", "TIMESTAMP(3)"] {
            assert!(check_time(&data_type(name)).is_ok(), "{name}");
        }
        for name in ["TIMESTAMP(9)", "BIGINT", "DATE", "TEXT"] {
            assert!(check_time(&data_type(name)).is_err(), "{name}");
        }
    }
}
