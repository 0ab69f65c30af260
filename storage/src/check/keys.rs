//! Whether any key is in two shards of a day (P4).
//!
//! Owns:     merging shards in their order, a run of one series at a time.
//! Does not: check the order within a shard: that was done before.
//!
//! At most [`SHARDS_AT_ONCE`] shards are open at once. Of more, every two halves of that many are merged, so that each
//! shard meets each other.

use super::rows::{Keys, SeriesConverter};
use crate::shard::read::{ShardReader, ShardRows};
use crate::{ColumnKind, Shard, StorageError, TableSchema};

/// What bounds the memory: pages of so many shards.
const SHARDS_AT_ONCE: usize = 64;

const BATCH_ROWS: usize = 4096;

/// Two shards that hold the same keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Twice {
    pub(super) one: String,
    pub(super) other: String,
    pub(super) keys: u64,
    /// The time of the first of them, µs.
    pub(super) time_us: i64,
}

/// Compares the shards of one day, which are sound in themselves.
pub(super) fn compare(
    reader: &ShardReader<'_>,
    schema: &TableSchema,
    shards: &[&Shard],
) -> Result<Vec<Twice>, StorageError> {
    let mut found: Vec<Twice> = Vec::new();
    for overlapping in overlapping(shards) {
        let halves: Vec<&[&Shard]> = overlapping.chunks(SHARDS_AT_ONCE / 2).collect();
        if let [only] = halves[..] {
            merge(reader, schema, only, &mut found)?;
        }
        for (i, one) in halves.iter().enumerate() {
            for other in &halves[i + 1..] {
                let mut both = Vec::new();
                merge(reader, schema, &[*one, *other].concat(), &mut both)?;
                // Two halves meet once, shards of one half several times.
                found.extend(both.into_iter().filter(|twice| !found.contains(twice)).collect::<Vec<_>>());
            }
        }
    }
    Ok(found)
}

/// Groups of shards whose times meet, in order of time; one alone is left out.
fn overlapping<'a>(shards: &[&'a Shard]) -> Vec<Vec<&'a Shard>> {
    let mut sorted = shards.to_vec();
    sorted.sort_by_key(|shard| shard.time_min_us);
    let mut groups: Vec<(i64, Vec<&Shard>)> = Vec::new();
    for shard in sorted {
        match groups.last_mut() {
            Some((latest, group)) if shard.time_min_us <= *latest => {
                *latest = shard.time_max_us.max(*latest);
                group.push(shard);
            }
            _ => groups.push((shard.time_max_us, vec![shard])),
        }
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| group.len() > 1).collect()
}

/// A place in a shard.
struct Cursor<'a> {
    shard: &'a Shard,
    batches: ShardRows,
    keys: Keys,
    /// The rows of one series, from the next one on.
    row: usize,
    run_end: usize,
}

impl<'a> Cursor<'a> {
    fn open(
        reader: &ShardReader<'_>,
        schema: &TableSchema,
        converter: &SeriesConverter,
        shard: &'a Shard,
    ) -> Result<Option<Cursor<'a>>, StorageError> {
        let names = schema.columns().iter().filter(|c| !matches!(c.kind, ColumnKind::Field(_))).map(|c| &*c.name);
        let mut batches = reader.open(shard)?.project(names).batches(BATCH_ROWS)?;
        let keys = next_keys(reader, converter, shard, &mut batches)?;
        Ok(keys.map(|keys| Cursor { shard, batches, row: 0, run_end: keys.run_end(0), keys }))
    }

    fn next(&self) -> (&[u8], i64) {
        (self.keys.series(self.row), self.keys.times.value(self.row))
    }

    /// Goes on to `row`; false at the end of the shard.
    fn go_to(
        &mut self,
        reader: &ShardReader<'_>,
        converter: &SeriesConverter,
        row: usize,
    ) -> Result<bool, StorageError> {
        self.row = row;
        if self.row < self.run_end {
            return Ok(true);
        }
        if self.row == self.keys.len() {
            match next_keys(reader, converter, self.shard, &mut self.batches)? {
                None => return Ok(false),
                Some(keys) => (self.keys, self.row) = (keys, 0),
            }
        }
        self.run_end = self.keys.run_end(self.row);
        Ok(true)
    }
}

fn next_keys(
    reader: &ShardReader<'_>,
    converter: &SeriesConverter,
    shard: &Shard,
    batches: &mut ShardRows,
) -> Result<Option<Keys>, StorageError> {
    for batch in batches {
        let batch = batch?;
        let corrupt = |reason| StorageError::Corrupt { path: reader.root.join(&shard.path), reason };
        let keys = converter.keys(&batch).map_err(corrupt)?;
        if keys.len() > 0 {
            return Ok(Some(keys));
        }
    }
    Ok(None)
}

fn merge(
    reader: &ShardReader<'_>,
    schema: &TableSchema,
    shards: &[&Shard],
    found: &mut Vec<Twice>,
) -> Result<(), StorageError> {
    let corrupt = |reason| StorageError::Corrupt { path: reader.root.to_owned(), reason };
    let converter = SeriesConverter::new(schema).map_err(corrupt)?;
    let mut cursors = Vec::with_capacity(shards.len());
    for shard in shards {
        cursors.extend(Cursor::open(reader, schema, &converter, shard)?);
    }
    while cursors.len() > 1 {
        let (first, second) = first_two(&cursors);
        let (one, other) = (&cursors[first], &cursors[second]);
        let ((series, _), (other_series, other_time)) = (one.next(), other.next());
        let mut row = one.run_end;
        if series == other_series {
            let before = one.keys.times.values()[one.row..one.run_end].partition_point(|time| *time < other_time);
            row = one.row + before;
            if before == 0 {
                note(found, &one.shard.path, &other.shard.path, other_time);
                row += 1;
            }
        }
        if !cursors[first].go_to(reader, &converter, row)? {
            cursors.swap_remove(first);
        }
    }
    Ok(())
}

/// The two cursors whose next keys are the lowest, in that order.
fn first_two(cursors: &[Cursor<'_>]) -> (usize, usize) {
    let (mut first, mut second) = (0, 1);
    if cursors[second].next() < cursors[first].next() {
        (first, second) = (second, first);
    }
    for i in 2..cursors.len() {
        if cursors[i].next() < cursors[first].next() {
            (first, second) = (i, first);
        } else if cursors[i].next() < cursors[second].next() {
            second = i;
        }
    }
    (first, second)
}

fn note(found: &mut Vec<Twice>, one: &str, other: &str, time_us: i64) {
    let (one, other) = if one < other { (one, other) } else { (other, one) };
    match found.iter_mut().find(|twice| twice.one == one && twice.other == other) {
        Some(twice) => twice.keys += 1,
        None => found.push(Twice { one: one.to_owned(), other: other.to_owned(), keys: 1, time_us }),
    }
}
