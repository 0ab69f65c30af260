//! The logs: the server's, what was set aside, and outboxes.

use std::io;
use std::path::Path;

use model::NodeId;
use model::record::{self, Record};
use wal::disk::{self, SharedDisk};
use wal::{Certainty, Frame, Inspection, LogKind, Loss, LossReason, WalError, inspect};

use super::table::CheckedTable;
use super::{Report, Severity};
use crate::identity;

/// A look at a log that changes meanwhile may fail; another one finds it as it is then.
const LOOKS: usize = 5;

/// Examines the log of the data folder and what was set aside.
pub(super) fn check_logs(disk: &SharedDisk, data: &Path, tables: &[CheckedTable], report: &mut Report) {
    let node = match identity::read(&**disk, data) {
        Ok(node) => node,
        Err(e) => {
            let advice = "bring it back from a copy; without it the server does not start";
            super::table::tell(report, Severity::Damage, &data.join("node"), e, advice);
            None
        }
    };
    let flushed = node.map_or(0, |node| {
        let app_id = format!("eden/{node}");
        let txns = tables.iter().filter_map(|table| table.state.txns.get(&app_id));
        txns.copied().max().and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0)
    });
    let dir = data.join("wal");
    let mut unreadable = Vec::new();
    let mut rows_of_none = 0;
    let looked = look(disk, &dir, LogKind::Server, node, flushed, &mut |frame| {
        for bytes in frame.records() {
            match record::decode(bytes) {
                Ok(Record::Batch { table, batch, .. }) => {
                    let is_known = tables.iter().any(|known| known.state.id == table);
                    rows_of_none += if is_known { 0 } else { batch.len() };
                }
                Ok(_) => {}
                Err(e) => unreadable.push((frame.position.offset, e.to_string())),
            }
        }
    });
    if let Some(looked) = tell_looked(report, &dir, looked) {
        report.counts.log_segments += looked.segments;
        report.counts.log_frames += looked.frames;
        report.counts.log_records += looked.records;
    }
    for (offset, reason) in unreadable {
        let advice = "keep a copy of the log and report it: this is a bug, unless a newer version wrote it";
        report.find(Severity::Damage, &dir, format!("a record at offset {offset} cannot be read: {reason}"), advice);
    }
    if rows_of_none > 0 {
        let what = format!("{rows_of_none} rows are of tables that are dropped, damaged or gone");
        report.find(Severity::Note, &dir, what, "nothing, unless a table is missed");
    }
    // The second is the server's: sessions of MQTT clients.
    for folder in ["quarantine", "mqtt"].map(|name| data.join(name)) {
        let looked = look(disk, &folder, LogKind::Ring, node, 0, &mut |_| {});
        tell_looked(report, &folder, looked);
    }
}

/// Examines the log of an outbox. Its folder is the one that the agent is configured with.
pub(super) fn check_outbox(disk: &SharedDisk, outbox: &Path, report: &mut Report) {
    let dir = outbox.join("log");
    if let Err(e) = disk.info(&dir) {
        report.find(
            Severity::Damage,
            &dir,
            format!("no outbox: {e}"),
            "give the folder that the agent is configured with",
        );
        return;
    }
    let identity = outbox.join("identity.json");
    let parsed = disk::read_file(&**disk, &identity).map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes));
    if !matches!(parsed, Ok(Ok(_))) {
        let advice = "nothing: the agent begins a new epoch, and what waits is sent under its old one";
        report.find(Severity::Warning, &identity, "it is missing or damaged", advice);
    }
    report.counts.outboxes += 1;
    let looked = look(disk, &dir, LogKind::Ring, None, 0, &mut |_| {});
    if let Some(looked) = tell_looked(report, &dir, looked) {
        report.counts.outbox_records += looked.records;
    }
}

fn look(
    disk: &SharedDisk,
    dir: &Path,
    kind: LogKind,
    node: Option<NodeId>,
    offset_min: u64,
    on_frame: &mut dyn FnMut(&Frame),
) -> Result<Inspection, WalError> {
    let mut looks = 1;
    loop {
        // What one look gave to `on_frame` is given again by the next: no more than counts depends on it.
        match inspect(disk, dir, kind, node, offset_min, on_frame) {
            Err(WalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && looks < LOOKS => looks += 1,
            looked => return looked,
        }
    }
}

fn tell_looked(report: &mut Report, dir: &Path, looked: Result<Inspection, WalError>) -> Option<Inspection> {
    let looked = match looked {
        Ok(looked) => looked,
        Err(WalError::NewerFormat { file, version }) => {
            let what = format!("written by a newer version of eden (format {version})");
            report.find(Severity::Note, &dir.join(file), what, "examine it with that version");
            return None;
        }
        Err(WalError::Corrupt { .. }) if report.is_running => {
            report.find(Severity::Note, dir, "its newest frame was being written", "nothing");
            return None;
        }
        Err(e) => {
            let source = std::error::Error::source(&e).map(|source| format!(": {source}")).unwrap_or_default();
            report.find(Severity::Damage, dir, format!("{e}{source}"), "look at the disk (`dmesg`)");
            return None;
        }
    };
    for loss in &looked.losses {
        tell_loss(report, dir, loss);
    }
    Some(looked)
}

fn tell_loss(report: &mut Report, dir: &Path, loss: &Loss) {
    let to = loss.to.map(|to| to.to_string()).unwrap_or_default();
    let what = format!("offsets {}..{to}: {}", loss.from, loss.reason);
    let (severity, advice) = match (loss.certainty, loss.reason) {
        (Certainty::Possible, LossReason::TornTail) if report.is_running => {
            (Severity::Note, "nothing, if it is gone at the next look: the newest frame was being written")
        }
        (Certainty::Certain, _) => (
            Severity::Damage,
            "what is there no more is lost, unless a copy of the file has it; the start of the server names it in \
             system.data_loss and goes on",
        ),
        (Certainty::Possible, _) => (
            Severity::Warning,
            "it may have been a write that was never acknowledged, or one that was; the start of the server names it in \
             system.data_loss and goes on",
        ),
        (Certainty::Nothing, _) => (Severity::Warning, "no record is lost by it; the start of the server goes on"),
    };
    report.find(severity, &dir.join(&loss.file), what, advice);
}
