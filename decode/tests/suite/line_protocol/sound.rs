//! What holds of every body, good or not; the room `fuzz` asks it too.

use decode::line_protocol::{Decoded, ORIGINAL_BYTES_MAX, Options, Precision, parse};
use model::TableBatch;

use crate::support::assert_sound;

const ERRORS_MAX: usize = 5;

/// How bodies are read to be checked.
pub(crate) const OPTIONS: Options<'_> =
    Options { schema: "public", precision: Precision::Auto, now_us: 0, errors_max: ERRORS_MAX };

/// Entries of all columns, absent ones included.
fn cells(batches: &[TableBatch]) -> usize {
    batches.iter().map(|batch| batch.len() * (batch.fields.len() + 1)).sum()
}

pub(crate) fn check(body: &[u8]) -> Decoded {
    check_decoded(body, parse(body, &OPTIONS))
}

/// The same of what was decoded by [`OPTIONS`].
pub(crate) fn check_decoded(body: &[u8], decoded: Decoded) -> Decoded {
    decoded.batches.iter().for_each(assert_sound);
    let rows: usize = decoded.batches.iter().map(TableBatch::len).sum();
    let header_errors = u64::from(body.starts_with(b"# eden agent=") && decoded.agent.is_none());
    // Gaps are comments to all other readers: a malformed one is an error, but no line.
    let is_gap = |line: &&[u8]| {
        let behind = line.strip_prefix(b"# eden gap");
        behind.is_some_and(|behind| matches!(behind.first(), None | Some(b' ' | b'\r')))
    };
    let gap_errors = decoded.agent.as_ref().map_or(0, |header| {
        let gaps = body.split(|byte| *byte == b'\n').skip(1).take_while(is_gap).count();
        gaps as u64 - header.gaps.len() as u64
    });
    let errors_of_lines = decoded.errors_total - header_errors - gap_errors;
    assert_eq!(rows as u64 + errors_of_lines, decoded.lines, "a line is a row or an error");
    assert_eq!(decoded.errors.len() as u64, decoded.errors_total.min(ERRORS_MAX as u64));
    for error in &decoded.errors {
        // A name of 80 control characters is shown by six times as many.
        assert!(error.original.len() <= ORIGINAL_BYTES_MAX && error.message.len() < 700, "{error:?}");
        assert!(error.line as usize <= body.len() + 1, "{error:?}");
    }
    assert!(decoded.errors.is_sorted_by_key(|error| error.line));
    assert!(
        cells(&decoded.batches) <= 1024 + 8 * body.len(),
        "{} cells of {} bytes",
        cells(&decoded.batches),
        body.len()
    );
    decoded
}
