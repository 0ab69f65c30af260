//! Messages by rules, of all formats. The first byte says which rule.

use crate::memory::within;

#[path = "../../decode/tests/suite/mapping/sound.rs"]
mod sound;

use sound::corpus;

thread_local! {
    static RULES: Vec<(decode::mapping::Rule, &'static str, Vec<&'static str>)> = corpus();
}

/// The payload, by its rule; and what is stored, as lines.
pub fn check(bytes: &[u8]) {
    let Some((&which, payload)) = bytes.split_first() else { return };
    RULES.with(|rules| {
        let (rule, topic, _) = &rules[usize::from(which) % rules.len()];
        // Rows share their columns, but a field that only one of them has is a column of all.
        let batches = within((64 << 10) + 1024 * payload.len(), || sound::check(rule, topic, payload));
        sound::check_lines(&batches);
    });
}

/// A payload of each rule, as [`check`] takes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let of_rule = |(which, (_, _, payloads)): (usize, &(_, _, Vec<&str>))| {
        payloads.iter().map(|payload| [&[which as u8], payload.as_bytes()].concat()).collect::<Vec<_>>()
    };
    RULES.with(|rules| rules.iter().enumerate().flat_map(of_rule).collect())
}
