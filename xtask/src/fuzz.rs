//! `cargo xtask fuzz`: hostile bytes led by coverage, for every parser (P14, docs/adr/0029-fuzzing-by-coverage.md).
//!
//! Owns:     how the targets of the room `fuzz` are built, run and counted, and which of what they find is kept.
//! Does not: know parsers: a target's check does.
//!
//! The counters of coverage are a pass of LLVM's that a stable compiler has too, so no nightly one is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use harness::settings;

use crate::command::{cargo, output, root, run as run_command};
use crate::{Failure, Outcome, interop};

/// What `cargo fuzz` gives to a nightly compiler, without the sanitizer. One codegen unit is in the profile.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// A run that takes longer is a finding. No input takes a tenth of a second; a machine that does much else may keep a run waiting.
const RUN_SECONDS_MAX: &str = "60";
/// What a target may take in all. Parsers are held to far less by an allocator that counts.
const MEMORY_MB_MAX: &str = "1024";
/// Longest input that the search makes: the least that has room for tables, templates and segments.
const INPUT_BYTES_MAX: &str = "8192";
/// A target's corpus may have so many bytes in the repository.
const CORPUS_BYTES_MAX: u64 = 200_000;
/// And so many inputs beside those that have a name: the shortest ones.
const CORPUS_INPUTS_MAX: usize = 150;
/// What CI gives each target.
const IN_CI: Duration = Duration::from_secs(10);
const IN_SOAK: Duration = Duration::from_secs(15 * 60);

/// What a search did.
#[derive(Clone, Copy, Debug, Default)]
struct Searched {
    executions: u64,
    /// Edges of the program that were reached.
    coverage: u64,
    /// Those and how often: what the search is led by.
    features: u64,
    /// Inputs that are worth keeping.
    inputs: u64,
}

/// `[TARGET …] [--for 10s] [--keep]`: all targets, or those that are named.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (mut names, mut time, mut keeps) = (Vec::new(), IN_CI, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--for" => time = duration(rest.next().ok_or("--for wants a time: 10s, 15m, 1h")?)?,
            "--keep" => keeps = true,
            name => names.push(name.to_owned()),
        }
    }
    search(&names, time, keeps).map(drop)
}

/// All of them, 15 minutes each or `EDEN_SECONDS`.
pub(crate) fn soak() -> Outcome {
    search(&[], settings::seconds(IN_SOAK), false).map(drop)
}

fn duration(text: &str) -> Result<Duration, Failure> {
    let wrong = || format!("{text:?} is no time: 10s, 15m, 1h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    number.parse().map(|number: u64| Duration::from_secs(number * seconds)).map_err(|_| wrong())
}

fn search(names: &[String], time: Duration, keeps: bool) -> Result<(), Failure> {
    interop::install("c++", "g++")?;
    let binaries = build()?;
    if let Some(name) = names.iter().find(|name| !binaries.iter().any(|(known, _)| known == *name)) {
        let known: Vec<_> = binaries.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("there is no target {name:?}, but {}", known.join(", ")));
    }
    let wanted: Vec<_> = binaries.iter().filter(|(name, _)| names.is_empty() || names.contains(name)).collect();
    let left = Mutex::new(wanted.into_iter());
    let (found, failures) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((name, binary)) = left.lock().expect("no thread panics").next() else { break };
                    match target(name, binary, time, keeps) {
                        Ok(searched) => {
                            println!(
                                "{name}: {} executions, {} edges, {} features, {} inputs",
                                searched.executions, searched.coverage, searched.features, searched.inputs
                            );
                            found.lock().expect("no thread panics").insert(name.clone(), searched);
                        }
                        Err(failure) => failures.lock().expect("no thread panics").push(failure),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panics");
    let all: u64 = found.into_inner().expect("no thread panics").values().map(|searched| searched.executions).sum();
    println!("fuzz: {all} executions, {} findings", failures.len());
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Builds all targets; each with its path.
fn build() -> Result<Vec<(String, PathBuf)>, Failure> {
    let about = output(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV names no host")?;
    let folder = target_dir()?;
    // The target is named, so that the flags are not for build scripts too.
    let mut command = cargo();
    command.args(["build", "--quiet", "--release", "--locked", "--bins", "--manifest-path", "fuzz/Cargo.toml"]);
    run_command(command.args(["--target", host]).env("CARGO_TARGET_DIR", &folder).env("RUSTFLAGS", FLAGS))?;
    let sources = root().join("fuzz/targets");
    let entries = fs::read_dir(&sources).map_err(|e| format!("read {}: {e}", sources.display()))?;
    let mut binaries = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("read {}: {e}", sources.display()))?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            binaries.push((name.to_owned(), folder.join(host).join("release").join(name)));
        }
    }
    binaries.sort();
    Ok(binaries)
}

/// Beside what the tests compile, so that a second run is warm.
fn target_dir() -> Result<PathBuf, Failure> {
    let executable = std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?;
    let profile = executable.parent().and_then(Path::parent).ok_or("this program is in no target folder")?;
    Ok(profile.join("fuzz"))
}

/// Searches from the corpus of a target.
fn target(name: &str, binary: &Path, time: Duration, keeps: bool) -> Result<Searched, Failure> {
    let corpus = root().join("fuzz/corpus").join(name);
    let work = target_dir()?.join("found").join(name);
    let failed = |e: std::io::Error| format!("{}: {e}", work.display());
    // Each search begins with the committed corpus; what another one found and nobody kept only takes time.
    if work.exists() {
        fs::remove_dir_all(&work).map_err(failed)?;
    }
    fs::create_dir_all(&work).map_err(failed)?;
    let findings = format!("{}-finding-", work.display());
    let output = Command::new(binary)
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-timeout={RUN_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-artifact_prefix={findings}"))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        // New ones go to the first, the second is read.
        .args([&work, &corpus])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| format!("run {}: {e}", binary.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last: Vec<&str> = said.lines().rev().take(30).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        return Err(format!("{name}: {}; its input is {findings}…\n{}", output.status, last.join("\n")));
    }
    if keeps {
        keep(name, binary, &work, &corpus)?;
    }
    searched(&said).ok_or_else(|| format!("{name}: what it says is not understood:\n{said}"))
}

/// Of the corpus and what was found, the fewest that reach what they reach together, shortest first, replace the corpus.
fn keep(name: &str, binary: &Path, work: &Path, corpus: &Path) -> Outcome {
    let merged = work.with_extension("merged");
    let failed = |e: std::io::Error| format!("keep the corpus of {name}: {e}");
    if merged.exists() {
        fs::remove_dir_all(&merged).map_err(failed)?;
    }
    fs::create_dir_all(&merged).map_err(failed)?;
    let merge =
        Command::new(binary).args(["-merge=1"]).args([&merged, &corpus.to_path_buf(), &work.to_path_buf()]).output();
    let merge = merge.map_err(failed)?;
    if !merge.status.success() {
        return Err(format!("{name}: merge: {}\n{}", merge.status, String::from_utf8_lossy(&merge.stderr)));
    }
    let mut inputs = Vec::new();
    for entry in fs::read_dir(&merged).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        inputs.push((fs::metadata(&path).map_err(failed)?.len(), path));
    }
    inputs.sort();
    inputs.truncate(CORPUS_INPUTS_MAX);
    let mut bytes = 0;
    inputs.retain(|(len, _)| {
        bytes += len;
        bytes <= CORPUS_BYTES_MAX
    });
    for entry in fs::read_dir(corpus).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stays = |name: &str| name.starts_with("seed-") || name.starts_with("found-");
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(stays) {
            fs::remove_file(path).map_err(failed)?;
        }
    }
    for (_, input) in inputs {
        fs::copy(&input, corpus.join(input.file_name().unwrap_or_default())).map_err(failed)?;
    }
    Ok(())
}

/// What libFuzzer says at its end: `#… DONE cov: 1 ft: 2 corp: 3/4b …`, `stat::number_of_executed_units: 5`.
fn searched(said: &str) -> Option<Searched> {
    let executions = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    let done = said.lines().rfind(|line| line.contains("cov: ") && line.contains("corp: "))?;
    let number = |name: &str| {
        let behind = done.split(name).nth(1)?;
        behind.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Some(Searched {
        executions: executions.trim().parse().ok()?,
        coverage: number("cov: ")?,
        features: number("ft: ")?,
        inputs: number("corp: ")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_says_at_its_end_is_read() {
        let said = "#2 INITED cov: 1 ft: 1 corp: 1/1b\n#900\tDONE   cov: 1234 ft: 5678 corp: 90/12Kb lim: 4 exec/s: 1\n\
                    stat::number_of_executed_units: 900\nstat::average_exec_per_sec: 90\n";
        let found = searched(said).map(|found| [found.executions, found.coverage, found.features, found.inputs]);
        assert_eq!(found, Some([900, 1234, 5678, 90]));
        assert!(searched("").is_none());
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(["10s", "15m", "1h"].map(duration), [10, 900, 3600].map(|s| Ok(Duration::from_secs(s))));
        assert!(["", "s", "10", "-1s", "é"].map(duration).iter().all(Result::is_err));
    }
}
