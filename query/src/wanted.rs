//! Which rows in memory a scan can do without, from its filters.
//!
//! Owns:     bounds of the time, and conditions on tags, which are asked once a series.
//! Does not: filter: what is left is filtered above the scan.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use datafusion::catalog::Session;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use storage::{ColumnKind, RowsWanted, SeriesWanted, TableSchema};

/// What may pass these filters on a table of this schema.
pub(crate) fn rows(session: &dyn Session, schema: &TableSchema, filters: &[Expr]) -> RowsWanted {
    let conditions: Vec<&Expr> = filters.iter().flat_map(split_conjunction).collect();
    let kind = |name: &str| schema.columns().iter().find(|column| *column.name == *name).map(|column| column.kind);
    let time = |expr: &Expr| matches!(expr, Expr::Column(c) if matches!(kind(&c.name), Some(ColumnKind::Time)));
    let (mut first, mut last) = (i64::MIN, i64::MAX);
    for condition in &conditions {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { continue };
        let (op, bound) = match (time(left), time(right)) {
            (true, false) => (Some(*op), right),
            (false, true) => (op.swap(), left),
            _ => continue,
        };
        let Expr::Literal(ScalarValue::TimestampMicrosecond(Some(bound), _), _) = **bound else { continue };
        // A bound itself may be left in: what is left is filtered.
        if matches!(op, Some(Operator::Gt | Operator::GtEq | Operator::Eq)) {
            first = first.max(bound);
        }
        if matches!(op, Some(Operator::Lt | Operator::LtEq | Operator::Eq)) {
            last = last.min(bound);
        }
    }
    let of_tags = |condition: &&&Expr| {
        let columns = condition.column_refs();
        let is_tag = |name: &str| matches!(kind(name), Some(ColumnKind::Tag));
        !columns.is_empty() && !condition.is_volatile() && columns.iter().all(|column| is_tag(&column.name))
    };
    let of_tags = conjunction(conditions.iter().filter(of_tags).map(|condition| (**condition).clone()));
    let series = of_tags.and_then(|condition| of_series(session, schema, &condition));
    RowsWanted { times_us: first..=last, series }
}

/// Asks for each series; `None` if the condition cannot be planned alone, a subquery perhaps.
fn of_series(session: &dyn Session, schema: &TableSchema, condition: &Expr) -> Option<Arc<SeriesWanted>> {
    let tags = schema.columns().iter().zip(schema.arrow().fields());
    let tags = tags.filter(|(column, _)| column.kind == ColumnKind::Tag).map(|(_, field)| Arc::clone(field));
    let tags = DFSchema::try_from(Schema::new(tags.collect::<Vec<_>>())).ok()?;
    let condition: Arc<dyn PhysicalExpr> = session.create_physical_expr(condition.clone(), &tags).ok()?;
    Some(Arc::new(move |series: &RecordBatch| {
        let passes = condition.evaluate(series).and_then(|value| value.into_array(series.num_rows())).ok()?;
        let passes = as_boolean_array(&passes).ok()?;
        // What is neither true nor false does not pass.
        Some(match passes.nulls() {
            Some(nulls) => passes.values() & nulls.inner(),
            None => passes.values().clone(),
        })
    }))
}
