use std::collections::BTreeMap;

use arrow::array::{AsArray, Float64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::Float64Type;
use model::{FieldType, Rng, SplitMix64};

use super::*;

type Key = (Option<String>, Option<String>, i64);

fn schema() -> Arc<TableSchema> {
    Arc::new(TableSchema::new(&["a".into(), "b".into()], &[("x".into(), FieldType::F64)]))
}

fn rows_to_batch(schema: &TableSchema, rows: &[(Key, f64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter(rows.iter().map(|((a, _, _), _)| a.as_deref()))),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|((_, b, _), _)| b.as_deref()))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, x)| *x))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(rows.iter().map(|((_, _, time), _)| *time))
                .with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap()
}

fn batch_to_rows(batch: &RecordBatch) -> Vec<(Key, f64)> {
    let times = time_column(batch).unwrap();
    let x = batch.column(2).as_primitive::<Float64Type>();
    let tag = |column: usize, row: usize| {
        let column = batch.column(column);
        column.is_valid(row).then(|| text_at(column, row).to_owned())
    };
    (0..batch.num_rows()).map(|row| ((tag(0, row), tag(1, row), times.value(row)), x.value(row))).collect()
}

fn input<'a>(schema: &TableSchema, name: &str, rows: &[(Key, f64)], batch_rows: usize) -> Input<'a> {
    let batches: Vec<_> = rows.chunks(batch_rows).map(|rows| Ok(rows_to_batch(schema, rows))).collect();
    Input { path: name.into(), batches: Box::new(batches.into_iter()) }
}

#[test]
fn merged_rows_are_those_of_the_inputs_in_order_and_cut_by_time() {
    let schema = schema();
    for seed in faults::seeds(300) {
        let rng = SplitMix64::new(seed);
        let (inputs, tags, times) = (1 + rng.below(12), 1 + rng.below(5), 1 + rng.below(60));
        let mut parts: Vec<BTreeMap<Key, f64>> = vec![BTreeMap::new(); inputs as usize];
        let mut all: BTreeMap<Key, f64> = BTreeMap::new();
        for n in 0..rng.below(800) {
            let tag = || Some(rng.below(tags)).filter(|tag| *tag > 0).map(|tag| format!("{tag:0>14}"));
            let key = (tag(), tag(), rng.below(times) as i64);
            if all.insert(key.clone(), n as f64).is_none() {
                parts[rng.below(inputs) as usize].insert(key, 0.0);
            }
        }
        parts.iter_mut().flatten().for_each(|(key, x)| *x = all[key]);
        let mut cuts: Vec<i64> = (0..rng.below(4)).map(|_| rng.below(times) as i64).collect();
        cuts.sort_unstable();
        let batch_rows = 1 + rng.below(40) as usize;
        let parts = parts.iter().map(|part| part.clone().into_iter().collect::<Vec<_>>());
        let inputs = parts.map(|rows| input(&schema, "shard", &rows, batch_rows)).collect();
        let mut outputs: Vec<Vec<(Key, f64)>> = vec![Vec::new(); cuts.len() + 1];
        merge(&schema, inputs, &cuts, 1 + rng.below(100) as usize, &mut |output, batch| {
            outputs[output].extend(batch_to_rows(&batch));
            Ok(())
        })
        .unwrap();
        for (output, rows) in outputs.iter().enumerate() {
            let in_output = |time: i64| cuts.partition_point(|cut| *cut <= time) == output;
            let expected: Vec<_> = all.clone().into_iter().filter(|((_, _, time), _)| in_output(*time)).collect();
            assert_eq!(*rows, expected, "seed {seed}, output {output}");
        }
    }
}

#[track_caller]
fn check_corrupt(inputs: &[&[(Option<&str>, i64)]], batch_rows: usize, expected: &[&str]) {
    let schema = schema();
    let rows = |rows: &[(Option<&str>, i64)]| -> Vec<(Key, f64)> {
        rows.iter().map(|(a, time)| ((a.map(str::to_owned), None, *time), 1.0)).collect()
    };
    let inputs = inputs.iter().enumerate();
    let inputs = inputs.map(|(i, part)| input(&schema, &format!("shard-{i}"), &rows(part), batch_rows)).collect();
    let merged = merge(&schema, inputs, &[], 10, &mut |_, _| Ok(()));
    let Err(error @ StorageError::Corrupt { .. }) = merged else { panic!("{merged:?}") };
    expected.iter().for_each(|part| assert!(error.to_string().contains(part), "{error}"));
}

#[test]
fn a_key_in_two_inputs_and_rows_out_of_order_are_named() {
    for batch_rows in [1, 2, 10] {
        check_corrupt(
            &[&[(Some("a"), 1), (Some("b"), 5)], &[(None, 1), (Some("b"), 4), (Some("b"), 5)]],
            batch_rows,
            &["shard-0", "shard-1", "5 µs"],
        );
        check_corrupt(&[&[(Some("a"), 2), (Some("a"), 1)]], batch_rows, &["shard-0", "out of order"]);
        check_corrupt(&[&[(Some("a"), 1), (Some("a"), 1)]], batch_rows, &["shard-0", "twice"]);
        check_corrupt(&[&[(Some("a"), 1), (None, 2)]], batch_rows, &["shard-0", "out of order"]);
    }
}
