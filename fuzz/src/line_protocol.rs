//! Lines against the crate `influxdb-line-protocol`, and what holds of every body.

use compare::Outcome;
use decode::line_protocol::{Precision, parse};
use model::FieldValues;

use crate::memory::within;

#[path = "../../decode/tests/suite/line_protocol/compare.rs"]
mod compare;
#[path = "../../decode/tests/suite/line_protocol/sound.rs"]
#[allow(dead_code, reason = "tests by seeds check in one step")]
mod sound;

/// The body as a whole, and each of its lines against the oracle.
pub fn check(body: &[u8]) {
    check_body(body);
    // Where the two end a line differs on purpose, so each is told one. A line that is not UTF-8 is refused by us, and
    // nothing that the crate could be asked.
    for line in body.split(|byte| *byte == b'\n') {
        let Ok(line) = str::from_utf8(line) else { continue };
        // Of a body of its own, which each line is made here: a mark of its encoding, and what only agents say.
        if line.starts_with('\u{feff}') || line.starts_with("# eden ") {
            continue;
        }
        if has_decimals(line) {
            assert_eq!(compare::theirs(line), Outcome::Refused, "{line:?}");
        } else {
            assert_eq!(compare::ours(line), compare::theirs(line), "{line:?}");
        }
    }
}

/// Whether a line has a value that the crate does not know.
fn has_decimals(line: &str) -> bool {
    let decoded = compare::parse_as(Precision::Microsecond, line.as_bytes());
    let mut fields = decoded.batches.iter().flat_map(|batch| &batch.fields);
    fields.any(|field| matches!(field.values, FieldValues::Decimal { .. }))
}

/// The body as a whole.
pub(crate) fn check_body(body: &[u8]) {
    // Per table and column some hundred bytes, and a table takes five bytes to name: `a b=1`.
    let decoded = within((64 << 10) + 1024 * body.len(), || parse(body, &sound::OPTIONS));
    sound::check_decoded(body, decoded);
}
