//! `eden check` and `eden repair`: everything in a data folder, read and compared with what it must be (P3, P11).
//!
//! Owns:     what is examined, in which order, and how what was found is told.
//! Does not: change anything, but for [`repair`], which has the folder to itself.
//!
//! Examined are the log (every frame and record), what was set aside, the Delta logs (checksums, gaps, checkpoints
//! against commits), every shard of the newest version (length, checksums, pages, order, days, statistics), each key's
//! uniqueness within a day, and outboxes.
//!
//! Beside a running server the newest moment is in motion: what only that explains is not called damage.

mod keys;
mod log;
pub mod repair;
mod rows;
mod salvage;
mod shard;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::catalog::table_folders;
use crate::{Disks, StorageError, Tables, identity};
use model::TableName;

/// What to examine.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// The data folder.
    pub data: PathBuf,
    /// Only these tables, and nothing else of the folder; all of it if there are none.
    pub tables: Vec<TableName>,
    /// Outboxes of agents, wherever they are.
    pub outboxes: Vec<PathBuf>,
}

impl CheckOptions {
    /// All of the data folder `data`.
    pub fn new(data: PathBuf) -> Self {
        CheckOptions { data, tables: Vec::new(), outboxes: Vec::new() }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong: something could not be compared.
    Note,
    /// Something is damaged, and no reading is lost by it.
    Warning,
    /// Readings are lost, or may be.
    Damage,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Damage => "damage",
        })
    }
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// `damage: DIR/tables/…: it has 5 bytes; …` and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}\n    {}", self.severity, self.file.display(), self.what, self.advice)
    }
}

/// What was examined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments of the log.
    pub log_segments: u64,
    /// Frames in them.
    pub log_frames: u64,
    /// Records in those.
    pub log_records: u64,
    /// Tables.
    pub tables: u64,
    /// Commits.
    pub commits: u64,
    /// Commits of before there were checksums.
    pub commits_without_checksum: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Checkpoints without a checksum.
    pub checkpoints_without_checksum: u64,
    /// Shards.
    pub shards: u64,
    /// Shards of before there were checksums.
    pub shards_without_checksum: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Days in which more than one shard was compared for keys.
    pub days_compared: u64,
    /// Outboxes.
    pub outboxes: u64,
    /// Records in them.
    pub outbox_records: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Findings in the order in which they were met.
    pub findings: Vec<Finding>,
    /// What was examined.
    pub counts: Counts,
    /// Whether a server was using the folder meanwhile.
    pub is_running: bool,
}

impl Report {
    /// Whether anything is damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity > Severity::Note)
    }

    fn find(&mut self, severity: Severity, file: &Path, what: impl Into<String>, advice: impl Into<String>) {
        let (what, advice) = (what.into(), advice.into());
        self.findings.push(Finding { severity, file: file.to_owned(), what, advice });
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
pub struct CheckProgress<'a> {
    /// The file or table that is being examined.
    pub at: &'a Path,
    /// Bytes of shards done.
    pub done_bytes: u64,
    /// Bytes of shards to do; grows until all Delta logs were read.
    pub total_bytes: u64,
}

/// What is called now and then.
pub type OnProgress<'a> = &'a mut dyn FnMut(CheckProgress<'_>);

/// Examines a data folder without changing it. Blocks. Memory is bounded by the pages of 64 shards.
///
/// # Errors
/// If there is no data folder, or the disk does not list it. What it does not give of a single file is a finding.
pub fn check(
    disks: impl Into<Disks>,
    options: &CheckOptions,
    progress: OnProgress<'_>,
) -> Result<Report, StorageError> {
    let disks = disks.into();
    let (data, disk) = (&options.data, &disks.data);
    let mut report = Report::default();
    if !options.outboxes.is_empty() && disk.info(data).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        // On a board there is an outbox and no data folder.
    } else {
        disk.info(data).map_err(StorageError::io("open", data))?;
        report.is_running = identity::is_locked(&**disk, data);
        check_data(&disks, options, &mut report, progress)?;
    }
    for outbox in &options.outboxes {
        log::check_outbox(disk, outbox, &mut report);
    }
    Ok(report)
}

fn check_data(
    disks: &Disks,
    options: &CheckOptions,
    report: &mut Report,
    progress: OnProgress<'_>,
) -> Result<(), StorageError> {
    let Tables { dir: root, disk } = disks.tables(&options.data);
    let mut tables = Vec::new();
    for folder in table_folders(&*disk, &root)? {
        let Some(name) = folder.name.clone() else {
            report.find(
                Severity::Warning,
                &folder.dir,
                "a folder whose name is not one that a table gets",
                "nothing of Eden's is in it: move it out of `tables`",
            );
            continue;
        };
        if !options.tables.is_empty() && !options.tables.contains(&name) {
            continue;
        }
        progress(CheckProgress { at: &folder.dir, done_bytes: 0, total_bytes: 0 });
        if let Some(table) = table::check_log(&disk, &name, &folder, report) {
            tables.push(table);
        }
    }
    for name in &options.tables {
        if !tables.iter().any(|table| table.name == *name) && report.findings.is_empty() {
            return Err(StorageError::Invalid(format!("there is no table {name} in {}", root.display())));
        }
    }
    if options.tables.is_empty() {
        log::check_logs(&disks.data, &options.data, &tables, report);
    }
    let mut meter = Meter { done_bytes: 0, total_bytes: tables.iter().map(table::CheckedTable::bytes).sum(), progress };
    for table in &tables {
        table::check_shards(&disk, &root, table, report, &mut meter);
    }
    Ok(())
}

/// Adds up what is done.
struct Meter<'a, 'b> {
    done_bytes: u64,
    total_bytes: u64,
    progress: &'a mut (dyn FnMut(CheckProgress<'_>) + 'b),
}

impl Meter<'_, '_> {
    fn at(&mut self, at: &Path, done: u64) {
        self.done_bytes += done;
        (self.progress)(CheckProgress { at, done_bytes: self.done_bytes, total_bytes: self.total_bytes });
    }
}
