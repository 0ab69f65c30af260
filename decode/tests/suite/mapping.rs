//! Messages by rules.

mod cases;
mod hostile;
mod sound;
mod wrong;

use decode::mapping::{Mapped, Message, Rows, Rule};
use sound::{named, options, rule, texts};

use crate::support::{assert_sound, readings};

/// The time of receipt in all of these tests.
const NOW: i64 = 7;

/// The readings of a message, and what is refused of it: `reason <part>`, the whole as `<>`.
fn mapped(rule: &Rule, topic: &str, payload: &str) -> (Vec<String>, Vec<String>) {
    assert!(rule.filter_of(topic).is_some(), "the rule does not take {topic}");
    let (rows, mapped) = map(rule, topic, payload.as_bytes(), &[]);
    let shown = |part: Option<Vec<u8>>| part.map_or(String::new(), |part| String::from_utf8(part).unwrap());
    (rows, mapped.refused.into_iter().map(|refused| format!("{} <{}>", refused.reason, shown(refused.part))).collect())
}

fn map(rule: &Rule, topic: &str, payload: &[u8], user_properties: &[(&str, &str)]) -> (Vec<String>, Mapped) {
    let mut rows = Rows::new("public");
    let message = Message { topic, payload, user_properties, now_us: NOW };
    let mapped = rule.map(&message, &mut rows);
    assert_eq!(mapped.refused.len() as u64, mapped.refused_total);
    let batches = rows.finish();
    batches.iter().for_each(assert_sound);
    (readings(&batches), mapped)
}

/// All is stored, as these readings.
fn check(rule: &Rule, topic: &str, payload: &str, expected: &[&str]) {
    let (rows, refused) = mapped(rule, topic, payload);
    assert_eq!((rows, refused), (texts(expected), Vec::new()), "{topic} {payload}");
}

/// Nothing is stored, for this reason.
fn refuse(rule: &Rule, topic: &str, payload: &str, reason: &str) {
    let (rows, refused) = mapped(rule, topic, payload);
    assert!(rows.is_empty() && refused.len() == 1 && refused[0].contains(reason), "{payload}: {rows:?} {refused:?}");
}
