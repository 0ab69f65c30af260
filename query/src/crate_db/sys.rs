//! The rows of `sys`.
//!
//! Owns:     what each table shows: the one node, its tables' shards, its checks, the statements that run.
//! Does not: make anything up: what there is not here, such as a Java machine, is null.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use model::TableId;
use model::name::PUBLIC;
use model::time_text::iso_day;
use serde_json::{Value, json};
use storage::{Storage, TableSnapshot};

use super::CRATEDB_VERSION;
use super::columns;
use super::node::{NodeFacts, NodeSource};
use crate::queries::{Queries, Running};
use crate::statistics::visible_rows;

/// The name of the node and of the cluster.
const NAME: &str = "eden";

/// Severities of checks, as CrateDB's reference has them.
const MEDIUM: i32 = 2;
const HIGH: i32 = 3;

/// The schema.
#[derive(Clone)]
pub(crate) struct Sys {
    pub(crate) storage: Arc<Storage>,
    pub(crate) node: NodeSource,
    pub(crate) queries: Arc<Queries>,
    /// What the schema [`PUBLIC`] is called.
    pub(crate) public: &'static str,
}

impl std::fmt::Debug for Sys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sys").finish_non_exhaustive()
    }
}

impl Sys {
    /// The rows of a table. Blocks for the disk.
    fn rows(&self, table: &str) -> Result<Vec<Value>, storage::StorageError> {
        Ok(match table {
            "checks" => self.checks(),
            "cluster" => {
                let id = self.id();
                vec![json!({ "id": id, "name": NAME, "master_node": id })]
            }
            "jobs" => self.jobs(),
            "node_checks" => self.node_checks(),
            "nodes" => vec![self.node()],
            "shards" => self.shards()?,
            _ => Vec::new(),
        })
    }

    fn id(&self) -> String {
        self.storage.node().to_string()
    }

    fn node_of(&self) -> Value {
        json!({ "id": self.id(), "name": NAME })
    }

    fn checks(&self) -> Vec<Value> {
        let stats = self.storage.stats();
        vec![
            json!({
                "id": 1,
                "severity": HIGH,
                "description": "Files of tables are damaged and their rows cannot be read: `eden check` names them.",
                "passed": stats.damaged_tables + stats.damaged_shards == 0,
            }),
            json!({
                "id": 2,
                "severity": MEDIUM,
                "description": "Parts of the log were missing or damaged at the start: see system.data_loss.",
                "passed": self.storage.losses().is_empty(),
            }),
        ]
    }

    fn node_checks(&self) -> Vec<Value> {
        let check = |id: i32, severity: i32, description: &str, passed: bool| {
            let node = self.id();
            json!({
                "id": id,
                "node_id": node,
                "severity": severity,
                "description": description,
                "passed": passed,
                "acknowledged": false,
            })
        };
        let poisoned = "A sync of the log failed: nothing is acknowledged until the server is restarted.";
        let short = "The disk is almost full: writes are refused until there is room.";
        vec![
            check(1, HIGH, poisoned, !self.storage.is_poisoned()),
            check(2, HIGH, short, self.storage.stats().admission_stopped == 0),
        ]
    }

    fn jobs(&self) -> Vec<Value> {
        let of = |running: Arc<Running>| {
            let user = Some(&running.origin.user).filter(|user| !user.is_empty());
            json!({
                "id": running.id.to_string(),
                "username": user,
                "node": self.node_of(),
                "stmt": running.statement,
                "started": running.since_us,
            })
        };
        self.queries.running().into_iter().map(of).collect()
    }

    fn node(&self) -> Value {
        let now = self.storage.now_us();
        let facts = self.node.now();
        let NodeFacts { memory_available_bytes: free, memory_total_bytes: total, .. } = facts;
        let used = total.zip(free).map(|(total, free)| (total - free).max(0));
        let percent =
            |part: Option<i64>| part.zip(total).filter(|(_, total)| *total > 0).map(|(part, all)| part * 100 / all);
        let heap_free = facts.memory_max_bytes.zip(facts.resident_bytes).map(|(max, used)| (max - used).max(0));
        let load = |at: usize| facts.load.map(|load| load[at]);
        json!({
            "id": self.id(),
            "name": NAME,
            "hostname": facts.hostname,
            "port": { "http": facts.http_port, "psql": facts.postgres_port },
            "load": { "1": load(0), "5": load(1), "15": load(2), "probe_timestamp": now },
            "mem": {
                "free": free,
                "used": used,
                "free_percent": percent(free),
                "used_percent": percent(used),
                "probe_timestamp": now,
            },
            "heap": {
                "free": heap_free,
                "used": facts.resident_bytes,
                "max": facts.memory_max_bytes,
                "probe_timestamp": now,
            },
            "version": {
                "number": CRATEDB_VERSION,
                "build_hash": "",
                "build_snapshot": false,
                "eden": env!("CARGO_PKG_VERSION"),
            },
            "os": { "uptime": facts.uptime_ms, "timestamp": now, "probe_timestamp": now },
            "os_info": {
                "available_processors": facts.processors,
                "name": facts.os_name,
                "arch": facts.arch,
                "version": facts.os_version,
            },
            "process": {
                "open_file_descriptors": facts.open_files,
                "max_open_file_descriptors": facts.open_files_max,
                "probe_timestamp": now,
            },
        })
    }

    /// Each file of a table's rows, and one more for its rows that are only in memory.
    fn shards(&self) -> Result<Vec<Value>, storage::StorageError> {
        let mut rows = Vec::new();
        // Tables of the server that are nowhere stored have none.
        for info in self.storage.tables().into_iter().filter(|info| info.id != TableId([0; 16])) {
            // One that was dropped in the meantime has none, and a damaged one cannot be counted.
            match self.storage.snapshot(&info.name) {
                Ok(Some(snapshot)) => rows.extend(self.shards_of(&snapshot)),
                Ok(None) | Err(storage::StorageError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    fn shards_of(&self, snapshot: &TableSnapshot) -> Vec<Value> {
        let schema = if *snapshot.name.schema == *PUBLIC { self.public } else { &*snapshot.name.schema };
        let shard = |rows: usize, bytes: Option<u64>, day: Option<i32>, path: Option<&str>| {
            json!({
                "schema_name": schema,
                "table_name": &*snapshot.name.table,
                "partition_ident": day.map(|day| iso_day(day.into())),
                "primary": true,
                "state": "STARTED",
                "routing_state": "STARTED",
                "node": self.node_of(),
                "num_docs": rows,
                "size": bytes,
                "path": path,
                "orphan_partition": false,
            })
        };
        let files = snapshot.shards.iter().map(|view| {
            let of = &view.shard;
            shard(visible_rows(view), Some(of.bytes), Some(of.day), Some(&of.path))
        });
        let in_memory = snapshot.rows.count();
        let memory = (in_memory > 0).then(|| shard(in_memory, None, None, None));
        let mut rows: Vec<Value> = files.chain(memory).collect();
        for (id, row) in rows.iter_mut().enumerate() {
            row["id"] = json!(id);
        }
        rows
    }
}

fn batch(schema: &SchemaRef, rows: &[Value]) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows.len().max(1)).build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema))))
}

#[async_trait]
impl SchemaProvider for Sys {
    fn table_names(&self) -> Vec<String> {
        columns::TABLES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(schema) = columns::of(name) else { return Ok(None) };
        let (sys, name) = (self.clone(), name.to_owned());
        let rows = tokio::task::spawn_blocking(move || sys.rows(&name)).await;
        let rows = rows.map_err(|error| DataFusionError::Internal(error.to_string()))?;
        let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let batch = batch(&schema, &rows)?;
        Ok(Some(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        columns::TABLES.contains(&name)
    }
}
