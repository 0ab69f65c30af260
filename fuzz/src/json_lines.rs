//! A line of JSON as values by path.

use std::collections::HashSet;

use decode::json_lines::{ancestors, flatten};

use crate::memory::within;

/// Each line.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    for line in text.lines() {
        // A path is written out for each value below it, and each object may nest as deep as serde_json allows: 128.
        let Ok(values) = within(4096 + 1024 * line.len(), || flatten(line)) else { continue };
        let paths: HashSet<&str> = values.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths.len(), values.len(), "a path stands twice: {line}");
        let is_object = |path: &str| ancestors(path).any(|ancestor| paths.contains(ancestor));
        assert!(!paths.iter().any(|path| is_object(path)), "a value is an object: {line}");
    }
}
