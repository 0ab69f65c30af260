//! OpenTelemetry's SDK exports metrics; what it says it has exported is in SQL, each data point once, also after a kill.
//! pyarrow writes a stream, and reads back the same.

use std::collections::{BTreeMap, BTreeSet};

use harness::{Eden, Rows};
use serde_json::{Map, Value};

use super::clients::Clients;
use super::run_sql;
use crate::command::{in_root, output, run};
use crate::{Failure, Outcome};

const OTLP_SCRIPT: &str = "tests/interop/write_otlp.py";
const ARROW_SCRIPT: &str = "tests/interop/write_arrow.py";

pub(super) fn exporters_write(clients: &Clients) -> Outcome {
    let mut eden = Eden::start("otlp-interop");
    let said = output(in_root(&clients.python).arg(OTLP_SCRIPT).arg(format!("http://{}", eden.address())))?;
    let python = |arguments: &[&str], eden: &Eden| -> Outcome {
        run(in_root(&clients.python).arg(ARROW_SCRIPT).arg(format!("http://{}", eden.address())).args(arguments))
    };
    python(&["write"], &eden)?;
    eden.kill();
    eden.restart();
    python(&["read"], &eden)?;
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
