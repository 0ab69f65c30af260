//! Lists of names, in which `*` stands for any characters.

/// Names by which values are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(names: &[String]) -> Names {
        Names(names.to_vec())
    }

    /// Whether `name` is one of them.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| is_like(pattern, name))
    }
}

fn is_like(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name, is_one) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("*.id", "x.y.id", true),
        ] {
            assert_eq!(Names::new(&[pattern.to_owned()]).contains(name), is_one, "{pattern} {name}");
        }
    }
}
