//! Invented places with weather, at which simulated twins of chips stand, and what a Bosch BMP180 reads there.
//!
//! Figures are the data sheet's (BST-BMP180-DS000): output in steps of 0.1 °C and 1 Pa, −40 … 85 °C,
//! 300 … 1100 hPa, noise of 3 Pa RMS in ultra high resolution mode.

use std::f64::consts::TAU;
use std::fmt;

use model::{DAY_US, Rng, SplitMix64};

use super::Fields;
use super::value::Value;

/// Tenths of a degree Celsius, the chip's unit of temperature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeciCelsius(pub i16);

/// Degrees Celsius with their one decimal: `-0.5`.
impl fmt::Display for DeciCelsius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{}", self.0.unsigned_abs() / 10, self.0.unsigned_abs() % 10)
    }
}

/// Pascals, the chip's unit of pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pascal(pub u32);

impl fmt::Display for Pascal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the chip measured at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bmp180Reading {
    /// Temperature.
    pub temperature: DeciCelsius,
    /// Absolute pressure.
    pub pressure: Pascal,
}

impl Bmp180Reading {
    /// As fields: °C in steps of 0.1, Pa in steps of 1.
    pub(crate) fn fields(self) -> Fields {
        vec![
            ("temperature".into(), Value { steps: self.temperature.0.into(), decimals: 1 }),
            ("pressure".into(), Value::whole(self.pressure.0.into())),
        ]
    }
}

/// What the air of a place is like at one moment, with the noise of a sensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) centi_celsius: f64,
    pub(crate) pa: f64,
    /// Relative humidity.
    pub(crate) percent: f64,
}

/// Hundredths of a degree by which a day swings to either side of its mean.
const DAY_SWING_CENTI_CELSIUS: f64 = 400.0;
/// The half-daily tide of the air, to either side.
const TIDE_PA: f64 = 90.0;
/// Weather: a slow wave that passes in a bit more than three days.
const WEATHER_PA: f64 = 800.0;
const WEATHER_DAYS: f64 = 3.3;
const NOISE_PA: f64 = 3.0;
const NOISE_CENTI_CELSIUS: f64 = 4.0;

/// A place whose air follows time of day and weather, with the noise of a sensor on top. The same seed is the same place,
/// and reads the same values in the same order of calls.
#[derive(Debug)]
pub struct InventedPlace {
    rng: SplitMix64,
    mean_centi_celsius: f64,
    mean_pa: f64,
    phase_days: f64,
}

impl InventedPlace {
    /// The place that `seed` stands for.
    pub fn new(seed: u64) -> Self {
        let rng = SplitMix64::new(seed);
        InventedPlace {
            mean_centi_celsius: 1_800.0 + rng.below(600) as f64,
            mean_pa: 99_500.0 + rng.below(2_500) as f64,
            // Afternoons are warm everywhere; places differ by an hour or so.
            phase_days: rng.below(1_000) as f64 / 12_000.0,
            rng,
        }
    }

    /// What a BMP180 measures at `time_us`, microseconds since 1970-01-01 UTC.
    pub fn read(&self, time_us: i64) -> Bmp180Reading {
        let Weather { centi_celsius, pa, .. } = self.weather(time_us);
        Bmp180Reading {
            temperature: DeciCelsius((centi_celsius / 10.0).round().clamp(-400.0, 850.0) as i16),
            pressure: Pascal(pa.round().clamp(30_000.0, 110_000.0) as u32),
        }
    }

    /// The air at `time_us`, microseconds since 1970-01-01 UTC.
    pub(crate) fn weather(&self, time_us: i64) -> Weather {
        let days = time_us as f64 / DAY_US as f64 + self.phase_days;
        let centi_celsius =
            self.mean_centi_celsius - DAY_SWING_CENTI_CELSIUS * (days * TAU).cos() + NOISE_CENTI_CELSIUS * self.noise();
        let pa = self.mean_pa
            + TIDE_PA * (days * 2.0 * TAU).sin()
            + WEATHER_PA * (days / WEATHER_DAYS * TAU).sin()
            + NOISE_PA * self.noise();
        // Warm air of the same water is drier: about 2.5 % less for each degree.
        let percent = 55.0 - (centi_celsius - self.mean_centi_celsius) / 40.0;
        Weather { centi_celsius, pa, percent: percent.clamp(5.0, 99.0) }
    }

    /// About normally distributed, mean 0, deviation 1: a sum of twelve uniforms.
    fn noise(&self) -> f64 {
        (0..12).map(|_| self.rng.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_780_272_000_000_000 + DAY_US / 2;

    #[test]
    fn temperatures_show_one_decimal_and_their_sign() {
        for (deci, shown) in [(215, "21.5"), (0, "0.0"), (-5, "-0.5"), (-400, "-40.0"), (850, "85.0")] {
            assert_eq!(DeciCelsius(deci).to_string(), shown);
        }
    }

    #[test]
    fn the_same_seed_reads_the_same_values() {
        let read = |seed| {
            let place = InventedPlace::new(seed);
            (0..100).map(|second| place.read(NOON + second * 1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(read(7), read(7));
        assert_ne!(read(7), read(8));
    }

    #[test]
    fn a_second_changes_little_and_half_a_day_changes_much() {
        let place = InventedPlace::new(7);
        let (now, next) = (place.read(NOON), place.read(NOON + 1_000_000));
        assert!(now.temperature.0.abs_diff(next.temperature.0) <= 5, "{now:?} {next:?}");
        assert!(now.pressure.0.abs_diff(next.pressure.0) <= 40, "{now:?} {next:?}");
        let night = place.read(NOON + DAY_US / 2);
        assert!(now.temperature.0 - night.temperature.0 > 40, "{now:?} {night:?}");
    }

    #[test]
    fn values_stay_within_the_chip_at_any_time() {
        let place = InventedPlace::new(u64::MAX);
        for time_us in [i64::MIN, -1, 0, NOON, i64::MAX] {
            let reading = place.read(time_us);
            assert!((-400..=850).contains(&reading.temperature.0), "{reading:?}");
            assert!((30_000..=110_000).contains(&reading.pressure.0), "{reading:?}");
        }
    }
}
