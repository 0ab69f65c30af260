//! Functions over arrays that clients of PostgreSQL call to look into indexes and constraints.
//!
//! Owns:     `generate_subscripts` and `_pg_expandarray`, as lists: `rewrite` makes rows of them.
//! Does not: know what is in the arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// What is given for each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Its number, from 1.
    Subscript,
    /// The element, `x`, and its number, `n`.
    Expanded,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfArray {
    kind: Kind,
    signature: Signature,
}

/// The functions.
pub(super) fn all() -> Vec<ScalarUDF> {
    [(Kind::Subscript, 2), (Kind::Expanded, 1)]
        .map(|(kind, count)| ScalarUDF::from(OfArray { kind, signature: Signature::any(count, Volatility::Immutable) }))
        .to_vec()
}

fn expanded(element: &DataType) -> Fields {
    vec![Field::new("x", element.clone(), true), Field::new("n", DataType::Int32, true)].into()
}

impl OfArray {
    /// The type of one element of the answer.
    fn element(&self, array: &DataType) -> Result<DataType> {
        let element = match array {
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => field.data_type(),
            DataType::Null => &DataType::Null,
            other => return exec_err!("{} takes an array, not {other}", self.name()),
        };
        Ok(match self.kind {
            Kind::Subscript => DataType::Int32,
            Kind::Expanded => DataType::Struct(expanded(element)),
        })
    }
}

impl ScalarUDFImpl for OfArray {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Subscript => "generate_subscripts",
            Kind::Expanded => "_pg_expandarray",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(self.element(&arg_types[0])?, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args[0].to_array(args.number_rows)?;
        let element = self.element(arrays.data_type())?;
        let field = Arc::new(Field::new_list_field(element, true));
        let of_list = match arrays.data_type() {
            DataType::Null => {
                let nulls = ListArray::new_null(field, arrays.len());
                return Ok(ColumnarValue::Array(Arc::new(nulls)));
            }
            DataType::List(_) => arrays,
            DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                cast(&arrays, &DataType::List(Arc::clone(field)))?
            }
            other => return exec_err!("{} takes an array, not {other}", self.name()),
        };
        let lists = of_list.as_list::<i32>();
        let offsets = lists.offsets().clone();
        // Elements before the first list and behind the last belong to none.
        let mut numbers = vec![0; lists.values().len()];
        for pair in offsets.windows(2) {
            for (number, at) in (1..).zip(pair[0]..pair[1]) {
                numbers[at as usize] = number;
            }
        }
        let numbers: ArrayRef = Arc::new(Int32Array::from(numbers));
        let values: ArrayRef = match self.kind {
            Kind::Subscript => numbers,
            Kind::Expanded => {
                let fields = expanded(lists.values().data_type());
                Arc::new(StructArray::try_new(fields, vec![Arc::clone(lists.values()), numbers], None)?)
            }
        };
        let answer = ListArray::try_new(field, offsets, values, lists.nulls().cloned())?;
        Ok(ColumnarValue::Array(Arc::new(answer)))
    }
}
