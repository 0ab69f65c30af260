//! What has to hold before a change is accepted.

use std::time::Duration;

use harness::{Profile, eden_binary, wait};

use crate::command::{cargo, exists, in_root, run as run_command, shown_output};
use crate::{Failure, Outcome, cross, fuzz, interop, soak, tidy};

/// On a loaded machine; alone the board takes a minute to its first reading.
const BOARD_WITHIN: Duration = Duration::from_secs(900);

/// Tests that ran, from the lines that `cargo test` ends each binary with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestCount {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl std::fmt::Display for TestCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)
    }
}

/// Quick enough for before each commit.
pub(crate) fn check() -> Outcome {
    format()?;
    clippy()?;
    tidy::run()?;
    run_command(cargo().args(["test", "--workspace", "--lib", "--quiet"]))
}

/// The whole test suite.
pub(crate) fn test() -> Result<TestCount, Failure> {
    shown_output(cargo().args(["test", "--workspace"])).map(|text| count(&text))
}

/// Dependencies against `deny.toml`.
pub(crate) fn deny() -> Outcome {
    if !exists("cargo-deny") {
        return Err("cargo-deny is not installed: cargo install --locked cargo-deny".into());
    }
    // Advisories need a network, so they are not part of it: `cargo deny check advisories`.
    run_command(cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}

/// All steps, each with its time; stops at the first that fails.
pub(crate) fn run() -> Outcome {
    let mut steps = Steps::default();
    steps.run("format", format)?;
    steps.run("clippy", clippy)?;
    steps.run("tidy", tidy::run)?;
    let count = steps.run("test", test)?;
    steps.run("fuzz", || fuzz::run(&[]))?;
    steps.run("interop", || interop::run(&[]))?;
    steps.run("cross", || cross::run(&[cross::AARCH64.name.to_owned()]))?;
    steps.run("pi", emulated_board)?;
    steps.run("demo", demo)?;
    println!("\n== all steps passed in {}", steps.summary());
    println!("== tests: {count}");
    Ok(())
}

#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        println!("\n== {name}");
        let start = wait::now();
        let result = step();
        let took = start.elapsed();
        self.0.push((name, took));
        match result {
            Ok(value) => {
                println!("== {name}: passed in {:.1} s", took.as_secs_f64());
                Ok(value)
            }
            Err(failure) => Err(format!("step {name} FAILED after {:.1} s: {failure}", took.as_secs_f64())),
        }
    }

    fn summary(&self) -> String {
        let total: Duration = self.0.iter().map(|(_, took)| *took).sum();
        let each: Vec<_> = self.0.iter().map(|(name, took)| format!("{name} {:.0} s", took.as_secs_f64())).collect();
        format!("{:.0} s ({})", total.as_secs_f64(), each.join(", "))
    }
}

fn format() -> Outcome {
    run_command(cargo().args(["fmt", "--all", "--check"]))?;
    run_command(cargo().args(["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]))
}

fn clippy() -> Outcome {
    run_command(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The emulated Raspberry Pi, where the Debian that it takes is there already: to make it takes minutes.
fn emulated_board() -> Outcome {
    if !cross::Debian::is_made(cross::Purpose::Board)? {
        println!("not run: `cargo xtask soak pi` makes what it takes, and the next time it runs here");
        return Ok(());
    }
    soak::emulated_board(BOARD_WITHIN)
}

/// The dev build that the tests used shows its face for 20 s, on a data folder of its own.
fn demo() -> Outcome {
    let folder = std::env::temp_dir().join(format!("eden-ci-demo-{}", std::process::id()));
    let mut command = in_root(eden_binary(Profile::Dev));
    command.args(["demo", "--for", "20s", "--data"]).arg(&folder);
    let result = run_command(&mut command);
    if result.is_ok() {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("remove {}: {error}", folder.display()))?;
    }
    result
}

fn count(text: &str) -> TestCount {
    let mut count = TestCount::default();
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        for part in line.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next().and_then(|number| number.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => count.passed += number,
                "failed" => count.failed += number,
                "ignored" => count.ignored += number,
                _ => {}
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_all_test_binaries_are_added() {
        let text = "running 3 tests\n\
                    test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s\n";
        assert_eq!(count(text), TestCount { passed: 7, failed: 2, ignored: 1 });
    }
}
