//! Steps of time: how long a bucket is, and where one begins.
//!
//! Owns:     reading steps as people write them, the origin that buckets are counted from, the arithmetic.
//! Does not: know columns (`time_bucket` and `gapfill` do).
//!
//! Months are those of the calendar in UTC, and every other step has a fixed length: a day is 24 hours.

use arrow::array::types::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::TimeUnit;
use datafusion::common::{Result, ScalarValue, plan_err};

const DAY_NS: i128 = 86_400_000_000_000;

/// Monday 2000-01-03, in days since 1970: what buckets are counted from unless the statement says otherwise, so that
/// weeks begin on Mondays (TimescaleDB and DuckDB, `time_bucket`).
const MONDAY_2000_DAYS: i128 = 10_959;

/// 2000-01-01, for steps of months (TimescaleDB and DuckDB, `time_bucket`).
const YEAR_2000_DAYS: i128 = 10_957;

/// How long a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(super) enum Stride {
    /// Units of the time column.
    Fixed(i64),
    /// Months of the calendar.
    Months(i32),
}

/// Nanoseconds in one unit.
pub(super) fn unit_ns(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Reads a step: an interval, or its text, such as `5m`, `300.000s`, `1 day`.
///
/// # Errors
/// No step, one that is not above zero, months mixed with other units, or finer than times are kept. `function` is named.
pub(super) fn parse(function: &str, value: &ScalarValue, unit: TimeUnit) -> Result<Stride> {
    let interval = match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => *interval,
        ScalarValue::IntervalDayTime(Some(interval)) => IntervalMonthDayNanoType::make_value(
            0,
            interval.days,
            i64::from(interval.milliseconds).saturating_mul(1_000_000),
        ),
        ScalarValue::IntervalYearMonth(Some(months)) => IntervalMonthDayNanoType::make_value(*months, 0, 0),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            match parse_interval_month_day_nano(&spaced(text)) {
                // A number alone would be months.
                Ok(interval) if text.contains(char::is_alphabetic) => interval,
                _ => {
                    return plan_err!("{function}: the first argument, '{text}', is no interval such as '5 minutes'");
                }
            }
        }
        _ => return plan_err!("{function}: the first argument is no interval such as '5 minutes'"),
    };
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    let shown = || match value {
        ScalarValue::Utf8(Some(text)) => format!("'{text}'"),
        _ => format!("of {months} months, {days} days and {nanoseconds} ns"),
    };
    if months != 0 {
        if days != 0 || nanoseconds != 0 {
            return plan_err!("{function}: the first argument, {}, mixes months with other units", shown());
        }
        if months < 0 {
            return plan_err!("{function}: the first argument, {}, is not above zero", shown());
        }
        return Ok(Stride::Months(months));
    }
    let total_ns = i128::from(days) * DAY_NS + i128::from(nanoseconds);
    if total_ns <= 0 {
        return plan_err!("{function}: the first argument, {}, is not above zero", shown());
    }
    let step = total_ns / unit_ns(unit);
    match i64::try_from(step) {
        Ok(step) if i128::from(step) * unit_ns(unit) == total_ns => Ok(Stride::Fixed(step)),
        _ => plan_err!("{function}: the first argument, {}, is finer than the times, or too long", shown()),
    }
}

/// `5m` and `1h30m` as `5 m` and `1 h 30 m`.
fn spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() + 4);
    let mut before = None;
    for c in text.trim().chars() {
        let parts = match before {
            Some(b) => {
                (char::is_ascii_digit(&b) && c.is_ascii_alphabetic()) || (b.is_ascii_alphabetic() && c.is_ascii_digit())
            }
            None => false,
        };
        if parts {
            spaced.push(' ');
        }
        spaced.push(c);
        before = Some(c);
    }
    spaced
}

impl Stride {
    /// The origin of this step, in units since 1970. A unit of nanoseconds has room for it.
    pub(super) fn origin(self, unit: TimeUnit) -> i64 {
        let days = if matches!(self, Stride::Months(_)) { YEAR_2000_DAYS } else { MONDAY_2000_DAYS };
        i64::try_from(days * DAY_NS / unit_ns(unit)).unwrap_or_default()
    }

    /// The begin of the bucket that `time` is in; `None` where that is no time.
    pub(super) fn bucket(self, time: i64, origin: i64, unit: TimeUnit) -> Option<i64> {
        match self {
            Stride::Fixed(step) => {
                let (step, origin) = (i128::from(step), i128::from(origin));
                i64::try_from((i128::from(time) - origin).div_euclid(step) * step + origin).ok()
            }
            Stride::Months(step) => {
                // The months since the origin, of which one may have begun only in part.
                let (at, zero) = (civil(time, unit), civil(origin, unit));
                let whole = at.months - zero.months - i64::from(at.rest < zero.rest);
                add_months(origin, whole.div_euclid(i64::from(step)) * i64::from(step), unit)
            }
        }
    }

    /// The begin of the next bucket after that which begins at `bucket`.
    pub(super) fn next(self, bucket: i64, origin: i64, unit: TimeUnit) -> Option<i64> {
        match self {
            Stride::Fixed(step) => bucket.checked_add(step),
            Stride::Months(step) => {
                let months = civil(bucket, unit).months - civil(origin, unit).months;
                add_months(origin, months + i64::from(step), unit)
            }
        }
    }
}

/// A time as months since year 0 and what is left of the month, in units.
struct Civil {
    months: i64,
    rest: i128,
}

fn civil(time: i64, unit: TimeUnit) -> Civil {
    let day_units = DAY_NS / unit_ns(unit);
    let days = i128::from(time).div_euclid(day_units);
    let (year, month, day) = date_of(i64::try_from(days).unwrap_or_default());
    Civil {
        months: year * 12 + month - 1,
        rest: i128::from(day - 1) * day_units + i128::from(time).rem_euclid(day_units),
    }
}

/// `time` moved by months; a day that the month does not have is its last one.
fn add_months(time: i64, months: i64, unit: TimeUnit) -> Option<i64> {
    let day_units = DAY_NS / unit_ns(unit);
    let from = civil(time, unit);
    let total = from.months + months;
    let first = days_of(total.div_euclid(12), total.rem_euclid(12) + 1);
    let length = days_of((total + 1).div_euclid(12), (total + 1).rem_euclid(12) + 1) - first;
    let day = (from.rest / day_units).min(i128::from(length) - 1);
    i64::try_from((i128::from(first) + day) * day_units + from.rest.rem_euclid(day_units)).ok()
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
fn date_of(days: i64) -> (i64, i64, i64) {
    // Years that begin in March, so that leap days are last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days from 1970 to the first of a month.
fn days_of(year: i64, month: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: TimeUnit = TimeUnit::Microsecond;

    fn step(text: &str) -> Result<Stride> {
        parse("f", &ScalarValue::from(text), US)
    }

    #[test]
    fn steps_are_read_as_people_write_them() {
        for (text, expected) in [
            ("300.000s", 300_000_000),
            ("5m", 300_000_000),
            ("1h", 3_600_000_000),
            ("1h30m", 5_400_000_000),
            ("1 day", 86_400_000_000),
            ("15 minutes", 900_000_000),
            ("2 weeks", 1_209_600_000_000),
            ("250ms", 250_000),
        ] {
            assert_eq!(step(text).unwrap(), Stride::Fixed(expected), "{text}");
        }
        assert_eq!(step("1 month").unwrap(), Stride::Months(1));
        assert_eq!(step("1 year").unwrap(), Stride::Months(12));
        for text in ["", "5", "five", "-1h", "0s", "1 month 1 day", "100ns"] {
            assert!(step(text).is_err(), "{text}");
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let day = |year, month, day| (days_of(year, month) + day - 1) * 86_400_000_000;
        for (months, at, expected) in [
            (1, day(2024, 2, 29), day(2024, 2, 1)),
            (1, day(1969, 12, 31), day(1969, 12, 1)),
            (3, day(2024, 8, 15), day(2024, 7, 1)),
            (12, day(1999, 12, 31), day(1999, 1, 1)),
            (5, day(1999, 12, 31), day(1999, 8, 1)),
        ] {
            let stride = Stride::Months(months);
            assert_eq!(stride.bucket(at, stride.origin(US), US), Some(expected), "{months} {at}");
        }
        // Counted from the 31st, a bucket begins on the last day of shorter months.
        let stride = Stride::Months(1);
        assert_eq!(stride.next(day(2024, 1, 31), day(2023, 1, 31), US), Some(day(2024, 2, 29)));
    }

    #[test]
    fn every_day_of_some_centuries_is_the_one_it_was_made_of() {
        for days in -800_000..800_000 {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month) + day - 1, days);
        }
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        for stride in [Stride::Fixed(1), Stride::Fixed(i64::MAX), Stride::Months(1), Stride::Months(i32::MAX)] {
            for time in [i64::MIN, i64::MAX, 0] {
                for unit in [TimeUnit::Second, TimeUnit::Nanosecond, US] {
                    let _ = stride.bucket(time, stride.origin(unit), unit);
                    let _ = stride.next(time, stride.origin(unit), unit);
                }
            }
        }
    }
}
