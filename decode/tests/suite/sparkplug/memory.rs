//! What payloads that are made to be large inside cost in memory, beside their own bytes (P14).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::{Plant, bytes, metric, number};
use decode::mapping::{Message, Rows};

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

/// The most memory that hearing a birth takes, its rows not among it.
fn most_bytes(payload: &[u8]) -> usize {
    let mut plant = Plant::new();
    let mut rows = Rows::new("public");
    let message = Message { topic: "spBv1.0/g/NBIRTH/n", payload, user_properties: &[], now_us: 0 };
    let before = HELD.get();
    MOST.set(before);
    let heard = plant.rule.hear(&mut plant.host, &message, plant.now, &mut rows);
    drop(heard);
    (MOST.get() - before).cast_unsigned()
}

fn nested(mut inner: Vec<u8>, depth: usize) -> Vec<u8> {
    for _ in 0..depth {
        inner = metric(Some("t"), None, Some(19), bytes(18, &bytes(2, &inner)));
    }
    bytes(2, &inner)
}

#[test]
fn payloads_made_to_be_large_inside_take_a_small_multiple_of_their_bytes() {
    const MANY: usize = 50_000;
    let on = || number(14, 1);
    let seq = number(3, 0);
    let metrics = |one: &[u8]| [bytes(2, one).repeat(MANY), seq.clone()].concat();
    let in_template = |name: &str| {
        let inner = bytes(2, &metric(Some("b"), None, Some(11), on())).repeat(MANY);
        [bytes(2, &metric(Some(name), None, Some(19), bytes(18, &inner))), seq.clone()].concat()
    };
    let empties = metric(Some("t"), None, Some(19), bytes(18, &bytes(2, &[]).repeat(MANY)));
    // As many times its own bytes.
    let cases = [
        ("empty metrics", 1, metrics(&[])),
        ("aliases without names", 1, metrics(&metric(None, Some(1), None, on()))),
        ("one name", 16, metrics(&metric(Some("a"), None, Some(11), on()))),
        ("refused types", 1, metrics(&metric(Some("a"), None, Some(17), bytes(16, b"")))),
        ("bare templates", 1, metrics(&metric(Some("a"), None, Some(19), bytes(18, b"")))),
        ("a template of many", 16, in_template("a")),
        // Each value has a name that is longer than all that stands in the payload for it.
        ("a template of many below a long name", 32, in_template(&"n".repeat(70))),
        ("empty metrics deep down", 1, [nested(empties, 7), seq.clone()].concat()),
        ("one long text deep down", 2, nested(metric(Some("x"), None, Some(12), bytes(15, &[b'x'; 500_000])), 8)),
    ];
    for (what, times_max, payload) in cases {
        let most = most_bytes(&payload);
        assert!(most <= times_max * payload.len(), "{what}: {} bytes take {most}", payload.len());
    }
    // More values than a payload may have metrics, of one that has few: the bound is the same.
    let two = [in_template("a"), in_template("b")].concat();
    let (_, refused, _) = Plant::new().hear("g/NBIRTH/n", &two);
    assert!(refused.contains("there are more than 50000 values, those in templates among them"), "{refused}");
}
