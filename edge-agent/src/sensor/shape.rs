//! What becomes of a sensor's readings before they are kept: offsets, windows, dead bands.
//!
//! Owns:     the settings for it, and the open window of a sensor.
//! Does not: know clocks: times come in, in microseconds of whichever clock the caller takes for all of them.
//!
//! Invariants
//!  1. In this order: offsets are added, windows are made of the sums, dead bands look at what comes out.
//!  2. Every reading is in one window; a window is given out when a reading of a later one comes, or at the end.
//!  3. No two windows have one time, those of an earlier process included: the first begins with its first reading.

use std::borrow::Cow;
use std::collections::BTreeMap;

use settings::{Setting, quoted};

use super::Fields;
use super::value::Value;
use crate::config::SensorSection;

/// Numbers by the names of fields, as the configuration has them: `{ temperature = "-0.4" }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers(pub BTreeMap<String, Value>);

/// What is added to fields.
pub(crate) type Offsets = Numbers;

impl Setting for Numbers {
    fn read(value: &settings::Value) -> Result<Self, String> {
        let texts = BTreeMap::<String, String>::read(value).map_err(|_| {
            "this key takes numbers in quotes by the names of fields: { temperature = \"-0.4\" }".to_owned()
        })?;
        let number = |(name, text): (String, String)| match Value::parse(&text) {
            Some(value) => Ok((name, value)),
            None => Err(format!("{name}: {text:?} is no number of at most 9 decimals")),
        };
        texts.into_iter().map(number).collect::<Result<_, _>>().map(Numbers)
    }

    fn show(&self) -> String {
        let texts: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(&value.to_string()))).collect();
        if texts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", texts.join(", ")) }
    }
}

impl Numbers {
    /// Adds each number to the field of its name.
    pub(crate) fn add_to(&self, fields: &mut Fields) {
        for (name, value) in fields {
            if let Some(offset) = self.0.get(name.as_ref()) {
                *value = value.plus(*offset);
            }
        }
    }
}

/// What is kept of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// The mean, under the field's own name.
    Mean,
    /// The least, `_min`.
    Min,
    /// The greatest, `_max`.
    Max,
}

impl Aggregate {
    const ALL: [(&'static str, Aggregate); 3] =
        [("mean", Aggregate::Mean), ("min", Aggregate::Min), ("max", Aggregate::Max)];

    /// The name under which it is kept of a field.
    pub(crate) fn name_of(self, field: &str) -> String {
        match self {
            Aggregate::Mean => field.to_owned(),
            Aggregate::Min => format!("{field}_min"),
            Aggregate::Max => format!("{field}_max"),
        }
    }
}

/// Some of them, in the order in which their fields stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregates(pub Vec<Aggregate>);

impl Setting for Aggregates {
    fn read(value: &settings::Value) -> Result<Self, String> {
        let words = Vec::<String>::read(value)?;
        let one = |word: &String| {
            let found = Aggregate::ALL.iter().find(|(name, _)| name == word);
            found.map(|(_, aggregate)| *aggregate).ok_or_else(|| format!("{word:?} is none of mean, min and max"))
        };
        words.iter().map(one).collect::<Result<_, _>>().map(Aggregates)
    }

    fn show(&self) -> String {
        let name = |one: &Aggregate| Aggregate::ALL.iter().find(|(_, other)| other == one).map_or("", |(name, _)| name);
        let words: Vec<String> = self.0.iter().map(|one| quoted(name(one))).collect();
        format!("[{}]", words.join(", "))
    }
}

/// A reading on its way: its fields, and its time by the clock that the caller takes.
pub(crate) type Timed = (Fields, i64);

/// Shapes one sensor's readings.
#[derive(Debug)]
pub(crate) struct Shaper {
    offsets: Offsets,
    /// 0 for none.
    window_us: i64,
    aggregates: Vec<Aggregate>,
    open: Option<Window>,
    /// No window was opened yet.
    is_new: bool,
    band: Numbers,
    silence_us: i64,
    kept: Option<Timed>,
}

/// Readings of one window.
#[derive(Debug)]
struct Window {
    begin: i64,
    time_us: i64,
    fields: Vec<(Cow<'static, str>, Vec<Value>)>,
}

/// Readings beyond in one window are left out of it: more than any window of a sensor should hold.
const WINDOW_READINGS_MAX: usize = 100_000;

impl Shaper {
    pub(crate) fn new(section: &SensorSection) -> Shaper {
        let us = |period: settings::Period| i64::try_from(period.0.as_micros()).unwrap_or(i64::MAX);
        Shaper {
            offsets: section.offsets.clone(),
            window_us: us(section.window),
            aggregates: section.aggregates.0.clone(),
            open: None,
            is_new: true,
            band: section.dead_band.clone(),
            silence_us: us(section.max_silence),
            kept: None,
        }
    }

    /// Takes a reading; gives what is to be kept now, if anything is. Windows begin at multiples of their length of
    /// `time_us + align_us`.
    pub(crate) fn take(&mut self, mut fields: Fields, time_us: i64, align_us: i64) -> Option<Timed> {
        self.offsets.add_to(&mut fields);
        if self.window_us == 0 {
            return self.keep(fields, time_us);
        }
        let begin = time_us - (time_us.wrapping_add(align_us)).rem_euclid(self.window_us);
        let is_next = self.open.as_ref().is_some_and(|open| open.begin != begin);
        let ended = if is_next { self.end() } else { None };
        // An earlier process may have given out what it had of this window, under the time of its begin.
        let begins_us = if self.is_new { time_us } else { begin };
        self.is_new = false;
        let open = self.open.get_or_insert_with(|| Window { begin, time_us: begins_us, fields: Vec::new() });
        for (name, value) in fields {
            match open.fields.iter_mut().find(|(other, _)| *other == name) {
                Some((_, values)) if values.len() < WINDOW_READINGS_MAX => values.push(value),
                Some(_) => {}
                None => open.fields.push((name, vec![value])),
            }
        }
        ended
    }

    /// The window that is open, as it is.
    pub(crate) fn end(&mut self) -> Option<Timed> {
        let Window { time_us, fields, .. } = self.open.take()?;
        let mut made = Fields::new();
        for (name, values) in fields {
            for aggregate in &self.aggregates {
                let value = match aggregate {
                    Aggregate::Mean => Value::mean(&values),
                    Aggregate::Min => values.iter().copied().min_by(|a, b| a.order(*b)),
                    Aggregate::Max => values.iter().copied().max_by(|a, b| a.order(*b)),
                };
                made.extend(value.map(|value| (Cow::Owned(aggregate.name_of(&name)), value)));
            }
        }
        self.keep(made, time_us)
    }

    /// What offsets and dead band name although no such field comes of these.
    pub(crate) fn strangers(&self, fields: &Fields) -> Vec<&str> {
        let comes_of = |field: &str, name: &str| match self.window_us {
            0 => field == name,
            _ => self.aggregates.iter().any(|aggregate| aggregate.name_of(field) == name),
        };
        let offsets = self.offsets.0.keys().filter(|name| !fields.iter().any(|(field, _)| *field == name.as_str()));
        let bands = self.band.0.keys().filter(|name| !fields.iter().any(|(field, _)| comes_of(field, name)));
        offsets.chain(bands).map(String::as_str).collect()
    }

    /// What the dead band lets through: all in which it finds none of its fields. A field that is new, or was and is not, is a change too.
    fn keep(&mut self, fields: Fields, time_us: i64) -> Option<Timed> {
        if self.band.0.is_empty() {
            return Some((fields, time_us));
        }
        let value =
            |fields: &Fields, name: &str| fields.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        let is_kept = self.kept.as_ref().is_none_or(|(kept, kept_us)| {
            time_us.saturating_sub(*kept_us) >= self.silence_us
                // A clock that was set back must not silence a sensor.
                || time_us < *kept_us
                || !self.band.0.keys().any(|name| value(&fields, name).is_some())
                || self.band.0.iter().any(|(name, band)| match (value(kept, name), value(&fields, name)) {
                    (Some(old), Some(new)) => new.is_off_by(old, *band),
                    (old, new) => old.is_some() != new.is_some(),
                })
        });
        if !is_kept {
            return None;
        }
        self.kept = Some((fields.clone(), time_us));
        Some((fields, time_us))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{Rng, SplitMix64};
    use settings::Period;

    use super::*;

    const S: i64 = 1_000_000;

    fn numbers(pairs: &[(&str, &str)]) -> Numbers {
        Numbers(pairs.iter().map(|(name, text)| ((*name).to_owned(), Value::parse(text).unwrap())).collect())
    }

    fn shown(timed: Option<Timed>) -> String {
        let Some((fields, time_us)) = timed else { return "-".to_owned() };
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {}", fields.join(","), time_us / S)
    }

    fn reading(value: &str) -> Fields {
        vec![("t".into(), Value::parse(value).unwrap())]
    }

    #[test]
    fn offsets_are_added_and_other_fields_left() {
        let mut shaper =
            Shaper::new(&SensorSection { offsets: numbers(&[("t", "-0.45")]), ..SensorSection::default() });
        assert_eq!(shown(shaper.take(reading("21.5"), S, 0)), "t=21.05 1");
        assert_eq!(shown(shaper.take(vec![("p".into(), Value::whole(3))], S, 0)), "p=3 1");
    }

    #[test]
    fn a_window_is_given_out_when_the_next_begins_and_at_the_end() {
        let section = SensorSection {
            window: Period(Duration::from_secs(10)),
            aggregates: Aggregates(vec![Aggregate::Mean, Aggregate::Min, Aggregate::Max]),
            ..SensorSection::default()
        };
        let mut shaper = Shaper::new(&section);
        for (value, second, out) in [
            ("20.0", 3, "-"),
            ("21.0", 9, "-"),
            ("30", 10, "t=20.50,t_min=20.0,t_max=21.0 3"),
            ("-30", 39, "t=30.0,t_min=30,t_max=30 10"),
        ] {
            assert_eq!(shown(shaper.take(reading(value), second * S, 0)), out);
        }
        assert_eq!(shown(shaper.end()), "t=-30.0,t_min=-30,t_max=-30 30");
        assert_eq!(shown(shaper.end()), "-");
        // 3 s past a minute by the clock that windows follow.
        assert_eq!(shown(shaper.take(reading("1"), 0, 3 * S)), "-");
        assert_eq!(shown(shaper.take(reading("2"), 7 * S, 3 * S)), "t=1.0,t_min=1,t_max=1 -3");
    }

    #[test]
    fn what_is_measured_after_a_start_has_another_time_than_what_was_measured_before_it() {
        let section = SensorSection { window: Period(Duration::from_secs(60)), ..SensorSection::default() };
        let process = |seconds: std::ops::Range<i64>| {
            let mut shaper = Shaper::new(&section);
            let mut out: Vec<i64> = seconds
                .filter_map(|second| shaper.take(reading("1"), second * S, 0))
                .map(|(_, time_us)| time_us / S)
                .collect();
            out.extend(shaper.end().map(|(_, time_us)| time_us / S));
            out
        };
        assert_eq!(process(50..90), [50, 60]);
        assert_eq!(process(91..130), [91, 120], "not the window that was given out at 60");
        assert_eq!(process(180..181), [180]);
    }

    #[test]
    fn a_dead_band_of_fields_that_never_come_drops_nothing() {
        let section = SensorSection { dead_band: numbers(&[("t_min", "0.2")]), ..SensorSection::default() };
        let mut shaper = Shaper::new(&section);
        assert_eq!(shaper.strangers(&reading("20")), ["t_min"]);
        for (value, second) in [("20.0", 0), ("20.0", 1), ("20.1", 2)] {
            assert_eq!(shown(shaper.take(reading(value), second * S, 0)), format!("t={value} {second}"));
        }
        let section = SensorSection {
            window: Period(Duration::from_secs(10)),
            aggregates: Aggregates(vec![Aggregate::Min, Aggregate::Max]),
            dead_band: numbers(&[("t", "0.2"), ("t_max", "1")]),
            offsets: numbers(&[("t", "1"), ("p", "1")]),
            ..SensorSection::default()
        };
        assert_eq!(Shaper::new(&section).strangers(&reading("20")), ["p", "t"]);
    }

    #[test]
    fn a_dead_band_keeps_changes_and_breaks_silence() {
        let section = SensorSection {
            dead_band: numbers(&[("t", "0.2")]),
            max_silence: Period(Duration::from_secs(60)),
            ..SensorSection::default()
        };
        let mut shaper = Shaper::new(&section);
        for (value, second, out) in [
            ("20.0", 0, "t=20.0 0"),
            ("20.1", 1, "-"),
            ("20.19", 2, "-"),
            ("20.2", 3, "t=20.2 3"),
            ("20.1", 4, "-"),
            ("20.1", 63, "t=20.1 63"),
            ("20.1", 10, "t=20.1 10"),
        ] {
            assert_eq!(shown(shaper.take(reading(value), second * S, 0)), out, "{second}");
        }
    }

    #[test]
    fn whatever_comes_each_reading_is_in_one_window_and_bands_hold() {
        for seed in 0..200 {
            let rng = SplitMix64::new(seed);
            let window = 1 + rng.below(20) as i64;
            let section = SensorSection {
                window: Period(Duration::from_secs(window as u64)),
                aggregates: Aggregates(vec![Aggregate::Mean, Aggregate::Min, Aggregate::Max]),
                ..SensorSection::default()
            };
            let mut shaper = Shaper::new(&section);
            let mut time = 0;
            let mut windows: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            let mut first = None;
            let mut out = Vec::new();
            for _ in 0..100 {
                time += rng.below(7) as i64;
                first.get_or_insert(time);
                let steps = rng.below(1_000) as i64 - 500;
                windows.entry(time - time.rem_euclid(window)).or_default().push(steps);
                out.extend(shaper.take(vec![("t".into(), Value { steps, decimals: 1 })], time * S, 0));
            }
            out.extend(shaper.end());
            assert_eq!(out.len(), windows.len(), "seed {seed}");
            for ((fields, time_us), (begin, steps)) in out.iter().zip(&windows) {
                assert_eq!(*time_us, first.unwrap().max(*begin) * S, "seed {seed}");
                let mean = steps.iter().sum::<i64>() as f64 / steps.len() as f64 / 10.0;
                let number = |at: usize| fields[at].1.to_string().parse::<f64>().unwrap();
                assert!((number(0) - mean).abs() <= 0.005_001, "seed {seed}");
                assert_eq!(number(1), *steps.iter().min().unwrap() as f64 / 10.0, "seed {seed}");
                assert_eq!(number(2), *steps.iter().max().unwrap() as f64 / 10.0, "seed {seed}");
            }
        }
    }
}
