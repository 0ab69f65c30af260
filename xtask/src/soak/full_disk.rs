//! A small disk that fills up and is freed, again and again, under a server that is written to and asked (P9).
//!
//! The disk is a tmpfs with a ballast file, so that `full` is what Linux says is full. Making it needs root.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{Client, Eden, Oracle, Outcome as WriteOutcome, Reading, Rng, wait};

use crate::command::{in_root, run as run_command};
use crate::{Failure, Outcome};

const DISK_MIB: u64 = 256;
const WRITERS: u64 = 4;
const ROWS: u64 = 200;
/// 2026-06-01T00:00:00Z.
const START_US: i64 = 1_780_272_000_000_000;
/// The server stops taking rows in when less than a twentieth of the disk is left.
const LEFT_MIB: [u64; 6] = [0, 2, 8, 12, 14, 20];
const FULL_WITHIN: Duration = Duration::from_secs(120);
const FULL_FOR: Duration = Duration::from_secs(1);
const RESUMED_WITHIN: Duration = Duration::from_secs(30);

/// What the rounds went through.
#[derive(Debug, Default)]
struct Report {
    acked: AtomicU64,
    refused: AtomicU64,
    queries: AtomicU64,
    kills: u64,
    slowest: Duration,
}

pub(super) fn run(seed: u64, rounds: u64, mut progress: impl FnMut(u64)) -> Outcome {
    println!("seed {seed}");
    let disk = Tmpfs::mount()?;
    let mut rng = Rng::new(seed);
    let mut report = Report::default();
    let mut eden = Eden::options("full-disk").release().folder(&disk.path.join("eden")).start();
    for round in 0..rounds {
        let left = LEFT_MIB[rng.below(LEFT_MIB.len() as u64) as usize];
        fill_and_free(&disk, &mut eden, &mut rng, round, left, &mut report)
            .map_err(|error| format!("seed {seed}, round {round}, {left} MiB left: {error}"))?;
        progress(round + 1);
    }
    println!(
        "\r{rounds} rounds, {} kills; {} batches acknowledged, {} refused with 503, {} queries answered while the disk was \
         full or filling, 0 failed; 0 acknowledged lost; admission resumed within {:.1} s",
        report.kills,
        report.acked.into_inner(),
        report.refused.into_inner(),
        report.queries.into_inner(),
        report.slowest.as_secs_f64()
    );
    Ok(())
}

fn fill_and_free(
    disk: &Tmpfs,
    eden: &mut Eden,
    rng: &mut Rng,
    round: u64,
    left_mib: u64,
    report: &mut Report,
) -> Outcome {
    let table = format!("t{round}");
    let oracle = Mutex::new(Oracle::default());
    // A table that is there before the disk is full: queries ask it.
    let first = batch(&table, WRITERS, 0, rng);
    let outcome = eden.client().write(&first);
    oracle.lock().expect("a writer panicked").record(&first, &outcome);
    if outcome != WriteOutcome::Acked {
        return Err(format!("the first batch was not acknowledged: {outcome:?}"));
    }
    disk.leave(left_mib)?;
    let stop = AtomicBool::new(false);
    // Writers that were refused since the disk was filled, or that were acknowledged since it was freed: one bit each.
    let (was_freed, refused, resumed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let address = eden.address().to_owned();
    let resumed = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for writer in 0..WRITERS {
            let mut rng = Rng::new(rng.below(u64::MAX));
            let (address, table, oracle, stop, report) = (&address, &table, &oracle, &stop, &*report);
            let (was_freed, refused, resumed) = (&was_freed, &refused, &resumed);
            threads.push(scope.spawn(move || {
                let mut client = Client::new(address);
                let mut number = 1;
                while !stop.load(Ordering::SeqCst) {
                    let readings = batch(table, writer, number, &mut rng);
                    let is_freed = was_freed.load(Ordering::SeqCst);
                    let outcome = client.write(&readings);
                    oracle.lock().expect("a writer panicked").record(&readings, &outcome);
                    match outcome {
                        WriteOutcome::Acked => {
                            report.acked.fetch_add(1, Ordering::SeqCst);
                            number += 1;
                            resumed.fetch_or(u64::from(is_freed) << writer, Ordering::SeqCst);
                        }
                        WriteOutcome::Refused(503, _) => {
                            report.refused.fetch_add(1, Ordering::SeqCst);
                            refused.fetch_or(1 << writer, Ordering::SeqCst);
                        }
                        other => return Err(format!("a write ended with {other:?}")),
                    }
                }
                Ok(())
            }));
        }
        let asking = {
            let (address, table, stop, report) = (&address, &table, &stop, &*report);
            scope.spawn(move || {
                let mut client = Client::new(address);
                while !stop.load(Ordering::SeqCst) {
                    client.sql(&format!("SELECT count(*), sum(x), max(time) FROM {table}"))?;
                    report.queries.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<(), Failure>(())
            })
        };
        let all = |writers: &AtomicU64| (writers.load(Ordering::SeqCst) == (1 << WRITERS) - 1).then_some(());
        let full = wait::until(FULL_WITHIN, || all(&refused)).ok_or_else(|| "the disk does not get full".to_owned());
        if full.is_ok() {
            wait::until(FULL_FOR, || None::<()>);
        }
        let freed = disk.free();
        let start = wait::now();
        was_freed.store(true, Ordering::SeqCst);
        let resumed = wait::until(RESUMED_WITHIN, || all(&resumed)).map(|()| start.elapsed());
        stop.store(true, Ordering::SeqCst);
        for thread in threads {
            thread.join().map_err(|_| "a writer panicked")??;
        }
        asking.join().map_err(|_| "the queries panicked")??;
        full?;
        freed?;
        resumed.ok_or_else(|| format!("not every writer is acknowledged {RESUMED_WITHIN:?} after there is room"))
    });
    report.slowest = report.slowest.max(resumed?);
    if rng.below(5) == 0 {
        eden.kill();
        eden.restart();
        report.kills += 1;
    }
    let oracle = oracle.into_inner().map_err(|_| "a writer panicked")?;
    oracle.check(&table, &eden.sql(&format!("SELECT * FROM {table}")))?;
    eden.sql(&format!("DROP TABLE {table}"));
    Ok(())
}

/// Keys that no other batch has.
fn batch(table: &str, writer: u64, number: u64, rng: &mut Rng) -> Vec<Reading> {
    let row = |row: u64| {
        let time = START_US + ((number * ROWS + row) * 1_000) as i64;
        let value = rng.below(1_000_000) as i64;
        Reading::at(table, time)
            .tag("writer", &writer.to_string())
            .field("x", value)
            .field("note", "so many bytes more")
    };
    (0..ROWS).map(row).collect()
}

/// A file system in memory, unmounted when dropped.
struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    fn mount() -> Result<Tmpfs, Failure> {
        let path = std::env::temp_dir().join(format!("eden-full-disk-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("make {}: {error}", path.display()))?;
        let size = format!("size={DISK_MIB}m");
        run_command(in_root("mount").args(["-t", "tmpfs", "-o", &size, "eden-full-disk"]).arg(&path))
            .map_err(|error| format!("{error}; mounting a small disk needs root"))?;
        Ok(Tmpfs { path })
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves so much room; to the last byte for 0.
    fn leave(&self, mib: u64) -> Outcome {
        let failed = |error: std::io::Error| format!("{}: {error}", self.ballast().display());
        let mut file = File::create(self.ballast()).map_err(failed)?;
        let block = vec![1; 64 << 10];
        while free_bytes(&self.path)? > mib << 20 {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    fn free(&self) -> Outcome {
        std::fs::remove_file(self.ballast()).map_err(|error| format!("{}: {error}", self.ballast().display()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = run_command(in_root("umount").arg("--lazy").arg(&self.path)) {
            eprintln!("{error}");
        }
        if let Err(error) = std::fs::remove_dir(&self.path) {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}

fn free_bytes(path: &Path) -> Result<u64, Failure> {
    let space = rustix::fs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(space.f_bavail * space.f_frsize)
}
