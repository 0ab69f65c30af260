//! The newest lines of the agent's log, for a server that asks for them.
//!
//! Owns:     a bounded memory of lines, and what they are as line protocol.
//! Does not: format lines (`tracing_subscriber`), or send them (`uplink`).
//!
//! Invariant: no line is older than one that was left out, neither in memory nor in what is sent.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::sensor::escape_tag;
use crate::timepiece::{SystemTimepiece, Timepiece};

/// Bytes of lines that are kept.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a message at most.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// What is longer of a line is cut off.
const LINE_BYTES_MAX: usize = 2 << 10;
/// About what a line takes besides its text.
const LINE_BYTES: usize = 64;

/// The newest lines; whatever writes the log's lines gives them to it ([`LogLines::writer`]).
#[derive(Debug)]
pub struct LogLines {
    timepiece: Arc<dyn Timepiece>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The time of the newest: no two have the same, which is a part of their key at the server.
    last_us: i64,
}

#[derive(Debug)]
struct Line {
    /// By the clock since boot.
    boot_us: i64,
    level: Level,
    text: String,
}

impl LogLines {
    /// None yet; their times are by `timepiece`.
    pub fn new(timepiece: Arc<dyn Timepiece>) -> Self {
        LogLines { timepiece, kept: Mutex::default() }
    }

    /// What a formatting layer writes to: standard error, and here.
    pub fn writer(self: &Arc<Self>) -> LogWriter {
        LogWriter(Arc::clone(self))
    }

    fn keep(&self, level: Level, bytes: &[u8]) {
        let text = printable(&String::from_utf8_lossy(bytes));
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        kept.last_us = self.timepiece.boot_us().max(kept.last_us + 1);
        kept.bytes += text.len() + LINE_BYTES;
        let line = Line { boot_us: kept.last_us, level, text };
        kept.lines.push_back(line);
        while kept.bytes > KEPT_BYTES_MAX
            && let Some(line) = kept.lines.pop_front()
        {
            kept.bytes -= line.text.len() + LINE_BYTES;
        }
    }

    /// The newest lines as line protocol, times in nanoseconds, and how many; `offset_us` is added to the clock since boot.
    pub(crate) fn message(&self, agent: &str, offset_us: i64) -> (String, usize) {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        let mut lines = Vec::new();
        let mut bytes = 0;
        for Line { boot_us, level, text } in kept.lines.iter().rev() {
            let mut line = "agent_log,agent=".to_owned();
            escape_tag(&mut line, agent);
            let _ = write!(line, ",level={} line=\"", level.as_str().to_ascii_lowercase());
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    line.push('\\');
                }
                line.push(c);
            }
            let time_us = boot_us.saturating_add(offset_us);
            let _ = writeln!(line, "\" {}", time_us.saturating_mul(1_000));
            bytes += line.len();
            if bytes > MESSAGE_BYTES_MAX {
                break;
            }
            lines.push(line);
        }
        let count = lines.len();
        lines.reverse();
        (lines.concat(), count)
    }
}

/// Of this machine's clock since boot.
impl Default for LogLines {
    fn default() -> Self {
        Self::new(Arc::new(SystemTimepiece::new()))
    }
}

/// A line without colours and control characters, cut to its most.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    let mut chars = text.trim_end().chars();
    while let Some(c) = chars.next() {
        if out.len() + c.len_utf8() > LINE_BYTES_MAX {
            break;
        }
        match c {
            // A sequence of a terminal ends with a letter.
            '\u{1b}' => _ = chars.by_ref().find(char::is_ascii_alphabetic),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Writes lines to standard error and keeps them.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<LogLines>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { lines: &self.0, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter<'a> {
        LineWriter { lines: &self.0, level: *metadata.level() }
    }
}

/// Takes one line, whole.
#[derive(Debug)]
pub struct LineWriter<'a> {
    lines: &'a LogLines,
    level: Level,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.keep(self.level, bytes);
        // Whole, or the rest would be another line.
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> LogLines {
        LogLines::default()
    }

    #[test]
    fn lines_become_line_protocol_with_times_of_their_own() {
        let lines = lines();
        lines.keep(Level::WARN, b"\x1b[2m2026-06-01\x1b[0m a \"b\" c:\\d\te\n");
        lines.keep(Level::INFO, "größer".as_bytes());
        let offset_us = 1_780_272_000_000_000;
        let (message, count) = lines.message("pi,7", offset_us);
        let mut times = Vec::new();
        let mut texts = Vec::new();
        for line in message.lines() {
            let (text, time) = line.rsplit_once(' ').unwrap();
            texts.push(text);
            times.push(time.parse::<i64>().unwrap());
        }
        assert_eq!(
            texts,
            [
                r#"agent_log,agent=pi\,7,level=warn line="2026-06-01 a \"b\" c:\\d e""#,
                r#"agent_log,agent=pi\,7,level=info line="größer""#
            ]
        );
        assert!(count == 2 && offset_us * 1_000 < times[0] && times[0] < times[1], "{times:?}");
        assert_eq!(lines.message("pi,7", offset_us).0, message, "asked again they are the same readings");
    }

    #[test]
    fn memory_and_message_have_a_limit_and_the_newest_lines_are_kept() {
        for text in ["x".repeat(100), "\"".repeat(5_000), "é".repeat(3_000), String::new()] {
            let lines = lines();
            for number in 0..3_000 {
                lines.keep(Level::INFO, format!("{number} {text}\n").as_bytes());
            }
            assert!(lines.kept.lock().unwrap().bytes <= KEPT_BYTES_MAX);
            let (message, count) = lines.message("pi-7", 0);
            assert!(message.len() <= MESSAGE_BYTES_MAX && count > 10, "{count} lines");
            let numbers = message.lines().map(|line| line.split(['"', ' ']).nth(2).unwrap().parse::<usize>().unwrap());
            assert!(numbers.eq(3_000 - count..3_000));
        }
    }
}
