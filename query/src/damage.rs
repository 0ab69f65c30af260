//! Finds the shard that an error came from, and whether the shard or the disk is to blame (P11).
//!
//! Owns:     examining the shards that a failed statement had open.
//! Does not: repair anything, or examine shards that no query met (`eden check` does).

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::object_store::{self, ObjectStore, ObjectStoreExt};
use datafusion::parquet::arrow::ParquetRecordBatchStreamBuilder;
use datafusion::parquet::errors::ParquetError;
use futures::{FutureExt, TryStreamExt};
use storage::{ShardDamage, ShardView, StorageError};

use crate::error::{Limits, QueryError, find, tidy};
use crate::reader::{Expected, OpenShards, ShardError, ShardReader};

/// The error of a statement; reads shards again if one may be corrupt.
pub(crate) async fn explain(
    error: DataFusionError,
    limits: Limits,
    store: &Arc<dyn ObjectStore>,
    open: &OpenShards,
) -> QueryError {
    // The store compares what it reads with what was written, so most damage is named where it is met.
    if let Some(damage) = find::<ShardDamage>(&error) {
        return QueryError::Corrupt { path: PathBuf::from(&damage.location), reason: damage.reason.clone() };
    }
    let (suspects, blamed) = match find::<ShardError>(&error) {
        Some(shard) => {
            let suspects = open.suspects().into_iter().filter(|suspect| suspect.meta.location == shard.location);
            (suspects.collect(), Some(shard))
        }
        None if is_decoding(&error) => (open.suspects(), None),
        None => return QueryError::datafusion(&error, limits),
    };
    if let Some(corrupt) = first_corrupt(store, suspects).await {
        return corrupt;
    }
    match blamed {
        Some(shard) => QueryError::Storage(StorageError::Io {
            action: "read",
            path: PathBuf::from(shard.location.as_ref()),
            source: io::Error::other(tidy(&error.strip_backtrace())),
        }),
        None => QueryError::Internal(tidy(&error.strip_backtrace())),
    }
}

/// After a panic: a corrupt shard if one is among those open, else an internal error.
pub(crate) async fn explain_panic(message: String, store: &Arc<dyn ObjectStore>, open: &OpenShards) -> QueryError {
    first_corrupt(store, open.suspects()).await.unwrap_or(QueryError::Internal(message))
}

/// Whether an error may come from the bytes of a page.
fn is_decoding(error: &DataFusionError) -> bool {
    let arrow = find::<ArrowError>(error).is_some_and(|error| matches!(error, ArrowError::ParquetError(_)));
    // Masks are checked against the rows of the file.
    arrow || find::<ParquetError>(error).is_some() || error.message().contains("Invalid Parquet RowSelection")
}

async fn first_corrupt(store: &Arc<dyn ObjectStore>, suspects: Vec<Expected>) -> Option<QueryError> {
    for shard in suspects {
        let path = PathBuf::from(shard.meta.location.as_ref());
        // Damaged bytes may also panic in a decoder.
        let examined = AssertUnwindSafe(examine(store, shard)).catch_unwind().await;
        if let Err(reason) = examined.unwrap_or_else(|_| Err("its pages cannot be decoded".into())) {
            return Some(QueryError::Corrupt { path, reason });
        }
    }
    None
}

/// The shards whose files are missing or of another length than they were written with: the store notes what it finds
/// in bytes, and no bytes of these need be read.
pub(crate) async fn lost_files(store: &Arc<dyn ObjectStore>, views: &[ShardView]) -> Vec<ShardDamage> {
    let mut lost = Vec::new();
    for ShardView { shard, .. } in views {
        // What cannot be parsed cannot be read: the scan says so.
        let Ok(location) = object_store::path::Path::parse(&shard.path) else { continue };
        if let Err(reason) = has_length(store, &location, shard.bytes).await {
            lost.push(ShardDamage { location: shard.path.clone(), reason });
        }
    }
    lost
}

async fn has_length(
    store: &Arc<dyn ObjectStore>,
    location: &object_store::path::Path,
    bytes: u64,
) -> Result<(), String> {
    match store.head(location).await {
        Ok(found) if found.size == bytes => Ok(()),
        Ok(found) => Err(format!("it has {} bytes, not {bytes}", found.size)),
        Err(object_store::Error::NotFound { .. }) => Err("the file is missing".into()),
        // The disk's fault, not the file's.
        Err(_) => Ok(()),
    }
}

/// Reads all of a shard.
async fn examine(store: &Arc<dyn ObjectStore>, shard: Expected) -> Result<(), String> {
    has_length(store, &shard.meta.location, shard.meta.size).await?;
    let reader = ShardReader::new(Arc::clone(store), shard);
    let reason = |error: ParquetError| match (find::<ShardDamage>(&error), find::<object_store::Error>(&error)) {
        (Some(damage), _) => Some(damage.reason.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(match find::<ShardError>(&error).and_then(std::error::Error::source) {
            Some(source) => tidy(&source.to_string()),
            None => tidy(&error.to_string()),
        }),
    };
    let read = async {
        let mut batches = ParquetRecordBatchStreamBuilder::new(reader).await?.build()?;
        while batches.try_next().await?.is_some() {}
        Ok(())
    };
    read.await.or_else(|error| reason(error).map_or(Ok(()), Err))
}
