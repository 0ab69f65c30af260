//! Rows of a CSV file.
//!
//! Owns:     the header line, and which lines make a record.
//! Does not: take records apart (`decode`).

use std::collections::VecDeque;
use std::io::{self, BufRead};

use decode::csv::{self, RecordState};

use super::columns::{Kind, Layout, Naming};
use super::import::Item;
use super::record::{Cell, Record};
use crate::failure::Failure;
use decode::time::TimeFormat;

/// Lines of one record: a quote that nobody closes must not swallow the file.
const RECORD_LINES_MAX: usize = 1_000;
/// Bytes of one line.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Where the names of the columns come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Names that were given instead of those in the file.
    pub(crate) names: Option<Vec<String>>,
    /// Whether the first line is a header.
    pub(crate) is_present: bool,
}

/// Numbered lines, of which some may be put back.
pub(crate) struct Lines {
    input: Box<dyn BufRead>,
    read: u64,
    back: VecDeque<(u64, Vec<u8>)>,
}

impl Lines {
    pub(crate) fn new(input: Box<dyn BufRead>) -> Lines {
        Lines { input, read: 0, back: VecDeque::new() }
    }

    /// The next line with its break, and its number from 1.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        if let Some(line) = self.back.pop_front() {
            return Ok(Some(line));
        }
        let mut line = Vec::new();
        let mut input = io::Read::take(&mut self.input, LINE_BYTES_MAX);
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.read += 1;
        if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            let message = format!("line {} has more than {LINE_BYTES_MAX} bytes", self.read);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if self.read == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(Some((self.read, line)))
    }
}

pub(crate) struct CsvRows {
    lines: Lines,
    delimiter: u8,
    time: TimeFormat,
    /// Per field of a record: its column.
    columns: Vec<usize>,
}

/// Lines that belong together.
enum Raw {
    Whole(u64, Vec<u8>),
    /// It begins here and does not end.
    Open(u64),
}

impl CsvRows {
    /// Reads the header.
    ///
    /// # Errors
    /// If there is none, or it does not fit the table.
    pub(crate) fn open(
        input: Box<dyn BufRead>,
        name: &str,
        delimiter: u8,
        header: &Header,
        time: TimeFormat,
        layout: &mut Layout,
    ) -> Result<CsvRows, Failure> {
        let mut rows = CsvRows { lines: Lines::new(input), delimiter, time, columns: Vec::new() };
        let cannot = |e| Failure::work(format!("{name}: {e}"));
        let mut names = None;
        if header.is_present {
            let Some(Raw::Whole(_, first)) = rows.raw().map_err(cannot)? else { return Ok(rows) };
            let first = String::from_utf8(first).map_err(|_| cannot(invalid("the header line is not UTF-8")))?;
            let fields =
                csv::fields(&first, delimiter).map_err(|e| cannot(invalid(&format!("the header line: {e}"))))?;
            names = Some(fields.into_iter().map(|field| field.text.trim().to_owned()).collect::<Vec<_>>());
        }
        let names = header.names.clone().or(names).unwrap_or_default();
        rows.columns = columns_of(&names, layout).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
        Ok(rows)
    }

    /// The next row.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn next(&mut self, layout: &Layout) -> io::Result<Option<Item>> {
        loop {
            let (place, bytes) = match self.raw()? {
                None => return Ok(None),
                Some(Raw::Open(place)) => {
                    let reason = "a quote that a field begins with is not closed".to_owned();
                    return Ok(Some(Item::Refused { place, reason }));
                }
                Some(Raw::Whole(place, bytes)) => (place, bytes),
            };
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(match self.record(place, &bytes, layout) {
                    Ok(record) => Item::Row(record),
                    Err(reason) => Item::Refused { place, reason },
                }));
            }
        }
    }

    fn raw(&mut self) -> io::Result<Option<Raw>> {
        let Some((place, mut bytes)) = self.lines.next()? else { return Ok(None) };
        let mut state = RecordState::default();
        if state.read_line(&bytes, self.delimiter) {
            return Ok(Some(Raw::Whole(place, bytes)));
        }
        let mut more = Vec::new();
        while more.len() < RECORD_LINES_MAX {
            let Some(line) = self.lines.next()? else { break };
            let is_whole = state.read_line(&line.1, self.delimiter);
            more.push(line);
            if is_whole {
                more.iter().for_each(|(_, line)| bytes.extend_from_slice(line));
                return Ok(Some(Raw::Whole(place, bytes)));
            }
        }
        // Only the line that opened the quote is bad; those behind it are rows of their own.
        more.into_iter().rev().for_each(|line| self.lines.back.push_front(line));
        Ok(Some(Raw::Open(place)))
    }

    fn record(&self, place: u64, bytes: &[u8], layout: &Layout) -> Result<Record, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
        let fields = csv::fields(text, self.delimiter)?;
        if fields.len() != self.columns.len() {
            return Err(format!("{} fields, where there are {} columns", fields.len(), self.columns.len()));
        }
        let mut record = Record { place, cells: Vec::with_capacity(fields.len()) };
        for (field, column) in fields.into_iter().zip(&self.columns) {
            let kind = layout.columns[*column].kind;
            if (field.text.is_empty() && !field.is_quoted) || kind == Some(Kind::LeftOut) {
                continue;
            }
            let cell = match kind {
                Some(Kind::Time) if field.text.is_empty() => continue,
                Some(Kind::Time) => Cell::Time(self.time.text(&field.text)?),
                _ => Cell::Word { text: field.text.into_owned(), is_quoted: field.is_quoted },
            };
            record.cells.push((*column, cell));
        }
        Ok(record)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The columns of a header, of which one is the time.
///
/// # Errors
/// Says which name is wrong, twice there or missing.
pub(crate) fn columns_of(names: &[String], layout: &mut Layout) -> Result<Vec<usize>, String> {
    check_names(names, layout)?;
    for (i, name) in names.iter().enumerate() {
        if let Some(other) = names[..i].iter().find(|other| other.to_lowercase() == name.to_lowercase()) {
            return Err(format!("the columns {other:?} and {name:?} would be one: names do not differ by case only"));
        }
        layout.check(name, Naming::Plain)?;
    }
    Ok(names.iter().map(|name| layout.column(name, None)).collect())
}

/// Whether the time and the tags that were asked for are among the columns of a file.
///
/// # Errors
/// Says which is missing.
pub(crate) fn check_names(names: &[String], layout: &Layout) -> Result<(), String> {
    if !names.iter().any(|name| layout.is_time(name)) {
        return Err(format!(
            "there is no column {:?}, and without their times rows would be doubled by each attempt; say with --time which \
             column it is (there are: {})",
            layout.time_name(),
            names.join(", ")
        ));
    }
    match layout.missing_tags(names).as_slice() {
        [] => Ok(()),
        missing => Err(format!("--tags: there is no column {} (there are: {})", missing.join(", "), names.join(", "))),
    }
}
