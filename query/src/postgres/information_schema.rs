//! `information_schema` as PostgreSQL and CrateDB have it: their columns, and their names of types, which are the same.
//!
//! Owns:     the views that their clients read.
//! Does not: serve other clients: for those it is DataFusion's, with Arrow's types.
//!
//! CrateDB's clients see the key of a table, its tags and `time`, as a primary key. PostgreSQL's do not, who would take it for
//! a promise that no tag is missing.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::Result;

use model::name::PUBLIC;
use storage::{ColumnKind, TableInfo};

use crate::catalog::{CATALOG, INFORMATION_SCHEMA, Tables};
use crate::crate_db::SYS;

use super::{Manner, PG_CATALOG};

/// The views that have rows here.
const FILLED: [&str; 3] = ["tables", "columns", "schemata"];

/// The views that are empty here, and their columns: there are no keys, views, sequences and functions of anybody's.
const EMPTY: [(&str, &[&str]); 8] = [
    ("views", &["table_catalog", "table_schema", "table_name", "view_definition", "check_option", "is_updatable"]),
    (
        "key_column_usage",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "ordinal_position",
            "position_in_unique_constraint",
        ],
    ),
    (
        "table_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "table_catalog",
            "table_schema",
            "table_name",
            "constraint_type",
            "is_deferrable",
            "initially_deferred",
            "enforced",
        ],
    ),
    (
        "constraint_column_usage",
        &[
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
        ],
    ),
    (
        "referential_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "unique_constraint_catalog",
            "unique_constraint_schema",
            "unique_constraint_name",
            "match_option",
            "update_rule",
            "delete_rule",
        ],
    ),
    ("sequences", &["sequence_catalog", "sequence_schema", "sequence_name", "data_type"]),
    (
        "routines",
        &[
            "specific_catalog",
            "specific_schema",
            "specific_name",
            "routine_catalog",
            "routine_schema",
            "routine_name",
            "routine_type",
            "data_type",
        ],
    ),
    (
        "parameters",
        &["specific_catalog", "specific_schema", "specific_name", "ordinal_position", "parameter_name", "data_type"],
    ),
];

/// The schema, over the tables of one statement.
#[derive(Debug)]
pub(crate) struct InformationSchema {
    pub(crate) tables: Arc<Tables>,
    /// Whose it is.
    pub(crate) manner: Manner,
}

/// How PostgreSQL calls a type: for people, and in its own catalog.
fn names(data_type: &DataType) -> (&'static str, &'static str) {
    match data_type {
        DataType::Boolean => ("boolean", "bool"),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => ("smallint", "int2"),
        DataType::Int32 | DataType::UInt16 => ("integer", "int4"),
        DataType::Int64 | DataType::UInt32 => ("bigint", "int8"),
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => ("numeric", "numeric"),
        DataType::Decimal32(..) | DataType::Decimal64(..) => ("numeric", "numeric"),
        DataType::Float16 | DataType::Float32 => ("real", "float4"),
        DataType::Float64 => ("double precision", "float8"),
        DataType::Date32 | DataType::Date64 => ("date", "date"),
        DataType::Timestamp(_, None) => ("timestamp without time zone", "timestamp"),
        DataType::Timestamp(_, Some(_)) => ("timestamp with time zone", "timestamptz"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ("bytea", "bytea"),
        _ => ("text", "text"),
    }
}

/// Digits of a numeric type, those behind the point, and the base that they are counted in.
fn digits(data_type: &DataType) -> (Option<i32>, Option<i32>, Option<i32>) {
    match data_type {
        DataType::Int16 => (Some(16), Some(0), Some(2)),
        DataType::Int32 => (Some(32), Some(0), Some(2)),
        DataType::Int64 => (Some(64), Some(0), Some(2)),
        DataType::Float32 => (Some(24), None, Some(2)),
        DataType::Float64 => (Some(53), None, Some(2)),
        DataType::UInt64 => (Some(20), Some(0), Some(10)),
        DataType::Decimal128(digits, scale) => (Some((*digits).into()), Some((*scale).into()), Some(10)),
        _ => (None, None, None),
    }
}

/// A view that is being filled, column by column.
#[derive(Default)]
struct View {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl View {
    fn text<'a>(&mut self, name: &str, values: impl Iterator<Item = Option<&'a str>>) {
        self.fields.push(Field::new(name, DataType::Utf8, true));
        self.columns.push(Arc::new(values.collect::<StringArray>()));
    }

    fn number(&mut self, name: &str, values: impl Iterator<Item = Option<i32>>) {
        self.fields.push(Field::new(name, DataType::Int32, true));
        self.columns.push(Arc::new(values.collect::<Int32Array>()));
    }

    fn truth(&mut self, name: &str, values: impl Iterator<Item = Option<bool>>) {
        self.fields.push(Field::new(name, DataType::Boolean, true));
        self.columns.push(Arc::new(values.collect::<BooleanArray>()));
    }

    fn finish(self) -> Result<Arc<dyn TableProvider>> {
        let schema = Arc::new(Schema::new(self.fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), self.columns)?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}

/// The columns of a table's key, in order.
fn key(info: &TableInfo) -> impl Iterator<Item = &str> {
    let columns = info.schema.columns().iter();
    columns.filter(|column| matches!(column.kind, ColumnKind::Tag | ColumnKind::Time)).map(|column| &*column.name)
}

fn key_name(info: &TableInfo) -> String {
    format!("{}_pkey", info.name.table)
}

impl InformationSchema {
    /// What a schema is called.
    fn called<'a>(&self, schema: &'a str) -> &'a str {
        match self.manner {
            Manner::CrateDb { public } if schema == PUBLIC => public,
            _ => schema,
        }
    }

    fn is_crate_db(&self) -> bool {
        matches!(self.manner, Manner::CrateDb { .. })
    }

    fn view<'a>(&'a self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut view = View::default();
        let infos = self.tables.schemas().into_iter().flat_map(|schema| self.tables.in_schema(schema));
        let infos: Vec<_> = infos.collect();
        match name {
            "schemata" => {
                let own = [INFORMATION_SCHEMA, PG_CATALOG].into_iter();
                let own = own.chain((self.is_crate_db() && self.tables.has_sys()).then_some(SYS));
                let schemas: Vec<&str> =
                    self.tables.schemas().into_iter().map(|schema| self.called(schema)).chain(own).collect();
                view.text("catalog_name", schemas.iter().map(|_| Some(CATALOG)));
                view.text("schema_name", schemas.iter().map(|schema| Some(*schema)));
                view.text("schema_owner", schemas.iter().map(|_| Some("eden")));
                for name in [
                    "default_character_set_catalog",
                    "default_character_set_schema",
                    "default_character_set_name",
                    "sql_path",
                ] {
                    view.text(name, schemas.iter().map(|_| None));
                }
            }
            "tables" => {
                view.text("table_catalog", infos.iter().map(|_| Some(CATALOG)));
                view.text("table_schema", infos.iter().map(|info| Some(self.called(&info.name.schema))));
                view.text("table_name", infos.iter().map(|info| Some(&*info.name.table)));
                view.text("table_type", infos.iter().map(|_| Some("BASE TABLE")));
                for name in [
                    "self_referencing_column_name",
                    "reference_generation",
                    "user_defined_type_catalog",
                    "user_defined_type_schema",
                    "user_defined_type_name",
                ] {
                    view.text(name, infos.iter().map(|_| None));
                }
                view.text("is_insertable_into", infos.iter().map(|_| Some("YES")));
                view.text("is_typed", infos.iter().map(|_| Some("NO")));
                view.text("commit_action", infos.iter().map(|_| None));
                if self.is_crate_db() {
                    let shards = |info: &TableInfo| i32::try_from(info.shards).ok();
                    view.number("number_of_shards", infos.iter().map(|info| shards(info)));
                    view.text("number_of_replicas", infos.iter().map(|_| Some("0")));
                    // A reading with a new field makes its column.
                    view.text("column_policy", infos.iter().map(|_| Some("dynamic")));
                    view.truth("closed", infos.iter().map(|_| Some(false)));
                    view.text("clustered_by", infos.iter().map(|_| None));
                    view.text("blobs_path", infos.iter().map(|_| None));
                }
            }
            "key_column_usage" if self.is_crate_db() => {
                let of = |info: &'a TableInfo| key(info).zip(1..).map(move |(column, at)| (info, column, at));
                let all: Vec<_> = infos.iter().copied().flat_map(of).collect();
                let names: Vec<String> = all.iter().map(|(info, ..)| key_name(info)).collect();
                view.text("constraint_catalog", all.iter().map(|_| Some(CATALOG)));
                view.text("constraint_schema", all.iter().map(|(info, ..)| Some(self.called(&info.name.schema))));
                view.text("constraint_name", names.iter().map(|name| Some(name.as_str())));
                view.text("table_catalog", all.iter().map(|_| Some(CATALOG)));
                view.text("table_schema", all.iter().map(|(info, ..)| Some(self.called(&info.name.schema))));
                view.text("table_name", all.iter().map(|(info, ..)| Some(&*info.name.table)));
                view.text("column_name", all.iter().map(|(_, column, _)| Some(*column)));
                view.number("ordinal_position", all.iter().map(|(.., at)| Some(*at)));
            }
            "table_constraints" if self.is_crate_db() => {
                let names: Vec<String> = infos.iter().map(|info| key_name(info)).collect();
                view.text("constraint_catalog", infos.iter().map(|_| Some(CATALOG)));
                view.text("constraint_schema", infos.iter().map(|info| Some(self.called(&info.name.schema))));
                view.text("constraint_name", names.iter().map(|name| Some(name.as_str())));
                view.text("table_catalog", infos.iter().map(|_| Some(CATALOG)));
                view.text("table_schema", infos.iter().map(|info| Some(self.called(&info.name.schema))));
                view.text("table_name", infos.iter().map(|info| Some(&*info.name.table)));
                view.text("constraint_type", infos.iter().map(|_| Some("PRIMARY KEY")));
                view.text("is_deferrable", infos.iter().map(|_| Some("NO")));
                view.text("initially_deferred", infos.iter().map(|_| Some("NO")));
            }
            "columns" => {
                let all: Vec<_> = infos
                    .iter()
                    .flat_map(|info| {
                        info.schema.arrow().fields().iter().zip(1..).map(move |(field, at)| (info, field, at))
                    })
                    .collect();
                view.text("table_catalog", all.iter().map(|_| Some(CATALOG)));
                view.text("table_schema", all.iter().map(|(info, ..)| Some(self.called(&info.name.schema))));
                view.text("table_name", all.iter().map(|(info, ..)| Some(&*info.name.table)));
                view.text("column_name", all.iter().map(|(_, field, _)| Some(field.name().as_str())));
                view.number("ordinal_position", all.iter().map(|(.., at)| Some(*at)));
                view.text("column_default", all.iter().map(|_| None));
                view.text(
                    "is_nullable",
                    all.iter().map(|(_, field, _)| Some(if field.is_nullable() { "YES" } else { "NO" })),
                );
                view.text("data_type", all.iter().map(|(_, field, _)| Some(names(field.data_type()).0)));
                view.number("character_maximum_length", all.iter().map(|_| None));
                view.number("character_octet_length", all.iter().map(|_| None));
                view.number("numeric_precision", all.iter().map(|(_, field, _)| digits(field.data_type()).0));
                view.number("numeric_precision_radix", all.iter().map(|(_, field, _)| digits(field.data_type()).2));
                view.number("numeric_scale", all.iter().map(|(_, field, _)| digits(field.data_type()).1));
                let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
                view.number(
                    "datetime_precision",
                    all.iter().map(|(_, field, _)| is_time(field.data_type()).then_some(6)),
                );
                view.text("interval_type", all.iter().map(|_| None));
                view.text("collation_name", all.iter().map(|_| None));
                view.text("domain_name", all.iter().map(|_| None));
                view.text("udt_catalog", all.iter().map(|_| Some(CATALOG)));
                view.text("udt_schema", all.iter().map(|_| Some(PG_CATALOG)));
                view.text("udt_name", all.iter().map(|(_, field, _)| Some(names(field.data_type()).1)));
                view.text("is_identity", all.iter().map(|_| Some("NO")));
                view.text("identity_generation", all.iter().map(|_| None));
                view.text("is_generated", all.iter().map(|_| Some("NEVER")));
                view.text("generation_expression", all.iter().map(|_| None));
                view.text("is_updatable", all.iter().map(|_| Some("YES")));
            }
            other => {
                let Some((_, columns)) = EMPTY.iter().find(|(known, _)| *known == other) else { return Ok(None) };
                columns.iter().for_each(|column| view.text(column, std::iter::empty()));
            }
        }
        view.finish().map(Some)
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        FILLED.iter().copied().chain(EMPTY.iter().map(|(name, _)| *name)).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.view(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}
