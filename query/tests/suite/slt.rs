//! Statements with their answers, from the files of `tests/slt` and from the examples of `docs/functions.md`.
//!
//! A file names the tables that it reads in a line `# data: air power`: each is a file of `tests/slt/data`, whose first line has
//! names and kinds of columns. The first half of its rows is in shards when the statements run, the rest in memory.
//! `xtask interop slt` runs the same files in DuckDB, without what is marked `onlyif eden`.
//!
//! `UPDATE_EXPECT=1` writes the answers of today into the files, to be looked at.

use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use model::{SeriesKey, TableBatch, TableName, Value};
use query::{Access, QueryError, QueryRequest, QueryResult};
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_normalizer, default_validator, strict_column_validator,
};

use crate::Server;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt")
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

/// A time as the fixtures write it: `2024-05-01T00:00:00Z`, with or without a fraction.
fn time_us(text: &str) -> i64 {
    let parsed = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text);
    parsed.unwrap_or_else(|error| panic!("{text}: {error}")) / 1_000
}

/// The rows of a fixture, one batch.
fn rows_of(table: &str, header: &[(&str, &str)], lines: &[&str]) -> TableBatch {
    let mut batch = TableBatch::new(TableName::public(table));
    for (number, line) in (1..).zip(lines) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), header.len(), "{table}: {line}");
        let (mut tags, mut fields, mut time) = (Vec::new(), Vec::new(), 0);
        for ((name, kind), cell) in header.iter().zip(cells) {
            match (*kind, cell) {
                (_, "") => {}
                ("time", cell) => time = time_us(cell),
                ("tag", cell) => tags.push((*name, cell)),
                ("f64", cell) => fields.push((*name, Value::F64(cell.parse().unwrap()))),
                ("i64", cell) => fields.push((*name, Value::I64(cell.parse().unwrap()))),
                ("bool", cell) => fields.push((*name, Value::Bool(cell == "true"))),
                ("text", cell) => fields.push((*name, Value::Text(cell))),
                (kind, _) => panic!("{table}: kind {kind}"),
            }
        }
        let series = batch.intern_series(SeriesKey::from_tags(tags));
        let fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (batch.field_column(name, value.field_type()), value)).collect();
        batch.push_row(series, time, number, &fields);
    }
    batch
}

/// Writes the fixture `table`: half of it to shards, half of it to memory.
async fn load(server: &Server, table: &str) {
    let path = folder().join("data").join(format!("{table}.csv"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (head, body) = text.split_once('\n').unwrap();
    let header: Vec<_> = head.split(',').map(|column| column.split_once(':').unwrap()).collect();
    let lines: Vec<&str> = body.lines().collect();
    let (early, late) = lines.split_at(lines.len() / 2);
    for half in [early, late] {
        let batch = rows_of(table, &header, half);
        let storage = std::sync::Arc::clone(&server.storage);
        let write = tokio::task::spawn_blocking(move || {
            let pending = storage.write(vec![batch], "test").unwrap();
            assert_eq!(pending.rejected, []);
            pending.wait().unwrap();
        });
        write.await.unwrap();
        if std::ptr::eq(half, early) {
            server.refresh(table).await;
        }
    }
}

/// The tables that a file names.
async fn load_named(server: &Server, text: &str) {
    for line in text.lines().filter_map(|line| line.strip_prefix("# data:")) {
        for table in line.split_whitespace() {
            load(server, table).await;
        }
    }
}

fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        data_type if data_type.is_integer() => DefaultColumnType::Integer,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DefaultColumnType::FloatingPoint,
        data_type if data_type.is_decimal() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// A column as text: floats to 10 digits, because sums differ in the last ones from plan to plan.
fn cells(column: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL").with_display_error(true);
    let formatter = ArrayFormatter::try_new(column, &options).unwrap();
    let text = |row: usize| match column.data_type() {
        DataType::Float64 if column.is_valid(row) => float(column.as_primitive::<Float64Type>().value(row)),
        // A plan has many lines, an answer one a row.
        _ => match formatter.value(row).to_string().lines().map(str::trim).collect::<Vec<_>>().join(" / ") {
            text if text.is_empty() => "(empty)".into(),
            text => text,
        },
    };
    (0..column.len()).map(text).collect()
}

fn float(value: f64) -> String {
    let rounded: f64 = format!("{value:.9e}").parse().unwrap();
    format!("{rounded}")
}

struct Db(Server);

#[async_trait::async_trait]
impl AsyncDB for Db {
    type Error = QueryError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, QueryError> {
        let request = QueryRequest { access: Access::Change, ..QueryRequest::new(sql) };
        match self.0.engine.execute(request).await? {
            QueryResult::Done { rows, .. } => Ok(DBOutput::StatementComplete(rows.unwrap_or_default())),
            QueryResult::Rows(mut rows) => {
                let types = rows.schema.fields().iter().map(|field| column_type(field.data_type())).collect();
                let mut lines = Vec::new();
                while let Some(batch) = rows.next().await {
                    let batch = batch?;
                    let columns: Vec<_> = batch.columns().iter().map(cells).collect();
                    lines.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| c[row].clone()).collect()));
                }
                Ok(DBOutput::Rows { types, rows: lines })
            }
        }
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "eden"
    }
}

#[tokio::test]
async fn the_files_of_statements_have_the_answers_that_they_say() {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    let (mut failures, mut statements) = (Vec::new(), 0);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_record = |line: &&str| ["statement", "query"].iter().any(|word| line.starts_with(word));
        statements += text.lines().filter(is_record).count();
        let server = Server::start();
        load_named(&server, &text).await;
        let mut server = Some(server);
        let mut runner = Runner::new(move || std::future::ready(Ok(Db(server.take().expect("one connection")))));
        runner.with_column_validator(strict_column_validator);
        let outcome = if is_update() {
            let updated =
                runner.update_test_file(&file, " ", default_validator, default_normalizer, strict_column_validator);
            updated.await.map_err(|error| error.to_string())
        } else {
            runner.run_file_async(&file).await.map_err(|error| error.to_string())
        };
        failures.extend(outcome.err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(statements >= 400, "only {statements} statements");
}

/// The examples of a page: each block of SQL is followed by a block with its answer.
#[tokio::test]
async fn the_examples_of_the_page_about_functions_answer_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/functions.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let server = Server::start();
    for table in ["air", "power", "orders"] {
        load(&server, table).await;
    }
    let mut db = Db(server);
    let (mut updated, mut rest, mut examples, mut failures) = (String::new(), page.as_str(), 0, Vec::new());
    while let Some(at) = rest.find("```sql\n") {
        let (before, block) = rest.split_at(at + "```sql\n".len());
        let (sql, after) = block.split_once("```\n").unwrap();
        let between = "\n```text\n";
        let (expected, after) = after.strip_prefix(between).unwrap().split_once("```\n").unwrap();
        let answer = match db.run(sql.trim()).await {
            Ok(DBOutput::Rows { rows, .. }) => rows.iter().map(|row| row.join(" | ") + "\n").collect(),
            Ok(_) => "done\n".to_owned(),
            Err(error) => format!("error: {error}\n"),
        };
        if answer != expected {
            failures.push(format!("{sql}\nexpected\n{expected}\ngot\n{answer}"));
        }
        updated += &format!("{before}{sql}```\n{between}{answer}```\n");
        (rest, examples) = (after, examples + 1);
    }
    if is_update() {
        std::fs::write(&path, updated + rest).unwrap();
        return;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(examples >= 20, "only {examples} examples");
}
