//! Segments of a log in few bytes, so that most changes of them matter.
//!
//! Owns:     the form: a byte of options, then blocks, each two bytes of length and the bytes before its zeros. The length
//!           65,535 begins another segment.
//! Does not: know what a log is for.

use std::path::{Path, PathBuf};

use faults::SimDisk;

const BLOCK_BYTES: usize = 4096;
const NEXT_SEGMENT: u16 = u16::MAX;
/// What a check takes at most: bytes of segments for each byte of input would else be 2,000 without end.
const BLOCKS_MAX: usize = 64;

/// The segments that `bytes` describe. Bit 0 of the first byte: checksums are made to fit, or nothing behind them would
/// ever be reached.
pub fn expand(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some((&options, mut rest)) = bytes.split_first() else { return Vec::new() };
    let mut segments = vec![Vec::new()];
    let mut blocks = 0;
    while let Some((&len, behind)) = rest.split_first_chunk() {
        rest = behind;
        let last = segments.last_mut().expect("there is one");
        match u16::from_le_bytes(len) {
            NEXT_SEGMENT => segments.push(Vec::new()),
            len => {
                let (block, behind) = rest.split_at(usize::from(len).min(rest.len()));
                rest = behind;
                last.extend_from_slice(block);
                last.resize(last.len().next_multiple_of(BLOCK_BYTES), 0);
            }
        }
        blocks += 1;
        if blocks >= BLOCKS_MAX {
            break;
        }
    }
    if options & 1 == 1 {
        segments.iter_mut().for_each(|segment| fit_checksums(segment));
    }
    segments
}

/// The other way round.
pub fn pack(segments: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = vec![1];
    for (number, segment) in segments.iter().enumerate() {
        if number > 0 {
            packed.extend(NEXT_SEGMENT.to_le_bytes());
        }
        for block in segment.chunks(BLOCK_BYTES) {
            let len = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            packed.extend((len as u16).to_le_bytes());
            packed.extend(&block[..len]);
        }
    }
    packed
}

/// `docs/formats/wal.md`: a header block, then frames that begin on blocks.
fn fit_checksums(segment: &mut [u8]) {
    for at in (0..segment.len()).step_by(BLOCK_BYTES) {
        let (crc_at, len) = match &segment[at..] {
            header if header.starts_with(b"EDENWAL\n") => (12, BLOCK_BYTES),
            frame if frame.starts_with(b"EFRM") => {
                let payload = u32::from_le_bytes([frame[12], frame[13], frame[14], frame[15]]) as usize;
                (8, (80 + payload).min(frame.len()))
            }
            _ => continue,
        };
        let bytes = &mut segment[at..at + len];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..crc_at]), &bytes[crc_at + 4..]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Puts `segments` into `dir` of `disk`, numbered from 1. Returns their bytes.
pub(crate) fn plant(disk: &SimDisk, dir: &Path, segments: &[Vec<u8>]) -> usize {
    for (number, segment) in segments.iter().enumerate() {
        disk.plant(&path(dir, number as u64 + 1), segment).expect("a simulated disk takes files");
    }
    segments.iter().map(Vec::len).sum()
}

/// Where a segment is.
pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.wal"))
}
