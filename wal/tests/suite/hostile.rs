//! Whatever bytes stand in the folder: no panic, and no memory beyond what the files could hold (P14).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use faults::{SimDisk, mutate_from, seeds};
use model::{NodeEpoch, Rng, SplitMix64};
use wal::disk::{Disk, read_file};
use wal::{RingConfig, RingLog};

use crate::rig::{BLOCK, DIR, NODE, SEGMENT_BYTES, record, segment_path, sim};

thread_local! {
    /// The largest single allocation of this thread.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Watched;

// SAFETY: hands everything on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` by `alloc` above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn open(disk: &SimDisk, epoch: u64) -> Option<(RingLog, wal::Recovery)> {
    let config = RingConfig::outbox(DIR, NODE, NodeEpoch(epoch), 1 << 30);
    RingLog::open(Arc::new(disk.clone()), RingConfig { segment_size_bytes: SEGMENT_BYTES, ..config }).ok()
}

/// Three small segments of two lives, as bytes.
fn originals() -> Vec<Vec<u8>> {
    let disk = sim();
    for epoch in 1..=2 {
        let (mut ring, _) = open(&disk, epoch).unwrap();
        for index in 0..3 {
            ring.append(&record(index, 1500 * index)).unwrap();
        }
        ring.sync().unwrap();
        ring.append(b"unsynced").unwrap();
        if epoch == 1 {
            ring.close().unwrap();
        }
    }
    (1..=2).map(|id| read_file(&disk, &segment_path(id)).unwrap()).collect()
}

/// Overwrites a field of a header with a number that is likely to hurt, and makes the checksum fit again.
fn forge(bytes: &mut [u8], rng: &SplitMix64) {
    const NUMBERS: [u64; 10] =
        [0, 1, 4095, 4096, 1 << 25, (1 << 25) + 5, u32::MAX as u64, 1 << 62, u64::MAX - 4095, u64::MAX];
    let blocks = bytes.len() / BLOCK as usize;
    if blocks < 2 {
        return;
    }
    let at = rng.below(blocks as u64) as usize * BLOCK as usize;
    let number = NUMBERS[rng.below(NUMBERS.len() as u64) as usize].to_le_bytes();
    let field = rng.below(26) as usize * 4;
    let width = if rng.below(2) == 0 { 4 } else { 8 };
    bytes[at + field..at + field + width].copy_from_slice(&number[..width]);
    let (crc_at, content_bytes) = if at == 0 {
        (12, BLOCK as usize)
    } else {
        let payload_bytes = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
        (8, (80 + payload_bytes).min(bytes.len() - at))
    };
    let content = &bytes[at..at + content_bytes];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&content[..crc_at]), &content[crc_at + 4..]);
    bytes[at + crc_at..at + crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn no_bytes_make_recovery_panic_or_take_memory_that_no_file_has() {
    let originals = originals();
    let longest = originals.iter().map(Vec::len).max().unwrap();
    for seed in seeds(20_000) {
        let rng = SplitMix64::new(seed);
        let disk = sim();
        for (i, original) in originals.iter().enumerate() {
            let mut bytes = original.clone();
            for _ in 0..rng.below(4) {
                if rng.below(2) == 0 {
                    forge(&mut bytes, &rng);
                } else {
                    mutate_from(&mut bytes, &originals[1 - i], rng.next_u64());
                }
            }
            disk.plant(&segment_path(i as u64 + 1), &bytes).unwrap();
        }
        LARGEST.set(0);
        let read = open(&disk, 3).map(|(mut ring, _)| {
            let frames = ring.reader(0).count();
            ring.append(b"behind").and_then(|_| ring.close()).map(|()| frames)
        });
        let largest = LARGEST.get();
        assert!(largest <= 4 * longest, "seed {seed}: {largest} bytes at once for files of {longest}");
        if let Some(frames) = read {
            let frames = frames.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let (ring, _) = open(&disk, 4).unwrap_or_else(|| panic!("seed {seed}: what was opened does not open"));
            assert_eq!(ring.reader(0).count(), frames + 1, "seed {seed}");
        }
    }
}

#[test]
fn noise_is_no_log() {
    for seed in seeds(300) {
        let rng = SplitMix64::new(seed);
        let disk = sim();
        let noise: Vec<u8> = (0..rng.below(5 * BLOCK)).map(|_| rng.next_u64() as u8).collect();
        disk.plant(&segment_path(1 + rng.below(3)), &noise).unwrap();
        let (ring, recovery) = open(&disk, 1).unwrap();
        assert_eq!(ring.reader(0).count(), 0);
        assert_eq!(recovery.losses.len(), 1, "seed {seed}: {recovery:?}");
        assert!(disk.list(Path::new(DIR)).unwrap().len() == 2, "the noise is kept for whoever wants to look");
    }
}
