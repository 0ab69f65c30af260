//! A table of storage without what it holds: in plans that are kept, and where tables are listed and not read.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use model::TableName;
use storage::TableSchema;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Blank {
    pub(crate) name: TableName,
    pub(crate) schema: Arc<TableSchema>,
    /// Of each series only the newest rows are read.
    pub(crate) is_newest: bool,
}

#[async_trait]
impl TableProvider for Blank {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.arrow())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        internal_err!("{} is read without a snapshot", self.name)
    }
}
