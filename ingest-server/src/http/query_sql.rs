//! `GET|POST /api/v3/query_sql`: SQL as InfluxDB 3 takes it, rows as JSON, JSON lines, CSV, Arrow or Parquet.
//! It only reads.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use query::{QueryError, QueryRequest, QueryResult, ScalarValue};
use serde::Deserialize;
use serde_json::Value;

use super::Peer;
use super::cells::{Cells, Times, csv_field};
use super::left_out;
use super::rows::{self, BatchFormat, ByRow, RowFormat};
use super::sql::{read_json, scalar};
use super::sql_error::SqlError;
use crate::app::App;

#[derive(Debug, Deserialize)]
struct Request {
    db: Option<String>,
    q: String,
    format: Option<String>,
    #[serde(default)]
    params: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    JsonLines,
    Csv,
    Arrow,
    Parquet,
}

impl FromStr for Format {
    type Err = SqlError;

    fn from_str(word: &str) -> Result<Self, SqlError> {
        match word {
            "json" => Ok(Format::Json),
            "jsonl" => Ok(Format::JsonLines),
            "csv" => Ok(Format::Csv),
            "arrow" => Ok(Format::Arrow),
            "parquet" => Ok(Format::Parquet),
            other => Err(SqlError::unsupported(format!(
                "format {other:?} is not supported; use json, jsonl, csv, arrow or parquet"
            ))),
        }
    }
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::JsonLines => "application/jsonl",
            Format::Csv => "text/csv",
            Format::Arrow => "application/vnd.apache.arrow.stream",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// The handler of GET.
pub async fn get(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut query = query.0;
    let request = match query.remove("q") {
        Some(q) => match query.remove("params").map(|params| serde_json::from_str(&params)).transpose() {
            Ok(params) => Ok(Request {
                db: query.remove("db"),
                q,
                format: query.remove("format"),
                params: params.unwrap_or_default(),
            }),
            Err(e) => {
                Err(SqlError::request(format!("params must be an object in JSON such as {{\"room\":\"a\"}}: {e}")))
            }
        },
        None => Err(SqlError::request("the parameter q is missing: /api/v3/query_sql?db=public&q=SELECT+1")),
    };
    respond(&app, peer, &headers, request).await
}

/// The handler of POST.
pub async fn post(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let request = read_json(&app, &headers, body).await;
    respond(&app, peer, &headers, request).await
}

async fn respond(app: &App, peer: Peer, headers: &HeaderMap, request: Result<Request, SqlError>) -> Response {
    let answered = match request {
        Ok(request) => answer(app, peer, headers, request).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| error.influx_answer())
}

async fn answer(app: &App, peer: Peer, headers: &HeaderMap, request: Request) -> Result<Response, SqlError> {
    let engine = app.for_queries()?.engine;
    let (names, parameters) = named(request.params)?;
    let format: Format = request.format.as_deref().unwrap_or("json").parse()?;
    let skip_damaged = left_out::is_wanted(headers)?;
    let origin = peer.origin("query_sql", headers);
    let request = QueryRequest {
        parameters,
        names,
        default_schema: request.db,
        skip_damaged,
        origin,
        ..QueryRequest::new(request.q)
    };
    let mut missing = Vec::new();
    let body = match engine.execute(request).await? {
        QueryResult::Rows(mut found) => {
            missing = std::mem::take(&mut found.left_out);
            match format {
                Format::Json => rows::body(found, ByRow::new(Objects { names: Vec::new(), lines: false })).await?,
                Format::JsonLines => rows::body(found, ByRow::new(Objects { names: Vec::new(), lines: true })).await?,
                Format::Csv => rows::body(found, ByRow::new(CsvRows)).await?,
                Format::Arrow => rows::body(found, ArrowStream::default()).await?,
                Format::Parquet => rows::body(found, ParquetFile::default()).await?,
            }
        }
        QueryResult::Done { .. } => Body::from(if format == Format::Json { "[]" } else { "" }),
    };
    let response = (StatusCode::OK, [(CONTENT_TYPE, format.content_type())], body).into_response();
    Ok(left_out::say(response, skip_damaged, &missing))
}

/// Names and values of `params`.
fn named(params: Value) -> Result<(Vec<String>, Vec<ScalarValue>), SqlError> {
    match params {
        Value::Null => Ok((Vec::new(), Vec::new())),
        Value::Object(params) => {
            let values = params.into_iter().map(|(name, value)| Ok((name, scalar(value)?)));
            Ok(values.collect::<Result<Vec<_>, SqlError>>()?.into_iter().unzip())
        }
        _ => Err(SqlError::request("params must be an object such as {\"room\":\"a\"}, for $room in q")),
    }
}

/// An object a row: in a list, or one a line.
struct Objects {
    names: Vec<Vec<u8>>,
    lines: bool,
}

impl RowFormat for Objects {
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) {
        let name = |name: &String| serde_json::to_vec(name).expect("texts can be written to memory");
        self.names = schema.fields().iter().map(|field| name(field.name())).collect();
        if !self.lines {
            out.push(b'[');
        }
    }

    fn row(&mut self, columns: &[Cells], row: usize, first: bool, out: &mut Vec<u8>) {
        if !self.lines && !first {
            out.push(b',');
        }
        out.push(b'{');
        // As InfluxDB: a value that is absent has no key.
        let present = self.names.iter().zip(columns).filter(|(_, column)| !column.is_null(row));
        for (i, (name, column)) in present.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            out.push(b':');
            column.write_json(row, Times::Iso, out);
        }
        out.push(b'}');
        if self.lines {
            out.push(b'\n');
        }
    }

    fn tail(&mut self, _rows: u64, out: &mut Vec<u8>) {
        if !self.lines {
            out.push(b']');
        }
    }
}

struct CsvRows;

impl RowFormat for CsvRows {
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) {
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            csv_field(field.name(), out);
        }
        out.push(b'\n');
    }

    fn row(&mut self, columns: &[Cells], row: usize, _first: bool, out: &mut Vec<u8>) {
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            column.write_csv(row, out);
        }
        out.push(b'\n');
    }

    fn tail(&mut self, _rows: u64, _out: &mut Vec<u8>) {}
}

/// Arrow's streaming format: exact for every type.
#[derive(Default)]
struct ArrowStream(Option<StreamWriter<Vec<u8>>>);

impl ArrowStream {
    /// Lets `write` write, and moves what it wrote to `out`.
    fn with(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut StreamWriter<Vec<u8>>) -> Result<(), ArrowError>,
    ) -> Result<(), QueryError> {
        let Some(writer) = &mut self.0 else { return Ok(()) };
        write(writer).map_err(as_arrow)?;
        out.append(writer.get_mut());
        Ok(())
    }
}

fn as_arrow(error: ArrowError) -> QueryError {
    QueryError::Internal(format!("write rows as Arrow: {error}"))
}

impl BatchFormat for ArrowStream {
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<(), QueryError> {
        self.0 = Some(StreamWriter::try_new(Vec::new(), schema).map_err(as_arrow)?);
        self.with(out, |_| Ok(()))
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), QueryError> {
        self.with(out, |writer| writer.write(batch))
    }

    fn tail(&mut self, out: &mut Vec<u8>) -> Result<(), QueryError> {
        self.with(out, StreamWriter::finish)
    }
}

/// Rows of a row group, and bytes of it: what is held back before it is sent.
const ROW_GROUP_ROWS: usize = 1 << 17;
const ROW_GROUP_BYTES: usize = 16 << 20;

/// A Parquet file. It is sent group by group, and without its end, which is written last, nobody takes it for whole.
#[derive(Default)]
struct ParquetFile(Option<ArrowWriter<Vec<u8>>>);

impl ParquetFile {
    /// Lets `write` write, and moves what it wrote to `out`.
    fn with(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut ArrowWriter<Vec<u8>>) -> Result<(), ParquetError>,
    ) -> Result<(), QueryError> {
        let Some(writer) = &mut self.0 else { return Ok(()) };
        write(writer).map_err(as_parquet)?;
        out.append(writer.inner_mut());
        Ok(())
    }
}

fn as_parquet(error: ParquetError) -> QueryError {
    QueryError::Unsupported(format!("rows that cannot be written as Parquet are not supported: {error}"))
}

impl BatchFormat for ParquetFile {
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<(), QueryError> {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_compression(Compression::SNAPPY)
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties)).map_err(as_parquet)?;
        self.0 = Some(writer);
        self.with(out, |_| Ok(()))
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), QueryError> {
        self.with(out, |writer| {
            writer.write(batch)?;
            if writer.in_progress_size() > ROW_GROUP_BYTES { writer.flush() } else { Ok(()) }
        })
    }

    fn tail(&mut self, out: &mut Vec<u8>) -> Result<(), QueryError> {
        self.with(out, |writer| writer.finish().map(drop))
    }
}
