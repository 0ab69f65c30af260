//! Lines per second of one core: ours into batches, and the crate `influxdb-line-protocol` into its parsed lines; then
//! rows per second of the batches into log records and back.
//!
//! `cargo bench -p decode [-- FILE]`; FILE is line protocol (`iotgen gen`), else 200,000 lines like its are made
//! here. Each figure is the best of fifteen runs in turn, over bodies of 5,000 lines, as clients send them, and over the
//! whole.

use std::hint::black_box;

use decode::line_protocol::{Decoded, Options, Precision, parse};
use model::record::{self, encode_batch};
use model::{Clock, Rng, SplitMix64, SystemClock, TableBatch, TableId};

const LINES: usize = 200_000;
const BATCH_LINES: usize = 5_000;
const RUNS: usize = 7;
const PAIRS: usize = 15;

fn main() {
    // `cargo bench` passes `--bench`; `cargo test` passes nothing and wants to know only that this runs.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let file = arguments.iter().find(|argument| !argument.starts_with("--"));
    let text = match file {
        Some(path) => std::fs::read_to_string(path).expect("FILE is a readable text"),
        None => made(if is_bench { LINES } else { 100 }),
    };
    let lines = text.lines().count();
    println!("{lines} lines, {:.1} bytes a line", text.len() as f64 / lines as f64);
    let whole = [text.as_str()];
    let batches = cut(&text, BATCH_LINES);
    for (what, bodies) in [("one body", &whole[..]), ("bodies of 5,000 lines", &batches)] {
        let (mut of_ours, mut of_theirs, mut ratios) = (f64::INFINITY, f64::INFINITY, Vec::new());
        // In turn, so that whatever else the machine does meets both.
        for _ in 0..if is_bench { PAIRS } else { 1 } {
            let ours = best(1, || bodies.iter().map(|body| ours(body)).sum());
            let theirs = best(1, || bodies.iter().map(|body| theirs(body)).sum());
            (of_ours, of_theirs) = (of_ours.min(ours), of_theirs.min(theirs));
            ratios.push(theirs / ours);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "{what:24} ours {:6.2} M lines/s   influxdb-line-protocol {:6.2} M lines/s   x{:.1}, median of the pairs x{:.1}",
            lines as f64 / of_ours / 1e6,
            lines as f64 / of_theirs / 1e6,
            of_theirs / of_ours,
            ratios[ratios.len() / 2],
        );
    }

    let runs = if is_bench { RUNS } else { 1 };
    let decoded: Vec<TableBatch> = batches.iter().flat_map(|body| parsed(body).batches).collect();
    let mut records = vec![Vec::new(); decoded.len()];
    let encode = best(runs, || {
        for (batch, record) in decoded.iter().zip(&mut records) {
            record.clear();
            encode_batch(TableId([0; 16]), "bench", batch, record);
        }
        records.len()
    });
    let decode = best(runs, || records.iter().filter(|record| black_box(record::decode(record)).is_ok()).count());
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!(
        "records                  encode {:6.1} M rows/s   decode {:6.1} M rows/s   {:.1} bytes a row",
        lines as f64 / encode / 1e6,
        lines as f64 / decode / 1e6,
        bytes as f64 / lines as f64
    );
}

fn parsed(body: &str) -> Decoded {
    let options = Options { schema: "public", precision: Precision::Nanosecond, now_us: 0, errors_max: 10 };
    let decoded = black_box(parse(body.as_bytes(), &options));
    assert_eq!(decoded.errors_total, 0);
    decoded
}

fn ours(body: &str) -> usize {
    parsed(body).batches.iter().map(TableBatch::len).sum()
}

/// Only parses: the crate leaves it to its caller to tell series apart and to fill columns.
fn theirs(body: &str) -> usize {
    influxdb_line_protocol::parse_lines(body).filter(|line| black_box(line).is_ok()).count()
}

/// Seconds of the fastest run.
fn best(runs: usize, mut run: impl FnMut() -> usize) -> f64 {
    let clock = SystemClock::new();
    let times = (0..runs).map(|_| {
        let start = clock.monotonic();
        assert!(run() > 0);
        (clock.monotonic() - start).as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

fn cut(text: &str, lines: usize) -> Vec<&str> {
    let mut bodies = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.match_indices('\n').nth(lines - 1).map_or(rest.len(), |(at, _)| at + 1);
        bodies.push(&rest[..end]);
        rest = &rest[end..];
    }
    bodies
}

/// The shape of `iotgen`'s lines: 1,000 devices in turn, three tags, three floats in tenths.
fn made(lines: usize) -> String {
    use std::fmt::Write;
    let rng = SplitMix64::new(42);
    let mut text = String::new();
    for i in 0..lines {
        let device = i % 1000;
        let (t, p, h) = (rng.below(600), 9500 + rng.below(1000), rng.below(1000));
        let time = 1_780_272_000_000_000_000 + (i / 1000) as u64 * 10_000_000_000;
        writeln!(
            text,
            "env,device=dev-{device:04},firmware=1.5.{},site=site-{:02} temperature={}.{},pressure={}.{},humidity={}.{} {time}",
            device % 3,
            device / 50,
            t / 10,
            t % 10,
            p / 10,
            p % 10,
            h / 10,
            h % 10,
        )
        .expect("a String takes everything");
    }
    text
}
