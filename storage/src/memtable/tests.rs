//! Memtables over layers that are plain maps: writes, removals, seals, flushes that leave rows waiting, and shards that
//! are merged under them, against one map. Thousands of cases a second, without a disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use model::{FieldType, NodeEpoch, NodeId, Position, Rng, SeriesKey, SplitMix64, TableBatch, TableName, Value};

use super::*;

type Key = (u64, i64);
type Row = BTreeMap<&'static str, i64>;

const FIELDS: [&str; 3] = ["x", "y", "z"];

fn series_key(series: u64) -> SeriesKey {
    SeriesKey::from_tags([("s", series.to_string())])
}

fn at(offset: u64) -> Position {
    Position { counter: offset, node: NodeId(1), epoch: NodeEpoch(1), offset }
}

/// The rows of a shard, in order.
struct Fake {
    shard: Arc<crate::Shard>,
    rows: Vec<(Key, Row)>,
}

#[derive(Default)]
struct World {
    shards: Vec<Fake>,
    sealed: Option<Memtable>,
    live: Option<Memtable>,
    version: u64,
    names: u64,
    /// Counts writes and removals, as offsets of frames.
    now: u64,
    oracle: BTreeMap<Key, Row>,
}

/// The rows of a memtable that are there, by key; `without` are left out.
fn shown(memtable: &Memtable, without: &[u32]) -> Vec<(Key, Row)> {
    let view = memtable.view(without);
    let mut rows = Vec::new();
    for (series, of_series) in memtable.rows_by_series().iter().enumerate() {
        let number = view.series[series].get("s").unwrap().parse().unwrap();
        for row in of_series.iter().filter(|row| !view.left_out.get(**row)) {
            rows.push(((number, memtable.key_of(*row).1), row_of(memtable.values(*row))));
        }
    }
    rows
}

fn row_of(values: Vec<FieldValue>) -> Row {
    let value = |(name, _, value): FieldValue| {
        let OwnedValue::I64(value) = value else { panic!("only integers are written") };
        (FIELDS.into_iter().find(|field| **field == *name).unwrap(), value)
    };
    values.into_iter().map(value).collect()
}

impl World {
    fn shards(&self) -> Vec<Arc<crate::Shard>> {
        self.shards.iter().map(|fake| Arc::clone(&fake.shard)).collect()
    }

    fn add_shard(&mut self, mut rows: Vec<(Key, Row)>) {
        if rows.is_empty() {
            return;
        }
        rows.sort_by_key(|(key, _)| *key);
        self.names += 1;
        let shard = crate::Shard {
            path: format!("shard {}", self.names),
            bytes: 1,
            rows: rows.len() as u64,
            day: 0,
            time_min_us: rows.iter().map(|(key, _)| key.1).min().unwrap(),
            time_max_us: rows.iter().map(|(key, _)| key.1).max().unwrap(),
            columns: Vec::new(),
            position_min: at(0),
            position_max: at(self.now),
            checksums: None,
        };
        self.shards.push(Fake { shard: Arc::new(shard), rows });
    }

    /// As `Layers::settle` does it, with maps to look into.
    fn settle(&self, memtable: &mut Memtable, sealed: Option<&Memtable>) {
        let shards = self.shards();
        if let Some(news) = memtable.meet(self.version, sealed.is_some(), &shards) {
            let times = |fake: &Fake, key: &SeriesKey| -> Vec<i64> {
                let of_series = fake.rows.iter().filter(|((series, _), _)| series_key(*series) == *key);
                of_series.map(|((_, time), _)| *time).collect()
            };
            let latest = news.unknown.iter().map(|(id, key)| {
                let in_shards = self.shards.iter().flat_map(|fake| times(fake, key));
                (*id, in_shards.chain(sealed.and_then(|sealed| sealed.last_time(key))).max().unwrap_or(i64::MIN))
            });
            let latest: Vec<(u32, i64)> = latest.collect();
            let mut reaches = Vec::new();
            for (fake, (series, key)) in
                news.shards.iter().flat_map(|shard| news.known.iter().map(|known| (&self.shards[*shard], known)))
            {
                let times = times(fake, key);
                if let (Some(min), Some(max)) = (times.iter().min(), times.iter().max()) {
                    reaches.push(Reach { series: *series, time_min_us: *min, time_max_us: *max });
                }
            }
            memtable.met(self.version, &shards, &latest, &reaches);
        }
        let suspects = memtable.suspects();
        let generations = memtable.generations(&shards);
        for suspect in &suspects {
            let held = |at, is_gone, values| Held {
                series: suspect.series,
                time_us: suspect.time_us,
                at,
                is_gone,
                is_newer: false,
                values,
            };
            if let Some((is_gone, values)) = sealed.and_then(|sealed| sealed.lookup(&suspect.key, suspect.time_us)) {
                memtable.settle_key(&held(Below::Sealed, is_gone, values));
                continue;
            }
            for (fake, _) in self.shards.iter().zip(&generations).filter(|(_, generation)| suspect.from <= **generation)
            {
                let is_it =
                    |((series, time), _): &&(Key, Row)| series_key(*series) == *suspect.key && *time == suspect.time_us;
                if let Some(ordinal) = fake.rows.iter().position(|row| is_it(&row)) {
                    let value = |(name, value): (&&'static str, &i64)| {
                        (Arc::from(*name), FieldType::I64, OwnedValue::I64(*value))
                    };
                    let values = fake.rows[ordinal].1.iter().map(value).collect();
                    let place = Below::Shard(fake.shard.path.as_str().into(), ordinal as u32);
                    memtable.settle_key(&held(place, false, values));
                }
            }
        }
        memtable.suspects_done(suspects.len());
        assert!(memtable.is_settled_at(self.version));
    }

    fn settle_all(&mut self) {
        let (mut sealed, mut live) = (self.sealed.take(), self.live.take());
        sealed.iter_mut().for_each(|sealed| self.settle(sealed, None));
        live.iter_mut().for_each(|live| self.settle(live, sealed.as_ref()));
        (self.sealed, self.live) = (sealed, live);
    }

    /// What a query sees.
    fn check(&mut self, label: &str) {
        self.settle_all();
        let mut masked: HashSet<(String, u32)> = HashSet::new();
        let mut replaced = Vec::new();
        for (key, time_us, below) in self.live.iter().chain(&self.sealed).flat_map(Memtable::collisions) {
            match below {
                Below::Sealed => replaced.push(self.sealed.as_ref().unwrap().row_of(key, time_us).unwrap()),
                Below::Shard(path, ordinal) => drop(masked.insert((path.to_string(), ordinal))),
            }
        }
        let mut rows: Vec<(Key, Row)> = Vec::new();
        for fake in &self.shards {
            let kept = (0..).zip(&fake.rows).filter(|(i, _)| !masked.remove(&(fake.shard.path.clone(), *i)));
            rows.extend(kept.map(|(_, row)| row.clone()));
        }
        assert!(masked.is_empty(), "{label}: masked, but not there: {masked:?}");
        rows.extend(self.sealed.iter().flat_map(|sealed| shown(sealed, &replaced)));
        rows.extend(self.live.iter().flat_map(|live| shown(live, &[])));
        let seen: BTreeMap<Key, Row> = rows.iter().cloned().collect();
        assert_eq!(seen.len(), rows.len(), "{label}: a key is there twice");
        assert_eq!(seen, self.oracle, "{label}");
        // P4, for readers of shards alone.
        let keys: Vec<Key> = self.shards.iter().flat_map(|fake| fake.rows.iter().map(|(key, _)| *key)).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{label}: a key is in two shards");
    }

    fn write(&mut self, rows: &[(Key, Row)]) {
        let mut batch = TableBatch::new(TableName::public("t"));
        for ((series, time_us), row) in rows {
            let values: Vec<(usize, Value<'_>)> =
                row.iter().map(|(name, v)| (batch.field_column(name, FieldType::I64), Value::I64(*v))).collect();
            let id = batch.intern_series(series_key(*series));
            batch.push_row(id, *time_us, 0, &values);
            self.oracle.entry((*series, *time_us)).or_default().extend(row.clone());
        }
        self.now += 1;
        self.live.get_or_insert_with(Memtable::new).apply(&batch, 0..batch.len(), at(self.now));
    }

    fn remove(&mut self, (series, time_us): Key, fields: Option<&[&'static str]>) {
        let names: Option<Vec<(Arc<str>, FieldType)>> =
            fields.map(|fields| fields.iter().map(|field| (Arc::from(*field), FieldType::I64)).collect());
        self.now += 1;
        let live = self.live.get_or_insert_with(Memtable::new);
        live.remove(&series_key(series), time_us, names.as_deref(), at(self.now));
        match fields {
            None => drop(self.oracle.remove(&(series, time_us))),
            Some(fields) => {
                let row = self.oracle.get_mut(&(series, time_us));
                row.into_iter().for_each(|row| row.retain(|field, _| !fields.contains(field)));
            }
        }
    }

    /// Flushes the sealed memtable; of the shards that it collides with those are rewritten for which `is_affordable`.
    fn flush(&mut self, is_affordable: impl Fn() -> bool) {
        let Some(mut sealed) = self.sealed.take() else { return };
        self.settle(&mut sealed, None);
        let colliding: HashSet<Arc<str>> = sealed.collisions_by_shard().into_keys().collect();
        let mut paths: Vec<Arc<str>> = colliding.into_iter().collect();
        paths.sort();
        let (rewritten, others): (HashSet<_>, HashSet<_>) = paths.into_iter().partition(|_| is_affordable());
        let waiting = sealed.rows_to_wait(&others);
        let colliding: Vec<u32> = sealed.colliding_rows().into_iter().collect();
        let new = shown(&sealed, &colliding);
        for (path, rows) in sealed.replacements(&rewritten) {
            let place = self.shards.iter().position(|fake| *fake.shard.path == *path).unwrap();
            let mut old: Vec<Option<(Key, Row)>> = self.shards.remove(place).rows.into_iter().map(Some).collect();
            for (ordinal, row) in rows {
                let slot = &mut old[ordinal as usize];
                let key = slot.as_ref().unwrap().0;
                *slot = row.map(|row| (key, row_of(sealed.values(row))));
            }
            self.add_shard(old.into_iter().flatten().collect());
        }
        self.add_shard(new);
        self.version += 1;
        if !waiting.is_empty() {
            let oldest = waiting.iter().map(Waiting::offset).min().unwrap();
            let live = self.live.get_or_insert_with(Memtable::new);
            live.take_under(&sealed, &waiting);
            assert!(live.positions().unwrap().0.offset <= oldest && live.waiting_offset() <= Some(oldest));
        }
    }

    /// Makes one shard of some.
    fn merge_shards(&mut self, rng: &SplitMix64) {
        let mut rows = Vec::new();
        let mut kept = Vec::new();
        for fake in std::mem::take(&mut self.shards) {
            if rng.below(2) == 0 { rows.extend(fake.rows) } else { kept.push(fake) }
        }
        self.shards = kept;
        self.add_shard(rows);
        self.version += 1;
    }
}

fn random_case(seed: u64) {
    let rng = SplitMix64::new(seed);
    let mut world = World::default();
    for step in 0..60 {
        let label = format!("seed {seed}, step {step}");
        let key = || (rng.below(2), rng.below(12) as i64);
        match rng.below(16) {
            0..5 => {
                let row = |_| {
                    let fields =
                        FIELDS.into_iter().filter(|_| rng.below(2) == 0).map(|field| (field, rng.below(2) as i64));
                    (key(), fields.chain([("x", rng.below(2) as i64)]).collect())
                };
                let rows: Vec<(Key, Row)> = (0..1 + rng.below(6)).map(row).collect();
                world.write(&rows);
            }
            5..7 => world.remove(key(), None),
            7..9 => world.remove(key(), Some(&FIELDS[rng.below(2) as usize..2 + rng.below(2) as usize])),
            9..11 if world.sealed.is_none() => world.sealed = world.live.take(),
            9..14 => world.flush(|| rng.below(2) == 0),
            14 => world.merge_shards(&rng),
            _ => world.check(&label),
        }
    }
    let label = format!("seed {seed}, end");
    world.check(&label);
    world.flush(|| true);
    world.sealed = world.live.take();
    world.flush(|| true);
    assert!(world.live.is_none(), "{label}: rows wait, though every shard could be rewritten");
    world.check(&label);
}

#[test]
fn layers_show_what_was_written_whatever_is_sealed_flushed_merged_or_waits() {
    for seed in faults::seeds(1000) {
        random_case(seed);
    }
}

#[test]
fn what_waits_again_keeps_the_oldest_position_it_may_have_come_from() {
    let mut world = World::default();
    let row = |value: i64| Row::from([("x", value)]);
    world.write(&[((0, 1), row(1))]);
    world.sealed = world.live.take();
    world.flush(|| true);
    for value in 2..6 {
        // The second write is of another key each time, and does not wait.
        world.write(&[((0, 1), row(value))]);
        world.write(&[((1, value), row(value))]);
        world.sealed = world.live.take();
        world.flush(|| false);
        let live = world.live.as_ref().unwrap();
        assert_eq!((live.waiting_rows(), live.waiting_offset()), (1, Some(2)));
        assert_eq!(live.positions().map(|(oldest, _)| oldest.offset), Some(2));
        world.check("waiting");
    }
}
