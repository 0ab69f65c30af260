//! A day of a fleet whose clocks are off, and every value that must be stored at its end.
//!
//! 1 000 devices, 8 640 readings each, one every 9.993 s, so that a clock 30 s off still stays within the UTC day.
//! Readings arrive in the order of true time; a device stamps them with its own clock, which is off by a constant, or by
//! something else at each reading.

use harness::{Reading, Rng};

pub(super) const DEVICES: usize = 1_000;
pub(super) const TICKS: usize = 8_640;
pub(super) const ROWS: usize = DEVICES * TICKS;
/// 2026-06-01T00:00:00Z, and the 30 s that a clock may be behind.
const START_US: i64 = 1_780_272_000_000_000 + 30_000_000;
const INTERVAL_US: i64 = 9_993_000;
const CLOCK_OFF_US: i64 = 30_000_000;

/// How clocks are off, by up to 30 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clocks {
    /// Each device's by a constant.
    Off,
    /// Each reading's by something else.
    Jitter,
}
/// Steps and limits of the walks, in tenths.
const LIMITS: [(i16, i16); 3] = [(-200, 600), (9_500, 10_500), (0, 1_000)];

struct Device {
    clock_off_us: i64,
    phase_us: i64,
    values: [i16; 3],
}

pub(super) struct FleetDay {
    clocks: Clocks,
    seed: u64,
    rng: Rng,
    devices: Vec<Device>,
    /// Devices in the order of their phases, which is the order of arrival within a tick.
    arrival: Vec<usize>,
    /// What is stored: tenths of temperature, pressure, humidity by device and tick.
    stored: Vec<[i16; 3]>,
    sent: usize,
}

/// What a batch holds beside new readings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    pub(super) retries: u64,
    pub(super) corrections: u64,
}

impl FleetDay {
    pub(super) fn new(seed: u64, clocks: Clocks) -> Self {
        let mut rng = Rng::new(seed);
        let devices: Vec<_> = (0..DEVICES)
            .map(|_| Device {
                clock_off_us: rng.below(2 * CLOCK_OFF_US as u64 + 1) as i64 - CLOCK_OFF_US,
                phase_us: rng.below(INTERVAL_US as u64) as i64,
                values: [150 + rng.below(150) as i16, 9_900 + rng.below(300) as i16, 300 + rng.below(400) as i16],
            })
            .collect();
        let mut arrival: Vec<_> = (0..DEVICES).collect();
        arrival.sort_by_key(|device| devices[*device].phase_us);
        FleetDay { clocks, seed, rng, devices, arrival, stored: vec![[0; 3]; ROWS], sent: 0 }
    }

    /// The next new readings as line protocol, among them 0.1 % retries and 0.1 % corrections of readings of earlier
    /// batches.
    pub(super) fn next_batch(&mut self, rows: usize, lines: &mut String) -> Extras {
        lines.clear();
        let mut extras = Extras::default();
        let earlier = self.sent;
        for _ in 0..rows {
            let (device, tick) = (self.arrival[self.sent % DEVICES], self.sent / DEVICES);
            self.walk(device);
            self.stored[device * TICKS + tick] = self.devices[device].values;
            self.append(device, tick, lines);
            self.sent += 1;
            if earlier > 0 && self.rng.one_in(1_000) {
                let (device, tick) = self.earlier_reading(earlier);
                self.append(device, tick, lines);
                extras.retries += 1;
            }
            if earlier > 0 && self.rng.one_in(1_000) {
                let (device, tick) = self.earlier_reading(earlier);
                let corrected = &mut self.stored[device * TICKS + tick];
                corrected[0] = if corrected[0] < 0 { corrected[0] + 7 } else { corrected[0] - 7 };
                self.append(device, tick, lines);
                extras.corrections += 1;
            }
        }
        extras
    }

    /// A device's tag, and its rows as they must be stored, by time: µs and tenths.
    pub(super) fn expected(&self, device: usize) -> impl Iterator<Item = (i64, [i16; 3])> + '_ {
        let mut rows: Vec<_> =
            (0..TICKS).map(|tick| (self.time_us(device, tick), self.stored[device * TICKS + tick])).collect();
        rows.sort_unstable_by_key(|(time_us, _)| *time_us);
        rows.into_iter()
    }

    /// The sum of all temperatures in tenths.
    pub(super) fn temperature_sum(&self) -> i64 {
        self.stored.iter().map(|values| i64::from(values[0])).sum()
    }

    fn earlier_reading(&mut self, earlier: usize) -> (usize, usize) {
        let row = self.rng.below(earlier as u64) as usize;
        (self.arrival[row % DEVICES], row / DEVICES)
    }

    fn time_us(&self, device: usize, tick: usize) -> i64 {
        let Device { clock_off_us, phase_us, .. } = self.devices[device];
        match self.clocks {
            Clocks::Off => START_US + tick as i64 * INTERVAL_US + phase_us + clock_off_us,
            Clocks::Jitter => {
                let mut rng =
                    Rng::new(self.seed ^ ((device * TICKS + tick) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                // Only ten ticks are near enough to be stamped alike: the last digit keeps them apart.
                let tens = rng.below(2 * CLOCK_OFF_US as u64 / 10) as i64 - CLOCK_OFF_US / 10;
                START_US + (tick as i64 * INTERVAL_US + phase_us) / 10 * 10 + tens * 10 + tick as i64 % 10
            }
        }
    }

    fn walk(&mut self, device: usize) {
        for (value, (low, high)) in self.devices[device].values.iter_mut().zip(LIMITS) {
            let step = [-1, 0, 0, 1][self.rng.below(4) as usize];
            *value = (*value + step).clamp(low, high);
        }
    }

    fn append(&self, device: usize, tick: usize, lines: &mut String) {
        let [temperature, pressure, humidity] =
            self.stored[device * TICKS + tick].map(|tenths| f64::from(tenths) / 10.0);
        Reading::at("env", self.time_us(device, tick))
            .tag("device", &name(device))
            .tag("site", &format!("site-{:02}", device / 50))
            .field("temperature", temperature)
            .field("pressure", pressure)
            .field("humidity", humidity)
            .append_line(lines);
        lines.push('\n');
    }
}

/// A device's tag.
pub(super) fn name(device: usize) -> String {
    format!("dev-{device:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_readings_lie_in_one_utc_day() {
        let start = START_US - CLOCK_OFF_US;
        for clocks in [Clocks::Off, Clocks::Jitter] {
            let day = FleetDay::new(1, clocks);
            for device in 0..DEVICES {
                let times: Vec<i64> = day.expected(device).map(|(time_us, _)| time_us).collect();
                assert!(times[0] >= start && times[TICKS - 1] < start + 86_400_000_000, "{clocks:?}");
                assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{clocks:?}: a time twice");
            }
        }
    }

    #[test]
    fn a_retry_repeats_a_line_and_a_correction_changes_one() {
        let mut day = FleetDay::new(1, Clocks::Off);
        let (mut lines, mut seen) = (String::new(), std::collections::HashMap::<String, String>::new());
        let (mut retries, mut corrections) = (0, 0);
        let mut counted = Extras::default();
        for _ in 0..20 {
            let extras = day.next_batch(1_000, &mut lines);
            counted.retries += extras.retries;
            counted.corrections += extras.corrections;
            for line in lines.lines() {
                let (key, rest) = line.split_once(' ').expect("fields");
                let (fields, time) = rest.rsplit_once(' ').expect("time");
                match seen.insert(format!("{key} {time}"), fields.into()) {
                    Some(before) if before == fields => retries += 1,
                    Some(_) => corrections += 1,
                    None => {}
                }
            }
        }
        assert_eq!((retries, corrections), (counted.retries, counted.corrections));
        assert!(retries > 5 && corrections > 5, "{retries} {corrections}");
    }
}
