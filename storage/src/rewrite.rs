//! Puts shards in the place of others, in one commit.
//!
//! Owns:     the one way in which shards of a day are replaced by anything but a flush.
//! Does not: write the new ones, or choose the old ones.
//!
//! Invariants
//!  1. No flush is between settling and its commit while shards are replaced, so the places that it found stand.
//!  2. The files of outputs that are in no version are deleted, unless the commit that names them may stand.

use std::collections::HashSet;
use std::sync::Arc;

use crate::catalog::commit_info;
use crate::delta::{Action, Add, DAY_COLUMN, Remove, format_day, shard_from_add};
use crate::shard::index::ShardIndex;
use crate::table::Table;
use crate::{ColumnKind, Shard, StorageError, TableSchema};

/// New shards, durable and in no version yet.
pub(crate) type Outputs = Vec<(Add, Arc<ShardIndex>)>;

impl Table {
    /// Replaces `inputs`, shards of `day`, by `outputs`, written in `schema`, durably. `operation` is for people who read
    /// the history; `base` is the version that was known before the outputs were begun. Returns false, and deletes the
    /// outputs, if an input is no longer in the table, or a column of `schema` has changed its type since; among several
    /// nodes, if anything was committed since.
    ///
    /// # Errors
    /// The table is as it was, and the outputs are deleted; after a commit that may or may not stand they are kept.
    pub(crate) fn replace_shards(
        &self,
        schema: &TableSchema,
        day: i32,
        inputs: &[Arc<Shard>],
        outputs: Outputs,
        operation: &'static str,
        base: i64,
    ) -> Result<bool, StorageError> {
        let _one = self.flushing.lock().expect("no holder of this lock panics");
        let caught_up = self.catch_up();
        let committed = {
            // Held from the look at the schema to the commit: columns change under it only.
            let mut log = self.log.lock().expect("no holder of this lock panics");
            // Among several nodes whoever finds the outputs in no version may delete them one version later (`vacuum`).
            let is_late = self.context.is_common() && log.version() != base;
            if let Err(e) = caught_up {
                Err(e)
            } else if is_late || !self.has_shards(day, inputs) || !still_holds(&self.schema(), schema) {
                Ok(false)
            } else {
                let data_change = outputs.is_empty() || outputs.iter().any(|(add, _)| add.data_change);
                let mut actions = vec![commit_info(&self.context, operation)];
                let removed = inputs.iter().map(|shard| self.remove_action(day, &shard.path, shard.bytes, data_change));
                actions.extend(removed);
                actions.extend(outputs.iter().map(|(add, _)| Action::Add(add.clone())));
                match log.commit(&actions) {
                    Ok(_) => Ok(true),
                    Err(e) if log.is_uncertain() => return Err(e),
                    Err(e) if e.is_version_taken() => Ok(false),
                    Err(e) => Err(e),
                }
            }
        };
        if !matches!(committed, Ok(true)) {
            let paths: Vec<String> = outputs.iter().map(|(add, _)| add.path.clone()).collect();
            self.delete_unnamed(&paths);
            return committed;
        }
        let old: HashSet<&str> = inputs.iter().map(|shard| &*shard.path).collect();
        {
            let _resolving = self.resolving.lock().expect("no holder of this lock panics");
            let mut state = self.state();
            let partition = state.partitions.get_mut(&day).expect("its shards were there, and only flushes take them");
            partition.shards.retain(|shard| !old.contains(&*shard.path));
            for (add, index) in outputs {
                let shard = shard_from_add(&self.context.shards, &self.prefix, &add)
                    .expect("an add that was just made reads back");
                self.context.indexes.put(&shard.path, index);
                partition.shards.push(Arc::new(shard));
            }
            partition.below_version += 1;
        }
        old.iter().for_each(|path| self.context.indexes.forget(path));
        Ok(true)
    }

    fn has_shards(&self, day: i32, wanted: &[Arc<Shard>]) -> bool {
        let state = self.state();
        let Some(partition) = state.partitions.get(&day) else { return wanted.is_empty() };
        let there: HashSet<&str> = partition.shards.iter().map(|shard| &*shard.path).collect();
        wanted.iter().all(|shard| there.contains(&*shard.path))
    }

    /// The action that takes the shard at `path`, below `DATA/tables`, out of the table.
    pub(crate) fn remove_action(&self, day: i32, path: &str, bytes: u64, data_change: bool) -> Action {
        let below_table = path.strip_prefix(&format!("{}/", self.prefix)).expect("a shard of this table");
        Action::Remove(Remove {
            path: below_table.to_owned(),
            deletion_timestamp: Some(self.context.now_ms()),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some([(DAY_COLUMN.to_owned(), Some(format_day(day)))].into()),
            size: i64::try_from(bytes).ok(),
        })
    }

    /// Deletes files, by their paths below the table, that no commit names. Best effort: vacuum finds what is left.
    pub(crate) fn delete_unnamed(&self, paths: &[String]) {
        for path in paths {
            let _ = self.context.disk.remove_file(&self.dir.join(path));
        }
    }
}

/// Whether shards written in `old` fit a table of `new`: it may have more columns, but those of `old` as they were.
pub(crate) fn still_holds(new: &TableSchema, old: &TableSchema) -> bool {
    let tags = |schema: &TableSchema| -> Vec<Arc<str>> {
        let tags = schema.columns().iter().filter(|column| column.kind == ColumnKind::Tag);
        tags.map(|column| Arc::clone(&column.name)).collect()
    };
    tags(new).starts_with(&tags(old)) && old.columns().iter().all(|column| new.columns().contains(column))
}
