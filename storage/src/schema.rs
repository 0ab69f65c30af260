//! The columns of a table, in Arrow's words and in Delta's.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use model::FieldType;

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Identifies the series.
    Tag,
    /// A value.
    Field(FieldType),
    /// Event time; every table has exactly one, named `time`.
    Time,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// What it is for.
    pub kind: ColumnKind,
}

impl Column {
    /// The type that queries see.
    pub fn data_type(&self) -> DataType {
        match self.kind {
            ColumnKind::Tag | ColumnKind::Field(FieldType::Text) => DataType::Utf8View,
            ColumnKind::Field(FieldType::F64) => DataType::Float64,
            ColumnKind::Field(FieldType::I64) => DataType::Int64,
            ColumnKind::Field(FieldType::U64) => DataType::Decimal128(20, 0),
            ColumnKind::Field(FieldType::Decimal { digits, scale }) => DataType::Decimal128(digits, scale as i8),
            ColumnKind::Field(FieldType::Bool) => DataType::Boolean,
            ColumnKind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// The type of a field as `CREATE TABLE` and `ALTER TABLE` take it.
pub fn sql_type(field_type: FieldType) -> String {
    match field_type {
        FieldType::F64 => "DOUBLE".into(),
        FieldType::I64 => "BIGINT".into(),
        FieldType::U64 => "NUMERIC(20,0)".into(),
        FieldType::Bool => "BOOLEAN".into(),
        FieldType::Text => "TEXT".into(),
        FieldType::Decimal { digits, scale } => format!("DECIMAL({digits},{scale})"),
    }
}

/// All columns of a table: tags, then fields, each in order of first appearance, then `time`.
/// The partition column `eden_day` is not among them: queries never see it.
#[derive(Clone, Debug)]
pub struct TableSchema {
    columns: Vec<Column>,
    /// Places in `columns`.
    by_name: HashMap<Arc<str>, usize>,
    arrow: SchemaRef,
}

impl TableSchema {
    /// A schema of these tags and fields.
    pub fn new(tags: &[Arc<str>], fields: &[(Arc<str>, FieldType)]) -> Self {
        let tags = tags.iter().map(|name| Column { name: Arc::clone(name), kind: ColumnKind::Tag });
        let fields = fields.iter().map(|(name, t)| Column { name: Arc::clone(name), kind: ColumnKind::Field(*t) });
        let columns: Vec<Column> =
            tags.chain(fields).chain([Column { name: "time".into(), kind: ColumnKind::Time }]).collect();
        let arrow = columns
            .iter()
            .map(|column| Field::new(&*column.name, column.data_type(), column.kind != ColumnKind::Time))
            .collect::<Vec<_>>();
        let by_name = columns.iter().enumerate().map(|(i, column)| (Arc::clone(&column.name), i)).collect();
        TableSchema { columns, by_name, arrow: Arc::new(Schema::new(arrow)) }
    }

    /// The columns in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of exactly this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.by_name.get(name).map(|place| &self.columns[*place])
    }

    /// The tags in order.
    pub fn tags(&self) -> impl Iterator<Item = &Arc<str>> {
        self.columns.iter().filter(|column| column.kind == ColumnKind::Tag).map(|column| &column.name)
    }

    /// The fields in order.
    pub fn fields(&self) -> impl Iterator<Item = (&Arc<str>, FieldType)> {
        self.columns.iter().filter_map(|column| match column.kind {
            ColumnKind::Field(field_type) => Some((&column.name, field_type)),
            ColumnKind::Tag | ColumnKind::Time => None,
        })
    }

    /// The schema that queries see.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }
}
