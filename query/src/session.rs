//! DataFusion as Eden sets it up: limits, options, functions.
//!
//! Owns:     the state that statements are planned with, and the one runtime environment below it.
//! Does not: know tables (`catalog` does).
//!
//! The environment knows no object store but the shards, so that no statement can reach another file.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::object_store::ObjectStore;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use model::name::PUBLIC;

use crate::catalog::{CATALOG, Catalog};
use crate::functions;
use crate::postgres::{self, ClientSession};

/// Where the shards are, for DataFusion alone.
pub(crate) const SHARDS_URL: &str = "eden://tables";

/// Footers kept in memory; about 20 kB each with the page index of a dozen columns.
const FOOTERS_BYTES_MAX: usize = 64 << 20;

/// Spilled bytes of all statements together.
pub(crate) const SPILL_BYTES_MAX: u64 = 100 << 30;

/// Shards of more bytes are shared among threads by row group.
const REPARTITION_BYTES_MIN: usize = 1 << 20;

/// Memory that each sort keeps back to merge what it has spilled, at most; less if there is little.
const SORT_RESERVE_BYTES_MAX: usize = 10 << 20;

/// Memory for each spilled run that a sort merges at once: two batches of rows of some hundred bytes.
const SPILLED_RUN_BYTES: usize = 4 << 20;

/// Spilled runs that a sort merges at once. Each sort takes as much memory for them as it gets, so without a bound
/// the first would leave the other threads' too little to go on.
fn merge_fan_in(memory_bytes_max: usize, threads: usize) -> usize {
    (memory_bytes_max / threads.max(1) / SPILLED_RUN_BYTES).clamp(4, 64)
}

/// What DataFusion names the folders it spills into.
const SPILL_PREFIX: &str = "datafusion-";

/// Removes what a process that was killed has spilled.
pub(crate) fn clear_spill(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SPILL_PREFIX) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The environment that all statements share.
pub(crate) fn environment(
    memory_bytes_max: usize,
    threads: usize,
    spill: &Path,
    shards: Arc<dyn ObjectStore>,
) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    // A fair share each, so that one statement cannot take what another needs to begin spilling.
    let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes_max), NonZeroUsize::MIN);
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]))
        .with_max_temp_directory_size(SPILL_BYTES_MAX)
        .with_max_spill_merge_fan_in(merge_fan_in(memory_bytes_max, threads));
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .with_metadata_cache_limit(FOOTERS_BYTES_MAX)
        .build_arc()?;
    let files = ObjectStoreUrl::local_filesystem();
    environment.deregister_object_store(files.as_ref())?;
    environment.register_object_store(ObjectStoreUrl::parse(SHARDS_URL)?.as_ref(), shards);
    Ok(environment)
}

/// The state that every statement's is a copy of.
///
/// # Errors
/// Functions that cannot be registered or made: a bug.
pub(crate) fn template(
    environment: Arc<RuntimeEnv>,
    threads: usize,
    memory_bytes_max: usize,
) -> Result<SessionState, DataFusionError> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, PUBLIC)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(threads)
        .with_repartition_file_min_size(REPARTITION_BYTES_MIN)
        // Shards have none.
        .with_parquet_bloom_filter_pruning(false)
        .with_parquet_page_index_pruning(true)
        .with_sort_spill_reservation_bytes(SORT_RESERVE_BYTES_MAX.min(memory_bytes_max / (4 * threads.max(1))));
    config.options_mut().execution.time_zone = Some("UTC".to_owned());
    let builder = SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(environment);
    let mut state = functions::with_rules(builder).build();
    functions::register(&mut state)?;
    postgres::install(state)
}

/// The state for one statement.
pub(crate) fn of_statement(
    template: &SessionState,
    catalog: Catalog,
    default_schema: &str,
    session: Option<&ClientSession>,
    statement: &DfStatement,
) -> Result<SessionState, DataFusionError> {
    let mut state = template.clone();
    state.register_catalog_list(Arc::new(catalog));
    default_schema.clone_into(&mut state.config_mut().options_mut().catalog.default_schema);
    // Now is when the statement started, for all of it.
    state.mark_start_execution();
    if let Some(session) = session {
        postgres::enter(&mut state, session)?;
        if matches!(statement, DfStatement::Statement(ast) if matches!(**ast, Ast::Query(_))) {
            postgres::use_information_schema(&mut state);
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_spilled_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let spill = folder.path().join("spill");
        std::fs::create_dir_all(spill.join("datafusion-abc")).unwrap();
        std::fs::write(spill.join("datafusion-abc/1"), "x").unwrap();
        std::fs::write(spill.join("other"), "x").unwrap();
        clear_spill(&spill).unwrap();
        let left: Vec<_> = std::fs::read_dir(&spill).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["other"]);
    }
}
