//! What must hold of every bytes, parser by parser: `check` takes what the fuzzer made, and panics if it does not (P14).
//!
//! Owns:     a check a parser, the bound of memory in each, and the committed corpora (`corpus/`).
//! Does not: lead the search (libFuzzer does, by coverage), or test what bytes mean: each room's own tests do.
//!
//! Every check does three things: it runs the parser, it holds what the parser allocates against the bytes that were there
//! ([`memory`]), and it asks what the parser promises of what it returns. What is found goes as a test to the parser's
//! room, and its bytes stay in the corpus. `cargo xtask fuzz`; why so: `docs/adr/0029-fuzzing-by-coverage.md`.

pub mod agent_head;
pub mod csv;
pub mod json_lines;
pub mod line_protocol;
pub mod memory;
mod metrics;
pub mod mqtt;
pub mod otlp_json;
pub mod otlp_protobuf;
pub mod outbox;
pub mod prometheus;
pub mod record;
pub mod rules;
pub mod segments;
pub mod settings;
pub mod sparkplug;
/// Of the tests of `decode`: readable batches and soundness.
#[path = "../../decode/tests/suite/support.rs"]
#[allow(dead_code, reason = "half of it is for tests by seeds")]
mod support;
pub mod unpack;
pub mod wal;
