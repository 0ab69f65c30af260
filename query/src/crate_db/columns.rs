//! The tables of `sys` and their columns.
//!
//! Owns:     names and types; source: CrateDB's reference, "System information".
//! Does not: know rows (`sys` does).
//!
//! Of CrateDB's columns those are here that mean something here; what is not there is an error, not an invention.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// The tables.
pub(super) const TABLES: [&str; 6] = ["checks", "cluster", "jobs", "node_checks", "nodes", "shards"];

const TEXT: DataType = DataType::Utf8;
const WHOLE: DataType = DataType::Int64;
const FLOAT: DataType = DataType::Float64;
const TRUTH: DataType = DataType::Boolean;

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn fields(columns: Vec<(&str, DataType)>) -> Fields {
    columns.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}

fn object(columns: Vec<(&str, DataType)>) -> DataType {
    DataType::Struct(fields(columns))
}

fn node() -> DataType {
    object(vec![("id", TEXT), ("name", TEXT)])
}

/// The columns of a table; `None` if there is no such table.
pub(super) fn of(table: &str) -> Option<SchemaRef> {
    let columns = match table {
        "checks" => {
            vec![("id", DataType::Int32), ("severity", DataType::Int32), ("description", TEXT), ("passed", TRUTH)]
        }
        "cluster" => vec![
            ("id", TEXT),
            ("name", TEXT),
            ("master_node", TEXT),
            ("license", object(vec![("expiry_date", time()), ("issued_to", TEXT), ("max_nodes", DataType::Int32)])),
        ],
        "jobs" => vec![("id", TEXT), ("username", TEXT), ("node", node()), ("stmt", TEXT), ("started", time())],
        "node_checks" => vec![
            ("id", DataType::Int32),
            ("node_id", TEXT),
            ("severity", DataType::Int32),
            ("description", TEXT),
            ("passed", TRUTH),
            ("acknowledged", TRUTH),
        ],
        "nodes" => nodes(),
        "shards" => vec![
            ("schema_name", TEXT),
            ("table_name", TEXT),
            ("id", DataType::Int32),
            ("partition_ident", TEXT),
            ("primary", TRUTH),
            ("state", TEXT),
            ("routing_state", TEXT),
            ("relocating_node", TEXT),
            ("node", node()),
            ("num_docs", WHOLE),
            ("size", WHOLE),
            ("path", TEXT),
            ("orphan_partition", TRUTH),
        ],
        _ => return None,
    };
    Some(Arc::new(Schema::new(fields(columns))))
}

fn nodes() -> Vec<(&'static str, DataType)> {
    let machine = object(vec![("version", TEXT), ("vm_name", TEXT), ("vm_vendor", TEXT), ("vm_version", TEXT)]);
    vec![
        ("id", TEXT),
        ("name", TEXT),
        ("hostname", TEXT),
        ("port", object(vec![("http", DataType::Int32), ("transport", DataType::Int32), ("psql", DataType::Int32)])),
        ("load", object(vec![("1", FLOAT), ("5", FLOAT), ("15", FLOAT), ("probe_timestamp", time())])),
        (
            "mem",
            object(vec![
                ("free", WHOLE),
                ("used", WHOLE),
                ("free_percent", DataType::Int16),
                ("used_percent", DataType::Int16),
                ("probe_timestamp", time()),
            ]),
        ),
        ("heap", object(vec![("free", WHOLE), ("used", WHOLE), ("max", WHOLE), ("probe_timestamp", time())])),
        ("version", object(vec![("number", TEXT), ("build_hash", TEXT), ("build_snapshot", TRUTH), ("eden", TEXT)])),
        ("os", object(vec![("uptime", WHOLE), ("timestamp", time()), ("probe_timestamp", time())])),
        (
            "os_info",
            object(vec![
                ("available_processors", DataType::Int32),
                ("name", TEXT),
                ("arch", TEXT),
                ("version", TEXT),
                ("jvm", machine),
            ]),
        ),
        (
            "process",
            object(vec![
                ("open_file_descriptors", WHOLE),
                ("max_open_file_descriptors", WHOLE),
                ("probe_timestamp", time()),
            ]),
        ),
    ]
}
