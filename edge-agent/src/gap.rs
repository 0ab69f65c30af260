//! What an agent reports as lost.

use std::fmt;
use std::sync::Arc;

/// Why batches are missing, in the one word that the server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// There was no room: the oldest were dropped.
    OutboxFull,
    /// The agent ended without closing its outbox: what was not synced is gone.
    UncleanStop,
    /// The outbox's files are damaged.
    Damaged,
}

impl GapReason {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            GapReason::OutboxFull => "outbox_full",
            GapReason::UncleanStop => "unclean_stop",
            GapReason::Damaged => "damaged",
        }
    }
}

/// The word.
impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One life of an outbox: under which name and epoch its batches are sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    /// The agent's id.
    pub agent: Arc<str>,
    /// The agent epoch.
    pub epoch: u64,
}

/// A range of batches that will never be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose batches.
    pub life: Life,
    /// The first of them.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// Readings in them, if that is known.
    pub readings: Option<u64>,
    /// Why.
    pub reason: GapReason,
    /// When this was found out, microseconds since 1970-01-01 UTC.
    pub time_us: i64,
}

impl Gap {
    /// Whether batch `seq` of `life` lies in it.
    pub fn covers(&self, life: &Life, seq: u64) -> bool {
        self.life == *life && (self.first_seq..=self.last_seq).contains(&seq)
    }
}

/// `# eden gap first_seq=4 last_seq=9 readings=120 reason=outbox_full time=1780272000000000`, without a line break.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# eden gap first_seq={} last_seq={} ", self.first_seq, self.last_seq)?;
        if let Some(readings) = self.readings {
            write!(f, "readings={readings} ")?;
        }
        write!(f, "reason={} time={}", self.reason, self.time_us)
    }
}

/// Gaps that wait to be reported, in order, neighbours merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps(pub(crate) Vec<Gap>);

/// More gaps than this are reported as fewer and wider ones: each takes room in every record of the outbox.
const GAPS_MAX: usize = 48;

impl Gaps {
    pub(crate) fn add(&mut self, gap: Gap) {
        let place = |other: &Gap| other.life == gap.life && other.first_seq < gap.first_seq;
        let at = self.0.iter().rposition(place).map_or_else(
            || self.0.iter().position(|other| other.life == gap.life).unwrap_or(self.0.len()),
            |before| before + 1,
        );
        self.0.insert(at, gap);
        let is_same =
            |a: &Gap, b: &Gap| touches(a, b) && a.reason == b.reason && a.readings.is_some() == b.readings.is_some();
        self.merge(is_same);
        if self.0.len() > GAPS_MAX {
            self.merge(touches);
        }
    }

    /// Merges each gap into the one before it where `when` says so.
    fn merge(&mut self, when: impl Fn(&Gap, &Gap) -> bool) {
        let mut merged: Vec<Gap> = Vec::with_capacity(self.0.len());
        for gap in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if when(last, &gap) => {
                    last.last_seq = gap.last_seq.max(last.last_seq);
                    last.readings = last.readings.zip(gap.readings).map(|(a, b)| a + b);
                    last.time_us = last.time_us.max(gap.time_us);
                }
                _ => merged.push(gap),
            }
        }
        self.0 = merged;
    }

    /// Takes out the gaps of one life.
    pub(crate) fn take_of(&mut self, life: &Life) -> Vec<Gap> {
        let (taken, kept) = self.0.drain(..).partition(|gap| gap.life == *life);
        self.0 = kept;
        taken
    }

    pub(crate) fn cover(&self, life: &Life, seq: u64) -> bool {
        self.0.iter().any(|gap| gap.covers(life, seq))
    }
}

fn touches(a: &Gap, b: &Gap) -> bool {
    a.life == b.life && a.last_seq.checked_add(1) == Some(b.first_seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first_seq: u64, last_seq: u64, readings: Option<u64>, reason: GapReason) -> Gap {
        Gap { life: Life { agent: "pi-7".into(), epoch: 1 }, first_seq, last_seq, readings, reason, time_us: 5 }
    }

    #[test]
    fn neighbours_of_one_reason_become_one() {
        let mut gaps = Gaps::default();
        gaps.add(gap(5, 6, Some(2), GapReason::OutboxFull));
        gaps.add(gap(9, 9, None, GapReason::UncleanStop));
        gaps.add(gap(1, 4, Some(40), GapReason::OutboxFull));
        gaps.add(gap(7, 8, Some(3), GapReason::Damaged));
        assert_eq!(
            gaps.0,
            [
                gap(1, 6, Some(42), GapReason::OutboxFull),
                gap(7, 8, Some(3), GapReason::Damaged),
                gap(9, 9, None, GapReason::UncleanStop)
            ]
        );
    }

    #[test]
    fn a_gap_is_a_line() {
        assert_eq!(
            gap(4, 9, Some(120), GapReason::OutboxFull).to_string(),
            "# eden gap first_seq=4 last_seq=9 readings=120 reason=outbox_full time=5"
        );
        assert_eq!(
            gap(4, 4, None, GapReason::UncleanStop).to_string(),
            "# eden gap first_seq=4 last_seq=4 reason=unclean_stop time=5"
        );
    }
}
