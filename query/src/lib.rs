//! SQL over the tables of `storage`: everything that touches DataFusion lives here.
//!
//! Owns:     the runtime that queries run on, their memory, time and number limits, the catalog and the scans.
//! Does not: open sockets, render results (`ingest-server` does), or know how rows reach a shard (`storage` does).
//!
//! One statement, one view: the tables that a statement names are looked at once, when it starts, so it sees
//! every reading that was acknowledged before (P6) and a self-join sees itself.
//!
//! ```no_run
//! # async fn example(storage: std::sync::Arc<storage::Storage>) -> Result<(), query::QueryError> {
//! use futures::StreamExt;
//! use query::{QueryConfig, QueryEngine, QueryRequest, QueryResult};
//!
//! let engine = QueryEngine::new(QueryConfig::new("eden-data/spill".into(), 1 << 30), storage)?;
//! if let QueryResult::Rows(mut rows) = engine.execute(QueryRequest::new("SELECT 1 AS one")).await? {
//!     while let Some(batch) = rows.next().await {
//!         println!("{} rows", batch?.num_rows());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod blank;
mod catalog;
mod change;
mod crate_db;
mod damage;
mod describe;
mod engine;
mod error;
mod extent;
mod functions;
mod interrupt;
mod memory;
mod names;
mod nesting;
mod newest;
mod parameters;
mod plans;
mod postgres;
mod provider;
mod pruning;
mod queries;
mod reader;
mod resolve;
mod rows;
mod run;
mod runs;
mod selection;
mod session;
mod statement;
mod statistics;
mod threads;
mod usage;
mod wanted;

pub use crate_db::{CRATEDB_VERSION, NodeFacts, NodeSource};
pub use datafusion::common::ScalarValue;
pub use describe::Description;
pub use engine::{Access, QueryConfig, QueryEngine, QueryRequest, QueryResult, QueryStats};
pub use error::QueryError;
pub use postgres::{ClientSession, Manner};
pub use queries::Origin;
pub use rows::{LeftOut, Rows};
