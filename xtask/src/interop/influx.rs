//! InfluxDB's own clients of three versions write readings; what they were told is stored is in SQL, each once, also
//! after a kill (P1). What cannot be stored is in the quarantine, and does not make them give up the rest.

use harness::{Eden, Rows};
use serde_json::{Value, json};

use super::clients::Clients;
use super::{START_US, run_sql};
use crate::command::{in_root, output};
use crate::{Failure, Outcome};

const SCRIPT: &str = "tests/interop/write_influx.py";

pub(super) fn stock_clients_write(clients: &Clients) -> Outcome {
    let mut eden = Eden::start("influx-interop");
    let told = write(clients, &eden)?;
    for client in &told {
        if client["refused"] != json!([null, null]) {
            return Err(format!("{}: was told that lines are bad: {}", client["client"], client["refused"]));
        }
    }
    eden.kill();
    eden.restart();
    for client in &told {
        stored(&eden, client)?;
        set_aside(&eden, client, &["field \"v\" is", "the line has no fields"])?;
        println!("{}: {} readings are stored, also after kill -9", text(client, "client"), client["readings"]);
    }
    eden.stop();

    let mut refusing = Eden::options("influx-refusing").setting("EDEN_INGEST_PARTIAL_WRITES", "refuse").start();
    for client in &write(clients, &refusing)? {
        let said = ["unable to parse 'm,n=bad'", "partial write: field type conflict: "];
        for (told, wanted) in client["refused"].as_array().into_iter().flatten().zip(said) {
            if told.as_str().is_none_or(|told| !told.contains(wanted)) {
                return Err(format!("{}: was told {told}, expected {wanted:?}", client["client"]));
            }
        }
        stored(&refusing, client)?;
        // Of a body that is refused whole, as version 2 has it, nothing is.
        let is_first_version = client["database"] == "one";
        set_aside(&refusing, client, if is_first_version { &["", ""] } else { &["field \"v\" is"] })?;
        println!("{}: raises what it is told where the setting is to refuse", text(client, "client"));
    }
    refusing.stop();
    Ok(())
}

/// What each client was told.
fn write(clients: &Clients, eden: &Eden) -> Result<Vec<Value>, Failure> {
    let url = format!("http://{}", eden.address());
    let said = output(in_root(&clients.python).arg(SCRIPT).arg(url))?;
    let told: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if told.len() == 3 { Ok(told) } else { Err(format!("{SCRIPT} said:\n{said}")) }
}

fn text<'a>(client: &'a Value, key: &str) -> &'a str {
    client[key].as_str().unwrap_or_default()
}

/// Every reading, with every value.
fn stored(eden: &Eden, client: &Value) -> Outcome {
    let database = text(client, "database");
    let statement = format!("SELECT n, v, whole, \"on\", text, time FROM {database}.m");
    let rows = Rows::new(run_sql(eden, &statement)?);
    let mut seen: Vec<String> = (0..rows.len()).map(|row| json!(rows.row(row)).to_string()).collect();
    let row = |n: i64| {
        let time_ms = START_US / 1_000 + n * 1_000;
        json!([n.to_string(), n as f64 / 4.0, n, n % 2 == 0, format!("a \"b\", {n}"), time_ms]).to_string()
    };
    let mut expected: Vec<String> = (0..client["readings"].as_i64().unwrap_or_default()).map(row).collect();
    seen.sort();
    expected.sort();
    match seen.iter().zip(&expected).find(|(seen, expected)| seen != expected) {
        None if seen.len() == expected.len() && !seen.is_empty() => Ok(()),
        None => Err(format!("{}: {} readings in SQL, expected {}", client["client"], seen.len(), expected.len())),
        Some((seen, expected)) => Err(format!("{}: SQL has {seen}, expected {expected}", client["client"])),
    }
}

/// The reasons of what is in the quarantine of the client's database, each once.
fn set_aside(eden: &Eden, client: &Value, reasons: &[&str]) -> Outcome {
    let database = text(client, "database");
    let statement = format!(
        "SELECT DISTINCT payload, reason FROM system.quarantine WHERE database = '{database}' ORDER BY payload DESC"
    );
    let rows = Rows::new(run_sql(eden, &statement)?);
    let found: Vec<&str> = (0..rows.len()).map(|row| rows.get(row, "reason").as_str().unwrap_or_default()).collect();
    if found.len() == reasons.len() && found.iter().zip(reasons).all(|(found, wanted)| found.contains(wanted)) {
        return Ok(());
    }
    Err(format!("{}: the quarantine has {found:?}, expected {reasons:?}", client["client"]))
}
