//! Line by line against the crate `influxdb-line-protocol`, which InfluxDB 3 uses. Where the two differ, the
//! difference is written here and in `docs/formats/line-protocol.md`.

use std::fmt::Write;

use decode::line_protocol::Precision;
use influxdb_line_protocol::{FieldValue, ParsedLine, parse_lines};
use model::name::{check_column_name, check_name};
use model::{Rng, SeriesKey, SplitMix64, Value};

use super::{NOW_US, parse_as, shown};
use crate::support::{Meaning, meaning, pick, seeds, value};

/// What the oracle makes of a line.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Blank or a comment.
    Nothing,
    Refused,
    /// In the form of `support::readings`.
    Reading(String),
}

fn ours(line: &str) -> Outcome {
    let decoded = parse_as(Precision::Microsecond, line.as_bytes());
    assert!(decoded.lines <= 1, "{line:?} is one line");
    match (decoded.lines, shown(&decoded).as_slice()) {
        (0, []) => Outcome::Nothing,
        (1, [one]) if one.starts_with('!') => Outcome::Refused,
        (1, [one]) => Outcome::Reading(one.clone()),
        other => panic!("{line:?} gives {other:?}"),
    }
}

/// What the crate makes of `line`, with our deviations applied.
fn theirs(line: &str) -> Outcome {
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

/// A line that is good more often than not.
fn seeded_line(rng: &SplitMix64) -> String {
    let names = ["m", "cpu", "a b", "x,y", "k=v", "straße", "C:\\n", "q\"q", "b\\\\c", "_", "temp", "t", "time", "#1"];
    let texts = ["", "x", "two words", "a,b=c", "\\\"", "\\\\", "\\n", "é", "#", "'"];
    let escape = |name: &str, rng: &SplitMix64| {
        let mut out = String::new();
        for c in name.chars() {
            if matches!(c, ',' | '=' | ' ') && rng.below(12) > 0 || rng.below(60) == 0 {
                out.push('\\');
            }
            out.push(c);
        }
        out
    };
    let spaces = |rng: &SplitMix64| " ".repeat(if rng.below(8) == 0 { rng.below(3) as usize } else { 1 });
    let mut line = escape(pick(rng, &names), rng);
    for _ in 0..rng.below(4) {
        write!(line, ",{}={}", escape(pick(rng, &names), rng), escape(pick(rng, &names), rng)).unwrap();
    }
    line.push_str(&spaces(rng));
    for i in 0..=rng.below(4) {
        if i > 0 {
            line.push(',');
        }
        write!(line, "{}=", escape(pick(rng, &names), rng)).unwrap();
        let digits = rng.next_u64() >> rng.below(64);
        match rng.below(8) {
            0 => write!(line, "{}i", digits as i64),
            1 => write!(line, "{digits}u"),
            2 => write!(line, "{}", digits as i64),
            3 => write!(line, "-{}.{digits}", rng.below(1000)),
            4 => write!(line, "{}.{}e{}", rng.below(1000), rng.below(1000), rng.below(660) as i64 - 330),
            5 => {
                write!(line, "{}", pick(rng, &["t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"]))
            }
            _ => write!(line, "\"{}\"", pick(rng, &texts)),
        }
        .unwrap();
    }
    if rng.below(3) > 0 {
        write!(line, "{}{}", spaces(rng), (rng.next_u64() >> rng.below(64)) as i64).unwrap();
    }
    line
}

/// Changes up to two characters, to others that matter to the grammar.
fn mutated(line: &str, rng: &SplitMix64) -> String {
    let special: Vec<char> = ",= \\\"#\t\0\r.-+eEiutTfF0195xé".chars().collect();
    let mut chars: Vec<char> = line.chars().collect();
    for _ in 0..rng.below(5).saturating_sub(2) {
        if chars.is_empty() {
            break;
        }
        let at = rng.below(chars.len() as u64) as usize;
        let c = special[rng.below(special.len() as u64) as usize];
        match rng.below(3) {
            0 => chars[at] = c,
            1 => chars.insert(at, c),
            _ => drop(chars.remove(at)),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn every_line_means_what_it_means_to_the_oracle() {
    let (mut readings, mut refused) = (0, 0);
    for seed in seeds(20_000) {
        let rng = SplitMix64::new(seed);
        let line = mutated(&seeded_line(&rng), &rng);
        let ours = ours(&line);
        match &ours {
            Outcome::Reading(_) => readings += 1,
            Outcome::Refused => refused += 1,
            Outcome::Nothing => {}
        }
        assert_eq!(ours, theirs(&line), "seed {seed}: {line:?}");
    }
    assert!(readings > 5_000 && refused > 5_000, "{readings} readings and {refused} refusals test too little");
}

/// The readings and the messages of `body`, sorted.
fn meaning_and_messages(body: &[u8]) -> (Meaning, Vec<String>) {
    let decoded = parse_as(Precision::Microsecond, body);
    let mut messages: Vec<String> = decoded.errors.into_iter().map(|error| error.message).collect();
    messages.sort();
    (meaning(&decoded.batches), messages)
}

/// True unless `line` has a text or an escape that goes on behind it.
fn ends_by_itself(line: &str) -> bool {
    let marker = "\nmarker f=\"\"";
    let lines = |body: &str| parse_as(Precision::Microsecond, body.as_bytes()).lines;
    let decoded = parse_as(Precision::Microsecond, format!("{line}{marker}").as_bytes());
    let last = decoded.batches.last().is_some_and(|batch| batch.table.to_string() == "marker");
    last && decoded.lines == lines(line) + 1
}

/// A body of lines that end by themselves means what its lines mean one by one, also if it is read line by line
/// because some other line of it is not UTF-8.
#[test]
fn a_body_means_what_its_lines_mean() {
    for seed in seeds(2_000) {
        let rng = SplitMix64::new(seed);
        let mut lines: Vec<String> = Vec::new();
        while lines.len() < 8 {
            let mut line = mutated(&seeded_line(&rng), &rng);
            if rng.below(4) == 0 {
                line = line.replacen('x', "x\nm f=1", 1);
            }
            if ends_by_itself(&line) {
                lines.push(line);
            }
        }
        let (mut readings, mut messages) = (Vec::new(), Vec::new());
        for line in &lines {
            let one = meaning_and_messages(line.as_bytes());
            readings.extend(one.0);
            messages.extend(one.1);
        }
        readings.sort();
        messages.sort();

        let mut body = lines.join("\n").into_bytes();
        let at_once = meaning_and_messages(&body);
        assert!(at_once.0 == readings && at_once.1 == messages, "seed {seed}: {lines:?} give {at_once:?}");

        body.extend_from_slice(b"\n\xff");
        messages.push("byte 1: the line is not UTF-8; send text in that encoding".to_owned());
        messages.sort();
        let with_more = meaning_and_messages(&body);
        assert!(with_more.0 == readings && with_more.1 == messages, "seed {seed}: {lines:?} give {with_more:?}");
    }
}
