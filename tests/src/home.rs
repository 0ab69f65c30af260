//! The folder of a process under test, kept for a look when the test fails.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

const LOG_LINES_SHOWN: usize = 60;

/// Where a process keeps its data and its log.
#[derive(Debug)]
pub(crate) enum Home {
    /// Removed with it.
    Temporary(TempDir),
    /// Somebody else's to remove.
    Kept(PathBuf),
}

impl Home {
    /// This folder, made if missing, or a temporary one.
    pub(crate) fn new(name: &str, folder: Option<&Path>) -> Self {
        match folder {
            Some(folder) => {
                std::fs::create_dir_all(folder).expect("make the folder of a process");
                Home::Kept(folder.to_path_buf())
            }
            None => {
                let prefix = format!("eden-{name}-");
                Home::Temporary(tempfile::Builder::new().prefix(&prefix).tempdir().expect("make a temporary folder"))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Home::Temporary(folder) => folder.path(),
            Home::Kept(folder) => folder,
        }
    }

    /// While a panic passes through: keeps the folder, prints its path, `notes` and the end of the log.
    pub(crate) fn keep_for_a_look(&mut self, name: &str, notes: &[String], log: &str) {
        if let Home::Temporary(folder) = self {
            folder.disable_cleanup(true);
        }
        eprintln!("--- {name} failed; data and log are kept in {}", self.path().display());
        for note in notes {
            eprintln!("--- {note}");
        }
        let lines: Vec<_> = log.lines().collect();
        let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
        eprintln!("--- the log of {name}, last {} of {} lines:", lines.len() - skipped, lines.len());
        for line in &lines[skipped..] {
            eprintln!("{line}");
        }
    }
}

/// A log as text, whatever a killed process left at its end.
pub(crate) fn read_log(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
