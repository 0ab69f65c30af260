//! What publishes say, on its way to storage: the part that works or blocks.
//!
//! Owns:     which payload is parsed how, what is set aside, and which acknowledgement waits for which write.
//! Does not: read or write packets, or know of connections.
//!
//! Consecutive payloads of plain line protocol are parsed and written as one: that is what makes small messages
//! cheap. If a line of them is refused, each payload is parsed alone, so that what a message says never depends on
//! its neighbours. Messages that a rule reads are in `mapped`, those of Sparkplug edge nodes in `sparkplug`.
//!
//! Invariants
//!  1. An item's acknowledgement is in a [`Group`] that waits for everything the item stores, and what is set aside
//!     of it is durable before (P1).
//!  2. Items are written in the order in which they came; so are their groups.

mod mapped;
mod sparkplug;

use std::fmt::Write as _;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use decode::line_protocol::{self, Decoded, LineError, Options, Precision};
use model::TableBatch;
use model::name::{PUBLIC, check_name};
use serde::Deserialize;
use settings::ByteSize;
use storage::{AgentStatus, RejectedRow, SET_ASIDE_BYTES_MAX, Seen, SetAside, Storage, StorageError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::topic::{self, Kind};
use crate::agent_batch;
use crate::app::App;
use crate::metrics::Metrics;
use crate::sources::{Became, Counted, Source, Tally};
use decode::unpack::{self, UnpackError};

/// What an agent's batch begins with.
const AGENT_HEADER_START: &[u8] = b"# eden agent=";
/// Refused lines that are set aside for one payload; the others are counted.
const ERRORS_MAX: usize = 4096;
/// The unit of times in lines without an agent's header.
const PRECISION: Precision = Precision::Nanosecond;
/// How long a batch waits before it is tried again, whatever storage says.
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A joined body is parsed as long as it is smaller: the parser's limits are those of one body.
const JOINED_BYTES_MAX: usize = 256 << 10;
/// Between a payload that may hold an open text and the next one: a comment that no text can hold, since it is not
/// UTF-8.
const FENCE: &[u8] = b"#\xff\n";

/// An acknowledgement to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The packet's id.
    pub id: u16,
    /// 1 or 2.
    pub qos: u8,
    /// The reason code of MQTT 5.
    pub code: u8,
    /// The reason string of MQTT 5.
    pub reason: Option<Box<str>>,
}

/// One message.
#[derive(Clone, Copy, Debug)]
struct Item {
    kind: What,
    topic: u32,
    /// Where its properties begin, of which only rules want to know; the payload follows.
    start: u32,
    payload: u32,
    end: u32,
    id: u16,
    qos: u8,
    code: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Line protocol without an agent's header.
    Plain,
    /// Anything else with a topic.
    Message(Kind),
    /// Nothing to do but to acknowledge in its turn.
    Settled,
}

/// Shares of the memory for messages: given back when dropped.
#[derive(Debug, Default)]
pub struct Budget {
    reads: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Adds a share of what is for reads.
    pub fn add_read(&mut self, share: OwnedSemaphorePermit) {
        add(&mut self.reads, share);
    }

    /// Adds a share of what is for large packets.
    pub fn add_large(&mut self, share: OwnedSemaphorePermit) {
        add(&mut self.large, share);
    }

    /// KiB of what is for large packets.
    pub fn large_kib(&self) -> usize {
        self.large.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Takes over the shares of `other`.
    pub fn merge(&mut self, other: Budget) {
        other.reads.into_iter().for_each(|share| self.add_read(share));
        other.large.into_iter().for_each(|share| self.add_large(share));
    }
}

fn add(to: &mut Option<OwnedSemaphorePermit>, share: OwnedSemaphorePermit) {
    match to {
        Some(to) => to.merge(share),
        None => *to = Some(share),
    }
}

/// Messages in order of receipt.
#[derive(Default)]
pub struct Batch {
    data: Vec<u8>,
    items: Vec<Item>,
    topics: Vec<Box<str>>,
    topics_bytes: usize,
    /// What acknowledgements without a write wait for, by item.
    receipts: Vec<(u32, Durable)>,
    /// Its share of memory.
    pub budget: Budget,
}

impl Batch {
    /// Adds a message. `qos` 0 has `id` 0; `properties` are those of MQTT 5, as they came.
    pub fn add(&mut self, kind: Kind, topic: &str, properties: &[u8], payload: &[u8], id: u16, qos: u8) {
        let kind = match kind {
            Kind::Lines if !payload.starts_with(AGENT_HEADER_START) => What::Plain,
            kind => What::Message(kind),
        };
        if self.topics.last().is_none_or(|last| **last != *topic) {
            self.topics.push(topic.into());
            self.topics_bytes += topic.len() + size_of::<Box<str>>();
        }
        let start = self.data.len() as u32;
        if matches!(kind, What::Message(Kind::Rule(_) | Kind::Sparkplug(_))) {
            self.data.extend_from_slice(properties);
        }
        let at = self.data.len() as u32;
        self.data.extend_from_slice(payload);
        let end = self.data.len() as u32;
        if kind == What::Plain {
            if payload.last() != Some(&b'\n') {
                self.data.push(b'\n');
            }
            if payload.contains(&b'"') {
                self.data.extend_from_slice(FENCE);
            }
        }
        let topic = self.topics.len() as u32 - 1;
        self.items.push(Item { kind, topic, start, payload: at, end, id, qos, code: 0 });
    }

    /// Adds an acknowledgement that waits for its turn, and for `durable` if there is one, and for nothing else.
    pub fn add_settled(&mut self, id: u16, qos: u8, code: u8, durable: Option<Durable>) {
        let at = self.data.len() as u32;
        self.receipts.extend(durable.map(|durable| (self.items.len() as u32, durable)));
        self.items.push(Item { kind: What::Settled, topic: 0, start: at, payload: at, end: at, id, qos, code });
    }

    /// Messages.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True without messages.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.items.len() * size_of::<Item>() + self.topics_bytes
    }

    fn payload(&self, item: &Item) -> &[u8] {
        &self.data[item.payload as usize..item.end as usize]
    }

    fn properties(&self, item: &Item) -> &[u8] {
        &self.data[item.start as usize..item.payload as usize]
    }

    fn topic(&self, item: &Item) -> &str {
        &self.topics[item.topic as usize]
    }
}

/// A write on its way to the disk.
pub type Durable = Pin<Box<dyn Future<Output = Result<(), StorageError>> + Send>>;

/// Acknowledgements, and the write that they wait for.
#[derive(Default)]
pub struct Group {
    /// In order of receipt.
    pub acks: Vec<Ack>,
    /// Messages that it settles, those without an acknowledgement included.
    pub messages: usize,
    /// Bytes that they took; those of a whole batch are in its last group.
    pub bytes: usize,
    /// Must be done first.
    pub durable: Option<Durable>,
    /// Given back when it is settled.
    pub budget: Budget,
}

/// Lines that could not be parsed.
struct Bad {
    /// The first [`ERRORS_MAX`].
    errors: Vec<LineError>,
    /// All of them.
    total: u64,
}

/// What is not stored of some messages.
#[derive(Default)]
struct Refused {
    /// By message: why.
    notes: Vec<(usize, String)>,
    /// What is set aside of it.
    aside: Vec<SetAside>,
}

/// A batch being worked on.
pub struct Work {
    app: Arc<App>,
    storage: Arc<Storage>,
    source: Arc<str>,
    counted_as: Source,
    batch: Batch,
    next: usize,
    groups: Vec<Group>,
    /// What the edge node of the item `next` said, if storage has not taken it yet.
    said: Option<sparkplug::Said>,
    /// What is to be sent to the client, as far as it has subscribed to it.
    pub commands: Vec<decode::sparkplug::Command>,
    /// What was set aside, for people: how many messages, and why the last one was.
    pub complaint: Option<(u64, String)>,
}

impl Work {
    /// Begins on `batch`, which came from `source`.
    pub fn new(app: Arc<App>, storage: Arc<Storage>, source: Arc<str>, counted_as: Source, batch: Batch) -> Self {
        Work {
            app,
            storage,
            source,
            counted_as,
            batch,
            next: 0,
            groups: Vec::new(),
            said: None,
            commands: Vec::new(),
            complaint: None,
        }
    }

    /// Works off the batch: off the runtime's threads, a few batches of all connections at a time.
    ///
    /// # Errors
    /// If storage can take nothing any more. What is in [`Work::groups`] is on its way all the same. Without a
    /// `Work`, a bug was hit, and told by the panic hook.
    pub async fn drive(self) -> (Option<Self>, Result<(), StorageError>) {
        let mut work = self;
        loop {
            let parser = Arc::clone(&work.app.parsers).acquire_owned().await.expect("the semaphore is never closed");
            let running = tokio::task::spawn_blocking(move || {
                let _parser = parser;
                let result = work.run();
                (work, result)
            });
            let Ok((back, result)) = running.await else { return (None, Err(StorageError::Closed)) };
            work = back;
            match result {
                Err(StorageError::Busy { retry_after, .. }) => {
                    // A timer that is a feature: storage says when it is worth trying again, and the client is held
                    // back meanwhile.
                    Metrics::add(&work.app.metrics.mqtt.busy, 1);
                    tokio::time::sleep_until(Instant::now() + retry_after.min(BUSY_PAUSE_MAX)).await;
                }
                result => {
                    if result.is_err() {
                        work.count_unread();
                    }
                    return (Some(work), result);
                }
            }
        }
    }

    /// The groups, in order; the last one has the batch's bytes and gives back its budget.
    pub fn groups(&mut self) -> Vec<Group> {
        let mut groups = std::mem::take(&mut self.groups);
        if let Some(last) = groups.last_mut() {
            last.bytes = self.batch.bytes();
            last.budget = std::mem::take(&mut self.batch.budget);
        }
        groups
    }

    fn run(&mut self) -> Result<(), StorageError> {
        while self.next < self.batch.items.len() {
            let first = self.next;
            let plain = self.joined(first, |item| item.kind == What::Plain);
            let mapped = self.joined(first, |item| mapped::rule_of(item).is_some());
            if plain > first {
                self.next = self.plain(first..plain)?;
            } else if mapped > first {
                self.mapped(first..mapped)?;
                self.next = mapped;
            } else {
                self.single(first)?;
                self.next = first + 1;
            }
        }
        Ok(())
    }

    /// The end of those items from `first` on that are of one kind and are dealt with together.
    fn joined(&self, first: usize, is_one: impl Fn(&Item) -> bool) -> usize {
        let mut end = first;
        while let Some(item) = self.batch.items.get(end) {
            let bytes = item.end - self.batch.items[first].start;
            if !is_one(item) || end > first && bytes as usize > JOINED_BYTES_MAX {
                break;
            }
            end += 1;
        }
        end
    }

    /// Stores plain payloads, joined if all is well with them; says how many are dealt with.
    fn plain(&mut self, range: Range<usize>) -> Result<usize, StorageError> {
        let items = &self.batch.items;
        let (start, last) = (items[range.start].start as usize, &items[range.end - 1]);
        // Up to the next payload: with the line break that was added.
        let end = items.get(range.end).map_or(self.batch.data.len(), |next| next.start as usize);
        let decoded = self.parse(&self.batch.data[start..end.max(last.end as usize)]);
        if decoded.errors_total == 0 || range.len() == 1 {
            self.store(range.clone(), start, decoded, None)?;
            return Ok(range.end);
        }
        // One of them, at least, is bad, and may have swallowed others.
        let decoded = self.parse(self.batch.payload(&self.batch.items[range.start]));
        self.store(range.start..range.start + 1, start, decoded, None)?;
        self.next = range.start + 1;
        for index in range.start + 1..range.end {
            let item = self.batch.items[index];
            let decoded = self.parse(self.batch.payload(&item));
            self.store(index..index + 1, item.start as usize, decoded, None)?;
            self.next = index + 1;
        }
        Ok(range.end)
    }

    fn parse(&self, body: &[u8]) -> Decoded {
        let options =
            Options { schema: PUBLIC, precision: PRECISION, now_us: self.app.clock.now_us(), errors_max: ERRORS_MAX };
        line_protocol::parse(body, &options)
    }

    /// Stores what was parsed of the items `range`, whose data begin at `start`; `body` if it is not their payload.
    fn store(
        &mut self,
        range: Range<usize>,
        start: usize,
        decoded: Decoded,
        body: Option<&[u8]>,
    ) -> Result<(), StorageError> {
        let Decoded { batches, errors, errors_total, lines, agent, .. } = decoded;
        let bad = Bad { errors, total: errors_total };
        let rows = batches.iter().map(TableBatch::len).sum::<usize>() as u64 + errors_total;
        let precision = agent.as_ref().map_or(PRECISION, |header| header.precision);
        let written = match agent {
            Some(header) => {
                let batch = agent_batch::named(header, body.unwrap_or_default());
                let mut refused = Refused::default();
                let set_aside = |rejected: &[RejectedRow]| {
                    refused = self.refused(&range, start, body, precision, &bad, rejected);
                    refused.aside.clone()
                };
                // Before the batch is known: a retry after a crash in between must not find it known, and this nowhere.
                let written = self.storage.write_of_agent_setting_aside(batches, &batch, &self.source, set_aside);
                written.map(|(pending, seen)| (pending, seen, refused))
            }
            None => self.storage.write(batches, &self.source).and_then(|pending| {
                let refused = self.refused(&range, start, body, precision, &bad, &pending.rejected);
                self.storage.set_aside(&refused.aside)?;
                Ok((pending, Seen::New, refused))
            }),
        };
        let (pending, seen, refused) = match written {
            Ok(written) => written,
            Err(StorageError::Invalid(reason)) => {
                // The request as a whole: each of its messages is set aside.
                let rows = if range.len() == 1 { rows } else { 1 };
                for index in range {
                    self.refuse_rows(index, body, Some(precision), &reason, rows)?;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        Metrics::add(&self.app.metrics.lines, lines);
        Metrics::add(&self.app.metrics.lines_refused, errors_total);
        self.complain(refused.notes.len(), &refused.aside);
        let mut tally = self.tally(rows);
        let pending = match seen {
            Seen::Duplicate => tally.duplicate(pending),
            Seen::New | Seen::Conflict => tally.storing(pending),
        };
        tally.settle_rest(Became::Quarantined);
        self.push_group(range, Some(pending), refused.notes);
        Ok(())
    }

    /// What is refused of the items `range`: by which item and why, and what of it is to be set aside.
    fn refused(
        &self,
        range: &Range<usize>,
        start: usize,
        body: Option<&[u8]>,
        precision: Precision,
        bad: &Bad,
        rejected: &[RejectedRow],
    ) -> Refused {
        if bad.total == 0 && rejected.is_empty() {
            return Refused::default();
        }
        let unnamed = bad.total - bad.errors.len() as u64;
        let errors = bad.errors.iter().map(|error| (error.line, &error.message));
        let mut refused: Vec<(u32, &String)> =
            errors.chain(rejected.iter().map(|row| (row.line, &row.reason))).collect();
        refused.sort_by_key(|(line, _)| *line);
        let mut notes: Vec<(usize, String)> = Vec::new();
        let mut aside: Vec<SetAside> = Vec::new();
        let data = body.unwrap_or(&self.batch.data[start..]);
        let lines = line_protocol::lines_at(data, refused.iter().map(|(line, _)| *line));
        for ((_, reason), line) in refused.into_iter().zip(lines) {
            let at = start + (line.as_ptr().addr() - data.as_ptr().addr());
            let index = if body.is_some() {
                range.start
            } else {
                let items = &self.batch.items[range.clone()];
                range.start + items.partition_point(|item| item.start as usize <= at).max(1) - 1
            };
            if notes.last().is_none_or(|(last, _)| *last != index) {
                notes.push((index, format!("line refused: {reason}")));
            }
            let is_whole = line.len() <= SET_ASIDE_BYTES_MAX;
            aside.extend(line.chunks(SET_ASIDE_BYTES_MAX).map(|piece| {
                let reason = format!("line refused: {reason}");
                SetAside { is_whole, ..self.set_aside(index, Some(precision), reason, piece.to_vec()) }
            }));
        }
        if unnamed > 0
            && let Some((index, reason)) = notes.last_mut()
        {
            let _ = write!(reason, "; {unnamed} more lines are refused");
            // Which they are is not known, so all is kept; but not to be written again, since some of it is stored.
            let all = body.unwrap_or_else(|| self.batch.payload(&self.batch.items[*index]));
            aside.extend(all.chunks(SET_ASIDE_BYTES_MAX).map(|piece| SetAside {
                is_whole: false,
                ..self.set_aside(*index, Some(precision), reason.clone(), piece.to_vec())
            }));
        }
        Refused { notes, aside }
    }

    /// Deals with one item that is not plain.
    fn single(&mut self, index: usize) -> Result<(), StorageError> {
        let item = self.batch.items[index];
        match item.kind {
            What::Plain => self.plain(index..index + 1).map(|_| ()),
            What::Message(Kind::Rule(_)) => self.mapped(index..index + 1),
            What::Message(Kind::Sparkplug(_)) => self.edge_node(index),
            What::Settled => {
                self.push_group(index..index + 1, None, Vec::new());
                let receipts = &mut self.batch.receipts;
                if let Some(at) = receipts.iter().position(|(of, _)| *of as usize == index)
                    && let Some(group) = self.groups.last_mut()
                {
                    group.durable = Some(receipts.swap_remove(at).1);
                }
                Ok(())
            }
            What::Message(Kind::Lines) => {
                // Lent, not copied: it may be large.
                let data = std::mem::take(&mut self.batch.data);
                let result = self.agents(index, &data[item.payload as usize..item.end as usize]);
                self.batch.data = data;
                result
            }
            What::Message(Kind::Zstd) => {
                let limit = self.app.config.http.max_body_bytes;
                match unpack(self.batch.payload(&item), limit) {
                    Ok(body) => self.agents(index, &body),
                    Err(reason) => self.refuse(index, None, &reason),
                }
            }
            What::Message(Kind::Status) => match self.status(&item) {
                Ok(status) => {
                    let pending = self.storage.note_agent(&status, &self.source)?;
                    let pending = self.tally(0).storing(pending);
                    self.push_group(index..index + 1, Some(pending), Vec::new());
                    Ok(())
                }
                Err(reason) => self.refuse(index, None, &reason),
            },
            What::Message(Kind::Unknown | Kind::Own | Kind::Command) => {
                self.refuse(index, None, "no rule of this server takes this topic")
            }
        }
    }

    /// A body that may name its agent.
    fn agents(&mut self, index: usize, body: &[u8]) -> Result<(), StorageError> {
        let decoded = self.parse(body);
        if decoded.agent.is_none() && body.starts_with(AGENT_HEADER_START) {
            // Nobody knows the unit of its times.
            let reason = decoded.errors.first().map_or("the agent's header is malformed", |error| &error.message);
            let reason = reason.to_owned();
            return self.refuse(index, Some(body), &reason);
        }
        let named = topic::agent(self.batch.topic(&self.batch.items[index])).map(|(agent, _)| agent);
        if let (Some(named), Some(header)) = (named, &decoded.agent)
            && named != header.agent
        {
            let reason = format!("the topic names the agent {named:?}, the payload {:?}", header.agent);
            return self.refuse(index, Some(body), &reason);
        }
        self.store(index..index + 1, 0, decoded, Some(body))
    }

    fn status(&self, item: &Item) -> Result<AgentStatus, String> {
        #[derive(Deserialize)]
        struct Text {
            online: bool,
            version: Option<String>,
            epoch: Option<u64>,
            seq: Option<u64>,
            backlog_batches: Option<u64>,
            backlog_bytes: Option<u64>,
        }
        let agent = topic::agent(self.batch.topic(item)).map_or("", |(agent, _)| agent);
        check_name("agent", agent).map_err(|e| e.to_string())?;
        let text: Text = serde_json::from_slice(self.batch.payload(item))
            .map_err(|e| format!("it is not an agent's status: {e}"))?;
        Ok(AgentStatus {
            agent: agent.into(),
            online: text.online,
            version: text.version.map(Into::into),
            epoch: text.epoch,
            seq: text.seq,
            backlog_batches: text.backlog_batches,
            backlog_bytes: text.backlog_bytes,
        })
    }

    /// Sets aside a whole item of which nobody knows the rows, and has it acknowledged.
    fn refuse(&mut self, index: usize, body: Option<&[u8]>, reason: &str) -> Result<(), StorageError> {
        self.refuse_rows(index, body, None, reason, 1)
    }

    /// Sets a whole item of `rows` aside, and has it acknowledged. `precision` if it is lines of which none is stored.
    fn refuse_rows(
        &mut self,
        index: usize,
        body: Option<&[u8]>,
        precision: Option<Precision>,
        reason: &str,
        rows: u64,
    ) -> Result<(), StorageError> {
        let payload = body.unwrap_or_else(|| self.batch.payload(&self.batch.items[index]));
        let is_whole = payload.len() <= SET_ASIDE_BYTES_MAX;
        let piece =
            |piece: &[u8]| SetAside { is_whole, ..self.set_aside(index, precision, reason.to_owned(), piece.to_vec()) };
        let mut aside: Vec<SetAside> = payload.chunks(SET_ASIDE_BYTES_MAX).map(piece).collect();
        if aside.is_empty() {
            // A message without a payload has a topic and a reason all the same.
            aside.push(piece(b""));
        }
        self.storage.set_aside(&aside)?;
        self.tally(rows).settle_rest(Became::Quarantined);
        self.complain(1, &aside);
        self.push_group(index..index + 1, None, vec![(index, reason.to_owned())]);
        Ok(())
    }

    fn set_aside(&self, index: usize, precision: Option<Precision>, reason: String, payload: Vec<u8>) -> SetAside {
        SetAside {
            time_us: self.app.clock.now_us(),
            source: self.source.to_string(),
            topic: self.batch.topic(&self.batch.items[index]).to_owned(),
            schema: PUBLIC.to_owned(),
            precision: precision.map_or_else(String::new, |precision| precision.to_string()),
            reason,
            payload,
            is_whole: true,
        }
    }

    /// Counts rows that have come in.
    fn tally(&self, rows: u64) -> Tally {
        let mut tally = self.app.metrics.sources.tally(self.counted_as);
        tally.receive(rows);
        tally
    }

    /// Counts the messages that cannot be stored any more, as nobody has read how many rows they are.
    fn count_unread(&self) {
        let unread = self.batch.items[self.next..].iter().filter(|item| item.kind != What::Settled);
        drop(self.tally(unread.count() as u64));
    }

    /// Counts messages of which something was set aside, and notes it for people.
    fn complain(&mut self, messages: usize, aside: &[SetAside]) {
        Metrics::add(&self.app.metrics.mqtt.set_aside, messages as u64);
        if let Some(last) = aside.last() {
            let before = self.complaint.as_ref().map_or(0, |(count, _)| *count);
            self.complaint = Some((before + messages as u64, format!("{}: {}", last.topic, last.reason)));
        }
    }

    fn push_group(&mut self, range: Range<usize>, pending: Option<Counted>, notes: Vec<(usize, String)>) {
        let mut notes = notes.into_iter().peekable();
        let mut acks = Vec::with_capacity(range.len());
        let messages = range.len();
        for index in range {
            let Item { id, qos, code, .. } = self.batch.items[index];
            let reason = notes.next_if(|(at, _)| *at == index).map(|(_, reason)| reason.into());
            if qos > 0 {
                acks.push(Ack { id, qos, code, reason });
            }
        }
        let durable = pending.map(|pending| Box::pin(pending) as Durable);
        self.groups.push(Group { acks, messages, bytes: 0, durable, budget: Budget::default() });
    }
}

fn unpack(bytes: &[u8], limit: ByteSize) -> Result<Vec<u8>, String> {
    unpack::zstd(bytes, limit.bytes()).map_err(|error| match error {
        UnpackError::Malformed(reason) => format!("it is not zstd: {reason}"),
        UnpackError::TooLarge => format!("decompressed it is larger than {limit}; raise [http] max_body_bytes"),
    })
}
