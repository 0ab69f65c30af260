//! Payloads that could not be stored: a bounded log in `DATA/rejected`, and the table that shows it.
//!
//! Owns:     the log and the bytes of its records (`docs/formats/data-folder.md`).
//! Does not: decide what is set aside, or put anything back.
//!
//! The log is opened when it is first needed, and again after a failure.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Decimal128Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use model::{FieldType, NodeEpoch, NodeId, TableId, TableName};
use wal::disk::SharedDisk;
use wal::{RingConfig, RingLog, WalError};

use crate::catalog::SYSTEM;
use crate::context::Counter;
use crate::{SetAside, Storage, StorageError, TableInfo, TableSchema, TableSnapshot};

/// Bytes on disk of all that is set aside; beyond it the oldest goes.
const BYTES_MAX: u64 = 64 << 20;

/// Bytes of a payload that are kept of what is set aside.
pub const SET_ASIDE_BYTES_MAX: usize = 64 << 10;

/// Bytes of each text that are kept.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// The version of a record, the only one there is.
const VERSION: u8 = 1;

const TABLE: &str = "rejected";

/// See the module.
#[derive(Debug)]
pub(crate) struct Rejected {
    disk: SharedDisk,
    config: RingConfig,
    log: Mutex<Option<RingLog>>,
    pub(crate) kept: Counter,
    pub(crate) dropped: Counter,
}

impl Rejected {
    pub(crate) fn new(disk: SharedDisk, dir: PathBuf, node: NodeId, epoch: NodeEpoch) -> Rejected {
        let config = RingConfig::outbox(dir, node, epoch, BYTES_MAX);
        Rejected { disk, config, log: Mutex::new(None), kept: Counter::default(), dropped: Counter::default() }
    }

    /// Works on the log. After an error it is closed: the next call opens it again and sees what is there.
    fn with<R>(&self, work: impl FnOnce(&mut RingLog) -> Result<R, WalError>) -> Result<R, StorageError> {
        let mut log = self.log.lock().expect("no holder of this lock panics");
        let result = match &mut *log {
            Some(log) => work(log),
            None => RingLog::open(Arc::clone(&self.disk), self.config.clone()).and_then(|(opened, recovery)| {
                for loss in recovery.losses {
                    tracing::error!(%loss, "the log of what was set aside has lost something");
                }
                work(log.insert(opened))
            }),
        };
        if result.is_err() {
            *log = None;
        }
        Ok(result?)
    }

    fn add(&self, payloads: &[SetAside]) -> Result<(), StorageError> {
        self.with(|log| {
            for payload in payloads {
                let appended = log.append(&encode(payload))?;
                if let Some(dropped) = appended.dropped {
                    self.dropped.add(dropped.records);
                    tracing::warn!(payloads = dropped.records, "the oldest of what was set aside had to go");
                }
            }
            log.sync()
        })?;
        self.kept.add(payloads.len() as u64);
        Ok(())
    }

    fn all(&self) -> Result<Vec<SetAside>, StorageError> {
        // Nothing was ever set aside: that must not make a log.
        if self.log.lock().expect("no holder of this lock panics").is_none()
            && self.disk.info(&self.config.dir).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        {
            return Ok(Vec::new());
        }
        let mut payloads = Vec::new();
        for frame in self.with(|log| Ok(log.reader(0)))? {
            for bytes in frame?.records() {
                let path = || self.config.dir.clone();
                match decode(bytes) {
                    Ok(payload) => payloads.push(payload),
                    Err(Unreadable::Newer(version)) => {
                        let found = format!("a record of version {version}");
                        return Err(StorageError::NewerFormat { path: path(), found });
                    }
                    Err(Unreadable::Malformed) => {
                        return Err(StorageError::Corrupt { path: path(), reason: "a record is malformed".into() });
                    }
                }
            }
        }
        Ok(payloads)
    }

    /// Ends the log cleanly.
    pub(crate) fn close(&self) {
        let log = self.log.lock().expect("no holder of this lock panics").take();
        if let Some(Err(e)) = log.map(RingLog::close) {
            tracing::warn!(error = %e, "the log of what was set aside has no clean end");
        }
    }
}

impl Storage {
    /// Keeps payloads that could not be stored in the bounded log `DATA/rejected`, durable when this returns. Blocks.
    ///
    /// # Errors
    /// If they could not be made durable.
    pub fn set_aside(&self, payloads: &[SetAside]) -> Result<(), StorageError> {
        if payloads.is_empty() {
            return Ok(());
        }
        self.shared.check_not_closing()?;
        self.rejected.add(payloads)
    }

    /// What was set aside and is still kept, the newest last. Blocks.
    ///
    /// # Errors
    /// If the log of it cannot be read.
    pub fn rejected(&self) -> Result<Vec<SetAside>, StorageError> {
        self.rejected.all()
    }

    /// Whether `name` is that of the table that shows what was set aside.
    pub(crate) fn is_rejected(name: &TableName) -> bool {
        *name.schema == *SYSTEM && *name.table == *TABLE
    }

    /// What was set aside, as `SHOW TABLES` sees it.
    pub(crate) fn rejected_info() -> TableInfo {
        TableInfo {
            name: TableName::new(SYSTEM, TABLE),
            id: TableId([0; 16]),
            schema: Arc::new(schema()),
            shards: 0,
            shard_rows: 0,
            shard_bytes: 0,
            memory_rows: 0,
            waiting_rows: 0,
        }
    }

    /// What was set aside, as a query sees it; `None` if `name` is another table.
    pub(crate) fn rejected_snapshot(&self, name: &TableName) -> Result<Option<TableSnapshot>, StorageError> {
        if !Storage::is_rejected(name) {
            return Ok(None);
        }
        let (schema, payloads) = (Arc::new(schema()), self.rejected()?);
        let texts = |text: &dyn Fn(&SetAside) -> String| -> ArrayRef {
            Arc::new(payloads.iter().map(|payload| Some(text(payload))).collect::<StringViewArray>())
        };
        let bytes = payloads.iter().map(|payload| Some(payload.payload.len() as i128));
        let bytes = bytes.collect::<Decimal128Array>().with_precision_and_scale(20, 0);
        let times: Vec<i64> = payloads.iter().map(|payload| payload.time_us).collect();
        let columns: Vec<ArrayRef> = vec![
            texts(&|payload| payload.source.clone()),
            texts(&|payload| payload.topic.clone()),
            texts(&|payload| payload.reason.clone()),
            texts(&|payload| String::from_utf8_lossy(&payload.payload).into_owned()),
            Arc::new(bytes.expect("a length has fewer than 20 digits")),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        ];
        let rows = RecordBatch::try_new(Arc::clone(schema.arrow()), columns).expect("columns were made for the schema");
        Ok(Some(TableSnapshot { name: name.clone(), schema, shards: Vec::new(), rows: vec![rows] }))
    }
}

fn schema() -> TableSchema {
    let fields = [("reason", FieldType::Text), ("payload", FieldType::Text), ("bytes", FieldType::U64)];
    TableSchema::new(&["source".into(), "topic".into()], &fields.map(|(name, t)| (name.into(), t)))
}

fn encode(payload: &SetAside) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&payload.time_us.to_le_bytes());
    let mut put = |part: &[u8]| {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    };
    for text in [&payload.source, &payload.topic, &payload.reason] {
        put(&text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
    }
    put(&payload.payload[..payload.payload.len().min(SET_ASIDE_BYTES_MAX)]);
    bytes
}

#[derive(Debug, PartialEq, Eq)]
enum Unreadable {
    Newer(u8),
    Malformed,
}

fn decode(bytes: &[u8]) -> Result<SetAside, Unreadable> {
    let (version, rest) = bytes.split_first().ok_or(Unreadable::Malformed)?;
    if *version != VERSION {
        return Err(Unreadable::Newer(*version));
    }
    let (time_us, mut rest) = rest.split_first_chunk::<8>().ok_or(Unreadable::Malformed)?;
    let mut part = || {
        let (len, behind) = rest.split_first_chunk::<4>()?;
        let (part, behind) = behind.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        rest = behind;
        Some(part)
    };
    let mut parts = [&[][..]; 4];
    for slot in &mut parts {
        *slot = part().ok_or(Unreadable::Malformed)?;
    }
    if !rest.is_empty() {
        return Err(Unreadable::Malformed);
    }
    let text = |part: &[u8]| std::str::from_utf8(part).map(str::to_owned).map_err(|_| Unreadable::Malformed);
    Ok(SetAside {
        time_us: i64::from_le_bytes(*time_us),
        source: text(parts[0])?,
        topic: text(parts[1])?,
        reason: text(parts[2])?,
        payload: parts[3].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_back_and_every_cut_or_wrong_byte_is_told() {
        let payload = SetAside {
            time_us: -5,
            source: "mqtt pi-7".into(),
            topic: "eden/v1/pi-7/lp".into(),
            reason: "not UTF-8".into(),
            payload: vec![0xff, 0, 1],
        };
        let bytes = encode(&payload);
        assert_eq!(decode(&bytes), Ok(payload.clone()));
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(Unreadable::Malformed), "{len}");
        }
        assert_eq!(decode(&[&bytes[..], b"x"].concat()), Err(Unreadable::Malformed));
        let newer = [&[2], &bytes[1..]].concat();
        assert_eq!(decode(&newer), Err(Unreadable::Newer(2)));
        let long = SetAside { payload: vec![7; 100_000], reason: "é".repeat(5000), ..payload };
        let kept = decode(&encode(&long)).unwrap();
        assert_eq!((kept.payload.len(), kept.reason.len()), (65_536, 4096));
    }
}
