//! Line by line against the crate `influxdb-line-protocol`; what of it is ours on purpose is in `compare`.

use std::fmt::Write;

use decode::line_protocol::Precision;
use model::{Rng, SplitMix64};

use super::compare::{Outcome, ends_by_itself, ours, ours_of_three, parse_as, theirs};
use crate::support::{Meaning, meaning, pick, seeds};

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
        if ends_by_itself(&line) {
            assert_eq!(ours_of_three(&line), ours, "seed {seed}: {line:?}");
        }
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
        check_body(seed, &lines);
    }
}

/// The same of lines that look alike, as those of sensors, and of lines among them that nearly do.
#[test]
fn lines_that_look_alike_mean_what_they_mean_one_by_one() {
    let names =
        ["t", "temp", "a=b", "pressure", "b", "sixteen_bytes_", "fifteen_bytes_", "far_more_than_sixteen_bytes", "k"];
    for seed in seeds(3_000) {
        let rng = SplitMix64::new(seed);
        let fields: Vec<&str> = (0..1 + rng.below(4)).map(|_| pick(&rng, &names)).collect();
        let series = ["m", "m,k=1", "m,k=2", "m,k=3,l=1", "n,k=1"];
        let mut lines = Vec::new();
        while lines.len() < 20 {
            let mut line = pick(&rng, &series[..1 + seed as usize % series.len()]).to_owned();
            let width = if rng.below(12) == 0 { 1 + rng.below(fields.len() as u64) as usize } else { fields.len() };
            for (place, name) in fields[..width].iter().enumerate() {
                write!(line, "{}{}=", if place == 0 { ' ' } else { ',' }, name.replace('=', "\\=")).unwrap();
                let sign = if rng.below(4) == 0 { "-" } else { "" };
                match rng.below(12) {
                    0 => write!(line, "{sign}{}", rng.next_u64()),
                    1 => write!(line, "{sign}{}.{}e{}", rng.below(10), rng.below(1000), rng.below(40) as i64 - 20),
                    2 => write!(line, "{sign}{}.{:06}", rng.below(1000), rng.below(1_000_000)),
                    3 => write!(line, "{sign}{}", rng.below(100)),
                    _ => write!(line, "{sign}{}.{}", rng.below(2000), rng.below(10)),
                }
                .unwrap();
            }
            if rng.below(8) > 0 {
                write!(line, " {}", rng.next_u64() >> rng.below(40)).unwrap();
            }
            if rng.below(4) == 0 {
                line = mutated(&line, &rng);
            }
            if ends_by_itself(&line) {
                lines.push(line);
            }
        }
        check_body(seed, &lines);
    }
}

/// Fails if `lines` mean something else together than one by one.
fn check_body(seed: u64, lines: &[String]) {
    let (mut readings, mut messages) = (Vec::new(), Vec::new());
    for line in lines {
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
