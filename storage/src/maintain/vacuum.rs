//! Deletes files that nobody needs any more: shards that were removed, leftovers of crashes, old commits, dropped tables.
//!
//! Owns:     what may be deleted, and when.
//! Does not: take anything out of a table: what it deletes is in no version.
//!
//! Invariants
//!  1. A file that a version of this life has named is deleted only after the time of grace has passed on the monotonic
//!     clock: queries hold snapshots. What an earlier life removed may also have become old by the wall clock.
//!  2. Files that no version has named are looked for only while nothing can be on its way to a commit: `compacting` and
//!     `flushing` are held.
//!  3. Commits go only behind two checkpoints that read back, so that one of them may be damaged later.
//!  4. A dropped table's folder has a log that says so until the moment in which it has another name, or is gone.
//!
//! Deletions are not synced: what comes back after a power cut is found and deleted again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use wal::disk::{DirEntry, Disk, EntryKind, Replace};

use super::{Care, Maintenance};
use crate::StorageError;
use crate::catalog::Dropped;
use crate::context::Context;
use crate::delta::{
    DAY_COLUMN, TableLog, check_checkpoint, checkpoint_side_version, checkpoint_version, commit_version,
};
use crate::engine::Shared;
use crate::log::Log;
use crate::table::Table;

/// How often folders are searched for what no version names: only crashes and failing disks leave something.
const SCAN_PERIOD: Duration = Duration::from_secs(86_400);

/// How the folder of a dropped table ends while it is being deleted.
const DROPPED_SUFFIX: &str = ".dropped";

/// When something was no longer needed.
#[derive(Clone, Copy, Debug)]
struct Since {
    /// When this process came to know, by its monotonic clock.
    seen: Duration,
    /// By the wall clock; only of what this process has not removed itself.
    earlier_ms: Option<i64>,
}

impl Since {
    fn is_older_than(self, grace: Duration, context: &Context) -> bool {
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        context.clock.monotonic().saturating_sub(self.seen) >= grace
            || self.earlier_ms.is_some_and(|at_ms| context.now_ms().saturating_sub(at_ms) >= grace_ms)
    }
}

/// A file that is in no version.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    /// Below the table's folder.
    path: String,
    since: Since,
    /// Among several nodes, of one that no version has named: somebody may be about to commit it, until there is a later
    /// version than this one.
    open_at: Option<i64>,
}

impl Shared {
    pub(super) fn vacuum(&self, maintenance: &mut Maintenance, grace: Duration) {
        let tables = self.catalog.all();
        let there: HashSet<_> = tables.iter().map(|table| table.id).collect();
        maintenance.tables.retain(|id, _| there.contains(id));
        for table in tables {
            if self.stop.is_stopped() {
                return;
            }
            let care = maintenance.tables.entry(table.id).or_default();
            if let Err(e) = table.vacuum(care, grace) {
                tracing::warn!(table = %table.name, error = %e, "files that are no longer needed stay until the next try");
            }
            if let Err(e) = table.clean_log(care, grace) {
                tracing::warn!(table = %table.name, error = %e, "the commits before the last checkpoints stay");
            }
        }
        for dropped in self.catalog.dropped() {
            if let Err(e) = self.delete_dropped(&dropped, grace) {
                maintenance.swept = false;
                tracing::warn!(folder = dropped.prefix, error = %e, "a dropped table's folder stays until the next try");
            }
        }
        if !maintenance.swept && !self.context.is_common() {
            match self.sweep() {
                Ok(()) => maintenance.swept = true,
                Err(e) => tracing::warn!(error = %e, "the rest of dropped tables stays until the next try"),
            }
        }
    }

    /// Deletes of a dropped table what may go: first its data, then, when no row of it is in the log, the folder.
    fn delete_dropped(&self, dropped: &Dropped, grace: Duration) -> Result<(), StorageError> {
        let context = &*self.context;
        self.catalog.change_dropped(dropped.id, |dropped| {
            // Nobody else has the table, so none of its rows is on its way to the log any more: only then it is asked.
            if dropped.table.as_ref().is_none_or(|table| Arc::strong_count(table) == 1) {
                dropped.table = None;
                dropped.log_end = dropped.log_end.or_else(|| self.with_wal(Log::durable));
            }
            true
        });
        let earlier_ms = (!dropped.in_this_life).then_some(dropped.at_ms);
        if !(Since { seen: dropped.since, earlier_ms }).is_older_than(grace, context) {
            return Ok(());
        }
        let dir = context.tables_dir.join(&dropped.prefix);
        if !dropped.is_empty {
            for entry in list(&*context.disk, &dir)?.iter().filter(|entry| entry.name != "_delta_log") {
                delete_all(context, &dir, entry)?;
            }
            self.catalog.change_dropped(dropped.id, |dropped| {
                dropped.is_empty = true;
                true
            });
        }
        // The logs of other nodes may have rows of it, which its own log tells from lost ones.
        if context.is_common() {
            return Ok(());
        }
        let first = self.with_wal(Log::first).ok_or(StorageError::Closed)?;
        // As it was before: what was found out now counts at the next try.
        if dropped.log_end.is_none_or(|end| first < end) {
            return Ok(());
        }
        if context.disk.is_remote() {
            self.delete_log(&dir)?;
            self.catalog.change_dropped(dropped.id, |_| false);
            return Ok(());
        }
        let (parent, name) = (dir.parent().expect("a table's folder is in a schema's"), dir.file_name());
        let name = name.expect("a table's folder has a name").to_string_lossy();
        let doomed = DirEntry {
            name: format!(".{name}.{}{DROPPED_SUFFIX}", Uuid::from_bytes(dropped.id.0).simple()),
            kind: EntryKind::Directory,
        };
        let to = parent.join(&doomed.name);
        match context.disk.rename(&dir, &to, Replace::No) {
            // An earlier try got as far as this.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StorageError::io("rename", &dir)(e)),
            _ => {}
        }
        context.disk.sync_dir(parent).map_err(StorageError::io("sync", parent))?;
        self.catalog.change_dropped(dropped.id, |_| false);
        delete_all(context, parent, &doomed)
    }

    /// Deletes the log of a dropped table where nothing can be renamed: the commit that says so last, and until then it is
    /// all that is needed (`LogFiles::replay`). The folder's name is not free before.
    fn delete_log(&self, dir: &Path) -> Result<(), StorageError> {
        let context = &*self.context;
        let log = dir.join("_delta_log");
        let mut entries = list(&*context.disk, &log)?;
        // Checkpoints and what else there is, then commits from the first to the last.
        entries.sort_by_key(|entry| (commit_version(&entry.name), entry.name.clone()));
        entries.iter().try_for_each(|entry| delete_all(context, &log, entry))
    }

    /// Deletes folders that an earlier life had begun to delete.
    fn sweep(&self) -> Result<(), StorageError> {
        let (context, root) = (&*self.context, &self.context.tables_dir);
        for schema in list(&*context.disk, root)?.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let folder = root.join(&schema.name);
            for entry in list(&*context.disk, &folder)? {
                if entry.name.starts_with('.') && entry.name.ends_with(DROPPED_SUFFIX) {
                    delete_all(context, &folder, &entry)?;
                }
            }
        }
        Ok(())
    }
}

impl Care {
    /// Takes note of the files that commits have removed since the last call.
    fn bury(&mut self, log: &mut TableLog, now: Duration) {
        let removed = log.take_removed();
        // What was in no version yet when it was found, and has been in one since, is as old as its removal.
        let is_removed = |tombstone: &Tombstone| removed.iter().any(|removed| removed.path == tombstone.path);
        self.tombstones.retain(|tombstone| tombstone.open_at.is_none() || !is_removed(tombstone));
        self.tombstones.extend(removed.into_iter().map(|removed| {
            let earlier_ms = if removed.in_this_life { None } else { removed.at_ms };
            Tombstone { path: removed.path, since: Since { seen: now, earlier_ms }, open_at: None }
        }));
    }
}

impl Table {
    /// Deletes data files that have been in no version for the time of grace.
    fn vacuum(&self, care: &mut Care, grace: Duration) -> Result<(), StorageError> {
        let context = &*self.context;
        let now = context.clock.monotonic();
        self.follow()?;
        let version = {
            let mut log = self.log.lock().expect("no holder of this lock panics");
            // The last commit may stand or not: what it removed may be needed, what it added may be named.
            if log.is_uncertain() {
                return Ok(());
            }
            care.bury(&mut log, now);
            log.version()
        };
        if care.scanned.is_none_or(|at| now.saturating_sub(at) >= SCAN_PERIOD) {
            self.scan(care, now)?;
        }
        let is_due = |t: &Tombstone| t.open_at.is_none_or(|at| version > at) && t.since.is_older_than(grace, context);
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut care.tombstones).into_iter().partition(is_due);
        care.tombstones = rest;
        if due.is_empty() {
            return Ok(());
        }
        let named = self.named();
        let mut result = Ok(());
        let mut folders: HashSet<PathBuf> = HashSet::new();
        for tombstone in due {
            if named.contains(&tombstone.path) && tombstone.open_at.is_some() {
                continue;
            }
            if named.contains(&tombstone.path) {
                tracing::error!(table = %self.name, path = tombstone.path, "a file was removed and is there again; it stays");
                continue;
            }
            let path = self.dir.join(&tombstone.path);
            match context.disk.remove_file(&path) {
                Ok(()) => {
                    context.counters.files_deleted.add(1);
                    context.shards.forget(&format!("{}/{}", self.prefix, tombstone.path));
                    folders.extend(path.parent().map(Path::to_owned));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    result = Err(StorageError::io("delete", &path)(e));
                    care.tombstones.push(tombstone);
                }
            }
        }
        self.remove_empty(folders.into_iter());
        result
    }

    /// Paths below the table of the files in the newest version.
    fn named(&self) -> HashSet<String> {
        let prefix = format!("{}/", self.prefix);
        let state = self.state();
        let shards = state.partitions.values().flat_map(|partition| &partition.shards);
        shards.filter_map(|shard| shard.path.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// Finds the files that no version names, and forgets those that are gone. Does nothing while somebody compacts.
    fn scan(&self, care: &mut Care, now: Duration) -> Result<(), StorageError> {
        let Ok(_compacting) = self.compacting.try_lock() else { return Ok(()) };
        let _flushing = self.flushing.lock().expect("no holder of this lock panics");
        let mut log = self.log.lock().expect("no holder of this lock panics");
        let disk = &*self.context.disk;
        // A commit that failed just now: see above.
        if log.is_uncertain() {
            return Ok(());
        }
        // Until the locks were taken a flush may have removed more: those are no leftovers, queries may be reading them.
        care.bury(&mut log, now);
        let named = self.named();
        let mut known: HashMap<&str, &Tombstone> = HashMap::new();
        known.extend(care.tombstones.iter().map(|tombstone| (&*tombstone.path, tombstone)));
        let mut found = Vec::new();
        let log_dir = self.dir.join("_delta_log");
        let is_common = self.context.is_common();
        for entry in list(disk, &log_dir)? {
            // Among several nodes, another one may be about to rename it.
            if !is_common && entry.name.starts_with('.') && entry.name.ends_with(".tmp") {
                let path = log_dir.join(&entry.name);
                disk.remove_file(&path).map_err(StorageError::io("delete", &path))?;
            }
        }
        for folder in list(disk, &self.dir)? {
            if folder.kind != EntryKind::Directory || !folder.name.starts_with(&format!("{DAY_COLUMN}=")) {
                continue;
            }
            let dir = self.dir.join(&folder.name);
            let files = disk.list_with_info(&dir).map_err(StorageError::io("list", &dir))?;
            for (file, info) in &files {
                let path = format!("{}/{}", folder.name, file.name);
                // What we have not written we do not delete.
                let is_ours = file.kind == EntryKind::File && file.name.ends_with(".parquet");
                if !is_ours || named.contains(&path) {
                    continue;
                }
                found.push(match known.get(&*path) {
                    Some(tombstone) => (*tombstone).clone(),
                    None => {
                        let earlier_ms = Some(info.modified_us.div_euclid(1000));
                        let open_at = is_common.then_some(i64::MAX);
                        Tombstone { path, since: Since { seen: now, earlier_ms }, open_at }
                    }
                });
            }
            if files.is_empty() && !is_common {
                let _ = disk.remove_dir(&dir);
            }
        }
        if is_common {
            // Whoever had begun a file that was found knew no later version than this one, and commits it as the next or
            // never (`Table::flush`, `Table::replace_shards`).
            drop(log);
            self.catch_up()?;
            let version = self.log.lock().expect("no holder of this lock panics").version();
            let named = self.named();
            found.retain(|tombstone| !named.contains(&tombstone.path));
            found.iter_mut().filter_map(|t| t.open_at.as_mut()).for_each(|at| *at = (*at).min(version));
        }
        care.tombstones = found;
        care.scanned = Some(now);
        Ok(())
    }

    /// Removes those of `folders` that are empty. Best effort.
    fn remove_empty(&self, folders: impl Iterator<Item = PathBuf>) {
        // Another node may be about to write into one.
        if self.context.is_common() {
            return;
        }
        let Ok(_compacting) = self.compacting.try_lock() else { return };
        // Nobody is about to write into a folder that is made already.
        let _flushing = self.flushing.lock().expect("no holder of this lock panics");
        for folder in folders {
            // It fails if there is anything in it.
            let _ = self.context.disk.remove_dir(&folder);
        }
    }

    /// Deletes the commits and checkpoints before the last but one checkpoint.
    fn clean_log(&self, care: &mut Care, grace: Duration) -> Result<(), StorageError> {
        let context = &*self.context;
        // Another node that slept must find every commit that it has not seen.
        if context.is_common() {
            return Ok(());
        }
        let newest = self.log.lock().expect("no holder of this lock panics").checkpoint();
        if newest.is_none() || newest == care.cleaned {
            return Ok(());
        }
        let dir = self.dir.join("_delta_log");
        let entries = list(&*context.disk, &dir)?;
        let mut checkpoints: Vec<i64> = entries.iter().filter_map(|entry| checkpoint_version(&entry.name)).collect();
        checkpoints.sort_unstable();
        let [.., previous, newest] = checkpoints[..] else {
            care.cleaned = newest;
            return Ok(());
        };
        // Whoever began to read before the newest checkpoint was there may still need the commits.
        let path = dir.join(format!("{newest:020}.checkpoint.parquet"));
        let written_us = context.disk.info(&path).map_err(StorageError::io("look at", &path))?.modified_us;
        let seen = match care.checkpoint_seen {
            Some((version, seen)) if version == newest => seen,
            _ => context.clock.monotonic(),
        };
        care.checkpoint_seen = Some((newest, seen));
        if !(Since { seen, earlier_ms: Some(written_us.div_euclid(1000)) }).is_older_than(grace, context) {
            return Ok(());
        }
        care.cleaned = Some(newest);
        for version in [previous, newest] {
            check_checkpoint(&*context.disk, &self.dir, version)?;
        }
        for entry in &entries {
            let version = commit_version(&entry.name)
                .or_else(|| checkpoint_version(&entry.name))
                .or_else(|| checkpoint_side_version(&entry.name));
            if version.is_some_and(|version| version < previous) {
                let path = dir.join(&entry.name);
                context.disk.remove_file(&path).map_err(StorageError::io("delete", &path))?;
                context.counters.files_deleted.add(1);
            }
        }
        Ok(())
    }
}

/// The names in a directory; none if there is no such directory.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirEntry>, StorageError> {
    match disk.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(StorageError::io("list", dir)),
    }
}

/// Deletes a file, or a folder with all that is in it.
fn delete_all(context: &Context, parent: &Path, entry: &DirEntry) -> Result<(), StorageError> {
    let path = parent.join(&entry.name);
    match entry.kind {
        EntryKind::File => {
            context.disk.remove_file(&path).map_err(StorageError::io("delete", &path))?;
            context.counters.files_deleted.add(1);
            if let Ok(location) = path.strip_prefix(&context.tables_dir) {
                context.shards.forget(&location.to_string_lossy());
            }
            Ok(())
        }
        EntryKind::Directory => {
            for below in list(&*context.disk, &path)? {
                delete_all(context, &path, &below)?;
            }
            context.disk.remove_dir(&path).map_err(StorageError::io("delete", &path))
        }
    }
}
