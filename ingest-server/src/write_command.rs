//! `eden write`: files or standard input of line protocol to a running server.
//!
//! One request at a time: of two lines with one key the later one holds, and requests side by side would not keep that.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};

use model::{Clock as _, SystemClock};

use crate::cli::Target;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::progress::{self, Progress};
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
    /// The files, in their order; `-` is standard input.
    pub files: Vec<PathBuf>,
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
    let inputs = options.files.iter().map(|file| Input::open(file)).collect::<Result<Vec<_>, _>>()?;
    let total = inputs.iter().try_fold(0, |total: u64, input| Some(total + input.bytes?));
    let client = Client::find(target)?;
    let path = format!("/api/v3/write_lp?db={}&precision={}", percent(&options.db), percent(&options.precision));
    let are_several = inputs.len() > 1;
    let mut writer = Writer::new(client, path, total);
    for mut input in inputs {
        writer.file = if are_several { format!("{}: ", input.name) } else { String::new() };
        writer.read = 0;
        loop {
            let batch = Batch::read(&mut input.lines)
                .map_err(|e| Failure::work(format!("read the lines of {}: {e}", input.name)))?;
            if batch.bytes.is_empty() {
                break;
            }
            writer.send(&batch)?;
        }
    }
    writer.progress.clear();
    let Writer { readings, refused, batches, .. } = writer;
    let stored = readings.saturating_sub(refused);
    // Whoever closed the pipe does not want to know; the exit code still tells.
    let _ = writeln!(io::stdout(), "{stored} lines stored, {refused} refused, in {batches} batches");
    if refused > 0 { Err(Failure::work(format!("{refused} lines were refused"))) } else { Ok(()) }
}

/// Where lines come from.
struct Input {
    name: String,
    lines: Box<dyn BufRead>,
    /// If that is known before they are read.
    bytes: Option<u64>,
}

impl Input {
    fn open(file: &Path) -> Result<Self, Failure> {
        if file == Path::new("-") {
            let lines = Box::new(BufReader::with_capacity(1 << 20, io::stdin()));
            return Ok(Input { name: "standard input".to_owned(), lines, bytes: None });
        }
        let failed = |e| Failure::usage(format!("open {}: {e}", file.display()));
        let open = File::open(file).map_err(failed)?;
        let metadata = open.metadata().map_err(failed)?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Input { name: file.display().to_string(), lines: Box::new(BufReader::with_capacity(1 << 20, open)), bytes })
    }
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
    /// Begins what is said of lines, if there are several files.
    file: String,
    /// Lines of the file before the current batch.
    read: u64,
    readings: u64,
    refused: u64,
    shown: u64,
    batches: u64,
    /// Bytes that are written, and of how many if that is known.
    bytes: u64,
    total: Option<u64>,
    clock: SystemClock,
    progress: Progress,
}

impl Writer {
    fn new(client: Client, path: String, total: Option<u64>) -> Self {
        Writer {
            client,
            path,
            file: String::new(),
            read: 0,
            readings: 0,
            refused: 0,
            shown: 0,
            batches: 0,
            bytes: 0,
            total,
            clock: SystemClock::new(),
            progress: Progress::new(),
        }
    }

    fn send(&mut self, batch: &Batch) -> Result<(), Failure> {
        let answer = self.post(batch)?;
        match answer.status {
            204 => {}
            400 if self.report(&answer) => {}
            _ => {
                let stored = self.readings.saturating_sub(self.refused);
                let (first, last) = (self.read + 1, self.read + batch.lines);
                self.progress.clear();
                return Err(Failure::work(format!(
                    "{}lines {first} to {last} were not stored ({stored} before them were): {}",
                    self.file,
                    answer.error()
                )));
            }
        }
        self.batches += 1;
        self.readings += batch.readings;
        self.read += batch.lines;
        self.bytes += batch.bytes.len() as u64;
        let Writer { readings, bytes, total, clock, progress, .. } = self;
        let seconds = clock.monotonic().as_secs_f64();
        progress.show(|| {
            let share = total.map_or_else(|| progress::size(*bytes), |total| progress::share(*bytes, total));
            format!("{share}, {readings} lines, {:.0} lines/s", *readings as f64 / seconds)
        });
        Ok(())
    }

    /// Sends until the server is not busy.
    fn post(&mut self, batch: &Batch) -> Result<Answer, Failure> {
        send::post(&self.client, &self.path, &batch.bytes).map_err(|e| {
            let first = self.read + 1;
            self.progress.clear();
            Failure::work(format!(
                "{}the server went away ({e}); write again from line {first}, that changes nothing twice",
                self.file
            ))
        })
    }

    /// Names refused lines; false if the answer is another error.
    fn report(&mut self, answer: &Answer) -> bool {
        let json = answer.json();
        let Some(lines) = json["data"].as_array() else { return false };
        self.refused += answer.refused.unwrap_or(lines.len() as u64);
        self.progress.clear();
        for line in lines {
            self.shown += 1;
            if self.shown <= SHOWN_MAX {
                let number = self.read + line["line_number"].as_u64().unwrap_or_default();
                let reason = line["error_message"].as_str().unwrap_or_default();
                let original = line["original_line"].as_str().unwrap_or_default();
                eprintln!("{}line {number} refused: {reason}: {original}", self.file);
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
