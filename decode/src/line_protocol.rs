//! InfluxDB line protocol: `measurement,tag=value field=1.0,other=2i 1780272000000000000`.
//!
//! Owns:     the grammar, the units of times, and which line of a body is refused and why.
//! Does not: compare with a table's schema, limit how far a time may be off, or know who sent the body.
//!
//! The grammar, and where it differs from other parsers: `docs/formats/line-protocol.md`.
//!
//! Invariants
//!  1. A line is taken whole or refused whole; a refused line leaves no row, series, column or table behind.
//!  2. Where a line ends depends on the line alone, so a bad line never changes what its neighbours mean.
//!  3. What is allocated is at most a fixed multiple of the body (P14): see [`TABLES_MAX`], [`NAMES_MAX`] and
//!     the padding of `tables`.

mod alike;
mod number;
mod scan;
mod tables;

use std::fmt;
use std::str::FromStr;

use model::name::{check_column_name, check_name};
use model::record::AgentGap;
use model::{TableBatch, Value};

pub(crate) use scan::quote;

use scan::Fail;
use tables::{Column, Seen, SeriesRef, Tables};

/// Most tables that one body may name. A table costs about 1.5 KiB here but only 8 bytes in a body; no writer
/// known to us sends more than a few hundred.
pub const TABLES_MAX: usize = 10_000;

/// Most names of tags and fields, counted once a table, that one body may bring; each costs up to 0.5 KiB here.
pub const NAMES_MAX: usize = 100_000;

/// Longest [`LineError::original`], in bytes.
pub const ORIGINAL_BYTES_MAX: usize = 1024;

/// Most lines `# eden gap …` that are read in one body; an agent reports a gap once.
pub const GAPS_MAX: usize = 1000;

/// What the first line of an agent's batch begins with.
const AGENT_HEADER_START: &str = "# eden agent=";

/// What the lines behind it begin with that report gaps.
const GAP_START: &str = "# eden gap";

/// The unit of the times in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Each line by the magnitude of its time: below 5·10⁹ seconds, 5·10¹² milliseconds, 5·10¹⁵ microseconds, from
    /// there nanoseconds.
    #[default]
    Auto,
    /// 10⁻⁹ s; floored to whole microseconds, before 1970 too.
    Nanosecond,
    /// 10⁻⁶ s.
    Microsecond,
    /// 10⁻³ s.
    Millisecond,
    /// One second.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
}

impl Precision {
    /// `time` in microseconds; `None` if that is no i64.
    #[inline]
    pub fn to_us(self, time: i64) -> Option<i64> {
        match self {
            Precision::Auto => model::us_by_magnitude(time),
            Precision::Nanosecond => Some(time.div_euclid(1_000)),
            Precision::Microsecond => Some(time),
            Precision::Millisecond => time.checked_mul(1_000),
            Precision::Second => time.checked_mul(1_000_000),
            Precision::Minute => time.checked_mul(60_000_000),
            Precision::Hour => time.checked_mul(3_600_000_000),
        }
    }
}

/// The word that version 3 endpoints use.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Auto => "auto",
            Precision::Nanosecond => "nanosecond",
            Precision::Microsecond => "microsecond",
            Precision::Millisecond => "millisecond",
            Precision::Second => "second",
            Precision::Minute => "minute",
            Precision::Hour => "hour",
        })
    }
}

/// Takes the words of all versions of the write endpoint: `auto`, `nanosecond` …, and `ns`, `n`, `us`, `u`, `µ`,
/// `ms`, `s`, `m`, `h`.
impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(match word {
            "auto" => Precision::Auto,
            "nanosecond" | "ns" | "n" => Precision::Nanosecond,
            // Both letters that look like it: MICRO SIGN and GREEK SMALL LETTER MU.
            "microsecond" | "us" | "u" | "\u{b5}" | "\u{b5}s" | "\u{3bc}" | "\u{3bc}s" => Precision::Microsecond,
            "millisecond" | "ms" => Precision::Millisecond,
            "second" | "s" => Precision::Second,
            "minute" | "m" => Precision::Minute,
            "hour" | "h" => Precision::Hour,
            _ => return Err(PrecisionError { word: word.chars().take(40).collect() }),
        })
    }
}

/// A word that is no [`Precision`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrecisionError {
    word: String,
}

impl fmt::Display for PrecisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a precision; use auto, ns, us, ms, s, m or h", self.word)
    }
}

impl std::error::Error for PrecisionError {}

/// What an agent says about its batch in the first line:
/// `# eden agent=<id> epoch=<n> seq=<n> precision=us`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentHeader {
    /// The agent's id; obeys [`check_name`].
    pub agent: String,
    /// The life of the agent's outbox.
    pub epoch: u64,
    /// The batch's number in that life, from 1.
    pub seq: u64,
    /// The unit of all times in this body; wins over [`Options::precision`].
    pub precision: Precision,
    /// What the agent reports as lost, in lines right behind the header:
    /// `# eden gap first_seq=11 last_seq=19 readings=540 reason=outbox_full time=…`.
    pub gaps: Vec<AgentGap>,
}

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line's number, from 1, counting every line break: where an editor shows its beginning.
    pub line: u32,
    /// The line, cut to [`ORIGINAL_BYTES_MAX`] at a character; bytes that are not UTF-8 became U+FFFD.
    pub original: String,
    /// What is wrong, at which byte of the line (from 1), and what would be right.
    pub message: String,
}

/// What a body held.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The readings: one batch a table, in order of first appearance. Only a body whose lines name hundreds of
    /// fields, few at a time, has a table's readings in several batches, which keep the order of its lines.
    pub batches: Vec<TableBatch>,
    /// The first [`Options::errors_max`] refused lines, in order.
    pub errors: Vec<LineError>,
    /// All refused lines.
    pub errors_total: u64,
    /// Lines that are neither blank nor comments, refused ones included.
    pub lines: u64,
    /// The agent's header, if the body began with one.
    pub agent: Option<AgentHeader>,
}

/// How to read a body.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The schema of all tables; must satisfy [`check_name`].
    pub schema: &'a str,
    /// The unit of times.
    pub precision: Precision,
    /// The time of lines that have none, microseconds since 1970-01-01 UTC.
    pub now_us: i64,
    /// Most errors to keep; the others are counted.
    pub errors_max: usize,
}

/// The lines of `body` that begin at `numbers` (as [`LineError::line`] counts, ascending), as they came and without
/// their last line break. A text of several lines is one line.
pub fn lines_at(body: &[u8], numbers: impl IntoIterator<Item = u32>) -> Vec<&[u8]> {
    let (mut start, mut number) = (0, 1);
    let mut line = |wanted: u32| {
        while number < wanted && start < body.len() {
            start = scan::newline(body, start) + 1;
            number += 1;
        }
        let start = start.min(body.len());
        &body[start..scan::line_end(body, start).min(body.len())]
    };
    numbers.into_iter().map(&mut line).collect()
}

/// Decodes `body`. Bad lines are reported, the others kept.
pub fn parse(body: &[u8], options: &Options<'_>) -> Decoded {
    // Editors on Windows begin a file with a byte order mark.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut parser = Parser::new(body, options);
    parser.read_header(body);
    match std::str::from_utf8(body) {
        Ok(text) => parser.read_text(text),
        Err(_) => parser.read_bytes(body),
    }
    parser.decoded.batches = parser.tables.finish();
    parser.decoded
}

/// A field's value until its line is known to be good.
#[derive(Clone, Copy)]
enum Parsed<'a> {
    /// As it stands in the body.
    Plain(Value<'a>),
    /// A text that had escapes: a range of [`Parser::unescaped`].
    Unescaped { start: usize, end: usize },
}

impl<'a> Parsed<'a> {
    /// The value, if escaped then in `unescaped`.
    #[inline]
    fn in_text<'v>(&self, unescaped: &'v str) -> Value<'v>
    where
        'a: 'v,
    {
        match self {
            Parsed::Plain(value) => *value,
            Parsed::Unescaped { start, end } => Value::Text(&unescaped[*start..*end]),
        }
    }
}

struct Parser<'a> {
    precision: Precision,
    now_us: i64,
    errors_max: usize,
    tables: Tables<'a>,
    decoded: Decoded,
    /// The number of the line being read.
    line: u32,
    /// The fields of the line being read: names (of its table), columns and values.
    fields: Vec<(u32, Column, Parsed<'a>)>,
    /// All names of the line being read stand where the lines before had them.
    names_are_expected: bool,
    /// Texts of the line being read that had escapes.
    unescaped: String,
}

impl<'a> Parser<'a> {
    fn new(body: &[u8], options: &Options<'_>) -> Self {
        Parser {
            precision: options.precision,
            now_us: options.now_us,
            errors_max: options.errors_max,
            tables: Tables::new(options.schema, body.len(), scan::newline(body, 0) + 1),
            decoded: Decoded::default(),
            line: 1,
            fields: Vec::new(),
            names_are_expected: false,
            unescaped: String::new(),
        }
    }

    fn read_header(&mut self, body: &[u8]) {
        if !body.starts_with(AGENT_HEADER_START.as_bytes()) {
            return;
        }
        let line = &body[..memchr::memchr(b'\n', body).unwrap_or(body.len())];
        match std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()).and_then(agent_header) {
            Ok(mut header) => {
                self.precision = header.precision;
                self.read_gaps(&body[(line.len() + 1).min(body.len())..], &mut header.gaps);
                self.decoded.agent = Some(header);
            }
            Err(what) => {
                let right = "right is `# eden agent=<id> epoch=<n> seq=<n> precision=us`";
                self.refuse(line, Fail { at: 0, message: format!("the agent's header is malformed: {what}; {right}") });
            }
        }
    }

    /// Reads the lines `# eden gap …` that `body`, all behind the header, begins with. What reads the body afterwards
    /// takes them for comments.
    fn read_gaps(&mut self, body: &[u8], gaps: &mut Vec<AgentGap>) {
        let of_header = self.line;
        for line in body.split(|byte| *byte == b'\n') {
            let Some(words) = line.strip_prefix(GAP_START.as_bytes()) else { break };
            if !words.first().is_none_or(|byte| matches!(byte, b' ' | b'\r')) {
                break;
            }
            self.line = self.line.saturating_add(1);
            let read = std::str::from_utf8(words).map_err(|_| "it is not UTF-8".to_owned()).and_then(gap);
            let read = match read {
                Ok(_) if gaps.len() == GAPS_MAX => Err(format!("it is one too many; at most {GAPS_MAX} are read")),
                read => read,
            };
            match read {
                Ok(gap) => gaps.push(gap),
                Err(what) => {
                    let right = "right is `# eden gap first_seq=<n> last_seq=<n> readings=<n> reason=<word> \
                                 time=<microseconds>`, readings left out when unknown";
                    self.refuse(line, Fail { at: 0, message: format!("the gap is malformed: {what}; {right}") });
                }
            }
        }
        self.line = of_header;
    }

    /// Reads a body that is UTF-8 as a whole, the usual case.
    fn read_text(&mut self, text: &'a str) {
        let bytes = text.as_bytes();
        let mut start = 0;
        while start < bytes.len() {
            let first = scan::skip_blanks(bytes, start);
            let end = if scan::is_line_end(bytes, first) || bytes[first] == b'#' {
                scan::newline(bytes, first)
            } else {
                self.decoded.lines += 1;
                match self.read_line(text, first) {
                    Ok(end) => end,
                    Err(fail) => {
                        let end = scan::line_end(bytes, start);
                        debug_assert!(first <= fail.at && fail.at <= end, "an error outside of its line");
                        let at = fail.at - start;
                        self.refuse(&bytes[start..end], Fail { at, ..fail });
                        self.count_breaks(&bytes[start..end]);
                        end
                    }
                }
            };
            self.line = self.line.saturating_add(1);
            start = end + 1;
        }
    }

    /// Reads a body that has lines which are not UTF-8: line by line.
    fn read_bytes(&mut self, body: &'a [u8]) {
        let mut start = 0;
        while start < body.len() {
            let end = scan::line_end(body, start);
            let line = &body[start..end];
            let first = scan::skip_blanks(line, 0);
            // A comment in any encoding is a comment.
            if !(scan::is_line_end(line, first) || line[first] == b'#') {
                self.decoded.lines += 1;
                let read = match std::str::from_utf8(line) {
                    Ok(text) => self.read_line(text, first).map(|_| ()),
                    Err(error) => Err(Fail {
                        at: error.valid_up_to(),
                        message: "the line is not UTF-8; send text in that encoding".to_owned(),
                    }),
                };
                if let Err(fail) = read {
                    self.refuse(line, fail);
                    self.count_breaks(line);
                }
            }
            self.line = self.line.saturating_add(1);
            start = end + 1;
        }
    }

    /// Reads the line whose first character is at `start`; returns where it ends: at its line break, or at the end of
    /// `text`.
    fn read_line(&mut self, text: &'a str, start: usize) -> Result<usize, Fail> {
        let in_turn = self.tables.series_in_turn(&text.as_bytes()[start..]);
        if let Some((series, len)) = in_turn
            && let Some((time_us, end)) = self.read_alike(series.table(), text, start + len)
        {
            self.tables.push_alike(series, time_us, self.line);
            return Ok(end);
        }
        self.read_other_line(text, start, in_turn)
    }

    /// Reads fields and time of a line whose series ends at `at`, if they look like those of the line before. What is
    /// wrong with a line that does look so is found again by reading it in full.
    #[inline]
    fn read_alike(&mut self, table: usize, text: &str, at: usize) -> Option<(i64, usize)> {
        let at = self.tables.read_alike(table, text, at)?;
        self.read_time(text, at).ok()
    }

    /// Reads a line that does not begin with the series `in_turn`, or looks different behind it.
    #[inline(never)]
    fn read_other_line(&mut self, text: &'a str, start: usize, in_turn: Option<(Seen, usize)>) -> Result<usize, Fail> {
        let bytes = text.as_bytes();
        let (series, series_end) = match in_turn {
            Some((series, len)) => (series.named(&text[start..start + len]), start + len),
            None => {
                let end = scan::series_end(bytes, start)?;
                (self.tables.series(&text[start..end]).map_err(|fail| fail.moved(start))?, end)
            }
        };
        let table = series.table;
        if in_turn.is_none()
            && let Some((time_us, end)) = self.read_alike(table, text, series_end)
        {
            let series = self.tables.place(series);
            self.tables.push_alike(series, time_us, self.line);
            return Ok(end);
        }

        self.fields.clear();
        self.unescaped.clear();
        self.tables.start_line();
        let mut at = scan::skip_spaces(bytes, series_end);
        let mut has_text = false;
        let mut written = 0;
        self.names_are_expected = true;
        loop {
            let (name, value_at) = self.read_key(text, at, &series, written)?;
            written += 1;
            let (value, end) = self.read_value(text, value_at)?;
            has_text |= matches!(value, Parsed::Unescaped { .. } | Parsed::Plain(Value::Text(_)));
            let field = (name, self.tables.column(table, name, &value.in_text(&self.unescaped)), value);
            match self.tables.slot(table, name, self.fields.len()) {
                Some(slot) => self.fields[slot] = field,
                None => self.fields.push(field),
            }
            match bytes.get(end) {
                Some(b',') => at = end + 1,
                _ => {
                    at = end;
                    break;
                }
            }
        }

        let (time_us, end) = self.read_time(text, at)?;
        let unescaped = &self.unescaped;
        let values = self.fields.iter().map(|(name, column, value)| (*name, *column, value.in_text(unescaped)));
        self.tables.push_row(series, time_us, self.line, values);
        if self.names_are_expected
            && self.fields.len() == written
            && self.fields.iter().all(|(.., value)| matches!(value, Parsed::Plain(Value::F64(_))))
        {
            self.tables.expect_alike(table, self.fields.iter().map(|(name, ..)| *name));
        }
        if has_text {
            self.count_breaks(&bytes[start..end]);
        }
        Ok(end)
    }

    /// Reads what is behind the fields, which end at `at`; returns the line's time, and where the line ends.
    #[inline]
    fn read_time(&self, text: &str, at: usize) -> Result<(i64, usize), Fail> {
        let bytes = text.as_bytes();
        let mut time_us = self.now_us;
        let time_at = scan::skip_spaces(bytes, at);
        let mut end = time_at;
        if !scan::is_line_end(bytes, time_at) {
            if time_at == at {
                return Err(scan::after_value(text, at));
            }
            let time;
            (time, end) = number::time(text, time_at)?;
            time_us = self.precision.to_us(time).ok_or_else(|| Fail {
                at: time_at,
                message: format!("the time {time} in the unit {} is out of range", self.precision),
            })?;
            end = scan::skip_spaces(bytes, end);
            if !scan::is_line_end(bytes, end) {
                return Err(scan::after_time(text, end));
            }
        }
        if bytes.get(end) == Some(&b'\r') {
            end += 1;
        }
        Ok((time_us, end))
    }

    /// Reads `name=` at `at`, the line's field behind `position` others; returns the name and where its value begins.
    fn read_key(
        &mut self,
        text: &'a str,
        at: usize,
        series: &SeriesRef<'a>,
        position: usize,
    ) -> Result<(u32, usize), Fail> {
        let bytes = text.as_bytes();
        let (name, len) = match self.tables.expected_name(series.table, position, &bytes[at..]) {
            Some(expected) => expected,
            None => {
                self.names_are_expected = false;
                let end = scan::key_end(text, at)?;
                let raw = &text[at..end];
                let key = scan::unescape(raw, b"\\,= ");
                if key.ends_with('\\') {
                    return Err(Fail { at, message: format!("the field name {} ends with a backslash", quote(&key)) });
                }
                check_column_name("field", &key).map_err(|error| Fail { at, message: error.to_string() })?;
                let name = self.tables.field_name(series.table, position, raw, &key).map_err(|fail| fail.moved(at))?;
                (name, raw.len())
            }
        };
        if self.tables.is_tag_of(series, name) {
            let name = self.tables.name(series.table, name);
            let message = format!("{name:?} is a tag of this line and cannot be a field too");
            return Err(Fail { at, message });
        }
        Ok((name, at + len + 1))
    }

    /// Reads the value at `at`; returns where it ends.
    #[inline]
    fn read_value(&mut self, text: &'a str, at: usize) -> Result<(Parsed<'a>, usize), Fail> {
        match text.as_bytes().get(at) {
            Some(b'0'..=b'9' | b'-') => {
                let (value, end) = number::value(text, at)?;
                Ok((Parsed::Plain(value), end))
            }
            Some(b'"') => {
                let (end, has_escapes) = scan::string_end(text, at)?;
                let raw = &text[at + 1..end];
                if !has_escapes {
                    return Ok((Parsed::Plain(Value::Text(raw)), end + 1));
                }
                let start = self.unescaped.len();
                scan::unescape_into(raw, b"\\\"", &mut self.unescaped);
                Ok((Parsed::Unescaped { start, end: self.unescaped.len() }, end + 1))
            }
            _ => {
                let (value, end) = scan::word(text, at)?;
                Ok((Parsed::Plain(Value::Bool(value)), end))
            }
        }
    }

    /// Moves the line's number past the line breaks inside `line`.
    fn count_breaks(&mut self, line: &[u8]) {
        let breaks = memchr::memchr_iter(b'\n', line).count();
        self.line = self.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
    }

    /// Reports `line`; `fail.at` counts from its first byte.
    #[cold]
    fn refuse(&mut self, line: &[u8], fail: Fail) {
        self.decoded.errors_total += 1;
        if self.decoded.errors.len() >= self.errors_max {
            return;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Cut first: a long line is not to be copied whole. A character cut in two here is cut off below, unless the
        // line is not UTF-8 anyway.
        let mut original = match std::str::from_utf8(line) {
            Ok(line) => line[..line.floor_char_boundary(ORIGINAL_BYTES_MAX)].to_owned(),
            Err(_) => String::from_utf8_lossy(&line[..line.len().min(ORIGINAL_BYTES_MAX)]).into_owned(),
        };
        original.truncate(original.floor_char_boundary(ORIGINAL_BYTES_MAX));
        let message = format!("byte {}: {}", fail.at + 1, fail.message);
        self.decoded.errors.push(LineError { line: self.line, original, message });
    }
}

/// Splits `key=value` and refuses a number that is none.
fn key_value(word: &str) -> Result<(&str, &str), String> {
    word.split_once('=').ok_or_else(|| format!("{} is not key=value", quote(word)))
}

fn number_of(word: &str, value: &str) -> Result<u64, String> {
    value.parse::<u64>().map_err(|_| format!("{} is not a number below 2^64", quote(word)))
}

/// Reads what follows [`GAP_START`]. Keys in any order; unknown keys are left to newer versions.
fn gap(words: &str) -> Result<AgentGap, String> {
    let (mut first, mut last, mut readings, mut reason, mut time) = (None, None, None, None, None);
    for word in words.trim_end_matches('\r').split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = key_value(word)?;
        let repeated = match key {
            "first_seq" => first.replace(number_of(word, value)?).is_some(),
            "last_seq" => last.replace(number_of(word, value)?).is_some(),
            "readings" => readings.replace(number_of(word, value)?).is_some(),
            "reason" => {
                check_name("reason", value).map_err(|error| error.to_string())?;
                reason.replace(value.into()).is_some()
            }
            "time" => {
                let number = value.parse::<i64>();
                time.replace(number.map_err(|_| format!("{} is no time in microseconds", quote(word)))?).is_some()
            }
            _ => false,
        };
        if repeated {
            return Err(format!("{key} stands there twice"));
        }
    }
    let (Some(first_seq), Some(last_seq), Some(reason), Some(time_us)) = (first, last, reason, time) else {
        return Err("first_seq, last_seq, reason or time is missing".to_owned());
    };
    if first_seq == 0 {
        return Err("first_seq counts from 1".to_owned());
    }
    if first_seq > last_seq {
        return Err("first_seq is greater than last_seq".to_owned());
    }
    Ok(AgentGap { first_seq, last_seq, readings, reason, time_us })
}

/// Reads the first line of an agent's batch, which begins with [`AGENT_HEADER_START`]. Keys in any order; unknown
/// keys are left to newer versions.
fn agent_header(line: &str) -> Result<AgentHeader, String> {
    let (mut agent, mut epoch, mut seq, mut precision) = (None, None, None, None);
    let words = line.trim_end_matches('\r').strip_prefix("# eden ").unwrap_or_default();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = key_value(word)?;
        let number = || number_of(word, value);
        let repeated = match key {
            "agent" if value.is_empty() => return Err("the agent's id is empty".to_owned()),
            "agent" => {
                check_name("agent", value).map_err(|error| error.to_string())?;
                agent.replace(value.to_owned()).is_some()
            }
            "epoch" => epoch.replace(number()?).is_some(),
            "seq" => seq.replace(number()?).is_some(),
            "precision" => {
                let unit = value.parse::<Precision>().map_err(|error| error.to_string())?;
                precision.replace(unit).is_some()
            }
            _ => false,
        };
        if repeated {
            return Err(format!("{key} stands there twice"));
        }
    }
    let (Some(agent), Some(epoch), Some(seq), Some(precision)) = (agent, epoch, seq, precision) else {
        return Err("agent, epoch, seq or precision is missing".to_owned());
    };
    if seq == 0 {
        return Err("seq counts from 1".to_owned());
    }
    Ok(AgentHeader { agent, epoch, seq, precision, gaps: Vec::new() })
}
