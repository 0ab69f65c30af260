//! `eden quarantine`: what was set aside, and writing it again.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::cli::{Format, Target};
use crate::client::Client;
use crate::failure::Failure;
use crate::sql_shell;

/// Payloads of one request.
const IDS_MAX: usize = 10_000;

/// `eden quarantine list`.
///
/// # Errors
/// What the server says is wrong.
pub fn list(table: Option<&str>, limit: u64, format: Format, target: &Target) -> Result<(), Failure> {
    let condition = table.map_or_else(|| "true".to_owned(), is_of_table);
    let columns = "id, time, source, topic, reason, payload";
    let query =
        format!("SELECT {columns} FROM system.quarantine WHERE {condition} ORDER BY time DESC, id DESC LIMIT {limit}");
    sql_shell::run(&Client::find(target)?, Some(&query), format)
}

/// `eden quarantine replay`.
///
/// # Errors
/// What the server says is wrong, or that something is still refused.
pub fn replay(table: Option<&str>, condition: Option<&str>, target: &Target) -> Result<(), Failure> {
    let client = Client::find(target)?;
    let conditions: Vec<String> =
        table.map(is_of_table).into_iter().chain(condition.map(|text| format!("({text})"))).collect();
    let mut total = Counts::default();
    if conditions.is_empty() {
        total.add(&post(&client, &json!({}))?);
    } else {
        let query = format!("SELECT id FROM system.quarantine WHERE {}", conditions.join(" AND "));
        let answer = client.sql(&query)?;
        let ids: Vec<&Value> = answer["rows"].as_array().into_iter().flatten().map(|row| &row[0]).collect();
        for ids in ids.chunks(IDS_MAX) {
            total.add(&post(&client, &json!({ "ids": ids }))?);
        }
    }
    let Counts { payloads, replayed, lines, refused, not_replayable } = total;
    // Whoever closed the pipe does not want to know; the exit code still tells.
    let _ = writeln!(
        std::io::stdout(),
        "{replayed} of {payloads} payloads replayed, {lines} lines stored; {refused} still refused in whole or part, \
         {not_replayable} cannot be replayed"
    );
    let kept = refused + not_replayable;
    if kept > 0 { Err(Failure::work(format!("{kept} payloads are still set aside"))) } else { Ok(()) }
}

#[derive(Default)]
struct Counts {
    payloads: u64,
    replayed: u64,
    lines: u64,
    refused: u64,
    not_replayable: u64,
}

impl Counts {
    fn add(&mut self, answer: &Value) {
        let count = |name: &str| answer[name].as_u64().unwrap_or_default();
        self.payloads += count("payloads");
        self.replayed += count("replayed");
        self.lines += count("lines");
        self.refused += count("refused");
        self.not_replayable += count("not_replayable");
    }
}

fn post(client: &Client, body: &Value) -> Result<Value, Failure> {
    let answer = client.post("/api/v1/quarantine/replay", "application/json", body.to_string().as_bytes());
    let answer = answer.map_err(|e| Failure::work(format!("the server at {} went away: {e}", client.url())))?;
    if answer.status == 200 { Ok(answer.json()) } else { Err(Failure::work(answer.error())) }
}

/// Whether a line of the payload begins with the table's name, as line protocol spells it.
fn is_of_table(table: &str) -> String {
    let escaped = table.replace('\\', "\\\\").replace(',', "\\,").replace(' ', "\\ ").replace('\'', "''");
    let begins = |end: char| {
        format!("strpos(payload, '{escaped}{end}') = 1 OR strpos(payload, chr(10) || '{escaped}{end}') > 0")
    };
    format!("({} OR {})", begins(','), begins(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_s_name_is_looked_for_as_lines_spell_it() {
        let condition = is_of_table("it's, ok");
        assert!(condition.contains("strpos(payload, 'it''s\\,\\ ok,') = 1"), "{condition}");
        assert!(condition.contains("strpos(payload, chr(10) || 'it''s\\,\\ ok ') > 0"), "{condition}");
    }
}
