//! `eden mqtt test`: what the MQTT listener would make of a message, without a server and without touching data.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use decode::line_protocol::{self, Options, Precision};
use decode::line_text::row_line;
use decode::mapping::{Message, RefusedPart, Rows};
use model::name::PUBLIC;
use model::{Clock as _, SystemClock, TableBatch};

use crate::config::Config;
use crate::failure::Failure;
use crate::mqtt::topic::{Kind, Topics};
use decode::unpack;

/// A message to try.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its topic.
    pub topic: String,
    /// What it says; else it is in `file`, else on standard input.
    pub payload: Option<String>,
    /// A file with what it says.
    pub file: Option<PathBuf>,
    /// MQTT 5: names and values.
    pub user_properties: Vec<(String, String)>,
}

/// What is made of a message.
struct Made {
    batches: Vec<TableBatch>,
    refused: Vec<RefusedPart>,
    refused_total: u64,
    ignored: bool,
}

/// Says which rule takes the message, the rows that would be stored, and what is refused.
///
/// # Errors
/// If no rule takes it, or a part of it is refused.
pub fn test(config: &Config, trial: &Trial) -> Result<(), Failure> {
    if trial.topic.is_empty() || trial.topic.contains(['+', '#', '\0']) {
        return Err(Failure::usage(format!("--topic: {:?} is no topic of a message", trial.topic)));
    }
    let topics = Topics::new(config).map_err(Failure::usage)?;
    let payload = payload(trial)?;
    let mut said = String::new();
    let made = made(config, &topics, trial, &payload, &mut said)?;
    let rows: usize = made.batches.iter().map(TableBatch::len).sum();
    match (rows, made.ignored) {
        (0, true) => said.push_str("the rule stores nothing of it\n"),
        (1, _) => said.push_str("1 row would be stored:\n"),
        _ => {
            let _ = writeln!(said, "{rows} rows would be stored{}", if rows > 0 { ":" } else { "" });
        }
    }
    for batch in &made.batches {
        for row in 0..batch.len() {
            let line = row_line(batch, row).unwrap_or_else(|| "a row that line protocol cannot say".into());
            let _ = writeln!(said, "  {line}");
        }
    }
    for RefusedPart { part, reason } in &made.refused {
        let of = match part {
            Some(part) => format!("refused: {}", String::from_utf8_lossy(part)),
            None => "refused as a whole".into(),
        };
        let _ = writeln!(said, "{of}\n  {reason}");
    }
    // Whoever closed the pipe does not want to know; the exit code still tells.
    let _ = io::stdout().write_all(said.as_bytes());
    match made.refused_total {
        0 => Ok(()),
        1 => Err(Failure::work("1 part is refused; a server would set it aside in system.quarantine")),
        parts => Err(Failure::work(format!("{parts} parts are refused; a server would set them aside"))),
    }
}

fn payload(trial: &Trial) -> Result<Vec<u8>, Failure> {
    match (&trial.payload, &trial.file) {
        (Some(payload), _) => Ok(payload.clone().into_bytes()),
        (None, Some(file)) => {
            std::fs::read(file).map_err(|error| Failure::usage(format!("read {}: {error}", file.display())))
        }
        (None, None) => {
            let mut payload = Vec::new();
            io::stdin()
                .read_to_end(&mut payload)
                .map_err(|error| Failure::usage(format!("read standard input: {error}")))?;
            Ok(payload)
        }
    }
}

fn made(config: &Config, topics: &Topics, trial: &Trial, payload: &[u8], said: &mut String) -> Result<Made, Failure> {
    let topic = &trial.topic;
    let kind = topics.kind(topic);
    let takes = topics.rules().find(topic);
    match (kind, takes) {
        (Kind::Rule(_) | Kind::Sparkplug(_) | Kind::Lines, Some((number, rule))) => {
            let name = if rule.name().is_empty() { String::new() } else { format!(" {:?}", rule.name()) };
            let filter = rule.filter_of(topic).unwrap_or_default();
            let _ = writeln!(said, "[[mqtt.rule]] number {}{name} takes {topic}, by the filter {filter}", number + 1);
            if kind == Kind::Lines {
                return Ok(lines(payload));
            }
            if rule.has_state() {
                said.push_str("as if it were the first message of its edge node: aliases are known by births only\n");
            }
            let mut rows = Rows::new(PUBLIC);
            let user_properties: Vec<(&str, &str)> =
                trial.user_properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let message =
                Message { topic, payload, user_properties: &user_properties, now_us: SystemClock::default().now_us() };
            let mapped = rule.map(&message, &mut rows);
            Ok(Made {
                batches: rows.finish(),
                refused: mapped.refused,
                refused_total: mapped.refused_total,
                ignored: mapped.ignored,
            })
        }
        (Kind::Lines, None) => {
            let by = if topic.starts_with("eden/v1/") { "a topic of agents" } else { "taken by [mqtt] line_protocol" };
            let _ = writeln!(said, "{topic} is {by}: line protocol");
            Ok(lines(payload))
        }
        (Kind::Zstd, _) => {
            let _ = writeln!(said, "{topic} is a topic of agents: line protocol, compressed by zstd");
            let unpacked = unpack::zstd(payload, config.http.max_body_bytes.bytes())
                .map_err(|_| Failure::work("the payload is not zstd, or unpacked larger than [http] max_body_bytes"))?;
            Ok(lines(&unpacked))
        }
        (Kind::Status, _) => Err(Failure::work(format!("{topic} is what an agent says of itself: see system.agents"))),
        (Kind::Command, _) => Err(Failure::work(format!("{topic} is a command for an agent: nothing is stored"))),
        (Kind::Own, _) => Err(Failure::work(format!("{topic} is one of the server's own topics: it is refused"))),
        (Kind::Unknown | Kind::Rule(_) | Kind::Sparkplug(_), _) => {
            Err(Failure::work(format!("no rule takes {topic}: a server would set the message aside")))
        }
    }
}

fn lines(payload: &[u8]) -> Made {
    let options = Options {
        schema: PUBLIC,
        precision: Precision::Nanosecond,
        now_us: SystemClock::default().now_us(),
        errors_max: decode::mapping::REFUSED_MAX,
    };
    let decoded = line_protocol::parse(payload, &options);
    let parts = line_protocol::lines_at(payload, decoded.errors.iter().map(|error| error.line));
    let refused = decoded.errors.iter().zip(parts).map(|(error, part)| RefusedPart {
        part: Some(part.to_vec()),
        reason: format!("line {}: {}", error.line, error.message),
    });
    Made { refused: refused.collect(), batches: decoded.batches, refused_total: decoded.errors_total, ignored: false }
}
