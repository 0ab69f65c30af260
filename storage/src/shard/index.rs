//! Where each series stands in a shard, so that a collision is judged per series and not per file.
//!
//! Owns:     the index of one shard, and a bounded cache of many.
//! Does not: know tag values: a series is found by a 64-bit hash, and whoever reads rows by it checks their tags.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex};

use model::SeriesKey;

/// One series of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    hash: u64,
    /// Ordinal of its first row.
    pub(crate) start: u32,
    /// Rows; they follow each other in order of time.
    pub(crate) rows: u32,
    pub(crate) time_min_us: i64,
    pub(crate) time_max_us: i64,
}

/// The series of one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardIndex {
    /// In order of hash.
    entries: Vec<IndexEntry>,
}

/// A hash of a series that is the same in every process.
pub(crate) fn series_hash(key: &SeriesKey) -> u64 {
    // SipHash-1-3 with its fixed keys: `DefaultHasher::new` documents that all its instances are the same.
    let mut hasher = DefaultHasher::new();
    hasher.write(key.as_bytes());
    hasher.finish()
}

impl ShardIndex {
    /// The entries that may be those of the series with this hash: one, but for a hash collision.
    pub(crate) fn find_hash(&self, hash: u64) -> &[IndexEntry] {
        let start = self.entries.partition_point(|entry| entry.hash < hash);
        let len = self.entries[start..].partition_point(|entry| entry.hash == hash);
        &self.entries[start..start + len]
    }

    fn bytes(&self) -> usize {
        self.entries.len() * size_of::<IndexEntry>()
    }
}

/// Builds an index from rows in the order of the shard.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    index: ShardIndex,
    rows: u32,
}

impl IndexBuilder {
    /// Adds the next `rows` rows, all of `key`. A series may come in several runs.
    pub(crate) fn push(&mut self, key: &SeriesKey, rows: u32, time_min_us: i64, time_max_us: i64) {
        let hash = series_hash(key);
        match self.index.entries.last_mut() {
            Some(last) if last.hash == hash => {
                last.rows += rows;
                last.time_max_us = time_max_us;
            }
            _ => self.index.entries.push(IndexEntry { hash, start: self.rows, rows, time_min_us, time_max_us }),
        }
        self.rows += rows;
    }

    pub(crate) fn finish(mut self) -> ShardIndex {
        self.index.entries.sort_unstable_by_key(|entry| (entry.hash, entry.start));
        self.index.entries.shrink_to_fit();
        self.index
    }
}

/// Bytes of indexes kept in memory; one takes 40 bytes a series.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Indexes of shards by path. A missing one is built again from its shard.
#[derive(Debug, Default)]
pub(crate) struct IndexCache(Mutex<CacheState>);

#[derive(Debug, Default)]
struct CacheState {
    indexes: HashMap<String, (Arc<ShardIndex>, u64)>,
    bytes: usize,
    uses: u64,
}

impl IndexCache {
    pub(crate) fn get(&self, path: &str) -> Option<Arc<ShardIndex>> {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        state.uses += 1;
        let now = state.uses;
        let (index, used) = state.indexes.get_mut(path)?;
        *used = now;
        Some(Arc::clone(index))
    }

    pub(crate) fn put(&self, path: &str, index: Arc<ShardIndex>) {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        state.uses += 1;
        let now = state.uses;
        state.bytes += index.bytes();
        if let Some((old, _)) = state.indexes.insert(path.to_owned(), (index, now)) {
            state.bytes -= old.bytes();
        }
        while state.bytes > CACHE_BYTES_MAX && state.indexes.len() > 1 {
            let oldest = state.indexes.iter().min_by_key(|(_, (_, used))| *used).map(|(path, _)| path.clone());
            if let Some((old, _)) = oldest.and_then(|path| state.indexes.remove(&path)) {
                state.bytes -= old.bytes();
            }
        }
    }

    pub(crate) fn forget(&self, path: &str) {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        if let Some((old, _)) = state.indexes.remove(path) {
            state.bytes -= old.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_with_its_rows_and_times() {
        let key = |n: u32| SeriesKey::from_tags([("device", n.to_string())]);
        let mut builder = IndexBuilder::default();
        for n in 0..100 {
            builder.push(&key(n), n + 1, i64::from(n), i64::from(n) * 2);
        }
        let index = builder.finish();
        for n in 0..100 {
            let [entry] = index.find_hash(series_hash(&key(n))) else { panic!("series {n}") };
            assert_eq!((entry.start, entry.rows), (n * (n + 1) / 2, n + 1));
            assert_eq!((entry.time_min_us, entry.time_max_us), (i64::from(n), i64::from(n) * 2));
        }
        assert!(index.find_hash(series_hash(&key(100))).is_empty());
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_was_used_last() {
        let cache = IndexCache::default();
        let entries = CACHE_BYTES_MAX / size_of::<IndexEntry>() / 4;
        let entry = IndexEntry { hash: 1, start: 0, rows: 1, time_min_us: 0, time_max_us: 0 };
        for n in 0..10 {
            cache.put(&n.to_string(), Arc::new(ShardIndex { entries: vec![entry; entries] }));
            assert!(cache.get("0").is_some(), "used at each turn");
        }
        assert!(cache.get("1").is_none());
        assert!(cache.0.lock().unwrap().bytes <= CACHE_BYTES_MAX);
    }
}
