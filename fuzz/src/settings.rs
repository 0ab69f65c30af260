//! Configuration files: the agent's, which has sections, lists, sizes, durations and texts.

use std::path::Path;

use edge_agent::Config;

use crate::memory::within;

/// It is read, or refused with a place that is in it.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let mut config = Config::default();
    // The tree of the TOML parser has some hundred bytes a key.
    let read =
        within((64 << 10) + 1024 * text.len(), || settings::read_text(&mut config, Path::new("agent.toml"), text));
    match read {
        Ok(()) => drop(config.check()),
        Err(settings::ConfigError::InFile { line, reason, .. }) => {
            assert!(line <= text.matches('\n').count() + 1, "line {line}");
            assert!(!reason.contains('\n'), "one line is promised: {reason:?}");
        }
        Err(other) => panic!("{other}"),
    }
}
