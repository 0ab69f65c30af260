//! Decimals: whole units of a declared resolution, such as 215 tenths of a degree.
//!
//! Owns:     converting between units and other numbers, exactly or not at all.
//! Does not: round. A number that is no whole number of units is not converted, so that nobody stores another value
//!           than was measured.
//!
//! A double means the shortest decimal text that reads back as it: 0.1 is one tenth, though its bits are a little more.

use std::fmt;

/// Digits that a decimal has at most; so the units of any fit an i64, and a Parquet INT64.
pub const DIGITS_MAX: u8 = 18;

/// Units are below this on both sides of zero.
pub const UNITS_END: i64 = units_end(DIGITS_MAX);

/// Digits behind the point that a decimal may have.
pub const SCALE_MAX: u8 = 18;

/// Powers of ten that a double holds exactly; more than any scale needs.
const POWERS: [f64; 19] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// Below it a double is known by the first fifteen digits of its text: see [`units_of_f64`].
const FAST_UNITS_MAX: f64 = 9e14;

/// Adding and subtracting it rounds a double of less than 2^51 to a whole number.
const ROUNDING: f64 = 6_755_399_441_055_744.0;

/// Units of at most `digits` digits are below this on both sides of zero.
///
/// # Panics
/// If `digits` is above [`DIGITS_MAX`].
pub const fn units_end(digits: u8) -> i64 {
    assert!(digits <= DIGITS_MAX);
    10_i64.pow(digits as u32)
}

/// Whole units of 10^-`scale`, if `units` has at most [`DIGITS_MAX`] digits.
pub fn checked(units: i64) -> Option<i64> {
    (-UNITS_END < units && units < UNITS_END).then_some(units)
}

/// The units of 10^-`scale` that `value` is, if its shortest decimal text has at most `scale` digits behind the point,
/// and the units at most [`DIGITS_MAX`] digits.
///
/// # Panics
/// If `scale` is above [`SCALE_MAX`].
#[inline]
pub fn units_of_f64(value: f64, scale: u8) -> Option<i64> {
    let power = POWERS[usize::from(scale)];
    let scaled = value * power;
    if scaled.abs() < FAST_UNITS_MAX {
        // Both roundings, of the text to the double and of the product, are off by less than 2^-52 of 9e14, a quarter:
        // if the text is so many whole units, this is their number. And it is the text if it reads back as the same
        // double (units and power are exact, so the quotient is the nearest): two texts of fifteen digits never do.
        let units = (scaled + ROUNDING) - ROUNDING;
        return (units / power == value).then_some(units as i64);
    }
    units_of_long_f64(value, scale)
}

#[cold]
fn units_of_long_f64(value: f64, scale: u8) -> Option<i64> {
    if value.is_nan() || value.abs() >= UNITS_END as f64 {
        return None;
    }
    // Never with an exponent, and the shortest text that reads back.
    let text = value.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let missing = usize::from(scale).checked_sub(fraction.len())?;
    let digits: i64 = format!("{whole}{fraction}").parse().ok()?;
    checked(digits.checked_mul(10_i64.pow(u32::try_from(missing).ok()?))?)
}

/// The nearest double to `units` of 10^-`scale`.
///
/// # Panics
/// If `scale` is above [`SCALE_MAX`].
pub fn to_f64(units: i64, scale: u8) -> f64 {
    /// Up to it a double holds every whole number, so that the quotient is rounded once.
    const EXACT_MAX: u64 = 1 << 53;
    if units.unsigned_abs() <= EXACT_MAX {
        return units as f64 / POWERS[usize::from(scale)];
    }
    Decimal { units, scale }.to_string().parse().expect("a decimal's text is a number")
}

/// `units` of 10^-`from` in units of 10^-`to`, if they are whole and not too many.
pub fn rescaled(units: i64, from: u8, to: u8) -> Option<i64> {
    if to >= from {
        return checked(units.checked_mul(10_i64.checked_pow(u32::from(to - from))?)?);
    }
    let power = 10_i64.checked_pow(u32::from(from - to))?;
    (units % power == 0).then_some(units / power)
}

/// The digits behind the point that a resolution such as `0.1`, `0.25` or `1` needs; `None` if it is no such number.
pub fn scale_of_resolution(text: &str) -> Option<u8> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    if !is_digits(whole) || !is_digits(fraction) || is_zero {
        return None;
    }
    u8::try_from(fraction.trim_end_matches('0').len()).ok().filter(|scale| *scale <= SCALE_MAX)
}

/// The resolution of a scale: `1`, `0.1`, `0.01` …
pub fn resolution(scale: u8) -> String {
    Decimal { units: 1, scale }.to_string()
}

/// Units of 10^-scale, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// How many.
    pub units: i64,
    /// Of which: digits behind the point.
    pub scale: u8,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, units, scale) = (if self.units < 0 { "-" } else { "" }, self.units.unsigned_abs(), self.scale);
        if scale == 0 {
            return write!(f, "{sign}{units}");
        }
        let digits = format!("{units:0width$}", width = usize::from(scale) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, SplitMix64};

    /// By text alone, the definition.
    fn by_text(value: f64, scale: u8) -> Option<i64> {
        let text = value.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        if !value.is_finite() || fraction.len() > usize::from(scale) {
            return None;
        }
        let units: i128 = format!("{whole}{fraction:0<width$}", width = usize::from(scale)).parse().ok()?;
        (units.abs() < i128::from(UNITS_END)).then_some(units as i64)
    }

    #[test]
    fn any_double_is_converted_by_its_shortest_text_or_not_at_all() {
        let rng = SplitMix64::new(3);
        let mut converted = 0;
        for case in 0..400_000_u64 {
            let digits = rng.below(19) as u32;
            let short = (rng.below(10_u64.pow(digits)) as f64) / POWERS[rng.below(19) as usize];
            let value = match case % 4 {
                0 => f64::from_bits(rng.next_u64()),
                1 => short,
                2 => -short,
                // One step beside a short one.
                _ => {
                    if rng.below(2) == 0 {
                        short.next_up()
                    } else {
                        short.next_down()
                    }
                }
            };
            let scale = rng.below(19) as u8;
            let units = units_of_f64(value, scale);
            assert_eq!(units, by_text(value, scale), "{value} in units of 10^-{scale} (seed 3, case {case})");
            if let Some(units) = units {
                converted += 1;
                assert!(to_f64(units, scale) == value, "{value} as {units} of 10^-{scale}");
            }
        }
        assert!(converted > 50_000, "{converted} of them were convertible");
    }

    /// Every number of a sensor with that resolution, and none between.
    #[test]
    fn numbers_of_a_resolution_convert_and_finer_ones_do_not() {
        for units in -20_000..20_000_i64 {
            let value = units as f64 / 100.0;
            assert_eq!(units_of_f64(value, 2), Some(units));
            assert_eq!(units_of_f64(value, 1), (units % 10 == 0).then_some(units / 10), "{value}");
            assert_eq!(units_of_f64(value.next_up(), 2), None, "{value}");
        }
        for (value, scale, units) in [
            (0.1, 1, Some(1)),
            (0.1 + 0.2, 1, None),
            (-0.0, 3, Some(0)),
            (1e17, 0, Some(100_000_000_000_000_000)),
            (1e18, 0, None),
            (1e17, 1, None),
            (123_456_789_012_345.67, 2, Some(12_345_678_901_234_567)),
            (f64::NAN, 0, None),
            (f64::NEG_INFINITY, 18, None),
            (5e-324, 18, None),
            (1e-18, 18, Some(1)),
        ] {
            assert_eq!(units_of_f64(value, scale), units, "{value} {scale}");
        }
    }

    #[test]
    fn scales_change_exactly_or_not_at_all() {
        assert_eq!(rescaled(-215, 1, 3), Some(-21_500));
        assert_eq!(rescaled(-21_500, 3, 1), Some(-215));
        assert_eq!(rescaled(21_501, 3, 1), None);
        assert_eq!(rescaled(UNITS_END / 10, 0, 1), None);
        assert_eq!(rescaled(UNITS_END / 10 - 1, 0, 1), Some(UNITS_END - 10));
        assert_eq!(rescaled(0, 18, 0), Some(0));
    }

    #[test]
    fn resolutions_are_read_and_units_shown() {
        for (text, scale) in [
            ("1", Some(0)),
            ("0.1", Some(1)),
            ("0.25", Some(2)),
            ("0.50", Some(1)),
            ("10", Some(0)),
            ("0", None),
            ("0.0", None),
            ("-1", None),
            (".1", None),
            ("1.", None),
            ("1e-3", None),
            ("0.0000000000000000001", None),
        ] {
            assert_eq!(scale_of_resolution(text), scale, "{text}");
        }
        for scale in 0..=SCALE_MAX {
            assert_eq!(scale_of_resolution(&resolution(scale)), Some(scale));
        }
        for (units, scale, text) in [(-5, 1, "-0.5"), (215, 1, "21.5"), (7, 0, "7"), (0, 2, "0.00"), (-12, 2, "-0.12")]
        {
            assert_eq!(Decimal { units, scale }.to_string(), text);
        }
    }
}
