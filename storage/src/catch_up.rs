//! Brings a table up to what other nodes have committed (docs/adr/0018).
//!
//! Owns:     reading their commits, and what these do to the table in memory.
//! Does not: commit, or settle: whoever takes a snapshot or flushes does that next, since the layers have changed.
//!
//! Invariants
//!  1. Shards of others come and go only while `flushing` is held: a flush is never between settling and its commit then.
//!     So a commit of a flush that succeeds was settled against every shard of the version before it (P4).
//!  2. A commit is applied as a whole, or the table is as it was.
//!  3. What another life of this node has committed is never passed over: a later one means that this one is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalog::SYSTEM;
use crate::delta::{Action, Metadata, schema_from_json, shard_from_add};
use crate::options::Properties;
use crate::rewrite::still_holds;
use crate::table::{Fate, Table};
use crate::{Shard, StorageError, TableSchema};

/// How often a commit is tried again that another node was faster than.
pub(crate) const TRIES_MAX: usize = 50;

/// What a commit of another node says, read.
#[derive(Default)]
struct News {
    added: Vec<Shard>,
    /// Paths below `DATA/tables`.
    removed: Vec<String>,
    table: Option<(TableSchema, Properties)>,
    /// The watermark of an earlier life of this node that was not quite over.
    flushed: Option<u64>,
}

impl Table {
    /// Does [`Table::catch_up`] if there is something new, as far as the table can be followed at all.
    pub(crate) fn follow(&self) -> Result<(), StorageError> {
        if !self.context.is_common() {
            return Ok(());
        }
        {
            let log = self.log.lock().expect("no holder of this lock panics");
            // What is in doubt only a restart can tell; until then the table is what it was.
            if log.is_uncertain() || !log.is_behind() {
                return Ok(());
            }
        }
        let _one = self.flushing.lock().expect("no holder of this lock panics");
        self.catch_up()
    }

    /// Applies what others have committed. The caller holds `flushing`.
    ///
    /// # Errors
    /// [`StorageError::Fenced`] if a later life of this node has flushed the table; [`StorageError::Corrupt`] names a
    /// commit that cannot be read.
    pub(crate) fn catch_up(&self) -> Result<(), StorageError> {
        if !self.context.is_common() {
            return Ok(());
        }
        self.context.check_not_fenced()?;
        let _resolving = self.resolving.lock().expect("no holder of this lock panics");
        let mut log = self.log.lock().expect("no holder of this lock panics");
        for (actions, bytes) in log.news()? {
            let corrupt = |reason| StorageError::Corrupt { path: self.dir.join("_delta_log"), reason };
            let news = self.read_news(&actions)?.map_err(corrupt)?;
            self.apply_news(news);
            log.committed_by_another(&actions, bytes);
        }
        Ok(())
    }

    fn read_news(&self, actions: &[Action]) -> Result<Result<News, String>, StorageError> {
        let (app_id, epoch_app_id) = (self.context.app_id(), self.context.epoch_app_id());
        let mut news = News::default();
        for action in actions {
            match action {
                Action::Txn(txn) if txn.app_id == epoch_app_id => {
                    if u64::try_from(txn.version).is_ok_and(|epoch| epoch > self.context.epoch.0) {
                        return Err(self.context.fence());
                    }
                }
                Action::Txn(txn) if txn.app_id == app_id => news.flushed = u64::try_from(txn.version).ok(),
                Action::Add(add) => match shard_from_add(&self.context.shards, &self.prefix, add) {
                    Ok(shard) => news.added.push(shard),
                    Err(reason) => return Ok(Err(reason)),
                },
                Action::Remove(remove) => news.removed.push(format!("{}/{}", self.prefix, remove.path)),
                Action::MetaData(metadata) => match self.read_metadata(metadata) {
                    Ok(table) => news.table = Some(table),
                    Err(reason) => return Ok(Err(reason)),
                },
                Action::Protocol(protocol) if protocol.min_reader_version > 1 || protocol.min_writer_version > 2 => {
                    return Ok(Err("a newer version of the Delta protocol, which this version does not know".into()));
                }
                Action::Txn(_) | Action::Protocol(_) | Action::CommitInfo(_) | Action::Other(_) => {}
            }
        }
        Ok(Ok(news))
    }

    fn read_metadata(&self, metadata: &Metadata) -> Result<(TableSchema, Properties), String> {
        let schema = schema_from_json(&metadata.schema_string)?;
        if !still_holds(&schema, &self.schema()) {
            return Err("another node has changed the type of a column or taken one away".into());
        }
        let configuration = metadata.configuration.clone();
        Ok((schema, Properties { configuration, created_ms: metadata.created_time }))
    }

    fn apply_news(&self, news: News) {
        let (mut gone, mut freed) = (Vec::new(), 0);
        let mut state = self.state();
        for path in &news.removed {
            let holds = |shards: &[Arc<Shard>]| shards.iter().any(|shard| shard.path == *path);
            if let Some(partition) = state.partitions.values_mut().find(|p| holds(&p.shards)) {
                partition.shards.retain(|shard| shard.path != *path);
                partition.below_version += 1;
            }
            self.context.indexes.forget(path);
        }
        for shard in news.added {
            if *self.name.schema != *SYSTEM {
                self.context.newest_us.fetch_max(shard.time_max_us, Ordering::Relaxed);
            }
            // What is written here from now on beats what was committed there.
            self.context.among_nodes.see(Some(shard.position_max));
            let partition = state.partitions.entry(shard.day).or_default();
            partition.shards.push(Arc::new(shard));
            partition.below_version += 1;
        }
        if let Some((schema, properties)) = news.table {
            state.schema = Arc::new(schema);
            let is_dropped = properties.dropped_ms().is_some();
            state.properties = properties;
            if is_dropped {
                state.fate = Fate::Dropped;
                state.sealed_to = None;
                state.live_since = None;
                freed = std::mem::take(&mut state.live_bytes) + std::mem::take(&mut state.sealed_bytes);
                gone.push(std::mem::take(&mut state.partitions));
                tracing::info!(table = %self.name, "another node has dropped the table");
            }
        }
        state.flushed = state.flushed.max(news.flushed.unwrap_or(0));
        drop(state);
        // Freeing a million rows takes a while: not under the lock.
        drop(gone);
        self.context.memory.free(freed);
    }

    /// Whether another node has dropped the table.
    pub(crate) fn is_dropped(&self) -> bool {
        self.state().fate == Fate::Dropped
    }

    /// Runs `commit`, which commits at most once, until no other node is faster.
    ///
    /// # Errors
    /// Those of `commit`, and of catching up with whoever was faster.
    pub(crate) fn until_first<R>(
        &self,
        mut commit: impl FnMut() -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        for _ in 0..TRIES_MAX {
            match commit() {
                Err(e) if e.is_version_taken() => self.follow()?,
                done => return done,
            }
        }
        commit()
    }
}
