//! What could not be stored: a bounded log in `DATA/quarantine`, and the table that shows it.
//!
//! Owns:     the log and the bytes of its records (`docs/formats/data-folder.md`), and what of it was replayed.
//! Does not: decide what is set aside, or parse and write it again.
//!
//! The log is opened when it is first needed, and again after a failure. A ring cannot forget one record: what was
//! replayed is noted behind it, and the ring drops the note after what it names.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use model::{FieldType, NodeEpoch, NodeId, TableId, TableName};
use wal::disk::{Disk, Replace, SharedDisk};
use wal::{RingConfig, RingLog, WalError};

use crate::catalog::SYSTEM;
use crate::context::Counter;
use crate::{MemoryRows, SetAside, Storage, StorageError, TableInfo, TableSchema, TableSnapshot};

/// Bytes on disk of all that is set aside; beyond it the oldest goes.
const BYTES_MAX: u64 = 64 << 20;

/// Bytes of a payload that are kept of what is set aside.
pub const SET_ASIDE_BYTES_MAX: usize = 64 << 10;

/// Bytes of each text that are kept.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Bytes of a record from which on another one is begun: each takes a multiple of 4 KiB in the log.
const RECORD_BYTES: usize = 256 << 10;

/// The version of a record that is written; 1 is read.
const VERSION: u8 = 2;
const KIND_PAYLOADS: u8 = 1;
const KIND_REPLAYED: u8 = 2;

/// The folder in the data folder, and what it was called by the first version.
const FOLDER: &str = "quarantine";
const FOLDER_BEFORE: &str = "rejected";

const TABLE: &str = "quarantine";

/// What is kept, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// For [`Storage::replayed`].
    pub id: QuarantineId,
    /// What was set aside.
    pub payload: SetAside,
}

/// Names a payload in the quarantine; shown as `4096-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarantineId {
    /// Of its frame in the log.
    offset: u64,
    /// In its record.
    index: u32,
}

impl fmt::Display for QuarantineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.offset, self.index)
    }
}

/// The error is the text.
impl FromStr for QuarantineId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('-');
        let id = parts.and_then(|(offset, index)| {
            Some(QuarantineId { offset: offset.parse().ok()?, index: index.parse().ok()? })
        });
        id.ok_or_else(|| text.to_owned())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Quarantine {
    disk: SharedDisk,
    config: RingConfig,
    log: Mutex<Option<RingLog>>,
    pub(crate) kept: Counter,
    pub(crate) dropped: Counter,
}

impl Quarantine {
    /// Of the data folder `data`. Takes over the folder that an earlier version made.
    ///
    /// # Errors
    /// If that could not be made durable.
    pub(crate) fn new(disk: SharedDisk, data: &Path, node: NodeId, epoch: NodeEpoch) -> Result<Self, StorageError> {
        let dir = take_over(&*disk, data)?;
        let config = RingConfig::outbox(dir, node, epoch, BYTES_MAX);
        Ok(Quarantine { disk, config, log: Mutex::new(None), kept: Counter::default(), dropped: Counter::default() })
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
        self.append(encode(payloads))?;
        self.kept.add(payloads.len() as u64);
        Ok(())
    }

    /// Durable when it returns.
    fn append(&self, records: Vec<Vec<u8>>) -> Result<(), StorageError> {
        self.with(|log| {
            for record in records {
                let appended = log.append(&record)?;
                if let Some(dropped) = appended.dropped {
                    self.dropped.add(dropped.records);
                    tracing::warn!(records = dropped.records, "the oldest of what was set aside had to go");
                }
            }
            log.sync().map(|_| ())
        })
    }

    fn all(&self) -> Result<Vec<Quarantined>, StorageError> {
        // Nothing was ever set aside: that must not make a log.
        if self.log.lock().expect("no holder of this lock panics").is_none()
            && self.disk.info(&self.config.dir).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        {
            return Ok(Vec::new());
        }
        let (mut kept, mut replayed) = (Vec::new(), HashSet::new());
        for frame in self.with(|log| Ok(log.reader(0)))? {
            let frame = frame?;
            for bytes in frame.records() {
                let path = || self.config.dir.clone();
                match decode(bytes) {
                    Ok(Record::Payloads(payloads)) => kept.extend((0..).zip(payloads).map(|(index, payload)| {
                        Quarantined { id: QuarantineId { offset: frame.position.offset, index }, payload }
                    })),
                    Ok(Record::Replayed(ids)) => replayed.extend(ids),
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
        kept.retain(|payload| !replayed.contains(&payload.id));
        Ok(kept)
    }

    /// Ends the log cleanly.
    pub(crate) fn close(&self) {
        let log = self.log.lock().expect("no holder of this lock panics").take();
        if let Some(Err(e)) = log.map(RingLog::close) {
            tracing::warn!(error = %e, "the log of what was set aside has no clean end");
        }
    }
}

fn take_over(disk: &dyn Disk, data: &Path) -> Result<PathBuf, StorageError> {
    let (before, dir) = (data.join(FOLDER_BEFORE), data.join(FOLDER));
    if disk.info(&before).is_ok() {
        match disk.rename(&before, &dir, Replace::No) {
            Ok(()) => {
                tracing::info!(from = %before.display(), to = %dir.display(), "what was set aside is called quarantine");
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                tracing::warn!(path = %before.display(), "a folder of an earlier version, not used: there is a quarantine");
            }
            Err(e) => return Err(StorageError::io("rename", &before)(e)),
        }
    }
    // Also of a rename that an earlier start did not finish.
    disk.sync_dir(data).map_err(StorageError::io("sync", data))?;
    Ok(dir)
}

impl Storage {
    /// Keeps payloads that could not be stored in the bounded log `DATA/quarantine`, durable when this returns. Blocks.
    ///
    /// # Errors
    /// If they could not be made durable.
    pub fn set_aside(&self, payloads: &[SetAside]) -> Result<(), StorageError> {
        if payloads.is_empty() {
            return Ok(());
        }
        self.shared.check_not_closing()?;
        self.quarantine.add(payloads)
    }

    /// What was set aside, is still kept and was not replayed, the newest last. Blocks.
    ///
    /// # Errors
    /// If the log of it cannot be read.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StorageError> {
        self.quarantine.all()
    }

    /// Takes payloads out of the quarantine, because they are stored now; durable when this returns. Blocks.
    ///
    /// # Errors
    /// If it could not be made durable; they may be out all the same.
    pub fn replayed(&self, ids: &[QuarantineId]) -> Result<(), StorageError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.shared.check_not_closing()?;
        self.quarantine.append(ids.chunks(RECORD_BYTES / 12).map(encode_replayed).collect())
    }

    /// Whether `name` is that of the table that shows what was set aside.
    pub(crate) fn is_quarantine(name: &TableName) -> bool {
        *name.schema == *SYSTEM && *name.table == *TABLE
    }

    /// What was set aside, as `SHOW TABLES` sees it.
    pub(crate) fn quarantine_info() -> TableInfo {
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
    pub(crate) fn quarantine_snapshot(&self, name: &TableName) -> Result<Option<TableSnapshot>, StorageError> {
        if !Storage::is_quarantine(name) {
            return Ok(None);
        }
        let (schema, kept) = (Arc::new(schema()), self.quarantined()?);
        let texts = |text: &dyn Fn(&SetAside) -> String| -> ArrayRef {
            Arc::new(kept.iter().map(|kept| Some(text(&kept.payload))).collect::<StringViewArray>())
        };
        let bytes = kept.iter().map(|kept| Some(kept.payload.payload.len() as i128));
        let bytes = bytes.collect::<Decimal128Array>().with_precision_and_scale(20, 0);
        let times: Vec<i64> = kept.iter().map(|kept| kept.payload.time_us).collect();
        let columns: Vec<ArrayRef> = vec![
            texts(&|payload| payload.source.clone()),
            texts(&|payload| payload.topic.clone()),
            texts(&|payload| payload.reason.clone()),
            texts(&|payload| String::from_utf8_lossy(&payload.payload).into_owned()),
            Arc::new(bytes.expect("a length has fewer than 20 digits")),
            Arc::new(kept.iter().map(|kept| Some(kept.id.to_string())).collect::<StringViewArray>()),
            texts(&|payload| payload.schema.clone()),
            texts(&|payload| payload.precision.clone()),
            Arc::new(kept.iter().map(|kept| Some(kept.payload.is_whole)).collect::<BooleanArray>()),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        ];
        let rows = RecordBatch::try_new(Arc::clone(schema.arrow()), columns).expect("columns were made for the schema");
        let rows = MemoryRows::of_batch(Arc::clone(&schema), rows);
        Ok(Some(TableSnapshot { name: name.clone(), schema, shards: Vec::new(), rows }))
    }
}

fn schema() -> TableSchema {
    let fields = [
        ("reason", FieldType::Text),
        ("payload", FieldType::Text),
        ("bytes", FieldType::U64),
        ("id", FieldType::Text),
        ("database", FieldType::Text),
        ("precision", FieldType::Text),
        ("is_whole", FieldType::Bool),
    ];
    TableSchema::new(&["source".into(), "topic".into()], &fields.map(|(name, t)| (name.into(), t)))
}

#[derive(Debug, PartialEq, Eq)]
enum Record {
    Payloads(Vec<SetAside>),
    Replayed(Vec<QuarantineId>),
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
}

/// Payloads that came together share a record.
fn encode(payloads: &[SetAside]) -> Vec<Vec<u8>> {
    let together = |a: &SetAside, b: &SetAside| {
        (a.time_us, &a.source, &a.topic, &a.schema, &a.precision)
            == (b.time_us, &b.source, &b.topic, &b.schema, &b.precision)
    };
    payloads.chunk_by(together).flat_map(encode_together).collect()
}

fn encode_together(payloads: &[SetAside]) -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = Vec::new();
    for payload in payloads {
        if records.last().is_none_or(|bytes| bytes.len() >= RECORD_BYTES) {
            let mut bytes = vec![VERSION, KIND_PAYLOADS];
            bytes.extend_from_slice(&payload.time_us.to_le_bytes());
            for text in [&payload.source, &payload.topic, &payload.schema, &payload.precision] {
                put_text(&mut bytes, text);
            }
            records.push(bytes);
        }
        let bytes = records.last_mut().expect("there is one by now");
        let kept = &payload.payload[..payload.payload.len().min(SET_ASIDE_BYTES_MAX)];
        bytes.push(u8::from(payload.is_whole && kept.len() == payload.payload.len()));
        put_text(bytes, &payload.reason);
        put(bytes, kept);
    }
    records
}

fn encode_replayed(ids: &[QuarantineId]) -> Vec<u8> {
    let mut bytes = vec![VERSION, KIND_REPLAYED];
    for id in ids {
        bytes.extend_from_slice(&id.offset.to_le_bytes());
        bytes.extend_from_slice(&id.index.to_le_bytes());
    }
    bytes
}

#[derive(Debug, PartialEq, Eq)]
enum Unreadable {
    Newer(u8),
    Malformed,
}

/// Reads forward; every read fails past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable::Malformed)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn part(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = usize::try_from(u32::from_le_bytes(self.chunk()?)).map_err(|_| Unreadable::Malformed)?;
        let (part, rest) = self.0.split_at_checked(len).ok_or(Unreadable::Malformed)?;
        self.0 = rest;
        Ok(part)
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        std::str::from_utf8(self.part()?).map(str::to_owned).map_err(|_| Unreadable::Malformed)
    }
}

fn decode(bytes: &[u8]) -> Result<Record, Unreadable> {
    let mut reader = Reader(bytes);
    let record = match reader.chunk()? {
        [1] => decode_first(&mut reader)?,
        [VERSION] => match reader.chunk()? {
            [KIND_PAYLOADS] => decode_payloads(&mut reader)?,
            [KIND_REPLAYED] => decode_replayed(&mut reader)?,
            _ => return Err(Unreadable::Newer(VERSION)),
        },
        [version] => return Err(Unreadable::Newer(version)),
    };
    if reader.0.is_empty() { Ok(record) } else { Err(Unreadable::Malformed) }
}

/// A record of version 1: one payload, of which it was not said in which unit its times are.
fn decode_first(reader: &mut Reader<'_>) -> Result<Record, Unreadable> {
    let time_us = i64::from_le_bytes(reader.chunk()?);
    let (source, topic, reason) = (reader.text()?, reader.text()?, reader.text()?);
    let payload = reader.part()?.to_vec();
    let is_whole = payload.len() < SET_ASIDE_BYTES_MAX;
    let (schema, precision) = (model::name::PUBLIC.to_owned(), String::new());
    Ok(Record::Payloads(vec![SetAside { time_us, source, topic, schema, precision, reason, payload, is_whole }]))
}

fn decode_payloads(reader: &mut Reader<'_>) -> Result<Record, Unreadable> {
    let time_us = i64::from_le_bytes(reader.chunk()?);
    let (source, topic, schema, precision) = (reader.text()?, reader.text()?, reader.text()?, reader.text()?);
    let mut payloads = Vec::new();
    loop {
        let is_whole = match reader.chunk()? {
            [0] => false,
            [1] => true,
            _ => return Err(Unreadable::Malformed),
        };
        payloads.push(SetAside {
            time_us,
            source: source.clone(),
            topic: topic.clone(),
            schema: schema.clone(),
            precision: precision.clone(),
            reason: reader.text()?,
            payload: reader.part()?.to_vec(),
            is_whole,
        });
        if reader.0.is_empty() {
            return Ok(Record::Payloads(payloads));
        }
    }
}

fn decode_replayed(reader: &mut Reader<'_>) -> Result<Record, Unreadable> {
    let mut ids = Vec::new();
    while !reader.0.is_empty() {
        let offset = u64::from_le_bytes(reader.chunk()?);
        ids.push(QuarantineId { offset, index: u32::from_le_bytes(reader.chunk()?) });
    }
    Ok(Record::Replayed(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> SetAside {
        SetAside {
            time_us: -5,
            source: "mqtt pi-7".into(),
            topic: "eden/v1/pi-7/lp".into(),
            schema: "public".into(),
            precision: "nanosecond".into(),
            reason: "not UTF-8".into(),
            payload: vec![0xff, 0, 1],
            is_whole: true,
        }
    }

    #[test]
    fn payloads_read_back_and_every_cut_or_wrong_byte_is_told() {
        let together = [payload(), SetAside { reason: "another".into(), is_whole: false, ..payload() }];
        let [bytes] = &encode(&together)[..] else { panic!("one record") };
        assert_eq!(decode(bytes), Ok(Record::Payloads(together.to_vec())));
        let first = encode(&together[..1])[0].len();
        for len in 0..bytes.len() {
            let expected =
                if len == first { Ok(Record::Payloads(vec![payload()])) } else { Err(Unreadable::Malformed) };
            assert_eq!(decode(&bytes[..len]), expected, "{len}");
        }
        assert_eq!(decode(&[&bytes[..], b"x"].concat()), Err(Unreadable::Malformed));
        assert_eq!(decode(&[&[3], &bytes[1..]].concat()), Err(Unreadable::Newer(3)));
        assert_eq!(decode(&[&[2, 9], &bytes[2..]].concat()), Err(Unreadable::Newer(2)));
        let long = SetAside { payload: vec![7; 100_000], reason: "é".repeat(5000), ..payload() };
        let Ok(Record::Payloads(kept)) = decode(&encode(&[long])[0]) else { panic!("a payload") };
        assert_eq!((kept[0].payload.len(), kept[0].reason.len(), kept[0].is_whole), (65_536, 4096, false));
        // Others have a record of their own, and so have those that would make it too long.
        let other = SetAside { schema: "plant".into(), ..payload() };
        assert_eq!(encode(&[payload(), other.clone(), other, payload()]).len(), 3);
        assert_eq!(encode(&vec![SetAside { payload: vec![7; 65_536], ..payload() }; 9]).len(), 3);
    }

    #[test]
    fn ids_read_back() {
        let ids = [QuarantineId { offset: 4096, index: 0 }, QuarantineId { offset: u64::MAX, index: u32::MAX }];
        assert_eq!(decode(&encode_replayed(&ids)), Ok(Record::Replayed(ids.to_vec())));
        assert_eq!(decode(&encode_replayed(&ids)[..20]), Err(Unreadable::Malformed));
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("4096".parse::<QuarantineId>().is_err() && "-1-0".parse::<QuarantineId>().is_err());
    }

    /// The bytes that the first version wrote (P13).
    #[test]
    fn a_record_of_the_first_version_is_read() {
        let bytes = [
            &[1, 5, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 0, 0, 0, b's', 1, 0, 0, 0, b't', 1, 0, 0, 0, b'r'],
            &[2, 0, 0, 0, 0xff, 0],
        ]
        .concat();
        let expected = SetAside {
            time_us: 5,
            source: "s".into(),
            topic: "t".into(),
            schema: "public".into(),
            precision: String::new(),
            reason: "r".into(),
            payload: vec![0xff, 0],
            is_whole: true,
        };
        assert_eq!(decode(&bytes), Ok(Record::Payloads(vec![expected])));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(Unreadable::Malformed));
    }
}
