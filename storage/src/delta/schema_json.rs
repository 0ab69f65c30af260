//! A table's schema as Delta's `schemaString`, with `eden.kind` in each column's metadata, and a decimal's resolution.

use std::sync::Arc;

use model::{FieldType, decimal};
use serde_json::{Value, json};

use super::DAY_COLUMN;
use crate::{ColumnKind, TableSchema};

/// The `schemaString` of `schema`, the partition column last.
pub(crate) fn schema_to_json(schema: &TableSchema) -> String {
    let mut fields: Vec<Value> = schema
        .columns()
        .iter()
        .map(|column| {
            let (data_type, kind, nullable) = match column.kind {
                ColumnKind::Tag => ("string".to_owned(), "tag", true),
                ColumnKind::Field(field_type) => (delta_type(field_type), "field", true),
                ColumnKind::Time => ("timestamp".to_owned(), "time", false),
            };
            // u64 has no Delta type of its own, so the field's type is named too.
            let metadata = match column.kind {
                ColumnKind::Field(field_type @ FieldType::Decimal { scale, .. }) => json!({
                    "eden.kind": kind, "eden.type": field_type.name(), "eden.resolution": decimal::resolution(scale),
                }),
                ColumnKind::Field(field_type) => json!({"eden.kind": kind, "eden.type": field_type.name()}),
                ColumnKind::Tag | ColumnKind::Time => json!({"eden.kind": kind}),
            };
            json!({"name": &*column.name, "type": data_type, "nullable": nullable, "metadata": metadata})
        })
        .collect();
    fields.push(json!({"name": DAY_COLUMN, "type": "date", "nullable": false, "metadata": {}}));
    json!({"type": "struct", "fields": fields}).to_string()
}

fn delta_type(field_type: FieldType) -> String {
    match field_type {
        FieldType::F64 => "double".into(),
        FieldType::I64 => "long".into(),
        FieldType::U64 => "decimal(20,0)".into(),
        FieldType::Bool => "boolean".into(),
        FieldType::Text => "string".into(),
        FieldType::Decimal { digits, scale } => format!("decimal({digits},{scale})"),
    }
}

/// Reads a `schemaString` of ours.
///
/// # Errors
/// Says which column this version cannot hold.
pub(crate) fn schema_from_json(text: &str) -> Result<TableSchema, String> {
    let schema: Value = serde_json::from_str(text).map_err(|e| format!("schemaString: {e}"))?;
    let fields = schema["fields"].as_array().ok_or("schemaString has no fields")?;
    let mut tags: Vec<Arc<str>> = Vec::new();
    let mut values: Vec<(Arc<str>, FieldType)> = Vec::new();
    for field in fields {
        let name = field["name"].as_str().ok_or("a column without a name")?;
        let metadata = &field["metadata"];
        match (metadata["eden.kind"].as_str(), metadata["eden.type"].as_str()) {
            (Some("tag"), _) => tags.push(name.into()),
            (Some("time"), _) => {}
            (Some("field"), Some(type_name)) => {
                let scale = metadata["eden.resolution"].as_str().and_then(decimal::scale_of_resolution);
                let decimals = scale.into_iter().flat_map(|scale| {
                    (scale.max(1)..=decimal::DIGITS_MAX).map(move |digits| FieldType::Decimal { digits, scale })
                });
                let all = [FieldType::F64, FieldType::I64, FieldType::U64, FieldType::Bool, FieldType::Text];
                let found =
                    all.into_iter().chain(decimals).find(|t| t.name() == type_name && field["type"] == delta_type(*t));
                let field_type = found.ok_or_else(|| format!("column {name:?} has type {}", field["type"]))?;
                values.push((name.into(), field_type));
            }
            _ if name == DAY_COLUMN => {}
            (kind, _) => return Err(format!("column {name:?} has eden.kind {kind:?}")),
        }
    }
    Ok(TableSchema::new(&tags, &values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back() {
        let digits = 1..=decimal::DIGITS_MAX;
        let decimals = digits.flat_map(|digits| (0..=digits).map(move |scale| FieldType::Decimal { digits, scale }));
        let fields: Vec<(Arc<str>, FieldType)> =
            [FieldType::F64, FieldType::I64, FieldType::U64, FieldType::Bool, FieldType::Text]
                .into_iter()
                .chain(decimals)
                .map(|t| (format!("f \"{t}\"").into(), t))
                .collect();
        let schema = TableSchema::new(&["a".into(), "b".into()], &fields);
        let read = schema_from_json(&schema_to_json(&schema)).unwrap();
        assert_eq!(read.columns(), schema.columns());
    }

    /// Somebody may have written a resolution that is no power of ten: it needs as many digits.
    #[test]
    fn a_resolution_has_a_scale_that_must_be_its_type_s() {
        let read = |data_type: &str, resolution: &str| {
            let column = json!({
                "name": "x", "type": data_type, "nullable": true,
                "metadata": {"eden.kind": "field", "eden.type": "decimal", "eden.resolution": resolution},
            });
            schema_from_json(&json!({"type": "struct", "fields": [column]}).to_string())
        };
        let found = read("decimal(18,2)", "0.25").unwrap();
        assert_eq!(found.columns()[0].kind, ColumnKind::Field(FieldType::decimal(2)));
        for (data_type, resolution) in [("decimal(18,1)", "0.25"), ("decimal(18,2)", "two"), ("decimal(19,2)", "0.01")]
        {
            assert!(read(data_type, resolution).unwrap_err().contains("\"x\""), "{data_type} {resolution}");
        }
    }

    #[test]
    fn a_type_of_a_later_version_is_named() {
        let text = r#"{"type":"struct","fields":[{"name":"x","type":"binary","nullable":true,
            "metadata":{"eden.kind":"field","eden.type":"blob"}}]}"#;
        assert!(schema_from_json(text).unwrap_err().contains("\"x\""));
    }
}
