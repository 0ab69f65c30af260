//! The long runs: the same scenarios as in `cargo test`, with more seeds, and what takes too long for it.

mod agent_wear;
mod debian;
mod full_disk;
mod pi;
mod telegraf;

use std::io::Write;
use std::time::Duration;

use harness::scenario::{Over, Overload};
use harness::{Eden, scenario, settings, wait};

use crate::command::{cargo, in_root, output, root, run as run_command, shown_output};
use crate::{Failure, Outcome, bench, fuzz, interop};

struct Soak {
    name: &'static str,
    about: &'static str,
    run: fn() -> Outcome,
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "first-run",
        about: "a fresh clone: build release and run the demo, as the README says",
        run: first_run,
    },
    Soak { name: "kills", about: "500 kills -9 at random moments, all values compared (P1)", run: kills },
    Soak {
        name: "mqtt-kills",
        about: "500 kills -9 under publishers at QoS 1 and 2, links failing, all values compared (P1)",
        run: mqtt_kills,
    },
    Soak {
        name: "agent-kills",
        about: "500 rounds of agents, links and the server dying; 0 lost, 0 doubled (P1, P7)",
        run: agent_kills,
    },
    Soak {
        name: "agent-wear",
        about: "ten sensors at 1 Hz for 10 min, with a server and without: syncs and bytes within a card's budget",
        run: || agent_wear::run(settings::seconds(Duration::from_secs(600))),
    },
    Soak {
        name: "offline",
        about: "an agent of ten sensors at 1 Hz, 72 h without a server in simulated time, then each order of sending (P7)",
        run: offline,
    },
    Soak {
        name: "brokers",
        about: "Mosquitto in between, two servers that share; stops and kills for 60 s (P1)",
        run: || interop::brokers::run(settings::seed(), Duration::from_secs(60)),
    },
    Soak {
        name: "telegraf",
        about: "stock Telegraf by its three outputs for 60 s, the server killed five times (P1; needs Go)",
        run: || telegraf::run(settings::seed()),
    },
    Soak {
        name: "read-your-writes",
        about: "100 000 write-then-read pairs from 64 clients (P6)",
        run: read_your_writes,
    },
    Soak { name: "power-cuts", about: "5 000 seeded power cuts over all of the data folder (P1, P5)", run: power_cuts },
    Soak { name: "wal-damage", about: "10 000 mutations of log segments (P3)", run: wal_damage },
    Soak {
        name: "table-damage",
        about: "10 000 mutations of shards, commits and checkpoints (P3, P11)",
        run: table_damage,
    },
    Soak {
        name: "readers",
        about: "1 000 ways to write one workload, read by DuckDB, Polars and deltalake (P4, P8)",
        run: readers,
    },
    Soak {
        name: "full-disk",
        about: "50 rounds of filling and freeing a disk of 256 MiB under writes and queries (P9; needs root)",
        run: || {
            let rounds = settings::rounds(50);
            full_disk::run(settings::seed(), rounds, |done| show_progress(done, rounds))
        },
    },
    Soak {
        name: "overload",
        about: "four times what the server sustains over HTTP for 5 min, then a kill (P1, P10)",
        run: || overload(Over::Http),
    },
    Soak { name: "mqtt-overload", about: "the same over MQTT, 3.1.1 and 5 (P1, P10)", run: || overload(Over::Mqtt) },
    Soak {
        name: "pi",
        about: "a Raspberry Pi 3 in QEMU, from power on to a reading of its I²C bus in SQL",
        run: || pi::run(pi::READS_WITHIN),
    },
    Soak {
        name: "debian",
        about: "a card by cross/flash in that Raspberry Pi: Debian installs the package, systemd runs it, twice",
        run: debian::run,
    },
    Soak { name: "fuzz", about: "hostile bytes led by coverage, 15 min each parser (P14)", run: fuzz::soak },
    Soak {
        name: "hot-day",
        about: "a day of 8.64 M readings in 200 flushes with retries and corrections (P4)",
        run: bench::hot_day,
    },
];

/// Runs one, or lists them.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let Some(name) = arguments.first() else {
        for soak in SOAKS {
            println!("cargo xtask soak {:<18} {}", soak.name, soak.about);
        }
        return Ok(());
    };
    let soak = SOAKS.iter().find(|soak| soak.name == name).ok_or_else(|| format!("there is no soak {name:?}"))?;
    let start = wait::now();
    (soak.run)()?;
    println!("soak {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The soak `pi`, with so much time until its reading.
pub(crate) fn emulated_board(reads_within: Duration) -> Outcome {
    pi::run(reads_within)
}

fn kills() -> Outcome {
    let rounds = settings::rounds(500);
    let report = scenario::kills(settings::seed(), rounds, |report| show_progress(report.kills, rounds));
    println!("\r{report}");
    Ok(())
}

fn mqtt_kills() -> Outcome {
    let rounds = settings::rounds(500);
    let report = scenario::mqtt_kills(settings::seed(), rounds, |report| show_progress(report.kills, rounds));
    println!("\r{report}");
    Ok(())
}

/// Estimate: `[http] bodies_memory` 128 MiB, as much again of what they become, `[mqtt] messages_memory` 64 MiB, `[storage] memory`
/// 256 MiB and a flush of as much, queues of the log, and what the allocator keeps for each thread.
const OVERLOAD_BYTES_MAX: u64 = 1 << 30;

fn overload(over: Over) -> Outcome {
    let storm = settings::seconds(Duration::from_secs(300));
    let calm = (storm / 4).min(Duration::from_secs(20));
    // What a dev build takes is not what has to be borne, and it replays slowly.
    let mut eden = Eden::options("overload").release().start();
    let plan = Overload { over, calm, storm, clients: 64, more_bytes_max: OVERLOAD_BYTES_MAX };
    println!("{}", scenario::overload(&mut eden, &plan));
    Ok(())
}

fn agent_kills() -> Outcome {
    let rounds = settings::rounds(500);
    let report = scenario::agent_kills(settings::seed(), rounds, |report| show_progress(report.rounds, rounds));
    println!("\r{report}");
    Ok(())
}

fn offline() -> Outcome {
    let arguments =
        ["test", "--release", "--package", "edge-agent", "--lib", "after_hours_without_a_server", "--", "--nocapture"];
    let hours = settings::hours(72).to_string();
    let text = shown_output(cargo().args(arguments).env("EDEN_HOURS", hours))?;
    if text.contains("each once") { Ok(()) } else { Err("the test of it is gone".to_owned()) }
}

fn show_progress(done: u64, rounds: u64) {
    print!("\r{done} of {rounds}");
    // Progress only: a terminal that is gone is no failure.
    let _ = std::io::stdout().flush();
}

fn read_your_writes() -> Outcome {
    let pairs = settings::rounds(100_000);
    scenario::read_your_writes(pairs);
    println!("{pairs} pairs, 0 stale");
    Ok(())
}

fn power_cuts() -> Outcome {
    seeded_tests("wal", "model", 5_000)?;
    seeded_tests("storage", "power", 5_000)
}

fn wal_damage() -> Outcome {
    seeded_tests("wal", "damage", 10_000)
}

fn table_damage() -> Outcome {
    seeded_tests("storage", "mutations::damage", 10_000)
}

fn readers() -> Outcome {
    let cases = settings::rounds(1_000);
    interop::any_order(cases, |done| show_progress(done, cases))
}

/// Runs the tests of a package whose names contain `filter` with `EDEN_SEEDS`; none is a failure.
fn seeded_tests(package: &str, filter: &str, seeds: u64) -> Outcome {
    let seeds = settings::rounds(seeds).to_string();
    let arguments = ["test", "--package", package, "--test", "suite", filter, "--", "--nocapture"];
    let text = shown_output(cargo().args(arguments).env("EDEN_SEEDS", &seeds))?;
    let none = text.lines().filter(|line| line.starts_with("test result:")).all(|line| line.contains(" 0 passed"));
    if none { Err(format!("no test of {package} is named *{filter}*")) } else { Ok(()) }
}

/// What a person does first, in a clone without any build, and how long it takes.
fn first_run() -> Outcome {
    let folder = std::env::temp_dir().join(format!("eden-first-run-{}", std::process::id()));
    let clone = folder.join("eden");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    // Before the clone: the tree may move on while it builds.
    let commit = commit()?;
    run_command(in_root("git").args(["clone", "--quiet"]).arg(root()).arg(&clone))?;
    let start = wait::now();
    let mut command = cargo();
    command.args(["run", "--release", "--bin", "eden", "--", "demo", "--for", "20s"]);
    // The variables cargo gave to us would point the new build at this tree.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO")) {
        if name != "CARGO_HOME" {
            command.env_remove(name);
        }
    }
    shown_output(command.current_dir(&clone))?;
    let took = start.elapsed();
    println!("first run of {commit}: {:.1} min with its 20 s of demo", took.as_secs_f64() / 60.0);
    std::fs::remove_dir_all(&folder).map_err(failed)
}

/// The commit that is checked out; `+` when the tree has changes beyond it.
pub(crate) fn commit() -> Result<String, Failure> {
    let commit = output(in_root("git").args(["rev-parse", "--short", "HEAD"])).unwrap_or_else(|_| "none".into());
    let changes = output(in_root("git").args(["status", "--porcelain"]))?;
    Ok(format!("{}{}", commit.trim(), if changes.is_empty() { "" } else { "+" }))
}
