//! Values of fields: whole steps of a decimal place, so that what a sensor said is exact.

use std::fmt;

/// The value of a field, exact in the sensor's own steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// How many steps.
    pub steps: i64,
    /// A step is 10 to the power of minus this; at most [`DECIMALS_MAX`].
    pub decimals: u8,
}

/// More decimals than any sensor has.
pub(crate) const DECIMALS_MAX: u8 = 9;
/// Behind the point; with those before it they fit 128 bits.
const NEAREST_DIGITS: usize = 20;

/// Whether a number has to fit as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exact {
    Yes,
    No,
}

impl Value {
    /// A whole number.
    pub fn whole(steps: i64) -> Value {
        Value { steps, decimals: 0 }
    }

    /// A decimal number such as `-0.5`, `21` or `1.2e-3`, with the decimals that it is written with; zeros beyond
    /// [`DECIMALS_MAX`] do not count. `None` for anything else, and for what does not fit exactly.
    pub fn parse(text: &str) -> Option<Value> {
        Value::read(text, Exact::Yes)
    }

    /// The same of a number with any decimals: those beyond [`DECIMALS_MAX`] are rounded, and zeros at their end left out.
    /// `None` for what is no number, or too large.
    pub fn nearest(text: &str) -> Option<Value> {
        Value::read(text, Exact::No)
    }

    fn read(text: &str, exact: Exact) -> Option<Value> {
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (sign, digits) = match number.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, mut fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if exact == Exact::No && fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            // What is behind them moves nothing that is kept.
            fraction = &fraction[..fraction.len().min(NEAREST_DIGITS)];
        }
        if whole.len() + fraction.len() > 40 || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let mut steps: i128 = 0;
        for digit in whole.chars().chain(fraction.chars()) {
            steps = steps.checked_mul(10)?.checked_add(i128::from(digit.to_digit(10)?))?;
        }
        let mut decimals = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        while decimals > i32::from(DECIMALS_MAX) {
            if steps % 10 != 0 && exact == Exact::Yes {
                return None;
            }
            if steps % 10 != 0 {
                let excess = (decimals - i32::from(DECIMALS_MAX)).unsigned_abs();
                steps = 10_i128.checked_pow(excess).map_or(0, |divisor| nearest(steps, divisor));
                decimals = i32::from(DECIMALS_MAX);
                while decimals > 0 && steps % 10 == 0 {
                    steps /= 10;
                    decimals -= 1;
                }
                break;
            }
            if steps == 0 {
                decimals = 0;
                break;
            }
            steps /= 10;
            decimals -= 1;
        }
        while decimals < 0 {
            if steps == 0 {
                decimals = 0;
                break;
            }
            steps = steps.checked_mul(10)?;
            decimals += 1;
        }
        Some(Value { steps: i64::try_from(sign * steps).ok()?, decimals: u8::try_from(decimals).ok()? })
    }

    /// The steps with `decimals` decimals, which are not fewer than it has.
    fn scaled(self, decimals: u8) -> i128 {
        debug_assert!(decimals >= self.decimals, "scaling never rounds");
        i128::from(self.steps) * 10_i128.pow(u32::from(decimals.saturating_sub(self.decimals)))
    }

    /// With at most `decimals` decimals, rounded to the nearest, halves away from zero.
    pub fn rounded(self, decimals: u8) -> Value {
        if self.decimals <= decimals {
            return self;
        }
        let divisor = 10_i128.pow(u32::from(self.decimals - decimals));
        Value { steps: clamped(nearest(i128::from(self.steps), divisor)), decimals }
    }

    /// The sum, in the finer steps of the two; at the ends of the range it stays there.
    #[must_use]
    pub fn plus(self, other: Value) -> Value {
        let decimals = self.decimals.max(other.decimals);
        Value { steps: clamped(self.scaled(decimals) + other.scaled(decimals)), decimals }
    }

    /// Whether it differs from `other` by at least `band`.
    pub fn is_off_by(self, other: Value, band: Value) -> bool {
        let decimals = self.decimals.max(other.decimals).max(band.decimals);
        (self.scaled(decimals) - other.scaled(decimals)).abs() >= band.scaled(decimals).abs()
    }

    /// Which of the two is the greater number.
    pub fn order(self, other: Value) -> std::cmp::Ordering {
        let decimals = self.decimals.max(other.decimals);
        self.scaled(decimals).cmp(&other.scaled(decimals))
    }

    /// The mean, with one decimal more than the finest of them, rounded to the nearest, halves away from zero. `None`
    /// of no values.
    pub fn mean(values: &[Value]) -> Option<Value> {
        let finest = values.iter().map(|value| value.decimals).max()?;
        let decimals = (finest + 1).min(DECIMALS_MAX);
        let sum: i128 = values.iter().map(|value| value.scaled(decimals)).sum();
        Some(Value { steps: clamped(nearest(sum, values.len() as i128)), decimals })
    }
}

fn nearest(number: i128, divisor: i128) -> i128 {
    let half = divisor / 2 * number.signum();
    (number + half) / divisor
}

fn clamped(steps: i128) -> i64 {
    steps.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// As a decimal number: `-0.5`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value { steps, decimals } = *self;
        if decimals == 0 {
            return write!(f, "{steps}");
        }
        let sign = if steps < 0 { "-" } else { "" };
        let digits = format!("{:0width$}", steps.unsigned_abs(), width = usize::from(decimals) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value::parse(text).unwrap()
    }

    #[test]
    fn values_show_their_steps_exactly() {
        for (steps, decimals, shown) in
            [(215, 1, "21.5"), (-5, 1, "-0.5"), (0, 1, "0.0"), (7, 3, "0.007"), (101_325, 0, "101325")]
        {
            assert_eq!(Value { steps, decimals }.to_string(), shown);
            assert_eq!(value(shown), Value { steps, decimals });
        }
    }

    #[test]
    fn numbers_with_exponents_are_read_exactly_or_not_at_all() {
        for (text, shown) in [
            ("1.5e3", "1500"),
            ("12E-3", "0.012"),
            ("+7", "7"),
            (".5", "0.5"),
            ("0e99", "0"),
            ("1.50000000000", "1.500000000"),
        ] {
            assert_eq!(value(text).to_string(), shown, "{text}");
        }
        for text in [
            "",
            "-",
            ".",
            "1,5",
            "nan",
            "inf",
            "1e",
            "1e30",
            "0.1234567891",
            "99999999999999999999",
            "1.2.3",
            "٣",
            "1e-2147483648",
            "1e2147483647",
        ] {
            assert_eq!(Value::parse(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_with_more_decimals_are_rounded_where_that_is_asked_for() {
        for (text, shown) in [
            ("21.300000000000004", "21.3"),
            ("-0.1234567895", "-0.12345679"),
            ("0.99999999999", "1"),
            ("9.9e-10", "0.000000001"),
            ("-4e-10", "0"),
            ("1.23e-300", "0"),
            ("21.50", "21.50"),
            ("1.5000000000e3", "1500.0000000"),
        ] {
            assert_eq!(Value::nearest(text).map(|value| value.to_string()).as_deref(), Some(shown), "{text}");
        }
        let long = format!("0.{}", "3".repeat(400));
        assert_eq!(Value::nearest(&long).unwrap().to_string(), "0.333333333");
        for text in ["", "1.2.3", "nan", "1e30", "99999999999999999999", "1.٣", "0.1234567891234567891234567891x"] {
            assert_eq!(Value::nearest(text), None, "{text}");
        }
    }

    #[test]
    fn sums_and_means_keep_decimals() {
        assert_eq!(value("21.5").plus(value("-0.25")).to_string(), "21.25");
        let mean = |texts: &[&str]| Value::mean(&texts.iter().map(|text| value(text)).collect::<Vec<_>>());
        assert_eq!(mean(&["21.5", "21.6"]).unwrap().to_string(), "21.55");
        assert_eq!(mean(&["-1", "-2", "-2"]).unwrap().to_string(), "-1.7");
        assert_eq!(mean(&[]), None);
        assert_eq!(value("21.55").rounded(1).to_string(), "21.6");
        assert_eq!(value("-21.55").rounded(1).to_string(), "-21.6");
        let largest = Value::whole(i64::MAX);
        assert_eq!(largest.plus(largest), largest);
    }

    #[test]
    fn a_band_is_met_at_its_edge() {
        assert!(value("21.5").is_off_by(value("21.7"), value("0.2")));
        assert!(!value("21.5").is_off_by(value("21.69"), value("0.2")));
    }
}
