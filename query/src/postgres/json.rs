//! `json_build_object`.
//!
//! Owns:     an object of names and values in turn, as text.
//! Does not: read JSON (`functions` does).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use serde_json::Value;

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonBuildObject(Signature);

/// The function, under both of its names.
pub(super) fn build_object() -> ScalarUDF {
    let of_any = Signature::one_of(
        vec![datafusion::logical_expr::TypeSignature::Nullary, datafusion::logical_expr::TypeSignature::VariadicAny],
        Volatility::Stable,
    );
    ScalarUDF::from(JsonBuildObject(of_any)).with_aliases(["jsonb_build_object"])
}

impl ScalarUDFImpl for JsonBuildObject {
    fn name(&self) -> &str {
        "json_build_object"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !args.args.len().is_multiple_of(2) {
            return exec_err!("json_build_object takes names and values in turn, so an even number of arguments");
        }
        let column = |value: &ColumnarValue| Column::new(&value.to_array(args.number_rows)?);
        let columns = args.args.iter().map(column).collect::<Result<Vec<_>>>()?;
        let object = |row: usize| -> Result<String> {
            let mut parts = Vec::with_capacity(columns.len() / 2);
            for pair in columns.chunks_exact(2) {
                let Some(name) = pair[0].text(row) else {
                    return exec_err!("json_build_object: a name is null");
                };
                parts.push(format!("{} : {}", Value::from(name), pair[1].json(row)));
            }
            Ok(format!("{{{}}}", parts.join(", ")))
        };
        let objects = (0..args.number_rows).map(object).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(objects))))
    }
}

/// Values as texts, which are quoted unless they are numbers or truths.
struct Column {
    texts: ArrayRef,
    is_plain: bool,
}

impl Column {
    fn new(values: &ArrayRef) -> Result<Self> {
        let data_type = values.data_type();
        let is_plain = data_type.is_numeric() || *data_type == DataType::Boolean;
        Ok(Column { texts: cast(values, &DataType::Utf8)?, is_plain })
    }

    fn text(&self, row: usize) -> Option<&str> {
        let texts = self.texts.as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row))
    }

    fn json(&self, row: usize) -> String {
        match self.text(row) {
            None => "null".to_owned(),
            // NaN and infinity are no numbers of JSON.
            Some(text) if self.is_plain && serde_json::from_str::<Value>(text).is_ok() => text.to_owned(),
            Some(text) => Value::from(text).to_string(),
        }
    }
}
