//! The identity of a series within its table.

use std::fmt;

/// A complete tag set in canonical bytes: tags in order of their names, each once, none with an empty value.
/// Two writers that send the same tags in any order mean the same series.
///
/// Per tag: name length (u16), name, value length (u32), value; little-endian, UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey(Box<[u8]>);

impl SeriesKey {
    /// Builds the key of `tags` in any order; empty values are left out, for a repeated name the last value counts.
    ///
    /// # Panics
    /// If a name is longer than 65,535 bytes or a value longer than 4 GiB.
    pub fn from_tags<N: AsRef<str>, V: AsRef<str>>(tags: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut tags: Vec<(N, V)> = tags.into_iter().collect();
        tags.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        let ordered: Vec<(&str, &str)> = tags
            .iter()
            .enumerate()
            .filter(|(i, (name, value))| {
                let repeated = tags.get(i + 1).is_some_and(|next| next.0.as_ref() == name.as_ref());
                !repeated && !value.as_ref().is_empty()
            })
            .map(|(_, (name, value))| (name.as_ref(), value.as_ref()))
            .collect();
        SeriesKey::from_ordered(&ordered)
    }

    /// As [`SeriesKey::from_tags`], of tags that are in order of their names, each name once, and not empty.
    ///
    /// # Panics
    /// If a name is longer than 65,535 bytes or a value longer than 4 GiB.
    pub fn from_ordered(tags: &[(&str, &str)]) -> Self {
        debug_assert!(tags.is_sorted_by(|a, b| a.0 < b.0) && tags.iter().all(|tag| !tag.1.is_empty()), "{tags:?}");
        let mut bytes = Vec::with_capacity(tags.iter().map(|(name, value)| 6 + name.len() + value.len()).sum());
        for (name, value) in tags {
            let name_len = u16::try_from(name.len()).expect("names are checked before keys are made of them");
            let value_len = u32::try_from(value.len()).expect("a tag value is shorter than a request");
            bytes.extend_from_slice(&name_len.to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&value_len.to_le_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        SeriesKey(bytes.into_boxed_slice())
    }

    /// Takes bytes that came from a log or a network; `None` unless they are canonical.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut last: Option<&str> = None;
        while !rest.is_empty() {
            let (name, value) = read_tag(&mut rest)?;
            if value.is_empty() || last.is_some_and(|last| last >= name) {
                return None;
            }
            last = Some(name);
        }
        Some(SeriesKey(bytes.into()))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The tags, in order of their names.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            Some(read_tag(&mut rest).expect("a SeriesKey holds canonical bytes only"))
        })
    }

    /// The value of the tag `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.tags().find(|(tag, _)| *tag == name).map(|(_, value)| value)
    }
}

fn read_tag<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, &'a str)> {
    let (len, tail) = rest.split_first_chunk::<2>()?;
    let (name, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    let (len, tail) = tail.split_first_chunk::<4>()?;
    let (value, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    *rest = tail;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

/// `name=value,name=value`, for messages.
impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.tags().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeriesKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_tags_and_empty_values_do_not_matter() {
        let a = SeriesKey::from_tags([("site", "x"), ("device", "d1"), ("empty", "")]);
        let b = SeriesKey::from_tags([("device", "d1"), ("site", "x")]);
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "device=d1,site=x");
        assert_eq!(a.get("site"), Some("x"));
        assert_eq!(SeriesKey::from_bytes(a.as_bytes()), Some(a));
    }

    #[test]
    fn bytes_that_are_not_canonical_are_refused() {
        let unordered = [1, 0, b'b', 1, 0, 0, 0, b'1', 1, 0, b'a', 1, 0, 0, 0, b'1'];
        assert_eq!(SeriesKey::from_bytes(&unordered), None);
        assert!(SeriesKey::from_bytes(&unordered[8..]).is_some());
        assert_eq!(SeriesKey::from_bytes(&unordered[..7]), None);
        assert_eq!(SeriesKey::from_bytes(&[1, 0, b'a', 0, 0, 0, 0]), None);
        assert_eq!(SeriesKey::from_bytes(&[1, 0, 0xff, 1, 0, 0, 0, b'1']), None);
    }
}
