//! As-of joins: to each row the one of another table that was last before it.
//!
//! Owns:     what may be said, and finding it in a statement.
//! Does not: make rows (`exec` does).
//!
//! Two ways to say it, as their users know them:
//!
//! - `a ASOF JOIN b ON a.k = b.k AND a.t >= b.t`, of DuckDB: rows of `a` without a match are left out; `ASOF LEFT JOIN` keeps them.
//! - `a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON a.k = b.k`, of Snowflake, where such rows are always kept.
//!
//! `>=` and `>` find the last row of `b` until then, `<=` and `<` the first one from then on. Of several rows of `b` with the same
//! keys and time any one is found. NULL matches nothing.
//!
//! The parser knows the second form only. The first is marked before parsing: `ASOF` goes, and the condition begins with
//! a name that no table has.

mod exec;
mod node;

use std::ops::ControlFlow;

use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::expr_rewriter::normalize_col;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, Extension, JoinType, LogicalPlan, Operator};
use datafusion::sql::parser::{ExplainStatement, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr as Ast, Ident, Join, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use std::sync::Arc;

pub(super) use exec::AsOfPlanner;
use node::AsOfJoin;
pub(super) use node::PushDown;

/// What a marked condition begins with.
const MARK: &str = "as-of join";

/// Marks what the parser does not know.
pub(crate) fn mark(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at < tokens.len() {
        if is_keyword(&tokens[at], Keyword::ASOF)
            && let Some(on) = condition(tokens, at)
        {
            let span = tokens[on].span;
            let word = |value: &str, quote_style, keyword| {
                TokenWithSpan::new(Token::Word(Word { value: value.into(), quote_style, keyword }), span)
            };
            let marked = [word(MARK, Some('"'), Keyword::NoKeyword), word("AND", None, Keyword::AND)];
            tokens.splice(on + 1..on + 1, marked);
            tokens.remove(at);
        }
        at += 1;
    }
}

fn is_keyword(token: &TokenWithSpan, wanted: Keyword) -> bool {
    matches!(&token.token, Token::Word(word) if word.keyword == wanted && word.quote_style.is_none())
}

/// The place of ON in `ASOF [INNER | LEFT [OUTER]] JOIN … ON`, if there is no MATCH_CONDITION before it.
fn condition(tokens: &[TokenWithSpan], asof: usize) -> Option<usize> {
    let mut rest = (asof + 1..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_)));
    loop {
        let at = rest.next()?;
        if is_keyword(&tokens[at], Keyword::JOIN) {
            break;
        }
        if ![Keyword::LEFT, Keyword::OUTER, Keyword::INNER].iter().any(|word| is_keyword(&tokens[at], *word)) {
            return None;
        }
    }
    let mut depth = 0_usize;
    for at in rest {
        match &tokens[at].token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            Token::SemiColon => return None,
            _ if depth > 0 => {}
            _ if is_keyword(&tokens[at], Keyword::ON) => return Some(at),
            _ if is_keyword(&tokens[at], Keyword::MATCH_CONDITION) || is_keyword(&tokens[at], Keyword::USING) => {
                return None;
            }
            _ => {}
        }
    }
    None
}

/// Puts each as-of join into parentheses with what is joined before it, where [`AsOfRelations`] finds it.
pub(crate) fn nest(statement: &mut DfStatement) {
    match statement {
        DfStatement::Statement(ast) => drop(ast.visit(&mut Nest)),
        DfStatement::Explain(ExplainStatement { statement, .. }) => nest(statement),
        DfStatement::CreateExternalTable(_) | DfStatement::CopyTo(_) | DfStatement::Reset(_) => {}
    }
}

struct Nest;

impl VisitorMut for Nest {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.from.iter_mut().for_each(nest_joins);
        ControlFlow::Continue(())
    }
}

fn nest_joins(joined: &mut TableWithJoins) {
    let relations = std::iter::once(&mut joined.relation).chain(joined.joins.iter_mut().map(|join| &mut join.relation));
    for relation in relations {
        if let TableFactor::NestedJoin { table_with_joins, .. } = relation {
            nest_joins(table_with_joins);
        }
    }
    if let Some(last) = joined.joins.iter().rposition(is_asof) {
        let rest = joined.joins.split_off(last + 1);
        let inner = TableWithJoins { relation: joined.relation.clone(), joins: std::mem::take(&mut joined.joins) };
        joined.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
        joined.joins = rest;
    }
}

fn is_asof(join: &Join) -> bool {
    match &join.join_operator {
        JoinOperator::AsOf { .. } => true,
        JoinOperator::Join(JoinConstraint::On(condition))
        | JoinOperator::Inner(JoinConstraint::On(condition))
        | JoinOperator::Left(JoinConstraint::On(condition))
        | JoinOperator::LeftOuter(JoinConstraint::On(condition)) => is_marked(condition),
        _ => false,
    }
}

/// Whether the first part of a condition, or of one that OR makes of it, is the mark.
fn is_marked(condition: &Ast) -> bool {
    match condition {
        Ast::Identifier(Ident { value, quote_style: Some(_), .. }) => value == MARK,
        Ast::BinaryOp { left, .. } => is_marked(left),
        _ => false,
    }
}

/// A condition without the mark.
fn unmarked(condition: Ast) -> Result<Ast> {
    match condition {
        Ast::BinaryOp { left, op: BinaryOperator::And, right } if matches!(*left, Ast::Identifier(_)) => Ok(*right),
        Ast::BinaryOp { left, op: BinaryOperator::And, right } if is_marked(&left) => {
            Ok(Ast::BinaryOp { left: Box::new(unmarked(*left)?), op: BinaryOperator::And, right })
        }
        _ => plan_err!("ASOF JOIN: ON takes equalities and one comparison of times, joined by AND, and here is OR"),
    }
}

/// Plans as-of joins.
#[derive(Debug)]
pub(super) struct AsOfRelations;

impl RelationPlanner for AsOfRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::NestedJoin { mut table_with_joins, alias } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(join) = table_with_joins.joins.pop_if(|join| is_asof(join)) else {
            return Ok(RelationPlanning::Original(Box::new(TableFactor::NestedJoin { table_with_joins, alias })));
        };
        let left = if table_with_joins.joins.is_empty() {
            table_with_joins.relation
        } else {
            nest_joins(&mut table_with_joins);
            TableFactor::NestedJoin { table_with_joins, alias: None }
        };
        let (left, right) = (context.plan(left)?, context.plan(join.relation)?);
        let schema = left.schema().join(right.schema())?;
        let mut condition = |ast: Ast| -> Result<Vec<Expr>> {
            let expr = context.sql_to_expr(ast, &schema)?;
            Ok(split_conjunction_owned(expr))
        };
        let (join_type, conditions) = match join.join_operator {
            JoinOperator::AsOf { match_condition, constraint } => {
                let mut conditions = condition(match_condition)?;
                match constraint {
                    JoinConstraint::On(on) => conditions.extend(condition(on)?),
                    JoinConstraint::None => {}
                    JoinConstraint::Using(_) | JoinConstraint::Natural => {
                        return plan_err!("ASOF JOIN takes ON with equalities, not USING");
                    }
                }
                (JoinType::Left, conditions)
            }
            JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) => {
                (JoinType::Inner, condition(unmarked(on)?)?)
            }
            JoinOperator::Left(JoinConstraint::On(on)) | JoinOperator::LeftOuter(JoinConstraint::On(on)) => {
                (JoinType::Left, condition(unmarked(on)?)?)
            }
            other => return plan_err!("ASOF JOIN: {other:?} is no such join"),
        };
        let plan = planned(left, right, join_type, conditions)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The plan of a join by its conditions.
fn planned(left: LogicalPlan, right: LogicalPlan, join_type: JoinType, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    let (mut keys, mut matches) = (Vec::new(), Vec::new());
    for condition in conditions {
        let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = condition else {
            return plan_err!("ASOF JOIN: the condition takes comparisons such as a.t >= b.t, not {condition}");
        };
        let shown = || format!("{a} {op} {b}");
        let of = |expr: &Expr, plan: &LogicalPlan| {
            let expr = normalize_col(expr.clone(), plan).ok()?;
            (!expr.column_refs().is_empty() && is_of(&expr, plan.schema())).then_some(expr)
        };
        let (ours, theirs, op) = match (of(&a, &left), of(&b, &right), of(&b, &left), of(&a, &right)) {
            (Some(ours), Some(theirs), ..) => (ours, theirs, Some(op)),
            (_, _, Some(ours), Some(theirs)) => (ours, theirs, op.swap()),
            _ => {
                return plan_err!(
                    "ASOF JOIN: {} does not compare a column of one table with one of the other",
                    shown()
                );
            }
        };
        match op {
            Some(Operator::Eq) => keys.push((ours, theirs)),
            Some(op @ (Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq)) => {
                matches.push((ours, theirs, op));
            }
            _ => return plan_err!("ASOF JOIN: {} is neither an equality nor >=, >, <= or <", shown()),
        }
    }
    let count = matches.len();
    let Some(match_on) = matches.pop().filter(|_| count == 1) else {
        return plan_err!(
            "ASOF JOIN: the condition has one comparison of times, such as a.t >= b.t, and here are {count}"
        );
    };
    let node = AsOfJoin::try_new(left, right, join_type, keys, match_on)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

fn is_of(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().iter().all(|column| schema.has_column(column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    #[test]
    fn only_the_form_that_the_parser_does_not_know_is_marked() {
        for (sql, expected) in [
            ("FROM a ASOF JOIN b ON a.t >= b.t", "FROM a  JOIN b ON\"as-of join\"AND a.t >= b.t"),
            ("FROM a asof left join (SELECT 1 ON) b ON x", "FROM a  left join (SELECT 1 ON) b ON\"as-of join\"AND x"),
            ("FROM a ASOF JOIN b MATCH_CONDITION (x) ON y", "FROM a ASOF JOIN b MATCH_CONDITION (x) ON y"),
            ("SELECT asof FROM a JOIN b ON y", "SELECT asof FROM a JOIN b ON y"),
            ("(SELECT 1 FROM a ASOF JOIN b) x JOIN c ON y", "(SELECT 1 FROM a ASOF JOIN b) x JOIN c ON y"),
            ("ASOF", "ASOF"),
        ] {
            let mut tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap();
            mark(&mut tokens);
            let shown: String = tokens.iter().map(|token| token.token.to_string()).collect();
            assert_eq!(shown, expected);
        }
    }
}
