//! The agent's durable queue of batches that were not acknowledged yet (P7).
//!
//! Owns:     the folder of the outbox: its log, its identity and its lock; seqs, gaps, and what may be forgotten.
//! Does not: run threads, talk to a server, or decide when to sync: its owner drives it.
//!
//! Invariants
//!  1. A batch is handed out only after it is durable.
//!  2. It is forgotten only after its acknowledgement, or when the outbox is full: then a gap says so.
//!  3. A seq that may have been sent never stands for other bytes.
//!  4. Each seq that was given away is in a batch that is sent, or in a gap that is reported.
//!  5. After any crash fewer than [`RESENT_MAX`] batches that were acknowledged are sent again.
//!  6. A disk that fails costs readings only when memory is full too, and then they are counted in a gap.
//!
//! The newest record of the log holds the whole state: what is forgotten and which gaps are not reported yet. So
//! segments go only once a durable record says that they may, and a gap is durable before what it names is dropped.

mod ahead;
mod batch;
mod boots;
mod failing;
mod identity;
mod order;
mod peek;
pub(crate) mod record;
mod room;
mod scan;

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, NodeId, Rng};
use wal::disk::{DiskLock, SharedDisk, create_dir_all};
use wal::{Certainty, FrameReader, RING_SEGMENT_BYTES, Recovery, RingLog, WalError};

use crate::gap::{Gap, GapReason, Gaps, Life};
use crate::timepiece::BootId;
use crate::wear::{self, Counts, Wear};
use ahead::SeqRange;
use batch::pack;
use boots::Boot;
use failing::Broken;
use identity::Identity;
use order::Order;
use record::{Content, Decoded, Header, State, Times};
use scan::{Entry, Scan, Stage, open_log, scan};

pub use batch::{Batch, BatchKey};
pub use order::Replay;
pub use peek::{Waiting, WaitingLife, peek};
pub use record::Encoding;

/// Batches that may be sent again after a crash although they were acknowledged: fewer than this.
pub const RESENT_MAX: usize = 128;
/// The most batches that can be handed out and not forgotten.
pub const IN_FLIGHT_MAX: usize = 64;
/// After as many acknowledgements the watermark is made durable.
const SAVE_AFTER: usize = 64;
/// A body is not longer than this, so that its record fits any segment; readings beyond begin the next batch.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// Batches kept in memory while the disk fails.
const MEMORY_BYTES_MAX: usize = 8 << 20;
/// Room that is kept in a full outbox for records that say what is dropped.
const SPARE_BYTES: u64 = 16 * BLOCK_BYTES;
const BLOCK_BYTES: u64 = 4096;
/// A batch so far behind the one read last is found by reading what lies between.
const NEAR_BYTES: u64 = 16 * BLOCK_BYTES;
/// About what a record has besides a body.
const CURSOR_BYTES: usize = 3 * BLOCK_BYTES as usize;
/// Every outbox is its log's only node.
const NODE: NodeId = NodeId(1);

/// Why an outbox did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Another process has it.
    #[error("the outbox {} is used by another agent; give each agent an outbox of its own", .dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A later release wrote it; nothing was changed (P13).
    #[error("the outbox has format version {version}, newer than this release reads; nothing was changed")]
    Newer {
        /// Its version.
        version: u32,
    },
    /// A file beside the log cannot be read or written.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The log refused.
    #[error("the outbox's log")]
    Log(#[from] WalError),
}

/// Settings of an [`Outbox`].
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// Its folder; made if missing.
    pub dir: PathBuf,
    /// Bytes of its log at most; two segments at least.
    pub bytes_max: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// The agent's id.
    pub agent: Arc<str>,
    /// The hardware's serial number, if it has one: with another one a new epoch begins.
    pub serial: Option<String>,
    /// Batches handed out and not forgotten at most, 1 to [`IN_FLIGHT_MAX`].
    pub in_flight: usize,
    /// In which order they are handed out.
    pub replay: Replay,
    /// Bytes of the backlog handed out in a second at most; 0: as many as are asked for.
    pub replay_bytes_per_s: u64,
}

impl OutboxConfig {
    /// The settings of an outbox in `dir` of at most `bytes_max`.
    pub fn new(dir: impl Into<PathBuf>, agent: &str, bytes_max: u64) -> Self {
        OutboxConfig {
            dir: dir.into(),
            bytes_max,
            segment_bytes: RING_SEGMENT_BYTES,
            agent: agent.into(),
            serial: None,
            in_flight: 32,
            replay: Replay::OldestFirst,
            replay_bytes_per_s: 0,
        }
    }

    fn log_dir(&self) -> PathBuf {
        log_dir(&self.dir)
    }
}

fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Figures of an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// Batches made since it was opened.
    pub made: u64,
    /// Readings in them.
    pub readings: u64,
    /// The last seq given away.
    pub last_seq: u64,
    /// Batches that wait, in the log and in memory.
    pub backlog_batches: u64,
    /// Bytes of their bodies, as they are kept.
    pub backlog_bytes: u64,
    /// Bytes of the log's files.
    pub disk_bytes: u64,
    /// Gaps found since it was opened.
    pub gaps: u64,
    /// Readings known to lie in them.
    pub gap_readings: u64,
    /// Times that the log had to be opened again after a failure.
    pub reopened: u64,
    /// Whether the disk fails just now.
    pub failing: bool,
    /// What was written, ever since the outbox was made.
    pub wear: Wear,
}

/// A batch that is not known to be durable.
#[derive(Debug)]
struct Made {
    header: Header,
    body: Vec<u8>,
}

/// The queue; see the module.
#[derive(Debug)]
pub struct Outbox {
    disk: SharedDisk,
    clock: Arc<dyn Clock>,
    config: OutboxConfig,
    identity: Identity,
    /// Poisoned or not, it can be read.
    log: RingLog,
    reader: Option<FrameReader>,
    /// When the failed log is to be opened again; `None` if it works.
    broken: Option<Broken>,
    life: Life,
    last_seq: u64,
    readings_made: u64,
    forgotten_seq: u64,
    forgotten_readings: u64,
    gaps: Gaps,
    /// Those of the log from the first that is not forgotten on.
    entries: VecDeque<Entry>,
    /// Of `entries`, those that the server has.
    settled: usize,
    /// What of `entries` was handed out and is not forgotten, by offset, in this order.
    out: VecDeque<u64>,
    /// What of `entries` is forgotten.
    ahead: Vec<SeqRange>,
    /// What an earlier process may have sent, by offset.
    again: VecDeque<u64>,
    order: Order,
    withdrawn: Vec<BatchKey>,
    /// Whose wall clock is known: the present one, and those of which batches wait.
    boots: Vec<Boot>,
    present: Option<BootId>,
    newest_us: i64,
    /// Until it was opened.
    wear_before: Wear,
    counts: Arc<Counts>,
    unsynced: VecDeque<Made>,
    /// Of `unsynced`, from the front, that were appended since the log was opened.
    appended: usize,
    unsynced_bytes: usize,
    /// Batches forgotten that no durable record says are.
    unsaved: usize,
    /// Of these, those that the newest record does not say either.
    unsaved_by_newest: usize,
    /// Where the newest record begins, and what it says is forgotten.
    newest: (u64, u64),
    /// The same of the newest durable one.
    durable: (u64, u64),
    /// Offset behind the newest frame, and the run it is in.
    last_end: u64,
    run: u64,
    stats: OutboxStats,
    backlog_bytes: u64,
    _lock: Box<dyn DiskLock>,
}

impl Outbox {
    /// Opens the outbox in the folder, or makes one.
    ///
    /// # Errors
    /// See [`OutboxError`]. Nothing that waits is lost by it.
    pub fn open(
        disk: SharedDisk,
        clock: Arc<dyn Clock>,
        rng: &dyn Rng,
        config: OutboxConfig,
    ) -> Result<Outbox, OutboxError> {
        assert!((1..=IN_FLIGHT_MAX).contains(&config.in_flight), "the configuration was checked");
        let (disk, counts) = wear::counting(disk);
        let in_dir = |action| {
            let path = config.dir.clone();
            move |source| OutboxError::Io { action, path, source }
        };
        create_dir_all(&*disk, &config.dir).map_err(in_dir("make"))?;
        let note = format!("eden-agent {}, process {}\n", config.agent, std::process::id());
        let lock = match disk.lock(&config.dir.join("lock"), &note) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(OutboxError::Locked { dir: config.dir }),
            Err(e) => return Err(in_dir("lock")(e)),
        };
        let found = Identity::read(&*disk, &config.dir)?;
        let life = found.as_ref().map_or(0, |identity| identity.life) + 1;
        let (log, recovery, life) = open_log(&disk, &config, life)?;
        let scan = scan(&log)?;
        for loss in recovery.losses.iter().filter(|loss| loss.certainty == Certainty::Certain) {
            tracing::error!(%loss, "the outbox's log is damaged");
        }

        let serial_changed = found.as_ref().is_some_and(|identity| {
            identity.serial.is_some() && config.serial.is_some() && identity.serial != config.serial
        });
        let state = scan.newest.as_ref().map(|(state, _)| state);
        let goes_on = state.filter(|state| {
            !serial_changed
                && state.life.agent == config.agent
                && found.as_ref().is_some_and(|identity| identity.epoch == state.life.epoch)
        });
        let epoch = goes_on.map_or_else(|| rng.next_u64().max(1), |state| state.life.epoch);
        let serial = config.serial.clone().or(found.and_then(|identity| identity.serial));
        let identity = Identity::new(&config.agent, epoch, life, serial);
        identity.write(&*disk, &config.dir)?;

        let own = Life { agent: Arc::clone(&config.agent), epoch };
        let durable_to = log.durable();
        let order = Order::new(config.replay, config.replay_bytes_per_s);
        let mut outbox = Outbox {
            disk,
            clock,
            config,
            identity,
            log,
            reader: None,
            broken: None,
            life: own,
            last_seq: 0,
            readings_made: 0,
            forgotten_seq: 0,
            forgotten_readings: 0,
            gaps: Gaps::default(),
            entries: VecDeque::new(),
            settled: 0,
            out: VecDeque::new(),
            ahead: Vec::new(),
            again: VecDeque::new(),
            order,
            withdrawn: Vec::new(),
            boots: Vec::new(),
            present: None,
            newest_us: 0,
            wear_before: Wear::default(),
            counts,
            unsynced: VecDeque::new(),
            appended: 0,
            unsynced_bytes: 0,
            unsaved: 0,
            unsaved_by_newest: 0,
            // Until this life has a durable record of its own nothing may be truncated.
            newest: (0, 0),
            durable: (0, 0),
            last_end: durable_to,
            run: scan.run + 1,
            stats: OutboxStats::default(),
            backlog_bytes: 0,
            _lock: lock,
        };
        outbox.resume(scan, &recovery, serial_changed);
        outbox.write_state(Content::Cursor)?;
        outbox.truncate();
        Ok(outbox)
    }

    /// Takes over what an earlier life left.
    fn resume(&mut self, scan: Scan, recovery: &Recovery, serial_changed: bool) {
        self.entries = scan.entries;
        let waiting = self.entries.iter().filter(|entry| !entry.is_forgotten());
        self.backlog_bytes = waiting.map(|entry| u64::from(entry.body_bytes)).sum();
        self.settled = self.entries.iter().filter(|entry| entry.is_forgotten()).count();
        let Some((state, closed)) = scan.newest else { return };
        self.boots = state.boots.iter().map(|(id, fix)| Boot::read(*id, *fix)).collect();
        self.newest_us = state.newest_us;
        self.wear_before = state.wear;
        self.ahead.clone_from(&state.ahead);
        let may_be_sent = |entry: &&Entry| {
            !entry.is_forgotten() && state.planned.iter().any(|range| range.covers(&entry.life, entry.seq))
        };
        self.again = self.entries.iter().filter(may_be_sent).map(|entry| entry.start).collect();
        let is_damaged = recovery.losses.iter().any(|loss| loss.certainty == Certainty::Certain);
        let reason = if closed || is_damaged { GapReason::Damaged } else { GapReason::UncleanStop };
        self.gaps = Gaps(state.gaps.clone());
        for gap in self.holes(&state, reason) {
            self.found_gap(gap);
        }
        // A cloned card: the board that it was cloned from goes on with the old epoch, and nothing of it is lost here.
        let is_clone = serial_changed && state.life != self.life;
        let skips = !closed && !is_clone;
        if skips {
            let seq = state.last_seq + 1;
            self.found_gap(Gap {
                life: state.life.clone(),
                first_seq: seq,
                last_seq: seq,
                readings: None,
                reason: GapReason::UncleanStop,
                time_us: self.clock.now_us(),
            });
        }
        if state.life == self.life {
            self.last_seq = state.last_seq + u64::from(skips);
            self.readings_made = state.readings_made;
            self.forgotten_seq = state.forgotten_seq;
            self.forgotten_readings = state.forgotten_readings;
        } else {
            tracing::warn!(
                old_agent = %state.life.agent,
                old_epoch = state.life.epoch,
                epoch = self.life.epoch,
                waiting = self.entries.len() - self.settled,
                "another board or another id: a new epoch begins; what waits is sent under the old one"
            );
        }
        self.pass_forgotten();
    }

    /// Seqs that were given away and are neither here, nor forgotten, nor in a gap. Batches that were forgotten out of
    /// order are here, unless the disk lost them.
    fn holes(&self, state: &State, reason: GapReason) -> Vec<Gap> {
        let mut lives: HashMap<Life, (u64, u64)> =
            HashMap::from([(state.life.clone(), (state.forgotten_seq, state.forgotten_readings))]);
        let carried: Vec<&Gap> = self.entries.iter().flat_map(|entry| &entry.gaps).chain(self.gaps.0.iter()).collect();
        let mut holes = Vec::new();
        let mut look = |life: &Life, from: (u64, u64), to: (u64, u64)| {
            let mut within: Vec<&Gap> = carried
                .iter()
                .copied()
                .filter(|gap| gap.life == *life && gap.last_seq > from.0 && gap.first_seq < to.0)
                .collect();
            within.sort_by_key(|gap| gap.first_seq);
            let ahead = state.ahead.iter().filter(|ahead| ahead.life == *life);
            let mut known: Vec<(u64, u64)> = ahead.map(|ahead| (ahead.first_seq, ahead.last_seq)).collect();
            known.retain(|(first, last)| *last > from.0 && *first < to.0);
            // How many readings of those before `to` are not lost but forgotten nobody says.
            let is_counted = known.is_empty();
            known.extend(within.iter().map(|gap| (gap.first_seq, gap.last_seq)));
            known.sort_unstable();
            let mut missing = Vec::new();
            let mut next = from.0 + 1;
            for (first, last) in known {
                if next < first {
                    missing.push((next, first - 1));
                }
                next = next.max(last + 1);
            }
            if next < to.0 {
                missing.push((next, to.0 - 1));
            }
            let elsewhere: u64 = within.iter().filter_map(|gap| gap.readings).sum();
            let readings = to.1.saturating_sub(from.1).saturating_sub(elsewhere);
            let is_one = missing.len() == 1 && is_counted;
            holes.extend(missing.into_iter().map(|(first_seq, last_seq)| Gap {
                life: life.clone(),
                first_seq,
                last_seq,
                readings: is_one.then_some(readings),
                reason,
                time_us: self.clock.now_us(),
            }));
        };
        for entry in &self.entries {
            let here = (entry.seq, entry.readings_before);
            if let Some(before) = lives.get(&entry.life) {
                look(&entry.life, *before, here);
            }
            let behind = (entry.seq, entry.readings_before + u64::from(entry.readings));
            lives.insert(entry.life.clone(), behind);
        }
        look(&state.life, lives[&state.life], (state.last_seq + 1, state.readings_made));
        holes
    }

    /// Makes a batch of `readings` readings, whose lines of line protocol are `lines`, and appends it. It is durable
    /// after the next [`Outbox::sync`] that returns well. While the disk fails it waits in memory.
    pub fn put(&mut self, lines: &str, readings: u32) {
        let now_us = self.clock.now_us();
        self.put_timed(lines, readings, Times { boot: None, first_us: now_us, last_us: now_us });
    }

    /// As [`Outbox::put`], of lines with these times.
    pub(crate) fn put_timed(&mut self, lines: &str, readings: u32, times: Times) {
        assert!(lines.len() <= BODY_BYTES_MAX, "a batch is closed before it is so long");
        while let Some(foreign) = self.gaps.0.iter().find(|gap| gap.life != self.life).map(|gap| gap.life.clone()) {
            self.close_old(foreign);
        }
        self.last_seq += 1;
        let life = self.life.clone();
        let gaps = self.gaps.take_of(&life);
        self.make(life, self.last_seq, lines, readings, self.readings_made, gaps, times);
        self.readings_made += u64::from(readings);
        self.stats.made += 1;
        self.stats.readings += u64::from(readings);
        if self.broken.is_none() {
            let appended = self.append_waiting();
            // Said there; `sync` tells the owner.
            let _ = self.note_failure(appended);
        }
        self.bound_memory();
    }

    /// Makes batches without readings for the gaps that no batch reports yet, for nothing else may follow that would.
    pub fn report_gaps(&mut self) {
        // Room for the first may take what a second reports; that one finds room.
        for _ in 0..2 {
            if !self.gaps.0.is_empty() {
                self.put("", 0);
            }
        }
    }

    /// Reports the gaps of an earlier life in one more batch of it.
    fn close_old(&mut self, life: Life) {
        let gaps = self.gaps.take_of(&life);
        let here = self.entries.iter().filter(|entry| entry.life == life);
        let made = self.unsynced.iter().map(|made| &made.header).filter(|header| header.life == life);
        let (mut seq, mut readings_before) = (0, 0);
        for (last, behind) in here
            .map(|entry| (entry.seq, entry.readings_before + u64::from(entry.readings)))
            .chain(made.map(|header| (header.seq, header.readings_before + u64::from(header.readings))))
            .chain(gaps.iter().map(|gap| (gap.last_seq, 0)))
        {
            seq = seq.max(last);
            readings_before = readings_before.max(behind);
        }
        let now_us = self.clock.now_us();
        let times = Times { boot: None, first_us: now_us, last_us: now_us };
        self.make(life, seq + 1, "", 0, readings_before, gaps, times);
    }

    #[expect(clippy::too_many_arguments, reason = "they are what a header and a body are made of")]
    fn make(
        &mut self,
        life: Life,
        seq: u64,
        lines: &str,
        readings: u32,
        readings_before: u64,
        gaps: Vec<Gap>,
        times: Times,
    ) {
        let mut text = String::with_capacity(lines.len() + 128);
        let Life { agent, epoch } = &life;
        let _ = writeln!(text, "# eden agent={agent} epoch={epoch} seq={seq} precision=us");
        for gap in &gaps {
            let _ = writeln!(text, "{gap}");
        }
        text.push_str(lines);
        let (encoding, body) = pack(text);
        let header =
            Header { life, seq, readings, readings_before, time_us: self.clock.now_us(), gaps, encoding, times };
        self.unsynced_bytes += body.len();
        self.backlog_bytes += body.len() as u64;
        self.unsynced.push_back(Made { header, body });
    }

    /// Makes everything durable that was put. While the disk fails, tries to open the log again when it is time to.
    ///
    /// # Errors
    /// The disk's; what is not durable stays in memory, up to a bound, and is tried again by later calls.
    pub fn sync(&mut self) -> Result<(), OutboxError> {
        if let Some(broken) = self.broken {
            if self.clock.monotonic() < broken.retry_at {
                return Ok(());
            }
            let reopened = self.reopen();
            self.note_failure(reopened)?;
        }
        let synced = self.append_waiting().and_then(|()| self.sync_log());
        self.note_failure(synced)?;
        self.truncate();
        Ok(())
    }

    /// Whether something was put that is not durable.
    pub fn needs_sync(&self) -> bool {
        !self.unsynced.is_empty() || self.broken.is_some()
    }

    fn has_room_in_flight(&self) -> bool {
        self.out.len() < self.config.in_flight && self.out.len() + self.unsaved < RESENT_MAX - 1
    }

    fn read(&mut self, index: usize, is_fresh: bool) -> Result<Batch, OutboxError> {
        let Entry { life, seq, start, times, .. } = self.entries[index].clone();
        let fix = self.saved_fix(times);
        // Cursors may lie between it and the one read last.
        let is_near = |reader: &FrameReader| (start.saturating_sub(NEAR_BYTES)..=start).contains(&reader.progress());
        if !self.reader.as_ref().is_some_and(is_near) {
            self.reader = Some(self.log.reader_at(start));
        }
        let reader = self.reader.as_mut().expect("it was just made");
        for frame in reader.by_ref() {
            let frame = frame?;
            if frame.position.offset < start {
                continue;
            }
            if frame.position.offset > start {
                break;
            }
            let found = frame.records().next().map(record::decode);
            let Some(Ok((_, Decoded::Batch(header, body)))) = found else { break };
            // In pairs: what was looked up is what was asked for.
            assert!(header.life == life && header.seq == seq, "the outbox's index names another batch");
            let Header { life, seq, readings, encoding, .. } = header;
            let (encoding, body) = match fix {
                Some(fix) => boots::timed(encoding, body, fix).ok_or_else(|| damaged(start))?,
                None => (encoding, body.to_vec()),
            };
            return Ok(Batch { life, seq, readings, is_fresh, encoding, body });
        }
        Err(damaged(start))
    }

    /// Batches that were handed out and then dropped since the last call: they must not be sent any more, for a gap
    /// names them.
    pub fn take_withdrawn(&mut self) -> Vec<BatchKey> {
        std::mem::take(&mut self.withdrawn)
    }

    /// Takes note that the server has batch `key` for good. Returns false if the batch was not waiting.
    pub fn ack(&mut self, key: BatchKey) -> bool {
        let is_it = |entry: &Entry| entry.life.epoch == key.epoch && entry.seq == key.seq;
        let mut out = self.out.iter().filter_map(|start| self.index_of(*start));
        let Some(index) = out.find(|&index| is_it(&self.entries[index])) else { return false };
        if self.entries[index].stage != Stage::Out {
            return false;
        }
        self.entries[index].stage = Stage::Acked;
        self.settled += 1;
        self.forget_acked();
        if self.unsaved >= SAVE_AFTER && self.broken.is_none() {
            let saved = self.write_state(Content::Cursor);
            if self.note_failure(saved).is_ok() {
                self.truncate();
            }
        }
        true
    }

    fn index_of(&self, start: u64) -> Option<usize> {
        let index = self.entries.partition_point(|entry| entry.start < start);
        self.entries.get(index).is_some_and(|entry| entry.start == start).then_some(index)
    }

    /// Forgets what is acknowledged with all that was handed out before it. In the order of handing out, not of the log:
    /// so what may come again after a crash is among those handed out last.
    fn forget_acked(&mut self) {
        while let Some(index) = self.out.front().and_then(|start| self.index_of(*start))
            && self.entries[index].stage == Stage::Acked
        {
            self.out.pop_front();
            self.note_forgotten(index);
            self.entries[index].stage = Stage::Forgotten;
            let Entry { life, seq, .. } = &self.entries[index];
            let beside = [index.checked_sub(1), Some(index + 1)].into_iter().flatten();
            let beside = beside.filter_map(|at| self.entries.get(at));
            let neighbours = beside.filter(|entry| entry.is_forgotten() && entry.life == *life).map(|entry| entry.seq);
            ahead::add(&mut self.ahead, life, *seq, neighbours);
        }
        self.pass_forgotten();
    }

    /// Takes batch `index` out of the figures of what waits.
    fn note_forgotten(&mut self, index: usize) {
        let Entry { life, seq, body_bytes, .. } = &self.entries[index];
        self.unsaved += 1;
        self.unsaved_by_newest += 1;
        self.backlog_bytes -= u64::from(*body_bytes);
        // A rotation made it durable before a sync did: it must not be appended again after a failure.
        let is_it = |made: &Made| made.header.life == *life && made.header.seq == *seq;
        if let Some(at) = self.unsynced.iter().take(self.appended).position(is_it) {
            self.unsynced_bytes -= self.unsynced.remove(at).map_or(0, |made| made.body.len());
            self.appended -= 1;
        }
    }

    /// Leaves behind what is forgotten at the beginning of the log.
    fn pass_forgotten(&mut self) {
        while self.entries.front().is_some_and(Entry::is_forgotten) {
            self.remove_first();
        }
    }

    /// Removes the first batch, whatever became of it.
    fn remove_first(&mut self) -> Option<Entry> {
        if !self.entries.front()?.is_forgotten() {
            self.note_forgotten(0);
        }
        let entry = self.entries.pop_front()?;
        self.settled -= usize::from(entry.stage.is_settled());
        self.out.retain(|start| *start != entry.start);
        if entry.life == self.life {
            self.forgotten_seq = self.forgotten_seq.max(entry.seq);
            self.forgotten_readings = self.forgotten_readings.max(entry.readings_before + u64::from(entry.readings));
        }
        let (own, forgotten_seq, entries) = (&self.life, self.forgotten_seq, &self.entries);
        self.ahead.retain(|ahead| match ahead.life == *own {
            true => ahead.last_seq > forgotten_seq,
            false => entries.iter().any(|entry| entry.life == ahead.life),
        });
        Some(entry)
    }

    /// Figures.
    pub fn stats(&self) -> OutboxStats {
        let in_memory = self.unsynced.len() - self.appended;
        OutboxStats {
            last_seq: self.last_seq,
            backlog_batches: (self.entries.len() - self.settled + in_memory) as u64,
            backlog_bytes: self.backlog_bytes,
            disk_bytes: self.log.bytes_on_disk(),
            failing: self.broken.is_some(),
            wear: self.wear(),
            ..self.stats
        }
    }

    fn wear(&self) -> Wear {
        let Wear { bytes_written, syncs } = self.counts.now();
        Wear {
            bytes_written: self.wear_before.bytes_written.saturating_add(bytes_written),
            syncs: self.wear_before.syncs.saturating_add(syncs),
        }
    }

    /// Under which id and epoch new batches are made.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Whether all that is there was handed out.
    pub fn is_handed_out(&self) -> bool {
        self.unsynced.is_empty() && self.is_all_out()
    }

    /// Closes the outbox in order: syncs, and notes that nothing is missing behind its end.
    ///
    /// # Errors
    /// The disk's; the outbox is as safe as after a crash.
    pub fn close(mut self) -> Result<(), OutboxError> {
        if let Some(broken) = &mut self.broken {
            broken.retry_at = Duration::ZERO;
        }
        self.sync()?;
        self.write_state(Content::Closed)?;
        self.truncate();
        self.log.close()?;
        Ok(())
    }

    fn state(&self) -> State {
        let carried = self.unsynced.iter().flat_map(|made| &made.header.gaps);
        State {
            life: self.life.clone(),
            last_seq: self.last_seq,
            readings_made: self.readings_made,
            forgotten_to: self.entries.front().map_or(self.last_end, |entry| entry.start),
            forgotten_seq: self.forgotten_seq,
            forgotten_readings: self.forgotten_readings,
            gaps: self.gaps.0.iter().chain(carried).cloned().collect(),
            boots: self.boots.iter().map(|boot| (boot.id, boot.fix)).collect(),
            newest_us: self.newest_us,
            wear: self.wear(),
            ahead: self.ahead.clone(),
            planned: self.planned_ranges(),
        }
    }

    /// Appends a record of the state alone and syncs.
    fn write_state(&mut self, content: Content<'_>) -> Result<(), OutboxError> {
        self.make_room(CURSOR_BYTES)?;
        self.append(content)?;
        self.sync_log()
    }

    /// Appends the batches that are in memory only.
    fn append_waiting(&mut self) -> Result<(), OutboxError> {
        while let Some(made) = self.unsynced.get(self.appended) {
            self.make_room(made.body.len() + CURSOR_BYTES)?;
            let made = self.unsynced.remove(self.appended).expect("it was just there");
            let appended = self.append(Content::Batch(&made.header, &made.body));
            if let Err(OutboxError::Log(e @ WalError::RecordTooLarge { .. })) = appended {
                tracing::error!(error = %e, "a batch is too long for the outbox: a bug");
                self.lose_made(made);
                continue;
            }
            let header = made.header.clone();
            let body_bytes = made.body.len() as u32;
            self.unsynced.insert(self.appended, made);
            let (start, end) = appended?;
            self.appended += 1;
            let Header { life, seq, readings, readings_before, time_us, gaps, times, .. } = header;
            let run = self.run;
            let stage = Stage::Waiting;
            let entry = Entry {
                life,
                seq,
                readings,
                readings_before,
                time_us,
                body_bytes,
                start,
                end,
                run,
                gaps,
                times,
                stage,
            };
            self.entries.push_back(entry);
        }
        Ok(())
    }

    fn append(&mut self, content: Content<'_>) -> Result<(u64, u64), OutboxError> {
        // Behind the last record nothing is handed out.
        self.plan(content != Content::Closed);
        let mut state = self.state();
        let mut is_planned = false;
        if let Content::Batch(header, _) = content {
            // It is not among those that wait while it is appended.
            state.gaps.extend(header.gaps.iter().cloned());
            is_planned = self.may_plan_next();
            if is_planned {
                let Header { life, seq, .. } = header;
                state.planned.push(SeqRange { life: life.clone(), first_seq: *seq, last_seq: *seq });
            }
        }
        let appended = self.log.append(&record::encode(&state, content));
        let dropped = match &appended {
            Ok(appended) => appended.dropped,
            Err(_) => self.log.take_dropped(),
        };
        while let Some(dropped) = dropped
            && self.entries.front().is_some_and(|entry| entry.start < dropped.to)
        {
            // Room is made before, so this is a bug or a folder that something else writes to. No gap is silent.
            tracing::error!(?dropped, "the log dropped a batch by itself");
            self.drop_first();
        }
        let appended = appended?;
        let start = appended.position.offset;
        if start != self.last_end {
            self.run += 1;
        }
        self.last_end = appended.end;
        self.plan_next(is_planned.then_some(start));
        self.newest = (start, state.forgotten_to);
        self.unsaved_by_newest = 0;
        self.boots_are_appended();
        Ok((start, appended.end))
    }

    fn sync_log(&mut self) -> Result<(), OutboxError> {
        self.log.sync()?;
        self.durable = self.newest;
        self.plan_is_durable();
        self.unsaved = self.unsaved_by_newest;
        self.boots_are_saved();
        for made in self.unsynced.drain(..self.appended) {
            self.unsynced_bytes -= made.body.len();
        }
        self.appended = 0;
        Ok(())
    }
}

fn damaged(start: u64) -> OutboxError {
    OutboxError::Log(WalError::Corrupt { file: format!("the frame at offset {start}"), at: 0 })
}
