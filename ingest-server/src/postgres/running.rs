//! The rows of a statement on their way to the client.
//!
//! Invariant: no more than one batch is rendered ahead of the socket, so a client that reads slowly makes its statement
//! wait.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::{BufMut as _, BytesMut};
use futures::StreamExt as _;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::RowDescription;
use query::{QueryError, Rows};

use super::encode::{Encoder, Unsendable};
use super::socket::{Guard, Stop, Writer};
use super::types;

/// Where rows come from.
pub(super) enum Source {
    /// A statement.
    Statement(Box<Rows>),
    /// The session itself.
    Session(Option<RecordBatch>),
}

impl Source {
    pub(super) async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        match self {
            Source::Statement(rows) => rows.next().await,
            Source::Session(batch) => batch.take().map(Ok),
        }
    }

    pub(super) fn schema(&self) -> Option<SchemaRef> {
        match self {
            Source::Statement(rows) => Some(Arc::clone(&rows.schema)),
            Source::Session(batch) => batch.as_ref().map(RecordBatch::schema),
        }
    }
}

/// A result that is being sent.
pub(super) struct Running {
    source: Source,
    encoder: Encoder,
    /// What is left of the last batch, from this row on.
    rest: Option<(RecordBatch, usize)>,
    /// Rows sent so far.
    pub(super) sent: u64,
}

impl Running {
    /// With the columns `announced`, each binary or not.
    pub(super) fn new(source: Source, announced: &SchemaRef, binary: impl Fn(usize) -> bool) -> Self {
        Running { source, encoder: Encoder::new(announced, binary), rest: None, sent: 0 }
    }

    /// Sends rows, at most `limit` of them; whether those were all.
    pub(super) async fn send(
        &mut self,
        guard: &mut Guard<'_>,
        writer: &mut Writer,
        limit: Option<u64>,
    ) -> Result<bool, Stop> {
        let until = limit.map(|limit| self.sent + limit);
        loop {
            let (batch, from) = match self.rest.take() {
                Some(rest) => rest,
                // What is there already is sent while the next rows are computed.
                None => {
                    let next = guard.run(async { Ok(self.source.next().await) }).await?;
                    match next {
                        Some(batch) => (batch?, 0),
                        None => return Ok(true),
                    }
                }
            };
            let values = self.encoder.values(&batch)?;
            let mut row = from;
            while row < batch.num_rows() && until != Some(self.sent) {
                write_row(&values, row, &mut writer.bytes)?;
                row += 1;
                self.sent += 1;
                if writer.bytes.len() >= super::socket::SEND_BYTES {
                    guard.run(writer.flush()).await?;
                }
            }
            drop(values);
            if row < batch.num_rows() {
                self.rest = Some((batch, row));
                return Ok(false);
            }
            if until == Some(self.sent) {
                return Ok(false);
            }
        }
    }
}

fn write_row(values: &[super::encode::Values<'_>], row: usize, out: &mut BytesMut) -> Result<(), Unsendable> {
    let start = out.len();
    out.put_u8(b'D');
    out.put_u32(0);
    out.put_u16(values.len() as u16);
    for value in values {
        if let Err(error) = value.write(row, out) {
            out.truncate(start);
            return Err(error);
        }
    }
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Announces columns, each binary or not.
pub(super) fn description(columns: &SchemaRef, binary: impl Fn(usize) -> bool) -> PgWireBackendMessage {
    let fields = columns.fields().iter().enumerate();
    let fields = fields.map(|(index, field)| types::describe(field, binary(index))).collect();
    PgWireBackendMessage::RowDescription(RowDescription::new(fields))
}
