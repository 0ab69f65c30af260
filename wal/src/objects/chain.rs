//! The lives of one node, one behind the other: what each left, and where the next goes on.
//!
//! Owns:     the names of objects; sealing the logs of earlier lives; telling what is missing or damaged.
//! Does not: write records.
//!
//! Each life's log begins where the seal of the life before it ends, whether that life wrote anything or not. So
//! whoever comes later knows of every earlier life, also of one without an object, which name its next object would get.
//!
//! Objects are deleted in any order, since deletions need not be synced. What may be gone is noted before (`first`), in the
//! folder of the life that deletes: an earlier life that still runs cannot take it back.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use model::{NodeEpoch, NodeId, Position};

use super::{ObjectLogConfig, header_of};
use crate::disk::{self, Disk, EntryKind, Replace};
use crate::error::{Context, WalError};
use crate::frame::{BLOCK_BYTES, Closing, FrameBuffer, Header, Kind, Reason};
use crate::recovery::{Certainty, Loss, LossReason};

/// Digits of an epoch's folder and of an object's name.
const DIGITS: usize = 20;

/// The file that says below which offset objects may be gone.
const FIRST: &str = "first";

/// How often an earlier life may be faster than its seal.
const SEAL_TRIES_MAX: usize = 10_000;

/// An object of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) epoch: u64,
    pub(super) offset: u64,
    /// Offset behind it.
    pub(super) end: u64,
}

/// What earlier lives left.
pub(super) struct Found {
    pub(super) objects: VecDeque<Object>,
    pub(super) first: u64,
    /// Where the log goes on.
    pub(super) end: u64,
    pub(super) counter: u64,
    pub(super) losses: Vec<Loss>,
}

pub(super) fn epoch_dir(dir: &Path, epoch: u64) -> PathBuf {
    dir.join(format!("{epoch:0DIGITS$}"))
}

pub(super) fn object_path(dir: &Path, epoch: u64, offset: u64) -> PathBuf {
    epoch_dir(dir, epoch).join(format!("{offset:0DIGITS$}"))
}

fn number(name: &str) -> Option<u64> {
    (name.len() == DIGITS && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

/// The header of an object of that node and offset; `None` if it is damaged.
pub(super) fn verified(bytes: &[u8], node: NodeId, offset: u64) -> Option<Header> {
    let header = Header::parse(bytes)?;
    let is_whole = bytes.len() as u64 == header.frame_bytes()
        && (header.position.node, header.position.offset) == (node, offset)
        && header.verify(&bytes[..header.content_bytes()]);
    is_whole.then_some(header)
}

/// What is read of one object.
enum Read {
    Whole(Header),
    Damaged,
    /// It was deleted since it was listed.
    Gone,
}

fn read(disk: &dyn Disk, config: &ObjectLogConfig, epoch: u64, offset: u64) -> Result<Read, WalError> {
    let path = object_path(&config.dir, epoch, offset);
    match disk::read_file(disk, &path) {
        Ok(bytes) => Ok(verified(&bytes, config.node, offset).map_or(Read::Damaged, Read::Whole)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Read::Gone),
        Err(e) => Err(e).context("read", path.display()),
    }
}

/// Seals the logs of all lives before the one of `config`, in their order, and reads them.
pub(super) fn take_over(disk: &dyn Disk, config: &ObjectLogConfig) -> Result<Found, WalError> {
    disk::create_dir_all(disk, &config.dir).context("make directory", config.dir.display())?;
    let folders = disk.list(&config.dir).context("list", config.dir.display())?;
    let later = folders.iter().filter_map(|entry| number(&entry.name)).find(|epoch| *epoch > config.epoch.0);
    if let Some(epoch) = later {
        let file = epoch_dir(&config.dir, epoch).display().to_string();
        return Err(WalError::Fenced { file, found: NodeEpoch(epoch), ours: config.epoch });
    }
    let mut listed: Vec<(u64, u64, u64)> = Vec::new();
    let mut end = 0;
    for epoch in 1..config.epoch.0 {
        end = seal(disk, config, epoch, end, &mut listed)?;
    }
    let mut counter = 0;
    let (mut whole, mut damaged) = (Vec::new(), Vec::new());
    for (epoch, offset, bytes) in &listed {
        match read(disk, config, *epoch, *offset)? {
            Read::Whole(header) => {
                counter = counter.max(header.position.counter);
                whole.push((header.kind, Object { epoch: *epoch, offset: *offset, end: header.end() }));
            }
            Read::Damaged => {
                let behind = offset + bytes.next_multiple_of(BLOCK_BYTES);
                damaged.push(Object { epoch: *epoch, offset: *offset, end: behind });
            }
            Read::Gone => {}
        }
    }
    // After the objects: what another life has deleted since they were listed is noted here.
    let first = first(disk, config)?;
    let losses = losses(config, first, end, &whole, &damaged);
    let kept = whole.into_iter().filter(|(kind, object)| *kind == Kind::Data && object.end > first);
    Ok(Found { objects: kept.map(|(_, object)| object).collect(), first, end, counter, losses })
}

/// Makes sure that the life `epoch`, whose log begins at `start`, writes no more. Appends what is there to `listed`: epoch,
/// offset and bytes of each object. Returns where the next life goes on.
fn seal(
    disk: &dyn Disk,
    config: &ObjectLogConfig,
    epoch: u64,
    start: u64,
    listed: &mut Vec<(u64, u64, u64)>,
) -> Result<u64, WalError> {
    let folder = epoch_dir(&config.dir, epoch);
    disk::create_dir_all(disk, &folder).context("make directory", folder.display())?;
    for _ in 0..SEAL_TRIES_MAX {
        let mut objects: Vec<(u64, u64, u64)> = disk
            .list_with_info(&folder)
            .context("list", folder.display())?
            .into_iter()
            .filter(|(entry, _)| entry.kind == EntryKind::File)
            .filter_map(|(entry, info)| Some((epoch, number(&entry.name)?, info.len)))
            .collect();
        objects.sort_unstable();
        // What is built on the names found here (a seal behind them, a commit) must not outlive them.
        disk.sync_dir(&folder).context("sync", folder.display())?;
        let (at, is_sealed) = match objects.last() {
            None => (start, false),
            Some((_, offset, bytes)) => match read(disk, config, epoch, *offset)? {
                Read::Whole(header) => (header.end(), header.kind == Kind::End),
                Read::Damaged => (offset + bytes.next_multiple_of(BLOCK_BYTES), false),
                // Another life that takes over deletes only what has a seal behind it by now.
                Read::Gone => continue,
            },
        };
        if is_sealed {
            listed.extend(objects);
            return Ok(at);
        }
        match put_seal(disk, config, epoch, at) {
            // Whatever was there before it was listed above.
            Ok(()) => {
                objects.push((epoch, at, BLOCK_BYTES));
                listed.extend(objects);
                return Ok(at + BLOCK_BYTES);
            }
            // Either a seal, or an object of records: then it counts, and the next name is tried.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).context("seal", object_path(&config.dir, epoch, at).display()),
        }
    }
    Err(WalError::Config("an earlier life of the node writes faster than its log can be sealed; stop it"))
}

fn put_seal(disk: &dyn Disk, config: &ObjectLogConfig, epoch: u64, at: u64) -> io::Result<()> {
    let mut buffer = FrameBuffer::default();
    buffer.begin();
    buffer.push_closing(Closing { reason: Reason::Cut, cut_at: at, next: at + BLOCK_BYTES });
    // The seal says who put it. It is not in the order of writes.
    let position = Position { counter: 1, node: config.node, epoch: config.epoch, offset: at };
    let (_, bytes) = buffer.finish(header_of(Kind::End, position));
    disk::write_whole(disk, &object_path(&config.dir, epoch, at), bytes, Replace::No)
}

/// What is missing or damaged at `first` and behind.
fn losses(config: &ObjectLogConfig, first: u64, end: u64, whole: &[(Kind, Object)], damaged: &[Object]) -> Vec<Loss> {
    let mut all: Vec<(Object, bool)> = whole.iter().map(|(_, object)| (*object, true)).collect();
    all.extend(damaged.iter().map(|object| (*object, false)));
    all.sort_unstable_by_key(|(object, _)| (object.offset, object.epoch));
    let mut losses = Vec::new();
    let mut lost = |epoch: u64, from: u64, to: u64, reason| {
        let file = object_path(&config.dir, epoch, from).display().to_string();
        losses.push(Loss { file, segment: epoch, from, to: Some(to), certainty: Certainty::Certain, reason });
    };
    let (mut expected, mut epoch) = (first, 1);
    for (object, is_whole) in all {
        if object.end <= first {
            continue;
        }
        if object.offset > expected {
            lost(epoch, expected, object.offset, LossReason::MissingSegment);
        }
        if !is_whole {
            lost(object.epoch, object.offset, object.end, LossReason::Damaged);
        }
        (expected, epoch) = (expected.max(object.end), object.epoch);
    }
    if expected < end {
        lost(epoch, expected, end, LossReason::MissingSegment);
    }
    losses
}

/// Says, durably, that objects below `first` may be gone.
pub(super) fn note_first(disk: &dyn Disk, config: &ObjectLogConfig, first: u64) -> Result<(), WalError> {
    let path = epoch_dir(&config.dir, config.epoch.0).join(FIRST);
    let digits = format!("{first:0DIGITS$}");
    let text = format!("{digits} {:08x}\n", crc32c::crc32c(digits.as_bytes()));
    disk::write_whole(disk, &path, text.as_bytes(), Replace::Yes).context("write", path.display())
}

/// The offset below which objects may be gone, as any life has noted it.
pub(super) fn first(disk: &dyn Disk, config: &ObjectLogConfig) -> Result<u64, WalError> {
    let mut first = 0;
    for epoch in 1..config.epoch.0 {
        let path = epoch_dir(&config.dir, epoch).join(FIRST);
        let bytes = match disk::read_file(disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).context("read", path.display()),
        };
        // A damaged note hides nothing: what is gone is named as lost then.
        let noted = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().split_once(' '));
        let noted = noted.filter(|(digits, sum)| *sum == format!("{:08x}", crc32c::crc32c(digits.as_bytes())));
        first = first.max(noted.and_then(|(digits, _)| number(digits)).unwrap_or(0));
    }
    Ok(first)
}
