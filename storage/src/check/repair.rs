//! `eden repair`: sets aside what is damaged, so that the rest of a table can be used again, and says what is missing.
//!
//! Owns:     what becomes of damaged shards, commits and checkpoints; the notes from which the next start of the server
//!           makes rows of `system.data_loss`.
//! Does not: delete anything: what is set aside stands in `DATA/damaged`, for a copy that is found later. The log needs no
//!           repair: the start of the server does that.
//!
//! Order: first the notes, then the log, then the files, then one commit that takes the shards out of the table. A crash
//! at any step leaves what the next repair finishes.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Clock, TableName};
use wal::disk::{self, EntryKind, Replace, SharedDisk};

use super::salvage::salvage;
use super::shard::{Verdict, examine};
use super::{CheckProgress, Finding, OnProgress, Severity, keys};
use crate::catalog::{TableFolder, table_folders};
use crate::delta::{
    Action, Add, CommitInfo, DAY_COLUMN, LogFiles, Remove, Replay, TableLog, checkpoint_sum, format_day, parse_commit,
    read_add, with_one_bit_turned,
};
use crate::shard::read::ShardReader;
use crate::{Disks, LostData, Shard, StorageError, identity, nodes};

/// Whether to do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Say what would be done.
    Plan,
    /// Do it.
    Do,
}

/// What to repair.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// The data folder.
    pub data: PathBuf,
    /// Only these tables; all if there are none.
    pub tables: Vec<TableName>,
    /// Whether to do it.
    pub act: Act,
}

/// Something that is done, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The file.
    pub file: PathBuf,
    /// What becomes of it, and why.
    pub what: String,
}

/// What a repair did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// In order.
    pub steps: Vec<Step>,
    /// What is missing then.
    pub lost: Vec<LostData>,
    /// What is wrong and left as it is.
    pub left: Vec<Finding>,
}

/// Repairs the tables of a data folder that no server uses. Blocks.
///
/// # Errors
/// [`StorageError::Locked`] if a server uses it. After any other error what was done so far is sound; repair again.
pub fn repair(
    disks: impl Into<Disks>,
    clock: &Arc<dyn Clock>,
    options: &RepairOptions,
    progress: OnProgress<'_>,
) -> Result<Repaired, StorageError> {
    let (data, disks) = (&options.data, disks.into());
    let tables = disks.tables(data);
    tables.disk.info(&tables.dir).map_err(StorageError::io("open", &tables.dir))?;
    nodes::check_not_shared(&*disks.data, data)?;
    let _lock = identity::lock(&*disks.data, data)?;
    if let Some(elsewhere) = &disks.tables {
        elsewhere.check_owner(identity::read(&*disks.data, data)?, None)?;
    }
    let place = Place { disk: tables.disk, root: tables.dir, aside_disk: disks.data, data: data.clone() };
    let mut repaired = Repaired::default();
    for folder in table_folders(&*place.disk, &place.root)? {
        let Some(name) = folder.name.clone() else { continue };
        if !options.tables.is_empty() && !options.tables.contains(&name) {
            continue;
        }
        let Some(plan) = Plan::make(&place, name, folder, &mut repaired, progress)? else { continue };
        if options.act == Act::Do && !plan.is_empty() {
            plan.act(&place, &**clock)?;
        }
        repaired.steps.extend(plan.steps(&place.root));
        repaired.lost.extend(plan.lost);
    }
    Ok(repaired)
}

/// Where the tables are, and where goes what is set aside.
struct Place {
    /// Under the tables.
    disk: SharedDisk,
    root: PathBuf,
    /// Under the data folder.
    aside_disk: SharedDisk,
    data: PathBuf,
}

/// A change of a table's folder.
enum Change {
    /// The file moves to `DATA/damaged`.
    Aside { file: PathBuf, why: String },
    /// A copy of the file, if it is there, goes to `DATA/damaged`, and these bytes take its place.
    Replaced { file: PathBuf, bytes: Vec<u8>, why: String },
}

/// What is to be done to one table.
struct Plan {
    name: TableName,
    folder: TableFolder,
    log: Vec<Change>,
    files: Vec<Change>,
    /// Out of the table, in one commit.
    removed: Vec<(Shard, Add, String)>,
    lost: Vec<LostData>,
}

impl Plan {
    fn make(
        place: &Place,
        name: TableName,
        folder: TableFolder,
        repaired: &mut Repaired,
        progress: OnProgress<'_>,
    ) -> Result<Option<Plan>, StorageError> {
        let (disk, root) = (&place.disk, &place.root);
        let Some(files) = LogFiles::list(&**disk, &folder.dir)? else { return Ok(None) };
        let reader = ShardReader { disk: &**disk, root };
        let (log, removed, moved) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = Plan { name, folder, log, files: moved, removed, lost: Vec::new() };
        let good = plan.checkpoints(disk, &files)?;
        let Some((replay, salvaged)) = plan.commits(&reader, place, &files, good, repaired)? else {
            return Ok(Some(plan.nothing()));
        };
        let state = match replay.finish(files.commit_path(files.last)) {
            Ok(state) => state,
            Err(StorageError::Corrupt { path, reason }) => {
                let advice = "bring it back from a copy: nothing else tells what the table is".into();
                repaired.left.push(Finding { severity: Severity::Damage, file: path, what: reason, advice });
                return Ok(Some(plan.nothing()));
            }
            Err(e) => return Err(e),
        };
        let mut sound: Vec<(Shard, Add)> = Vec::new();
        let total_bytes: u64 = state.adds.values().filter_map(|add| u64::try_from(add.size).ok()).sum();
        let mut done_bytes = 0;
        for add in state.adds.values() {
            let unreadable = |reason| StorageError::Corrupt { path: files.dir.clone(), reason };
            let shard = read_add(&plan.folder.prefix, add).map_err(unreadable)?;
            let path = root.join(&shard.path);
            let verdict = examine(&reader, &state.schema, &shard, add, &mut |bytes| {
                done_bytes += bytes;
                progress(CheckProgress { at: &path, done_bytes, total_bytes });
            });
            match verdict {
                Verdict::Sound => sound.push((shard, add.clone())),
                Verdict::Damaged(reason) => {
                    plan.take_out(place, &path, shard, add.clone(), reason, salvaged.is_some());
                }
                Verdict::Unreadable(what) => {
                    let advice =
                        "look at the disk (`dmesg`), then repair again: nothing is known of its content".into();
                    repaired.left.push(Finding { severity: Severity::Damage, file: path, what, advice });
                }
            }
        }
        if let Some(gone) = salvaged {
            plan.take_out_replaced(&reader, &state.schema, &sound)?;
            plan.set_unnamed_aside(disk, &sound, &gone)?;
        }
        Ok(Some(plan))
    }

    /// Nothing is done to a table that cannot be brought back: what is damaged stays where a copy is to be put.
    fn nothing(self) -> Plan {
        Plan { log: Vec::new(), files: Vec::new(), removed: Vec::new(), lost: Vec::new(), ..self }
    }

    /// Sets damaged checkpoints aside; returns the version of the newest one that is whole.
    fn checkpoints(&mut self, disk: &SharedDisk, files: &LogFiles) -> Result<Option<i64>, StorageError> {
        let mut good = None;
        let mut gone = Vec::new();
        for version in &files.checkpoints {
            let side = files.dir.join(checkpoint_sum::side_name(*version));
            match files.read_checkpoint(&**disk, *version)? {
                Ok((_, checkpoint_sum::Beside::Damaged)) => {
                    good = Some(*version);
                    self.log.push(Change::Aside { file: side, why: "the checksum of a checkpoint is damaged".into() });
                }
                Ok(_) => good = Some(*version),
                Err(why) => {
                    gone.push(*version);
                    self.log.push(Change::Aside { file: files.checkpoint_path(*version), why });
                    if disk.info(&side).is_ok() {
                        self.log.push(Change::Aside { file: side, why: "its checkpoint is set aside".into() });
                    }
                }
            }
        }
        // Other readers begin where this says.
        let hint = files.dir.join("_last_checkpoint");
        if let Ok(bytes) = disk::read_file(&**disk, &hint) {
            let hinted = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|v| v["version"].as_i64());
            let stands = |version: i64| files.checkpoints.contains(&version) && !gone.contains(&version);
            if !hinted.is_some_and(stands) {
                self.log.push(Change::Aside { file: hint, why: "it names no checkpoint that is whole".into() });
            }
        }
        Ok(good)
    }

    /// Replays the log behind the checkpoint `good`. What is left of a commit that is damaged takes its place; then the
    /// paths that are known to have been removed are returned too.
    #[expect(clippy::type_complexity, reason = "taken apart where it is called, once")]
    fn commits(
        &mut self,
        reader: &ShardReader<'_>,
        place: &Place,
        files: &LogFiles,
        good: Option<i64>,
        repaired: &mut Repaired,
    ) -> Result<Option<(Replay, Option<HashSet<String>>)>, StorageError> {
        let disk = reader.disk;
        let mut replay = Replay::default();
        if let Some(version) = good
            && let Ok((actions, _)) = files.read_checkpoint(disk, version)?
        {
            replay.apply_all(actions);
        }
        let mut all: Option<HashSet<String>> = None;
        let removed = removed_paths(disk, files);
        for version in good.map_or(0, |version| version + 1)..=files.last {
            let (path, reason) = match files.read_commit(disk, version) {
                Ok((actions, _)) => {
                    replay.apply_all(actions);
                    continue;
                }
                Err(StorageError::Corrupt { path, reason }) => (path, reason),
                Err(e) => return Err(e),
            };
            let bytes = disk::read_file(disk, &path).unwrap_or_default();
            let whole = with_one_bit_turned(&bytes).and_then(|whole| Some((parse_commit(&whole).ok()?, whole)));
            if let Some((actions, whole)) = whole {
                let why = format!("{reason}; one wrong bit explains it, and is turned back");
                replay.apply_all(actions);
                self.log.push(Change::Replaced { file: path, bytes: whole, why });
                continue;
            }
            let Some(salvaged) = salvage(reader, &self.folder.prefix, &replay, &removed, &bytes) else {
                let advice = "bring it back from a copy: nothing else tells what the table is".into();
                // Commits behind which a checkpoint stood may have been cleaned away: then that is what is missed.
                let (file, what) = match files.checkpoints.last() {
                    Some(newest) => (files.checkpoint_path(*newest), "it and all before it are damaged".into()),
                    None => (path, reason),
                };
                repaired.left.push(Finding { severity: Severity::Damage, file, what, advice });
                return Ok(None);
            };
            replay.apply_all(salvaged.actions.clone());
            let what = format!(
                "{reason}; of {} lines {} could be read and proven, the others are left out: shards that it added may be \
                 missing, and rows of the log are applied again",
                salvaged.lines,
                salvaged.actions.len()
            );
            self.lost.push(LostData {
                file: place.below(&place.aside(&path)),
                certainty: "possible".into(),
                reason: what.clone(),
                table: Some(self.name.to_string()),
                ..LostData::default()
            });
            self.log.push(Change::Replaced { file: path, bytes: salvaged.commit(), why: what });
            all.get_or_insert_with(|| removed.clone()).extend(salvaged.removed());
        }
        Ok(Some((replay, all)))
    }

    /// A shard that is damaged leaves the table. One that is missing may have been replaced by a commit of which not all
    /// is known (`is_salvaged`).
    fn take_out(&mut self, place: &Place, path: &Path, shard: Shard, add: Add, reason: String, is_salvaged: bool) {
        let is_there = place.disk.info(path).is_ok();
        let file = if is_there { place.aside(path) } else { path.to_owned() };
        let lost = LostData::of_shard(&self.name, &shard, place.below(&file), reason.clone());
        let certainty = if is_there || !is_salvaged { "certain" } else { "possible" };
        self.lost.push(LostData { certainty: certainty.into(), ..lost });
        if is_there {
            self.files.push(Change::Aside { file: path.to_owned(), why: reason.clone() });
        }
        self.removed.push((shard, add, reason));
    }

    /// Of two shards with the same keys the older one was replaced by what is no longer known: it leaves the table.
    fn take_out_replaced(
        &mut self,
        reader: &ShardReader<'_>,
        schema: &crate::TableSchema,
        sound: &[(Shard, Add)],
    ) -> Result<(), StorageError> {
        let mut days: BTreeMap<i32, Vec<&Shard>> = BTreeMap::new();
        sound.iter().for_each(|(shard, _)| days.entry(shard.day).or_default().push(shard));
        for shards in days.values() {
            for twice in keys::compare(reader, schema, shards)? {
                let find = |path: &str| sound.iter().find(|(shard, _)| shard.path == path);
                let (Some(one), Some(other)) = (find(&twice.one), find(&twice.other)) else { continue };
                let age = |entry: &(Shard, Add)| (entry.0.position_max, entry.1.modification_time);
                let (older, newer) = if age(one) <= age(other) { (one, other) } else { (other, one) };
                if self.removed.iter().any(|(shard, ..)| shard.path == older.0.path) {
                    continue;
                }
                let why = format!("{} took its place, by a commit that is damaged", newer.0.path);
                self.files.push(Change::Aside { file: reader.root.join(&older.0.path), why: why.clone() });
                self.removed.push((older.0.clone(), older.1.clone(), why));
            }
        }
        Ok(())
    }

    /// Files that no commit names may be what the damaged one added: vacuum must not find them.
    fn set_unnamed_aside(
        &mut self,
        disk: &SharedDisk,
        sound: &[(Shard, Add)],
        gone: &HashSet<String>,
    ) -> Result<(), StorageError> {
        let dir = &self.folder.dir;
        for folder in disk.list(dir).map_err(StorageError::io("list", dir))? {
            if folder.kind != EntryKind::Directory || !folder.name.starts_with(&format!("{DAY_COLUMN}=")) {
                continue;
            }
            let day = dir.join(&folder.name);
            for file in disk.list(&day).map_err(StorageError::io("list", &day))? {
                let path = format!("{}/{}", folder.name, file.name);
                let is_known = sound.iter().any(|(_, add)| add.path == path)
                    || self.removed.iter().any(|(_, add, _)| add.path == path)
                    || gone.contains(&path);
                if file.kind == EntryKind::File && file.name.ends_with(".parquet") && !is_known {
                    let why = "no commit names it: it may be what the damaged one added, or what a crash left".into();
                    self.files.push(Change::Aside { file: day.join(&file.name), why });
                }
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.log.is_empty() && self.files.is_empty() && self.removed.is_empty()
    }

    fn steps(&self, tables: &Path) -> Vec<Step> {
        let change = |change: &Change| match change {
            Change::Aside { file, why } => Step { file: file.clone(), what: format!("set aside: {why}") },
            Change::Replaced { file, why, .. } => Step { file: file.clone(), what: format!("replaced: {why}") },
        };
        let removed = self.removed.iter().map(|(shard, _, why)| (tables.join(&shard.path), shard, why));
        let removed: Vec<_> = removed.collect();
        // What leaves the table is told once, with its rows.
        let is_told = |step: &Step| removed.iter().any(|(path, ..)| *path == step.file);
        let mut steps: Vec<Step> = self.log.iter().chain(&self.files).map(change).collect();
        steps.retain(|step| !is_told(step));
        steps.extend(removed.iter().map(|(path, shard, why)| Step {
            file: path.clone(),
            what: format!(
                "set aside, and out of table {}: {why} ({} rows of {})",
                self.name,
                shard.rows,
                format_day(shard.day)
            ),
        }));
        steps
    }

    fn act(&self, place: &Place, clock: &dyn Clock) -> Result<(), StorageError> {
        let disk = &place.disk;
        let now_ms = clock.now_us().div_euclid(1000);
        if !self.lost.is_empty() {
            write_note(&place.aside_disk, &place.data, &self.folder.prefix, now_ms, &self.lost)?;
        }
        for change in self.log.iter().chain(&self.files) {
            match change {
                Change::Aside { file, .. } => place.set_aside(file)?,
                Change::Replaced { file, bytes, .. } => {
                    if let Ok(before) = disk::read_file(&**disk, file) {
                        place.copy_aside(file, &before)?;
                    }
                    disk::write_whole(&**disk, file, bytes, Replace::Yes).map_err(StorageError::io("write", file))?;
                }
            }
        }
        if self.removed.is_empty() {
            return Ok(());
        }
        let Some((mut log, _)) = TableLog::load(disk, &self.folder.dir)? else { return Ok(()) };
        let mut actions: Vec<Action> = self
            .removed
            .iter()
            .map(|(_, add, _)| {
                Action::Remove(Remove {
                    path: add.path.clone(),
                    deletion_timestamp: Some(now_ms),
                    data_change: true,
                    extended_file_metadata: Some(true),
                    partition_values: Some(add.partition_values.clone()),
                    size: Some(add.size),
                })
            })
            .collect();
        actions.push(commit_info(now_ms));
        log.commit(&actions).map(|_| ())
    }
}

/// The paths that commits which can be read removed.
fn removed_paths(disk: &dyn disk::Disk, files: &LogFiles) -> HashSet<String> {
    let mut removed = HashSet::new();
    for version in &files.commits {
        if let Ok((actions, _)) = files.read_commit(disk, *version) {
            removed.extend(actions.into_iter().filter_map(|action| match action {
                Action::Remove(remove) => Some(remove.path),
                _ => None,
            }));
        }
    }
    removed
}

/// What a commit of a repair is about.
pub(super) fn commit_info(now_ms: i64) -> Action {
    Action::CommitInfo(CommitInfo {
        timestamp: now_ms,
        operation: "REPAIR".into(),
        operation_parameters: BTreeMap::new(),
        engine_info: Some(format!("eden/{}", env!("CARGO_PKG_VERSION"))),
    })
}

impl Place {
    /// The path of a table's file as people know it: below the data folder, wherever the tables are.
    fn path_of(&self, file: &Path) -> PathBuf {
        let of_tables = file.strip_prefix(&self.root).map(|below| Path::new("tables").join(below));
        of_tables.unwrap_or_else(|_| file.strip_prefix(&self.data).unwrap_or(file).to_owned())
    }

    /// Where `file` goes, a name that is not taken.
    fn aside(&self, file: &Path) -> PathBuf {
        let place = self.data.join("damaged").join(self.path_of(file));
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut free = place.clone();
        let mut n = 1;
        while self.aside_disk.info(&free).is_ok() {
            free = place.with_file_name(format!("{name}.{n}"));
            n += 1;
        }
        free
    }

    fn below(&self, file: &Path) -> String {
        self.path_of(file).display().to_string()
    }

    /// Puts `bytes`, which `file` had, aside.
    fn copy_aside(&self, file: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let copy = self.aside(file);
        make_folder_of(&self.aside_disk, &copy)?;
        disk::write_whole(&*self.aside_disk, &copy, bytes, Replace::No).map_err(StorageError::io("write", &copy))
    }

    fn set_aside(&self, file: &Path) -> Result<(), StorageError> {
        if !Arc::ptr_eq(&self.disk, &self.aside_disk) || !file.starts_with(&self.data) {
            // A crash between the two leaves it twice, and the next repair sets it aside once more.
            let bytes = disk::read_file(&*self.disk, file).map_err(StorageError::io("read", file))?;
            self.copy_aside(file, &bytes)?;
            return self.disk.remove_file(file).map_err(StorageError::io("delete", file));
        }
        let to = self.aside(file);
        make_folder_of(&self.disk, &to)?;
        self.disk.rename(file, &to, Replace::No).map_err(StorageError::io("move", file))?;
        for folder in [to.parent(), file.parent()].into_iter().flatten() {
            self.disk.sync_dir(folder).map_err(StorageError::io("sync", folder))?;
        }
        Ok(())
    }
}

fn make_folder_of(disk: &SharedDisk, file: &Path) -> Result<(), StorageError> {
    let folder = file.parent().expect("a file has a folder");
    disk::create_dir_all(&**disk, folder).map_err(StorageError::io("create", folder))
}

/// Where the notes of repairs are, and how those end that have no row in `system.data_loss` yet.
const NOTES: &str = "damaged";
const NEW_NOTE: &str = ".lost.json";
const RECORDED_NOTE: &str = ".lost.recorded.json";

fn write_note(
    disk: &SharedDisk,
    data: &Path,
    prefix: &str,
    now_ms: i64,
    lost: &[LostData],
) -> Result<(), StorageError> {
    let name = format!("{now_ms}-{}{NEW_NOTE}", prefix.replace('/', "-"));
    let path = data.join(NOTES).join(name);
    make_folder_of(disk, &path)?;
    let bytes = serde_json::to_vec_pretty(lost).expect("plain data");
    disk::write_whole(&**disk, &path, &bytes, Replace::Yes).map_err(StorageError::io("write", &path))
}

/// What repairs noted and `system.data_loss` does not have yet, with the files that say so.
pub(crate) fn new_notes(disk: &SharedDisk, data: &Path) -> Vec<(PathBuf, Vec<LostData>)> {
    let folder = data.join(NOTES);
    let entries = disk.list(&folder).unwrap_or_default();
    let notes = entries.into_iter().filter(|entry| entry.name.ends_with(NEW_NOTE)).map(|entry| folder.join(entry.name));
    notes
        .filter_map(|path| {
            let read = disk::read_file(&**disk, &path).map_err(|e| e.to_string());
            match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string())) {
                Ok(lost) => Some((path, lost)),
                Err(reason) => {
                    tracing::error!(path = %path.display(), reason, "what a repair noted cannot be read");
                    None
                }
            }
        })
        .collect()
}

/// A note is in `system.data_loss` now.
pub(crate) fn note_recorded(disk: &SharedDisk, path: &Path) -> Result<(), StorageError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let to = path.with_file_name(name.replace(NEW_NOTE, RECORDED_NOTE));
    disk.rename(path, &to, Replace::Yes).map_err(StorageError::io("rename", path))
}
