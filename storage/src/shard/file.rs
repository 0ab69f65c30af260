//! The bytes of a shard's file, each verified before it is handed out (P11).
//!
//! Owns:     expanding a read to whole blocks, comparing those with their checksums, cutting out what was asked for.
//! Does not: know Parquet, or which shards there are (`known`).
//!
//! Invariants
//!  1. No byte of a file with checksums leaves here that is not the one that was written.
//!  2. A read takes the memory of what was asked for, and of two blocks for each stretch; at most twice what is kept.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use wal::disk::{self, Disk, DiskFile};

use super::checksum::{BLOCK_BYTES, Checksums};

/// Read and compared at once, so that the bytes are still in the processor's cache when they are summed.
const STEP_BYTES: usize = 16 * BLOCK_BYTES as usize;

/// The file of a shard is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location} is damaged: {reason}")]
pub struct ShardDamage {
    /// The shard, below `DATA/tables`, as [`crate::Shard::path`].
    pub location: String,
    /// Which bytes, or what else is wrong with the file.
    pub reason: String,
}

/// Why bytes could not be had.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The disk did not give them: nothing is said about the file.
    Io(io::Error),
    /// It gave others than were written.
    Damaged(ShardDamage),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(e) => e.fmt(f),
            ReadError::Damaged(damage) => damage.fmt(f),
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<ReadError> for ParquetError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(e) => ParquetError::External(Box::new(e)),
            ReadError::Damaged(damage) => ParquetError::External(Box::new(damage)),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(e) => e,
            ReadError::Damaged(damage) => io::Error::new(io::ErrorKind::InvalidData, damage),
        }
    }
}

/// An open shard.
#[derive(Debug)]
pub(crate) struct ShardFile {
    file: Box<dyn DiskFile>,
    location: String,
    /// `None` for shards of before there were checksums: they are handed out as they are (P13).
    checksums: Option<Checksums>,
    len: u64,
    /// Whether it is read from one end to the other, a little at a time.
    is_read_through: bool,
}

impl ShardFile {
    /// Opens the file at `path`; `location` names it in errors.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        location: &str,
        checksums: Option<Checksums>,
    ) -> Result<ShardFile, ReadError> {
        let file = disk.open_read(path)?;
        let len = file.len()?;
        let opened = ShardFile { file, location: location.to_owned(), checksums, len, is_read_through: false };
        match &opened.checksums {
            Some(sums) if sums.bytes() != len => {
                Err(opened.damaged(format!("it has {len} bytes, and {} were written", sums.bytes())))
            }
            _ => Ok(opened),
        }
    }

    /// For whoever reads much of it, a little at a time: a disk behind a network is asked for more than each time is wanted.
    pub(crate) fn read_through(self) -> ShardFile {
        ShardFile { is_read_through: true, ..self }
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of each range.
    pub(crate) fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, ReadError> {
        if ranges.iter().any(|range| range.start > range.end || range.end > self.len) {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_by_key(|i| ranges[*i].start);
        // Blocks that touch or overlap are read once.
        let mut stretches: Vec<(Range<u64>, usize)> = Vec::new();
        for i in &order {
            let wanted = self.expand(&ranges[*i]);
            match stretches.last_mut() {
                Some((stretch, count)) if wanted.start <= stretch.end => {
                    stretch.end = stretch.end.max(wanted.end);
                    *count += 1;
                }
                _ => stretches.push((wanted, 1)),
            }
        }
        let mut together = self.read_together(&stretches)?.map(Vec::into_iter);
        let mut found = vec![Bytes::new(); ranges.len()];
        let mut rest = &order[..];
        for (stretch, count) in &stretches {
            let (here, behind) = rest.split_at(*count);
            let bytes = match together.as_mut().and_then(Iterator::next) {
                Some(bytes) => bytes,
                None => self.read_stretch(stretch)?,
            };
            let wanted: u64 = here.iter().map(|i| ranges[*i].end - ranges[*i].start).sum();
            for i in here {
                let from = (ranges[*i].start - stretch.start) as usize;
                let to = (ranges[*i].end - stretch.start) as usize;
                // A slice keeps the whole stretch in memory: not for the sake of a page of it.
                let shares = wanted * 2 >= bytes.len() as u64;
                found[*i] = if shares { bytes.slice(from..to) } else { Bytes::copy_from_slice(&bytes[from..to]) };
            }
            rest = behind;
        }
        Ok(found)
    }

    /// Reads all stretches at once where that is faster, which it is behind a network.
    fn read_together(&self, stretches: &[(Range<u64>, usize)]) -> Result<Option<Vec<Bytes>>, ReadError> {
        if self.is_read_through {
            return Ok(None);
        }
        let ranges: Vec<Range<u64>> = stretches.iter().map(|(stretch, _)| stretch.clone()).collect();
        let Some(read) = self.file.read_together(&ranges) else { return Ok(None) };
        let read = read?;
        for (range, bytes) in ranges.iter().zip(&read) {
            self.compare(range.start, bytes)?;
        }
        Ok(Some(read.into_iter().map(Bytes::from).collect()))
    }

    /// The bytes of one range.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes, ReadError> {
        let found = self.read_ranges(std::slice::from_ref(&range))?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    /// Reads through all of the file, calling `step` with the bytes done; stops without an error when it says no.
    pub(crate) fn verify(&self, step: &mut dyn FnMut(u64) -> bool) -> Result<(), ReadError> {
        let mut at = 0;
        while at < self.len {
            let end = self.len.min(at + STEP_BYTES as u64);
            self.read_stretch(&(at..end))?;
            at = end;
            if !step(at) {
                break;
            }
        }
        Ok(())
    }

    fn expand(&self, range: &Range<u64>) -> Range<u64> {
        self.checksums.as_ref().map_or(range.clone(), |sums| sums.expand(range))
    }

    /// Whole blocks, if there are checksums.
    fn read_stretch(&self, stretch: &Range<u64>) -> Result<Bytes, ReadError> {
        let len =
            usize::try_from(stretch.end - stretch.start).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut bytes = vec![0; len];
        let mut at = stretch.start;
        for step in bytes.chunks_mut(STEP_BYTES) {
            disk::read_exact_at(&*self.file, step, at)?;
            self.compare(at, step)?;
            at += step.len() as u64;
        }
        Ok(bytes.into())
    }

    /// Compares whole blocks from byte `at` on with their checksums, if there are any.
    fn compare(&self, at: u64, bytes: &[u8]) -> Result<(), ReadError> {
        let Some(sums) = &self.checksums else { return Ok(()) };
        sums.verify(at, bytes).map_err(|bad| {
            self.damaged(format!("bytes {}..{} are not those that were written (checksum)", bad.start, bad.end))
        })
    }

    fn damaged(&self, reason: String) -> ReadError {
        self.file.distrust();
        ReadError::Damaged(ShardDamage { location: self.location.clone(), reason })
    }
}

#[cfg(test)]
mod tests {
    use model::{Rng, SplitMix64};
    use wal::disk::LocalDisk;

    use super::*;
    use crate::shard::checksum::Summer;

    fn file(content: &[u8]) -> (tempfile::TempDir, Checksums) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), content).unwrap();
        let mut summer = Summer::default();
        summer.add(content);
        (folder, summer.finish())
    }

    fn open(folder: &tempfile::TempDir, checksums: Option<Checksums>) -> Result<ShardFile, ReadError> {
        ShardFile::open(&LocalDisk::new(), &folder.path().join("f"), "f", checksums)
    }

    #[test]
    fn any_ranges_are_the_bytes_of_the_file() {
        let rng = SplitMix64::new(7);
        let content: Vec<u8> = (0..400_001).map(|_| rng.next_u64() as u8).collect();
        let (folder, sums) = file(&content);
        for checksums in [None, Some(sums)] {
            let file = open(&folder, checksums).unwrap();
            for _ in 0..200 {
                let ranges: Vec<Range<u64>> = (0..rng.below(6))
                    .map(|_| {
                        let from = rng.below(content.len() as u64 + 1);
                        let len = rng.below(if rng.below(2) == 0 { 100 } else { 150_000 });
                        from..(from + len).min(content.len() as u64)
                    })
                    .collect();
                let found = file.read_ranges(&ranges).unwrap();
                for (range, bytes) in ranges.iter().zip(found) {
                    assert_eq!(bytes, content[range.start as usize..range.end as usize], "{range:?}");
                }
            }
            let beyond = content.len() as u64 + 1;
            assert!(file.read(0..beyond).is_err());
            #[expect(clippy::reversed_empty_ranges, reason = "that is what is tried")]
            let reversed = 5..4;
            assert!(file.read(reversed).is_err());
        }
    }

    #[test]
    fn a_wrong_byte_fails_the_reads_that_touch_its_block_and_no_other() {
        let mut content = vec![7_u8; 200_000];
        let (folder, sums) = file(&content);
        content[70_000] ^= 4;
        std::fs::write(folder.path().join("f"), &content).unwrap();
        let file = open(&folder, Some(sums.clone())).unwrap();
        assert!(file.read(0..65_536).is_ok());
        assert!(file.read(131_072..200_000).is_ok());
        for range in [65_536..65_537, 131_071..131_072, 0..200_000] {
            let error = file.read(range).unwrap_err().to_string();
            assert_eq!(error, "f is damaged: bytes 65536..131072 are not those that were written (checksum)");
        }
        assert!(file.verify(&mut |_| true).is_err());
        std::fs::write(folder.path().join("f"), &content[..199_999]).unwrap();
        let error = open(&folder, Some(sums)).unwrap_err().to_string();
        assert_eq!(error, "f is damaged: it has 199999 bytes, and 200000 were written");
    }
}
