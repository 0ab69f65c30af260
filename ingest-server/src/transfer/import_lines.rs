//! Line protocol of a file, as it stands there.
//!
//! Owns:     refusing lines without a time, and lines that the server would refuse for what they say, before it sees them.
//! Does not: parse (`decode`), or change a line.

use std::io::BufRead as _;

use decode::line_protocol::{self, Precision};

use super::import::Import;
use super::percent;
use super::resume::Done;
use super::send::{post, refused_lines};
use super::source::Source;
use crate::failure::Failure;
use crate::write_command::Batch;
use decode::time::TimeFormat;

/// What an export of ours begins with; it says the unit of its times.
pub(crate) const EXPORT_HEAD: &str = "# eden export ";
/// Stands for a time that is not there: no line can say it in microseconds.
const NO_TIME: i64 = i64::MIN;
/// Errors that one batch can have.
const ERRORS_MAX: usize = 100_000;

pub(crate) fn run(import: &mut Import<'_>, source: &Source, done: &mut Done) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::work(format!("read {}: {e}", source.name()));
    let mut input = source.open(&import.done_bytes)?;
    let precision = precision_of(import.options.time_format, input.fill_buf().map_err(cannot)?);
    let path = format!("/api/v3/write_lp?db={}&precision={precision}", percent(&import.options.schema));
    let mut before = 0;
    loop {
        let batch = Batch::read(&mut input).map_err(cannot)?;
        if batch.bytes.is_empty() {
            return Ok(());
        }
        // Batches are cut at the same lines each time, so one that was dealt with is skipped whole.
        if before >= done.rows {
            let refused = send(import, source, &path, precision, before, batch.bytes)?;
            done.rows = before + batch.lines;
            done.refused += refused;
            import.step(source, *done)?;
        }
        before += batch.lines;
    }
}

/// The unit that was asked for; else that of an export; else each line's own.
fn precision_of(asked: TimeFormat, start: &[u8]) -> Precision {
    if asked != TimeFormat::Auto {
        return asked.word().parse().unwrap_or_default();
    }
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let head = std::str::from_utf8(first).ok().and_then(|line| line.strip_prefix(EXPORT_HEAD));
    let unit = head.and_then(|head| head.split_whitespace().find_map(|word| word.strip_prefix("precision=")));
    unit.and_then(|unit| unit.parse().ok()).unwrap_or_default()
}

/// Sends what is good of a batch; returns how many lines are not.
fn send(
    import: &mut Import<'_>,
    source: &Source,
    path: &str,
    precision: Precision,
    before: u64,
    mut bytes: Vec<u8>,
) -> Result<u64, Failure> {
    if before == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    // A first line could name the body as an agent's batch, which the server would know again and not store.
    bytes.insert(0, b'\n');
    let place = |line: u32| before + u64::from(line) - 1;
    let options =
        line_protocol::Options { schema: &import.options.schema, precision, now_us: NO_TIME, errors_max: ERRORS_MAX };
    let decoded = line_protocol::parse(&bytes, &options);
    let mut refused: Vec<(u32, String)> = decoded
        .errors
        .into_iter()
        .map(|error| (error.line, format!("{}: {}", error.message, error.original)))
        .collect();
    let mut rows = 0;
    for table in &decoded.batches {
        rows += table.len() as u64;
        let lines = table.lines.iter().zip(&table.times_us).filter(|(_, time)| **time == NO_TIME);
        refused.extend(lines.map(|(line, _)| {
            (*line, "it has no time, so each attempt would store it once more; give it one".to_owned())
        }));
    }
    refused.sort_by_key(|(line, _)| *line);
    refused.dedup_by_key(|(line, _)| *line);
    if let Some((line, reason)) = refused.first().filter(|_| import.options.is_strict) {
        import.refuse(source, place(*line), reason)?;
    }
    let parsed_errors = decoded.errors_total;
    let timeless = refused.len() as u64 - parsed_errors.min(refused.len() as u64);
    take_out(&mut bytes, refused.iter().map(|(line, _)| *line));

    let answer = if rows > timeless { Some(post(import.client, path, &bytes)) } else { None };
    let (mut total, mut stored) = (refused.len() as u64, rows - timeless);
    match answer.transpose().map_err(|e| Failure::work(format!("the server went away: {e}")))? {
        Some(answer) if answer.status == 400 && answer.refused.is_some() => {
            let count = answer.refused.unwrap_or_default();
            let named = refused_lines(&answer);
            total += count;
            stored = stored.saturating_sub(count);
            import.add_refused(count.saturating_sub(named.len() as u64));
            refused.extend(named.into_iter().map(|(line, reason)| (u32::try_from(line).unwrap_or(u32::MAX), reason)));
        }
        Some(answer) if answer.status != 204 => return Err(Failure::work(answer.error())),
        _ => {}
    }
    import.add_stored(stored);
    refused.sort_by_key(|(line, _)| *line);
    for (line, reason) in &refused {
        import.refuse(source, place(*line), reason)?;
    }
    Ok(total)
}

/// Makes comments of lines, so that the others keep their numbers.
fn take_out(bytes: &mut [u8], lines: impl Iterator<Item = u32> + Clone) {
    let start = bytes.as_ptr() as usize;
    let found = line_protocol::lines_at(bytes, lines);
    let ranges: Vec<_> = found.iter().map(|line| (line.as_ptr() as usize - start, line.len())).collect();
    for (at, len) in ranges {
        bytes[at..at + len].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b'#');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_says_the_unit_of_its_times() {
        let head = b"# eden export table=t precision=ns\na v=1 1\n";
        assert_eq!(precision_of(TimeFormat::Auto, head), Precision::Nanosecond);
        assert_eq!(precision_of(TimeFormat::Ms, head), Precision::Millisecond);
        assert_eq!(precision_of(TimeFormat::Auto, b"# eden exports precision=s\n"), Precision::Auto);
        assert_eq!(precision_of(TimeFormat::Auto, b""), Precision::Auto);
    }

    #[test]
    fn lines_that_are_taken_out_leave_the_numbers_of_the_others() {
        let mut bytes = b"\na v=1 1\na v=\"x\ny\"\na v=3 3\n".to_vec();
        take_out(&mut bytes, [3].into_iter());
        assert_eq!(String::from_utf8(bytes).unwrap(), "\na v=1 1\n######\n##\na v=3 3\n");
    }
}
