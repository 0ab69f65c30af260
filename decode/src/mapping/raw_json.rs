//! JSON by its bytes: where a value begins and ends, without building it. So each element of an array is read, and set
//! aside, as it stands in the payload.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

use crate::line_protocol::quote;

/// The first value of `text`, and what stands behind it.
fn value(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim_start_matches(SPACES);
    let mut values = Deserializer::from_str(text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(text.split_at(values.byte_offset())),
        Some(Err(error)) => Err(format!("it is not JSON: {error}")),
        None => Err("it is not JSON: it ends where a value is expected".into()),
    }
}

const SPACES: [char; 4] = [' ', '\t', '\n', '\r'];

fn skip(text: &str, wanted: char) -> Result<&str, String> {
    let text = text.trim_start_matches(SPACES);
    text.strip_prefix(wanted).ok_or_else(|| format!("it is not JSON: {wanted:?} is expected before {}", quote(text)))
}

/// The elements of the array `text`, or `text` itself if it is another value.
///
/// # Errors
/// If it is not JSON, or goes on behind its end.
pub(super) fn elements(text: &str) -> Result<Vec<&str>, String> {
    let (whole, behind) = value(text)?;
    if !behind.trim_matches(SPACES).is_empty() {
        return Err(format!("it goes on behind its end: {}", quote(behind.trim_start_matches(SPACES))));
    }
    let Some(mut rest) = whole.strip_prefix('[') else { return Ok(vec![whole]) };
    let mut elements = Vec::new();
    loop {
        rest = rest.trim_start_matches(SPACES);
        if rest.starts_with(']') {
            return Ok(elements);
        }
        let (element, behind) = value(rest)?;
        elements.push(element);
        rest = behind.trim_start_matches(SPACES);
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// The value at the JSON pointer `path` (RFC 6901, its tokens unescaped) in `text`; `None` if there is none.
///
/// # Errors
/// If it is not JSON.
pub(super) fn at<'a>(text: &'a str, path: &[String]) -> Result<Option<&'a str>, String> {
    let (mut here, _) = value(text)?;
    for token in path {
        let next = if here.starts_with('[') {
            let place = token.parse::<usize>().ok().filter(|_| token == "0" || !token.starts_with(['0', '+']));
            place.and_then(|place| elements(here).ok()?.get(place).copied())
        } else if here.starts_with('{') {
            member(here, token)?
        } else {
            None
        };
        match next {
            Some(next) => here = next,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// The value of `name` in the object `text`.
fn member<'a>(text: &'a str, name: &str) -> Result<Option<&'a str>, String> {
    let mut rest = skip(text, '{')?;
    loop {
        rest = rest.trim_start_matches(SPACES);
        if rest.is_empty() || rest.starts_with('}') {
            return Ok(None);
        }
        let (key, behind) = value(rest)?;
        let (found, behind) = value(skip(behind, ':')?)?;
        let key: String = serde_json::from_str(key).map_err(|error| format!("it is not JSON: {error}"))?;
        if key == name {
            return Ok(Some(found));
        }
        rest = behind.trim_start_matches(SPACES);
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_as_they_stand() {
        for (text, expected) in [
            ("{\"a\" : 1}", &["{\"a\" : 1}"][..]),
            (" [1, {\"a\":[ ]} ,\"x,]\"] ", &["1", "{\"a\":[ ]}", "\"x,]\""]),
            ("[]", &[]),
            ("[ [1] ]", &["[1]"]),
            ("7", &["7"]),
        ] {
            assert_eq!(elements(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "[1", "[1,]", "{\"a\":1} x", "[1 2]", "nul", "{\"a\":1}}"] {
            assert!(elements(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pointers_lead_to_values() {
        let text = r#"{"a":{"b/c":[10,{"d":null}]},"e":"x","\u0066":1}"#;
        let path = |tokens: &[&str]| at(text, &tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<_>>());
        for (tokens, expected) in [
            (&[][..], Some(text)),
            (&["a", "b/c", "0"], Some("10")),
            (&["a", "b/c", "1", "d"], Some("null")),
            (&["a", "b/c", "2"], None),
            (&["a", "b/c", "00"], None),
            (&["e"], Some("\"x\"")),
            (&["e", "0"], None),
            (&["f"], Some("1")),
            (&["g"], None),
        ] {
            assert_eq!(path(tokens), Ok(expected), "{tokens:?}");
        }
        assert!(at("{\"a\":", &[]).is_err());
    }
}
