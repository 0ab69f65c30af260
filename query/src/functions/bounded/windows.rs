//! Aggregates that make lists or texts of all that they are given, over windows: `array_agg(x) OVER (…)`.
//!
//! Owns:     what all lists of one call may take.
//! Does not: collect (DataFusion's aggregate of the name does).
//!
//! Each row has a list of its own, so lists of a window as wide as the table take the square of its rows, in no pool.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, SetMonotonicity, Signature};

/// Bytes of the values that one call makes, in all rows of a statement.
const WINDOWS_BYTES_MAX: usize = 256 << 20;

/// The aggregates.
const COLLECTING: [&str; 4] = ["array_agg", "string_agg", "approx_top_k", "lttb"];

/// Whether an aggregate is counted over windows, by what is part of the plan of one statement.
pub(crate) fn is_counted(aggregate: &AggregateUDF) -> bool {
    COLLECTING.contains(&aggregate.name())
}

/// The aggregate with a bound for one statement, if it needs one.
pub(super) fn bounded(aggregate: &Arc<AggregateUDF>) -> Option<Arc<AggregateUDF>> {
    let is_bounded = aggregate.inner().downcast_ref::<OverWindows>().is_some();
    (!is_bounded && is_counted(aggregate)).then(|| {
        let over_windows = OverWindows { inner: Arc::clone(aggregate), made: Arc::default() };
        Arc::new(AggregateUDF::from(over_windows))
    })
}

/// An aggregate over windows.
#[derive(Debug)]
struct OverWindows {
    inner: Arc<AggregateUDF>,
    /// Bytes of the values so far.
    made: Arc<AtomicUsize>,
}

impl PartialEq for OverWindows {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for OverWindows {}

impl Hash for OverWindows {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl OverWindows {
    fn counted(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(Counted { inner, name: self.inner.name().to_owned(), made: Arc::clone(&self.made) })
    }
}

impl AggregateUDFImpl for OverWindows {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(arg_fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }

    // What it would be reversed to has no bound.
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, acc_args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.counted(self.inner.accumulator(acc_args)?))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.counted(self.inner.create_sliding_accumulator(args)?))
    }
}

#[derive(Debug)]
struct Counted {
    inner: Box<dyn Accumulator>,
    name: String,
    made: Arc<AtomicUsize>,
}

impl Accumulator for Counted {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.inner.evaluate()?;
        if self.made.fetch_add(value.size(), Ordering::Relaxed) > WINDOWS_BYTES_MAX {
            return exec_err!(
                "the values of {} OVER would have more than the {WINDOWS_BYTES_MAX} bytes that they may have in all; \
                 narrow its window, or GROUP BY",
                self.name
            );
        }
        Ok(value)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}
