//! Many small tables that grow slowly: what keeping them costs, and how soon they are back after a kill.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use harness::{Eden, Outcome as WriteOutcome, cpu, wait};

use super::report::Report;
use super::{Scratch, bytes_below, metric};
use crate::{Failure, Outcome};

const TABLES: usize = 1_000;
const SECONDS: usize = 600;
/// 2026-06-01T00:00:00Z.
const START_S: i64 = 1_780_272_000;
const SHARE_MAX: f64 = 0.10;
const LOG_MAX: u64 = 1 << 30;
const RESTART_MAX: Duration = Duration::from_secs(10);

/// How often tables are flushed.
const AGES: [(&str, &str); 2] = [("1h, the default", "1h"), ("1m", "1m")];

/// What one run showed.
struct Run {
    late_s: f64,
    flushes: f64,
    /// CPU of the threads that flush, commit and merge, as a share of one core.
    share: f64,
    all_share: f64,
    log_bytes: u64,
    peak_bytes: u64,
    restart: Duration,
}

pub(crate) fn run() -> Outcome {
    let scratch = Scratch::new("many-tables").map_err(|error| format!("make a folder: {error}"))?;
    let what = format!(
        "{TABLES} tables, each with one row of three fields a second for {SECONDS} s, all rows of a second in one request, \
         durable before the next; then `kill -9` and a restart. CPU is that of the threads that flush, commit and merge, as a \
         share of one core. In the end every table is counted."
    );
    let mut report = Report::new("many-tables", what);
    let mut table = String::from(
        "| flush_max_age | flushes | flush and commit, share of a core | server in all | largest log, MiB | peak RSS, MiB | \
         restart, s | behind at the end, s |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut held = true;
    for (name, age) in AGES {
        let run = measure(&scratch.path().join(age), age)?;
        held &= run.share <= SHARE_MAX && run.log_bytes <= LOG_MAX && run.restart <= RESTART_MAX;
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            table,
            "| {name} | {:.0} | {:.3} | {:.3} | {} | {} | {:.1} | {:.1} |",
            run.flushes,
            run.share,
            run.all_share,
            mib(run.log_bytes),
            mib(run.peak_bytes),
            run.restart.as_secs_f64(),
            run.late_s,
        )
        .map_err(|error| error.to_string())?;
    }
    report.table(table);
    report.remark(format!(
        "Expected: at most {SHARE_MAX} of a core, 1 GiB of log, {} s to restart; {}.",
        RESTART_MAX.as_secs(),
        if held { "held" } else { "NOT held" }
    ));
    report.write()
}

fn measure(folder: &Path, age: &str) -> Result<Run, Failure> {
    let mut eden =
        Eden::options("many-tables").release().setting("EDEN_STORAGE_FLUSH_MAX_AGE", age).folder(folder).start();
    let mut client = eden.client();
    let wal = eden.data().join("wal");
    let mut send = |second: usize| -> Result<(), Failure> {
        match client.write_lp(lines(second).as_bytes()) {
            WriteOutcome::Acked => Ok(()),
            other => Err(format!("second {second} was not acknowledged: {other:?}")),
        }
    };
    // Tables are made by the first, which is no part of what is measured.
    send(0)?;
    let background =
        |pid| cpu::time_by_thread(pid).iter().filter(|(name, _)| is_background(name)).map(|(_, t)| *t).sum();
    let (background_before, all_before): (Duration, _) = (background(eden.pid()), cpu::time_of(eden.pid()));
    let start = wait::now();
    let mut log_bytes = 0;
    for second in 1..=SECONDS {
        let due = Duration::from_secs(second as u64);
        wait::until(due, || (start.elapsed() >= due).then_some(()));
        send(second)?;
        log_bytes = log_bytes.max(bytes_below(&wal, "").map_err(|error| format!("{}: {error}", wal.display()))?);
        if second % 60 == 0 {
            println!("{age}: {second} s of {SECONDS}");
        }
    }
    let took = start.elapsed();
    let share = |time: Duration| time.as_secs_f64() / took.as_secs_f64();
    let background_share = share(background(eden.pid()).saturating_sub(background_before));
    let all_share = share(cpu::time_of(eden.pid()).saturating_sub(all_before));
    let flushes = metric(&eden, "eden_storage_flushes_total")?;
    let peak_bytes = cpu::peak_memory_bytes(eden.pid());
    eden.kill();
    let restart = wait::now();
    eden.restart();
    let restart = restart.elapsed();
    for number in 0..TABLES {
        let count = eden.sql(&format!("SELECT count(*) FROM {}", name(number)));
        if count.single().as_u64() != Some(SECONDS as u64 + 1) {
            return Err(format!("{} has {} rows, expected {}", name(number), count.single(), SECONDS + 1));
        }
    }
    Ok(Run {
        late_s: took.as_secs_f64() - SECONDS as f64,
        flushes,
        share: background_share,
        all_share,
        log_bytes,
        peak_bytes,
        restart,
    })
}

fn is_background(thread: &str) -> bool {
    ["flush", "maintain", "scrub"].contains(&thread)
}

fn name(number: usize) -> String {
    format!("m{number:04}")
}

/// A row of each table.
fn lines(second: usize) -> String {
    let mut lines = String::new();
    for number in 0..TABLES {
        let step = (second * 7 + number * 13) % 100;
        let time = START_S + second as i64;
        let name = name(number);
        writeln!(
            lines,
            "{name},machine=press-{} temperature={}.{},strokes={second}i,ok=t {time}000000000",
            number % 10,
            20 + step / 10,
            step % 10
        )
        .expect("a String takes everything");
    }
    lines
}
