//! Rooms depend on each other in one direction; a new arrow is an ADR (docs/adr/0001-rooms-and-arrows.md).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Failure;
use crate::command::{cargo, output};

/// Each room with the rooms it may use. `tests` may use any; nothing but the one door uses it.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("settings", &[]),
    ("wal", &["model"]),
    ("decode", &["model"]),
    ("edge-agent", &["model", "settings", "wal"]),
    ("storage", &["model", "wal"]),
    ("query", &["model", "storage"]),
    ("ingest-server", &["decode", "edge-agent", "model", "query", "settings", "storage", "wal"]),
    ("faults", &["model", "wal", "storage"]),
    ("iotgen", &[]),
    ("mqttgen", &[]),
    ("shardbench", &["decode", "model", "storage", "wal"]),
    ("fuzz", &["decode", "edge-agent", "faults", "model", "settings", "wal"]),
    ("tests", &["decode", "edge-agent", "faults", "ingest-server", "model", "query", "storage", "wal"]),
    ("xtask", &["tests"]),
];

/// What only a room's own tests may use beyond that.
const TEST_ARROWS: &[(&str, &[&str])] = &[
    ("wal", &["faults"]),
    ("edge-agent", &["faults"]),
    ("storage", &["faults"]),
    ("query", &["faults", "wal"]),
    ("ingest-server", &["faults"]),
];

/// What must not be in a room's dependency tree at all: the agent builds without Arrow, storage without SQL, the log
/// and the model without a runtime.
const ABSENT: &[(&str, &[&str])] = &[
    ("model", &["tokio", "arrow", "serde"]),
    ("settings", &["tokio", "arrow"]),
    ("wal", &["tokio", "arrow", "serde"]),
    ("decode", &["tokio", "arrow", "datafusion"]),
    ("edge-agent", &["arrow", "parquet", "datafusion", "object_store"]),
    ("storage", &["datafusion", "axum"]),
    ("query", &["axum"]),
];

pub(super) fn check() -> Result<Vec<String>, Failure> {
    let mut broken = Vec::new();
    // The second is a workspace of its own.
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let asked = ["metadata", "--format-version", "1", "--no-deps", "--manifest-path", manifest];
        let metadata = output(cargo().args(asked))?;
        let metadata: Value = serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
        broken.extend(check_packages(&metadata));
    }
    for (room, absent) in ABSENT {
        let tree = output(cargo().args([
            "tree",
            "--package",
            room,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ]))?;
        let present: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        for name in absent.iter().filter(|name| present.contains(**name)) {
            broken.push(format!("{room}: its dependencies include {name}, which this room does without"));
        }
    }
    Ok(broken)
}

fn check_packages(metadata: &Value) -> Vec<String> {
    let empty = Vec::new();
    let mut broken = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&empty) {
        let room = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = arrows_of(ARROWS, room) else {
            broken
                .push(format!("{room}: not a known room; say in an ADR what it is and list its arrows in xtask tidy"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap_or(&empty) {
            let name = dependency["name"].as_str().unwrap_or_default();
            let is_room = dependency["path"].is_string();
            let for_tests = dependency["kind"] == "dev";
            let allowed_in_tests = for_tests && arrows_of(TEST_ARROWS, room).is_some_and(|more| more.contains(&name));
            if is_room && !allowed.contains(&name) && !allowed_in_tests {
                broken.push(format!("{room} ---> {name}: no such arrow; a new one is an ADR"));
            }
        }
    }
    broken
}

fn arrows_of(arrows: &'static [(&str, &[&str])], room: &str) -> Option<&'static [&'static str]> {
    arrows.iter().find(|(from, _)| *from == room).map(|(_, to)| *to)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_arrow_that_is_not_drawn_is_named() {
        let depends = |name: &str, kind: Value| json!({ "name": name, "kind": kind, "path": "/x" });
        let metadata = json!({ "packages": [
            { "name": "model", "dependencies": [depends("wal", Value::Null), { "name": "thiserror", "kind": null }] },
            { "name": "storage", "dependencies": [depends("wal", Value::Null), depends("faults", json!("dev"))] },
            { "name": "attic", "dependencies": [] },
        ] });
        let broken = check_packages(&metadata);
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert_eq!(broken[0], "model ---> wal: no such arrow; a new one is an ADR");
        assert!(broken[1].starts_with("attic: not a known room"));
    }
}
