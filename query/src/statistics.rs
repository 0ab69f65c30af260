//! What the Delta log says of a shard, as DataFusion wants to hear it.
//!
//! Owns:     which numbers may be taken for the truth and which only for bounds.
//! Does not: read files, or decide which shards a query needs (`pruning` does).
//!
//! Invariants
//!  1. `Exact` is given only for what may answer a query in place of the rows: `count(*)`, `min(time)`.
//!  2. `Inexact` ranges still hold every value of the shard, so a shard may be left out because of them.

use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use model::{FieldType, decimal};
use serde_json::Value;
use storage::{Column, ColumnKind, ColumnStats, Shard, ShardView, TableSchema};

/// Rows of a shard that a query sees.
pub(crate) fn visible_rows(view: &ShardView) -> usize {
    usize::try_from(view.shard.rows).unwrap_or(usize::MAX).saturating_sub(view.masked.len())
}

/// Units of decimals from here on have more digits than a double holds for sure.
const KNOWN_UNITS_END: f64 = 1e15;

/// Statistics of `view` for a scan of the columns `projection` (all if `None`); others stay unknown.
pub(crate) fn of_shard(view: &ShardView, schema: &TableSchema, projection: Option<&[usize]>) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema.arrow());
    statistics.num_rows = Precision::Exact(visible_rows(view));
    statistics.total_byte_size = Precision::Inexact(usize::try_from(view.shard.bytes).unwrap_or(usize::MAX));
    let wanted = |index: &usize| projection.is_none_or(|projection| projection.contains(index));
    for index in (0..schema.columns().len()).filter(wanted) {
        statistics.column_statistics[index] = of_column(view, &schema.columns()[index]);
    }
    statistics
}

fn of_column(view: &ShardView, column: &Column) -> ColumnStatistics {
    let mut statistics = ColumnStatistics::new_unknown();
    statistics.null_count = null_count(view, column).map_or(Precision::Absent, Precision::Exact);
    if let Some(range) = range(&view.shard, column) {
        let precision = |value| {
            let exact = range.occur && view.masked.is_empty();
            if exact { Precision::Exact(value) } else { Precision::Inexact(value) }
        };
        statistics.min_value = precision(range.min);
        statistics.max_value = precision(range.max);
    }
    statistics
}

/// Rows that a query sees without a value, where known.
pub(crate) fn null_count(view: &ShardView, column: &Column) -> Option<usize> {
    let rows = usize::try_from(view.shard.rows).ok()?;
    let nulls = match column.kind {
        ColumnKind::Time => 0,
        ColumnKind::Tag | ColumnKind::Field(_) => {
            usize::try_from(column_stats(&view.shard, &column.name)?.null_count).ok()?
        }
    };
    // Of some nulls nobody knows how many are masked.
    match nulls {
        0 => Some(0),
        all if all == rows => Some(visible_rows(view)),
        some => view.masked.is_empty().then_some(some),
    }
}

/// Where the values of a column lie, both ends included.
pub(crate) struct ValueRange {
    pub(crate) min: ScalarValue,
    pub(crate) max: ScalarValue,
    /// Both ends are values of the shard, not only bounds.
    pub(crate) occur: bool,
}

/// The range of a column in a shard, masked rows included, where known.
pub(crate) fn range(shard: &Shard, column: &Column) -> Option<ValueRange> {
    let from_log = |convert: &dyn Fn(&Value, End) -> Option<ScalarValue>, occur| {
        let (min, max) = column_stats(shard, &column.name)?.range.as_ref()?;
        Some(ValueRange { min: convert(min, End::Min)?, max: convert(max, End::Max)?, occur })
    };
    match column.kind {
        // Not from the log's JSON, which readers and writers of Delta keep to the millisecond.
        ColumnKind::Time => {
            Some(ValueRange { min: time(shard.time_min_us), max: time(shard.time_max_us), occur: true })
        }
        ColumnKind::Tag | ColumnKind::Field(FieldType::Text) => from_log(&text, false),
        // JSON's decimal text may not come back as the same bits.
        ColumnKind::Field(FieldType::F64) => from_log(&float, false),
        ColumnKind::Field(FieldType::I64) => from_log(&|json: &Value, _: End| Some(json.as_i64()?.into()), true),
        ColumnKind::Field(FieldType::U64) => from_log(&unsigned, true),
        ColumnKind::Field(FieldType::Decimal { digits, scale }) => {
            let exact = from_log(&|json, _| decimal(json, digits, scale), true);
            exact.or_else(|| from_log(&|json, end| long_decimal(json, digits, scale, end), false))
        }
        ColumnKind::Field(FieldType::Bool) => from_log(&|json: &Value, _: End| Some(json.as_bool()?.into()), true),
    }
}

#[derive(Clone, Copy)]
enum End {
    Min,
    Max,
}

fn column_stats<'a>(shard: &'a Shard, name: &str) -> Option<&'a ColumnStats> {
    shard.columns.iter().find(|(column, _)| **column == *name).map(|(_, stats)| stats)
}

fn time(us: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))
}

fn text(json: &Value, _: End) -> Option<ScalarValue> {
    Some(ScalarValue::Utf8View(Some(json.as_str()?.to_owned())))
}

/// One step outwards: `serde_json` may be off by one in the last place.
fn float(json: &Value, end: End) -> Option<ScalarValue> {
    let value = json.as_f64().filter(|value| value.is_finite())?;
    Some(ScalarValue::from(match end {
        End::Min => value.next_down(),
        End::Max => value.next_up(),
    }))
}

fn unsigned(json: &Value, _: End) -> Option<ScalarValue> {
    let value = json.as_u64().or_else(|| json.as_str()?.parse().ok())?;
    Some(ScalarValue::Decimal128(Some(value.into()), 20, 0))
}

/// Up to fifteen digits are known by the double that `serde_json` makes of them.
fn decimal(json: &Value, digits: u8, scale: u8) -> Option<ScalarValue> {
    let value = json.as_f64().filter(|value| scaled(*value, scale).abs() < KNOWN_UNITS_END)?;
    Some(decimal_of(decimal::units_of_f64(value, scale)?.into(), digits, scale))
}

/// Of more digits only a bound: the double, and the product with the power of ten, are off by at most 2^-52 of it each.
fn long_decimal(json: &Value, digits: u8, scale: u8, end: End) -> Option<ScalarValue> {
    if let Some(known) = decimal(json, digits, scale) {
        return Some(known);
    }
    let units = Some(scaled(json.as_f64()?, scale)).filter(|units| units.abs() >= KNOWN_UNITS_END)? as i128;
    let off = units.abs() / (1 << 50) + 1;
    let most = i128::from(decimal::units_end(digits)) - 1;
    let bound = match end {
        End::Min => units - off,
        End::Max => units + off,
    };
    // Nothing has more digits, so what is cut off here bounds nothing.
    Some(decimal_of(bound.clamp(-most, most), digits, scale))
}

fn scaled(value: f64, scale: u8) -> f64 {
    value * 10_f64.powi(scale.into())
}

fn decimal_of(units: i128, digits: u8, scale: u8) -> ScalarValue {
    ScalarValue::Decimal128(Some(units), digits, scale as i8)
}

/// Statistics of a scan of all of `shards`.
pub(crate) fn of_all(shards: &[std::sync::Arc<Statistics>], schema: &SchemaRef) -> Statistics {
    // Shards of one table have as many columns as the table, so merging cannot fail; unknown is always right.
    Statistics::try_merge_iter(shards.iter().map(AsRef::as_ref), schema)
        .unwrap_or_else(|_| Statistics::new_unknown(schema))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use model::{NodeEpoch, NodeId, Position};
    use serde_json::json;

    use super::*;

    /// A column: its name, its rows without a value, its range.
    pub(crate) type Known<'a> = (&'a str, u64, Option<(Value, Value)>);

    /// A shard of 10 rows, `masked` of them replaced by rows in memory, with these statistics.
    pub(crate) fn view(columns: &[Known<'_>], masked: &[u32]) -> ShardView {
        let columns = columns
            .iter()
            .map(|(name, null_count, range)| {
                (Arc::from(*name), ColumnStats { null_count: *null_count, range: range.clone() })
            })
            .collect();
        let position = Position { counter: 1, node: NodeId(1), epoch: NodeEpoch(1), offset: 0 };
        let shard = Shard {
            path: "public/t/eden_day=1970-01-01/a.parquet".into(),
            bytes: 1000,
            rows: 10,
            day: 0,
            time_min_us: 100,
            time_max_us: 200,
            columns,
            position_min: position,
            position_max: position,
            checksums: None,
        };
        ShardView { shard: Arc::new(shard), masked: masked.into() }
    }

    pub(crate) fn schema() -> TableSchema {
        let field = |name: &str, kind| (Arc::from(name), kind);
        TableSchema::new(
            &["tag".into()],
            &[
                field("f", FieldType::F64),
                field("i", FieldType::I64),
                field("u", FieldType::U64),
                field("b", FieldType::Bool),
                field("s", FieldType::Text),
                field("d", FieldType::decimal(1)),
            ],
        )
    }

    fn all() -> Vec<Known<'static>> {
        vec![
            ("tag", 0, Some((json!("a"), json!("b")))),
            ("f", 10, Some((json!(0.1), json!(0.3)))),
            ("i", 3, Some((json!(-5), json!(7)))),
            ("u", 0, Some((json!(1), json!(u64::MAX)))),
            ("b", 0, Some((json!(false), json!(true)))),
            ("d", 0, Some((json!(-0.3), json!(21.5)))),
        ]
    }

    fn shown(view: &ShardView) -> Vec<String> {
        let schema = schema();
        let statistics = of_shard(view, &schema, None);
        let column = |(name, column): (&Column, &ColumnStatistics)| {
            format!("{} {:?} {:?} {:?}", name.name, column.null_count, column.min_value, column.max_value)
        };
        schema.columns().iter().zip(&statistics.column_statistics).map(column).collect()
    }

    #[test]
    fn only_what_is_certain_is_exact() {
        assert_eq!(
            shown(&view(&all(), &[])),
            [
                r#"tag Exact(0) Inexact(Utf8View("a")) Inexact(Utf8View("b"))"#,
                r"f Exact(10) Inexact(Float64(0.09999999999999999)) Inexact(Float64(0.30000000000000004))",
                r"i Exact(3) Exact(Int64(-5)) Exact(Int64(7))",
                r"u Exact(0) Exact(Decimal128(1,20,0)) Exact(Decimal128(18446744073709551615,20,0))",
                r"b Exact(0) Exact(Boolean(false)) Exact(Boolean(true))",
                r"s Absent Absent Absent",
                r"d Exact(0) Exact(Decimal128(-0.3,18,1)) Exact(Decimal128(21.5,18,1))",
                r#"time Exact(0) Exact(TimestampMicrosecond(100, Some("UTC"))) Exact(TimestampMicrosecond(200, Some("UTC")))"#,
            ]
        );
    }

    #[test]
    fn a_mask_leaves_bounds_and_the_number_of_rows() {
        let masked = view(&all(), &[2, 3]);
        assert_eq!(of_shard(&masked, &schema(), None).num_rows, Precision::Exact(8));
        let shown = shown(&masked);
        assert_eq!(shown[1].split(' ').nth(1), Some("Exact(8)"), "all are null still");
        assert_eq!(shown[2], "i Absent Inexact(Int64(-5)) Inexact(Int64(7))");
        assert!(shown[7].starts_with("time Exact(0) Inexact("), "{}", shown[7]);
    }

    #[test]
    fn json_of_another_type_is_no_statistic() {
        let odd = [
            ("tag", 0, Some((json!(1), json!(2)))),
            ("f", 0, Some((json!("x"), json!(2)))),
            ("i", 0, Some((json!(1.5), json!(2)))),
            ("u", 0, Some((json!("18446744073709551615"), json!("18446744073709551615")))),
            ("b", 0, Some((json!(null), json!(true)))),
            ("d", 0, Some((json!(0.25), json!(1)))),
        ];
        let shown = shown(&view(&odd, &[]));
        for (index, absent) in [(0, true), (1, true), (2, true), (3, false), (4, true), (6, true)] {
            assert_eq!(shown[index].ends_with("Exact(0) Absent Absent"), absent, "{}", shown[index]);
        }
    }

    #[test]
    fn bounds_of_decimals_with_many_digits_hold_them_and_are_only_bounds() {
        let d = |min: Value, max: Value| shown(&view(&[("d", 0, Some((min, max)))], &[]))[6].clone();
        let exact = d(json!(-0.3), json!(99_999_999_999_999.9));
        assert_eq!(exact, "d Exact(0) Exact(Decimal128(-0.3,18,1)) Exact(Decimal128(99999999999999.9,18,1))");
        // As the log has them: -100000000000000.3, 12345678901234567.8 and the largest there is.
        let numbers = ["-100000000000000.3", "12345678901234567.8", "99999999999999999.9"];
        let [low, long, most] = numbers.map(|text| serde_json::from_str::<Value>(text).unwrap());
        let min_of = |text: &str| text.split("Decimal128(").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let max_of = |text: &str| text.split("Decimal128(").nth(2).unwrap().split(',').next().unwrap().to_owned();
        let shown = d(low, long);
        assert!(shown.contains("Inexact(Decimal128(-100000000000000.4,18,1)) Inexact("), "{shown}");
        let off = max_of(&shown).replace('.', "").parse::<i64>().unwrap() - 123_456_789_012_345_678;
        assert!((1..300).contains(&off), "{shown}");
        let shown = d(json!(0.3), most);
        assert_eq!((&*min_of(&shown), &*max_of(&shown)), ("0.3", "99999999999999999.9"));
        assert!(shown.contains("Inexact(Decimal128(0.3"), "{shown}");
    }

    #[test]
    fn a_scan_of_some_columns_knows_only_those() {
        let statistics = of_shard(&view(&all(), &[]), &schema(), Some(&[2]));
        assert_eq!(statistics.column_statistics[3], ColumnStatistics::new_unknown());
        assert_eq!(statistics.column_statistics[2].null_count, Precision::Exact(3));
    }
}
