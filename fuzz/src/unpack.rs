//! Compressed bodies. The first byte says by what.

use decode::unpack::{gzip, snappy, zstd};

use crate::memory::within;

const LIMIT: usize = 1 << 20;

/// What comes out is never more than the limit. What the C library of zstd takes, libFuzzer's limit of memory bounds.
pub fn check(bytes: &[u8]) {
    let Some((&which, packed)) = bytes.split_first() else { return };
    let unpacked = within(3 * LIMIT + (128 << 10), || match which % 3 {
        0 => gzip(packed, LIMIT),
        1 => zstd(packed, LIMIT),
        _ => snappy(packed, LIMIT),
    });
    assert!(unpacked.map_or(0, |bytes| bytes.len()) <= LIMIT, "more than the limit");
}
