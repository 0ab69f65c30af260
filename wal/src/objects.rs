//! A server's log as objects in a folder that others can reach: each group of records is one, written once.
//!
//! Owns:     the writer thread of such a log; that nothing is acknowledged before its object stands (P1); that
//!           a log which was taken over acknowledges nothing any more.
//! Does not: find out which life is the present one (its owner claims an epoch), or say who is dead.
//!
//! Invariants
//!  1. The objects of a life have the names of their offsets, and the next one is written only when the one before
//!     stands: so below an object that stands there is none missing.
//!  2. A name is written once (`Replace::No`). Whoever takes a log over puts an end frame, the *seal*, at the name that the
//!     next object would get (`chain`): from then on the earlier life finds that name taken, and it is *fenced*.
//!  3. A seal is never removed: a life that slept for years must still meet it.
//!  4. Every token that [`ObjectLog::append`] took comes back through the sink exactly once, in the order of the log.

mod chain;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use model::{Clock, NodeEpoch, NodeId, Position};

use crate::appender::observe;
use crate::disk::{self, Replace, SharedDisk};
use crate::error::{Context, WalError};
use crate::frame::{BLOCK_BYTES, Closing, FRAME_HEADER_BYTES, FrameBuffer, Header, Kind, RECORD_BYTES_MAX, Reason};
use crate::queue::{End, PoisonOnPanic, Queue, Work};
use crate::reader::Frame;
use crate::recovery::Recovery;
use crate::server::{Group, Outcome, SERVER_QUEUE_BYTES_MAX};
use crate::stats::WalStats;

use chain::{Object, object_path};

/// Payload bytes from which on no further record joins an object.
const OBJECT_BYTES: usize = 4 << 20;
/// Settings of an [`ObjectLog`].
#[derive(Clone)]
pub struct ObjectLogConfig {
    /// Folder of the node's log; made if missing. Nothing else belongs there.
    pub dir: PathBuf,
    /// The node that the log belongs to.
    pub node: NodeId,
    /// The life that opens it. The caller has claimed it: no other life ever had it, and all lower ones were claimed.
    pub epoch: NodeEpoch,
    /// The highest Lamport counter that the caller has seen or used; shared, so that it may raise it.
    pub counter: Arc<AtomicU64>,
    /// Measures writes.
    pub clock: Arc<dyn Clock>,
}

/// A log open for appending; see the module. Share it in an [`Arc`].
///
/// Dropping it waits for its thread; what waits fails with [`WalError::Closed`]. [`ObjectLog::close`] writes it all first.
pub struct ObjectLog<T> {
    shared: Arc<Shared<T>>,
    writer: Option<JoinHandle<Result<(), WalError>>>,
}

struct Shared<T> {
    config: ObjectLogConfig,
    disk: SharedDisk,
    queue: Arc<Queue<T>>,
    known: Arc<Mutex<Known>>,
}

/// What stands.
#[derive(Debug, Default)]
struct Known {
    /// In order of offset, seals left out.
    objects: VecDeque<Object>,
    /// Offset below which objects may be gone.
    first: u64,
    /// Offset up to which everything stands.
    durable: u64,
    stats: WalStats,
}

impl<T: Send + 'static> ObjectLog<T> {
    /// Seals the logs of all earlier lives of the node, reads what they left, and starts the thread that writes.
    ///
    /// `sink` is called on that thread, in the order of the log, once for every group; the log waits for it.
    ///
    /// # Errors
    /// [`WalError::Fenced`] if a later life has begun; [`WalError::Io`], after which a later life may try again.
    pub fn open(
        disk: SharedDisk,
        config: ObjectLogConfig,
        sink: impl FnMut(Outcome<T>) + Send + 'static,
    ) -> Result<(ObjectLog<T>, Recovery), WalError> {
        let chain::Found { objects, first, end, counter, losses } = chain::take_over(&*disk, &config)?;
        observe(&config.counter, counter);
        let folder = chain::epoch_dir(&config.dir, config.epoch.0);
        disk::create_dir_all(&*disk, &folder).context("make directory", folder.display())?;
        let bytes: u64 = objects.iter().map(|object| object.end - object.offset).sum();
        let recovery = Recovery {
            end,
            first: objects.front().map_or(end, |object| object.offset),
            counter,
            clean: losses.is_empty() && objects.is_empty(),
            losses,
            bytes,
        };
        let stats = WalStats { bytes_on_disk: bytes, appended: end, ..WalStats::default() };
        let shared = Arc::new(Shared {
            config,
            disk,
            queue: Queue::new(SERVER_QUEUE_BYTES_MAX),
            known: Arc::new(Mutex::new(Known { objects, first, durable: end, stats })),
        });
        let writer = Writer { shared: Arc::clone(&shared), at: end, buffer: FrameBuffer::default(), sink };
        let thread = thread::Builder::new().name("wal-write".to_owned()).spawn(move || writer.run());
        let writer = Some(thread.context("start thread", "wal-write")?);
        Ok((ObjectLog { shared, writer }, recovery))
    }

    /// Hands over a record; never waits for the disk. Its outcome goes to the sink.
    ///
    /// # Errors
    /// The token, with [`WalError::Full`] (retry later), [`WalError::RecordTooLarge`], [`WalError::Poisoned`],
    /// [`WalError::Fenced`] or [`WalError::Closed`]; the sink then hears nothing of it.
    pub fn append(&self, record: Vec<u8>, token: T) -> Result<(), (T, WalError)> {
        if record.len() > RECORD_BYTES_MAX {
            return Err((token, WalError::RecordTooLarge { bytes: record.len(), bytes_max: RECORD_BYTES_MAX }));
        }
        self.shared.queue.push(record, token)
    }

    /// The longest record that [`ObjectLog::append`] takes.
    pub fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX
    }

    /// Offset up to which everything is durable.
    pub fn durable(&self) -> u64 {
        self.shared.known().durable
    }

    /// Offset of the oldest object of records still there; the end if there is none.
    pub fn first(&self) -> u64 {
        let known = self.shared.known();
        known.objects.front().map_or(known.durable, |object| object.offset)
    }

    /// Reads the durable frames at `from` and behind.
    pub fn reader(&self, from: u64) -> ObjectReader {
        let (disk, config) = (Arc::clone(&self.shared.disk), self.shared.config.clone());
        ObjectReader { disk, config, known: Arc::clone(&self.shared.known), next: from }
    }

    /// Removes the objects whose records all end at or below `offset`, but for the newest of this life, whose name says
    /// where the log ends. That they may be gone is durable before the first one goes.
    ///
    /// # Errors
    /// [`WalError::Io`]: some may be removed; call again.
    pub fn truncate_behind(&self, offset: u64) -> Result<u64, WalError> {
        let (gone, first) = {
            let known = self.shared.known();
            let ours = |object: &&Object| object.epoch == self.shared.config.epoch.0;
            let last = known.objects.back().filter(ours).map(|object| object.offset);
            let below = |object: &&Object| object.end <= offset && Some(object.offset) != last;
            let gone: Vec<Object> = known.objects.iter().take_while(below).copied().collect();
            let Some(first) = gone.last().map(|object| object.end) else { return Ok(0) };
            (gone, first)
        };
        chain::note_first(&*self.shared.disk, &self.shared.config, first)?;
        for object in &gone {
            let path = object_path(&self.shared.config.dir, object.epoch, object.offset);
            match self.shared.disk.remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).context("remove", path.display()),
                _ => {}
            }
            let mut known = self.shared.known();
            known.stats.bytes_on_disk = known.stats.bytes_on_disk.saturating_sub(object.end - object.offset);
            known.objects.pop_front();
            known.first = object.end;
        }
        Ok(gone.len() as u64)
    }

    /// The log's figures; a segment is an object here, and a sync the writing of one.
    pub fn stats(&self) -> WalStats {
        let queue_bytes = self.shared.queue.bytes() as u64;
        let known = self.shared.known();
        WalStats { queue_bytes, durable: known.durable, segments: known.objects.len() as u64, ..known.stats }
    }

    /// Whether nothing is acknowledged any more: an object may or may not stand (P2), or the log was taken over.
    pub fn is_poisoned(&self) -> bool {
        self.shared.queue.has_ended()
    }

    /// Writes all that waits, seals this life's log, and waits for the thread.
    ///
    /// # Errors
    /// What kept the end from being written; the log is as safe as after a crash.
    pub fn close(mut self) -> Result<(), WalError> {
        self.stop(true)
    }
}

impl<T> ObjectLog<T> {
    fn stop(&mut self, is_written: bool) -> Result<(), WalError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        self.shared.queue.close(is_written);
        writer.join().unwrap_or(Err(WalError::Poisoned))
    }
}

impl<T> Drop for ObjectLog<T> {
    fn drop(&mut self) {
        // Whoever cares how it ends calls `close`.
        let _ = self.stop(false);
    }
}

impl<T> std::fmt::Debug for ObjectLog<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { config, queue, .. } = &*self.shared;
        f.debug_struct("ObjectLog").field("dir", &config.dir).field("queue", queue).finish()
    }
}

impl<T> Shared<T> {
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn fenced(&self) -> End {
        let file = chain::epoch_dir(&self.config.dir, self.config.epoch.0).display().to_string();
        // Which life it was is in the seal; that it was a later one is certain.
        End::Fenced { file, found: NodeEpoch(self.config.epoch.0 + 1), ours: self.config.epoch }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().expect("no holder of this lock panics")
}

struct Writer<T, S> {
    shared: Arc<Shared<T>>,
    /// Offset of the next object.
    at: u64,
    buffer: FrameBuffer,
    sink: S,
}

impl<T: Send + 'static, S: FnMut(Outcome<T>)> Writer<T, S> {
    fn run(mut self) -> Result<(), WalError> {
        let _guard = PoisonOnPanic(Arc::clone(&self.shared.queue));
        loop {
            match self.shared.queue.next(OBJECT_BYTES, 1) {
                Work::Write(records) => self.write(records)?,
                Work::NoRoom => unreachable!("an object takes at least one record"),
                Work::Close => return self.seal(),
                Work::Drop(tokens) => {
                    self.fail(tokens, WalError::Closed);
                    return Ok(());
                }
            }
        }
    }

    fn write(&mut self, records: Vec<(Vec<u8>, T)>) -> Result<(), WalError> {
        self.buffer.begin();
        records.iter().for_each(|(record, _)| self.buffer.push_record(record));
        let (position, end) = match self.put(Kind::Data) {
            Ok(written) => written,
            Err(error) => {
                let tokens = records.into_iter().map(|(_, token)| token).collect();
                return self.failed(tokens, error);
            }
        };
        {
            let mut known = self.shared.known();
            known.objects.push_back(Object { epoch: position.epoch.0, offset: position.offset, end });
            known.durable = end;
            known.stats.frames += 1;
            known.stats.records += records.len() as u64;
            known.stats.bytes_on_disk += end - position.offset;
            known.stats.bytes_written += end - position.offset;
            known.stats.appended = end;
        }
        (self.sink)(Outcome::Durable(Group { position, end, records }));
        Ok(())
    }

    /// Puts what is in the buffer as the next object.
    fn put(&mut self, kind: Kind) -> Result<(Position, u64), WalError> {
        let Shared { config, disk, .. } = &*self.shared;
        let counter = config.counter.fetch_add(1, Ordering::AcqRel) + 1;
        let position = Position { counter, node: config.node, epoch: config.epoch, offset: self.at };
        let (header, bytes) = self.buffer.finish(header_of(kind, position));
        let path = object_path(&config.dir, config.epoch.0, self.at);
        let before = config.clock.monotonic();
        let written = disk::write_whole(&**disk, &path, bytes, Replace::No);
        let took = config.clock.monotonic().saturating_sub(before);
        let mut known = self.shared.known();
        known.stats.syncs += 1;
        known.stats.sync_latency_sum += took;
        known.stats.sync_latency_max = known.stats.sync_latency_max.max(took);
        drop(known);
        written.context("put", path.display())?;
        self.at = header.end();
        Ok((position, self.at))
    }

    /// After an object that could not be put: a name that is taken means that the log is another life's now. One that may
    /// stand all the same ends the log (P2); else nothing is in doubt, and the next one gets its name.
    fn failed(&mut self, tokens: Vec<T>, error: WalError) -> Result<(), WalError> {
        let path = object_path(&self.shared.config.dir, self.shared.config.epoch.0, self.at);
        let WalError::Io { source, .. } = &error else { return Err(self.end(End::Poisoned, tokens, error)) };
        if source.kind() == io::ErrorKind::AlreadyExists {
            let fenced = self.shared.fenced();
            return Err(self.end(fenced.clone(), tokens, fenced.into()));
        }
        if self.shared.disk.may_stand(&path, source) {
            return Err(self.end(End::Poisoned, tokens, error));
        }
        (self.sink)(Outcome::Refused { tokens, error });
        Ok(())
    }

    /// Fails `tokens` with `error` and all that waits with it; returns what the thread ends with.
    fn end(&mut self, end: End, tokens: Vec<T>, error: WalError) -> WalError {
        let waiting = self.shared.queue.end(end.clone());
        self.fail(tokens, error);
        self.fail(waiting, end.clone().into());
        end.into()
    }

    fn fail(&mut self, tokens: Vec<T>, error: WalError) {
        if !tokens.is_empty() {
            (self.sink)(Outcome::Failed { tokens, error });
        }
    }

    fn seal(&mut self) -> Result<(), WalError> {
        self.buffer.begin();
        self.buffer.push_closing(Closing { reason: Reason::Clean, cut_at: self.at, next: self.at + BLOCK_BYTES });
        self.put(Kind::End).map(drop).or_else(|error| self.failed(Vec::new(), error))
    }
}

/// Of a frame that is an object of its own. It has no segment; where it begins is what it would be behind a header block.
fn header_of(kind: Kind, position: Position) -> Header {
    let (payload_bytes, records, segment) = (0, 0, 0);
    Header { kind, payload_bytes, records, segment, position, at: BLOCK_BYTES, durable: position.offset }
}

/// Reads the frames of an [`ObjectLog`] from an offset on. `None` means that there are no more *now*. Objects that are
/// removed meanwhile are passed over.
pub struct ObjectReader {
    disk: SharedDisk,
    config: ObjectLogConfig,
    known: Arc<Mutex<Known>>,
    next: u64,
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectReader").field("dir", &self.config.dir).field("next", &self.next).finish_non_exhaustive()
    }
}

impl ObjectReader {
    /// Whether an object that could not be read was removed in order: by this life, or by an earlier one that was not quite
    /// over and needed it no more. What it held is in the tables then.
    fn is_passed_over(&self, object: &Object, error: &io::Error) -> Result<bool, WalError> {
        if error.kind() != io::ErrorKind::NotFound {
            return Ok(false);
        }
        if object.end <= lock(&self.known).first {
            return Ok(true);
        }
        let first = chain::first(&*self.disk, &self.config)?;
        Ok(object.end <= first)
    }
}

impl Iterator for ObjectReader {
    type Item = Result<Frame, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let object = {
                let known = lock(&self.known);
                let at = known.objects.partition_point(|object| object.offset < self.next);
                *known.objects.get(at)?
            };
            self.next = object.end;
            let path = object_path(&self.config.dir, object.epoch, object.offset);
            let bytes = match disk::read_file(&*self.disk, &path) {
                Ok(bytes) => bytes,
                Err(e) => match self.is_passed_over(&object, &e) {
                    Ok(true) => continue,
                    Ok(false) => return Some(Err(e).context("read", path.display())),
                    Err(e) => return Some(Err(e)),
                },
            };
            let Some(header) = chain::verified(&bytes, self.config.node, object.offset) else {
                return Some(Err(WalError::Corrupt { file: path.display().to_string(), at: 0 }));
            };
            let payload = bytes[FRAME_HEADER_BYTES..header.content_bytes()].to_vec();
            return Some(Ok(Frame { position: header.position, end: header.end(), payload, records: header.records }));
        }
    }
}
