//! The tables of `pg_catalog` where clients need more than `datafusion-pg-catalog` has.
//!
//! Owns:     the types of arrays in tables that are empty here, columns that are missing there, the digits of decimals,
//!           `pg_settings`.
//! Does not: list tables and columns (the library does, over `LiveTables`).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use datafusion::prelude::SessionContext;
use storage::Storage;

use super::ClientSession;
use crate::catalog::Tables;

/// `pg_type.oid` of numeric.
const NUMERIC: i32 = 1700;

/// Reads the library's tables.
static READER: LazyLock<SessionContext> = LazyLock::new(SessionContext::new);

/// The schema, for one statement.
#[derive(Clone)]
pub(crate) struct PgCatalog {
    /// The library's.
    pub(crate) inner: Arc<dyn SchemaProvider>,
    pub(crate) storage: Arc<Storage>,
    /// Who asks, for its settings.
    pub(crate) session: Option<Arc<ClientSession>>,
}

impl std::fmt::Debug for PgCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgCatalog").finish_non_exhaustive()
    }
}

fn list(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(data_type, true)))
}

/// The columns that are arrays in a table that is empty here. Source: PostgreSQL's documentation, "System Catalogs".
fn arrays(table: &str) -> &'static [(&'static str, DataType)] {
    match table {
        "pg_index" => &[
            ("indkey", DataType::Int16),
            ("indcollation", DataType::Int32),
            ("indclass", DataType::Int32),
            ("indoption", DataType::Int16),
        ],
        "pg_constraint" => &[
            ("conkey", DataType::Int16),
            ("confkey", DataType::Int16),
            ("conpfeqop", DataType::Int32),
            ("conppeqop", DataType::Int32),
            ("conffeqop", DataType::Int32),
            ("confdelsetcols", DataType::Int16),
            ("conexclop", DataType::Int32),
        ],
        _ => &[],
    }
}

impl PgCatalog {
    /// An empty table, with arrays as such.
    fn with_arrays(inner: &Arc<dyn TableProvider>, arrays: &[(&str, DataType)]) -> Result<Arc<dyn TableProvider>> {
        let field = |field: &Arc<Field>| match arrays.iter().find(|(name, _)| name == field.name()) {
            Some((name, element)) => Arc::new(Field::new(*name, list(element.clone()), true)),
            None => Arc::clone(field),
        };
        let schema: SchemaRef = Arc::new(Schema::new(inner.schema().fields().iter().map(field).collect::<Vec<_>>()));
        Ok(Arc::new(MemTable::try_new(Arc::clone(&schema), vec![vec![RecordBatch::new_empty(schema)]])?))
    }

    /// `pg_class` with the columns that have no value for any table.
    fn class(inner: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        let schema = inner.schema();
        let texts = ScalarValue::try_from(&list(DataType::Utf8))?;
        let missing = ["relacl", "reloptions"].into_iter().filter(|name| schema.field_with_name(name).is_err());
        let columns = schema.fields().iter().map(|field| col(field.name().as_str()));
        let columns = columns.chain(missing.map(|name| lit(texts.clone()).alias(name)));
        let plan = LogicalPlanBuilder::scan("pg_class", provider_as_source(inner), None)?.project(columns)?.build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    /// `pg_attribute` with the digits of decimals.
    async fn attribute(&self, inner: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        let schema = inner.schema();
        let batches = READER.read_table(inner)?.collect().await?;
        let mut batch = concat_batches(&schema, &batches)?;
        if let Some(modifiers) = self.modifiers(&batch) {
            let at = schema.index_of("atttypmod")?;
            let mut columns = batch.columns().to_vec();
            columns[at] = Arc::new(modifiers);
            batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        }
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }

    /// The library lists the columns of all tables in order, of which one may have come or gone since.
    fn modifiers(&self, batch: &RecordBatch) -> Option<Int32Array> {
        let names = batch.column_by_name("attname")?.as_string_opt::<i32>()?;
        let types = batch.column_by_name("atttypid")?.as_primitive_opt::<Int32Type>()?;
        let tables = Tables::new(self.storage.tables());
        let infos = tables.schemas().into_iter().flat_map(|schema| tables.in_schema(schema));
        // Tables without files have no columns there.
        let stored = infos.filter_map(|info| self.storage.table(&info.name));
        let mut fields = stored.flat_map(|info| info.schema.arrow().fields().iter().cloned().collect::<Vec<_>>());
        let modifier = |row: usize| {
            let field = fields.next().filter(|field| field.name() == names.value(row))?;
            Some(match field.data_type() {
                DataType::Decimal128(digits, scale) if types.value(row) == NUMERIC => {
                    ((i32::from(*digits) << 16) | i32::from(*scale)) + 4
                }
                _ => -1,
            })
        };
        (0..batch.num_rows()).map(modifier).collect::<Option<Vec<i32>>>().map(Int32Array::from)
    }

    /// `pg_settings` with what the session has.
    fn session_settings(
        inner: &dyn TableProvider,
        settings: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn TableProvider>> {
        let schema = inner.schema();
        let column = |field: &Arc<Field>| -> ArrayRef {
            match field.name().as_str() {
                "name" => Arc::new(settings.keys().map(|name| Some(name.as_str())).collect::<StringArray>()),
                "setting" => Arc::new(settings.values().map(|value| Some(value.as_str())).collect::<StringArray>()),
                _ => new_null_array(field.data_type(), settings.len()),
            }
        };
        let nullable = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_nullable(true));
        let columns = schema.fields().iter().map(column).collect();
        let schema: SchemaRef = Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(inner) = self.inner.table(name).await? else { return Ok(None) };
        let settings = self.session.as_ref().map(|session| &session.settings).filter(|settings| !settings.is_empty());
        let table = match (name, arrays(name), settings) {
            ("pg_class", ..) => PgCatalog::class(inner)?,
            ("pg_attribute", ..) => self.attribute(inner).await?,
            ("pg_settings", _, Some(settings)) => PgCatalog::session_settings(&*inner, settings)?,
            (_, [], _) => inner,
            (_, arrays, _) => PgCatalog::with_arrays(&inner, arrays)?,
        };
        Ok(Some(table))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }
}
