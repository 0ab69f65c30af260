//! Finds keys that a memtable shares with an older layer, so that no reader ever meets a key twice (P4).
//!
//! Owns:     looking series and keys up in sealed memtables and shards.
//! Does not: lock, or decide what becomes of a collision: the memtable merges, `snapshot` masks, `flush` rewrites.
//!
//! Overlap is judged per series: the shards of a day overlap in time always, but a series' ranges almost never do.
//! So only keys at or before the latest time that an older layer holds of their series are looked up at all.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use model::SeriesKey;

use crate::columns::value_at;
use crate::context::Context;
use crate::memtable::{Below, FieldValue, Memtable, OwnedValue, Suspect};
use crate::shard::index::{IndexEntry, ShardIndex};
use crate::shard::read::{ShardReader, series_key, tag_columns, time_column};
use crate::{ColumnKind, Shard, StorageError, TableSchema};

/// The layers below a memtable of one table and day.
#[derive(Clone)]
pub(crate) struct Layers {
    pub(crate) schema: Arc<TableSchema>,
    /// Set for the live memtable only.
    pub(crate) sealed: Option<Arc<Mutex<Memtable>>>,
    pub(crate) shards: Vec<Arc<Shard>>,
}

/// Something to do with a memtable while it is locked.
pub(crate) type Work<'a> = &'a mut dyn FnMut(&mut Memtable);

/// A key found below.
pub(crate) struct Found {
    pub(crate) series: u32,
    pub(crate) time_us: i64,
    pub(crate) at: Below,
    pub(crate) values: Vec<FieldValue>,
}

impl Layers {
    /// The index of a shard, from the cache or built anew.
    fn index(&self, context: &Context, shard: &Shard) -> Result<Arc<ShardIndex>, StorageError> {
        if let Some(index) = context.indexes.get(&shard.path) {
            return Ok(index);
        }
        let reader = ShardReader { disk: &*context.disk, root: &context.tables_dir };
        let index = Arc::new(reader.index(shard, &self.schema)?);
        context.indexes.put(&shard.path, Arc::clone(&index));
        Ok(index)
    }

    /// The latest time of each series in any layer; `i64::MIN` where none has it.
    pub(crate) fn latest(
        &self,
        context: &Context,
        series: &[(u32, Arc<SeriesKey>)],
    ) -> Result<Vec<(u32, i64)>, StorageError> {
        let mut latest: Vec<(u32, i64)> = series.iter().map(|(id, _)| (*id, i64::MIN)).collect();
        for shard in &self.shards {
            let index = self.index(context, shard)?;
            for ((_, key), (_, max)) in series.iter().zip(&mut latest) {
                let in_shard = index.find(key).iter().map(|entry| entry.time_max_us).max();
                *max = (*max).max(in_shard.unwrap_or(i64::MIN));
            }
        }
        if let Some(sealed) = &self.sealed {
            let sealed = sealed.lock().expect("no holder of this lock panics");
            for ((_, key), (_, max)) in series.iter().zip(&mut latest) {
                *max = (*max).max(sealed.last_time(key).unwrap_or(i64::MIN));
            }
        }
        Ok(latest)
    }

    /// Looks every suspect up, the newest layer first.
    pub(crate) fn look_up(&self, context: &Context, suspects: &[Suspect]) -> Result<Vec<Found>, StorageError> {
        let mut found = Vec::new();
        let mut rest: Vec<&Suspect> = Vec::with_capacity(suspects.len());
        match &self.sealed {
            None => rest.extend(suspects),
            Some(sealed) => {
                let sealed = sealed.lock().expect("no holder of this lock panics");
                for suspect in suspects {
                    match sealed.lookup(&suspect.key, suspect.time_us) {
                        // A sealed row is complete: it has been settled against the shards before.
                        Some((row, values)) => found.push(suspect.found(Below::Sealed(row), values)),
                        None => rest.push(suspect),
                    }
                }
            }
        }
        for shard in &self.shards {
            let in_time = |suspect: &&&Suspect| (shard.time_min_us..=shard.time_max_us).contains(&suspect.time_us);
            let candidates: Vec<&Suspect> = rest.iter().filter(in_time).copied().collect();
            if !candidates.is_empty() {
                self.look_up_in_shard(context, shard, &candidates, &mut found)?;
            }
        }
        Ok(found)
    }

    fn look_up_in_shard(
        &self,
        context: &Context,
        shard: &Shard,
        suspects: &[&Suspect],
        found: &mut Vec<Found>,
    ) -> Result<(), StorageError> {
        let index = self.index(context, shard)?;
        let holds = |entry: &&IndexEntry, time_us: i64| (entry.time_min_us..=entry.time_max_us).contains(&time_us);
        let mut wanted: Vec<(&Suspect, IndexEntry)> = Vec::new();
        for suspect in suspects {
            let entries = index.find(&suspect.key).iter().filter(|entry| holds(entry, suspect.time_us));
            wanted.extend(entries.map(|entry| (*suspect, *entry)));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_by_key(|(_, entry)| entry.start);
        let mut ranges: Vec<Range<usize>> = Vec::new();
        // Where a range's rows begin in what is read.
        let mut starts: HashMap<u32, usize> = HashMap::new();
        let mut read = 0;
        for (_, entry) in &wanted {
            starts.entry(entry.start).or_insert_with(|| {
                ranges.push(entry.start as usize..(entry.start + entry.rows) as usize);
                let start = read;
                read += entry.rows as usize;
                start
            });
        }
        let reader = ShardReader { disk: &*context.disk, root: &context.tables_dir };
        let rows = reader.rows_in_one(shard, &self.schema, &ranges)?;
        let tags = tag_columns(&rows, &self.schema);
        let times = time_column(&rows).expect("every table has a time").values();
        let path: Arc<str> = shard.path.as_str().into();
        for (suspect, entry) in wanted {
            let start = starts[&entry.start];
            let of_series = &times[start..start + entry.rows as usize];
            let Ok(place) = of_series.binary_search(&suspect.time_us) else { continue };
            let row = start + place;
            if series_key(&tags, row) != *suspect.key {
                continue;
            }
            let values = self.schema.columns().iter().zip(rows.columns()).filter_map(|(column, array)| {
                let ColumnKind::Field(field_type) = column.kind else { return None };
                let value = value_at(&**array, field_type, row)?;
                Some((Arc::clone(&column.name), field_type, OwnedValue::from(value)))
            });
            let ordinal = entry.start + place as u32;
            found.push(suspect.found(Below::Shard(Arc::clone(&path), ordinal), values.collect()));
        }
        Ok(())
    }

    /// Settles `memtable`, reached through `with`, as far as it has come; rows that arrive meanwhile may be left.
    ///
    /// `version` numbers these layers; only one caller a table may settle at a time.
    pub(crate) fn settle(
        &self,
        context: &Context,
        version: u64,
        with: &mut dyn FnMut(Work<'_>),
    ) -> Result<(), StorageError> {
        let (mut unknown, mut suspects) = (Vec::new(), Vec::new());
        with(&mut |memtable| {
            memtable.below_version(version);
            unknown = memtable.unknown_series();
        });
        if !unknown.is_empty() {
            let known = self.latest(context, &unknown)?;
            with(&mut |memtable| memtable.know_series(&known));
        }
        with(&mut |memtable| suspects = memtable.suspects());
        if !suspects.is_empty() {
            let found = self.look_up(context, &suspects)?;
            let mut found = Some(found);
            with(&mut |memtable| {
                for key in found.take().into_iter().flatten() {
                    memtable.settle_key(key.series, key.time_us, key.at, &key.values);
                }
                memtable.suspects_done(suspects.len());
            });
        }
        Ok(())
    }
}

impl Suspect {
    fn found(&self, at: Below, values: Vec<FieldValue>) -> Found {
        Found { series: self.series, time_us: self.time_us, at, values }
    }
}
