//! Decimal numbers: exact, and quick for the short ones that sensors send.

use model::{Value, decimal};

use super::scan::{Fail, not_a_value, quote, value_end};

/// Powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Powers of ten, by fewer digits than eight.
const POWERS_BELOW_EIGHT: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Digits that a u64 holds whatever they are.
const DIGITS_MAX: usize = 19;

/// Adds the digits from `at` to `mantissa`, which wraps if there are too many; returns where they end.
#[inline]
fn digits(bytes: &[u8], at: usize, mantissa: &mut u64) -> usize {
    let mut len = 0;
    for byte in bytes.get(at..).unwrap_or_default() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        len += 1;
    }
    at + len
}

/// As [`digits`], eight at a time where they come in such numbers, as in times.
#[inline]
fn many_digits(bytes: &[u8], at: usize, mantissa: &mut u64) -> usize {
    let (eights, _) = bytes.get(at..).unwrap_or_default().as_chunks::<8>();
    let mut end = at;
    for eight in eights {
        let word = u64::from_le_bytes(*eight);
        let ones = word & 0x0f0f_0f0f_0f0f_0f0f;
        let others = not_digits(word);
        if others != 0 {
            let len = others.trailing_zeros() / 8;
            // Two shifts, as there may be none.
            let last = number_of_eight((ones << 8) << (56 - 8 * len));
            *mantissa = mantissa.wrapping_mul(POWERS_BELOW_EIGHT[len as usize]).wrapping_add(last);
            return end + len as usize;
        }
        *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(number_of_eight(ones));
        end += 8;
    }
    digits(bytes, end, mantissa)
}

/// `word` with the high bit of each byte that is no digit. The first byte of the text is the lowest.
#[inline]
fn not_digits(word: u64) -> u64 {
    // What is left of a digit is at most 9; 0x76 lifts all above to the high bit, which is masked so that none carries.
    let left = word ^ 0x3030_3030_3030_3030;
    (((left & 0x7f7f_7f7f_7f7f_7f7f) + 0x7676_7676_7676_7676) | left) & 0x8080_8080_8080_8080
}

/// The number that eight bytes below ten are, the lowest byte first.
#[inline]
fn number_of_eight(ones: u64) -> u64 {
    // Neighbours join to numbers of two, then four, then eight digits.
    let twos = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos * 100 + (twos >> 16)) & 0x0000_ffff_0000_ffff;
    (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
}

/// Reads `digits (. digits)?` at `at` if it is a float of at most seven characters with a comma or a space behind, as
/// sensors send them: without a branch on how many digits stand where. Returns it without sign, and where it ends.
///
/// Always inlined, as its result would go through memory otherwise.
#[inline(always)]
fn short(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let word = u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?);
    let mut ends = not_digits(word);
    let whole = ends.trailing_zeros() / 8;
    if whole == 0 || whole == 8 {
        return None;
    }
    let ones = word & 0x0f0f_0f0f_0f0f_0f0f;
    let (mut joined, mut len, mut fraction) = (ones, whole, 0);
    if (word >> (8 * whole)) & 0xff == u64::from(b'.') {
        ends &= ends - 1;
        len = ends.trailing_zeros() / 8;
        fraction = len.wrapping_sub(whole + 1);
        if fraction == 0 || len == 8 {
            return None;
        }
        let below = (1 << (8 * whole)) - 1;
        joined = (ones & below) | ((ones >> 8) & !below);
    }
    if !matches!((word >> (8 * len)) as u8, b',' | b' ') {
        return None;
    }
    let digits = len - u32::from(fraction > 0);
    let mantissa = number_of_eight(joined << (64 - 8 * digits));
    Some((mantissa as f64 / POWERS[fraction as usize], at + len as usize))
}

/// Reads the number at `start`: `-? digits (i | u | (. digits)? (d | ([eE] [+-]? digits)?))`; returns where it ends.
/// What may follow a value is the caller's to check.
#[inline]
pub(super) fn value(text: &str, start: usize) -> Result<(Value<'_>, usize), Fail> {
    let bytes = text.as_bytes();
    let negative = bytes[start] == b'-';
    let first = start + usize::from(negative);
    if let Some((magnitude, end)) = short(bytes, first) {
        return Ok((Value::F64(if negative { -magnitude } else { magnitude }), end));
    }
    let mut mantissa = 0;
    let mut at = digits(bytes, first, &mut mantissa);
    let mut digits_len = at - first;
    if digits_len == 0 {
        return Err(refused(text, start));
    }
    match bytes.get(at) {
        Some(b'i') => return signed(text, start, at).map(|value| (Value::I64(value), at + 1)),
        Some(b'u') => return unsigned(text, start, at).map(|value| (Value::U64(value), at + 1)),
        _ => {}
    }
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        let end = digits(bytes, at + 1, &mut mantissa);
        fraction = end - (at + 1);
        if fraction == 0 {
            return Err(refused(text, start));
        }
        digits_len += fraction;
        at = end;
    }
    if bytes.get(at) == Some(&b'd') {
        // So many digits do not wrap, if the first of them is the zero before the point.
        let units = i64::try_from(mantissa).ok().filter(|_| digits_len <= DIGITS_MAX).and_then(decimal::checked);
        let scale = u8::try_from(fraction).ok().filter(|scale| *scale <= decimal::SCALE_MAX);
        let (Some(units), Some(scale)) = (units, scale) else { return Err(too_long(text, start, at)) };
        return Ok((Value::Decimal { units: if negative { -units } else { units }, scale }, at + 1));
    }
    let mut exponent = -(fraction as i64);
    if let Some(b'e' | b'E') = bytes.get(at) {
        let (by, end) = exponent_at(text, start, at + 1)?;
        exponent = exponent.saturating_add(by);
        at = end;
    }
    // A double holds integers up to 2^53 and the powers in the table exactly, so one operation rounds once: the
    // result is the double next to the decimal, as `str::parse` finds it.
    let power = POWERS.get(exponent.unsigned_abs() as usize);
    let value = match power {
        Some(power) if digits_len <= DIGITS_MAX && mantissa <= 1 << 53 => {
            let magnitude = if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
            if negative { -magnitude } else { magnitude }
        }
        _ => long(text, start, at)?,
    };
    Ok((Value::F64(value), at))
}

/// The float at `at` and where it ends, if it is one.
#[inline]
pub(super) fn float(text: &str, at: usize) -> Option<(f64, usize)> {
    let bytes = text.as_bytes();
    let negative = *bytes.get(at)? == b'-';
    if let Some((magnitude, end)) = short(bytes, at + usize::from(negative)) {
        return Some((if negative { -magnitude } else { magnitude }, end));
    }
    match value(text, at) {
        Ok((Value::F64(value), end)) => Some((value, end)),
        _ => None,
    }
}

/// The exponent at `at`, clamped far outside of what a double can hold.
fn exponent_at(text: &str, start: usize, at: usize) -> Result<(i64, usize), Fail> {
    let bytes = text.as_bytes();
    let first = at + usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
    let mut exponent = 0;
    let end = digits(bytes, first, &mut exponent);
    if end == first {
        return Err(refused(text, start));
    }
    // Anything that may have wrapped is only clamped here: the slow path reads the text itself.
    let exponent = if end - first > 4 { 99_999 } else { exponent as i64 };
    Ok((if bytes[at] == b'-' { -exponent } else { exponent }, end))
}

#[cold]
fn long(text: &str, start: usize, end: usize) -> Result<f64, Fail> {
    let number = &text[start..end];
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(Fail {
            at: start,
            message: format!("the number {} is out of range; a float reaches 1.7976931348623157e308", quote(number)),
        }),
    }
}

fn signed(text: &str, start: usize, end: usize) -> Result<i64, Fail> {
    text[start..end].parse().map_err(|_| Fail {
        at: start,
        message: format!(
            "the integer {} is out of range; right is {} to {}",
            quote(&text[start..=end]),
            i64::MIN,
            i64::MAX
        ),
    })
}

fn unsigned(text: &str, start: usize, end: usize) -> Result<u64, Fail> {
    text[start..end].parse().map_err(|_| Fail {
        at: start,
        message: format!("the unsigned {} is out of range; right is 0 to {}", quote(&text[start..=end]), u64::MAX),
    })
}

#[cold]
fn too_long(text: &str, start: usize, end: usize) -> Fail {
    let number = quote(&text[start..=end]);
    Fail { at: start, message: format!("the decimal {number} has more than {} digits", decimal::DIGITS_MAX) }
}

#[cold]
fn refused(text: &str, start: usize) -> Fail {
    Fail { at: start, message: not_a_value(&text[start..value_end(text.as_bytes(), start)]) }
}

/// Reads the time at `start`: `-? digits`; returns where it ends.
#[inline]
pub(super) fn time(text: &str, start: usize) -> Result<(i64, usize), Fail> {
    let bytes = text.as_bytes();
    let negative = bytes[start] == b'-';
    let first = start + usize::from(negative);
    let mut magnitude = 0;
    let end = many_digits(bytes, first, &mut magnitude);
    if end == first {
        let word = quote(&text[start..value_end(bytes, start)]);
        return Err(Fail { at: start, message: format!("{word} is not a time; right is an integer, or nothing") });
    }
    if end - first <= DIGITS_MAX
        && let Ok(time) = i64::try_from(magnitude)
    {
        return Ok((if negative { -time } else { time }, end));
    }
    match text[start..end].parse() {
        Ok(time) => Ok((time, end)),
        Err(_) => {
            let message = format!("the time {} is out of range of 64 bits", quote(&text[start..end]));
            Err(Fail { at: start, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) {
        let expected: f64 = text.parse().unwrap();
        let (value, end) = value(text, 0).unwrap();
        assert_eq!(end, text.len(), "{text}");
        let Value::F64(value) = value else { panic!("{text} is {value:?}") };
        assert_eq!(value.to_bits(), expected.to_bits(), "{text}");
    }

    #[test]
    fn every_float_is_the_one_nearest_to_its_decimal() {
        for text in [
            "0",
            "-0",
            "0.0",
            "1",
            "21.5",
            "-0.1",
            "1e5",
            "1E-5",
            "1.5e+22",
            "1e22",
            "1e23",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993e22",
            "9007199254740991e-22",
            "18446744073709551616.5",
            "00000000000000000000000000001.5",
            "0.00000000000000000000000000015",
            "5e-324",
            "2.2250738585072011e-308",
            "1.7976931348623157e308",
            "1e-99999999999999999999999",
            "0e99999999999999999999999",
            "184467440737095516160",
        ] {
            check(text);
        }
    }

    #[test]
    fn a_decimal_is_its_digits_or_refused() {
        for (text, units, scale) in [
            ("21.5d", 215, 1),
            ("-0.30d", -30, 2),
            ("7d", 7, 0),
            ("123456789012345.678d", 123_456_789_012_345_678, 3),
            ("-999999999999999999d", -999_999_999_999_999_999, 0),
            ("0.000000000000000001d", 1, 18),
        ] {
            let (found, end) = value(text, 0).unwrap();
            assert_eq!((found, end), (Value::Decimal { units, scale }, text.len()), "{text}");
        }
        for text in ["1000000000000000000d", "0.0000000000000000001d", "18446744073709551616d", "00000000000000000000d"]
        {
            assert!(value(text, 0).unwrap_err().message.contains("more than 18 digits"), "{text}");
        }
        assert!(value("1.d", 0).is_err());
    }

    #[test]
    fn a_short_float_is_the_one_nearest_to_its_decimal_whatever_is_behind() {
        for whole in ["0", "7", "42", "994", "1004", "99999", "100000", "1234567"] {
            for fraction in ["", ".0", ".5", ".25", ".125", ".00001"] {
                for behind in [",b=1.0", " 1780272005059000000", "", "\n"] {
                    for sign in ["", "-"] {
                        let number = format!("{sign}{whole}{fraction}");
                        let text = format!("{number}{behind}");
                        let (found, end) = value(&text, 0).unwrap();
                        assert_eq!((found, end), (Value::F64(number.parse().unwrap()), number.len()), "{text}");
                    }
                }
            }
        }
        for text in ["1.,b=1.0,c=", "..1,b=1.0,c=", "1..2,b=1.0,c=", "-,b=1.0,c=1.0", "--1,b=1.0,c="] {
            assert!(value(text, 0).is_err(), "{text}");
        }
        for (text, expected) in [("12i,b=1.0", Value::I64(12)), ("12u b=1.0", Value::U64(12))] {
            assert_eq!(value(text, 0).unwrap(), (expected, 3), "{text}");
        }
        assert_eq!(value("1.2.3456", 0).unwrap().1, 3, "the caller sees the point");
    }

    #[test]
    fn every_time_is_its_digits() {
        for len in 1..=18 {
            for text in ["1".repeat(len), "9".repeat(len), "1234567890".repeat(2)[..len].to_owned()] {
                let expected = (text.parse().unwrap(), text.len());
                assert_eq!(time(&text, 0).unwrap(), expected, "{text}");
                assert_eq!(time(&format!("{text} 1"), 0).unwrap(), expected, "{text}");
                assert_eq!(time(&format!("{text}:2345678"), 0).unwrap(), expected, "{text}");
                assert_eq!(time(&format!("{text}/é345678"), 0).unwrap(), expected, "{text}");
            }
        }
        for text in ["1780272005059000000", "9223372036854775807", "-9223372036854775807", "0000000000000000001"] {
            assert_eq!(time(text, 0).unwrap(), (text.parse().unwrap(), text.len()), "{text}");
        }
        assert!(time("9999999999999999999", 0).is_err());
        assert!(time("18446744073709551617", 0).is_err());
        assert_eq!(time("-9223372036854775808", 0).unwrap().0, i64::MIN);
        assert!(time("9223372036854775808", 0).is_err());
    }

    #[test]
    fn seeded_floats_are_the_ones_nearest_to_their_decimals() {
        use model::{Rng, SplitMix64};
        let rng = SplitMix64::new(7);
        for _ in 0..20_000 {
            let mantissa = rng.next_u64() >> rng.below(64);
            let point = rng.below(6);
            let text = match rng.below(3) {
                0 => format!("{mantissa}.{:0width$}", rng.below(1000), width = point as usize + 1),
                1 => format!("-{mantissa}e{}", rng.below(60) as i64 - 30),
                _ => format!("{}.{}e{}", mantissa % 100, rng.next_u64() >> 30, rng.below(600) as i64 - 300),
            };
            check(&text);
        }
    }
}
