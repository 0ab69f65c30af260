//! The shards that this process knows: their checksums by location, and those found damaged.
//!
//! Owns:     both lists, and that each damaged shard is told once: an error line, and a row of `system.data_loss`.
//! Does not: read shards, or decide what becomes of a damaged one.
//!
//! Invariants
//!  1. A shard is here before a query can see it: whoever reads a location finds its checksums.
//!  2. One is forgotten when its file is removed, so there are as many as there are files.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::Shard;
use super::checksum::Checksums;
use super::file::ShardDamage;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct KnownShards {
    checksums: RwLock<HashMap<String, Checksums>>,
    damaged: Mutex<BTreeMap<String, Noted>>,
}

#[derive(Debug)]
struct Noted {
    reason: String,
    is_recorded: bool,
}

impl KnownShards {
    /// Takes a shard in.
    pub(crate) fn add(&self, shard: &Shard) {
        if let Some(checksums) = &shard.checksums {
            let mut all = self.checksums.write().unwrap_or_else(PoisonError::into_inner);
            all.insert(shard.path.clone(), checksums.clone());
        }
    }

    /// The checksums of the file at `location`; `None` if it is no shard, or one of before there were checksums.
    pub(crate) fn checksums(&self, location: &str) -> Option<Checksums> {
        self.checksums.read().unwrap_or_else(PoisonError::into_inner).get(location).cloned()
    }

    /// The file at `location` is removed.
    pub(crate) fn forget(&self, location: &str) {
        self.checksums.write().unwrap_or_else(PoisonError::into_inner).remove(location);
        self.lock().remove(location);
    }

    /// A shard was found damaged.
    pub(crate) fn note(&self, damage: &ShardDamage) {
        let mut damaged = self.lock();
        if !damaged.contains_key(&damage.location) {
            tracing::error!(
                shard = damage.location,
                reason = damage.reason,
                "a shard is damaged: queries that need it fail; stop the server and run `eden repair`, or bring the file back"
            );
            let noted = Noted { reason: damage.reason.clone(), is_recorded: false };
            damaged.insert(damage.location.clone(), noted);
        }
    }

    /// A shard that was damaged is whole again: somebody brought the file back.
    pub(crate) fn whole(&self, location: &str) {
        if self.lock().remove(location).is_some() {
            tracing::info!(shard = location, "a shard that was damaged is whole again");
        }
    }

    /// All that are known to be damaged.
    pub(crate) fn damaged(&self) -> Vec<ShardDamage> {
        self.lock().iter().map(|(location, noted)| damage(location, noted)).collect()
    }

    /// How many those are.
    pub(crate) fn damaged_count(&self) -> u64 {
        self.lock().len() as u64
    }

    /// Those that `system.data_loss` does not have yet, as far as this process knows.
    pub(crate) fn unrecorded(&self) -> Vec<ShardDamage> {
        let damaged = self.lock();
        damaged.iter().filter(|(_, noted)| !noted.is_recorded).map(|(path, noted)| damage(path, noted)).collect()
    }

    /// They are in `system.data_loss` now.
    pub(crate) fn recorded(&self, these: &[ShardDamage]) {
        let mut damaged = self.lock();
        for damage in these {
            if let Some(noted) = damaged.get_mut(&damage.location) {
                noted.is_recorded = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Noted>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn damage(location: &str, noted: &Noted) -> ShardDamage {
    ShardDamage { location: location.to_owned(), reason: noted.reason.clone() }
}
