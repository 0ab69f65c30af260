//! OpenTelemetry's SDKs export metrics; what they say they have exported is in SQL, each data point once, also after a kill.
//! pyarrow writes a stream, and reads back the same.

use std::collections::{BTreeMap, BTreeSet};

use harness::{Eden, Rows};
use serde_json::{Map, Value};

use super::clients::{Clients, install_from_npm};
use super::{install, run_sql};
use crate::command::{in_root, output, run};
use crate::{Failure, Outcome};

const OTLP_SCRIPT: &str = "tests/interop/write_otlp.py";
const ARROW_SCRIPT: &str = "tests/interop/write_arrow.py";

/// The one exporter that writes JSON, and what it exports.
const NPM: &[&str] = &["@opentelemetry/sdk-metrics@2.12.1", "@opentelemetry/exporter-metrics-otlp-http@0.223.0"];
const OTLP_JS: &str = "tests/interop/write_otlp.js";

/// What the metrics of [`OTLP_JS`] are in SQL: statement and row.
const OF_JS: &[(&str, &str)] = &[
    ("SELECT DISTINCT line, n, f, b, l, value FROM \"js.made\"", r#"["ü","7","1.5","true","[\"x\",\"y\"]",3.0]"#),
    ("SELECT DISTINCT count, sum, min, max FROM \"js.took\"", "[2,700.5,0.5,700.0]"),
    (
        "SELECT DISTINCT count, buckets FROM \"js.force\"",
        r#"[2,"{\"scale\":5,\"zero_threshold\":0.0,\"zero_count\":0,\"positive\":[[-1,1],[101,1]],\"negative\":[]}"]"#,
    ),
    ("SELECT DISTINCT \"otel.scope.version\", value FROM \"js.temperature\"", r#"["1.0",21.5]"#),
];

pub(super) fn exporters_write(clients: &Clients) -> Outcome {
    let mut eden = Eden::start("otlp-interop");
    let said = output(in_root(&clients.python).arg(OTLP_SCRIPT).arg(format!("http://{}", eden.address())))?;
    let python = |arguments: &[&str], eden: &Eden| -> Outcome {
        run(in_root(&clients.python).arg(ARROW_SCRIPT).arg(format!("http://{}", eden.address())).args(arguments))
    };
    install("node", "nodejs")?;
    install("npm", "npm")?;
    let modules = install_from_npm(NPM)?;
    run(in_root("node").env("NODE_PATH", modules).arg(OTLP_JS).arg(format!("http://{}", eden.address())))?;
    python(&["write"], &eden)?;
    eden.kill();
    eden.restart();
    python(&["read"], &eden)?;
    for (statement, expected) in OF_JS {
        let rows = Rows::new(run_sql(&eden, statement)?);
        let found: Vec<String> = (0..rows.len()).map(|row| Value::from(rows.row(row)).to_string()).collect();
        if found != [*expected] {
            return Err(format!("{statement}: {found:?}, expected {expected}"));
        }
    }
    println!("{}: what it exported as JSON is stored, also after kill -9", NPM[1]);
    let mut lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let client = lines.pop().ok_or("the exporter said nothing")?;
    let mut by_table: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in &lines {
        let table = line["table"].as_str().unwrap_or_default();
        by_table.entry(table).or_default().insert(expected(line)?);
    }
    for (table, expected) in &by_table {
        let rows = Rows::new(run_sql(&eden, &format!("SELECT * FROM \"{table}\""))?);
        let found: BTreeSet<String> = (0..rows.len()).map(|row| stored(&rows, row)).collect();
        if found != *expected || rows.len() != expected.len() {
            let only = |of: &BTreeSet<String>, not: &BTreeSet<String>| of.difference(not).next().cloned();
            return Err(format!(
                "table {table} has {} rows, the exporter sent {}\n + {:?}\n - {:?}",
                rows.len(),
                expected.len(),
                only(&found, expected),
                only(expected, &found)
            ));
        }
    }
    let points: usize = by_table.values().map(BTreeSet::len).sum();
    println!("{}: {points} data points of {} metrics are stored, also after kill -9", client["client"], by_table.len());
    eden.stop();
    Ok(())
}

/// A data point as its row is shown.
fn expected(line: &Value) -> Result<String, Failure> {
    let mut cells = Map::new();
    for part in ["tags", "fields"] {
        let part = line[part].as_object().ok_or("a line without tags or fields")?;
        cells.extend(part.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let time_ns = line["time_ns"].as_i64().ok_or("a line without a time")?;
    Ok(shown(&cells, time_ns.div_euclid(1_000)))
}

fn stored(rows: &Rows, row: usize) -> String {
    let cells = rows.columns().iter().zip(rows.row(row)).filter(|(name, value)| !value.is_null() && *name != "time");
    let cells = cells.map(|(name, value)| {
        let value = match (name.as_str(), value) {
            ("buckets", Value::String(json)) => serde_json::from_str(json).unwrap_or(Value::Null),
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    shown(&cells.collect(), rows.time_us(row))
}

/// Cells in order of their names; 3 and 3.0 are one number, because a column of whole numbers may become one of floats.
fn shown(cells: &Map<String, Value>, time_us: i64) -> String {
    let number = |value: &Value| match value {
        Value::Number(number) => format!("{}", number.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    };
    let cells: BTreeMap<_, _> = cells.iter().map(|(name, value)| (name, number(value))).collect();
    format!("{time_us} {cells:?}")
}
