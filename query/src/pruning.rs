//! Which shards a query can do without, from the log's statistics alone.
//!
//! Owns:     asking DataFusion's pruning for whole shards.
//! Does not: prune row groups and pages: the Parquet reader does, from the file.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use storage::{ShardView, TableSchema};

use crate::statistics::{ValueRange, null_count, range, visible_rows};

/// The shards that may hold a row for which `predicate` is true, in their order.
pub(crate) fn keep<'a>(
    shards: Vec<&'a ShardView>,
    schema: &TableSchema,
    predicate: Option<Arc<dyn PhysicalExpr>>,
) -> Vec<&'a ShardView> {
    let Some(predicate) = predicate else { return shards };
    let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema.arrow()));
    // A predicate that cannot be used for pruning prunes nothing.
    let Ok(predicate) = builder.try_build(predicate) else { return shards };
    if predicate.always_true() {
        return shards;
    }
    match predicate.prune(&Shards { shards: &shards, schema }) {
        Ok(kept) => shards.into_iter().zip(kept).filter_map(|(shard, keep)| keep.then_some(shard)).collect(),
        Err(error) => {
            tracing::debug!(%error, "no shard was pruned");
            shards
        }
    }
}

struct Shards<'a> {
    shards: &'a [&'a ShardView],
    schema: &'a TableSchema,
}

impl Shards<'_> {
    fn column(&self, column: &Column) -> Option<(&storage::Column, DataType)> {
        let found = self.schema.columns().iter().find(|known| *known.name == *column.name)?;
        Some((found, found.data_type()))
    }

    fn ends(&self, column: &Column, end: impl Fn(ValueRange) -> ScalarValue) -> Option<ArrayRef> {
        let (column, data_type) = self.column(column)?;
        let unknown = ScalarValue::try_from(&data_type).ok()?;
        let value = |view: &&ShardView| range(&view.shard, column).map_or_else(|| unknown.clone(), &end);
        ScalarValue::iter_to_array(self.shards.iter().map(value)).ok()
    }
}

impl PruningStatistics for Shards<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, |range| range.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, |range| range.max)
    }

    fn num_containers(&self) -> usize {
        self.shards.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (column, _) = self.column(column)?;
        let count = |view: &&ShardView| null_count(view, column).map(|nulls| nulls as u64);
        Some(Arc::new(self.shards.iter().map(count).collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.shards.iter().map(|view| Some(visible_rows(view) as u64)).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::DFSchema;
    use datafusion::execution::session_state::SessionStateBuilder;
    use serde_json::json;

    use super::*;
    use crate::statistics::tests::{schema, view};

    /// Shards that stay for `condition` on a table of two: `i` from 0 to 9 and from 10 to 19, `d` a tenth more, the
    /// second masked.
    fn kept(condition: &str) -> Vec<usize> {
        let column = |low: i64| {
            let tenths = |low: i64| low as f64 + 0.1;
            let d = (json!(tenths(low)), json!(tenths(low + 9)));
            [("i", 0, Some((json!(low), json!(low + 9)))), ("s", 10, None), ("d", 0, Some(d))]
        };
        let shards = [view(&column(0), &[]), view(&column(10), &[4])];
        let schema = schema();
        let state = SessionStateBuilder::new_with_default_features().build();
        let columns = DFSchema::try_from(Arc::clone(schema.arrow())).unwrap();
        let expr = state.create_logical_expr(condition, &columns).unwrap();
        let predicate = state.create_physical_expr(expr, &columns).unwrap();
        let kept = keep(shards.iter().collect(), &schema, Some(predicate));
        kept.into_iter().map(|view| shards.iter().position(|shard| std::ptr::eq(shard, view)).unwrap()).collect()
    }

    #[test]
    fn shards_that_cannot_match_are_left_out() {
        for (condition, expected) in [
            ("i > 5", &[0, 1][..]),
            ("i > 9", &[1]),
            ("i = 3", &[0]),
            ("i > 19", &[]),
            ("i > 9 AND f > 1", &[1]),
            ("i > 9 OR f > 1", &[0, 1]),
            ("f IS NULL", &[0, 1]),
            ("s IS NOT NULL", &[]),
            ("i IS NULL", &[]),
            ("d > 9.1", &[1]),
            ("d > 9", &[0, 1]),
            ("d >= 9.10001 AND d < 10.1", &[]),
            ("d = 5.5", &[0]),
            ("time > to_timestamp(1)", &[]),
            ("time <= to_timestamp(1)", &[0, 1]),
            ("tag = 'x'", &[0, 1]),
            ("random() > 0.5", &[0, 1]),
        ] {
            assert_eq!(kept(condition), expected, "{condition}");
        }
    }
}
