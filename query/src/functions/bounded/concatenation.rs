//! `a || b`, with the bound that a call has.
//!
//! Owns:     the operator as a function, and putting it in the place of the operator.
//! Does not: join lists: DataFusion makes calls of those itself.

use std::sync::Arc;

use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::check_arguments;

/// The operator's name.
const NAME: &str = "||";

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenation(Signature);

impl Concatenation {
    pub(super) fn function() -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Concatenation(Signature::user_defined(Volatility::Immutable))))
    }
}

/// Puts `function` in the place of the operator.
pub(super) fn rewritten(expr: BinaryExpr, function: &Arc<ScalarUDF>) -> Expr {
    Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(
        Arc::clone(function),
        vec![*expr.left, *expr.right],
    ))
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = arg_types else { return plan_err!("{NAME} has two sides, not {}", arg_types.len()) };
        let (left, right) = BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let [left, right] = arg_types else { return plan_err!("{NAME} has two sides, not {}", arg_types.len()) };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        Ok(args.join(" || "))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check_arguments(NAME, &args)?;
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let (left, right) = (args.args[0].to_array(rows)?, args.args[1].to_array(rows)?);
        let joined = concat_elements_dyn(&left, &right)?;
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?));
        }
        Ok(ColumnarValue::Array(joined))
    }
}
