//! What a parser holds at most, counted: the allocator of every target.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// What this thread has allocated and not given back, and the most of it.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

struct Counted;

// SAFETY: hands everything on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: `ptr` came from `System` by `alloc` above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Runs `parse`, which may hold at most `bytes_max` at a time beside what was held before, its result included.
///
/// # Panics
/// If it holds more, or if `parse` panics.
pub fn within<T>(bytes_max: usize, parse: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    MOST.set(before);
    let parsed = parse();
    let most = (MOST.get() - before).cast_unsigned();
    assert!(most <= bytes_max, "{most} bytes are held at a time; the bound is {bytes_max}");
    parsed
}
