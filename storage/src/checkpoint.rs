//! Delta checkpoints, written by deltalake-core through our own disk.
//!
//! Owns:     having one written.
//! Does not: say when (`maintain`, by what `delta` counts), or know what is in it: the library reads the log anew, so it
//!           is a check of what we wrote as well.

use std::collections::HashMap;
use std::sync::Arc;

use deltalake_core::DeltaTable;
use deltalake_core::logstore::{StorageConfig, default_logstore};
use deltalake_core::protocol::checkpoints::create_checkpoint;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::disk_store::DiskStore;

/// Writes a checkpoint of the newest version of the table at `prefix`, and returns the version. Blocks.
pub(crate) fn write(store: &DiskStore, prefix: &str, runtime: &tokio::runtime::Runtime) -> Result<i64, String> {
    let root: Arc<dyn ObjectStore> = Arc::new(store.clone());
    let location = Path::parse(prefix).map_err(|e| e.to_string())?;
    let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&root), location));
    let url = Url::parse(&format!("eden:///{prefix}/")).map_err(|e| e.to_string())?;
    let options = StorageConfig::parse_options(HashMap::<String, String>::new()).map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let mut table = DeltaTable::new(default_logstore(prefixed, root, &url, &options));
        table.load().await.map_err(|e| e.to_string())?;
        create_checkpoint(&table, None).await.map_err(|e| e.to_string())?;
        let version = table.version().ok_or("the library read no version")?;
        i64::try_from(version).map_err(|e| e.to_string())
    })
}
