//! `LIKE … ESCAPE`.
//!
//! Owns:     other characters than the backslash, which is the only one that DataFusion knows.
//! Does not: match (DataFusion does).

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Statement, Value, VisitMut as _, VisitorMut,
};

/// The character that needs no function.
const BACKSLASH: &str = "\\";

/// Writes `LIKE pattern ESCAPE '/'` as `LIKE like_escape(pattern, '/')`.
pub(crate) fn rewrite(statement: &mut Statement) {
    let _ = statement.visit(&mut Escapes);
}

struct Escapes;

impl VisitorMut for Escapes {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr else {
            return ControlFlow::Continue(());
        };
        if let Some(Value::SingleQuotedString(escape)) = escape_char.as_ref().map(|escape| &escape.value)
            && escape != BACKSLASH
        {
            let escape = Expr::value(Value::SingleQuotedString(escape.clone()));
            **pattern = call(vec![(**pattern).clone(), escape]);
            *escape_char = None;
        }
        ControlFlow::Continue(())
    }
}

fn call(arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("like_escape")]),
        args: FunctionArguments::List(FunctionArgumentList { args, duplicate_treatment: None, clauses: vec![] }),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// `like_escape(pattern, escape)`: the pattern with backslashes for `escape`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct LikeEscape(Signature);

impl LikeEscape {
    pub(crate) fn new() -> Self {
        LikeEscape(Signature::string(2, Volatility::Immutable))
    }
}

impl ScalarUDFImpl for LikeEscape {
    fn name(&self) -> &str {
        "like_escape"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = |at: usize| -> Result<_> { Ok(cast(&args.args[at].to_array(args.number_rows)?, &DataType::Utf8)?) };
        let (patterns, escapes) = (texts(0)?, texts(1)?);
        let pairs = patterns.as_string::<i32>().iter().zip(escapes.as_string::<i32>());
        let escaped = pairs.map(|pair| match pair {
            (Some(pattern), Some(escape)) => with_backslashes(pattern, escape).map(Some),
            _ => Ok(None),
        });
        let escaped: StringArray = escaped.collect::<Result<Vec<_>>>()?.into();
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) && escaped.len() == 1 {
            let first = escaped.is_valid(0).then(|| escaped.value(0).to_owned());
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::Utf8(first)));
        }
        Ok(ColumnarValue::Array(Arc::new(escaped)))
    }
}

fn with_backslashes(pattern: &str, escape: &str) -> Result<String> {
    let mut chars = escape.chars();
    let (escape, None) = (chars.next(), chars.next()) else {
        return exec_err!("ESCAPE takes one character, not {escape:?}");
    };
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            // One that escapes itself is that character.
            char if Some(char) == escape => match chars.next() {
                Some(next @ ('%' | '_' | '\\')) => out.extend(['\\', next]),
                Some(next) => out.push(next),
                None => return exec_err!("the pattern {pattern:?} of LIKE ends with its escape character"),
            },
            '\\' => out.push_str("\\\\"),
            char => out.push(char),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_escaped_by_backslashes() {
        for (pattern, escape, expected) in [
            ("pg/_%", "/", "pg\\_%"),
            ("a//b", "/", "a/b"),
            ("a\\b", "/", "a\\\\b"),
            ("100!%", "!", "100\\%"),
            ("a/b", "", "a/b"),
        ] {
            assert_eq!(with_backslashes(pattern, escape).unwrap(), expected);
        }
        assert!(with_backslashes("a/", "/").is_err());
        assert!(with_backslashes("a", "ab").is_err());
    }
}
