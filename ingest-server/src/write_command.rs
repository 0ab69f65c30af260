//! `eden write`: a file or standard input of line protocol to a running server.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::Target;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::transfer::{percent, send};

/// Lines a request.
const BATCH_LINES: usize = 5_000;
/// Bytes a request: well below the server's default limit.
const BATCH_BYTES: usize = 4 << 20;
/// Lines by which a batch may grow so as not to end within a text of several lines.
const TEXT_LINES_MAX: usize = 1_000;
/// Refused lines that are shown.
const SHOWN_MAX: u64 = 20;

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// The schema.
    pub db: String,
    /// The unit of times.
    pub precision: String,
}

/// Runs the command.
///
/// # Errors
/// If a line was refused or a batch could not be stored.
pub fn run(options: &Options, target: &Target) -> Result<(), Failure> {
    let mut input: Box<dyn BufRead> = if options.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let open = File::open(&options.file);
        let file = open.map_err(|e| Failure::usage(format!("open {}: {e}", options.file.display())))?;
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let client = Client::find(target)?;
    let path = format!("/api/v3/write_lp?db={}&precision={}", percent(&options.db), percent(&options.precision));
    let mut writer = Writer { client, path, read: 0, readings: 0, refused: 0, shown: 0, batches: 0 };
    loop {
        let batch = Batch::read(&mut input).map_err(|e| Failure::work(format!("read the lines: {e}")))?;
        if batch.bytes.is_empty() {
            break;
        }
        writer.send(&batch)?;
    }
    let Writer { readings, refused, batches, .. } = writer;
    let stored = readings.saturating_sub(refused);
    // Whoever closed the pipe does not want to know; the exit code still tells.
    let _ = writeln!(io::stdout(), "{stored} lines stored, {refused} refused, in {batches} batches");
    if refused > 0 { Err(Failure::work(format!("{refused} lines were refused"))) } else { Ok(()) }
}

/// Whole lines of line protocol.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// Line breaks in `bytes`.
    pub(crate) lines: u64,
    /// Lines that are neither blank nor comments; one of several lines counts once.
    readings: u64,
}

impl Batch {
    /// The next lines; none at the end.
    pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Self> {
        let mut batch = Batch::default();
        let mut text = TextState::default();
        loop {
            let start = batch.bytes.len();
            if input.read_until(b'\n', &mut batch.bytes)? == 0 {
                return Ok(batch);
            }
            batch.lines += 1;
            if !text.is_inside {
                let first = batch.bytes[start..].iter().find(|byte| !byte.is_ascii_whitespace());
                batch.readings += u64::from(first.is_some_and(|byte| *byte != b'#'));
            }
            text.read_line(&batch.bytes[start..]);
            let full = batch.lines as usize >= BATCH_LINES || batch.bytes.len() >= BATCH_BYTES;
            let endless = batch.lines as usize >= BATCH_LINES + TEXT_LINES_MAX;
            if full && (!text.is_inside || endless) {
                return Ok(batch);
            }
        }
    }
}

/// Whether a line ends within a text value, which may have line breaks.
#[derive(Debug, Default)]
struct TextState {
    is_inside: bool,
    in_fields: bool,
}

impl TextState {
    fn read_line(&mut self, line: &[u8]) {
        if !self.is_inside {
            self.in_fields = false;
            if line.trim_ascii_start().starts_with(b"#") {
                return;
            }
        }
        let mut last = 0;
        let mut escaped = false;
        for byte in line {
            match byte {
                _ if std::mem::take(&mut escaped) => {}
                b'\\' => escaped = true,
                b'"' if self.is_inside => self.is_inside = false,
                b'"' if self.in_fields && last == b'=' => self.is_inside = true,
                b' ' if !self.is_inside => self.in_fields = true,
                _ => {}
            }
            last = *byte;
        }
    }
}

struct Writer {
    client: Client,
    path: String,
    /// Lines before the current batch.
    read: u64,
    readings: u64,
    refused: u64,
    shown: u64,
    batches: u64,
}

impl Writer {
    fn send(&mut self, batch: &Batch) -> Result<(), Failure> {
        let answer = self.post(batch)?;
        match answer.status {
            204 => {}
            400 if self.report(&answer) => {}
            _ => {
                let stored = self.readings.saturating_sub(self.refused);
                let (first, last) = (self.read + 1, self.read + batch.lines);
                return Err(Failure::work(format!(
                    "lines {first} to {last} were not stored ({stored} before them were): {}",
                    answer.error()
                )));
            }
        }
        self.batches += 1;
        self.readings += batch.readings;
        self.read += batch.lines;
        Ok(())
    }

    /// Sends until the server is not busy.
    fn post(&self, batch: &Batch) -> Result<Answer, Failure> {
        send::post(&self.client, &self.path, &batch.bytes).map_err(|e| {
            let first = self.read + 1;
            Failure::work(format!(
                "the server went away ({e}); write again from line {first}, that changes nothing twice"
            ))
        })
    }

    /// Names refused lines; false if the answer is another error.
    fn report(&mut self, answer: &Answer) -> bool {
        let json = answer.json();
        let Some(lines) = json["data"].as_array() else { return false };
        self.refused += answer.refused.unwrap_or(lines.len() as u64);
        for line in lines {
            self.shown += 1;
            if self.shown <= SHOWN_MAX {
                let number = self.read + line["line_number"].as_u64().unwrap_or_default();
                let reason = line["error_message"].as_str().unwrap_or_default();
                eprintln!("line {number} refused: {reason}: {}", line["original_line"].as_str().unwrap_or_default());
            } else if self.shown == SHOWN_MAX + 1 {
                eprintln!("further refused lines are counted, not shown");
            }
        }
        !lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &str) -> Vec<(u64, u64)> {
        let mut input = text.as_bytes();
        std::iter::from_fn(|| {
            let batch = Batch::read(&mut input).unwrap();
            (!batch.bytes.is_empty()).then_some((batch.lines, batch.readings))
        })
        .collect()
    }

    #[test]
    fn batches_are_of_whole_lines() {
        assert_eq!(batches(""), []);
        assert_eq!(batches("a v=1"), [(1, 1)]);
        assert_eq!(batches(&"a v=1\n".repeat(12_000)), [(5_000, 5_000), (5_000, 5_000), (2_000, 2_000)]);
        assert_eq!(batches("# c\n\n a v=1\n"), [(3, 1)]);
    }

    #[test]
    fn a_text_of_two_lines_is_not_cut() {
        let text = format!("{}a v=\"x\ny\"\na v=2\n", "a v=1\n".repeat(4_999));
        assert_eq!(batches(&text), [(5_001, 5_000), (1, 1)]);
        // A quote in a tag or behind a backslash opens nothing.
        let text = format!("{}a,t=\"x v=\"\\\"\"\na v=2\n", "a v=1\n".repeat(4_999));
        assert_eq!(batches(&text), [(5_000, 5_000), (1, 1)]);
        // A text that never ends does not swallow the file.
        let text = format!("a v=\"x\n{}", "a v=1\n".repeat(7_000));
        assert_eq!(batches(&text), [(6_000, 1), (1_001, 1_001)]);
    }
}
