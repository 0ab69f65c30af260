//! `eden check` and `eden repair`: a data folder examined, and what is damaged set aside.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use model::name::PUBLIC;
use model::{Clock, SystemClock, TableName};
use storage::check::repair::{Act, RepairOptions, Repaired, repair};
use storage::check::{CheckOptions, CheckProgress, Report, Severity, check};
use storage::{Disks, StorageError};
use wal::disk::{LocalDisk, SharedDisk};

use crate::config::Config;
use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::serve::tables_elsewhere;

/// Examines a data folder and prints what is found.
///
/// # Errors
/// [`Failure::Work`] if anything is damaged, [`Failure::Usage`] if it could not be examined.
pub fn run_check(config: &Config, tables: &[String], outboxes: Vec<PathBuf>) -> Result<(), Failure> {
    let (data, disks) = (config.storage.data.clone(), disks(config)?);
    let options = CheckOptions { data, tables: tables.iter().map(|name| table_name(name)).collect(), outboxes };
    let mut progress = Progress::new();
    let report = check(disks, &options, &mut |at| show(&mut progress, &at)).map_err(|e| cannot(e, "eden check"))?;
    progress.clear();
    let _ = write_report(&report);
    let damaged = report.findings.iter().filter(|finding| finding.severity > Severity::Note).count();
    match damaged {
        0 => Ok(()),
        1 => Err(Failure::work("1 file is damaged, named above")),
        many => Err(Failure::work(format!("{many} files are damaged, named above"))),
    }
}

/// Repairs a data folder, or says what that would do.
///
/// # Errors
/// [`Failure::Work`] if something is damaged and left as it is, [`Failure::Usage`] if a server uses the folder.
pub fn run_repair(config: &Config, tables: &[String], act: Act) -> Result<(), Failure> {
    let (data, disks) = (config.storage.data.clone(), disks(config)?);
    let options = RepairOptions { data, tables: tables.iter().map(|name| table_name(name)).collect(), act };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut progress = Progress::new();
    let repaired =
        repair(disks, &clock, &options, &mut |at| show(&mut progress, &at)).map_err(|e| cannot(e, "eden repair"))?;
    progress.clear();
    let _ = write_repaired(&repaired, act);
    if !repaired.left.is_empty() {
        return Err(Failure::work(format!("{} damaged files are left as they are, named above", repaired.left.len())));
    }
    if act == Act::Plan && !repaired.steps.is_empty() {
        return Err(Failure::work("nothing was changed; give --yes to do it"));
    }
    Ok(())
}

fn disks(config: &Config) -> Result<Disks, Failure> {
    let data: SharedDisk = Arc::new(LocalDisk::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let tables = tables_elsewhere(config, &data, &clock)?;
    Ok(Disks { data, tables })
}

fn cannot(error: StorageError, command: &str) -> Failure {
    match error {
        StorageError::Locked { .. } | StorageError::Owned { .. } | StorageError::Invalid(_) => Failure::usage(error),
        StorageError::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Failure::usage(format!("{error}; name a data folder with --data"))
        }
        error => Failure::work(format!("{command}: {error}")),
    }
}

/// `table` of schema `public`, or `schema.table`.
fn table_name(text: &str) -> TableName {
    let (schema, table) = text.split_once('.').unwrap_or((PUBLIC, text));
    TableName::new(schema, table)
}

fn write_report(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let counts = &report.counts;
    if counts.tables > 0 || counts.log_segments > 0 {
        writeln!(
            out,
            "log: {} segments, {} frames, {} records\ntables: {}, with {} commits and {} checkpoints\n\
             shards: {}, with {} rows and {} bytes; {} days compared for keys",
            counts.log_segments,
            counts.log_frames,
            counts.log_records,
            counts.tables,
            counts.commits,
            counts.checkpoints,
            counts.shards,
            counts.rows,
            counts.bytes,
            counts.days_compared,
        )?;
    }
    if counts.outboxes > 0 {
        writeln!(out, "outboxes: {}, with {} records", counts.outboxes, counts.outbox_records)?;
    }
    let older = [
        (counts.shards_without_checksum, "shards"),
        (counts.commits_without_checksum, "commits"),
        (counts.checkpoints_without_checksum, "checkpoints"),
    ];
    for (count, what) in older.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(
            out,
            "{count} {what} are older than checksums: they can be read, and that is all that is known of them"
        )?;
    }
    if report.is_running {
        writeln!(out, "a server is using the folder: what it was writing meanwhile is not in this")?;
    }
    if !report.is_damaged() {
        writeln!(out, "nothing is damaged")?;
    }
    Ok(())
}

fn write_repaired(repaired: &Repaired, act: Act) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in &repaired.left {
        writeln!(out, "left: {}: {}\n    {}", finding.file.display(), finding.what, finding.advice)?;
    }
    for step in &repaired.steps {
        writeln!(out, "{}: {}", step.file.display(), step.what)?;
    }
    for lost in &repaired.lost {
        let table = lost.table.as_deref().unwrap_or("?");
        let rows = lost.rows.map_or("rows".to_owned(), |rows| format!("{rows} rows"));
        let verb = if act == Act::Do { "are" } else { "would be" };
        let times = match (lost.time_from_us, lost.time_to_us) {
            (Some(from), Some(to)) => format!(" from {} to {}", shown(from), shown(to)),
            _ => String::new(),
        };
        writeln!(out, "{rows} of table {table}{times} {verb} missing ({}): {}", lost.certainty, lost.reason)?;
    }
    match (repaired.steps.is_empty(), act) {
        (true, _) if repaired.left.is_empty() => writeln!(out, "nothing is damaged that a repair could help"),
        (false, Act::Do) => {
            writeln!(out, "what was damaged is in the folder `damaged`; the next start notes it in system.data_loss")
        }
        _ => Ok(()),
    }
}

fn show(progress: &mut Progress, at: &CheckProgress<'_>) {
    progress.show(|| progress::share(at.done_bytes, at.total_bytes));
}

fn shown(us: i64) -> String {
    model::time_text::iso(us)
}
