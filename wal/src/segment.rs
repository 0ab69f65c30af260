//! One segment file: its name, its header block, and how it comes into being.
//!
//! Owns:     the bytes of the header block, as `docs/formats/wal.md` lays them out, and the names of files.
//! Does not: know frames.
//!
//! Invariant: a file under a segment's final name has, and had when it got that name, a whole and synced header,
//! all of its zeros if it is filled ahead, and the start frame if it opens a life.

use std::path::{Path, PathBuf};

use model::{NodeEpoch, NodeId};

use crate::disk::{Disk, DiskFile, Replace};
use crate::error::{Context, WalError};
use crate::frame::{BLOCK_BYTES, FORMAT_VERSION, NUMBER_MAX};

const MAGIC: [u8; 8] = *b"EDENWAL\n";
const CRC_AT: usize = 12;
/// The longest segment that may be asked for or believed, in bytes (1 TiB).
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 40;
const FILL_BYTES: usize = 1 << 20;

/// The part of the header block that says who wrote the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) segment: u64,
    pub(crate) node: NodeId,
    pub(crate) epoch: NodeEpoch,
    /// The file grows no longer than this.
    pub(crate) bytes_max: u64,
    /// Whether it was made with all of its bytes, as zeros.
    pub(crate) is_filled: bool,
    /// Whether it begins with a start frame.
    pub(crate) opens_life: bool,
}

/// What the header block of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderBlock {
    Whole(SegmentHeader),
    /// Whole, but of a version that we cannot read.
    Newer(u32),
    Damaged,
}

impl SegmentHeader {
    fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &FORMAT_VERSION.to_le_bytes());
        put(16, &self.segment.to_le_bytes());
        put(24, &self.node.0.to_le_bytes());
        put(32, &self.epoch.0.to_le_bytes());
        put(40, &self.bytes_max.to_le_bytes());
        put(48, &[u8::from(self.opens_life), u8::from(self.is_filled)]);
        let crc = checksum(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        block
    }
}

impl HeaderBlock {
    /// Judges the first block of a file; a shorter one is damaged.
    pub(crate) fn decode(block: &[u8]) -> HeaderBlock {
        let Some(block) = block.first_chunk::<{ BLOCK_BYTES as usize }>() else { return HeaderBlock::Damaged };
        let u32_at = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
        // Magic, version and checksum stand where they do in every version to come.
        if block[..8] != MAGIC || u32_at(CRC_AT) != checksum(block) {
            return HeaderBlock::Damaged;
        }
        match u32_at(8) {
            version if version > FORMAT_VERSION => HeaderBlock::Newer(version),
            FORMAT_VERSION
                if u64_at(16) < NUMBER_MAX && u64_at(40) <= SEGMENT_BYTES_MAX && block[48] <= 1 && block[49] <= 1 =>
            {
                HeaderBlock::Whole(SegmentHeader {
                    segment: u64_at(16),
                    node: NodeId(u64_at(24)),
                    epoch: NodeEpoch(u64_at(32)),
                    bytes_max: u64_at(40),
                    is_filled: block[49] == 1,
                    opens_life: block[48] == 1,
                })
            }
            _ => HeaderBlock::Damaged,
        }
    }
}

/// Over all of the block but the checksum itself.
fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CRC_AT]), &block[CRC_AT + 4..])
}

/// The name of segment `id`.
pub(crate) fn file_name(id: u64) -> String {
    format!("{id:020}.wal")
}

/// The segment that `name` names, if it names one.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|id| all_digits && *id < NUMBER_MAX)
}

/// Whether `name` is that of a segment that never got its final name.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).is_some_and(|name| id_of(name).is_some())
}

/// A segment under its final name that holds no frame yet, or only its start frame.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) header: SegmentHeader,
    /// Bytes of the file now.
    pub(crate) file_bytes: u64,
}

/// Makes a segment file and, last of all, its name durable. `start` is the start frame, if it opens a life.
///
/// # Errors
/// [`WalError::Io`]: nothing of it counts, but a file without frames may be left under either name.
pub(crate) fn create(
    disk: &dyn Disk,
    dir: &Path,
    header: SegmentHeader,
    start: Option<&[u8]>,
) -> Result<Fresh, WalError> {
    assert_eq!(header.opens_life, start.is_some());
    let name = file_name(header.segment);
    let unfinished: PathBuf = dir.join(format!(".{name}.tmp"));
    let file = disk.create_new(&unfinished).context("create segment", &name)?;
    let head = [&header.encode(), start.unwrap_or_default()].concat();
    let file_bytes = if header.is_filled { header.bytes_max } else { head.len() as u64 };
    let filled = fill(&*file, &head, file_bytes);
    let named = filled.and_then(|()| {
        file.sync_data().context("sync new segment", &name)?;
        disk.rename(&unfinished, &dir.join(&name), Replace::No).context("name segment", &name)
    });
    if named.is_err() {
        // Best effort, to give the space back: a name like this is removed at the next start as well.
        let _ = disk.remove_file(&unfinished);
    }
    named?;
    // Sync the directory too: after power loss the segment's *name* may be missing although its bytes are safe.
    if let Err(e) = disk.sync_dir(dir) {
        // Best effort, as above: nobody will write to it.
        let _ = disk.remove_file(&dir.join(&name));
        return Err(e).context("sync directory", dir.display());
    }
    Ok(Fresh { file, header, file_bytes })
}

/// Writes `head`, then zeros up to `file_bytes`.
fn fill(file: &dyn DiskFile, head: &[u8], file_bytes: u64) -> Result<(), WalError> {
    let write = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).context("fill segment", "with zeros");
    write(head, 0)?;
    let mut at = head.len() as u64;
    let zeros = vec![0; FILL_BYTES.min(usize::try_from(file_bytes).unwrap_or(FILL_BYTES))];
    while at < file_bytes {
        let len = (file_bytes - at).min(zeros.len() as u64);
        write(&zeros[..len as usize], at)?;
        at += len;
    }
    Ok(())
}
