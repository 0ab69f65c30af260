//! What the two formats of metrics share: samples are rows or refused, in portions.

use decode::metrics::{Chunk, DecodeError, Take};
use model::TableBatch;

use crate::memory::within;
use crate::support::assert_sound;

/// A portion has 8 MiB and one sample, and columns grow by doubling; what the body holds in symbols and labels is more.
const PORTION_BYTES_MAX: usize = 32 << 20;
const BYTES_A_BYTE: usize = 512;

/// Decodes `body` by `decode`, which returns how many samples there were.
pub(crate) fn check(body: &[u8], decode: impl FnOnce(&mut Take<'_, ()>) -> Result<u64, DecodeError<()>>) {
    let mut rows = 0;
    let counted = within(PORTION_BYTES_MAX + BYTES_A_BYTE * body.len(), || {
        decode(&mut |Chunk { batches, refused }| {
            batches.iter().for_each(assert_sound);
            rows += batches.iter().map(TableBatch::len).sum::<usize>() + refused.len();
            Ok(())
        })
    });
    if let Ok(samples) = counted {
        assert_eq!(rows as u64, samples, "a sample is a row or refused");
    }
}
