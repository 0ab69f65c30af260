//! What can be proven of a damaged commit, line by line.
//!
//! Owns:     which of its actions may be believed.
//! Does not: change anything.
//!
//! An add is believed if its file is, byte for byte, what the add says, rows and statistics included: a damaged line does
//! not agree with a whole file. A remove is believed if it names a file that the table has, and if all other lines are
//! believed too: else what took the file's place may be missing. The watermark is not believed: with an older one more of
//! the log is applied again, which changes nothing.

use std::collections::HashSet;

use super::repair::commit_info;
use super::shard::{Verdict, examine};
use crate::delta::{Action, Metadata, Replay, commit_bytes, read_add, schema_from_json};
use crate::shard::read::ShardReader;

/// The believed part of a damaged commit.
pub(super) struct Salvaged {
    pub(super) actions: Vec<Action>,
    /// Lines that it has, readable or not.
    pub(super) lines: usize,
}

impl Salvaged {
    /// A commit of what is believed.
    pub(super) fn commit(&self) -> Vec<u8> {
        let mut actions = self.actions.clone();
        actions.push(commit_info(0));
        commit_bytes(&actions)
    }

    /// The paths that it removes.
    pub(super) fn removed(&self) -> impl Iterator<Item = String> {
        self.actions.iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove.path.clone()),
            _ => None,
        })
    }
}

/// Takes a damaged commit apart; `before` is the table without it, `removed` what other commits took out of it. `None` if
/// it is the commit that made the table.
pub(super) fn salvage(
    reader: &ShardReader<'_>,
    prefix: &str,
    before: &Replay,
    removed: &HashSet<String>,
    bytes: &[u8],
) -> Option<Salvaged> {
    let known = before.metadata()?;
    let schema = schema_from_json(&known.schema_string).ok()?;
    let mut salvaged = Salvaged { actions: Vec::new(), lines: 0 };
    let mut removes = Vec::new();
    let mut all_believed = true;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        salvaged.lines += 1;
        match serde_json::from_slice::<Action>(line) {
            // It does not matter any more, and its file may be gone.
            Ok(Action::Add(add)) if removed.contains(&add.path) => {}
            Ok(Action::Add(add)) => {
                let shard = read_add(prefix, &add).ok().filter(|shard| shard.checksums.is_some());
                let is_whole =
                    shard.is_some_and(|shard| examine(reader, &schema, &shard, &add, &mut |_| {}) == Verdict::Sound);
                if is_whole {
                    salvaged.actions.push(Action::Add(add));
                } else {
                    all_believed = false;
                }
            }
            Ok(Action::Remove(remove)) if before.has(&remove.path) => removes.push(Action::Remove(remove)),
            Ok(Action::MetaData(metadata)) if continues(known, &metadata) => {
                salvaged.actions.push(Action::MetaData(metadata));
            }
            Ok(Action::Txn(_) | Action::CommitInfo(_)) => {}
            _ => all_believed = false,
        }
    }
    // A commit that is cut short may lack whole lines.
    let is_ended = bytes.ends_with(b"}}\n");
    if all_believed && is_ended {
        salvaged.actions.extend(removes);
    }
    Some(salvaged)
}

/// Whether `metadata` is that of the same table with more columns, or the same ones.
fn continues(known: &Metadata, metadata: &Metadata) -> bool {
    let (Ok(before), Ok(after)) = (schema_from_json(&known.schema_string), schema_from_json(&metadata.schema_string))
    else {
        return false;
    };
    metadata.id == known.id && before.columns().iter().all(|column| after.columns().contains(column))
}
