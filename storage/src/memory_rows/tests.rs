//! Random rows in memory, asked for by random times and series, against the rows themselves.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use model::{FieldType, NodeEpoch, NodeId, Position, Rng, SeriesKey, SplitMix64, TableBatch, TableName, Value};

use super::*;
use crate::memtable::Memtable;

/// By series and time; the field is there or not.
type Oracle = BTreeMap<(u64, i64), Option<i64>>;

const SERIES: u64 = 5;

fn key(series: u64) -> SeriesKey {
    SeriesKey::from_tags([("s", series.to_string())])
}

fn schema() -> Arc<TableSchema> {
    Arc::new(TableSchema::new(&["s".into()], &[("x".into(), FieldType::I64)]))
}

fn write(memtable: &mut Memtable, oracle: &mut Oracle, rng: &SplitMix64, rows: u64, time_us: &mut i64) {
    let mut batch = TableBatch::new(TableName::public("t"));
    let field = batch.field_column("x", FieldType::I64);
    for _ in 0..rows {
        *time_us += rng.below(3) as i64 - 1;
        let (series, value) = (rng.below(SERIES), rng.below(1000) as i64);
        let value = (rng.below(4) > 0).then_some(value);
        let values: Vec<_> = value.map(|value| (field, Value::I64(value))).into_iter().collect();
        let id = batch.intern_series(key(series));
        batch.push_row(id, *time_us, 0, &values);
        let known = oracle.entry((series, *time_us)).or_default();
        *known = value.or(*known);
    }
    let offset = oracle.len() as u64;
    let position = Position { counter: offset, node: NodeId(1), epoch: NodeEpoch(1), offset };
    memtable.apply(&batch, 0..batch.len(), position);
}

fn rows_of(batch: &RecordBatch) -> Vec<((u64, i64), Option<i64>)> {
    let series = batch.column(0).as_string_view();
    let values = batch.column(1).as_primitive::<Int64Type>();
    let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
    let row = |row: usize| {
        let value = values.is_valid(row).then(|| values.value(row));
        ((series.value(row).parse().expect("a number"), times.value(row)), value)
    };
    (0..batch.num_rows()).map(row).collect()
}

/// What `wanted` gives is all of `oracle` that is wanted, each row once, and nothing that is not in `oracle`.
fn check(rows: &MemoryRows, oracle: &Oracle, wanted: RowsWanted, of: Option<u64>, label: &str) {
    let times_us = wanted.times_us.clone();
    let found = rows.wanted(&[0, 1, 2], wanted);
    let batches: Vec<_> = (0..found.parts()).filter_map(|part| found.part(part)).collect();
    assert!(batches.iter().all(|batch| batch.num_rows() > 0), "{label}: an empty batch");
    let given: Vec<_> = batches.iter().flat_map(rows_of).collect();
    let by_key: Oracle = given.iter().copied().collect();
    assert_eq!(by_key.len(), given.len(), "{label}: a row is there twice");
    for (key, value) in &by_key {
        assert_eq!(oracle.get(key), Some(value), "{label}: {key:?}");
    }
    let is_wanted = |key: &(u64, i64)| times_us.contains(&key.1) && of.is_none_or(|of| key.0 == of);
    for key in oracle.keys().filter(|key| is_wanted(key)) {
        assert!(by_key.contains_key(key), "{label}: {key:?} is missing");
    }
    // A part is no wider than it has to be.
    assert!(by_key.keys().all(is_wanted), "{label}: {} rows too many", by_key.len());
    assert!(given.len() <= found.rows_max(), "{label}: {} of at most {}", given.len(), found.rows_max());
    if found.is_exact() {
        assert_eq!(given.len(), found.rows_max(), "{label}");
    }
    let nulls = given.iter().filter(|(_, value)| value.is_none()).count();
    assert!(found.nulls(1).is_none_or(|known| known == nulls), "{label}: {nulls} without a value");
    assert!(found.nulls(2).is_none_or(|known| known == 0), "{label}");
}

fn random_case(seed: u64) {
    let rng = SplitMix64::new(seed);
    let schema = schema();
    let (mut memtable, mut oracle, mut time_us) = (Memtable::new(), Oracle::new(), 0);
    let mut before: Option<(MemoryRows, Oracle)> = None;
    for step in 0..8 {
        let label = format!("seed {seed}, step {step}");
        let rows = [0, 1, 100, 20_000][rng.below(4) as usize];
        write(&mut memtable, &mut oracle, &rng, rows, &mut time_us);
        let rows = MemoryRows::of_views(Arc::clone(&schema), vec![memtable.view(&[])]);
        assert_eq!(rows.count(), oracle.len(), "{label}");
        check(&rows, &oracle, RowsWanted::default(), None, &label);
        let from = time_us - rng.below(30_000) as i64;
        let times_us = from..=from + rng.below(10_000) as i64;
        check(&rows, &oracle, RowsWanted { times_us: times_us.clone(), series: None }, None, &label);
        let of = rng.below(SERIES);
        let series: Arc<SeriesWanted> = Arc::new(move |tags: &RecordBatch| {
            Some(tags.column(0).as_string_view().iter().map(|tag| tag == Some(of.to_string().as_str())).collect())
        });
        check(&rows, &oracle, RowsWanted { times_us, series: Some(series) }, Some(of), &label);
        // What was written since changes nothing of it.
        if let Some((rows, oracle)) = before.replace((rows, oracle.clone())) {
            check(&rows, &oracle, RowsWanted::default(), None, &format!("{label}, the view before"));
        }
    }
}

#[test]
fn all_rows_that_are_wanted_come_once_and_later_writes_change_nothing_of_them() {
    for seed in faults::seeds(20) {
        random_case(seed);
    }
}

#[test]
fn parts_at_other_times_are_left_out() {
    let (mut memtable, mut oracle, rng) = (Memtable::new(), Oracle::new(), SplitMix64::new(1));
    for hour in 0..4 {
        let mut time_us = hour * 1_000_000;
        write(&mut memtable, &mut oracle, &rng, 20_000, &mut time_us);
    }
    let rows = MemoryRows::of_views(schema(), vec![memtable.view(&[])]);
    let parts = |times_us| rows.wanted(&[2], RowsWanted { times_us, series: None }).parts();
    let all = parts(i64::MIN..=i64::MAX);
    assert!(all >= 2 && parts(3_000_000..=3_000_000) < all, "{all}");
    assert_eq!(parts(5_000_000..=i64::MAX), 0);
}
