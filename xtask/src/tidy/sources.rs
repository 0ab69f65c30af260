//! Rules for single files.

use super::tree::{File, Tree};

/// Written in two halves, so that this file does not hold them.
const LEFTOVERS: &[&str] =
    &[concat!("dbg", "!("), concat!("todo", "!("), concat!("FIX", "ME"), concat!("TO", "DO"), concat!("#[ig", "nore")];

/// Folders of one machine.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// A file longer than this wants to be two.
const LINES_MAX: usize = 900;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    tree.files.iter().flat_map(check_file).collect()
}

/// Worth knowing, not worth failing for.
pub(super) fn notes(tree: &Tree) -> Vec<String> {
    let long = |file: &File| {
        let lines = file.text.lines().count();
        (file.is_rust() && lines > LINES_MAX).then(|| format!("{}: {lines} lines; is it two modules?", file.path))
    };
    tree.files.iter().filter_map(long).collect()
}

fn check_file(file: &File) -> Vec<String> {
    let mut broken = Vec::new();
    // A module says what it is for; test modules say it by their tests' names.
    let is_module = file.path.contains("/src/") && !file.path.ends_with("/tests.rs") && !file.path.contains("/tests/");
    if file.is_rust() && is_module && !file.text.starts_with("//!") {
        broken.push(format!("{}:1: open the file with `//!`: what it is, owns and leaves to others", file.path));
    }
    for (number, line) in file.text.lines().enumerate() {
        let mut found = |what: &str| broken.push(format!("{}:{}: {what}", file.path, number + 1));
        if file.is_rust() {
            // Unfinished work is an issue, not a comment; a test that does not run proves nothing.
            for leftover in LEFTOVERS.iter().filter(|leftover| line.contains(**leftover)) {
                found(&format!("leftover {leftover}"));
            }
        }
        // The project runs on any machine, so no file may name one.
        for path in MACHINE_PATHS.iter().filter(|path| starts_a_path(line, path)) {
            found(&format!("path of one machine: {path}"));
        }
    }
    broken
}

/// Whether `path` begins in `line`, rather than going on from something: not in `src/work/` or `https://x/home/`.
fn starts_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"._-}~".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        check_file(&File { path: path.into(), text: text.into() })
    }

    #[test]
    fn modules_have_headers_and_no_leftovers() {
        assert!(check("wal/src/lib.rs", "//! The log.\n").is_empty());
        assert!(check("wal/src/recovery/tests.rs", "use super::*;\n").is_empty());
        assert_eq!(check("wal/src/lib.rs", "use std::io;\n").len(), 1);
        let leftover = format!("//! The log.\nlet x = {};\n", concat!("todo", "!()"));
        assert_eq!(check("wal/src/lib.rs", &leftover), [format!("wal/src/lib.rs:2: leftover {}", LEFTOVERS[1])]);
    }

    #[test]
    fn paths_of_one_machine_are_found_and_longer_paths_are_not() {
        let path = |before: &str| format!("{before}{}x", MACHINE_PATHS[0]);
        assert_eq!(check("README.md", &path("cd ")).len(), 1);
        assert_eq!(check("README.md", &path("\"")).len(), 1);
        assert!(check("README.md", &path("src")).is_empty());
    }
}
