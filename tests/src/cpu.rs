//! CPU time and memory of a process, as Linux counts them.

use std::fs;
use std::time::Duration;

/// Linux reports CPU time in ticks of 10 ms (`getconf CLK_TCK` is 100 on every platform Rust supports).
const TICK: Duration = Duration::from_millis(10);

/// User and system CPU time of a process, its ended threads included.
///
/// # Panics
/// When the process is gone.
pub fn time_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read the process's stat");
    // The second field, the name, may hold spaces; the rest begins behind its bracket.
    let (_, rest) = stat.rsplit_once(") ").expect("a name in brackets");
    let ticks: u32 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("ticks")).sum();
    TICK * ticks
}

/// Nanoseconds that the process's living threads have run, finer than [`time_of`].
///
/// # Panics
/// When the process is gone.
pub fn fine_time_of(pid: u32) -> Duration {
    time_by_thread(pid).into_iter().map(|(_, time)| time).sum()
}

/// Name of each living thread of a process, and how long it has run, to the nanosecond.
///
/// # Panics
/// When the process is gone.
pub fn time_by_thread(pid: u32) -> Vec<(String, Duration)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("list the process's threads");
    // A thread that ended meanwhile is not counted.
    let time = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((name.trim().to_string(), Duration::from_nanos(schedstat.split(' ').next()?.parse().ok()?)))
    };
    tasks.filter_map(|task| time(task.ok()?)).collect()
}

/// The largest resident memory so far, in bytes.
///
/// # Panics
/// When the process is gone.
pub fn peak_memory_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

/// The resident memory now, in bytes.
///
/// # Panics
/// When the process is gone.
pub fn memory_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The resident memory now that no file holds, in bytes.
///
/// # Panics
/// When the process is gone.
pub fn anonymous_memory_bytes(pid: u32) -> u64 {
    status_bytes(pid, "RssAnon:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("memory in the process's status");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("memory in kB");
    kib * 1024
}
