//! Which of PostgreSQL's types a column or a parameter has.
//!
//! Owns:     the way from Arrow's types to theirs and back; only types that every client knows.
//! Does not: write or read values (`encode`, `decode`).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use arrow_pg::datatypes::{PG_OID_ALIAS_KEY, field_into_pg_type};
use pgwire::api::Type;
use pgwire::messages::data::FieldDescription;
use query::ScalarValue;

/// The type of a column. What PostgreSQL has no type for is text.
pub fn of_field(field: &Arc<Field>) -> Type {
    match field.data_type() {
        // `oid::text` is a text, though it still says that it was something else.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            if field.metadata().contains_key(PG_OID_ALIAS_KEY) =>
        {
            Type::TEXT
        }
        DataType::Null => Type::TEXT,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => Type::TEXT,
        _ => match field_into_pg_type(field) {
            // Made up for one column: no client has heard of it.
            Ok(found) if Type::from_oid(found.oid()).is_none_or(|known| known == Type::RECORD_ARRAY) => Type::TEXT,
            Ok(found) => found,
            Err(_) => Type::TEXT,
        },
    }
}

/// The type that a client gives a parameter, as a value that is null; [`ScalarValue::Null`] where it leaves that to the
/// server; `None` for a type that no parameter has here.
pub fn null_of(oid: u32) -> Option<ScalarValue> {
    let of = |data_type: DataType| ScalarValue::try_from(data_type).ok();
    let list = |data_type: DataType| of(DataType::List(Arc::new(Field::new_list_field(data_type, true))));
    let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    match Type::from_oid(oid) {
        None if oid == 0 => Some(ScalarValue::Null),
        Some(Type::UNKNOWN) => Some(ScalarValue::Null),
        Some(Type::BOOL) => of(DataType::Boolean),
        Some(Type::INT2) => of(DataType::Int16),
        Some(Type::INT4) => of(DataType::Int32),
        Some(Type::INT8 | Type::OID) => of(DataType::Int64),
        Some(Type::FLOAT4) => of(DataType::Float32),
        Some(Type::FLOAT8) => of(DataType::Float64),
        // Its digits are those of each value.
        Some(Type::NUMERIC) => of(DataType::Decimal128(38, 10)),
        Some(
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR | Type::JSON | Type::JSONB | Type::UUID,
        ) => of(DataType::Utf8),
        Some(Type::BYTEA) => of(DataType::Binary),
        Some(Type::DATE) => of(DataType::Date32),
        Some(Type::TIME) => of(DataType::Time64(TimeUnit::Microsecond)),
        Some(Type::TIMESTAMP) => of(DataType::Timestamp(TimeUnit::Microsecond, None)),
        Some(Type::TIMESTAMPTZ) => of(utc()),
        Some(Type::INTERVAL) => of(DataType::Interval(IntervalUnit::MonthDayNano)),
        Some(Type::BOOL_ARRAY) => list(DataType::Boolean),
        Some(Type::INT2_ARRAY) => list(DataType::Int16),
        Some(Type::INT4_ARRAY) => list(DataType::Int32),
        Some(Type::INT8_ARRAY | Type::OID_ARRAY) => list(DataType::Int64),
        Some(Type::FLOAT4_ARRAY) => list(DataType::Float32),
        Some(Type::FLOAT8_ARRAY) => list(DataType::Float64),
        Some(Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::NAME_ARRAY) => list(DataType::Utf8),
        Some(Type::TIMESTAMPTZ_ARRAY) => list(utc()),
        _ => None,
    }
}

/// The type of a parameter that the server gives. Whole numbers of 32 bits without a sign are [`Type::OID`], and nothing else.
pub fn of_parameter(data_type: &DataType) -> Type {
    match data_type {
        DataType::UInt32 => return Type::OID,
        DataType::List(element) if *element.data_type() == DataType::UInt32 => return Type::OID_ARRAY,
        _ => {}
    }
    match of_field(&Arc::new(Field::new("", data_type.clone(), true))) {
        found if null_of(found.oid()).is_some() => found,
        _ => Type::TEXT,
    }
}

/// Bytes of a value, as `pg_type.typlen` has them; negative where they vary.
fn size(of: &Type) -> i16 {
    match *of {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL => 16,
        _ => -1,
    }
}

/// The digits of a decimal, as `pg_attribute.atttypmod` has them: precision and scale in 16 bits each, plus the four
/// bytes of a header.
fn modifier(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal128(digits, scale) if *scale >= 0 => ((i32::from(*digits) << 16) | i32::from(*scale)) + 4,
        _ => -1,
    }
}

/// How a column is announced; `binary` if its values will be.
pub fn describe(field: &Arc<Field>, binary: bool) -> FieldDescription {
    let found = of_field(field);
    let name = field.name().replace('\0', "");
    FieldDescription::new(name, 0, 0, found.oid(), size(&found), modifier(field.data_type()), i16::from(binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_only_have_types_that_every_client_knows() {
        let field = |data_type| Arc::new(Field::new("c", data_type, true));
        let list = |data_type| DataType::List(Arc::new(Field::new_list_field(data_type, true)));
        for (data_type, expected) in [
            (DataType::Utf8View, Type::TEXT),
            (DataType::UInt64, Type::NUMERIC),
            (DataType::Decimal128(9, 2), Type::NUMERIC),
            (DataType::Decimal256(50, 2), Type::NUMERIC),
            (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), Type::TIMESTAMPTZ),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), Type::TIMESTAMP),
            (DataType::Null, Type::TEXT),
            (list(DataType::Utf8), Type::TEXT_ARRAY),
            (list(DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into())), Type::TEXT),
            (DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into()), Type::TEXT),
            (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), Type::TEXT),
        ] {
            assert_eq!(of_field(&field(data_type.clone())), expected, "{data_type}");
        }
        let described = describe(&field(DataType::Decimal128(9, 2)), true);
        assert_eq!((described.type_id, described.type_size, described.type_modifier), (1700, -1, (9 << 16 | 2) + 4));
    }
}
