//! The crate's tests through its public face, in one binary.

#![expect(clippy::unwrap_used, reason = "all of this is tests; clippy knows only functions marked as such")]

mod line_protocol;
mod mapping;
mod otlp;
mod prometheus;
mod sparkplug;
mod support;
