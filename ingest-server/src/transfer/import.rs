//! `eden import`: files to a running server.
//!
//! Owns:     the order of read, convert, send and note; what is told about refused rows; how an import ends.
//! Does not: know formats (the readers do), or decide what a table takes (the server does).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use decode::line_text::{write_measurement, write_name};
use model::{Clock as _, SystemClock, TableName};

use super::columns::{Kind, Layout};
use super::csv_rows::{CsvRows, Header};
use super::import_lines;
use super::json_rows::JsonRows;
use super::parquet_rows::ParquetRows;
use super::record::{Cell, Record, tag_value, write_field};
use super::resume::{Done, Resume};
use super::send::{Lines, Refused, Sender};
use super::source::Source;
use super::{Format, interrupt};
use crate::client::Client;
use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::stop_flag::StopFlag;
use decode::time::TimeFormat;

/// Refused rows that are shown.
const SHOWN_MAX: u64 = 10;
/// About as many bytes of values make a batch, however few rows they are.
const BATCH_BYTES: usize = 8 << 20;

/// What to import, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files and folders; `-` is standard input.
    pub paths: Vec<PathBuf>,
    /// The table; line protocol names its own.
    pub table: Option<TableName>,
    /// The schema of tables that line protocol names.
    pub schema: String,
    /// The format; `None`: by the names of the files.
    pub format: Option<Format>,
    /// Columns that are tags; `None`: those of the table.
    pub tags: Option<Vec<String>>,
    /// The column that is the time; `None`: `time`.
    pub time: Option<String>,
    /// How it is written.
    pub time_format: TimeFormat,
    /// Rows of a request.
    pub batch_rows: usize,
    /// Whether the first refused row ends it.
    pub is_strict: bool,
    /// Between the fields of CSV.
    pub delimiter: u8,
    /// Names of the columns of CSV.
    pub columns: Option<Vec<String>>,
    /// Whether CSV has a header line.
    pub has_header: bool,
    /// Where to note how far it is.
    pub resume_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            paths: Vec::new(),
            table: None,
            schema: model::name::PUBLIC.into(),
            format: None,
            tags: None,
            time: None,
            time_format: TimeFormat::Auto,
            batch_rows: 10_000,
            is_strict: false,
            delimiter: b',',
            columns: None,
            has_header: true,
            resume_file: None,
        }
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that are durable.
    pub stored: u64,
    /// Rows that are not stored.
    pub refused: u64,
    /// Files.
    pub files: usize,
}

/// What a reader finds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Row(Record),
    /// A row that is none.
    Refused {
        place: u64,
        reason: String,
    },
}

/// Imports.
///
/// # Errors
/// If something could not be read or stored: says how far it came, and how to go on.
pub fn run(options: &Options, client: &Client) -> Result<Outcome, Failure> {
    let sources = Source::list(&options.paths, options.format)?;
    let lines = sources.iter().any(|source| source.format == Format::Lp);
    let rows = sources.iter().any(|source| source.format != Format::Lp);
    if lines && options.table.is_some() {
        return Err(Failure::usage(
            "line protocol names its tables: leave --table away, and give the schema with --db",
        ));
    }
    if lines && options.time_format == TimeFormat::Rfc3339 {
        return Err(Failure::usage("the times of line protocol are numbers: --time-format s, ms, us, ns or auto"));
    }
    let table = match (&options.table, rows) {
        (None, true) => return Err(Failure::usage("say with --table which table the rows are for")),
        (table, _) => table.clone(),
    };
    let what = format!(
        "{} to {}, time {} {}, header {} {:?}, delimiter {}",
        options.format.map_or("files", Format::word),
        table.as_ref().map_or(options.schema.clone(), ToString::to_string),
        options.time.as_deref().unwrap_or("time"),
        options.time_format.word(),
        options.has_header,
        options.columns,
        char::from(options.delimiter),
    );
    let resume = Resume::open(options.resume_file.as_deref(), what, &sources)?;
    let mut layout = match &table {
        Some(table) => Some(Layout::of_table(client, table, options.time.as_deref(), options.tags.as_deref())?),
        None => None,
    };
    interrupt::during(|stop| {
        let mut import = Import {
            options,
            client,
            stop,
            resume,
            progress: Progress::new(),
            clock: SystemClock::new(),
            total_bytes: sources.iter().map(|source| source.len_bytes).sum(),
            done_bytes: Arc::default(),
            outcome: Outcome { files: sources.len(), ..Outcome::default() },
            shown: 0,
        };
        for source in &sources {
            import.file(source, layout.as_mut())?;
        }
        import.resume.finish();
        import.progress.clear();
        Ok(import.outcome)
    })
}

pub(crate) struct Import<'a> {
    pub(crate) options: &'a Options,
    pub(crate) client: &'a Client,
    stop: &'a StopFlag,
    resume: Resume,
    progress: Progress,
    clock: SystemClock,
    total_bytes: u64,
    pub(crate) done_bytes: Arc<AtomicU64>,
    outcome: Outcome,
    shown: u64,
}

impl Import<'_> {
    fn file(&mut self, source: &Source, layout: Option<&mut Layout>) -> Result<(), Failure> {
        let mut done = self.resume.done(source)?;
        self.outcome.refused += done.refused;
        if done.is_whole {
            self.done_bytes.fetch_add(source.len_bytes, Ordering::Relaxed);
            return Ok(());
        }
        // What the file is known by is noted before it is read.
        self.resume.note(source, done)?;
        let result = match layout {
            Some(layout) if source.format != Format::Lp => self.rows(source, layout, &mut done),
            _ => import_lines::run(self, source, &mut done),
        };
        if let Err(failure) = result {
            self.progress.clear();
            return Err(self.stopped(source, done, &failure));
        }
        done.is_whole = true;
        self.resume.note(source, done)
    }

    /// Says how far it came.
    fn stopped(&self, source: &Source, done: Done, failure: &Failure) -> Failure {
        if matches!(failure, Failure::Usage(_)) || (done.rows == 0 && self.outcome.stored == 0) {
            return failure.clone();
        }
        let unit = if source.format == Format::Lp { "lines" } else { "rows" };
        let how = match (self.resume.path(), source.is_stdin()) {
            (Some(_), _) => "the same command goes on from there",
            (None, false) => "the same command again is right: what is stored is not stored twice",
            (None, true) => "sending all of it again is right: what is stored is not stored twice",
        };
        Failure::work(format!(
            "{failure}; of {} the first {} {unit} are done, {} rows are stored in all; {how}",
            source.name(),
            done.rows,
            self.outcome.stored
        ))
    }

    fn rows(&mut self, source: &Source, layout: &mut Layout, done: &mut Done) -> Result<(), Failure> {
        let mut reader = Reader::open(source, self, layout)?;
        for _ in 0..done.rows {
            if reader.next(layout)?.is_none() {
                break;
            }
        }
        let mut sender = Sender::new(self.client, &layout.table.schema, "us");
        loop {
            let (mut records, mut refused) = (Vec::new(), Vec::new());
            let (mut bytes, mut read, mut is_end) = (0, 0, false);
            let is_over = |refused: &[Refused]| self.options.is_strict && !refused.is_empty();
            while records.len() < self.options.batch_rows && bytes < BATCH_BYTES && !is_over(&refused) {
                match reader.next(layout)? {
                    None => {
                        is_end = true;
                        break;
                    }
                    Some(Item::Row(record)) => {
                        bytes += record.cells.iter().map(|(_, cell)| size_of_cell(cell)).sum::<usize>();
                        records.push(record);
                    }
                    Some(Item::Refused { place, reason }) => refused.push(Refused { place, reason }),
                }
                read += 1;
            }
            layout.settle(&records, self.client)?;
            let mut lines = Lines::default();
            for record in &records {
                lines.begin(record.place);
                if let Err(reason) = write_line(layout, record, &mut lines.bytes) {
                    lines.undo();
                    refused.push(Refused { place: record.place, reason });
                    if self.options.is_strict {
                        break;
                    }
                }
            }
            let (total, named) = sender.send(&lines)?;
            self.outcome.stored += lines.len() as u64 - total.min(lines.len() as u64);
            let unnamed = total - named.len() as u64;
            refused.extend(named);
            refused.sort_by_key(|refused| refused.place);
            let count = refused.len() as u64 + unnamed;
            for Refused { place, reason } in refused {
                self.refuse(source, place, &reason)?;
            }
            self.outcome.refused += unnamed;
            done.rows += read;
            done.refused += count;
            reader.count(read, source, &self.done_bytes);
            self.step(source, *done)?;
            if is_end {
                return Ok(());
            }
        }
    }

    /// Notes a batch that is dealt with, shows it, and sees whether to go on.
    ///
    /// # Errors
    /// If the import was interrupted.
    pub(crate) fn step(&mut self, source: &Source, done: Done) -> Result<(), Failure> {
        self.resume.note(source, done)?;
        let (bytes, total) = (self.done_bytes.load(Ordering::Relaxed), self.total_bytes);
        let (rows, took) = (self.outcome.stored, self.clock.monotonic());
        self.progress.show(|| {
            let share = if total > 0 { progress::share(bytes, total) } else { progress::size(bytes) };
            format!("{share}, {rows} rows stored, {} rows/s", rate(rows, took))
        });
        if self.stop.is_raised() { Err(Failure::work("interrupted")) } else { Ok(()) }
    }

    pub(crate) fn add_stored(&mut self, rows: u64) {
        self.outcome.stored += rows;
    }

    pub(crate) fn add_refused(&mut self, rows: u64) {
        self.outcome.refused += rows;
    }

    /// Counts a refused row and shows it, if it is among the first.
    ///
    /// # Errors
    /// With `--strict`.
    pub(crate) fn refuse(&mut self, source: &Source, place: u64, reason: &str) -> Result<(), Failure> {
        self.outcome.refused += 1;
        let place = match source.format {
            Format::Parquet => format!("{}, row {place}", source.name()),
            _ => format!("{}:{place}", source.name()),
        };
        if self.options.is_strict {
            return Err(Failure::work(format!("{place}: {reason}")));
        }
        self.shown += 1;
        if self.shown <= SHOWN_MAX + 1 {
            self.progress.clear();
        }
        if self.shown <= SHOWN_MAX {
            eprintln!("{place} refused: {reason}");
        } else if self.shown == SHOWN_MAX + 1 {
            eprintln!("further refused rows are counted, not shown");
        }
        Ok(())
    }
}

fn rate(rows: u64, took: Duration) -> u64 {
    (rows as f64 / took.as_secs_f64().max(0.001)) as u64
}

fn size_of_cell(cell: &Cell) -> usize {
    size_of::<Cell>()
        + match cell {
            Cell::Word { text, .. } | Cell::Text(text) => text.len(),
            _ => 0,
        }
}

/// A file of any format that has rows.
enum Reader {
    Csv(CsvRows, String),
    Json(JsonRows, String),
    Parquet(Box<ParquetRows>),
}

impl Reader {
    fn open(source: &Source, import: &Import<'_>, layout: &mut Layout) -> Result<Reader, Failure> {
        let (options, name) = (import.options, source.name());
        let time = options.time_format;
        Ok(match source.format {
            Format::Csv => {
                let input = source.open(&import.done_bytes)?;
                let header = Header { names: options.columns.clone(), is_present: options.has_header };
                let rows = CsvRows::open(input, &name, options.delimiter, &header, time, layout)?;
                Reader::Csv(rows, name)
            }
            Format::Jsonl => Reader::Json(JsonRows::open(source.open(&import.done_bytes)?, time), name),
            Format::Parquet if source.is_stdin() => {
                return Err(Failure::usage("Parquet is read from its end: give it as a file, not by standard input"));
            }
            Format::Parquet => Reader::Parquet(Box::new(match source.object()? {
                Some(object) => ParquetRows::open(object, &name, time, layout)?,
                None => ParquetRows::open(source.open_file()?, &name, time, layout)?,
            })),
            Format::Lp => unreachable!("line protocol is sent as it is"),
        })
    }

    fn next(&mut self, layout: &mut Layout) -> Result<Option<Item>, Failure> {
        let cannot = |name: &str, e: io::Error| Failure::work(format!("read {name}: {e}"));
        match self {
            Reader::Csv(rows, name) => rows.next(layout).map_err(|e| cannot(name, e)),
            Reader::Json(rows, name) => rows.next(layout).map_err(|e| cannot(name, e)),
            Reader::Parquet(rows) => rows.next(layout),
        }
    }

    /// Of Parquet, nobody counts the bytes that are read: so many of its rows stand for as many of its bytes.
    fn count(&self, read: u64, source: &Source, done: &AtomicU64) {
        if let Reader::Parquet(rows) = self {
            let bytes = u128::from(source.len_bytes) * u128::from(read) / u128::from(rows.rows.max(1));
            done.fetch_add(u64::try_from(bytes).unwrap_or_default(), Ordering::Relaxed);
        }
    }
}

/// Appends a row as a line, times in microseconds.
fn write_line(layout: &Layout, record: &Record, out: &mut Vec<u8>) -> Result<(), String> {
    write_measurement(&layout.table.table, out);
    let named = |at: &usize| &layout.columns[*at];
    let mut time = None;
    for (at, cell) in &record.cells {
        match (named(at).kind, cell) {
            (Some(Kind::Time), Cell::Time(us)) => time = Some(*us),
            (Some(Kind::Tag), cell) => {
                let value = tag_value(cell).map_err(|reason| format!("{}: {reason}", named(at).name))?;
                if let Some(value) = value {
                    out.push(b',');
                    write_name(&named(at).name, out);
                    out.push(b'=');
                    write_name(&value, out);
                }
            }
            _ => {}
        }
    }
    let time = time.ok_or_else(|| format!("there is no time in {:?}", layout.time_name()))?;
    let mut separator = b' ';
    for (at, cell) in &record.cells {
        let kind = match named(at).kind {
            Some(Kind::Tag | Kind::Time | Kind::LeftOut) | None => continue,
            Some(kind) => kind,
        };
        let start = out.len();
        out.push(separator);
        write_name(&named(at).name, out);
        out.push(b'=');
        if write_field(kind, cell, out).map_err(|reason| format!("{}: {reason}", named(at).name))? {
            separator = b',';
        } else {
            out.truncate(start);
        }
    }
    if separator == b' ' {
        return Err("none of its fields has a value".into());
    }
    out.extend_from_slice(format!(" {time}\n").as_bytes());
    Ok(())
}
