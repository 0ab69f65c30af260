//! What the columns of a file become in a table.
//!
//! Owns:     which column is the time, which are tags, the types of those that the table does not have yet, and telling
//!           the server about these.
//! Does not: read files, or convert values (`record`).
//!
//! Invariants
//!  1. A column that the table has keeps its kind: values are judged by it, never the other way round.
//!  2. A new column gets its kind once, by all values of the first batch that has any, or by the file's own type, and
//!     is declared to the server before the first row that uses it is sent.
//!  3. No path is at once a column and the beginning of another one, unless the table has it so already.

use std::collections::{BTreeSet, HashMap};

use model::TableName;
use model::name::{check_column_name, check_name};
use serde_json::Value;

use super::quoted;
use super::record::{Cell, Record};
use crate::client::Client;
use crate::failure::Failure;

/// The name of every table's time.
const TIME: &str = "time";
/// The partition column, which is in the folders and in what other programs read from them: it follows from the time.
const DAY: &str = "eden_day";

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Says which thing was measured.
    Tag,
    /// Event time.
    Time,
    /// Not stored.
    LeftOut,
    /// A field of text.
    Text,
    /// A float.
    F64,
    /// A whole number.
    I64,
    /// One without sign.
    U64,
    /// Truth value.
    Bool,
    /// Decimal of so many digits, and so many of them behind the point.
    Decimal { digits: u8, scale: u8 },
}

impl Kind {
    /// For messages.
    pub(crate) fn name(self) -> String {
        match self {
            Kind::Tag => "a tag".into(),
            Kind::Time => "the time".into(),
            Kind::LeftOut => "left out".into(),
            other => other.sql().to_lowercase(),
        }
    }

    /// As CREATE TABLE takes it.
    fn sql(self) -> String {
        match self {
            Kind::Tag | Kind::Text | Kind::LeftOut => "TEXT".into(),
            Kind::Time => "TIMESTAMP".into(),
            Kind::F64 => "DOUBLE".into(),
            Kind::I64 => "BIGINT".into(),
            Kind::U64 => "NUMERIC(20,0)".into(),
            Kind::Bool => "BOOLEAN".into(),
            Kind::Decimal { digits, scale } => format!("DECIMAL({digits},{scale})"),
        }
    }

    /// Of a column as `/api/v1/table` describes it.
    pub(crate) fn of_description(column: &Value) -> Option<Kind> {
        Some(match (column["kind"].as_str()?, column["type"].as_str()?) {
            ("tag", _) => Kind::Tag,
            ("time", _) => Kind::Time,
            (_, "TEXT") => Kind::Text,
            (_, "DOUBLE") => Kind::F64,
            (_, "BIGINT") => Kind::I64,
            (_, "NUMERIC(20,0)") => Kind::U64,
            (_, "BOOLEAN") => Kind::Bool,
            (_, decimal) => {
                let (digits, scale) = decimal.strip_prefix("DECIMAL(")?.strip_suffix(')')?.split_once(',')?;
                Kind::Decimal { digits: digits.parse().ok()?, scale: scale.parse().ok()? }
            }
        })
    }
}

/// A column of the file.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Its name in the table.
    pub(crate) name: String,
    /// `None` until a value says what it is.
    pub(crate) kind: Option<Kind>,
    /// Whether the server knows it.
    is_declared: bool,
}

/// All columns that a table has or the files bring.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) table: TableName,
    pub(crate) columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    by_lower: HashMap<String, usize>,
    /// Names of columns, for what begins with another one.
    paths: BTreeSet<String>,
    time: String,
    tags: Vec<String>,
    exists: bool,
}

/// How a file's name for a column is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As it stands there.
    Plain,
    /// As the path of a value in nested objects.
    Path,
}

impl Layout {
    /// Asks the server for the table's columns.
    ///
    /// # Errors
    /// If it cannot be asked, or `tags` contradict the table.
    pub(crate) fn of_table(
        client: &Client,
        table: &TableName,
        time: Option<&str>,
        tags: Option<&[String]>,
    ) -> Result<Layout, Failure> {
        check_name("table", &table.table).map_err(Failure::usage)?;
        if table.table.starts_with('#') {
            return Err(Failure::usage("the name of a table that files are imported to cannot begin with #"));
        }
        let description = describe(client, table)?;
        let mut layout = Layout::new(table.clone(), time.unwrap_or(TIME), tags.unwrap_or_default());
        match description {
            Some(description) => {
                layout.exists = true;
                layout.table = TableName::new(&table.schema, description["table"].as_str().unwrap_or(&table.table));
                for column in description["columns"].as_array().into_iter().flatten() {
                    let (name, kind) = (column["name"].as_str().unwrap_or_default(), Kind::of_description(column));
                    if kind != Some(Kind::Time) {
                        layout.add(name, kind, true);
                    }
                }
                layout.check_tags()?;
            }
            None if tags.is_none() => {
                return Err(Failure::usage(format!(
                    "there is no table {} yet: say with --tags a,b which columns tell what was measured; rows with the \
                     same tags and time are one; --tags '' means that the time alone tells rows apart",
                    layout.table
                )));
            }
            None => {}
        }
        Ok(layout)
    }

    fn new(table: TableName, time: &str, tags: &[String]) -> Layout {
        Layout {
            table,
            columns: Vec::new(),
            by_name: HashMap::new(),
            by_lower: HashMap::new(),
            paths: BTreeSet::new(),
            time: time.to_owned(),
            tags: tags.to_vec(),
            exists: false,
        }
    }

    fn check_tags(&self) -> Result<(), Failure> {
        for tag in &self.tags {
            let known = self.by_lower.get(&tag.to_lowercase()).map(|at| &self.columns[*at]);
            if let Some(Column { kind: Some(kind), .. }) = known
                && *kind != Kind::Tag
            {
                return Err(Failure::usage(format!(
                    "--tags: {tag:?} is a field of table {}, {}; a field cannot become a tag",
                    self.table,
                    kind.name()
                )));
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, kind: Option<Kind>, is_declared: bool) -> usize {
        self.columns.push(Column { name: name.to_owned(), kind, is_declared });
        let at = self.columns.len() - 1;
        self.by_name.insert(name.to_owned(), at);
        self.by_lower.insert(name.to_lowercase(), at);
        if kind != Some(Kind::Time) && kind != Some(Kind::LeftOut) {
            self.paths.insert(name.to_owned());
        }
        at
    }

    /// Whether this is the name of the time in the file.
    pub(crate) fn is_time(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(&self.time)
    }

    /// What the time is called in the file.
    pub(crate) fn time_name(&self) -> &str {
        &self.time
    }

    /// Whether a column of the file may be added by this name: says why not.
    pub(crate) fn check(&self, name: &str, naming: Naming) -> Result<(), String> {
        if self.find(name).is_some() || self.is_time(name) || name.eq_ignore_ascii_case(DAY) {
            return Ok(());
        }
        if name.eq_ignore_ascii_case(TIME) {
            return Err(format!(
                "the column {name:?} is not the time, which is {:?}, and no other can have that name",
                self.time
            ));
        }
        check_column_name("column", name).map_err(|e| e.to_string())?;
        if name.ends_with('\\') {
            return Err(format!("the column {name:?} ends with a backslash"));
        }
        if naming == Naming::Path {
            if let Some(value) = decode::json_lines::ancestors(name).find(|path| self.paths.contains(*path)) {
                return Err(format!(
                    "{value:?} is a column with values, so it cannot be an object, which has {name:?}"
                ));
            }
            let inner = format!("{name}.");
            if let Some(path) = self.paths.range(inner.clone()..).next().filter(|path| path.starts_with(&inner)) {
                return Err(format!("{name:?} is an object, which has the column {path:?}, so it cannot be a value"));
            }
        }
        Ok(())
    }

    /// The column of this name in the file, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied().or_else(|| self.by_lower.get(&name.to_lowercase()).copied())
    }

    /// The column of this name in the file, added if it is new. `kind` is that of the file, if it has types.
    /// [`Layout::check`] has nothing against it.
    pub(crate) fn column(&mut self, name: &str, kind: Option<Kind>) -> usize {
        if let Some(at) = self.find(name) {
            return at;
        }
        let is_tag = self.tags.iter().any(|tag| tag.eq_ignore_ascii_case(name));
        let kind = match kind {
            _ if self.is_time(name) => Some(Kind::Time),
            _ if name.eq_ignore_ascii_case(DAY) => Some(Kind::LeftOut),
            _ if is_tag => Some(Kind::Tag),
            other => other,
        };
        self.add(name, kind, matches!(kind, Some(Kind::Time | Kind::LeftOut)))
    }

    /// Tags that were asked for and are not among `names`, the columns of a file.
    pub(crate) fn missing_tags<'a>(&'a self, names: &[String]) -> Vec<&'a str> {
        let is_missing = |tag: &&String| !names.iter().any(|name| name.eq_ignore_ascii_case(tag));
        self.tags.iter().filter(is_missing).map(String::as_str).collect()
    }

    /// Decides the kinds of columns whose first values are in `records`, and declares what the server does not know.
    ///
    /// # Errors
    /// What the server says against it.
    pub(crate) fn settle(&mut self, records: &[Record], client: &Client) -> Result<(), Failure> {
        if self.columns.iter().all(|column| column.is_declared) {
            return Ok(());
        }
        let mut guesses = vec![Guess::default(); self.columns.len()];
        for (at, cell) in records.iter().flat_map(|record| &record.cells) {
            if self.columns[*at].kind.is_none() {
                guesses[*at].add(cell);
            }
        }
        for (column, guess) in self.columns.iter_mut().zip(guesses) {
            column.kind = column.kind.or_else(|| guess.kind());
        }
        let new: Vec<usize> = (0..self.columns.len())
            .filter(|at| !self.columns[*at].is_declared && self.columns[*at].kind.is_some())
            .collect();
        let table = format!("{}.{}", quoted(&self.table.schema), quoted(&self.table.table));
        let definition = |at: &usize| {
            let Column { name, kind, .. } = &self.columns[*at];
            format!("{} {}", quoted(name), kind.map(Kind::sql).unwrap_or_default())
        };
        if !self.exists && !records.is_empty() {
            let mut parts: Vec<String> = new.iter().map(definition).collect();
            let tags = new.iter().filter(|at| self.columns[**at].kind == Some(Kind::Tag));
            let mut key: Vec<String> = tags.map(|at| quoted(&self.columns[*at].name)).collect();
            key.push(TIME.into());
            parts.push("time TIMESTAMP".into());
            parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
            client.sql(&format!("CREATE TABLE IF NOT EXISTS {table} ({})", parts.join(", ")))?;
            self.exists = true;
        } else if self.exists {
            // A tag comes with the first row that has it: SQL adds fields only.
            let fields = new.iter().filter(|at| self.columns[**at].kind != Some(Kind::Tag));
            let added: Vec<String> = fields.map(|at| format!("ADD COLUMN IF NOT EXISTS {}", definition(at))).collect();
            if !added.is_empty() {
                client.sql(&format!("ALTER TABLE {table} {}", added.join(", ")))?;
            }
        } else {
            return Ok(());
        }
        for at in new {
            self.columns[at].is_declared = true;
        }
        Ok(())
    }
}

/// A table's columns; `None` if there is no such table.
///
/// # Errors
/// What the server says, or that it went away.
pub(crate) fn describe(client: &Client, table: &TableName) -> Result<Option<Value>, Failure> {
    let path = format!("/api/v1/table?db={}&table={}", super::percent(&table.schema), super::percent(&table.table));
    let answer = client.get(&path).map_err(|e| Failure::work(format!("the server went away: {e}")))?;
    match answer.status {
        200 => Ok(Some(answer.json())),
        404 => Ok(None),
        _ => Err(Failure::work(answer.error())),
    }
}

/// What the values of a column have in common.
#[derive(Clone, Debug, Default)]
struct Guess {
    first: Option<Kind>,
    are_words: bool,
    truths: bool,
    numbers: bool,
    negative: bool,
    /// Beyond 64 bits with sign.
    large: bool,
    floats: bool,
    texts: bool,
}

impl Guess {
    fn add(&mut self, cell: &Cell) {
        let kind = match cell {
            Cell::Word { text, .. } if text.is_empty() => return,
            Cell::Word { text, .. } => {
                self.are_words = true;
                let kind = kind_of_word(text);
                self.negative |= kind == Kind::I64 && text.trim_start().starts_with('-');
                kind
            }
            Cell::Text(_) | Cell::Time(_) => Kind::Text,
            Cell::I64(number) => {
                self.negative |= *number < 0;
                Kind::I64
            }
            Cell::U64(_) => Kind::U64,
            Cell::F64(_) => Kind::F64,
            Cell::Bool(_) => Kind::Bool,
            Cell::Decimal { scale, .. } => Kind::Decimal { digits: model::decimal::DIGITS_MAX, scale: *scale },
        };
        self.first.get_or_insert(kind);
        match kind {
            Kind::Text => self.texts = true,
            Kind::Bool => self.truths = true,
            Kind::U64 => (self.numbers, self.large) = (true, true),
            Kind::F64 => (self.numbers, self.floats) = (true, true),
            _ => self.numbers = true,
        }
    }

    fn kind(&self) -> Option<Kind> {
        let first = self.first?;
        let mixed = self.texts || (self.truths && self.numbers);
        Some(match first {
            _ if self.are_words && mixed => Kind::Text,
            // Values that have a type of their own are judged by the first of them.
            Kind::Text | Kind::Bool | Kind::Decimal { .. } => first,
            _ if self.floats || (self.large && self.negative) => Kind::F64,
            _ if self.large => Kind::U64,
            _ => Kind::I64,
        })
    }
}

/// What a word looks like. Numbers with leading zeros are names of things: `007`.
fn kind_of_word(text: &str) -> Kind {
    let text = text.trim();
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let is_padded = unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit();
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        Kind::Bool
    } else if is_padded || text.starts_with('+') {
        Kind::Text
    } else if text.parse::<i64>().is_ok() {
        Kind::I64
    } else if text.parse::<u64>().is_ok() {
        Kind::U64
    } else if text.parse::<f64>().is_ok() {
        Kind::F64
    } else {
        Kind::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(words: &[&str]) -> Option<Kind> {
        let mut guess = Guess::default();
        words.iter().for_each(|word| guess.add(&Cell::Word { text: (*word).into(), is_quoted: false }));
        guess.kind()
    }

    #[test]
    fn the_type_of_a_new_column_is_that_of_all_its_words() {
        for (words, kind) in [
            (&["1", "", "-2"][..], Some(Kind::I64)),
            (&["1", "18446744073709551615"], Some(Kind::U64)),
            (&["-1", "18446744073709551615"], Some(Kind::F64)),
            (&["1", "2.5"], Some(Kind::F64)),
            (&["1e3", "NaN"], Some(Kind::F64)),
            (&["true", "False"], Some(Kind::Bool)),
            (&["true", "1"], Some(Kind::Text)),
            (&["1", "x"], Some(Kind::Text)),
            (&["007"], Some(Kind::Text)),
            (&["0.5", "0"], Some(Kind::F64)),
            (&["", ""], None),
        ] {
            assert_eq!(guess(words), kind, "{words:?}");
        }
    }

    #[test]
    fn values_with_types_are_judged_by_the_first() {
        let kind = |cells: &[Cell]| {
            let mut guess = Guess::default();
            cells.iter().for_each(|cell| guess.add(cell));
            guess.kind()
        };
        assert_eq!(kind(&[Cell::I64(1), Cell::F64(2.5), Cell::Text("x".into())]), Some(Kind::F64));
        assert_eq!(kind(&[Cell::Text("x".into()), Cell::I64(1)]), Some(Kind::Text));
        assert_eq!(kind(&[Cell::Bool(true), Cell::I64(1)]), Some(Kind::Bool));
    }

    #[test]
    fn no_path_is_both_a_value_and_an_object() {
        let mut layout = Layout::new(TableName::new("public", "t"), "ts", &["site".to_owned()]);
        for name in ["motor.current.l1", "site", "ts"] {
            layout.check(name, Naming::Path).unwrap();
            layout.column(name, None);
        }
        assert_eq!(layout.columns[1].kind, Some(Kind::Tag));
        assert_eq!(layout.columns[2].kind, Some(Kind::Time));
        assert!(layout.check("motor.current", Naming::Path).unwrap_err().contains("is an object"));
        assert!(layout.check("site.a", Naming::Path).unwrap_err().contains("is a column with values"));
        assert!(layout.check("motor.currents", Naming::Path).is_ok());
        assert!(layout.check("motor.current", Naming::Plain).is_ok());
        assert!(layout.check("time", Naming::Plain).unwrap_err().contains("is not the time"));
        assert_eq!(layout.column("Motor.Current.L1", None), 0);
        assert_eq!(layout.missing_tags(&["a".into()]), ["site"]);
    }
}
