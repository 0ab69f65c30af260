//! `eden write`: files or standard input of line protocol to a running server.
//!
//! Owns:     what is on its way, what is said of it, and where to go on after a failure.
//! Does not: decide which lines go together (`lanes`).
//!
//! Several requests are on their way at a time, but those of one series one after the other: of two lines with one key the
//! later one holds.

mod lanes;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard};

use model::{Clock as _, SystemClock};

use crate::cli::Target;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::transfer::{percent, send};
use lanes::{Lanes, Part};

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
    /// Requests on their way at a time.
    pub in_flight: usize,
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
    let named = |input: &Input| if are_several { format!("{}: ", input.name) } else { String::new() };
    let report = Mutex::new(Report::new(inputs.iter().map(named).collect(), total));
    let read = std::thread::scope(|scope| {
        // One waits while another is on its way.
        let workers = (0..options.in_flight.max(1)).map(|_| {
            let (lane, parts) = sync_channel(1);
            let (client, path, report) = (client.clone(), &path, &report);
            scope.spawn(move || work(&client, path, &parts, report));
            lane
        });
        read(inputs, &workers.collect::<Vec<_>>(), &report)
    });
    let mut report = report.into_inner().expect("no holder of this lock panics");
    report.progress.clear();
    read?;
    if let Some(failure) = report.failure.take() {
        return Err(report.unfinished(&failure));
    }
    let Report { readings, refused, batches, .. } = report;
    let stored = readings.saturating_sub(refused);
    // Whoever closed the pipe does not want to know; the exit code still tells.
    let _ = writeln!(io::stdout(), "{stored} lines stored, {refused} refused, in {batches} batches");
    if refused > 0 { Err(Failure::work(format!("{refused} lines were refused"))) } else { Ok(()) }
}

/// Hands the lines of all inputs to `workers`, until one of them has failed.
fn read(inputs: Vec<Input>, workers: &[SyncSender<Sent>], report: &Mutex<Report>) -> Result<(), Failure> {
    let mut lanes = Lanes::new(workers.len());
    let mut line = Vec::new();
    for (file, mut input) in inputs.into_iter().enumerate() {
        let hand_on = |(lane, part): (usize, Part)| {
            lock(report).waiting.insert((file, part.numbers[0]));
            workers[lane].send(Sent { file, part }).is_ok()
        };
        loop {
            line.clear();
            let read = input.lines.read_until(b'\n', &mut line);
            if read.map_err(|e| Failure::work(format!("read the lines of {}: {e}", input.name)))? == 0 {
                break;
            }
            let Some(full) = lanes.push(&line) else { continue };
            if !hand_on(full) {
                let waiting = lanes.first_waiting().map(|line| (file, line));
                lock(report).waiting.extend(waiting);
                return Ok(());
            }
        }
        for part in lanes.finish() {
            if !hand_on(part) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Sends the batches of one lane, until the reader or the server goes away.
fn work(client: &Client, path: &str, parts: &Receiver<Sent>, report: &Mutex<Report>) {
    for sent in parts {
        // Another lane's failure ends all: the less is behind it, the less there is to be sent again.
        if lock(report).failure.is_some() {
            return;
        }
        let answer = send::post(client, path, &sent.part.bytes);
        if !lock(report).note(&sent, answer) {
            return;
        }
    }
}

fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().expect("no holder of this lock panics")
}

/// A batch of a file, by the file's place.
struct Sent {
    file: usize,
    part: Part,
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

/// What has become of the lines.
struct Report {
    /// Begins what is said of lines, for each file.
    names: Vec<String>,
    /// File and first line of each batch that is not stored.
    waiting: BTreeSet<(usize, u64)>,
    readings: u64,
    refused: u64,
    shown: u64,
    batches: u64,
    /// Bytes that are written, and of how many if that is known.
    bytes: u64,
    total: Option<u64>,
    clock: SystemClock,
    progress: Progress,
    /// The first one.
    failure: Option<String>,
}

impl Report {
    fn new(names: Vec<String>, total: Option<u64>) -> Self {
        Report {
            names,
            waiting: BTreeSet::new(),
            readings: 0,
            refused: 0,
            shown: 0,
            batches: 0,
            bytes: 0,
            total,
            clock: SystemClock::new(),
            progress: Progress::new(),
            failure: None,
        }
    }

    /// Notes what the server said to a batch; false if it is not stored.
    fn note(&mut self, sent: &Sent, answer: Result<Answer, ureq::Error>) -> bool {
        let failure = match answer {
            Ok(answer) if answer.status == 204 => None,
            Ok(answer) if answer.status == 400 && self.refuse(sent, &answer) => None,
            Ok(answer) => Some(answer.error()),
            Err(e) => Some(format!("the server went away: {e}")),
        };
        if let Some(failure) = failure {
            self.failure.get_or_insert(failure);
            return false;
        }
        self.waiting.remove(&(sent.file, sent.part.numbers[0]));
        self.batches += 1;
        self.readings += sent.part.readings;
        self.bytes += sent.part.bytes.len() as u64;
        let Report { readings, bytes, total, clock, progress, .. } = self;
        let seconds = clock.monotonic().as_secs_f64();
        progress.show(|| {
            let share = total.map_or_else(|| progress::size(*bytes), |total| progress::share(*bytes, total));
            format!("{share}, {readings} lines, {:.0} lines/s", *readings as f64 / seconds)
        });
        true
    }

    /// Names refused lines; false if the answer is another error.
    fn refuse(&mut self, sent: &Sent, answer: &Answer) -> bool {
        let json = answer.json();
        let Some(lines) = json["data"].as_array() else { return false };
        self.refused += answer.refused.unwrap_or(lines.len() as u64);
        self.progress.clear();
        for line in lines {
            self.shown += 1;
            if self.shown <= SHOWN_MAX {
                let in_batch =
                    line["line_number"].as_u64().and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
                let number = in_batch.and_then(|at| sent.part.numbers.get(at)).copied().unwrap_or_default();
                let reason = line["error_message"].as_str().unwrap_or_default();
                let original = line["original_line"].as_str().unwrap_or_default();
                eprintln!("{}line {number} refused: {reason}: {original}", self.names[sent.file]);
            } else if self.shown == SHOWN_MAX + 1 {
                eprintln!("further refused lines are counted, not shown");
            }
        }
        !lines.is_empty()
    }

    /// What to do after `failure`.
    fn unfinished(&self, failure: &str) -> Failure {
        let stored = self.readings.saturating_sub(self.refused);
        let (file, line) = self.waiting.first().copied().unwrap_or_default();
        let name = self.names.get(file).map_or("", String::as_str);
        Failure::work(format!(
            "{name}lines from {line} on were not all stored ({stored} lines were): {failure}; write again from line {line}, \
             that changes nothing twice"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &str) -> Vec<u64> {
        let mut input = text.as_bytes();
        std::iter::from_fn(|| {
            let batch = Batch::read(&mut input).unwrap();
            (!batch.bytes.is_empty()).then_some(batch.lines)
        })
        .collect()
    }

    #[test]
    fn batches_are_of_whole_lines() {
        assert_eq!(batches("").len(), 0);
        assert_eq!(batches("a v=1"), [1]);
        assert_eq!(batches(&"a v=1\n".repeat(12_000)), [5_000, 5_000, 2_000]);
        assert_eq!(batches("# c\n\n a v=1\n"), [3]);
    }

    #[test]
    fn a_text_of_two_lines_is_not_cut() {
        let text = format!("{}a v=\"x\ny\"\na v=2\n", "a v=1\n".repeat(4_999));
        assert_eq!(batches(&text), [5_001, 1]);
        // A quote in a tag or behind a backslash opens nothing.
        let text = format!("{}a,t=\"x v=\"\\\"\"\na v=2\n", "a v=1\n".repeat(4_999));
        assert_eq!(batches(&text), [5_000, 1]);
        // A text that never ends does not swallow the file.
        let text = format!("a v=\"x\n{}", "a v=1\n".repeat(7_000));
        assert_eq!(batches(&text), [6_000, 1_001]);
    }
}
