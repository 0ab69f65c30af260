//! Rows of a query as a body that is sent while they come.
//!
//! Invariants
//!  1. An error before `HEAD_BYTES` of output has its own status and shape. One after that ends the connection
//!     without the end of the body, so no client takes a part for the whole.
//!  2. At most one `RecordBatch` is rendered ahead of the socket.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use query::{QueryError, Rows};

use super::cells::Cells;

/// Output held back until it is clear that the query gets that far.
const HEAD_BYTES: usize = 256 << 10;

/// A way to write batches of rows.
pub trait BatchFormat: Send + 'static {
    /// What stands before the rows.
    ///
    /// # Errors
    /// If it cannot show such columns.
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<(), QueryError>;
    /// The next rows.
    ///
    /// # Errors
    /// If it cannot show them.
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), QueryError>;
    /// What stands behind them.
    ///
    /// # Errors
    /// If it cannot end what it began.
    fn tail(&mut self, out: &mut Vec<u8>) -> Result<(), QueryError>;
}

/// A way to write rows one by one.
pub trait RowFormat: Send + 'static {
    /// What stands before the rows.
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>);
    /// One row; `first` is true once.
    fn row(&mut self, columns: &[Cells], row: usize, first: bool, out: &mut Vec<u8>);
    /// What stands after `rows` rows.
    fn tail(&mut self, rows: u64, out: &mut Vec<u8>);
}

/// Writes batches row by row.
pub struct ByRow<F> {
    format: F,
    count: u64,
}

impl<F: RowFormat> ByRow<F> {
    /// No row yet.
    pub fn new(format: F) -> Self {
        ByRow { format, count: 0 }
    }
}

impl<F: RowFormat> BatchFormat for ByRow<F> {
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<(), QueryError> {
        self.format.head(schema, out);
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), QueryError> {
        let columns = batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|e| QueryError::Internal(format!("show a column: {e}")))?;
        for row in 0..batch.num_rows() {
            self.format.row(&columns, row, self.count == 0, out);
            self.count += 1;
        }
        Ok(())
    }

    fn tail(&mut self, out: &mut Vec<u8>) -> Result<(), QueryError> {
        self.format.tail(self.count, out);
        Ok(())
    }
}

struct Rendering<F> {
    rows: Rows,
    format: F,
    ended: bool,
}

impl<F: BatchFormat> Rendering<F> {
    /// Appends the next batch; at the end, the tail.
    async fn step(&mut self, out: &mut Vec<u8>) -> Result<(), QueryError> {
        match self.rows.next().await {
            Some(batch) => self.format.batch(&batch?, out),
            None => {
                self.format.tail(out)?;
                self.ended = true;
                Ok(())
            }
        }
    }
}

/// The body that shows `rows` in `format`. Dropping it cancels the query.
///
/// # Errors
/// What the query said before much was rendered.
pub async fn body(rows: Rows, mut format: impl BatchFormat) -> Result<Body, QueryError> {
    let mut head = Vec::new();
    format.head(&rows.schema, &mut head)?;
    let mut rendering = Rendering { rows, format, ended: false };
    while head.len() < HEAD_BYTES && !rendering.ended {
        rendering.step(&mut head).await?;
    }
    if rendering.ended {
        return Ok(Body::from(head));
    }
    Ok(Body::from_stream(stream::once(async { Ok(Bytes::from(head)) }).chain(rest(rendering))))
}

fn rest<F: BatchFormat>(rendering: Rendering<F>) -> impl Stream<Item = Result<Bytes, QueryError>> {
    stream::try_unfold(rendering, async |mut rendering| {
        if rendering.ended {
            return Ok(None);
        }
        let mut out = Vec::new();
        match rendering.step(&mut out).await {
            Ok(()) => Ok(Some((Bytes::from(out), rendering))),
            Err(e) => {
                tracing::warn!(error = %e, "a query failed while its rows were being sent");
                Err(e)
            }
        }
    })
}
