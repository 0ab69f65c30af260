//! DuckDB, Polars and deltalake, installed once into the user's cache, and the comparison with `/_sql`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use harness::{Eden, Rows};
use serde_json::{Value, json};

use crate::command::{in_root, root, run};
use crate::{Failure, Outcome};

const FOLDER: &str = "tests/interop";
const SCRIPT: &str = "tests/interop/read_table.py";
const DIFFERENCES_MAX: usize = 5;
const CLIENTS: usize = 3;
/// Of each column.
const FILTERED_VALUES: usize = 2;

pub(super) struct Clients {
    pub(super) python: PathBuf,
    /// Started when first asked: loading the three takes longer than reading a table.
    readers: RefCell<Option<Readers>>,
}

/// `read_table.py`; it ends when its standard input does.
struct Readers {
    // Before `process`, which ends with it.
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Child,
}

impl Clients {
    /// Makes the virtual environment if it is not there.
    pub(super) fn install() -> Result<Self, Failure> {
        let python = install_from_pypi("venv", "requirements.txt")?;
        Ok(Clients { python, readers: RefCell::default() })
    }

    /// Every client reads the table and must see exactly `expected`.
    pub(super) fn agree(&self, eden: &Eden, table: &str, expected: &Rows, step: &str) -> Outcome {
        self.agree_in(&eden.table(table), &[("/_sql", expected)], step)
    }

    /// Every client reads the table in `folder`; all see what each of `expected` says, which have names.
    pub(super) fn agree_in(&self, folder: &Path, expected: &[(&str, &Rows)], step: &str) -> Outcome {
        let seen = self.read(std::slice::from_ref(&folder.to_path_buf()), None)?;
        for seen in &seen {
            seen.agree(expected).map_err(|difference| format!("{step}: {difference}"))?;
        }
        println!("{step}: DuckDB, Polars and deltalake read what is right, {} rows", expected[0].1.len());
        Ok(())
    }

    /// As [`Clients::agree_in`], of a table in an object store at `url`, which `options` reach. DuckDB's extension for that is
    /// not among the packages.
    pub(super) fn agree_in_store(&self, url: &str, options: &Value, expected: &Rows, step: &str) -> Outcome {
        let answers = self.ask(json!({ "folder": url, "options": options }), CLIENTS - 1)?;
        Seen::new(&answers).agree(&[("/_sql", expected)]).map_err(|difference| format!("{step}: {difference}"))?;
        println!("{step}: Polars and deltalake read what is right, {} rows", expected.len());
        Ok(())
    }

    /// What every client reads from each of `folders`; with `filter`, the rows whose column is that text.
    pub(super) fn read(&self, folders: &[PathBuf], filter: Option<(&str, &str)>) -> Result<Vec<Seen>, Failure> {
        let read = |folder: &PathBuf| Ok(Seen::new(&self.ask(json!({ "folder": folder, "where": filter }), CLIENTS)?));
        folders.iter().map(read).collect()
    }

    /// Each client and `/_sql` find by each column what is found in all rows.
    pub(super) fn filters_hide_nothing(&self, eden: &Eden, table: &str, folder: &str, step: &str) -> Outcome {
        let answers = self.ask(json!({ "folder": eden.table(folder), "filters": FILTERED_VALUES }), 1)?;
        if answers[0]["wrong"].as_array().is_none_or(|wrong| !wrong.is_empty()) {
            return Err(format!("{step}: filters hide rows: {}", answers[0]["wrong"]));
        }
        let conditions = answers[0]["conditions"].as_array().filter(|conditions| !conditions.is_empty());
        for condition in conditions.ok_or("no filters were tried")? {
            let statement = format!("SELECT count(*) FROM {table} WHERE {}", condition[0].as_str().unwrap_or_default());
            let found = Rows::new(super::run_sql(eden, &statement)?).single().clone();
            if found != condition[1] {
                return Err(format!("{step}: {statement} finds {found} rows, expected {}", condition[1]));
            }
        }
        println!("{step}: {} filters by all columns hide nothing", answers[0]["filters"]);
        Ok(())
    }

    /// No version of the table in `folder` that is still there has a key twice.
    pub(super) fn no_version_has_a_key_twice(&self, folder: &Path, keys: &[&str]) -> Outcome {
        let answers = self.ask(json!({ "folder": folder, "keys": keys }), 1)?;
        if answers[0]["twice"].as_array().is_none_or(|twice| !twice.is_empty()) {
            return Err(format!("versions have keys twice (P4): {}", answers[0]["twice"]));
        }
        println!("deltalake: none of {} versions has a key twice", answers[0]["versions"]);
        Ok(())
    }

    fn ask(&self, question: Value, answers: usize) -> Result<Vec<Value>, Failure> {
        let mut readers = self.readers.borrow_mut();
        let readers = match &mut *readers {
            Some(readers) => readers,
            none => none.insert(Readers::start(&self.python)?),
        };
        let failed = |error: std::io::Error| format!("ask {SCRIPT}: {error}");
        writeln!(readers.ask, "{question}").map_err(failed)?;
        let answer = |_| {
            let mut line = String::new();
            if readers.answers.read_line(&mut line).map_err(failed)? == 0 {
                return Err(format!("{SCRIPT} ended; what it was asked: {question}"));
            }
            serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))
        };
        (0..answers).map(answer).collect()
    }
}

impl Readers {
    fn start(python: &Path) -> Result<Self, Failure> {
        let mut command = in_root(python);
        command.arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| format!("run {SCRIPT}: {error}"))?;
        let (ask, answers) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        Ok(Readers { ask, answers: BufReader::new(answers), _process: process })
    }
}

/// What the clients saw of one table.
pub(super) struct Seen {
    answers: Vec<(String, Rows)>,
    /// By column, then client, in a word.
    types: BTreeMap<String, BTreeSet<String>>,
}

impl Seen {
    fn new(answers: &[Value]) -> Self {
        let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for answer in answers {
            let names = answer["cols"].as_array().into_iter().flatten();
            for (name, word) in names.zip(answer["types"].as_array().into_iter().flatten()) {
                let (name, word) = (name.as_str().unwrap_or_default(), word.as_str().unwrap_or_default());
                types.entry(name.to_string()).or_default().insert(word.to_string());
            }
        }
        let client = |answer: &Value| answer["client"].as_str().unwrap_or_default().to_string();
        Seen { answers: answers.iter().map(|answer| (client(answer), Rows::new(answer.clone()))).collect(), types }
    }

    /// Each client saw what each of `expected` says.
    pub(super) fn agree(&self, expected: &[(&str, &Rows)]) -> Outcome {
        if let Some((column, words)) = self.types.iter().find(|(_, words)| words.len() != 1) {
            return Err(format!("the clients see column {column} as {words:?}"));
        }
        for (name, wanted) in expected {
            let wanted = normal(wanted, &self.types);
            for (client, seen) in &self.answers {
                let seen = normal(seen, &self.types);
                if seen != wanted {
                    return Err(format!("{client} and {name} differ (P4)\n{}", differences(&seen, &wanted)));
                }
            }
        }
        Ok(())
    }

    /// The clients see these types.
    pub(super) fn has_types(&self, wanted: &[(&str, &str)]) -> Outcome {
        for (column, word) in wanted {
            if self.types.get(*column).is_none_or(|words| !words.iter().eq([word])) {
                return Err(format!("column {column} is {:?}, expected {word}", self.types.get(*column)));
            }
        }
        Ok(())
    }
}

/// Makes the virtual environment of that name if it is not there or not of these versions; returns its Python.
pub(super) fn install_from_pypi(name: &str, requirements: &str) -> Result<PathBuf, Failure> {
    python(name, &Path::new(FOLDER).join(requirements))
}

/// As [`install_from_pypi`], for a file of requirements by its path in the repository.
pub(crate) fn python(name: &str, requirements: &Path) -> Result<PathBuf, Failure> {
    let venv = cache()?.join(name);
    let python = venv.join("bin/python");
    let requirements = root().join(requirements);
    let wanted = read(&requirements)?;
    let installed = venv.join("requirements.txt");
    if std::fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
        println!("installing {}", wanted.split_whitespace().collect::<Vec<_>>().join(", "));
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        run(Command::new(&python).args(pip).arg(&requirements))?;
        std::fs::write(&installed, wanted).map_err(|error| format!("write {}: {error}", installed.display()))?;
    }
    Ok(python)
}

/// Installs packages of Node.js, each with its version, if they are not there; returns the folder of its modules.
pub(super) fn install_from_npm(packages: &[&str]) -> Result<PathBuf, Failure> {
    let folder = cache()?.join("node");
    let modules = folder.join("node_modules");
    for package in packages {
        let (name, version) = package.rsplit_once('@').unwrap_or((package, ""));
        let wanted = format!("\"version\": \"{version}\"");
        let manifest = modules.join(name).join("package.json");
        if !std::fs::read_to_string(&manifest).is_ok_and(|manifest| manifest.contains(&wanted)) {
            println!("installing {package}");
            std::fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
            let arguments = ["install", "--silent", "--no-package-lock", "--no-audit", "--no-fund", "--prefix"];
            run(Command::new("npm").args(arguments).arg(&folder).arg(package))?;
        }
    }
    Ok(modules)
}

/// The folder of the user's cache that is ours.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => return Err("neither XDG_CACHE_HOME nor HOME is set".into()),
    };
    Ok(cache.join("eden/interop"))
}

/// Rows as text, each cell with its column's name, columns and rows sorted; cells without a value left out, because a
/// column that no flushed row has is in `/_sql` before it is in the table.
fn normal(rows: &Rows, types: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let is_decimal =
        |name: &str| types.get(name).is_some_and(|words| words.iter().any(|word| word.starts_with("decimal")));
    let are_decimals: Vec<bool> = rows.columns().iter().map(|name| is_decimal(name)).collect();
    let row_as_text = |row: usize| {
        let cells = rows.columns().iter().zip(rows.row(row)).zip(&are_decimals);
        let cells = cells.filter(|((_, value), _)| !value.is_null());
        let mut cells: Vec<_> =
            cells.map(|((name, value), is_decimal)| format!("{name}={}", text(value, *is_decimal))).collect();
        cells.sort();
        cells
    };
    let mut all: Vec<_> = (0..rows.len()).map(row_as_text).collect();
    all.sort();
    all
}

/// A number's exact value, however it is written: 5, 5.0 and, in a column of decimals, "5.00" are one. Other texts are
/// in quotes.
fn text(value: &Value, is_decimal: bool) -> String {
    match value {
        Value::String(text) if is_decimal => without_zeros(text),
        Value::Object(decimal) => without_zeros(decimal["decimal"].as_str().unwrap_or_default()),
        Value::Number(number) if number.is_f64() => format!("{}", number.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

fn without_zeros(decimal: &str) -> String {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }.to_string()
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
