//! One line of JSON, an object, as values by path: `{"motor":{"current":{"l1":3}}}` is `motor.current.l1` = 3.
//!
//! Owns:     which path a value has, and which lines contradict themselves.
//! Does not: know columns or times; a path is only a name here (docs/adr/0017-nested-objects-by-path.md).
//!
//! Invariants
//!  1. A path stands once in what is returned, and none is at once a value and the beginning of another.
//!  2. How deep objects nest is bounded by serde_json, how long a path is by [`NAME_BYTES_MAX`], and what is allocated by
//!     a multiple of the line (P14).

use std::collections::HashSet;
use std::fmt;

use model::name::NAME_BYTES_MAX;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value that is no object.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Text; of an array, its JSON.
    Text(String),
    /// A whole number.
    I64(i64),
    /// A whole number above those.
    U64(u64),
    /// Any other number.
    F64(f64),
    /// Truth value.
    Bool(bool),
}

/// The values of `line` by path, in the order in which they stand there; nulls and empty objects are left out.
///
/// # Errors
/// Says what is no JSON, no object, or written twice.
pub fn flatten(line: &str) -> Result<Vec<(String, Scalar)>, String> {
    let mut values = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let read = deserializer.deserialize_map(Object { path: String::new(), into: &mut values });
    read.and_then(|()| deserializer.end()).map_err(|e| {
        // Its line is always 1: the caller knows the file's.
        let text = e.to_string();
        format!("not a JSON object: {}", text.replace(" at line 1 column ", " at column "))
    })?;
    let mut seen = HashSet::new();
    for (path, _) in &values {
        if !seen.insert(path.as_str()) {
            return Err(format!("{path:?} is there twice"));
        }
    }
    for (path, _) in &values {
        if let Some(value) = ancestors(path).find(|ancestor| seen.contains(ancestor)) {
            return Err(format!("{value:?} is both a value and an object, which has {path:?}"));
        }
    }
    Ok(values)
}

/// The paths of the objects that a path leads through: `a` and `a.b` of `a.b.c`.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(at, _)| &path[..at])
}

fn too_long<E: serde::de::Error>(path: &str) -> E {
    let start: String = path.chars().take(20).collect();
    E::custom(format_args!("the name {start:?}… has {} bytes; at most {NAME_BYTES_MAX} are allowed", path.len()))
}

struct Object<'a> {
    path: String,
    into: &'a mut Vec<(String, Scalar)>,
}

struct At<'a> {
    path: String,
    into: &'a mut Vec<(String, Scalar)>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Each value below would have it in its own path.
        if self.path.len() > NAME_BYTES_MAX {
            return Err(too_long(&self.path));
        }
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name } else { format!("{}.{name}", self.path) };
            map.next_value_seed(At { path, into: self.into })?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.into.push((self.path, Scalar::Bool(value)));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.into.push((self.path, Scalar::I64(value)));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.into.push((self.path, i64::try_from(value).map_or(Scalar::U64(value), Scalar::I64)));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.into.push((self.path, Scalar::F64(value)));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.into.push((self.path, Scalar::Text(value.to_owned())));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<serde_json::Value>()? {
            items.push(item);
        }
        self.into.push((self.path, Scalar::Text(serde_json::Value::Array(items).to_string())));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Object { path: self.path, into: self.into }.visit_map(map)
    }
}

#[cfg(test)]
mod tests {
    use model::{Rng, SplitMix64};

    use super::*;

    fn shown(line: &str) -> Result<String, String> {
        let show = |(path, value): &(String, Scalar)| format!("{path}={value:?}");
        flatten(line).map(|values| values.iter().map(show).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn objects_become_paths_arrays_become_texts_and_nulls_are_absent() {
        for (line, expected) in [
            ("{}", ""),
            (r#"{"a":1,"b":-2,"c":18446744073709551615}"#, "a=I64(1) b=I64(-2) c=U64(18446744073709551615)"),
            (
                r#"{"motor":{"current":{"l1":3.5,"l2":null},"on":true},"t":"x"}"#,
                "motor.current.l1=F64(3.5) motor.on=Bool(true) t=Text(\"x\")",
            ),
            (r#"{"a":[1,{"b":[]}],"o":{}}"#, r#"a=Text("[1,{\"b\":[]}]")"#),
            (r#"{"a":-0.0,"s":"\u00fc\n"}"#, r#"a=F64(-0.0) s=Text("ü\n")"#),
        ] {
            assert_eq!(shown(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_line_that_contradicts_itself_is_refused() {
        for (line, said) in [
            (r#"{"a":1,"a":{"b":2}}"#, "\"a\" is both a value and an object, which has \"a.b\""),
            (r#"{"a":{"b":2},"a.b":3}"#, "\"a.b\" is there twice"),
            (r#"{"a.b":2,"a":3}"#, "\"a\" is both a value and an object"),
            (r#"{"a":1,"a":2}"#, "\"a\" is there twice"),
            ("[1]", "not a JSON object: invalid type: sequence, expected an object"),
            ("{\"a\":1} x", "not a JSON object: trailing characters at column 9"),
            ("{\"a\":1e400}", "not a JSON object: number out of range"),
            ("{\"a\"", "not a JSON object: EOF"),
        ] {
            let error = shown(line).unwrap_err();
            assert!(error.starts_with(said), "{line}: {error}");
        }
    }

    #[test]
    fn deep_and_mutated_lines_do_not_panic() {
        let deep = |start: &str, end: &str| format!("{{\"b\":{}1{}}}", start.repeat(100_000), end.repeat(100_000));
        assert!(flatten(&deep("{\"a\":", "}")).unwrap_err().contains("at most 80 are allowed"));
        assert!(flatten(&deep("[", "]")).unwrap_err().contains("recursion limit"));
        let seed = 12;
        let rng = SplitMix64::new(seed);
        let line = r#"{"a":{"b":[1,2,{"c":"\u00e4"}]},"d":-1.5e3,"e":null,"f":true}"#;
        for _ in 0..5_000 {
            let mut bytes = line.as_bytes().to_vec();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = b"{}[]\",:019.e-\\"[rng.below(14) as usize];
            }
            let _ = flatten(&String::from_utf8(bytes).unwrap());
        }
    }
}
