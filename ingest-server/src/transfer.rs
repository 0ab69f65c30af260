//! Files in and out: `eden import`, `eden export`, and `COPY` in `eden sql`.
//!
//! Owns:     which files are meant, their formats at the client's side, what a column of a file becomes, how far an
//!           import has come, and the file that an export makes.
//! Does not: store or plan anything: it is a client of `/api/v3/write_lp`, `/_sql` and `/api/v3/query_sql` like others.
//!
//! Invariants
//!  1. A row counts as stored only when the server has acknowledged it (P1).
//!  2. Importing a file again changes nothing: rows without a time are refused, so that each has its key.
//!  3. A row is stored whole or refused with its place and reason; a value is stored as it is or not at all.
//!  4. A file that an export names is whole: it gets its name last.

pub mod columns;
pub mod copy;
mod csv_rows;
pub mod export;
mod export_lines;
pub mod import;
mod import_lines;
pub(crate) mod interrupt;
mod json_rows;
mod parquet_rows;
pub(crate) mod record;
mod resume;
pub(crate) mod send;
mod sink;
mod source;
mod store;

use std::path::Path;

use clap::ValueEnum;

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// An object a line.
    Jsonl,
    /// Line protocol.
    Lp,
    /// Parquet.
    Parquet,
}

/// How the bytes of a file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Plain,
    /// gzip, perhaps of several members.
    Gzip,
    /// zstd.
    Zstd,
}

impl Format {
    /// The word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Lp => "lp",
            Format::Parquet => "parquet",
        }
    }

    /// The format of that word.
    pub(crate) fn of_word(word: &str) -> Option<Format> {
        match word.to_ascii_lowercase().as_str() {
            "csv" => Some(Format::Csv),
            "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
            "lp" => Some(Format::Lp),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }
}

/// What the endings of a file's name say: `day.csv.gz` is CSV in gzip.
pub(crate) fn of_name(path: &Path) -> (Option<Format>, Packing) {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let (name, packing) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(name), _) => (name, Packing::Gzip),
        (_, Some(name)) => (name, Packing::Zstd),
        _ => (name.as_str(), Packing::Plain),
    };
    (name.rsplit_once('.').and_then(|(_, ending)| Format::of_word(ending)), packing)
}

/// `t` of schema `public`, or `schema.t`.
pub(crate) fn table_name(text: &str) -> model::TableName {
    let (schema, table) = text.split_once('.').unwrap_or((model::name::PUBLIC, text));
    model::TableName::new(crate::http::influx::schema::of_database(schema), table)
}

/// A name in SQL, exactly.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Percent-encodes a query parameter.
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_in_the_name() {
        for (name, expected) in [
            ("a/b.csv", (Some(Format::Csv), Packing::Plain)),
            ("b.CSV.GZ", (Some(Format::Csv), Packing::Gzip)),
            ("b.2026.ndjson.zst", (Some(Format::Jsonl), Packing::Zstd)),
            ("b.lp", (Some(Format::Lp), Packing::Plain)),
            ("b.parquet", (Some(Format::Parquet), Packing::Plain)),
            ("b.txt.gz", (None, Packing::Gzip)),
            ("csv", (None, Packing::Plain)),
        ] {
            assert_eq!(of_name(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn parameters_are_encoded() {
        assert_eq!(percent("a b&ü"), "a%20b%26%C3%BC");
    }
}
