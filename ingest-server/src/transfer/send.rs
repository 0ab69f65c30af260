//! Lines of line protocol to the server, and what it says of them.
//!
//! Owns:     waiting for a busy server, bodies that are too large for it, and which row of a file a refused line is.
//! Does not: make lines.
//!
//! Invariant: what [`Sender::send`] returns `Ok` for is durable, but for the rows that it names (P1).

use std::time::Duration;

use super::percent;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::stop_flag::StopFlag;

/// How often a body is sent to a server that says that it is busy.
const TRIES_MAX: u32 = 60;
/// Bytes of one body: well below the server's default limit.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Posts lines until the server is not busy.
///
/// # Errors
/// If it cannot be reached or goes away.
pub(crate) fn post(client: &Client, path: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
    let pause = StopFlag::new();
    let mut tries = 0;
    loop {
        let answer = client.post(path, "text/plain; charset=utf-8", body)?;
        tries += 1;
        if !matches!(answer.status, 429 | 503) || tries >= TRIES_MAX {
            return Ok(answer);
        }
        // A stopping server does not come back at this address by itself: say what we wait for.
        eprintln!("waiting: {}", answer.error());
        pause.wait(Duration::from_secs(answer.retry_after.unwrap_or(1).clamp(1, 30)));
    }
}

/// Lines, each with the place in the file that it is from.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) bytes: Vec<u8>,
    /// Where each begins, and its place.
    starts: Vec<(usize, u64)>,
}

impl Lines {
    /// Notes that a line of this place is what is written next.
    pub(crate) fn begin(&mut self, place: u64) {
        self.starts.push((self.bytes.len(), place));
    }

    /// Takes the line begun last back.
    pub(crate) fn undo(&mut self) {
        if let Some((start, _)) = self.starts.pop() {
            self.bytes.truncate(start);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The bytes of the lines in `range`.
    fn slice(&self, range: std::ops::Range<usize>) -> &[u8] {
        let at = |i: usize| self.starts.get(i).map_or(self.bytes.len(), |(start, _)| *start);
        &self.bytes[at(range.start)..at(range.end)]
    }

    /// As many lines from `first` as fit into a body, at least one.
    fn fitting(&self, first: usize, bytes_max: usize) -> usize {
        let end = self.starts[first].0 + bytes_max;
        let fit = self.starts[first..].partition_point(|(start, _)| *start <= end);
        // The last of these begins within the bound, but need not end there.
        let is_all = first + fit == self.starts.len() && self.bytes.len() <= end;
        first + if is_all { fit } else { (fit - 1).max(1) }
    }
}

/// A row that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) place: u64,
    pub(crate) reason: String,
}

/// Sends to one schema.
#[derive(Debug)]
pub(crate) struct Sender {
    client: Client,
    path: String,
    body_bytes_max: usize,
}

impl Sender {
    pub(crate) fn new(client: &Client, schema: &str, precision: &str) -> Sender {
        let path = format!("/api/v3/write_lp?db={}&precision={precision}", percent(schema));
        Sender { client: client.clone(), path, body_bytes_max: BODY_BYTES_MAX }
    }

    /// Stores lines; returns how many were refused, and those that the server names.
    ///
    /// # Errors
    /// If some are not known to be durable.
    pub(crate) fn send(&mut self, lines: &Lines) -> Result<(u64, Vec<Refused>), Failure> {
        let (mut total, mut named) = (0, Vec::new());
        let mut first = 0;
        while first < lines.len() {
            let end = lines.fitting(first, self.body_bytes_max);
            let answer = post(&self.client, &self.path, lines.slice(first..end))
                .map_err(|e| Failure::work(format!("the server went away: {e}")))?;
            match answer.status {
                204 => first = end,
                400 if answer.refused.is_some() => {
                    let refused = refused_lines(&answer);
                    total += answer.refused.unwrap_or_default().max(refused.len() as u64);
                    named.extend(refused.into_iter().map(|(line, reason)| {
                        let place = place_of_line(lines, first, line);
                        Refused { place, reason }
                    }));
                    first = end;
                }
                // A body that is too large for the server, or for a record of its log, is halved.
                413 | 422 if end - first > 1 => {
                    self.body_bytes_max = (lines.slice(first..end).len() / 2).max(1);
                }
                _ => return Err(Failure::work(answer.error())),
            }
        }
        Ok((total, named))
    }
}

/// Lines of the body by number, with reasons.
pub(crate) fn refused_lines(answer: &Answer) -> Vec<(u64, String)> {
    let json = answer.json();
    let lines = json["data"].as_array().cloned().unwrap_or_default();
    let of = |line: &serde_json::Value| {
        let reason = line["error_message"].as_str().unwrap_or_default().to_owned();
        (line["line_number"].as_u64().unwrap_or_default(), reason)
    };
    lines.iter().map(of).collect()
}

/// The place of line `number`, from 1, of a body that begins with line `first` of `lines`. Texts may have line breaks.
fn place_of_line(lines: &Lines, first: usize, number: u64) -> u64 {
    let start = lines.starts[first].0;
    let breaks = start_of_line(&lines.bytes[start..], number.saturating_sub(1));
    let at = lines.starts.partition_point(|(begin, _)| *begin <= start + breaks);
    lines.starts.get(at.saturating_sub(1)).map_or(0, |(_, place)| *place)
}

/// Where the line behind `breaks` line breaks begins.
fn start_of_line(bytes: &[u8], breaks: u64) -> usize {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    match usize::try_from(breaks).unwrap_or(usize::MAX) {
        0 => 0,
        breaks => ends.nth(breaks - 1).unwrap_or(bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_body_is_the_row_that_it_begins_in() {
        let mut lines = Lines::default();
        for (place, text) in [(10, "a v=1\n"), (11, "a v=\"x\ny\"\n"), (13, "a v=3\n")] {
            lines.begin(place);
            lines.bytes.extend_from_slice(text.as_bytes());
        }
        let places: Vec<u64> = (1..=4).map(|number| place_of_line(&lines, 0, number)).collect();
        assert_eq!(places, [10, 11, 11, 13]);
        assert_eq!(place_of_line(&lines, 1, 3), 13);
        lines.begin(14);
        lines.bytes.extend_from_slice(b"half");
        lines.undo();
        assert_eq!((lines.len(), lines.slice(1..2)), (3, &b"a v=\"x\ny\"\n"[..]));
    }

    #[test]
    fn bodies_are_of_whole_lines_and_have_at_least_one() {
        let mut lines = Lines::default();
        for place in 0..5 {
            lines.begin(place);
            lines.bytes.extend_from_slice(b"123456789\n");
        }
        assert_eq!(lines.fitting(0, 1_000), 5);
        assert_eq!(lines.fitting(0, 50), 5);
        assert_eq!(lines.fitting(0, 49), 4);
        assert_eq!(lines.fitting(1, 20), 3);
        assert_eq!(lines.fitting(4, 1), 5);
        assert_eq!(lines.fitting(2, 1), 3);
    }
}
