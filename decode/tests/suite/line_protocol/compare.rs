//! What a line means to us and to the crate `influxdb-line-protocol`, which InfluxDB 3 uses. Where the two differ, the
//! difference is written here and in `docs/formats/line-protocol.md`. Seeded lines are compared in `oracle`, and those that
//! coverage leads to in the room `fuzz`.

use std::fmt::Write;

use decode::line_protocol::{Decoded, Options, Precision, parse};
use influxdb_line_protocol::{FieldValue, ParsedLine, parse_lines};
use model::name::{check_column_name, check_name};
use model::{SeriesKey, Value};

use crate::support::{readings, value};

pub(crate) const NOW_US: i64 = 1_000_000_000_000_000;

pub(crate) fn parse_as(precision: Precision, body: &[u8]) -> Decoded {
    parse(body, &Options { schema: "public", precision, now_us: NOW_US, errors_max: 1000 })
}

/// What the oracle makes of a line.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Blank or a comment.
    Nothing,
    Refused,
    /// In the form of `support::readings`.
    Reading(String),
}

pub(crate) fn ours(line: &str) -> Outcome {
    let decoded = parse_as(Precision::Microsecond, line.as_bytes());
    assert!(decoded.lines <= 1, "{line:?} is one line");
    match (decoded.lines, readings(&decoded.batches).as_slice(), decoded.errors.len()) {
        (0, [], 0) => Outcome::Nothing,
        (1, [], 1) => Outcome::Refused,
        (1, [one], 0) => Outcome::Reading(one.clone()),
        other => panic!("{line:?} gives {other:?}"),
    }
}

/// As [`ours`], of the line and two that are the same, which are read another way; it has to end by itself.
pub(crate) fn ours_of_three(line: &str) -> Outcome {
    let decoded = parse_as(Precision::Microsecond, [line; 3].join("\n").as_bytes());
    match (decoded.lines, readings(&decoded.batches).as_slice(), decoded.errors.len()) {
        (0, [], 0) => Outcome::Nothing,
        (3, [], 3) => Outcome::Refused,
        (3, [one, two, three], 0) if one == two && two == three => Outcome::Reading(one.clone()),
        other => panic!("three times {line:?} gives {other:?}"),
    }
}

/// True unless `line` has a text or an escape that goes on behind it.
pub(crate) fn ends_by_itself(line: &str) -> bool {
    let marker = "\nmarker f=\"\"";
    let lines = |body: &str| parse_as(Precision::Microsecond, body.as_bytes()).lines;
    let decoded = parse_as(Precision::Microsecond, format!("{line}{marker}").as_bytes());
    let last = decoded.batches.last().is_some_and(|batch| batch.table.to_string() == "marker");
    last && decoded.lines == lines(line) + 1
}

/// What the crate makes of `line`, with our deviations applied.
pub(crate) fn theirs(line: &str) -> Outcome {
    // Deviation: spaces after the fields, and a carriage return at the end, are allowed.
    let line = line.strip_suffix('\r').unwrap_or(line);
    let trimmed = line.trim_end_matches(' ');
    let line = if trimmed.ends_with('\\') { line } else { trimmed };
    let mut lines = parse_lines(line);
    let first = lines.next();
    assert!(lines.next().is_none(), "{line:?} is one line");
    match first {
        None => Outcome::Nothing,
        Some(Err(_)) => Outcome::Refused,
        Some(Ok(parsed)) => match refusal(line, &parsed) {
            true => Outcome::Refused,
            false => Outcome::Reading(reading(&parsed)),
        },
    }
}

/// Deviations: what the crate takes and we refuse.
fn refusal(line: &str, parsed: &ParsedLine<'_>) -> bool {
    let tags = parsed.series.tag_set.iter().flatten();
    let names_of_tags: Vec<&str> = tags.clone().map(|(name, _)| name.as_str()).collect();
    let repeated = (1..names_of_tags.len()).any(|i| names_of_tags[..i].contains(&names_of_tags[i]));
    // The names that storage cannot have.
    let bad_name = check_name("measurement", &parsed.series.measurement).is_err()
        || names_of_tags.iter().any(|name| check_column_name("tag", name).is_err())
        || parsed.field_set.iter().any(|(name, _)| check_column_name("field", name).is_err());
    let control = tags.clone().any(|(_, value)| value.chars().any(char::is_control));
    let tag_and_field = parsed.field_set.iter().any(|(name, _)| names_of_tags.contains(&name.as_str()));
    let infinite = parsed.field_set.iter().any(|(_, value)| matches!(value, FieldValue::F64(f) if f.is_infinite()));
    // A comma in a name must be escaped: `m,a,b=1` is a tag without a value, not the tag `a,b`.
    let separators = names_of_tags.len() + parsed.field_set.len() - 1;
    let bare_comma = bare_commas(line) > separators;
    repeated || bad_name || control || tag_and_field || infinite || bare_comma
}

/// Commas of a good line that are neither escaped nor in a text.
fn bare_commas(line: &str) -> usize {
    let (mut commas, mut in_fields, mut in_text, mut last) = (0, false, false, ' ');
    let mut chars = line.trim_start_matches([' ', '\t']).chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' if in_text => in_text = false,
            '"' if in_fields && last == '=' => in_text = true,
            ',' if !in_text => commas += 1,
            ' ' => in_fields = true,
            _ => {}
        }
        last = if c == '\\' { ' ' } else { c };
    }
    commas
}

fn reading(parsed: &ParsedLine<'_>) -> String {
    let tags = parsed.series.tag_set.iter().flatten();
    let key = SeriesKey::from_tags(tags.map(|(name, value)| (name.as_str(), value.as_str())));
    let mut shown = format!("{}[{key}]", parsed.series.measurement);
    // Of a repeated field the later value counts, in the earlier place.
    let mut fields: Vec<(&str, String)> = Vec::new();
    for (name, field) in &parsed.field_set {
        let text = value(match field {
            FieldValue::F64(value) => Value::F64(*value),
            FieldValue::I64(value) => Value::I64(*value),
            FieldValue::U64(value) => Value::U64(*value),
            FieldValue::Boolean(value) => Value::Bool(*value),
            FieldValue::String(value) => Value::Text(value),
        });
        match fields.iter_mut().find(|(other, _)| *other == name.as_str()) {
            Some((_, old)) => *old = text,
            None => fields.push((name, text)),
        }
    }
    for (name, value) in fields {
        write!(shown, " {name}={value}").unwrap();
    }
    shown + &format!(" @{}", parsed.timestamp.unwrap_or(NOW_US))
}
