//! Fields of every type with values at random.

use crate::reading::Reading;
use crate::rng::Rng;

/// Adds one to five fields, at least one always.
pub(super) fn add_fields(rng: &mut Rng, mut reading: Reading) -> Reading {
    let first = rng.below(5);
    for field in 0..5 {
        if field != first && rng.one_in(2) {
            continue;
        }
        let random = rng.next_u64();
        reading = match field {
            0 => reading.field("temperature", ((random % 100_000) as f64 - 40_000.0) / 1_000.0),
            1 => reading.field("count", random as i64),
            2 => reading.field("on", random.is_multiple_of(2)),
            3 => reading.field("note", &*format!("\"{}\" \\ ü, {}", random % 7, random % 1_000)),
            _ => reading.field("total", random),
        };
    }
    reading
}
