//! Functions of time series over more rows than a batch has, against answers that are worked out here.

use std::collections::BTreeMap;

use model::{Rng, SplitMix64, Value};
use query::QueryError;

use crate::{DAY, Server};

const SECOND: i64 = 1_000_000;

/// By series and time, a value.
pub(crate) type Rows = BTreeMap<(String, i64), i64>;

/// A random number below `bound`.
pub(crate) fn below(rng: &SplitMix64, bound: u64) -> i64 {
    (rng.next_u64() % bound) as i64
}

/// Random rows, written in two halves: to shards, and to memory.
pub(crate) async fn write(
    server: &Server,
    table: &str,
    rng: &SplitMix64,
    count: usize,
    series: u64,
    seconds: u64,
) -> Rows {
    let mut rows = Rows::new();
    for round in 0..2 {
        let mut half = Rows::new();
        while half.len() < count / 2 {
            let key = (format!("s{}", below(rng, series)), DAY + below(rng, seconds) * SECOND);
            half.insert(key, below(rng, 1_000));
        }
        let fields: Vec<_> = half.values().map(|value| [("v", Value::I64(*value))]).collect();
        let readings: Vec<_> =
            half.keys().zip(&fields).map(|((sensor, time), fields)| (sensor.as_str(), *time, &fields[..])).collect();
        server.write(table, &readings).await;
        if round == 0 {
            server.refresh(table).await;
        }
        rows.extend(half);
    }
    rows
}

/// The seed of a test, which it prints; `EDEN_SEED` gives another.
#[expect(clippy::disallowed_methods, reason = "the seed of a test comes from whoever runs it")]
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("EDEN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("EDEN_SEED={seed}");
    seed
}

/// Seconds of the day.
pub(crate) fn since_start(time: i64) -> i64 {
    (time - DAY) / SECOND
}

#[tokio::test]
async fn the_last_row_of_each_series_is_the_same_in_all_words_for_it() {
    let server = Server::start();
    let rng = SplitMix64::new(seed());
    // More series than rows that lost are kept for, so that these are let go of.
    let rows = write(&server, "t", &rng, 60_000, 5_000, 40_000).await;
    let mut last: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut first: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for ((sensor, time), value) in &rows {
        last.insert(sensor, (since_start(*time), *value));
        first.entry(sensor).or_insert((since_start(*time), *value));
    }
    let lines = |of: &BTreeMap<&str, (i64, i64)>| -> Vec<String> {
        of.iter().map(|(sensor, (time, value))| format!("{sensor} {time} {value}")).collect()
    };
    let since = format!("CAST((arrow_cast(time, 'Int64') - {DAY}) / {SECOND} AS BIGINT)");
    let numbered = |order: &str, more: &str| {
        format!(
            "SELECT sensor, {since}, v FROM (SELECT *, row_number() OVER (PARTITION BY sensor ORDER BY time {order}{more}) AS n \
             FROM t) WHERE n = 1 ORDER BY sensor"
        )
    };
    let distinct = |order: &str| {
        format!(
            "SELECT sensor, {since}, v FROM (SELECT DISTINCT ON (sensor) sensor, time, v FROM t ORDER BY sensor, time {order}) \
             ORDER BY sensor"
        )
    };
    for (order, expected) in [("DESC", lines(&last)), ("ASC", lines(&first))] {
        let (fast, sorted) = (numbered(order, ""), numbered(order, ", v"));
        assert!(server.plan(&fast).await.contains("_row(") && !server.plan(&fast).await.contains("Window"), "{fast}");
        assert!(server.plan(&sorted).await.contains("BoundedWindowAggExec"), "{sorted}");
        assert!(server.plan(&distinct(order)).await.contains("_row("));
        for sql in [fast, sorted, distinct(order)] {
            assert!(server.query(&sql).await == expected, "{sql}");
        }
    }
    let values = format!(
        "SELECT sensor, {}, last(v, time) FROM t GROUP BY sensor ORDER BY sensor",
        since.replace("time", "max(time)")
    );
    assert!(server.query(&values).await == lines(&last));
}

#[tokio::test]
async fn an_as_of_join_finds_the_nearest_row_on_the_side_that_is_asked_for() {
    let server = Server::start();
    let rng = SplitMix64::new(seed());
    let left = write(&server, "l", &rng, 24_000, 7, 9_000).await;
    let right = write(&server, "r", &rng, 20_000, 6, 9_000).await;
    let text = |row: Option<(&(String, i64), &i64)>| {
        row.map_or("- -".into(), |(key, v)| format!("{} {v}", since_start(key.1)))
    };
    for op in [">=", ">", "<=", "<"] {
        let matched = |(sensor, time): &(String, i64)| {
            let key = |time: i64| (sensor.clone(), time);
            let mut before = right.range(key(i64::MIN)..key(*time + i64::from(op == ">="))).rev();
            let mut after = right.range(key(*time + i64::from(op == "<"))..key(i64::MAX));
            if op.starts_with('>') { before.next() } else { after.next() }
        };
        let expected: Vec<String> = left
            .iter()
            .map(|(key, v)| format!("{} {} {v} {}", key.0, since_start(key.1), text(matched(key))))
            .collect();
        let since = |column: &str| format!("(arrow_cast({column}, 'Int64') - {DAY}) / {SECOND}");
        let select = |kind: &str| {
            format!(
                "SELECT l.sensor, {}, l.v, {}, r.v FROM l ASOF {kind} JOIN r ON l.sensor = r.sensor AND l.time {op} r.time \
                 ORDER BY l.sensor, l.time",
                since("l.time"),
                since("r.time")
            )
        };
        assert!(server.query(&select("LEFT")).await == expected, "LEFT {op}");
        let inner: Vec<String> = expected.into_iter().filter(|line| !line.ends_with("- -")).collect();
        assert!(server.query(&select("")).await == inner, "INNER {op}");
    }
}

#[tokio::test]
async fn gaps_are_filled_over_many_batches() {
    let server = Server::start();
    let rng = SplitMix64::new(seed());
    let rows = write(&server, "t", &rng, 12_000, 20, 3_000).await;
    let mut expected = Vec::new();
    for sensor in rows.keys().map(|key| &key.0).collect::<std::collections::BTreeSet<_>>() {
        let of: BTreeMap<i64, i64> =
            rows.iter().filter(|(key, _)| key.0 == *sensor).map(|(key, v)| (since_start(key.1), *v)).collect();
        for second in -50..3_050 {
            let (before, after) = (of.range(..=second).next_back(), of.range(second..).next());
            let line = match (before, after) {
                (Some((a, x)), Some((b, y))) if a < b => {
                    format!("{:.6}", *x as f64 + (y - x) as f64 * (second - a) as f64 / (b - a) as f64)
                }
                (Some((_, x)), Some(_)) => format!("{x}.000000"),
                _ => "-".into(),
            };
            let (exact, carried) = (of.get(&second), before.map(|(_, value)| value));
            let text = |value: Option<&i64>| value.map_or("-".to_owned(), i64::to_string);
            expected.push(format!("{sensor} {second} {} {} {line}", text(exact), text(carried)));
        }
    }
    let sql = format!(
        "SELECT sensor, (arrow_cast(b, 'Int64') - {DAY}) / {SECOND}, v, c, arrow_cast(arrow_cast(i, 'Decimal128(20, 6)'), 'Utf8') FROM ( \
         SELECT sensor, time_bucket_gapfill('1s', time) AS b, max(v) AS v, locf(max(v)) AS c, interpolate(max(v)) AS i FROM t \
         WHERE time >= TIMESTAMP '2024-04-30T23:59:10Z' AND time < TIMESTAMP '2024-05-01T00:50:50Z' GROUP BY sensor, b) \
         ORDER BY sensor, b"
    );
    let found = server.query(&sql).await;
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let split = |line: &str| line.rsplit_once(' ').map(|(head, line)| (head.to_owned(), line.parse::<f64>().ok()));
        let (Some((a, x)), Some((b, y))) = (split(found), split(expected)) else { panic!("{found}") };
        let is_near = match (x, y) {
            (Some(x), Some(y)) => (x - y).abs() < 2e-6,
            (x, y) => x == y,
        };
        assert!(a == b && is_near, "{found} and {expected}");
    }
}

#[tokio::test]
async fn an_aggregate_that_keeps_all_points_ends_at_the_limit_of_memory() {
    let server = Server::with(|config| config.memory_bytes_max = 8 << 20);
    let rng = SplitMix64::new(seed());
    let rows = write(&server, "t", &rng, 20_000, 1, 4_000_000).await;
    let many = "(SELECT a.time + arrow_cast(b.i * 1000, 'Duration(µs)') AS time, a.v FROM t a CROSS JOIN generate_series(1, 60) AS b(i))";
    for call in ["rate(v, time)", "lttb(time, v, 10)"] {
        match server.error(&format!("SELECT {call} FROM {many}")).await {
            QueryError::MemoryLimit { .. } => {}
            other => panic!("{call}: {other}"),
        }
    }
    assert_eq!(server.query("SELECT count(*) FROM t").await, [rows.len().to_string()]);
}
