//! Texts that hold JSON: `->` and `json_get`, as text too.
//!
//! Owns:     that what is taken out of JSON is JSON text, as in PostgreSQL.
//! Does not: read JSON (datafusion-functions-json does).
//!
//! That crate's own `json_get` gives a union of types, which no protocol of ours can send. `->>` and the functions that
//! name a type are the crate's.

use std::sync::Arc;

use datafusion::common::{DFSchema, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs::json_get_json_udf;

/// Adds the functions and operators.
///
/// # Errors
/// None that a statement could bring about.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    // Before the crate's planner: the first that knows an operator is taken.
    state.register_expr_planner(Arc::new(Arrow))?;
    datafusion_functions_json::register_all(state)?;
    state.register_udf(Arc::new(ScalarUDF::clone(&json_get_json_udf()).with_aliases(["json_get"])))?;
    Ok(())
}

/// Plans `->` and `#>`.
#[derive(Debug)]
struct Arrow;

impl ExprPlanner for Arrow {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        match expr.op {
            BinaryOperator::Arrow | BinaryOperator::HashArrow => {
                Ok(PlannerResult::Planned(json_get_json_udf().call(vec![expr.left, expr.right])))
            }
            _ => Ok(PlannerResult::Original(expr)),
        }
    }
}
