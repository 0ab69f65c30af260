//! The log of a server: many appenders, one writer, one sync for all that waits.
//!
//! Owns:     the writer thread, the rule that nothing is acknowledged before its sync returned (P1) and
//!           nothing at all after one failed (P2).
//! Does not: know what a record means, or linger for more of them.
//!
//! Invariants
//!  1. A group is written only after the sync of the one before returned, so one frame at most can be torn.
//!  2. Every token that [`Wal::append`] took comes back through the sink exactly once, in the order of the log.
//!  3. Once poisoned, a log says nothing is durable any more.
//!  4. What finds no room on the disk is refused, and the log is what it was before (P9): no sync has failed, so nothing
//!     is in doubt.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use model::{Clock, NodeEpoch, NodeId, Position, SystemClock};

use crate::appender::{Appender, Counter, observe, room};
use crate::catalog::Catalog;
use crate::disk::SharedDisk;
use crate::error::{Context, WalError};
use crate::frame::{BLOCK_BYTES, NUMBER_MAX, RECORD_BYTES_MAX, Reason, payload_bytes_of};
use crate::prepare::Preparer;
use crate::queue::{End, PoisonOnPanic, Queue, Work};
use crate::reader::FrameReader;
use crate::recovery::{self, Life, Policy, Recovery};
use crate::segment::{Fresh, SEGMENT_BYTES_MAX, SegmentHeader, file_name};
use crate::stats::{Meters, WalStats};

/// Bytes of a segment of the server's log (64 MiB).
pub const SERVER_SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes that may wait to be written (64 MiB).
pub const SERVER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// The first segment of a life is no longer than this (4 MiB): a start must not wait until 64 MiB of zeros are
/// durable, 0.1 to 1 s.
const FIRST_SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// Header block, start frame, end frame and one data frame.
const SEGMENT_BLOCKS_MIN: u64 = 4;

/// Settings of a [`Wal`].
#[derive(Clone)]
pub struct WalConfig {
    /// Folder of the segments; made if missing. Nothing else belongs there.
    pub dir: PathBuf,
    /// The node that the log belongs to.
    pub node: NodeId,
    /// The node's present life; not lower than any that wrote to the log.
    pub epoch: NodeEpoch,
    /// Bytes of a segment, a multiple of 4096.
    pub segment_size_bytes: u64,
    /// Bytes that may wait to be written.
    pub queue_bytes_max: usize,
    /// The log goes on at this offset or behind it. Give the highest flushed watermark there is: if the end of the
    /// log is lost, new frames must not get offsets that count as flushed.
    pub offset_min: u64,
    /// Measures syncs.
    pub clock: Arc<dyn Clock>,
}

impl WalConfig {
    /// The settings of a server.
    pub fn server(dir: impl Into<PathBuf>, node: NodeId, epoch: NodeEpoch) -> WalConfig {
        WalConfig {
            dir: dir.into(),
            node,
            epoch,
            segment_size_bytes: SERVER_SEGMENT_BYTES,
            queue_bytes_max: SERVER_QUEUE_BYTES_MAX,
            offset_min: 0,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// Records that became durable together.
#[derive(Debug)]
pub struct Group<T> {
    /// Place of their frame in the order of writes.
    pub position: Position,
    /// Offset behind the frame.
    pub end: u64,
    /// The records in order, each with the token that its appender gave.
    pub records: Vec<(Vec<u8>, T)>,
}

/// What became of appended records.
#[derive(Debug)]
pub enum Outcome<T> {
    /// They are durable.
    Durable(Group<T>),
    /// They are not known to be durable and must not be acknowledged. After a failed write or sync they may be
    /// found when the log is opened again.
    Failed {
        /// The tokens of the records, in order.
        tokens: Vec<T>,
        /// Why.
        error: WalError,
    },
    /// They are not in the log: there was no room for them. The log goes on, and takes them when there is (P9). Only if
    /// the process ends before there is may they be found when the log is opened again.
    Refused {
        /// The tokens of the records, in order.
        tokens: Vec<T>,
        /// Why.
        error: WalError,
    },
}

/// A log open for appending. Share it in an [`Arc`].
///
/// Dropping it waits for its threads; what waits fails with [`WalError::Closed`]. [`Wal::close`] writes it all first.
pub struct Wal<T> {
    shared: Arc<Shared<T>>,
    writer: Option<JoinHandle<Result<(), WalError>>>,
    record_bytes_max: usize,
}

struct Shared<T> {
    queue: Arc<Queue<T>>,
    catalog: Arc<Catalog>,
    counter: Counter,
    meters: Meters,
}

impl<T: Send + 'static> Wal<T> {
    /// Recovers what is in the folder, starts a new segment and the threads that write.
    ///
    /// `sink` is called on the writer thread, in the order of the log, once for every group; the log waits for it.
    ///
    /// # Errors
    /// [`WalError::NewerFormat`], [`WalError::WrongNode`] and [`WalError::Fenced`] if the log is not ours to write,
    /// with nothing changed; [`WalError::Config`]; [`WalError::Io`], after which opening may be tried again.
    pub fn open(
        disk: SharedDisk,
        config: WalConfig,
        sink: impl FnMut(Outcome<T>) + Send + 'static,
    ) -> Result<(Wal<T>, Recovery), WalError> {
        let size = config.segment_size_bytes;
        if !size.is_multiple_of(BLOCK_BYTES) || !(SEGMENT_BLOCKS_MIN * BLOCK_BYTES..=SEGMENT_BYTES_MAX).contains(&size)
        {
            return Err(WalError::Config("the segment size must be a multiple of 4096 from 16 KiB to 1 TiB"));
        }
        if config.offset_min >= NUMBER_MAX / 2 {
            return Err(WalError::Config("the lowest offset to go on at is beyond what a log can reach"));
        }
        let life = Life { node: config.node, epoch: config.epoch };
        let policy = Policy {
            segment_bytes: size,
            first_segment_bytes: size.min(FIRST_SEGMENT_BYTES_MAX),
            filled_ahead: true,
            many_frames_a_sync: false,
            offset_min: config.offset_min,
        };
        let (mut log, recovery) = recovery::open(Arc::clone(&disk), &config.dir, life, policy)?;
        let next = SegmentHeader {
            segment: log.next_id(),
            node: life.node,
            epoch: life.epoch,
            bytes_max: size,
            is_filled: true,
            opens_life: false,
        };
        let preparer = Preparer::spawn(disk, config.dir, next)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(config.queue_bytes_max),
            catalog: Arc::clone(log.catalog()),
            counter: Counter::clone(log.counter()),
            meters: Meters::default(),
        });
        shared.meters.appended(log.offset());
        let writer = Writer {
            shared: Arc::clone(&shared),
            log,
            preparer,
            fresh: None,
            is_torn: false,
            sink,
            clock: config.clock,
        };
        let thread = thread::Builder::new().name("wal-write".to_owned()).spawn(move || writer.run());
        let wal = Wal {
            shared,
            writer: Some(thread.context("start thread", "wal-write")?),
            record_bytes_max: RECORD_BYTES_MAX.min(room(BLOCK_BYTES, size) - payload_bytes_of(0)),
        };
        Ok((wal, recovery))
    }

    /// Hands over a record; never waits for the disk. Its outcome goes to the sink.
    ///
    /// # Errors
    /// The token, with [`WalError::Full`] (retry later), [`WalError::RecordTooLarge`], [`WalError::Poisoned`] or
    /// [`WalError::Closed`]; the sink then hears nothing of it.
    pub fn append(&self, record: Vec<u8>, token: T) -> Result<(), (T, WalError)> {
        if record.len() > self.record_bytes_max {
            return Err((token, WalError::RecordTooLarge { bytes: record.len(), bytes_max: self.record_bytes_max }));
        }
        self.shared.queue.push(record, token)
    }

    /// The longest record that [`Wal::append`] takes: [`RECORD_BYTES_MAX`], or what fits a segment if that is less.
    pub fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Offset up to which everything is durable.
    pub fn durable(&self) -> u64 {
        self.shared.catalog.durable()
    }

    /// Offset of the oldest frame still there.
    pub fn first(&self) -> u64 {
        self.shared.catalog.first()
    }

    /// Raises the Lamport counter: every frame from now on beats a write at `counter`.
    pub fn observe(&self, counter: u64) {
        observe(&self.shared.counter, counter);
    }

    /// Reads the durable frames at `from` and behind.
    pub fn reader(&self, from: u64) -> FrameReader {
        FrameReader::new(Arc::clone(&self.shared.catalog), from)
    }

    /// Removes the segments whose records all end at or below `offset`, oldest first, never the active one, and says
    /// how many. The removal is durable when this returns.
    ///
    /// # Errors
    /// [`WalError::Io`]: some may be removed; call again.
    pub fn truncate_behind(&self, offset: u64) -> Result<u64, WalError> {
        self.shared.catalog.truncate_behind(offset)
    }

    /// The log's figures.
    pub fn stats(&self) -> WalStats {
        let queue_bytes = self.shared.queue.bytes();
        self.shared.meters.read(&self.shared.catalog, queue_bytes)
    }

    /// Whether a write or sync failed, after which nothing is acknowledged any more (P2).
    pub fn is_poisoned(&self) -> bool {
        self.shared.queue.has_ended()
    }

    /// Writes all that waits and a clean end frame, syncs, and waits for the threads.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] or what kept the end from being written; the log is as safe as after a crash.
    pub fn close(mut self) -> Result<(), WalError> {
        self.stop(true)
    }
}

impl<T> Wal<T> {
    fn stop(&mut self, is_written: bool) -> Result<(), WalError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        self.shared.queue.close(is_written);
        writer.join().unwrap_or(Err(WalError::Poisoned))
    }
}

impl<T> Drop for Wal<T> {
    fn drop(&mut self) {
        // Whoever cares how it ends calls `close`.
        let _ = self.stop(false);
    }
}

impl<T> std::fmt::Debug for Wal<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("dir", &self.shared.catalog.dir).field("queue", &self.shared.queue).finish()
    }
}

struct Writer<T, S> {
    shared: Arc<Shared<T>>,
    log: Appender,
    preparer: Preparer,
    /// Taken from the preparer for a rotation that found no room for the end frame.
    fresh: Option<Fresh>,
    /// Whether a frame that found no room may be there in part, behind the last one.
    is_torn: bool,
    sink: S,
    clock: Arc<dyn Clock>,
}

impl<T: Send + 'static, S: FnMut(Outcome<T>)> Writer<T, S> {
    fn run(mut self) -> Result<(), WalError> {
        let _guard = PoisonOnPanic(Arc::clone(&self.shared.queue));
        loop {
            match self.shared.queue.next(self.log.room(), 0) {
                Work::Write(records) => self.write(records)?,
                Work::NoRoom => self.rotate()?,
                Work::Close => return self.finish(),
                Work::Drop(tokens) => {
                    self.fail(tokens, WalError::Closed);
                    return Ok(());
                }
            }
        }
    }

    fn write(&mut self, records: Vec<(Vec<u8>, T)>) -> Result<(), WalError> {
        if self.is_torn
            && let Err(error) = self.cut_off()
        {
            return self.refuse_or_poison(records.into_iter().map(|(_, token)| token).collect(), error);
        }
        let before = self.log.offset();
        let written = self.log.append(records.iter().map(|(record, _)| record.as_slice()));
        let (position, end) = match written {
            Ok(written) => written,
            Err(error) => {
                return self.undo(records.into_iter().map(|(_, token)| token).collect(), error);
            }
        };
        self.shared.meters.appended(end);
        self.shared.meters.frame(end - before);
        match self.sync() {
            Ok(durable) => {
                assert_eq!(durable, end, "a group is synced before the next is written");
                self.shared.meters.records(records.len());
                (self.sink)(Outcome::Durable(Group { position, end, records }));
                Ok(())
            }
            Err(error) => Err(self.poison(records.into_iter().map(|(_, token)| token).collect(), error)),
        }
    }

    fn rotate(&mut self) -> Result<(), WalError> {
        let fresh = match self.fresh.take().map_or_else(|| self.preparer.take(), Ok) {
            Ok(fresh) => fresh,
            Err(error) => {
                // Nothing was written, so nothing is in doubt: what waits fails, what comes may find more space (P9).
                let waiting = self.shared.queue.take_all();
                self.refuse(waiting, error);
                return Ok(());
            }
        };
        if self.is_torn
            && let Err(error) = self.cut_off()
        {
            self.fresh = Some(fresh);
            let waiting = self.shared.queue.take_all();
            return self.refuse_or_poison(waiting, error);
        }
        if let Err(error) = self.log.append_end(Reason::Rotated) {
            self.fresh = Some(fresh);
            let waiting = self.shared.queue.take_all();
            return self.undo(waiting, error);
        }
        // Synced before the new segment gets a frame; so no sync in the hot path but this one.
        if let Err(error) = self.sync() {
            return Err(self.poison(Vec::new(), error));
        }
        self.log.switch_to(fresh);
        self.shared.meters.appended(self.log.offset());
        Ok(())
    }

    fn sync(&mut self) -> Result<u64, WalError> {
        let before = self.clock.monotonic();
        let synced = self.log.sync();
        self.shared.meters.sync(self.clock.monotonic().saturating_sub(before));
        synced
    }

    /// Fails `tokens` with `error` and all that waits with it (P2); returns what the thread ends with.
    fn poison(&mut self, tokens: Vec<T>, error: WalError) -> WalError {
        let waiting = self.shared.queue.end(End::Poisoned);
        self.fail(tokens, error);
        self.fail(waiting, WalError::Poisoned);
        WalError::Poisoned
    }

    fn fail(&mut self, tokens: Vec<T>, error: WalError) {
        if !tokens.is_empty() {
            (self.sink)(Outcome::Failed { tokens, error });
        }
    }

    /// After a write that failed: if there was no room, takes back what there is of it and refuses `tokens`.
    fn undo(&mut self, tokens: Vec<T>, error: WalError) -> Result<(), WalError> {
        if !error.is_disk_full() {
            return Err(self.poison(tokens, error));
        }
        self.is_torn = true;
        // Where a write in place of others takes room, too, there is none for zeros: the next write tries again.
        match self.cut_off() {
            Ok(()) => self.refuse(tokens, error),
            Err(error) => return self.refuse_or_poison(tokens, error),
        }
        Ok(())
    }

    fn refuse_or_poison(&mut self, tokens: Vec<T>, error: WalError) -> Result<(), WalError> {
        if self.is_torn && error.is_disk_full() {
            self.refuse(tokens, error);
            return Ok(());
        }
        Err(self.poison(tokens, error))
    }

    /// Takes back, durably, what a write that failed may have left. [`Writer::is_torn`] stays if that could not be
    /// written; if it could and the sync failed, the log is in doubt.
    fn cut_off(&mut self) -> Result<(), WalError> {
        self.log.cut_off()?;
        self.is_torn = false;
        self.sync().map(drop)
    }

    fn refuse(&mut self, tokens: Vec<T>, error: WalError) {
        if !tokens.is_empty() {
            (self.sink)(Outcome::Refused { tokens, error });
        }
    }

    fn finish(&mut self) -> Result<(), WalError> {
        for unused in self.fresh.take().into_iter().chain(self.preparer.stop()) {
            // Best effort, to give the space back: the next start removes it too.
            let catalog = self.log.catalog();
            let _ = catalog.disk.remove_file(&catalog.dir.join(file_name(unused.header.segment)));
        }
        let cut = if self.is_torn { self.cut_off() } else { Ok(()) };
        let ended = cut.and_then(|()| self.log.append_end(Reason::Clean)).and_then(|_| self.sync());
        match ended {
            Ok(_) => self.log.trim(),
            Err(error) => {
                self.shared.queue.end(End::Poisoned);
                Err(error)
            }
        }
    }
}
