//! Bytes of foreign formats to batches.
//!
//! Owns:     one module a format; each says precisely what it refused. Line protocol and metrics become
//!           [`model::TableBatch`]es; CSV and JSON lines, which do not say what is a tag, become fields by name; messages
//!           become batches by rules ([`mapping`]). Before that: packets of MQTT ([`mqtt`]) and what is compressed ([`unpack`]).
//! Does not: do I/O, ask the time, know a table's schema (`storage` decides conflicts with it), or authorise.
//!
//! Every parser takes hostile bytes: it does not panic, and what it allocates is bounded by what it was given (P14).
//!
//! ```
//! use decode::line_protocol::{Options, Precision, parse};
//!
//! let options = Options { schema: "public", precision: Precision::Second, now_us: 0, errors_max: 100 };
//! let decoded = parse(b"bmp180,sensor=s1 temperature=21.5 1780272000\noops", &options);
//! assert_eq!(decoded.batches[0].times_us, [1_780_272_000_000_000]);
//! assert_eq!(decoded.errors[0].line, 2);
//! ```

pub mod csv;
pub mod json_lines;
pub mod line_protocol;
pub mod line_text;
pub mod mapping;
pub mod metrics;
pub mod mqtt;
pub mod otlp;
pub mod prometheus;
pub mod sparkplug;
pub mod time;
pub mod unpack;
mod wire;
