//! Which wall time the clock since boot stands for.
//!
//! Owns:     the offset between the two, when it is known and when it is taken anew; how lines get their times by it.
//! Does not: keep it: what a batch was given is in the outbox, and never changes there.
//!
//! Invariants
//!  1. A wall clock that nobody keeps right gives no reading its time before `wait` is over, and then with a mark.
//!  2. While the offset is what it is, readings keep the order and the distances in which they were measured, however the
//!     wall clock jumps.
//!
//! The kernel slews both clocks alike, and forgets that it was synchronised when somebody sets the one
//! (`adjtimex(2)`, `STA_UNSYNC`). See `docs/adr/0035-times-from-boot.md`.

use std::sync::Arc;
use std::time::Duration;

use model::Clock;

use crate::timepiece::Timepiece;

/// A clock that tells an earlier time is one that was never set: 2026-01-01.
pub(crate) const EARLIEST_US: i64 = 1_767_225_600_000_000;
/// A clock that is right by less than this is left alone.
const TOLERANCE_US: i64 = 1_000_000;
/// A greater difference must last as long before it counts.
const CONFIRMED_AFTER_US: i64 = 10_000_000;

/// Whose word on the wall clock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The kernel's, that it is synchronised.
    Synchronised,
    /// The clock's own.
    System,
}

/// How well the wall time of a reading is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// From a clock that is kept right, or from a server.
    Known,
    /// From a clock that nobody vouches for, or counted back from a later boot.
    Estimated,
}

/// What is added to the clock since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fix {
    /// Microseconds.
    pub offset_us: i64,
    /// How well it is known.
    pub certainty: Certainty,
}

impl Fix {
    /// The wall time at `boot_us`, microseconds since 1970-01-01 UTC.
    pub fn wall_us(self, boot_us: i64) -> i64 {
        boot_us.saturating_add(self.offset_us)
    }
}

/// What a server said the time was, and when by the clock since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) wall_us: i64,
    pub(crate) boot_us: i64,
}

/// The offset of the present boot.
#[derive(Debug)]
pub(crate) struct Wall {
    clock: Arc<dyn Clock>,
    timepiece: Arc<dyn Timepiece>,
    trust: Trust,
    /// By the clock since boot.
    estimate_at_us: i64,
    /// No right clock tells an earlier time.
    earliest_us: i64,
    fix: Option<Fix>,
    /// Another offset, and since when.
    differs: Option<(i64, i64)>,
}

impl Wall {
    /// `fix` is what an earlier process of this boot knew. Without one, the wall clock is taken as an estimate after `wait`, unless it tells a time before
    /// `earliest_us`.
    pub(crate) fn new(
        (clock, timepiece): (Arc<dyn Clock>, Arc<dyn Timepiece>),
        trust: Trust,
        wait: Duration,
        earliest_us: i64,
        fix: Option<Fix>,
    ) -> Wall {
        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let estimate_at_us = timepiece.boot_us().saturating_add(wait_us);
        let earliest_us = earliest_us.max(EARLIEST_US);
        Wall { clock, timepiece, trust, estimate_at_us, earliest_us, fix, differs: None }
    }

    /// What is known.
    pub(crate) fn fix(&self) -> Option<Fix> {
        self.fix
    }

    /// Looks at the wall clock; `told` is what a server said last. Returns whether something else is known now.
    pub(crate) fn look(&mut self, told: Option<Told>) -> bool {
        let (offset_us, now_us) = self.sample();
        let is_plausible = offset_us.saturating_add(now_us) >= EARLIEST_US;
        let is_right = is_plausible && (self.trust == Trust::System || self.timepiece.is_synchronised());
        let known = |offset_us| Some(Fix { offset_us, certainty: Certainty::Known });
        let is_known = self.fix.is_some_and(|fix| fix.certainty == Certainty::Known);
        let before = self.fix;
        if is_right {
            let is_far = self.fix.is_some_and(|fix| fix.offset_us.abs_diff(offset_us) >= TOLERANCE_US.unsigned_abs());
            if !is_known {
                self.fix = known(offset_us);
            } else if !is_far {
                self.differs = None;
            } else {
                let since = match self.differs {
                    Some((other, since)) if other.abs_diff(offset_us) < TOLERANCE_US.unsigned_abs() => since,
                    _ => now_us,
                };
                self.differs = Some((offset_us, since));
                if now_us.saturating_sub(since) >= CONFIRMED_AFTER_US {
                    self.fix = known(offset_us);
                    self.differs = None;
                }
            }
        } else if !is_known && let Some(told) = told.filter(|told| told.wall_us >= EARLIEST_US) {
            self.fix = known(told.wall_us.saturating_sub(told.boot_us));
        } else if self.fix.is_none()
            && now_us >= self.estimate_at_us
            && offset_us.saturating_add(now_us) >= self.earliest_us
        {
            self.fix = Some(Fix { offset_us, certainty: Certainty::Estimated });
        }
        self.fix != before
    }

    /// The offset now, and the time since boot. The two clocks are read closely after one another, or again.
    fn sample(&self) -> (i64, i64) {
        let read = || {
            let before = self.timepiece.boot_us();
            let wall = self.clock.now_us();
            let after = self.timepiece.boot_us();
            let middle = before + (after - before) / 2;
            (after - before, wall.saturating_sub(middle), middle)
        };
        let (_, offset_us, now_us) = (0..3).map(|_| read()).min_by_key(|(took, _, _)| *took).unwrap_or_default();
        (offset_us, now_us)
    }
}

/// Lines whose times are by the clock since boot, by the wall clock. Estimated times are marked, with a field
/// `time_estimated`. Comments stay as they are.
pub(crate) fn by_wall_clock(lines: &str, fix: Fix) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(lines.len() + lines.len() / 8);
    let mark = match fix.certainty {
        Certainty::Known => "",
        Certainty::Estimated => ",time_estimated=t",
    };
    for line in lines.lines() {
        let timed = line.rsplit_once(' ').filter(|_| !line.starts_with('#'));
        match timed.and_then(|(reading, time)| Some((reading, time.parse::<i64>().ok()?))) {
            Some((reading, boot_us)) => {
                let _ = writeln!(out, "{reading}{mark} {}", fix.wall_us(boot_us));
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}
