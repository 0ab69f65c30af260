//! Names that are close to a name that does not exist.
//!
//! Owns:     what "close" means, and how a name is written in SQL.
//! Does not: know which names exist.

/// Suggestions in one error at most.
const SUGGESTIONS_MAX: usize = 3;

/// The names of `candidates` that someone who wrote `wanted` may have meant, best first.
pub(crate) fn close<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut ranked: Vec<(usize, &str)> =
        candidates.into_iter().filter_map(|name| Some((rank(&wanted, &name.to_lowercase())?, name))).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect()
}

/// How far apart two lower-case names are; `None` if nobody would take one for the other.
fn rank(wanted: &str, name: &str) -> Option<usize> {
    let length = wanted.chars().count().max(name.chars().count());
    let edits = edits(wanted, name);
    if edits * 3 <= length {
        return Some(edits);
    }
    // Three letters: shorter ones begin half of all names.
    let begins = |long: &str, short: &str| short.chars().count() >= 3 && long.starts_with(short);
    (begins(name, wanted) || begins(wanted, name)).then_some(length)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitution = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitution.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// A name as SQL must spell it: quoted where an unquoted one would mean something else.
pub(crate) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_a_swap_of_neighbours_once() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3), ("ü", "u", 1)]
        {
            assert_eq!(edits(a, b), expected, "{a} {b}");
            assert_eq!(edits(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn close_names_are_misspellings_other_cases_and_beginnings() {
        let tables = ["weather", "Weather2", "bmp180", "env", "weather_raw"];
        for (wanted, expected) in [
            ("wether", &["weather", "Weather2"][..]),
            ("WEATHER", &["weather", "Weather2", "weather_raw"]),
            ("bmp", &["bmp180"]),
            ("bmp108", &["bmp180"]),
            ("en", &["env"]),
            ("xyz", &[]),
            ("", &[]),
        ] {
            assert_eq!(close(wanted, tables), expected, "{wanted}");
        }
    }

    #[test]
    fn quoted_quotes_only_what_needs_it() {
        for (name, expected) in [
            ("env", "env"),
            ("_a1", "_a1"),
            ("Env", "\"Env\""),
            ("1a", "\"1a\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\"\"b\""),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }
}
