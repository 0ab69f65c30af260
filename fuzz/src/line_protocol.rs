//! Lines against the crate `influxdb-line-protocol`, and what holds of every body.

use compare::Outcome;
use decode::line_protocol::parse;

use crate::memory::within;

#[path = "../../decode/tests/suite/line_protocol/compare.rs"]
mod compare;
#[path = "../../decode/tests/suite/line_protocol/sound.rs"]
#[allow(dead_code, reason = "tests by seeds check in one step")]
mod sound;

/// The body as a whole, and each of its lines, alone and behind its like, against the oracle.
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
        let (ours, theirs) = (compare::ours(line), compare::theirs(line));
        if compare::ends_by_itself(line) {
            assert_eq!(compare::ours_of_three(line), ours, "{line:?}");
        }
        if ours != theirs {
            // A value that the crate does not know, also of a field that stands there once more and is no decimal then.
            let plain = without_decimals(line);
            let is_for_decimals = plain != line
                && theirs == Outcome::Refused
                && matches!((&ours, compare::theirs(&plain)), (Outcome::Reading(_), Outcome::Reading(_)));
            assert!(is_for_decimals, "{line:?}: {ours:?}, and the crate {theirs:?}");
        }
    }
}

/// The line with decimals as plain numbers: `1.5d` is `1.5`.
fn without_decimals(line: &str) -> String {
    let (mut plain, mut last) = (String::with_capacity(line.len()), ' ');
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let ends = chars.peek().is_none_or(|next| matches!(next, ',' | ' ' | '\r'));
        if c != 'd' || !ends || !last.is_ascii_digit() {
            plain.push(c);
        }
        last = c;
    }
    plain
}

/// The body as a whole.
pub(crate) fn check_body(body: &[u8]) {
    // Per table and column some hundred bytes, and a table takes five bytes to name: `a b=1`.
    let decoded = within((64 << 10) + 1024 * body.len(), || parse(body, &sound::OPTIONS));
    sound::check_decoded(body, decoded);
}
