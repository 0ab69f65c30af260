//! An answer of `/_sql` as aligned columns.

use std::fmt::Write as _;

use model::time_text::{iso, iso_day};
use serde_json::Value;

/// CrateDB's numbers for types, as far as they are shown in a way of their own.
const TIMESTAMP_ZONED: u64 = 11;
const TIMESTAMP: u64 = 15;
const NUMERIC: u64 = 22;
const DATE: u64 = 24;
/// REAL, DOUBLE and the integers.
const NUMBERS: std::ops::RangeInclusive<u64> = 6..=10;

/// The rows with a line that counts them.
pub(super) fn render(answer: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let duration = answer["duration"].as_f64().unwrap_or_default();
    let count = answer["rowcount"].as_i64().unwrap_or_default();
    let names = list(&answer["cols"]);
    let mut out = String::new();
    let types: Vec<u64> = list(&answer["col_types"]).iter().map(|id| id.as_u64().unwrap_or_default()).collect();
    let head: Vec<String> = names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect();
    let rows: Vec<Vec<String>> = list(&answer["rows"])
        .iter()
        .map(|row| list(row).iter().zip(&types).map(|(value, id)| cell(value, *id)).collect())
        .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|i| rows.iter().chain([&head]).map(|row| row.get(i).map_or(0, |cell| width(cell))).max().unwrap_or(0))
        .collect();

    line(&mut out, &head, &widths, &types);
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let _ = writeln!(out, "{}", rules.join("+"));
    for row in &rows {
        line(&mut out, row, &widths, &types);
    }
    let _ = writeln!(out, "({count} {}, {duration:.1} ms)", if count == 1 { "row" } else { "rows" });
    out
}

fn line(out: &mut String, cells: &[String], widths: &[usize], types: &[u64]) {
    for (i, (cell, column)) in cells.iter().zip(widths).enumerate() {
        let pad = " ".repeat(column.saturating_sub(width(cell)));
        let right = types.get(i).is_some_and(|id| NUMBERS.contains(id) || *id == NUMERIC);
        let bar = if i > 0 { "|" } else { "" };
        let _ = if right { write!(out, "{bar} {pad}{cell} ") } else { write!(out, "{bar} {cell}{pad} ") };
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// Characters; wide and combining ones are off by a little, which only tables notice.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn cell(value: &Value, id: u64) -> String {
    match value {
        Value::Null => "NULL".into(),
        // A line break or control sequence in a text must not break the table or the terminal.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Number(ms) if matches!(id, TIMESTAMP_ZONED | TIMESTAMP) => {
            iso(microseconds(ms)) + if id == TIMESTAMP_ZONED { "Z" } else { "" }
        }
        Value::Number(ms) if id == DATE => iso_day(ms.as_i64().unwrap_or_default().div_euclid(86_400_000)),
        other => other.to_string(),
    }
}

/// Milliseconds with up to three decimals, exactly: a double holds them for 285 years around 1970.
fn microseconds(ms: &serde_json::Number) -> i64 {
    match ms.as_i64() {
        Some(whole) => whole.saturating_mul(1_000),
        None => (ms.as_f64().unwrap_or_default() * 1_000.0).round() as i64,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_are_aligned_numbers_to_the_right() {
        let answer = serde_json::json!({
            "cols": ["sensor", "temperature", "time", "big", "day"],
            "col_types": [4, 6, 11, 22, 24],
            "rows": [
                ["s1", 21.5, 1_780_272_000_000.123, "18446744073709551615", 1_780_272_000_000_i64],
                ["Küche\n", null, 1_780_272_000_000_i64, "1", null],
            ],
            "rowcount": 2, "duration": 0.81,
        });
        expect![[r#"
             sensor | temperature | time                        |                  big | day
            --------+-------------+-----------------------------+----------------------+------------
             s1     |        21.5 | 2026-06-01T00:00:00.000123Z | 18446744073709551615 | 2026-06-01
             Küche� |        NULL | 2026-06-01T00:00:00Z        |                    1 | NULL
            (2 rows, 0.8 ms)
        "#]]
        .assert_eq(&render(&answer));
    }
}
