//! DuckDB, Polars and deltalake, installed once into the user's cache, and the comparison with `/_sql`.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Eden, Rows};
use serde_json::Value;

use crate::command::{in_root, output, root, run};
use crate::{Failure, Outcome};

const FOLDER: &str = "tests/interop";
const DIFFERENCES_MAX: usize = 5;

pub(super) struct Clients {
    pub(super) python: PathBuf,
}

impl Clients {
    /// Makes the virtual environment if it is not there or not of these versions.
    pub(super) fn install() -> Result<Self, Failure> {
        let venv = cache()?.join("venv");
        let python = venv.join("bin/python");
        let requirements = root().join(FOLDER).join("requirements.txt");
        let wanted = read(&requirements)?;
        let installed = venv.join("requirements.txt");
        if std::fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
            println!("installing the clients of {FOLDER}/requirements.txt");
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
            run(Command::new(&python).args(pip).arg(&requirements))?;
            std::fs::write(&installed, wanted).map_err(|error| format!("write {}: {error}", installed.display()))?;
        }
        Ok(Clients { python })
    }

    /// Every client reads the table and must see exactly `expected`.
    pub(super) fn agree(&self, eden: &Eden, table: &str, expected: &Rows, step: &str) -> Outcome {
        let script = format!("{FOLDER}/read_table.py");
        let text = output(in_root(&self.python).arg(script).arg(eden.table(table)))?;
        let wanted = normal(expected);
        let mut clients = Vec::new();
        for line in text.lines() {
            let answer: Value = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
            let client = answer["client"].as_str().unwrap_or_default().to_string();
            let seen = normal(&Rows::new(answer));
            if seen != wanted {
                return Err(format!("{step}: {client} and /_sql differ (P4)\n{}", differences(&seen, &wanted)));
            }
            clients.push(client);
        }
        if clients.len() != 3 {
            return Err(format!("{step}: only {clients:?} answered"));
        }
        println!("{step}: {} read what /_sql says, {} rows", clients.join(", "), expected.len());
        Ok(())
    }
}

/// The folder of the user's cache that is ours.
pub(super) fn cache() -> Result<PathBuf, Failure> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => return Err("neither XDG_CACHE_HOME nor HOME is set".into()),
    };
    Ok(cache.join("eden/interop"))
}

/// Rows as text, each cell with its column's name, columns and rows sorted; cells without a value left out, because a
/// column that no flushed row has is in `/_sql` before it is in the table.
fn normal(rows: &Rows) -> Vec<Vec<String>> {
    let row_as_text = |row: usize| {
        let cells = rows.columns().iter().zip(rows.row(row)).filter(|(_, value)| !value.is_null());
        let mut cells: Vec<_> = cells.map(|(name, value)| format!("{name}={}", text(value))).collect();
        cells.sort();
        cells
    };
    let mut all: Vec<_> = (0..rows.len()).map(row_as_text).collect();
    all.sort();
    all
}

/// A number's exact value, however it is written: 5, 5.0 and "5" (a decimal) are one.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{}", number.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

fn differences(seen: &[Vec<String>], wanted: &[Vec<String>]) -> String {
    let only = |in_one: &[Vec<String>], not_in: &[Vec<String>], mark: char| {
        let rows = in_one.iter().filter(|row| not_in.binary_search(row).is_err()).take(DIFFERENCES_MAX);
        rows.map(|row| format!("  {mark} {}\n", row.join(" "))).collect::<String>()
    };
    let counts = format!("{} rows, expected {}\n", seen.len(), wanted.len());
    counts + &only(seen, wanted, '+') + &only(wanted, seen, '-')
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))
}
