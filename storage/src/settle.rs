//! Finds keys that a memtable shares with an older layer, so that no reader ever meets a key twice (P4).
//!
//! Owns:     looking series and keys up in sealed memtables and shards.
//! Does not: lock, or decide what becomes of a collision: the memtable merges, `snapshot` masks, `flush` rewrites.
//!
//! Overlap is judged per series: the shards of a day overlap in time always, but a series' ranges almost never do.
//! So only keys at or before the latest time that an older layer holds of their series are looked up at all; of those the
//! times are compared first, and values are read only where a time is found.
//!
//! What was found stays known while the shard it was found in is there. When layers change, only new shards are looked at.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use model::{Position, SeriesKey};

use crate::columns::value_at;
use crate::context::Context;
use crate::memtable::{Below, FieldValue, Held, Memtable, OwnedValue, Reach, Suspect};
use crate::shard::index::{IndexEntry, ShardIndex, series_hash};
use crate::shard::read::{ShardReader, series_key, tag_columns};
use crate::{ColumnKind, Shard, StorageError, TableSchema};

/// Rows between two matches that are read rather than skipped.
const GAP_ROWS: u32 = 16;

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

/// Suspects of one series, in order of time.
struct OfSeries<'a> {
    hash: u64,
    suspects: Vec<&'a Suspect>,
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
        if latest.is_empty() {
            return Ok(latest);
        }
        let hashes: Vec<u64> = series.iter().map(|(_, key)| series_hash(key)).collect();
        for shard in &self.shards {
            let index = self.index(context, shard)?;
            for (hash, (_, max)) in hashes.iter().zip(&mut latest) {
                let in_shard = index.find_hash(*hash).iter().map(|entry| entry.time_max_us).max();
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

    /// The times of each series in each of the shards numbered `shards`.
    fn reaches(
        &self,
        context: &Context,
        series: &[(u32, Arc<SeriesKey>)],
        shards: &[usize],
    ) -> Result<Vec<Reach>, StorageError> {
        let hashes: Vec<(u32, u64)> = series.iter().map(|(id, key)| (*id, series_hash(key))).collect();
        let mut reaches = Vec::new();
        if hashes.is_empty() {
            return Ok(reaches);
        }
        for shard in shards {
            let index = self.index(context, &self.shards[*shard])?;
            for (series, hash) in &hashes {
                reaches.extend(index.find_hash(*hash).iter().map(|entry| Reach {
                    series: *series,
                    time_min_us: entry.time_min_us,
                    time_max_us: entry.time_max_us,
                }));
            }
        }
        Ok(reaches)
    }

    /// Looks every suspect up, the newest layer first. `generations` are those of the shards.
    /// `newest` is the newest position of the memtable.
    fn look_up(
        &self,
        context: &Context,
        suspects: &[Suspect],
        generations: &[u32],
        newest: Option<Position>,
    ) -> Result<Vec<Held>, StorageError> {
        let mut found = Vec::new();
        let mut rest: Vec<&Suspect> = Vec::with_capacity(suspects.len());
        match &self.sealed {
            None => rest.extend(suspects),
            Some(sealed) => {
                let sealed = sealed.lock().expect("no holder of this lock panics");
                for suspect in suspects {
                    match sealed.lookup(&suspect.key, suspect.time_us) {
                        // A sealed row is complete: it has been settled against the shards before.
                        Some((is_gone, values)) => found.push(suspect.held(Below::Sealed, is_gone, values)),
                        None => rest.push(suspect),
                    }
                }
            }
        }
        rest.sort_unstable_by_key(|suspect| (suspect.series, suspect.time_us));
        let of_series: Vec<OfSeries<'_>> = rest
            .chunk_by(|a, b| a.series == b.series)
            .map(|suspects| OfSeries { hash: series_hash(&suspects[0].key), suspects: suspects.to_vec() })
            .collect();
        for (shard, generation) in self.shards.iter().zip(generations) {
            let before = found.len();
            self.look_up_in_shard(context, shard, *generation, &of_series, &mut found)?;
            // Only of another node a shard may be wholly newer than what is in memory.
            if context.is_common() && newest.is_some_and(|newest| shard.position_min > newest) {
                found[before..].iter_mut().for_each(|held| held.is_newer = true);
            }
        }
        Ok(found)
    }

    fn look_up_in_shard(
        &self,
        context: &Context,
        shard: &Shard,
        generation: u32,
        of_series: &[OfSeries<'_>],
        found: &mut Vec<Held>,
    ) -> Result<(), StorageError> {
        let in_times = |of: &OfSeries<'_>, min_us: i64, max_us: i64| {
            let start = of.suspects.partition_point(|suspect| suspect.time_us < min_us);
            let end = of.suspects.partition_point(|suspect| suspect.time_us <= max_us);
            start..end.max(start)
        };
        let reaching: Vec<&OfSeries<'_>> =
            of_series.iter().filter(|of| !in_times(of, shard.time_min_us, shard.time_max_us).is_empty()).collect();
        if reaching.is_empty() {
            return Ok(());
        }
        let index = self.index(context, shard)?;
        let mut wanted: Vec<(IndexEntry, Vec<&Suspect>)> = Vec::new();
        for of in reaching {
            for entry in index.find_hash(of.hash) {
                let suspects = &of.suspects[in_times(of, entry.time_min_us, entry.time_max_us)];
                let suspects: Vec<&Suspect> = suspects.iter().filter(|s| s.from <= generation).copied().collect();
                if !suspects.is_empty() {
                    wanted.push((*entry, suspects));
                }
            }
        }
        wanted.sort_by_key(|(entry, _)| entry.start);
        let mut matches = self.matching_times(context, shard, &wanted)?;
        if matches.is_empty() {
            return Ok(());
        }
        matches.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        self.read_matches(context, shard, &matches, found)
    }

    /// The ordinals at which a suspect's time stands in a range that is its series', but for a collision of hashes.
    fn matching_times<'a>(
        &self,
        context: &Context,
        shard: &Shard,
        wanted: &[(IndexEntry, Vec<&'a Suspect>)],
    ) -> Result<Vec<(u32, &'a Suspect)>, StorageError> {
        let mut matches = Vec::new();
        if wanted.is_empty() {
            return Ok(matches);
        }
        let mut ranges: Vec<Range<usize>> =
            wanted.iter().map(|(entry, _)| entry.start as usize..(entry.start + entry.rows) as usize).collect();
        // Two series of one hash want each other's ranges.
        ranges.dedup();
        let reader = ShardReader { disk: &*context.disk, root: &context.tables_dir };
        let times = reader.times(shard, &ranges)?;
        let (mut before, mut at) = (0, 0);
        for (entry, suspects) in wanted {
            while ranges[at].start != entry.start as usize {
                before += ranges[at].len();
                at += 1;
            }
            let of_series = &times[before..before + entry.rows as usize];
            for suspect in suspects {
                if let Ok(place) = of_series.binary_search(&suspect.time_us) {
                    matches.push((entry.start + place as u32, *suspect));
                }
            }
        }
        Ok(matches)
    }

    /// Reads the rows at the ordinals of `matches`, which ascend, and keeps those that are of the suspect's series.
    fn read_matches(
        &self,
        context: &Context,
        shard: &Shard,
        matches: &[(u32, &Suspect)],
        found: &mut Vec<Held>,
    ) -> Result<(), StorageError> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (ordinal, _) in matches {
            let row = *ordinal as usize;
            match ranges.last_mut() {
                Some(last) if row <= last.end + GAP_ROWS as usize => last.end = last.end.max(row + 1),
                _ => ranges.push(row..row + 1),
            }
        }
        let reader = ShardReader { disk: &*context.disk, root: &context.tables_dir };
        let rows = reader.rows_in_one(shard, &self.schema, &ranges)?;
        let tags = tag_columns(&rows, &self.schema);
        let path: Arc<str> = shard.path.as_str().into();
        let (mut ranges, mut before) = (ranges.into_iter().peekable(), 0);
        for (ordinal, suspect) in matches {
            while let Some(passed) = ranges.next_if(|range| range.end <= *ordinal as usize) {
                before += passed.len();
            }
            let start = ranges.peek().expect("every match lies in a range").start;
            let row = before + *ordinal as usize - start;
            if series_key(&tags, row) != *suspect.key {
                continue;
            }
            let values = self.schema.columns().iter().zip(rows.columns()).filter_map(|(column, array)| {
                let ColumnKind::Field(field_type) = column.kind else { return None };
                let value = value_at(&**array, field_type, row)?;
                Some((Arc::clone(&column.name), field_type, OwnedValue::from(value)))
            });
            found.push(suspect.held(Below::Shard(Arc::clone(&path), *ordinal), false, values.collect()));
        }
        Ok(())
    }

    /// Settles `memtable`, reached through `with`, as far as it has come; rows that arrive meanwhile may be left.
    ///
    /// `version` numbers these layers; only one caller a table may settle at a time. After an error the memtable knows
    /// what it knew before, less what is no longer true.
    pub(crate) fn settle(
        &self,
        context: &Context,
        version: u64,
        with: &mut dyn FnMut(Work<'_>),
    ) -> Result<(), StorageError> {
        let mut news = None;
        with(&mut |memtable| news = memtable.meet(version, self.sealed.is_some(), &self.shards));
        if let Some(news) = news {
            let latest = self.latest(context, &news.unknown)?;
            let reaches = self.reaches(context, &news.known, &news.shards)?;
            with(&mut |memtable| memtable.met(version, &self.shards, &latest, &reaches));
        }
        let (mut suspects, mut generations, mut newest) = (Vec::new(), Vec::new(), None);
        with(&mut |memtable| {
            newest = memtable.positions().map(|(_, newest)| newest);
            suspects = memtable.suspects();
            generations = memtable.generations(&self.shards);
        });
        if !suspects.is_empty() {
            let found = self.look_up(context, &suspects, &generations, newest)?;
            with(&mut |memtable| {
                found.iter().for_each(|held| memtable.settle_key(held));
                memtable.suspects_done(suspects.len());
            });
        }
        Ok(())
    }
}

impl Suspect {
    fn held(&self, at: Below, is_gone: bool, values: Vec<FieldValue>) -> Held {
        Held { series: self.series, time_us: self.time_us, at, is_gone, is_newer: false, values }
    }
}
