//! `approx_top_k(value, k)`: the values that are there most often.
//!
//! Owns:     counting in bounded memory.
//! Does not: count exactly: a count may be too low by what was let go of, never too high.
//!
//! As in DuckDB, a list of at most `k` values, the most frequent first. Counters are let go of as by E. Misra and D. Gries,
//! "Finding repeated elements" (1982), many at once (D. Anderson et al., "A High-Performance Algorithm for Identifying
//! Frequent Items in Data Streams", 2017). A value that is more than one row in 10 k is always found.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use super::list;

const NAME: &str = "approx_top_k";

/// The most values that may be asked for.
const K_MAX: usize = 10_000;

/// Counters for each value that is asked for, and at least.
const COUNTERS_PER_VALUE: usize = 10;
const COUNTERS_MIN: usize = 100;

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TopK {
    signature: Signature,
}

impl TopK {
    pub(super) fn new() -> Self {
        TopK { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for TopK {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [_, count] if !count.is_integer() => {
                plan_err!("{NAME}: the second argument is how many values, a whole number, not {count}")
            }
            [value, _] if !RowConverter::supports_fields(&[SortField::new(value.clone())]) => {
                plan_err!("{NAME}: the first argument is of type {value}, whose values cannot be counted")
            }
            [value, _] => Ok(vec![value.clone(), DataType::Int64]),
            _ => plan_err!("{NAME} takes 2 arguments, a value and how many of them; here are {}", types.len()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(DataType::new_list(types[0].clone(), true))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |what: &str, item: DataType| {
            Arc::new(Field::new(format_state_name(args.name, what), DataType::new_list(item, true), true))
        };
        Ok(vec![list("values", DataType::Binary), list("counts", DataType::Int64)])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let count = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>()).map(Literal::value);
        let k = match count {
            Some(ScalarValue::Int64(Some(k))) => match usize::try_from(*k) {
                Ok(k @ 1..=K_MAX) => k,
                _ => return plan_err!("{NAME}: the second argument, how many values, is 1 to {K_MAX}, not {k}"),
            },
            _ => return plan_err!("{NAME}: the second argument, how many values, must be one constant"),
        };
        let value_type = args.expr_fields[0].data_type().clone();
        Ok(Box::new(Counters {
            k,
            rows: RowConverter::new(vec![SortField::new(value_type.clone())])?,
            value_type,
            counts: HashMap::new(),
            value_bytes: 0,
        }))
    }

    fn create_sliding_accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        plan_err!("{NAME} is not supported over a window that moves")
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

struct Counters {
    k: usize,
    rows: RowConverter,
    value_type: DataType,
    /// By the bytes of a row.
    counts: HashMap<Box<[u8]>, i64>,
    value_bytes: usize,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").field("k", &self.k).field("counters", &self.counts.len()).finish_non_exhaustive()
    }
}

impl Counters {
    fn kept(&self) -> usize {
        (self.k * COUNTERS_PER_VALUE).max(COUNTERS_MIN)
    }

    fn add(&mut self, value: &[u8], count: i64) {
        if let Some(counted) = self.counts.get_mut(value) {
            *counted += count;
            return;
        }
        if self.counts.len() >= 2 * self.kept() {
            self.let_go();
        }
        self.value_bytes += value.len();
        self.counts.insert(value.into(), count);
    }

    /// Halves the counters: takes from each as much as the first one has that is too many.
    fn let_go(&mut self) {
        let mut counts: Vec<i64> = self.counts.values().copied().collect();
        let kept = self.kept();
        if counts.len() <= kept {
            return;
        }
        let (_, less, _) = counts.select_nth_unstable_by(kept, |a, b| b.cmp(a));
        let less = *less;
        self.counts.retain(|_, count| {
            *count -= less;
            *count > 0
        });
        self.value_bytes = self.counts.keys().map(|value| value.len()).sum();
    }

    /// The most frequent first; among equals in the order of the values.
    fn ranked(&self) -> Vec<(&[u8], i64)> {
        let mut ranked: Vec<(&[u8], i64)> = self.counts.iter().map(|(value, count)| (&**value, *count)).collect();
        ranked.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        ranked
    }
}

impl Accumulator for Counters {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = self.rows.convert_columns(&values[..1])?;
        let nulls = values[0].logical_nulls();
        for (at, row) in rows.iter().enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at)) {
                self.add(row.data(), 1);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for row in 0..values.len() {
            if values.is_null(row) || counts.is_null(row) {
                continue;
            }
            let (values, counts) = (values.value(row), counts.value(row));
            for (value, count) in values.as_binary::<i32>().iter().zip(counts.as_primitive::<Int64Type>()) {
                if let (Some(value), Some(count)) = (value, count) {
                    self.add(value, count);
                }
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.let_go();
        let ranked = self.ranked();
        let values: BinaryArray = ranked.iter().map(|(value, _)| Some(*value)).collect();
        let counts: Int64Array = ranked.iter().map(|(_, count)| *count).collect();
        Ok(vec![list(Arc::new(values))?, list(Arc::new(counts))?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.counts.is_empty() {
            return ScalarValue::try_from(&DataType::new_list(self.value_type.clone(), true));
        }
        let parser = self.rows.parser();
        let top = self.ranked();
        let values = self.rows.convert_rows(top.iter().take(self.k).map(|(value, _)| parser.parse(value)))?;
        list(Arc::clone(&values[0]))
    }

    fn size(&self) -> usize {
        let counter = size_of::<(Box<[u8]>, i64)>() + 1;
        size_of::<Self>() + self.counts.capacity() * counter + self.value_bytes + self.rows.size()
    }
}
