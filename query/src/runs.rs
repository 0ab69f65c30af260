//! Partial aggregates over rows that come in runs of one group, as those of shards do: they are sorted by tags.
//!
//! Owns:     the operator that looks up a group once a run instead of once a row, and the rule that puts it in.
//! Does not: aggregate (the accumulators of the functions do), or tell groups apart (`groups` does).
//!
//! Invariants
//!  1. What comes out is what may come out of the partial aggregate that it stands for: states of all groups, of one
//!     group perhaps more than once. The aggregate above merges them.
//!  2. As soon as rows do not come in runs, all further ones go to that partial aggregate.
//!  3. Memory that is not there is made by handing on the states so far.

mod groups;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties,
    ReplaceChildrenOptions, apply_expression_roots,
};
use futures::{StreamExt, TryStreamExt};

use groups::{Groups, Took};

/// Puts the operator in the place of partial aggregates by groups.
#[derive(Debug)]
pub(crate) struct AggregateByRuns;

impl PhysicalOptimizerRule for AggregateByRuns {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(aggregate) = plan.downcast_ref::<AggregateExec>().filter(|aggregate| is_fit(aggregate)) else {
                return Ok(Transformed::no(plan));
            };
            let by_runs = RunAggregateExec { aggregate: Arc::new(aggregate.clone()), metrics: Default::default() };
            Ok(Transformed::yes(Arc::new(by_runs) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "aggregate_by_runs"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether the operator can stand for this aggregate.
fn is_fit(aggregate: &AggregateExec) -> bool {
    let groups = aggregate.group_expr();
    *aggregate.mode() == AggregateMode::Partial
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.limit_options().is_none()
        && aggregate.dynamic_expressions_produced().is_empty()
        && groups.is_single()
        && !groups.is_empty()
        && groups.expr().iter().all(|(expr, _)| expr.data_type(&aggregate.input_schema()).is_ok_and(|of| is_plain(&of)))
        && aggregate.aggr_expr().iter().all(|expr| expr.groups_accumulator_supported() && expr.order_bys().is_empty())
}

/// Whether keys of the type come out of rows as they went in.
fn is_plain(data_type: &DataType) -> bool {
    !data_type.is_nested() && !matches!(data_type, DataType::Dictionary(..) | DataType::RunEndEncoded(..))
}

/// The operator.
#[derive(Debug)]
struct RunAggregateExec {
    /// What it stands for, and what rows go to that do not come in runs.
    aggregate: Arc<AggregateExec>,
    metrics: ExecutionPlanMetricsSet,
}

impl DisplayAs for RunAggregateExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self.aggregate.group_expr().expr().iter().map(|(expr, _)| expr.to_string()).collect();
        let results: Vec<_> = self.aggregate.aggr_expr().iter().map(|expr| expr.name()).collect();
        write!(f, "RunAggregateExec: gby=[{}], aggr=[{}]", groups.join(", "), results.join(", "))
    }
}

impl ExecutionPlan for RunAggregateExec {
    fn name(&self) -> &'static str {
        "RunAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.aggregate.input()]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let aggregate = Arc::clone(&self.aggregate) as Arc<dyn ExecutionPlan>;
        let replaced = aggregate.replace_children(children, options)?;
        let Some(aggregate) = replaced.downcast_ref::<AggregateExec>() else {
            return internal_err!("an aggregate with another input is an aggregate");
        };
        Ok(Arc::new(RunAggregateExec { aggregate: Arc::new(aggregate.clone()), metrics: Default::default() }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.aggregate.group_expr().expr().iter().map(|(expr, _)| expr), f)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let consumer = MemoryConsumer::new(format!("RunAggregateExec[{partition}]")).with_can_spill(true);
        let work = Work {
            input: self.aggregate.input().execute(partition, Arc::clone(&context))?,
            groups: Groups::try_new(&self.aggregate)?,
            reservation: Some(consumer.register(context.memory_pool())),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            aggregate: Arc::clone(&self.aggregate),
            waiting: None,
            batch_rows: context.session_config().batch_size().max(1),
            is_last: false,
            context,
        };
        let states = futures::stream::try_unfold(work, |mut work| async move {
            let next = work.next().await?;
            Ok(next.map(|batch| (batch, work)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), states.boxed())))
    }
}

/// One partition on its way.
struct Work {
    input: SendableRecordBatchStream,
    groups: Groups,
    /// None once an ordinary aggregate goes on, which has one of its own: memory is shared among those that have.
    reservation: Option<MemoryReservation>,
    metrics: BaselineMetrics,
    aggregate: Arc<AggregateExec>,
    /// States that were taken out and are not handed on yet.
    waiting: Option<RecordBatch>,
    batch_rows: usize,
    /// The input has ended, or is what another aggregate gives.
    is_last: bool,
    context: Arc<TaskContext>,
}

impl Work {
    /// The next states; `None` at the end.
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.hand_on() {
                return Ok(Some(batch));
            }
            if self.is_last {
                // States of what did not come in runs.
                return self.input.try_next().await;
            }
            let Some(batch) = self.input.try_next().await? else {
                self.take_out()?;
                self.is_last = true;
                self.input = Box::pin(EmptyRecordBatchStream::new(self.aggregate.schema()));
                continue;
            };
            let time = self.metrics.elapsed_compute().clone();
            let _timer = time.timer();
            match self.groups.take(&batch)? {
                Took::All => self.make_room()?,
                Took::Nothing => {
                    self.take_out()?;
                    self.reservation = None;
                    self.is_last = true;
                    self.input = self.without_runs(batch)?;
                }
            }
        }
    }

    /// A batch of what waits.
    fn hand_on(&mut self) -> Option<RecordBatch> {
        let waiting = self.waiting.take().filter(|waiting| waiting.num_rows() > 0)?;
        let rows = waiting.num_rows().min(self.batch_rows);
        if rows < waiting.num_rows() {
            self.waiting = Some(waiting.slice(rows, waiting.num_rows() - rows));
        }
        self.metrics.record_output(rows);
        Some(waiting.slice(0, rows))
    }

    /// Takes the states of all groups out; they wait to be handed on.
    fn take_out(&mut self) -> Result<()> {
        self.waiting = Some(self.groups.take_out()?);
        if let Some(reservation) = &mut self.reservation {
            reservation.free();
        }
        Ok(())
    }

    /// Reserves what the groups take; if that is not there, lets go of them.
    fn make_room(&mut self) -> Result<()> {
        let Some(reservation) = &mut self.reservation else { return Ok(()) };
        match reservation.try_resize(self.groups.bytes()) {
            Ok(()) => Ok(()),
            Err(error) if self.groups.is_empty() => Err(error),
            Err(_) => self.take_out(),
        }
    }

    /// The partial aggregate of `first` and all that comes behind it.
    fn without_runs(&mut self, first: RecordBatch) -> Result<SendableRecordBatchStream> {
        let schema = self.input.schema();
        let empty: SendableRecordBatchStream = Box::pin(EmptyRecordBatchStream::new(Arc::clone(&schema)));
        let rest = std::mem::replace(&mut self.input, empty);
        let rows = futures::stream::once(async { Ok(first) }).chain(rest);
        let rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows));
        let rest = Arc::new(Rest { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)) });
        let input = StreamingTableExec::try_new(schema, vec![rest], None, [], false, None)?;
        let aggregate = Arc::clone(&self.aggregate) as Arc<dyn ExecutionPlan>;
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        let aggregate = aggregate.replace_children(vec![Arc::new(input)], options)?;
        aggregate.execute(0, Arc::clone(&self.context))
    }
}

/// Rows that can be read once.
struct Rest {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl PartitionStream for Rest {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        rows.unwrap_or_else(|| Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.schema))))
    }
}
