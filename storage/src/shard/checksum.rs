//! CRC32C of each 64 KiB block of a shard, so that a damaged byte never becomes a value (P11).
//!
//! Owns:     how the checksums are made, written in the Delta log (tag `eden.crc32c`), and compared.
//! Does not: read files (`file` does).

use std::ops::Range;
use std::sync::Arc;

/// Bytes of a block; the last one of a file is shorter. A read is expanded to whole blocks: smaller ones would cost the
/// log more than 0.1 ‰ of the shard, larger ones more reading for a page.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;

const DIGITS: usize = 8;

/// The checksums of a shard's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksums {
    /// Bytes of the file.
    bytes: u64,
    /// One for each block.
    blocks: Arc<[u32]>,
}

impl Checksums {
    /// Reads what [`Checksums::encode`] wrote for a file of `bytes`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub(crate) fn decode(text: &str, bytes: u64) -> Result<Checksums, String> {
        let blocks = usize::try_from(bytes.div_ceil(BLOCK_BYTES)).map_err(|_| "a file of that size")?;
        if !text.is_ascii() || text.len() != blocks.saturating_mul(DIGITS) {
            return Err(format!("checksums of {} characters for {blocks} blocks", text.len()));
        }
        let block = |digits: &[u8]| parse_hex(digits).ok_or("checksums that are not hexadecimal");
        let blocks = text.as_bytes().chunks(DIGITS).map(block).collect::<Result<Vec<u32>, _>>()?;
        Ok(Checksums { bytes, blocks: blocks.into() })
    }

    /// Eight lower-case hexadecimal digits a block.
    pub(crate) fn encode(&self) -> String {
        self.blocks.iter().map(|block| format!("{block:08x}")).collect()
    }

    /// Bytes that the file must have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The blocks that `range` touches, as bytes of the file.
    pub(crate) fn expand(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        start..range.end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES).min(self.bytes)
    }

    /// Compares `content`, whole blocks from byte `at` on, with what was written.
    ///
    /// # Errors
    /// The bytes of the file that the first other block has.
    pub(crate) fn verify(&self, at: u64, content: &[u8]) -> Result<(), Range<u64>> {
        assert!(at.is_multiple_of(BLOCK_BYTES), "whole blocks are compared, not from byte {at}");
        let mut from = at;
        for block in content.chunks(BLOCK_BYTES as usize) {
            let to = from + block.len() as u64;
            assert!(to.is_multiple_of(BLOCK_BYTES) || to == self.bytes, "whole blocks are compared, not to byte {to}");
            let index = usize::try_from(from / BLOCK_BYTES).ok();
            let written = index.and_then(|index| self.blocks.get(index));
            if written != Some(&crc32c::crc32c(block)) {
                return Err(from..to);
            }
            from = to;
        }
        Ok(())
    }
}

/// A number of eight lower-case hexadecimal digits.
pub(crate) fn parse_hex(digits: &[u8]) -> Option<u32> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != DIGITS || !digits.iter().all(is_digit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Makes the checksums of bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Summer {
    blocks: Vec<u32>,
    crc: u32,
    /// Bytes so far.
    bytes: u64,
}

impl Summer {
    pub(crate) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.bytes % BLOCK_BYTES;
            let (here, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.crc = crc32c::crc32c_append(self.crc, here);
            self.bytes += here.len() as u64;
            if self.bytes.is_multiple_of(BLOCK_BYTES) {
                self.blocks.push(std::mem::take(&mut self.crc));
            }
            bytes = rest;
        }
    }

    pub(crate) fn finish(mut self) -> Checksums {
        if !self.bytes.is_multiple_of(BLOCK_BYTES) {
            self.blocks.push(self.crc);
        }
        Checksums { bytes: self.bytes, blocks: self.blocks.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_do_not_depend_on_how_the_bytes_came_and_read_back() {
        for len in [0, 1, 65_535, 65_536, 65_537, 200_000_usize] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let mut whole = Summer::default();
            whole.add(&bytes);
            let mut parts = Summer::default();
            bytes.chunks(1000).for_each(|part| parts.add(part));
            let sums = whole.finish();
            assert_eq!(sums, parts.finish());
            assert_eq!(sums.bytes(), len as u64);
            assert_eq!(Checksums::decode(&sums.encode(), len as u64), Ok(sums.clone()));
            assert_eq!(sums.verify(0, &bytes), Ok(()));
            if let Some(last) = bytes.last() {
                let mut other = bytes.clone();
                other[len - 1] = last ^ 1;
                let at = (len as u64 - 1) / BLOCK_BYTES * BLOCK_BYTES;
                assert_eq!(sums.verify(0, &other), Err(at..len as u64));
            }
        }
    }

    #[test]
    fn ranges_are_expanded_to_blocks_within_the_file() {
        let mut summer = Summer::default();
        summer.add(&vec![1; 100_000]);
        let sums = summer.finish();
        assert_eq!(sums.expand(&(70_000..70_001)), 65_536..100_000);
        assert_eq!(sums.expand(&(1..65_536)), 0..65_536);
        assert_eq!(sums.expand(&(1..65_537)), 0..100_000);
    }

    #[test]
    fn a_text_that_is_none_is_told() {
        for text in ["", "0123456", "0123456g", "0123456A", "+1234567", "0123456701234567", "é123456"] {
            assert!(Checksums::decode(text, 10).is_err(), "{text}");
        }
        assert!(Checksums::decode("01234567", 10).is_ok());
        assert!(Checksums::decode("", u64::MAX).is_err());
    }
}
