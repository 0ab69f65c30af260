//! One result: figures with the command, commit, machine and load that they belong to.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::command::{in_root, output, root};
use crate::soak::commit;
use crate::{Failure, Outcome};

/// A named figure as it goes into the table and into JSON.
struct Figure {
    name: &'static str,
    key: &'static str,
    value: f64,
    digits: usize,
}

/// Collects figures, then writes `bench/results/NAME-DATE.md` and `.json`.
pub(super) struct Report {
    name: &'static str,
    what: String,
    load_before: String,
    figures: Vec<Figure>,
    tables: Vec<String>,
    data: Map<String, Value>,
    remarks: Vec<String>,
}

impl Report {
    pub(super) fn new(name: &'static str, what: impl Into<String>) -> Self {
        Report {
            name,
            what: what.into(),
            load_before: load(),
            figures: Vec::new(),
            tables: Vec::new(),
            data: Map::new(),
            remarks: Vec::new(),
        }
    }

    /// A whole table in Markdown, for figures that are compared; its data goes to [`Report::data`].
    pub(super) fn table(&mut self, table: String) {
        println!("{table}");
        self.tables.push(table);
    }

    /// What a table holds, for programs.
    pub(super) fn data(&mut self, key: &str, value: Value) {
        self.data.insert(key.to_string(), value);
    }

    /// `name` is for people and holds the unit; `key` is for programs and ends with it.
    pub(super) fn figure(&mut self, name: &'static str, key: &'static str, value: f64, digits: usize) {
        println!("{name}: {value:.digits$}");
        self.figures.push(Figure { name, key, value, digits });
    }

    pub(super) fn remark(&mut self, remark: impl Into<String>) {
        let remark = remark.into();
        println!("{remark}");
        self.remarks.push(remark);
    }

    pub(super) fn write(self) -> Outcome {
        let date = output(in_root("date").args(["--utc", "+%Y-%m-%d"]))?.trim().to_string();
        let (commit, machine, load_after) = (commit()?, machine()?, load());
        let command = format!("cargo xtask bench {}", self.name);
        let mut text = format!(
            "# {}, {date}\n\n{}\n\nCommand: `{command}`. Commit: `{commit}` (`+`: with changes not committed).\n\
             Machine: {machine}.\nLoad average (1, 5, 15 min) before: {}; after: {load_after}.\n",
            self.name, self.what, self.load_before
        );
        for table in &self.tables {
            write!(text, "\n{table}").map_err(|e| e.to_string())?;
        }
        if !self.figures.is_empty() {
            text += "\n| what | figure |\n| --- | --- |\n";
        }
        let mut figures = self.data;
        for figure in &self.figures {
            writeln!(text, "| {} | {:.*} |", figure.name, figure.digits, figure.value).map_err(|e| e.to_string())?;
            figures.insert(figure.key.into(), json!(figure.value));
        }
        for remark in &self.remarks {
            writeln!(text, "\n{remark}").map_err(|e| e.to_string())?;
        }
        let data = json!({
            "bench": self.name, "date": date, "commit": commit, "command": command, "machine": machine,
            "load_before": self.load_before, "load_after": load_after, "figures": Value::Object(figures),
            "remarks": self.remarks,
        });
        let folder = root().join("bench/results");
        let file = |extension: &str| folder.join(format!("{}-{date}.{extension}", self.name));
        let failed = |error: std::io::Error| format!("write {}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        std::fs::write(file("md"), text).map_err(failed)?;
        std::fs::write(file("json"), format!("{data:#}\n")).map_err(failed)?;
        println!("written to bench/results/{}-{date}.md and .json", self.name);
        Ok(())
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(", ")
}

fn machine() -> Result<String, Failure> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"));
    let cpus = read("/proc/cpuinfo")?;
    let models: Vec<_> = cpus.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first().and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown CPU");
    let memory = read("/proc/meminfo")?;
    let total_kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(format!("{} × {model}, {} GiB, Linux {}", models.len(), total_kib >> 20, kernel.trim()))
}
