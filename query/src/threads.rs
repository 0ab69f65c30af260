//! For how many threads a statement is planned.
//!
//! To share a few rows among threads takes longer than to compute with them: each hand-over wakes a thread, and groups are
//! made twice, of each part and of all.
//!
//! Owns:     telling which statements read few rows.
//! Does not: count exactly: the rows of a table are an upper bound of those that a condition leaves.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use crate::newest::NewestTable;
use crate::provider::ShardTable;

/// Rows that one thread has done with before another one is awake.
pub(crate) const FEW_ROWS: usize = 1 << 15;

/// Whether an optimised plan reads at most `few` rows and makes no more of them.
pub(crate) fn reads_few(plan: &LogicalPlan, few: usize) -> bool {
    let mut rows = 0_usize;
    let walked = plan.apply_with_subqueries(|node| {
        rows = rows.saturating_add(match node {
            LogicalPlan::TableScan(scan) => rows_of(scan).unwrap_or(usize::MAX),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_) => 0,
            // What joins and the like make of a few rows may be many.
            _ => usize::MAX,
        });
        Ok(if rows > few { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.is_ok() && rows <= few
}

/// The rows of a table of storage at most; `None` for any other.
fn rows_of(scan: &TableScan) -> Option<usize> {
    let provider = source_as_provider(&scan.source).ok()?;
    match provider.downcast_ref::<NewestTable>() {
        Some(newest) => Some(newest.rows_max()),
        None => Some(provider.downcast_ref::<ShardTable>()?.rows_max()),
    }
}
