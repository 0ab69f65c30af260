//! One table: its Delta log, then its shards.

use std::collections::BTreeMap;
use std::path::Path;

use model::TableName;
use wal::disk::{self, SharedDisk};

use super::shard::{Verdict, examine};
use super::{Finding, Meter, Report, Severity, keys};
use crate::catalog::TableFolder;
use crate::delta::checkpoint_sum::{Beside, side_name};
use crate::delta::{Add, LogFiles, Replay, Sealing, TableState, format_day, read_add};
use crate::shard::read::ShardReader;
use crate::{Shard, StorageError, TableSchema};

/// What to do about a damaged file of a table.
pub(super) const REPAIR: &str = "bring the file back from a copy, or stop the server and run `eden repair`";

/// Tries before what a running server may explain is called damage.
const LOOKS: usize = 3;

/// A table whose log was read.
pub(super) struct CheckedTable {
    pub(super) name: TableName,
    pub(super) dir: std::path::PathBuf,
    pub(super) state: TableState,
    pub(super) shards: Vec<(Shard, Add)>,
}

impl CheckedTable {
    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|(shard, _)| shard.bytes).sum()
    }
}

/// Examines the log of the table in `folder`; `None` if it is no table or cannot be read.
pub(super) fn check_log(
    disk: &SharedDisk,
    name: &TableName,
    folder: &TableFolder,
    report: &mut Report,
) -> Option<CheckedTable> {
    let mut looks = 1;
    loop {
        let mut seen = Report { is_running: report.is_running, ..Report::default() };
        let result = look_at_log(disk, name, folder, &mut seen);
        // A running server may have removed a file between two looks at the folder.
        if seen.is_damaged() && report.is_running && looks < LOOKS {
            looks += 1;
            continue;
        }
        report.findings.extend(seen.findings);
        let (counts, more) = (&mut report.counts, seen.counts);
        counts.tables += more.tables;
        counts.commits += more.commits;
        counts.commits_without_checksum += more.commits_without_checksum;
        counts.checkpoints += more.checkpoints;
        counts.checkpoints_without_checksum += more.checkpoints_without_checksum;
        return result;
    }
}

fn look_at_log(disk: &SharedDisk, name: &TableName, folder: &TableFolder, report: &mut Report) -> Option<CheckedTable> {
    let files = match LogFiles::list(&**disk, &folder.dir) {
        Ok(files) => files?,
        Err(e) => {
            tell(report, Severity::Damage, &folder.dir, e, REPAIR);
            return None;
        }
    };
    report.counts.tables += 1;
    let loaded = files.replay(&**disk).and_then(|replayed| replayed.replay.finish(files.commit_path(files.last)));
    let is_usable = loaded.is_ok();
    walk(disk, &files, is_usable, report);
    check_hint(disk, &files, report);
    let state = match loaded {
        Ok(state) => state,
        Err(StorageError::NewerFormat { path, found }) => {
            let advice = "examine it with that version";
            report.find(Severity::Note, &path, format!("written by a newer version of eden ({found})"), advice);
            return None;
        }
        Err(StorageError::Corrupt { path, .. }) if report.findings.iter().any(|finding| finding.file == path) => {
            return None;
        }
        Err(e) => {
            tell(report, Severity::Damage, &files.dir, e, REPAIR);
            return None;
        }
    };
    let shards: Result<Vec<(Shard, Add)>, String> =
        state.adds.values().map(|add| Ok((read_add(&folder.prefix, add)?, add.clone()))).collect();
    match shards {
        Ok(shards) => Some(CheckedTable { name: name.clone(), dir: folder.dir.clone(), state, shards }),
        Err(reason) => {
            report.find(Severity::Damage, &files.dir, reason, REPAIR);
            None
        }
    }
}

/// Reads every commit and checkpoint there is, and compares the two ways to each checkpoint.
fn walk(disk: &SharedDisk, files: &LogFiles, is_usable: bool, report: &mut Report) {
    // Damage of what a later checkpoint covers costs history, not readings.
    let (severity, advice) = match is_usable {
        true => (Severity::Warning, "the table is whole without it; `eden repair` sets a damaged checkpoint aside"),
        false => (Severity::Damage, REPAIR),
    };
    let first = files.commits.first().copied();
    let mut replay = (first == Some(0)).then(Replay::default);
    let mut versions: Vec<i64> = files.commits.iter().chain(&files.checkpoints).copied().collect();
    versions.sort_unstable();
    versions.dedup();
    let mut before: Option<i64> = None;
    for version in versions {
        let has_commit = files.commits.binary_search(&version).is_ok();
        if has_commit {
            report.counts.commits += 1;
            if let Some(missing) = before.map(|before| before + 1).filter(|next| *next < version) {
                let what = format!("the commit is missing, but version {version} stands");
                report.find(severity, &files.commit_path(missing), what, advice);
                replay = None;
            }
            match files.read_commit(&**disk, version) {
                Ok((actions, sealing)) => {
                    report.counts.commits_without_checksum += u64::from(sealing == Sealing::Unsealed);
                    if let Some(replay) = &mut replay {
                        replay.apply_all(actions);
                    }
                }
                Err(e) => {
                    replay = None;
                    tell(report, severity, &files.commit_path(version), e, advice);
                }
            }
            before = Some(version);
        }
        if files.checkpoints.binary_search(&version).is_ok() {
            let found = check_checkpoint(disk, files, version, (severity, advice), replay.as_ref(), report);
            replay = replay.or(found);
        }
    }
}

fn check_checkpoint(
    disk: &SharedDisk,
    files: &LogFiles,
    version: i64,
    (severity, advice): (Severity, &str),
    commits: Option<&Replay>,
    report: &mut Report,
) -> Option<Replay> {
    let path = files.checkpoint_path(version);
    report.counts.checkpoints += 1;
    let (actions, beside) = match files.read_checkpoint(&**disk, version) {
        Ok(Ok(read)) => read,
        Ok(Err(reason)) => {
            report.find(severity, &path, reason, advice);
            return None;
        }
        Err(e) => {
            tell(report, severity, &path, e, advice);
            return None;
        }
    };
    match beside {
        Beside::Missing => report.counts.checkpoints_without_checksum += 1,
        Beside::Damaged => {
            let side = files.dir.join(side_name(version));
            let advice = "the checkpoint can be read, but not compared; the next one gets a checksum of its own";
            report.find(Severity::Warning, &side, "the checksum of a checkpoint is damaged", advice);
        }
        Beside::Whole | Beside::Other => {}
    }
    let mut found = Replay::default();
    found.apply_all(actions);
    if commits.is_some_and(|commits| !commits.is_same(&found)) {
        let what = "it is another state of the table than the commits before it";
        report.find(Severity::Damage, &path, what, "keep a copy of the table's folder and report it: this is a bug");
    }
    Some(found)
}

/// `_last_checkpoint` tells other readers where to begin.
fn check_hint(disk: &SharedDisk, files: &LogFiles, report: &mut Report) {
    let path = files.dir.join("_last_checkpoint");
    let Ok(bytes) = disk::read_file(&**disk, &path) else { return };
    let hint: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let version = hint.and_then(|hint| hint["version"].as_i64());
    if version.is_none_or(|version| files.checkpoints.binary_search(&version).is_err()) {
        let advice =
            "Eden does not read it, other readers may fail at it: remove it; the next checkpoint writes it again";
        report.find(Severity::Warning, &path, "it names no checkpoint that is there", advice);
    }
}

/// A finding of what went wrong with a file.
pub(super) fn tell(report: &mut Report, severity: Severity, file: &Path, error: StorageError, advice: &str) {
    let (file, what) = match error {
        StorageError::Corrupt { path, reason } => (path, reason),
        StorageError::Io { action, path, source } => (path, format!("{action}: {source}")),
        e => (file.to_owned(), e.to_string()),
    };
    report.find(severity, &file, what, advice);
}

/// Examines every shard of a table, then the keys of each day.
pub(super) fn check_shards(
    disk: &SharedDisk,
    root: &Path,
    table: &CheckedTable,
    report: &mut Report,
    meter: &mut Meter<'_, '_>,
) {
    let reader = ShardReader { disk: &**disk, root };
    let mut days: BTreeMap<i32, Vec<&Shard>> = BTreeMap::new();
    for (shard, add) in &table.shards {
        let path = root.join(&shard.path);
        meter.at(&path, 0);
        let verdict = examine(&reader, &table.state.schema, shard, add, &mut |bytes| meter.at(&path, bytes));
        report.counts.shards += 1;
        report.counts.shards_without_checksum += u64::from(shard.checksums.is_none());
        report.counts.rows += shard.rows;
        report.counts.bytes += shard.bytes;
        let (what, advice) = match verdict {
            Verdict::Sound => {
                days.entry(shard.day).or_default().push(shard);
                continue;
            }
            // A running server may have replaced it, and vacuumed the old file.
            _ if report.is_running && !is_still_listed(disk, table, add) => continue,
            Verdict::Damaged(what) => (what, REPAIR),
            Verdict::Unreadable(what) => (what, "look at the disk (`dmesg`); nothing is known of the file's content"),
        };
        let what = format!("{what} ({} rows of {})", shard.rows, format_day(shard.day));
        report.find(Severity::Damage, &path, what, advice);
    }
    for (day, shards) in days {
        compare_keys(&reader, &table.state.schema, &shards, day, report);
    }
}

fn compare_keys(reader: &ShardReader<'_>, schema: &TableSchema, shards: &[&Shard], day: i32, report: &mut Report) {
    if shards.len() < 2 {
        return;
    }
    report.counts.days_compared += 1;
    match keys::compare(reader, schema, shards) {
        Ok(found) => report.findings.extend(found.into_iter().map(|twice| Finding {
            severity: Severity::Damage,
            file: reader.root.join(&twice.one),
            what: format!(
                "{} keys of {} are in {} too, the first at {} µs since 1970",
                twice.keys,
                format_day(day),
                twice.other,
                twice.time_us
            ),
            advice: "keep a copy of the table's folder and report it: this is a bug".into(),
        })),
        // It was sound a moment ago: replaced by a running server, or the disk is failing.
        Err(_) if report.is_running => {}
        Err(e) => tell(report, Severity::Damage, reader.root, e, REPAIR),
    }
}

fn is_still_listed(disk: &SharedDisk, table: &CheckedTable, add: &Add) -> bool {
    let files = LogFiles::list(&**disk, &table.dir);
    let loaded =
        files.map(|files| files.and_then(|files| files.replay(&**disk).ok().map(|replayed| (files, replayed.replay))));
    match loaded {
        Ok(Some((files, replay))) => {
            replay.finish(files.commit_path(files.last)).map_or(true, |state| state.adds.contains_key(&add.path))
        }
        Ok(None) | Err(_) => true,
    }
}
