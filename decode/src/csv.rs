//! CSV, as RFC 4180 has it and as programs write it: records of fields between delimiters, quoted where they need it.
//!
//! Owns:     where a record ends, where its fields end, and what their quotes mean.
//! Does not: read files, know a header line from another, or say what a field's text means.
//!
//! Invariants
//!  1. Only a quote that a field begins with opens it, so a stray one (`5" pipe`) never swallows the lines behind it.
//!  2. An empty field in quotes is told apart from one without: `""` is an empty text, nothing is no value.

use std::borrow::Cow;

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What it says, quotes taken off.
    pub text: Cow<'a, str>,
    /// Whether it stood in quotes.
    pub is_quoted: bool,
}

/// Follows the lines of a record, to tell where it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordState {
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field, which ends it unless another follows.
    BehindQuote,
}

impl RecordState {
    /// Reads the next line, its line break included; true if the record ends with it.
    pub fn read_line(&mut self, line: &[u8], delimiter: u8) -> bool {
        for byte in line {
            self.place = match (self.place, *byte) {
                (Place::FieldStart, b'"') | (Place::BehindQuote, b'"') => Place::Quoted,
                (Place::Quoted, b'"') => Place::BehindQuote,
                (Place::Quoted, _) => Place::Quoted,
                (_, byte) if byte == delimiter => Place::FieldStart,
                _ => Place::Plain,
            };
        }
        let is_whole = self.place != Place::Quoted;
        if is_whole {
            self.place = Place::FieldStart;
        }
        is_whole
    }
}

/// The fields of a whole record, with or without its line break.
///
/// # Errors
/// Says which field is not well formed.
pub fn fields(record: &str, delimiter: u8) -> Result<Vec<Field<'_>>, String> {
    let record = record.strip_suffix('\n').map_or(record, |record| record.strip_suffix('\r').unwrap_or(record));
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let (field, end) = match record.as_bytes().get(at) {
            Some(b'"') => quoted(record, at, delimiter).map_err(|what| format!("field {}: {what}", found.len() + 1))?,
            _ => {
                let rest = &record[at..];
                let len = rest.bytes().position(|byte| byte == delimiter).unwrap_or(rest.len());
                (Field { text: Cow::Borrowed(&rest[..len]), is_quoted: false }, at + len)
            }
        };
        found.push(field);
        if end == record.len() {
            return Ok(found);
        }
        at = end + 1;
    }
}

/// The field whose opening quote is at `start`, and where its delimiter or the record's end is.
fn quoted(record: &str, start: usize, delimiter: u8) -> Result<(Field<'_>, usize), &'static str> {
    let inner = &record[start + 1..];
    let bytes = inner.as_bytes();
    let mut at = 0;
    let mut has_doubled = false;
    let len = loop {
        match bytes[at..].iter().position(|byte| *byte == b'"') {
            None => return Err("its quote is never closed"),
            Some(len) if bytes.get(at + len + 1) == Some(&b'"') => {
                has_doubled = true;
                at += len + 2;
            }
            Some(len) => break at + len,
        }
    };
    if bytes.get(len + 1).is_some_and(|byte| *byte != delimiter) {
        return Err("there is text behind its closing quote; a quote in a quoted field is written twice");
    }
    let text = &inner[..len];
    let text = if has_doubled { Cow::Owned(text.replace("\"\"", "\"")) } else { Cow::Borrowed(text) };
    Ok((Field { text, is_quoted: true }, start + 1 + len + 1))
}

#[cfg(test)]
mod tests {
    use model::{Rng, SplitMix64};

    use super::*;

    fn texts(record: &str) -> Result<Vec<String>, String> {
        let show =
            |field: &Field<'_>| if field.is_quoted { format!("<{}>", field.text) } else { field.text.to_string() };
        fields(record, b',').map(|fields| fields.iter().map(show).collect())
    }

    #[test]
    fn fields_are_taken_apart_and_unquoted() {
        for (record, expected) in [
            ("", &[""][..]),
            ("a,b", &["a", "b"]),
            ("a,,\r\n", &["a", "", ""]),
            ("\"\",\n", &["<>", ""]),
            ("\"a,\"\"b\"\"\n\",c\n", &["<a,\"b\"\n>", "c"]),
            ("5\" pipe,b", &["5\" pipe", "b"]),
            ("ü,\"ü\"", &["ü", "<ü>"]),
            ("\"a\r\n\"\r\n", &["<a\r\n>"]),
        ] {
            assert_eq!(texts(record).unwrap(), expected, "{record:?}");
        }
        assert!(texts("a,\"b").unwrap_err().starts_with("field 2: its quote is never closed"));
        assert!(texts("\"a\"b").unwrap_err().starts_with("field 1: there is text behind"));
        assert_eq!(fields("a;b,c", b';').unwrap().len(), 2);
    }

    #[test]
    fn a_record_ends_with_the_line_in_which_no_quoted_field_is_open() {
        let mut state = RecordState::default();
        let mut whole = |line: &str| state.read_line(line.as_bytes(), b',');
        assert!(whole("a,b\n"));
        assert!(!whole("a,\"b\n"));
        assert!(!whole("\"\"c,\"\"\n"));
        assert!(whole("\",d\n"));
        assert!(whole("5\" pipe\n"));
        assert!(whole("a,\"b\"\"\"\n"));
    }

    #[test]
    fn what_is_written_is_read_and_mutations_do_not_panic() {
        let seed = 11;
        let rng = SplitMix64::new(seed);
        let pieces = ["", "a", "\"", ",", "\n", "\r\n", "ü", "\"\"", "x y"];
        for round in 0..5_000 {
            let fields: Vec<String> = (0..1 + rng.below(4))
                .map(|_| (0..rng.below(4)).map(|_| pieces[rng.below(pieces.len() as u64) as usize]).collect())
                .collect();
            let quote = |text: &String| format!("\"{}\"", text.replace('"', "\"\""));
            let record = fields.iter().map(quote).collect::<Vec<_>>().join(",") + "\n";
            let read = super::fields(&record, b',').unwrap();
            let read: Vec<_> = read.iter().map(|field| field.text.to_string()).collect();
            assert_eq!(read, fields, "seed {seed}, round {round}: {record:?}");
            let mut chars: Vec<char> = record.chars().collect();
            let at = rng.below(chars.len() as u64) as usize;
            chars[at] = ['"', ',', 'z', '\n'][rng.below(4) as usize];
            let _ = super::fields(&chars.iter().collect::<String>(), b',');
        }
    }
}
