//! What Eden talks about: readings of series, grouped into batches, ordered by position.
//!
//! Owns:     the types that every room shares, the bytes in which they are logged ([`record`]), and times and spans of
//!           time as people write them ([`time_text`]).
//! Does not: do I/O, know Arrow, or wait for anything. [`SystemClock`] is the one place that asks the time.
//!
//! ```
//! use model::{SeriesKey, TableBatch, TableName, Value};
//!
//! let mut batch = TableBatch::new(TableName::public("bmp180"));
//! let series = batch.intern_series(SeriesKey::from_tags([("sensor", "s1")]));
//! let temperature = batch.field_column("temperature", model::FieldType::F64);
//! batch.push_row(series, 1_780_272_000_000_000, 1, &[(temperature, Value::F64(21.5))]);
//! assert_eq!(batch.len(), 1);
//! ```

pub mod backoff;
pub mod batch;
pub mod clock;
pub mod decimal;
pub mod name;
pub mod position;
pub mod record;
pub mod removal;
pub mod series;
pub mod time_text;
pub mod validity;

pub use backoff::Backoff;
pub use batch::{BatchBuilder, FieldColumn, FieldType, FieldValues, TableBatch, TextColumn, Value};
pub use clock::{Clock, Rng, SplitMix64, SystemClock};
pub use name::{NameError, TableId, TableName};
pub use position::{NodeEpoch, NodeId, Position};
pub use removal::Removal;
pub use series::SeriesKey;
pub use validity::Validity;

/// Microseconds in one UTC day.
pub const DAY_US: i64 = 86_400_000_000;

/// The UTC day that holds `time_us`, in days since 1970-01-01; negative before it.
pub fn day_of(time_us: i64) -> i32 {
    // An i64 of microseconds spans fewer than 107 million days either way.
    i32::try_from(time_us.div_euclid(DAY_US)).expect("an i64 of microseconds is fewer days than an i32 holds")
}

/// Microseconds since 1970-01-01 UTC of a number whose unit is told by its magnitude: below 5·10⁹ seconds, 5·10¹²
/// milliseconds, 5·10¹⁵ microseconds, from there nanoseconds (floored). `None` if that is no i64.
pub fn us_by_magnitude(time: i64) -> Option<i64> {
    match time.unsigned_abs() {
        0..5_000_000_000 => time.checked_mul(1_000_000),
        5_000_000_000..5_000_000_000_000 => time.checked_mul(1_000),
        5_000_000_000_000..5_000_000_000_000_000 => Some(time),
        _ => Some(time.div_euclid(1_000)),
    }
}
