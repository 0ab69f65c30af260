//! The file beside a checkpoint that says what its bytes must be.
//!
//! Owns:     its name and content (`docs/formats/data-folder.md`).
//! Does not: write checkpoints: it is written when the disk's store puts one.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wal::disk::{self, Disk};

use super::sealed;

#[derive(Serialize, Deserialize)]
struct SideFile {
    checkpoint: Sum,
}

#[derive(Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    /// Eight hexadecimal digits.
    checksum: String,
}

/// What the file beside a checkpoint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// The checkpoint is what was written.
    Whole,
    /// There is no such file: an older version, or a crash, left the checkpoint without it.
    Missing,
    /// The file itself is damaged; nothing is known.
    Damaged,
    /// The checkpoint is not what was written.
    Other,
}

/// The name beside the checkpoint of `version`. No reader of the Delta log takes it for one of its own.
pub(crate) fn side_name(version: i64) -> String {
    format!("{version:020}.checkpoint.crc32c")
}

/// The version whose checkpoint a file of that name stands beside.
pub(crate) fn side_version(name: &str) -> Option<i64> {
    name.strip_suffix(".checkpoint.crc32c").filter(|version| version.len() == 20)?.parse().ok()
}

/// Where the file beside the checkpoint at `path` stands; `None` if that is no checkpoint.
pub(crate) fn beside(path: &Path) -> Option<PathBuf> {
    let version = path.file_name()?.to_str()?.strip_suffix(".checkpoint.parquet")?;
    (path.parent()?.ends_with("_delta_log")).then(|| path.with_file_name(format!("{version}.checkpoint.crc32c")))
}

/// The content of the file beside a checkpoint.
pub(crate) fn content(checkpoint: &[u8]) -> Vec<u8> {
    let checksum = format!("{:08x}", crc32c::crc32c(checkpoint));
    let side = SideFile { checkpoint: Sum { bytes: checkpoint.len() as u64, checksum } };
    let mut bytes = Vec::new();
    sealed::seal(&mut bytes, &serde_json::to_string(&side).expect("plain data"));
    bytes
}

/// Compares `checkpoint`, of `version` in `dir`, with what the file beside it says.
pub(crate) fn compare(disk: &dyn Disk, dir: &Path, version: i64, checkpoint: &[u8]) -> io::Result<Beside> {
    let side = match disk::read_file(disk, &dir.join(side_name(version))) {
        Ok(side) => side,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Beside::Missing),
        Err(e) => return Err(e),
    };
    let parsed = (sealed::is_whole(&side) == Some(true)).then(|| serde_json::from_slice::<SideFile>(&side));
    let Some(Ok(SideFile { checkpoint: written })) = parsed else { return Ok(Beside::Damaged) };
    let found = format!("{:08x}", crc32c::crc32c(checkpoint));
    let is_same = written.bytes == checkpoint.len() as u64 && written.checksum == found;
    Ok(if is_same { Beside::Whole } else { Beside::Other })
}
