//! The newest of each series without reading the older rows, and groups that come in runs.

use std::collections::BTreeMap;

use model::{SplitMix64, Value};
use query::QueryError;

use crate::series::{below, seed, since_start, write};
use crate::{DAY, Server};

const SECOND: i64 = 1_000_000;
const SENSORS: u64 = 6;
const SECONDS: u64 = 400;

/// Two fields, each there or not.
type Fields = [Option<i64>; 2];
/// By sensor and time.
type Model = BTreeMap<(String, i64), Fields>;

/// The newest value of each field and the newest time, of each sensor that has a row which passes.
fn newest(model: &Model, passes: impl Fn(&str, i64, &Fields) -> bool) -> Vec<String> {
    let mut found: BTreeMap<&str, (Fields, i64)> = BTreeMap::new();
    for ((sensor, time), fields) in model.iter().filter(|((sensor, time), fields)| passes(sensor, *time, fields)) {
        let (values, newest) = found.entry(sensor).or_default();
        for (value, field) in values.iter_mut().zip(fields) {
            *value = field.or(*value);
        }
        *newest = *time;
    }
    let text = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
    let line = |(sensor, ([a, b], time)): (&&str, &(Fields, i64))| {
        format!("{sensor} {} {} {}", text(*a), text(*b), since_start(*time))
    };
    found.iter().map(line).collect()
}

async fn write_some(server: &Server, rng: &SplitMix64, model: &mut Model) {
    let mut rows = Model::new();
    for _ in 0..1 + below(rng, 60) {
        let key = (format!("s{}", below(rng, SENSORS)), DAY + below(rng, SECONDS) * SECOND);
        let field = || (below(rng, 3) > 0).then(|| below(rng, 100));
        let fields = match [field(), field()] {
            [None, None] => [Some(0), None],
            fields => fields,
        };
        rows.insert(key, fields);
    }
    let named = |fields: &Fields| -> Vec<(&'static str, Value<'static>)> {
        ["a", "b"].into_iter().zip(fields).filter_map(|(name, value)| Some((name, Value::I64((*value)?)))).collect()
    };
    let fields: Vec<_> = rows.values().map(named).collect();
    let readings: Vec<_> =
        rows.keys().zip(&fields).map(|((sensor, time), fields)| (sensor.as_str(), *time, &fields[..])).collect();
    server.write("t", &readings).await;
    for (key, fields) in rows {
        let kept = model.entry(key).or_default();
        for (kept, field) in kept.iter_mut().zip(fields) {
            *kept = field.or(*kept);
        }
    }
}

#[tokio::test]
async fn the_newest_of_each_series_is_found_whatever_was_written_corrected_and_removed() {
    let server = Server::start();
    let rng = SplitMix64::new(seed());
    let mut model = Model::new();
    // The columns are there from the first row on.
    server.write("t", &[("s0", DAY, &[("a", Value::I64(1)), ("b", Value::I64(2))])]).await;
    model.insert(("s0".to_owned(), DAY), [Some(1), Some(2)]);
    for step in 0..60 {
        match below(&rng, 10) {
            0..6 => write_some(&server, &rng, &mut model).await,
            6 | 7 => server.refresh("t").await,
            8 => {
                let (sensor, from) = (format!("s{}", below(&rng, SENSORS)), below(&rng, SECONDS));
                let statement = format!(
                    "DELETE FROM t WHERE sensor = '{sensor}' AND time >= arrow_cast({}, 'Timestamp(µs, \"UTC\")')",
                    DAY + from * SECOND
                );
                server.change(&statement).await.unwrap();
                model.retain(|(of, time), _| *of != sensor || since_start(*time) < from);
            }
            _ => {
                let sensor = format!("s{}", below(&rng, SENSORS));
                server.change(&format!("UPDATE t SET a = 7 WHERE sensor = '{sensor}'")).await.unwrap();
                model.iter_mut().filter(|((of, _), _)| *of == sensor).for_each(|(_, fields)| fields[0] = Some(7));
            }
        }
        let from = below(&rng, SECONDS);
        let time = |seconds: i64| format!("arrow_cast({}, 'Timestamp(µs, \"UTC\")')", DAY + seconds * SECOND);
        let since = format!("CAST((arrow_cast(max(time), 'Int64') - {DAY}) / {SECOND} AS BIGINT)");
        let ask = |condition: &str| {
            format!(
                "SELECT sensor, last(a, time), last(b, time), {since} FROM t WHERE {condition} GROUP BY sensor ORDER BY sensor"
            )
        };
        let all = newest(&model, |_, _, _| true);
        assert_eq!(server.query(&ask("true")).await, all, "step {step}");
        // The second time from what the first one kept.
        assert_eq!(server.query(&ask("true")).await, all, "step {step}, again");
        let others = ask("sensor <> 's1'");
        assert_eq!(server.query(&others).await, newest(&model, |sensor, _, _| sensor != "s1"), "step {step}");
        let late = ask(&format!("time >= {}", time(from)));
        assert_eq!(server.query(&late).await, newest(&model, |_, at, _| since_start(at) >= from), "step {step}");
        // These need older rows.
        let early = ask(&format!("time < {}", time(from)));
        assert_eq!(server.query(&early).await, newest(&model, |_, at, _| since_start(at) < from), "step {step}");
        let high = ask("a > 50");
        assert_eq!(server.query(&high).await, newest(&model, |_, _, fields| fields[0] > Some(50)), "step {step}");
        let whole = "SELECT sensor, a, b FROM (SELECT DISTINCT ON (sensor) * FROM t ORDER BY sensor, time DESC) ORDER BY sensor";
        let rows: BTreeMap<&str, &Fields> = model.iter().map(|((sensor, _), fields)| (&**sensor, fields)).collect();
        let text = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
        let rows: Vec<_> = rows.iter().map(|(sensor, [a, b])| format!("{sensor} {} {}", text(*a), text(*b))).collect();
        assert_eq!(server.query(whole).await, rows, "step {step}");
    }
}

#[tokio::test]
async fn shards_are_read_once_for_the_newest_and_again_for_anything_else() {
    let server = Server::start();
    let rng = SplitMix64::new(seed());
    write(&server, "t", &rng, 20_000, 20, 40_000).await;
    server.refresh("t").await;
    for (sql, is_kept) in [
        ("SELECT sensor, last(v, time) FROM t GROUP BY sensor", true),
        ("SELECT sensor, max(time) FROM t WHERE sensor IN ('s1', 's2') GROUP BY sensor", true),
        ("SELECT last(v, time) FROM t WHERE time > '2024-05-01T00:10:00Z'", true),
        ("SELECT DISTINCT ON (sensor) * FROM t ORDER BY sensor, time DESC", true),
        (
            "SELECT sensor, v FROM (SELECT *, row_number() OVER (PARTITION BY sensor ORDER BY time DESC) n FROM t) WHERE n = 1",
            true,
        ),
        ("SELECT sensor, last(v, time) FROM t WHERE time < '2024-05-01T00:10:00Z' GROUP BY sensor", false),
        ("SELECT sensor, last(v, time) FROM t WHERE v > 10 GROUP BY sensor", false),
        ("SELECT sensor, last(v + 0, time) FROM t GROUP BY sensor", false),
        ("SELECT sensor, last(v, time) FILTER (WHERE v > 10) FROM t GROUP BY sensor", false),
        ("SELECT sensor, last(v, time), count(*) FROM t GROUP BY sensor", false),
        ("SELECT v, last(sensor, time) FROM t GROUP BY v", false),
        ("SELECT sensor, last(v, v) FROM t GROUP BY sensor", false),
        ("SELECT sensor, first(v, time) FROM t GROUP BY sensor", false),
    ] {
        server.query(sql).await;
        let plan = server.plan(sql).await;
        assert_eq!(!plan.contains(".parquet"), is_kept, "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn groups_are_the_same_whether_their_rows_come_in_runs_or_not() {
    for memory in [256 << 20, 24 << 20] {
        let server = Server::with(|config| config.memory_bytes_max = memory);
        let rng = SplitMix64::new(seed());
        let rows = write(&server, "t", &rng, 60_000, 40, 4_000).await;
        server.refresh("t").await;
        // Half of them again, in memory: they replace rows of the shard.
        let again: Vec<_> =
            rows.iter().step_by(2).map(|((sensor, time), v)| (sensor, *time, [("v", Value::I64(*v))])).collect();
        let again: Vec<_> = again.iter().map(|(sensor, time, fields)| (sensor.as_str(), *time, &fields[..])).collect();
        server.write("t", &again[..again.len() / 2]).await;
        // Long runs, runs of a few rows, none.
        for seconds in [1_000, 20, 1] {
            let mut expected: BTreeMap<(&str, i64), (i64, i64, i64)> = BTreeMap::new();
            for ((sensor, time), v) in &rows {
                let group = expected.entry((sensor, since_start(*time) / seconds)).or_insert((0, 0, i64::MIN));
                *group = (group.0 + 1, group.1 + v, group.2.max(*v));
            }
            let expected: Vec<String> = expected
                .iter()
                .map(|((sensor, bucket), (count, sum, max))| format!("{sensor} {bucket} {count} {sum} {max}"))
                .collect();
            let sql = format!(
                "SELECT sensor, (arrow_cast(time, 'Int64') - {DAY}) / {} AS bucket, count(*), sum(v), max(v) FROM t \
                 GROUP BY sensor, bucket ORDER BY sensor, bucket",
                seconds * SECOND
            );
            assert!(server.plan(&sql).await.contains("RunAggregateExec"), "{sql}");
            assert!(server.query(&sql).await == expected, "{seconds} s, {memory} bytes");
        }
        // Values that are missing are a group too, and conditions of a result count.
        server.write("t", &[("s0", DAY - SECOND, &[("w", Value::I64(1))])]).await;
        let sql = "SELECT v IS NULL, count(*), count(*) FILTER (WHERE sensor = 's0') FROM t GROUP BY 1 ORDER BY 1";
        let of_s0 = rows.keys().filter(|(sensor, _)| sensor == "s0").count();
        assert_eq!(server.query(sql).await, [format!("false {} {of_s0}", rows.len()), "true 1 1".to_owned()]);
    }
}

#[tokio::test]
async fn more_groups_than_memory_has_room_for_are_spilled_or_refused_by_name() {
    let server = Server::with(|config| config.memory_bytes_max = 4 << 20);
    let rng = SplitMix64::new(seed());
    let rows = write(&server, "t", &rng, 60_000, 40, 4_000).await;
    server.refresh("t").await;
    let sql = "SELECT count(*) FROM (SELECT sensor, time, max(v) FROM t GROUP BY sensor, time)";
    match server.start_rows(sql).await {
        Ok(found) => match crate::collect(found).await {
            Ok(found) => assert_eq!(found, [rows.len().to_string()]),
            Err(error) => assert!(matches!(error, QueryError::MemoryLimit { .. }), "{error}"),
        },
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_calendar_is_the_same_with_and_without_a_zone() {
    let server = Server::start();
    let times: Vec<i64> = (-80..0).map(|n| DAY + n * 7_654_321_987_654).collect();
    let readings: Vec<_> = times.iter().map(|time| ("s", *time, &[("v", Value::I64(1))][..])).collect();
    server.write("t", &readings).await;
    for part in ["second", "minute", "hour", "day", "week", "month", "quarter", "year"] {
        let plain = "arrow_cast(time, 'Timestamp(µs)')";
        let sql = format!(
            "SELECT count(*) FROM t WHERE arrow_cast(date_trunc('{part}', time), 'Timestamp(µs)') <> date_trunc('{part}', {plain}) \
             OR date_part('{part}', time) <> date_part('{part}', {plain})"
        );
        assert_eq!(server.query(&sql).await, ["0"], "{part}");
        let sql = format!("SELECT DISTINCT arrow_typeof(date_trunc('{part}', time)) FROM t");
        assert_eq!(server.query(&sql).await, ["Timestamp(µs, \"UTC\")"], "{part}");
    }
    // Of another zone, as before.
    let sql =
        "SELECT date_part('hour', arrow_cast(arrow_cast(0, 'Timestamp(µs, \"UTC\")'), 'Timestamp(µs, \"+02:00\")'))";
    assert_eq!(server.query(sql).await, ["2"]);
}
