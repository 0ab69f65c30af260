//! The one door: `cargo xtask` lists every task of this repository, and CI calls the same ones.

mod bench;
mod ci;
mod command;
mod cross;
mod fuzz;
mod interop;
mod mosquitto;
mod soak;
mod tidy;

use std::process::ExitCode;

/// What went wrong, in a line or a few for the person at the terminal.
type Failure = String;
type Outcome = Result<(), Failure>;

struct Task {
    usage: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

const TASKS: &[Task] = &[
    Task { usage: "check", about: "format, lints, tidy and unit tests: before each commit", run: |_| ci::check() },
    Task { usage: "tidy", about: "the rules of this repository that a program can check", run: |_| tidy::run() },
    Task { usage: "test", about: "cargo test --workspace", run: |_| ci::test().map(drop) },
    Task {
        usage: "interop [PART]",
        about: "readers of Delta tables, MQTT clients, curl and strace against a running eden",
        run: interop::run,
    },
    Task {
        usage: "fuzz [TARGET]",
        about: "hostile bytes led by coverage, for every parser; --for 10s each, --keep for the corpora",
        run: fuzz::run,
    },
    Task {
        usage: "cross [BOARD]",
        about: "the agent for aarch64, armv7 and armv6, tried under qemu-user and packed for Debian",
        run: cross::run,
    },
    Task { usage: "soak NAME", about: "the long runs; without NAME, their list", run: soak::run },
    Task {
        usage: "bench NAME",
        about: "measured claims, written to bench/results; without NAME, their list",
        run: bench::run,
    },
    Task { usage: "deny", about: "licences, bans and sources of all dependencies", run: |_| ci::deny() },
    Task { usage: "ci", about: "all that has to hold before a change is accepted", run: |_| ci::run() },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        print_tasks();
        return ExitCode::SUCCESS;
    };
    let Some(task) = TASKS.iter().find(|task| task.usage.split(' ').next() == Some(name)) else {
        eprintln!("xtask: there is no task {name:?}");
        print_tasks();
        return ExitCode::from(2);
    };
    match (task.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask {name}: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn print_tasks() {
    for task in TASKS {
        println!("cargo xtask {:<12} {}", task.usage, task.about);
    }
}
