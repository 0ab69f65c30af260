//! Groups and their states, looked up once a run.
//!
//! Owns:     where runs begin, which group each is of, and the accumulators.
//! Does not: know where rows come from or who merges the states.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, downcast_primitive_array};
use arrow::compute::{partition, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions};

/// Rows of a run, on average: below, looking up each run costs more than looking up rows by columns.
const RUN_ROWS_MIN: usize = 4;

/// A batch of fewer rows says nothing of those behind it.
const TELLING_ROWS_MIN: usize = 256;

/// Rows that are looked at together for the begin of a run.
const STRETCH: usize = 32;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// Its rows are in the states.
    All,
    /// It does not come in runs, and was left alone.
    Nothing,
}

/// One result of the aggregate and its states, of all groups.
struct Outcome {
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    states: Box<dyn GroupsAccumulator>,
}

/// See the module.
pub(super) struct Groups {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    outcomes: Vec<Outcome>,
    converter: RowConverter,
    /// Keys of the groups, in the order of their numbers.
    rows: Rows,
    numbers: HashMap<Box<[u8]>, usize>,
    /// Of each row of a batch.
    number_of_row: Vec<usize>,
    /// Whether each row of a batch begins a run.
    begins: Vec<u8>,
    schema: SchemaRef,
}

impl Groups {
    pub(super) fn try_new(aggregate: &AggregateExec) -> Result<Self> {
        let keys: Vec<_> = aggregate.group_expr().expr().iter().map(|(expr, _)| Arc::clone(expr)).collect();
        let schema = aggregate.schema();
        let of_key = |field: &Arc<arrow::datatypes::Field>| SortField::new(field.data_type().clone());
        let converter = RowConverter::new(schema.fields()[..keys.len()].iter().map(of_key).collect())?;
        let arguments = aggregate_expressions(aggregate.aggr_expr(), &AggregateMode::Partial, keys.len())?;
        let outcomes = aggregate.aggr_expr().iter().zip(arguments).zip(aggregate.filter_expr());
        let outcomes = outcomes.map(|((expr, arguments), filter)| {
            Ok(Outcome { arguments, filter: filter.clone(), states: expr.create_groups_accumulator()? })
        });
        Ok(Groups {
            outcomes: outcomes.collect::<Result<_>>()?,
            rows: converter.empty_rows(0, 0),
            converter,
            keys,
            numbers: HashMap::new(),
            number_of_row: Vec::new(),
            begins: Vec::new(),
            schema,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Memory of groups and states, roughly.
    pub(super) fn bytes(&self) -> usize {
        let keys = 2 * self.rows.size() + self.numbers.capacity() * size_of::<(Box<[u8]>, usize)>();
        keys + self.outcomes.iter().map(|outcome| outcome.states.size()).sum::<usize>()
    }

    /// Adds rows to the states of their groups.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<Took> {
        let count = batch.num_rows();
        if count == 0 {
            return Ok(Took::All);
        }
        let keys = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(count)).collect::<Result<Vec<_>>>()?;
        let begins = self.begins(&keys, count)?;
        if count >= TELLING_ROWS_MIN && begins.len() * RUN_ROWS_MIN > count {
            return Ok(Took::Nothing);
        }
        self.number_rows(&keys, &begins, count)?;
        let groups = self.numbers.len();
        for outcome in &mut self.outcomes {
            let values = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(count);
            let arguments = outcome.arguments.iter().map(values).collect::<Result<Vec<_>>>()?;
            let filter = outcome.filter.as_ref().map(values).transpose()?;
            let filter: Option<&BooleanArray> = filter.as_ref().map(|filter| as_boolean_array(filter)).transpose()?;
            outcome.states.update_batch(&arguments, &self.number_of_row, filter, groups)?;
        }
        Ok(Took::All)
    }

    /// The rows at which runs begin.
    fn begins(&mut self, keys: &[ArrayRef], count: usize) -> Result<UInt32Array> {
        self.begins.clear();
        self.begins.resize(count, 0);
        self.begins[0] = 1;
        for key in keys {
            mark(key, &mut self.begins)?;
        }
        let mut rows: Vec<u32> = Vec::new();
        // Most stretches have none, and a whole stretch is looked at faster than its rows.
        for (first, stretch) in (0..).step_by(STRETCH).zip(self.begins.chunks(STRETCH)) {
            if stretch.iter().fold(0, |any, begins| any | begins) != 0 {
                rows.extend((first..).zip(stretch).filter(|(_, begins)| **begins != 0).map(|(row, _)| row));
            }
        }
        Ok(rows.into())
    }

    /// Finds or makes the group of each run.
    fn number_rows(&mut self, keys: &[ArrayRef], begins: &UInt32Array, count: usize) -> Result<()> {
        let first = keys.iter().map(|key| take(key, begins, None)).collect::<Result<Vec<_>, _>>()?;
        let first = self.converter.convert_columns(&first)?;
        self.number_of_row.clear();
        let ends = begins.values().iter().skip(1).map(|row| *row as usize).chain([count]);
        for (key, end) in first.iter().zip(ends) {
            let number = match self.numbers.get(key.as_ref()) {
                Some(number) => *number,
                None => {
                    let number = self.numbers.len();
                    self.numbers.insert(key.as_ref().into(), number);
                    self.rows.push(key);
                    number
                }
            };
            self.number_of_row.resize(end, number);
        }
        Ok(())
    }

    /// The states of all groups, which are forgotten: keys first, then what each result has gathered.
    pub(super) fn take_out(&mut self) -> Result<RecordBatch> {
        let mut columns = self.converter.convert_rows(&self.rows)?;
        for outcome in &mut self.outcomes {
            if self.numbers.is_empty() {
                break;
            }
            columns.extend(outcome.states.state(EmitTo::All)?);
        }
        if self.numbers.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        self.rows = self.converter.empty_rows(0, 0);
        self.numbers = HashMap::new();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// Marks rows whose value is not that of the row before. To mark a few too many does no harm.
fn mark(values: &ArrayRef, begins: &mut [u8]) -> Result<()> {
    downcast_primitive_array! {
        values => mark_changes(values.values(), begins),
        DataType::Utf8View => mark_changes(values.as_string_view().views(), begins),
        DataType::BinaryView => mark_changes(values.as_binary_view().views(), begins),
        _ => {
            for run in partition(&[Arc::clone(values)])?.ranges() {
                begins[run.start] = 1;
            }
            return Ok(());
        }
    }
    if let Some(nulls) = values.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (row, begin) in begins.iter_mut().enumerate().skip(1) {
            *begin |= u8::from(nulls.is_valid(row) != nulls.is_valid(row - 1));
        }
    }
    Ok(())
}

/// Views of equal texts may differ, and NaN from NaN: then only a run is cut in two.
fn mark_changes<T: PartialEq>(values: &[T], begins: &mut [u8]) {
    for (begin, pair) in begins.iter_mut().skip(1).zip(values.windows(2)) {
        *begin |= u8::from(pair[0] != pair[1]);
    }
}
