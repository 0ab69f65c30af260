//! `eden export`: a table or a query of a running server to a file.
//!
//! Owns:     which query that is, and how rows are written.
//! Does not: hold more than a batch of rows in memory; Parquet's writer holds a row group.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use model::{Clock as _, SystemClock, TableName};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::columns::describe;
use super::export_lines::LineRows;
use super::sink::Sink;
use super::{Format, Packing, interrupt, of_name, quoted};
use crate::client::Client;
use crate::failure::Failure;
use crate::http::cells::{Cells, Times, csv_field};
use crate::progress::{self, Progress};
use crate::stop_flag::StopFlag;
use decode::time::TimeFormat;

/// Rows of a row group: what its writer holds in memory, encoded.
const ROW_GROUP_ROWS: usize = 1 << 18;

/// What to export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// All columns of a table.
    Table(TableName),
    /// Some columns of a table.
    Columns(TableName, Vec<String>),
    /// The rows of a query.
    Query(String),
}

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which rows.
    pub what: What,
    /// The first time of a table's rows.
    pub from: Option<String>,
    /// The first time that is too late.
    pub to: Option<String>,
    /// The format; `None`: by the name of the file.
    pub format: Option<Format>,
    /// The file; `-` is standard output.
    pub output: PathBuf,
    /// Between the fields of CSV.
    pub delimiter: u8,
    /// Whether CSV has a header line.
    pub has_header: bool,
}

impl Options {
    /// All of `what` to `output`.
    pub fn new(what: What, output: PathBuf) -> Options {
        Options { what, from: None, to: None, format: None, output, delimiter: b',', has_header: true }
    }
}

/// Exports; returns how many rows.
///
/// # Errors
/// If the file is not there then, or lacks rows: says which.
pub fn run(options: &Options, client: &Client) -> Result<u64, Failure> {
    let (named, packing) = of_name(&options.output);
    let is_stdout = options.output == Path::new("-");
    let Some(format) = options.format.or(named).or(is_stdout.then_some(Format::Csv)) else {
        return Err(Failure::usage(format!(
            "{}: its name does not say which format it shall have; say it with --format csv, jsonl, lp or parquet",
            options.output.display()
        )));
    };
    if format == Format::Parquet && packing != Packing::Plain {
        return Err(Failure::usage(format!("{}: Parquet is compressed in itself", options.output.display())));
    }
    let description = match &options.what {
        What::Table(table) | What::Columns(table, _) => describe(client, table)?,
        What::Query(_) => None,
    };
    let query = query(options)?;
    let lines = match (&options.what, &description, format) {
        (What::Table(table), Some(description), Format::Lp) => Some(LineRows::new(table, description)),
        (What::Table(table), None, Format::Lp) => {
            return Err(Failure::usage(format!("there is no table {table} whose tags are known")));
        }
        (_, _, Format::Lp) => {
            return Err(Failure::usage(
                "line protocol has a table's tags and fields: export it with --table, all columns",
            ));
        }
        _ => None,
    };
    let rows = client.arrow_rows(&query)?;
    let schema = rows.schema();
    interrupt::during(|stop| {
        let sink = Sink::open(&options.output, packing)?;
        let failed = |e: io::Error| Failure::work(format!("write {}: {e}", options.output.display()));
        let mut writer = Writer::new(format, options, lines, &schema, sink).map_err(failed)?;
        let mut progress = Progress::new();
        let clock = SystemClock::new();
        let mut count = 0;
        for batch in rows {
            let batch =
                batch.map_err(|e| Failure::work(format!("the rows are not complete, so no file was made: {e}")))?;
            match writer.write(&batch) {
                Ok(()) => {}
                // `eden export … | head` has all it wants.
                Err(e) if is_stdout && e.kind() == io::ErrorKind::BrokenPipe => return Ok(count),
                Err(e) => return Err(failed(e)),
            }
            count += batch.num_rows() as u64;
            step(&mut progress, count, &writer, clock.monotonic(), stop)?;
        }
        progress.clear();
        let left_out = writer.finish().map_err(failed)?;
        match left_out.is_empty() {
            true => Ok(count),
            false => Err(Failure::work(format!("{count} rows are written, without {}", left_out.join("; ")))),
        }
    })
}

fn step(progress: &mut Progress, rows: u64, writer: &Writer, took: Duration, stop: &StopFlag) -> Result<(), Failure> {
    progress.show(|| {
        let rate = (rows as f64 / took.as_secs_f64().max(0.001)) as u64;
        format!("{rows} rows, {}, {rate} rows/s", progress::size(writer.written()))
    });
    if stop.is_raised() { Err(Failure::work("interrupted; no file was made")) } else { Ok(()) }
}

/// The statement whose rows are exported.
fn query(options: &Options) -> Result<String, Failure> {
    let (table, columns) = match &options.what {
        What::Query(query) if options.from.is_some() || options.to.is_some() => {
            return Err(Failure::usage(format!(
                "--from and --to are of a table; write the times into the query: {query}"
            )));
        }
        What::Query(query) => return Ok(query.clone()),
        What::Table(table) => (table, "*".to_owned()),
        What::Columns(table, columns) => {
            (table, columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
        }
    };
    let mut conditions = Vec::new();
    for (name, operator, time) in [("--from", ">=", &options.from), ("--to", "<", &options.to)] {
        if let Some(time) = time {
            let us = TimeFormat::Auto.text(time).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
            conditions.push(format!("time {operator} to_timestamp_micros({us})"));
        }
    }
    let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    Ok(format!("SELECT {columns} FROM {}.{}{condition}", quoted(&table.schema), quoted(&table.table)))
}

enum Writer {
    Csv { sink: Sink, delimiter: u8, buffer: Vec<u8> },
    Json { sink: Sink, names: Vec<Vec<u8>>, buffer: Vec<u8> },
    Lines { sink: Sink, rows: LineRows, buffer: Vec<u8> },
    Parquet(Box<ArrowWriter<Sink>>),
}

impl Writer {
    fn new(
        format: Format,
        options: &Options,
        lines: Option<LineRows>,
        schema: &SchemaRef,
        mut sink: Sink,
    ) -> io::Result<Writer> {
        let mut buffer = Vec::new();
        let delimiter = options.delimiter;
        Ok(match (format, lines) {
            (Format::Lp, Some(rows)) => {
                sink.write_all(&rows.head())?;
                Writer::Lines { sink, rows, buffer }
            }
            (Format::Csv | Format::Lp, _) => {
                if options.has_header {
                    for (i, field) in schema.fields().iter().enumerate() {
                        if i > 0 {
                            buffer.push(delimiter);
                        }
                        delimited(delimiter, &mut buffer, |out| csv_field(field.name(), out));
                    }
                    buffer.push(b'\n');
                    sink.write_all(&buffer)?;
                }
                Writer::Csv { sink, delimiter, buffer }
            }
            (Format::Jsonl, _) => {
                let name = |name: &String| serde_json::to_vec(name).map_err(io::Error::other);
                let names = schema.fields().iter().map(|field| name(field.name())).collect::<Result<_, _>>()?;
                Writer::Json { sink, names, buffer }
            }
            (Format::Parquet, _) => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .build();
                let writer = ArrowWriter::try_new(sink, Arc::clone(schema), Some(properties));
                Writer::Parquet(Box::new(writer.map_err(io::Error::other)?))
            }
        })
    }

    fn written(&self) -> u64 {
        match self {
            Writer::Csv { sink, .. } | Writer::Json { sink, .. } | Writer::Lines { sink, .. } => sink.written(),
            Writer::Parquet(writer) => writer.inner().written(),
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let cells = || batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>().map_err(io::Error::other);
        match self {
            Writer::Parquet(writer) => writer.write(batch).map_err(io::Error::other),
            Writer::Lines { sink, rows, buffer } => {
                buffer.clear();
                rows.write(batch, buffer).map_err(io::Error::other)?;
                sink.write_all(buffer)
            }
            Writer::Csv { sink, delimiter, buffer } => {
                buffer.clear();
                let cells = cells()?;
                for row in 0..batch.num_rows() {
                    for (i, column) in cells.iter().enumerate() {
                        if i > 0 {
                            buffer.push(*delimiter);
                        }
                        delimited(*delimiter, buffer, |out| column.write_csv(row, out));
                    }
                    buffer.push(b'\n');
                }
                sink.write_all(buffer)
            }
            Writer::Json { sink, names, buffer } => {
                buffer.clear();
                let cells = cells()?;
                for row in 0..batch.num_rows() {
                    let mut separator = b'{';
                    for (name, column) in names.iter().zip(&cells).filter(|(_, column)| !column.is_null(row)) {
                        buffer.push(separator);
                        buffer.extend_from_slice(name);
                        buffer.push(b':');
                        column.write_json(row, Times::Iso, buffer);
                        separator = b',';
                    }
                    buffer.extend_from_slice(if separator == b'{' { b"{}\n" } else { b"}\n" });
                }
                sink.write_all(buffer)
            }
        }
    }

    /// Ends the file; returns what it lacks.
    fn finish(self) -> io::Result<Vec<String>> {
        match self {
            Writer::Csv { sink, .. } | Writer::Json { sink, .. } => sink.finish().map(|()| Vec::new()),
            Writer::Lines { sink, rows, .. } => sink.finish().map(|()| rows.left_out()),
            Writer::Parquet(writer) => writer.into_inner().map_err(io::Error::other)?.finish().map(|()| Vec::new()),
        }
    }
}

/// Lets `write` write one field of CSV, and quotes it if it has a delimiter other than the comma.
fn delimited(delimiter: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    if delimiter != b',' && out.get(start) != Some(&b'"') && out[start..].contains(&delimiter) {
        out.insert(start, b'"');
        out.push(b'"');
    }
}

/// For tests of other modules: what a description is made of.
#[cfg(test)]
pub(crate) fn description(columns: &[(&str, &str, &str)]) -> serde_json::Value {
    let column = |(name, kind, sql): &(&str, &str, &str)| serde_json::json!({"name": name, "kind": kind, "type": sql});
    serde_json::json!({ "table": "t", "columns": columns.iter().map(column).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_table_may_be_bounded_by_time() {
        let mut options = Options::new(What::Table(TableName::new("public", "a\"b")), "-".into());
        assert_eq!(query(&options).unwrap(), "SELECT * FROM \"public\".\"a\"\"b\"");
        options.from = Some("1970-01-01T00:00:01Z".into());
        options.to = Some("2".into());
        let expected = "WHERE time >= to_timestamp_micros(1000000) AND time < to_timestamp_micros(2000000)";
        assert!(query(&options).unwrap().ends_with(expected), "{}", query(&options).unwrap());
        options.what = What::Query("SELECT 1".into());
        assert!(query(&options).is_err());
    }

    #[test]
    fn a_field_with_the_delimiter_is_quoted() {
        let field = |delimiter, text: &str| {
            let mut out = b"x;".to_vec();
            delimited(delimiter, &mut out, |out| csv_field(text, out));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(field(b';', "a;b"), "x;\"a;b\"");
        assert_eq!(field(b';', "a\";b"), "x;\"a\"\";b\"");
        assert_eq!(field(b',', "a;b"), "x;a;b");
    }
}
