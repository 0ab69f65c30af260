//! What the server knows of each agent: which batches it has, and what agents say of themselves.
//!
//! Owns:     the way in for batches that are named, and for what agents say.
//! Does not: keep what is known (`registry`), or make its rows (`rows`).
//!
//! A named batch is logged as its readings, then one record with its name. Only when that record is applied is the
//! batch known, and the same batch again a duplicate: acknowledged with the first one and not applied, so that a retry
//! does not undo a correction. See `docs/adr/0011-batch-identity.md`.

mod ranges;
mod registry;
mod rows;

use std::sync::Arc;

use model::name::check_name;
use model::record::{self, AgentBatchRecord, AgentStatusRecord};
use model::{TableBatch, TableName};

pub use model::record::{AgentGap, Seen};
pub(crate) use registry::{AgentEvent, Agents};
pub(crate) use rows::AGENTS_TABLE;

use crate::admit::TIME_MIN_US;
use crate::catalog::SYSTEM;
use crate::write::{Ack, Subject, Token};
use crate::{PendingWrite, RejectedRow, Storage, StorageError};
use registry::Begun;

/// Gaps that one batch may report. Longer lists are a mistake of the writer's.
pub const GAPS_PER_BATCH_MAX: usize = 1000;

/// Bytes of a gap's reason, and of an agent's version.
const WORD_BYTES_MAX: usize = 64;

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

/// A payload, or a part of one, that could not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// When it came, microseconds since 1970-01-01 UTC.
    pub time_us: i64,
    /// The writer, for people: `mqtt pi-7 127.0.0.1:50412`.
    pub source: String,
    /// The MQTT topic or HTTP path.
    pub topic: String,
    /// The schema of its tables.
    pub schema: String,
    /// The unit of times in lines without a header, as the write endpoint spells it; empty if these are no lines that
    /// could be written again.
    pub precision: String,
    /// Why, in one sentence.
    pub reason: String,
    /// The bytes as they came, decompressed; cut to 64 KiB.
    pub payload: Vec<u8>,
    /// Whether `payload` is complete, and nothing but what was not stored, so that it may be written again.
    pub is_whole: bool,
}

impl Storage {
    /// As [`Storage::write`], for a batch that its agent may send again. `batches` may be empty.
    ///
    /// # Errors
    /// As [`Storage::write`].
    pub fn write_of_agent(
        &self,
        batches: Vec<TableBatch>,
        batch: &AgentBatch,
        source: &str,
    ) -> Result<(PendingWrite, Seen), StorageError> {
        self.write_of_agent_setting_aside(batches, batch, source, |_| Vec::new())
    }

    /// As [`Storage::write_of_agent`]. `set_aside` is asked, once the rows are judged and before anything is logged,
    /// what of the batch is to be set aside; that is durable before the batch is known, so that no crash makes a
    /// duplicate of a batch whose refused part is nowhere. It is not asked for a duplicate.
    ///
    /// # Errors
    /// As [`Storage::write`] and [`Storage::set_aside`]; nothing of the batch was stored then, but it may be set aside.
    pub fn write_of_agent_setting_aside(
        &self,
        batches: Vec<TableBatch>,
        batch: &AgentBatch,
        source: &str,
        set_aside: impl FnOnce(&[RejectedRow]) -> Vec<SetAside>,
    ) -> Result<(PendingWrite, Seen), StorageError> {
        batch.check()?;
        Storage::check_schemas(&batches)?;
        self.shared.check_open()?;
        self.shared.agents.open_tables(&self.shared.catalog)?;
        let received_us = self.shared.context.clock.now_us();
        let limit_us = self.time_limit().max_us;
        let gap = |gap: &AgentGap| AgentGap {
            reason: cut(&gap.reason),
            // A clock that is off must not make a partition of its own far in the future.
            time_us: gap.time_us.clamp(TIME_MIN_US, limit_us.max(TIME_MIN_US)),
            ..gap.clone()
        };
        let mut logged = AgentBatchRecord {
            agent: Arc::clone(&batch.agent),
            epoch: batch.epoch,
            seq: batch.seq,
            crc: batch.crc,
            seen: Seen::Duplicate,
            received_us,
            readings: 0,
            gaps: Vec::new(),
        };
        let (ack, durable) = Ack::new(&self.shared.in_flight);
        match self.shared.agents.begin(batch, source, &ack) {
            Begun::Again => {
                self.append_event(AgentEvent::Batch(logged, None), &ack)?;
                ack.durable();
                self.shared.agents.duplicates.add(1);
                Ok((PendingWrite { rejected: Vec::new(), accepted: 0, durable }, Seen::Duplicate))
            }
            Begun::First(pending, seen) => {
                // The readings have acknowledgements of their own.
                ack.durable();
                let admitted = self.admit(batches, source)?;
                let refused = set_aside(&admitted.rejected);
                if !refused.is_empty() {
                    self.set_aside(&refused)?;
                }
                logged.seen = seen;
                logged.readings = admitted.accepted() as u64;
                logged.gaps = batch.gaps.iter().map(gap).collect();
                let written = self.append(admitted, Some(AgentEvent::Batch(logged, Some(pending))))?;
                self.shared.agents.conflicts.add(u64::from(seen == Seen::Conflict));
                Ok((written, seen))
            }
        }
    }

    /// Takes note of what an agent says of itself.
    ///
    /// # Errors
    /// As [`Storage::write`].
    pub fn note_agent(&self, status: &AgentStatus, _source: &str) -> Result<PendingWrite, StorageError> {
        check_name("agent", &status.agent).map_err(|e| StorageError::Invalid(e.to_string()))?;
        self.shared.check_open()?;
        self.shared.agents.open_tables(&self.shared.catalog)?;
        let logged = AgentStatusRecord {
            agent: Arc::clone(&status.agent),
            received_us: self.shared.context.clock.now_us(),
            online: status.online,
            version: status.version.as_deref().map(cut),
            epoch: status.epoch,
            seq: status.seq,
            backlog_batches: status.backlog_batches,
            backlog_bytes: status.backlog_bytes,
        };
        let (ack, durable) = Ack::new(&self.shared.in_flight);
        self.append_event(AgentEvent::Status(logged), &ack)?;
        ack.durable();
        Ok(PendingWrite { rejected: Vec::new(), accepted: 0, durable })
    }

    /// Hands a record about an agent to the log.
    pub(crate) fn append_event(&self, event: AgentEvent, ack: &Ack) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        match &event {
            AgentEvent::Batch(batch, _) => record::encode_agent_batch(batch, &mut bytes),
            AgentEvent::Status(status) => record::encode_agent_status(status, &mut bytes),
        }
        self.shared.append(bytes, Token { subject: Subject::Agent(Box::new(event)), ack: ack.share() })
    }
}

impl AgentBatch {
    fn check(&self) -> Result<(), StorageError> {
        let invalid = |message: String| Err(StorageError::Invalid(message));
        check_name("agent", &self.agent).map_err(|e| StorageError::Invalid(e.to_string()))?;
        if self.seq == 0 {
            return invalid("numbers of batches count from 1".into());
        }
        if self.gaps.len() > GAPS_PER_BATCH_MAX {
            return invalid(format!("{} gaps in one batch; at most {GAPS_PER_BATCH_MAX} are read", self.gaps.len()));
        }
        match self.gaps.iter().find(|gap| gap.first_seq == 0 || gap.first_seq > gap.last_seq) {
            Some(gap) => invalid(format!("a gap from batch {} to batch {}", gap.first_seq, gap.last_seq)),
            None => Ok(()),
        }
    }
}

/// The name of `system.agents`.
pub(crate) fn is_agents_table(name: &TableName) -> bool {
    *name.schema == *SYSTEM && *name.table == *AGENTS_TABLE
}

fn cut(word: &str) -> Arc<str> {
    word[..word.floor_char_boundary(WORD_BYTES_MAX)].into()
}
