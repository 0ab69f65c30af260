//! Damage to the bytes of a file, by seed (P3).

use model::{Rng, SplitMix64};

const BLOCK_BYTES: usize = 4096;

/// What was done to the bytes. Places in bytes from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// One bit has the other value.
    BitFlip {
        /// The byte.
        at: usize,
        /// The bit in it.
        bit: u8,
    },
    /// A block of 4096 bytes is zero.
    ZeroPage {
        /// Where the block begins.
        at: usize,
    },
    /// The file ends early.
    Truncate {
        /// Its length now.
        len: usize,
    },
    /// A block stands where another was.
    DuplicateBlock {
        /// Where the block was copied from.
        from: usize,
        /// Where it stands too.
        to: usize,
    },
    /// A block has an older content.
    StaleBlock {
        /// Where the block begins.
        at: usize,
    },
}

/// Damages `bytes` as `seed` says. The older content of a block is its first half and then zeros, as if the rest had
/// not been written.
pub fn mutate(bytes: &mut Vec<u8>, seed: u64) -> Mutation {
    let mut donor = bytes.clone();
    for block in donor.chunks_mut(BLOCK_BYTES) {
        let half = block.len() / 2;
        block[half..].fill(0);
    }
    mutate_from(bytes, &donor, seed)
}

/// As [`mutate`], with older content taken from the same place of `donor`, an earlier state of the file or another.
pub fn mutate_from(bytes: &mut Vec<u8>, donor: &[u8], seed: u64) -> Mutation {
    if bytes.is_empty() {
        return Mutation::Truncate { len: 0 };
    }
    let rng = SplitMix64::new(seed);
    let below = |bound: usize| rng.below(bound as u64) as usize;
    let blocks = bytes.len().div_ceil(BLOCK_BYTES);
    let block = || below(blocks) * BLOCK_BYTES;
    let mutation = match rng.below(5) {
        0 => Mutation::BitFlip { at: below(bytes.len()), bit: below(8) as u8 },
        1 => Mutation::ZeroPage { at: block() },
        2 => Mutation::Truncate { len: below(bytes.len()) },
        3 => Mutation::DuplicateBlock { from: block(), to: block() },
        _ => Mutation::StaleBlock { at: block() },
    };
    let end_of = |at: usize, len: usize| (at + BLOCK_BYTES).min(len);
    match mutation {
        Mutation::BitFlip { at, bit } => bytes[at] ^= 1 << bit,
        Mutation::ZeroPage { at } => {
            let end = end_of(at, bytes.len());
            bytes[at..end].fill(0);
        }
        Mutation::Truncate { len } => bytes.truncate(len),
        Mutation::DuplicateBlock { from, to } => {
            let copied = bytes[from..end_of(from, bytes.len())].to_vec();
            let len = copied.len().min(bytes.len() - to);
            bytes[to..to + len].copy_from_slice(&copied[..len]);
        }
        Mutation::StaleBlock { at } => {
            let end = end_of(at, bytes.len()).min(donor.len());
            if at < end {
                bytes[at..end].copy_from_slice(&donor[at..end]);
            }
        }
    }
    mutation
}
