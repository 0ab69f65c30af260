//! A Delta table's log as text, read without Eden and without a Delta library.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// What the newest version of a table holds.
#[derive(Clone, Debug, Default)]
pub struct DeltaLog {
    /// The newest version.
    pub version: u64,
    /// Live data files by path, with their rows.
    pub files: BTreeMap<String, u64>,
}

impl DeltaLog {
    /// Reads all `N.json` of a table's folder.
    ///
    /// # Panics
    /// When there is no table, or a commit file is not Delta's.
    pub fn read(table: &Path) -> Self {
        let folder = table.join("_delta_log");
        let names = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
        let mut commits = BTreeMap::new();
        for entry in names {
            let path = entry.expect("list the Delta log").path();
            let is_commit = path.extension().is_some_and(|extension| extension == "json");
            let version = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            if let (true, Some(version)) = (is_commit, version) {
                commits.insert(version, path);
            }
        }
        let mut log = DeltaLog::default();
        for (version, path) in commits {
            log.version = version;
            let text = std::fs::read_to_string(&path).expect("read a Delta commit");
            for line in text.lines().filter(|line| !line.is_empty()) {
                let action: Value = serde_json::from_str(line).expect("a Delta commit is lines of JSON");
                log.apply(&action);
            }
        }
        log
    }

    /// Rows of all live files, by the statistics of their `add`.
    pub fn rows(&self) -> u64 {
        self.files.values().sum()
    }

    fn apply(&mut self, action: &Value) {
        let path = |action: &Value| action["path"].as_str().expect("a file's path").to_string();
        if let Some(add) = action.get("add") {
            let statistics: Value = serde_json::from_str(add["stats"].as_str().expect("statistics in every add (P4)"))
                .expect("statistics are JSON");
            self.files.insert(path(add), statistics["numRecords"].as_u64().expect("numRecords"));
        } else if let Some(remove) = action.get("remove") {
            self.files.remove(&path(remove));
        }
    }
}
