//! Our side of the Delta protocol: actions, and the log of one table that we alone write.
//!
//! Owns:     `_delta_log/<version>.json`: format, put-if-absent, syncs (P5); reading it back, checkpoints included.
//! Does not: decide what a commit contains (`flush`), write shards, or write checkpoints (`checkpoint`).
//!
//! Invariants
//!  1. Version N stands only if versions 0..N stand: the next commit is tried only after the last one is durable.
//!  2. A commit is durable (file synced, name synced) before its result is returned.
//!  3. What is read back is what was written, or it is called damaged (P3): commits and checkpoints carry checksums;
//!     those of before there were any are read as they are (P13).
//!  4. Reader version 1, writer version 2, no table features: anything newer is refused (P13).

mod action;
mod bit;
mod checkpoint_read;
pub(crate) mod checkpoint_sum;
mod schema_json;
mod sealed;
mod table_log;

pub(crate) use action::{Action, Add, CommitInfo, Format, Metadata, Protocol, Remove, Txn};
pub(crate) use bit::with_one_bit_turned;
pub(crate) use checkpoint_sum::side_version as checkpoint_side_version;
pub(crate) use schema_json::{schema_from_json, schema_to_json};
pub(crate) use table_log::{
    LogFiles, Replay, Resolved, Sealing, TableLog, TableState, check_checkpoint, checkpoint_version, commit_bytes,
    commit_version, format_day, parse_commit, read_add, shard_from_add,
};

/// Tags of an add: where its rows came from, and what the bytes of its file must be.
pub(crate) const POSITION_MIN_TAG: &str = "eden.pos_min";
pub(crate) const POSITION_MAX_TAG: &str = "eden.pos_max";
pub(crate) const CHECKSUMS_TAG: &str = "eden.crc32c";

/// The partition column: the UTC day of a reading.
pub(crate) const DAY_COLUMN: &str = "eden_day";
