//! What statements became before they ran, so that one that comes again is not planned from its text again: a panel of a
//! dashboard asks the same every few seconds.
//!
//! Owns:     which logical plans are kept, and giving one the tables as they are now.
//! Does not: make plans (`run` does), or keep physical ones: they depend on what a table holds.
//!
//! Invariants
//!  1. A plan is kept without the snapshots that it was made for, so no row or shard stays for its sake.
//!  2. A plan is kept only if nothing but the statement, its schema and the columns of its tables decides what it is: no
//!     function in it gives something else at another time or to another client, it reads no table but those of storage, and
//!     it has nothing that belongs to one run. All tables that the statement names have the columns that they had then, those
//!     too that the optimizer left out.
//!  3. What is kept is bounded, by the bytes of one plan and of all.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource, Volatility, WindowFunctionDefinition};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use model::TableName;
use storage::TableSchema;

use crate::blank::Blank;
use crate::functions::bounded::windows;
use crate::newest::NewestTable;
use crate::postgres::Manner;
use crate::provider::ShardTable;

/// Bytes of a plan, roughly; a longer one takes so long to run that planning it does not matter.
const PLAN_BYTES_MAX: usize = 128 << 10;

/// Bytes of all plans, roughly.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What a character of a statement takes once it is parsed, roughly.
const BYTES_PER_CHARACTER: usize = 32;

/// What a column of a plan's node takes, roughly.
const COLUMN_BYTES: usize = 128;

/// The tables that a statement reads, as it sees them.
pub(crate) type Snapshots = HashMap<TableName, Arc<ShardTable>>;

/// A statement whose names are put in, the schema of tables without one, and whose names its session sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PlanKey {
    statement: Box<Ast>,
    schema: Box<str>,
    manner: Option<Manner>,
    /// Of the statement with its constants, in bytes.
    length: usize,
}

impl PlanKey {
    /// Bytes of a statement with its constants that may be kept.
    pub(crate) const LENGTH_MAX: usize = PLAN_BYTES_MAX / BYTES_PER_CHARACTER;

    /// The key of a query of so many bytes; `None` for anything else, and for a long one.
    pub(crate) fn new(statement: &DfStatement, length: usize, schema: &str, manner: Option<Manner>) -> Option<PlanKey> {
        let DfStatement::Statement(ast) = statement else { return None };
        let is_kept = length <= PlanKey::LENGTH_MAX && matches!(**ast, Ast::Query(_));
        is_kept.then(|| PlanKey { statement: ast.clone(), schema: schema.into(), manner, length })
    }

    fn bytes(&self) -> usize {
        self.length * BYTES_PER_CHARACTER + self.schema.len()
    }
}

/// The plans of the latest statements.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    plans: HashMap<PlanKey, KeptPlan>,
    bytes: usize,
    /// Counts the times at which somebody asked.
    clock: u64,
}

#[derive(Debug)]
struct KeptPlan {
    plan: LogicalPlan,
    /// All that the statement names, as they were.
    tables: Vec<(TableName, Arc<TableSchema>)>,
    bytes: usize,
    asked: u64,
}

impl Plans {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The optimised plan of a statement over these tables, if it is kept and they have the columns that they had then.
    pub(crate) fn get(&self, key: &PlanKey, tables: &Snapshots) -> Option<LogicalPlan> {
        let plan = {
            let mut kept = self.lock();
            kept.clock += 1;
            let clock = kept.clock;
            let found = kept.plans.get_mut(key)?;
            found.asked = clock;
            let is_same = |(name, schema): &(TableName, Arc<TableSchema>)| {
                tables.get(name).is_some_and(|table| has_columns(table, schema))
            };
            if found.tables.len() != tables.len() || !found.tables.iter().all(is_same) {
                return None;
            }
            found.plan.clone()
        };
        let mut is_whole = true;
        let filled = replace_tables(plan, |source| {
            let filled = blank_of(source).and_then(|blank| filled(&blank, tables));
            is_whole &= filled.is_some();
            filled
        });
        filled.ok().filter(|_| is_whole)
    }

    /// Keeps the `optimised` plan of a statement over these tables, of at most [`PLAN_BYTES_MAX`].
    pub(crate) fn put(&self, key: PlanKey, optimised: &LogicalPlan, tables: &Snapshots) {
        let of_table =
            |(name, table): (&TableName, &Arc<ShardTable>)| (name.clone(), Arc::clone(&table.snapshot.schema));
        let tables: Vec<_> = tables.iter().map(of_table).collect();
        let of_schemas = tables.iter().map(|(_, schema)| schema.columns().len() * COLUMN_BYTES);
        let bytes = of_schemas.fold(key.bytes().saturating_add(bytes_of(optimised)), usize::saturating_add);
        if bytes > PLAN_BYTES_MAX {
            return;
        }
        let mut is_blank = true;
        let blank = replace_tables(optimised.clone(), |source| {
            let blank = blanked(source);
            is_blank &= blank.is_some();
            blank.map(|blank| provider_as_source(Arc::new(blank)))
        });
        let Some(plan) = blank.ok().filter(|_| is_blank) else { return };
        let mut kept = self.lock();
        kept.clock += 1;
        let asked = kept.clock;
        kept.bytes += bytes;
        if let Some(before) = kept.plans.insert(key, KeptPlan { plan, tables, bytes, asked }) {
            kept.bytes -= before.bytes;
        }
        while kept.bytes > KEPT_BYTES_MAX {
            let oldest = kept.plans.iter().min_by_key(|(_, kept)| kept.asked).map(|(key, _)| key.clone());
            let Some(gone) = oldest.and_then(|key| kept.plans.remove(&key)) else { break };
            kept.bytes -= gone.bytes;
        }
    }
}

/// Whether the plan of a statement, as it is before it is optimised, says the same whenever and by whomever it is asked for.
pub(crate) fn is_for_all(plan: &LogicalPlan) -> bool {
    let mut is_for_all = true;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                is_for_all &= means_the_same(expr);
                Ok(if is_for_all { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })
    });
    is_for_all && walked.is_ok()
}

fn means_the_same(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(call) => call.func.signature().volatility,
        Expr::AggregateFunction(call) => call.func.signature().volatility,
        // What it has made so far is counted in the plan.
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(aggregate) if windows::is_counted(aggregate) => return false,
            other => other.signature().volatility,
        },
        Expr::ScalarVariable(..) | Expr::Placeholder(_) | Expr::HigherOrderFunction(_) => return false,
        _ => return true,
    };
    volatility == Volatility::Immutable
}

/// What a plan takes, roughly; all there is, if it has an operator of ours, which may hold anything.
fn bytes_of(plan: &LogicalPlan) -> usize {
    let mut bytes = 0_usize;
    let walked = plan.apply_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Extension(_)) {
            bytes = usize::MAX;
            return Ok(TreeNodeRecursion::Stop);
        }
        bytes += size_of::<LogicalPlan>() + node.schema().fields().len() * COLUMN_BYTES;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                bytes += size_of::<Expr>();
                if let Expr::Literal(value, _) = expr {
                    bytes += value.size();
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    if walked.is_ok() { bytes } else { usize::MAX }
}

/// Puts another table in the place of each; the same one, if there is none.
fn replace_tables(
    plan: LogicalPlan,
    mut other: impl FnMut(&Arc<dyn TableSource>) -> Option<Arc<dyn TableSource>>,
) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::TableScan(mut scan) => match other(&scan.source) {
            Some(source) => {
                scan.source = source;
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// What is kept of a table of storage; `None` for others.
fn blanked(source: &Arc<dyn TableSource>) -> Option<Blank> {
    let provider = source_as_provider(source).ok()?;
    let (table, is_newest) = match provider.downcast_ref::<NewestTable>() {
        Some(newest) => (newest.of(), true),
        None => (provider.downcast_ref::<ShardTable>()?, false),
    };
    let (name, schema) = (table.snapshot.name.clone(), Arc::clone(&table.snapshot.schema));
    Some(Blank { name, schema, is_newest })
}

/// The table in the place of a blank as it is in `tables`, if it has the same columns there.
fn filled(blank: &Blank, tables: &Snapshots) -> Option<Arc<dyn TableSource>> {
    let table = tables.get(&blank.name).filter(|table| has_columns(table, &blank.schema))?;
    let provider: Arc<dyn TableProvider> = match blank.is_newest {
        true => Arc::new(NewestTable::new(ShardTable::clone(table))),
        false => Arc::clone(table) as Arc<dyn TableProvider>,
    };
    Some(provider_as_source(provider))
}

fn has_columns(table: &ShardTable, schema: &Arc<TableSchema>) -> bool {
    let now = &table.snapshot.schema;
    Arc::ptr_eq(now, schema) || now.columns() == schema.columns()
}

fn blank_of(source: &Arc<dyn TableSource>) -> Option<Blank> {
    source_as_provider(source).ok()?.downcast_ref::<Blank>().cloned()
}
