//! Where the parts of a line begin and end, and what their escapes mean.
//!
//! Two functions know where a line ends: the parser, which walks a good line, and [`line_end`], which skips a bad
//! one. They agree on every good line (tested): a line break ends the line unless it is escaped or inside a string,
//! and a string begins only with a quote right after an unescaped `=` behind the first unescaped space.

use std::borrow::Cow;

/// Why a line is refused.
#[derive(Debug)]
pub(super) struct Fail {
    /// Where, in bytes from the start of the text that was being read.
    pub(super) at: usize,
    /// What is wrong and what would be right; lower case.
    pub(super) message: String,
}

impl Fail {
    /// The same in a text that begins `by` bytes earlier.
    pub(super) fn moved(self, by: usize) -> Self {
        Fail { at: self.at + by, ..self }
    }
}

/// The first byte from `at` that is neither space nor tab.
pub(super) fn skip_blanks(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// The first byte from `at` that is no space.
#[inline]
pub(super) fn skip_spaces(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// True at the end of the bytes, at a line break, and at a carriage return before one of them.
#[inline]
pub(super) fn is_line_end(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        None | Some(b'\n') => true,
        Some(b'\r') => matches!(bytes.get(at + 1), None | Some(b'\n')),
        Some(_) => false,
    }
}

/// As the slices' own, without a call for what is as short as a name.
#[inline]
pub(super) fn starts_with(bytes: &[u8], start: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..start.len()) else { return false };
    match (bytes.first_chunk::<8>(), start.first_chunk::<8>(), bytes.last_chunk::<8>(), start.last_chunk::<8>()) {
        (Some(a), Some(b), Some(c), Some(d)) if start.len() <= 16 => a == b && c == d,
        (None, ..) => bytes.iter().zip(start).all(|(a, b)| a == b),
        _ => bytes == start,
    }
}

/// How many characters there are before the first that is no visible ASCII, a comma or a backslash: what of a tag's
/// value needs no other look.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'\\');
    let (eights, last) = bytes.as_chunks::<8>();
    for (i, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        let low = word & !HIGH;
        // A high bit where the byte is no such character; none of the sums carries into the next byte.
        let differs = |from: u8| (low ^ (u64::from(from) * EACH)) + 0x7f * EACH;
        let visible = low + (0x80 - 0x21) * EACH;
        let others = (!(visible & differs(0x7f) & differs(b',') & differs(b'\\')) | word) & HIGH;
        if others != 0 {
            return 8 * i + others.trailing_zeros() as usize / 8;
        }
    }
    8 * eights.len() + last.iter().position(|byte| !is_plain(byte)).unwrap_or(last.len())
}

/// The next line break from `at`, or the end.
pub(super) fn newline(bytes: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found)
}

/// Where the line that begins at `start` ends, good or not. A string that is never closed ends with its first line:
/// one missing quote must not cost the rest of the body.
pub(super) fn line_end(bytes: &[u8], start: usize) -> usize {
    let mut at = skip_blanks(bytes, start);
    if bytes.get(at) == Some(&b'#') {
        return newline(bytes, at);
    }
    let mut in_fields = false;
    let mut after_equals = false;
    while let Some(byte) = bytes.get(at) {
        let was_after_equals = std::mem::replace(&mut after_equals, false);
        match byte {
            b'\\' => at += 1,
            b' ' => in_fields = true,
            b'=' => after_equals = in_fields,
            b'\n' => return at,
            b'"' if was_after_equals => match closing_quote(bytes, at) {
                Some((end, _)) => at = end,
                None => return newline(bytes, at),
            },
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The quote that closes the string opened at `at`, and whether there are backslashes before it.
///
/// At most one call a body finds none: the opening quote of a later string would have closed this one.
fn closing_quote(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let mut has_escapes = false;
    let mut from = at + 1;
    loop {
        let found = from + memchr::memchr2(b'"', b'\\', bytes.get(from..)?)?;
        if bytes[found] == b'"' {
            return Some((found, has_escapes));
        }
        has_escapes = true;
        from = found + 2;
    }
}

/// The unescaped space that ends measurement and tags.
#[inline]
pub(super) fn series_end(bytes: &[u8], start: usize) -> Result<usize, Fail> {
    let mut at = start;
    loop {
        let found = memchr::memchr3(b' ', b'\\', b'\n', &bytes[at.min(bytes.len())..]).map(|found| at + found);
        match found {
            Some(found) if bytes[found] == b' ' => return Ok(found),
            Some(found) if bytes[found] == b'\\' => at = found + 2,
            _ => {
                let at = found.unwrap_or(bytes.len());
                return Err(Fail {
                    at,
                    message: "the line has no fields; right is `measurement,tag=value field=1.0 time`".to_owned(),
                });
            }
        }
    }
}

/// The unescaped `=` that ends the field name at `at`.
pub(super) fn key_end(text: &str, at: usize) -> Result<usize, Fail> {
    let bytes = text.as_bytes();
    let mut end = at;
    loop {
        match bytes.get(end) {
            Some(b'=') if end == at => {
                return Err(Fail { at, message: "a field has no name before its `=`".to_owned() });
            }
            Some(b'=') => return Ok(end),
            Some(b'\\') => end += 2,
            None | Some(b',' | b' ' | b'\n') => break,
            Some(_) => end += 1,
        }
    }
    let end = end.min(bytes.len());
    let message = if is_line_end(bytes, at) || bytes[at] == b',' || bytes[at] == b' ' {
        "a field is expected here; right is `name=value`".to_owned()
    } else {
        format!("the field {} has no value; right is `name=value`", quote(&text[at..end]))
    };
    Err(Fail { at, message })
}

/// The quote that closes the string opened at `at`, and whether there are escapes between them.
pub(super) fn string_end(text: &str, at: usize) -> Result<(usize, bool), Fail> {
    closing_quote(text.as_bytes(), at)
        .ok_or_else(|| Fail { at, message: "the text that begins here has no closing quote".to_owned() })
}

/// The boolean at `at` and where it ends; everything else that begins there is refused.
pub(super) fn word(text: &str, at: usize) -> Result<(bool, usize), Fail> {
    let end = value_end(text.as_bytes(), at);
    let word = &text[at..end];
    match word {
        "t" | "T" | "true" | "True" | "TRUE" => Ok((true, end)),
        "f" | "F" | "false" | "False" | "FALSE" => Ok((false, end)),
        _ => Err(Fail { at, message: not_a_value(word) }),
    }
}

/// Where the value that began at or before `at` ends, if it is no string.
pub(super) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    while !is_line_end(bytes, at) && !matches!(bytes[at], b',' | b' ') {
        at += 1;
    }
    at
}

/// What is wrong with `word` as a value.
pub(super) fn not_a_value(word: &str) -> String {
    let lower = word.get(..word.len().min(12)).unwrap_or_default().to_ascii_lowercase();
    let unsigned = lower.trim_start_matches(['+', '-']);
    let quoted = quote(word);
    if word.is_empty() {
        "the field has no value; leave the field out, or write \"\" for an empty text".to_owned()
    } else if ["nan", "inf", "infinity"].contains(&unsigned) {
        format!("{quoted} cannot be stored; leave the field out")
    } else if word.starts_with('+') {
        format!("the number {quoted} has a plus sign; leave it out")
    } else if word.starts_with(['.', '-']) || word.starts_with(|c: char| c.is_ascii_digit()) {
        format!("{quoted} is not a number; right are 1.0, -0.5, 1e5, 1i (integer), 1u (unsigned)")
    } else {
        format!("{quoted} is neither number nor boolean; text stands in double quotes")
    }
}

/// What is wrong at `at`, where a value ended but no comma, space or line end follows.
pub(super) fn after_value(text: &str, at: usize) -> Fail {
    let rest = quote(&text[at..value_end(text.as_bytes(), at)]);
    Fail { at, message: format!("a comma, a space or the line's end is expected here, not {rest}") }
}

/// What is wrong at `at`, where the time ended but the line does not.
pub(super) fn after_time(text: &str, at: usize) -> Fail {
    let rest = quote(&text[at..newline(text.as_bytes(), at)]);
    let message =
        format!("the line should end after its time, not go on with {rest}; spaces in names need a backslash");
    Fail { at, message }
}

/// `text` without the backslashes before characters of `escapable` (all ASCII); other backslashes stay.
pub(super) fn unescape<'t>(text: &'t str, escapable: &[u8]) -> Cow<'t, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    unescape_into(text, escapable, &mut out);
    Cow::Owned(out)
}

/// As [`unescape`], appended to `out`.
pub(super) fn unescape_into(text: &str, escapable: &[u8], out: &mut String) {
    let mut rest = text;
    while let Some(found) = memchr::memchr(b'\\', rest.as_bytes()) {
        // A backslash escapes or not, together with the one character behind it: `\\,` is `\` and an end.
        let next = rest[found + 1..].chars().next();
        let escapes = next.is_some_and(|next| next.is_ascii() && escapable.contains(&(next as u8)));
        out.push_str(&rest[..if escapes { found } else { found + 1 }]);
        out.extend(next);
        rest = &rest[found + 1 + next.map_or(0, char::len_utf8)..];
    }
    out.push_str(rest);
}

/// `text` in quotes and short, for messages.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(40) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_is_not_plain_ends_what_is_wherever_it_stands() {
        for len in 0..20 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    let is_plain = byte.is_ascii_graphic() && byte != b',' && byte != b'\\';
                    assert_eq!(plain_len(&bytes), if is_plain { len } else { at }, "{byte:#x} at {at} of {len}");
                }
            }
        }
    }
}
