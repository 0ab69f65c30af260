use super::*;
use crate::{Rng, SplitMix64};

/// Values by column, `-` where a row has none.
fn shown(batch: &TableBatch) -> String {
    batch.assert_sound();
    let mut lines = Vec::new();
    for field in &batch.fields {
        let values = (0..batch.len()).map(|row| match (field.valid.get(row), field.values.get(row)) {
            (false, _) => "-".to_owned(),
            (true, Value::F64(value)) => value.to_string(),
            (true, Value::I64(value)) => value.to_string(),
            (true, Value::U64(value)) => value.to_string(),
            (true, Value::Bool(value)) => value.to_string(),
            (true, Value::Text(value)) => format!("{value:?}"),
            (true, Value::Decimal { units, scale }) => decimal::Decimal { units, scale }.to_string(),
        });
        lines.push(format!("{}={}", field.name, values.collect::<Vec<_>>().join(" ")));
    }
    lines.join("; ")
}

fn batch() -> TableBatch {
    TableBatch::new(TableName::public("t"))
}

fn key(device: &str) -> SeriesKey {
    SeriesKey::from_tags([("device", device)])
}

#[test]
fn rows_without_a_field_are_absent_before_between_and_after_its_values() {
    let mut batch = batch();
    let series = batch.intern_series(key("a"));
    let x = batch.field_column("x", FieldType::F64);
    batch.push_row(series, 1, 1, &[(x, Value::F64(1.0))]);
    let y = batch.field_column("y", FieldType::Text);
    batch.push_row(series, 2, 2, &[(y, Value::Text("é"))]);
    batch.push_row(series, 3, 3, &[]);
    batch.push_row(series, 4, 4, &[(x, Value::F64(4.0)), (y, Value::Text(""))]);
    assert_eq!(shown(&batch), r#"x=1 - - 4; y=- "é" - """#);
}

#[test]
fn of_two_values_for_one_column_the_later_counts() {
    let mut batch = batch();
    let series = batch.intern_series(key("a"));
    let x = batch.field_column("x", FieldType::Text);
    batch.push_row(series, 1, 1, &[(x, Value::Text("long")), (x, Value::Text("s"))]);
    batch.push_row(series, 2, 2, &[(x, Value::Text("next"))]);
    assert_eq!(shown(&batch), r#"x="s" "next""#);
}

#[test]
fn one_name_may_have_columns_of_several_types() {
    let mut batch = batch();
    let (float, integer) = (batch.field_column("x", FieldType::F64), batch.field_column("x", FieldType::I64));
    assert_ne!(float, integer);
    assert_eq!(batch.field_column("x", FieldType::F64), float);
}

#[test]
fn a_series_is_interned_once() {
    let mut batch = batch();
    assert_eq!(batch.intern_series(key("a")), 0);
    assert_eq!(batch.intern_series(key("b")), 1);
    assert_eq!(batch.intern_series(key("a")), 0);
    assert_eq!(batch.series, [key("a"), key("b")]);
}

#[test]
fn filter_keeps_the_chosen_rows_and_drops_empty_columns_and_series() {
    let mut batch = batch();
    let (a, b) = (batch.intern_series(key("a")), batch.intern_series(key("b")));
    let x = batch.field_column("x", FieldType::Bool);
    let y = batch.field_column("y", FieldType::U64);
    batch.push_row(a, 1, 10, &[(x, Value::Bool(true))]);
    batch.push_row(b, 2, 20, &[(y, Value::U64(7))]);
    batch.push_row(b, 3, 30, &[(y, Value::U64(8))]);
    let kept = batch.filter(|row| row > 0);
    assert_eq!(shown(&kept), "y=7 8");
    assert_eq!(kept.series, [key("b")]);
    assert_eq!(kept.lines, [20, 30]);
    assert_eq!(batch.filter(|_| true), batch);
    assert!(batch.filter(|_| false).is_empty());
}

#[test]
#[should_panic(expected = "a boolean in a column of float")]
fn a_value_of_another_type_than_its_column_panics() {
    let mut batch = batch();
    let series = batch.intern_series(key("a"));
    let x = batch.field_column("x", FieldType::F64);
    batch.push_row(series, 1, 1, &[(x, Value::Bool(true))]);
}

/// The two ways to build a batch, fed the same seeded rows.
#[test]
fn a_builder_and_pushed_rows_make_equal_batches() {
    for seed in 0..200 {
        let rng = SplitMix64::new(seed);
        let names = ["a", "b", "c", "d"];
        let texts = ["", "x", "déjà", "long enough to be worth a copy"];
        let mut pushed = batch();
        let mut builder = BatchBuilder::new(TableName::public("t"));
        for row in 0..rng.below(200) {
            let device = names[rng.below(4) as usize];
            let series = pushed.intern_series(key(device));
            assert_eq!(builder.intern_series(key(device)), series);
            builder.start_row(series, row as i64, row as u32);
            let mut fields = Vec::new();
            for _ in 0..rng.below(4) {
                let value = match rng.below(6) {
                    0 => Value::F64(rng.below(100) as f64),
                    1 => Value::I64(-(rng.below(100) as i64)),
                    2 => Value::U64(rng.next_u64()),
                    3 => Value::Bool(rng.below(2) == 1),
                    4 => Value::Decimal { units: rng.below(100) as i64 - 50, scale: rng.below(2) as u8 },
                    _ => Value::Text(texts[rng.below(4) as usize]),
                };
                let name = names[rng.below(4) as usize];
                let column = pushed.field_column(name, value.field_type());
                assert_eq!(builder.field_column(name, value.field_type()), column);
                builder.set(column, value);
                fields.push((column, value));
            }
            pushed.push_row(series, row as i64, row as u32, &fields);
        }
        let built = builder.finish();
        built.assert_sound();
        assert_eq!(built, pushed, "seed {seed}");
    }
}

#[test]
fn booleans_survive_the_way_to_bits_and_back() {
    for len in [0, 1, 63, 64, 65, 200] {
        let rng = SplitMix64::new(len);
        let values: Vec<bool> = (0..len).map(|_| rng.below(2) == 1).collect();
        assert_eq!(bools_of_bits(&bits_of_bools(&values), values.len()), Some(values));
    }
    assert_eq!(bools_of_bits(&[2], 1), None);
    assert_eq!(bools_of_bits(&[0, 0], 64), None);
}

#[test]
fn validity_made_at_once_equals_validity_made_by_rows() {
    for len in [0, 1, 63, 64, 65, 200] {
        let mut by_rows = Validity::new();
        (0..len).for_each(|_| by_rows.push(true));
        assert_eq!(Validity::present(len), by_rows);
        assert_eq!(Validity::from_words(by_rows.words().to_vec(), len), Some(by_rows));
    }
}

#[test]
fn validity_of_many_rows_is_what_its_rows_are() {
    let all = Validity::present(300);
    let mut some = Validity::new();
    (0..300).for_each(|row| some.push(row % 7 != 3));
    for before in [0, 1, 63, 64, 65, 130] {
        for range in [0..0, 0..1, 5..64, 63..300, 100..228] {
            for other in [&all, &some] {
                let (mut at_once, mut by_rows) = (Validity::present(before), Validity::present(before));
                at_once.extend_from(other, range.clone());
                range.clone().for_each(|row| by_rows.push(other.get(row)));
                assert_eq!(at_once, by_rows, "{before} {range:?}");
            }
        }
    }
}
