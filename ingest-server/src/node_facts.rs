//! What this process and its machine are like, for `sys.nodes`.
//!
//! Owns:     reading it, from `/proc` on Linux (proc(5)); elsewhere it is not known.
//! Does not: keep anything: each question is answered from what is true then.

use query::NodeFacts;

use crate::config::Config;

const KIB: i64 = 1024;

/// Memory that the settings allow: of bodies, messages, sessions, rows and queries together.
pub(crate) fn memory_max_bytes(config: &Config) -> i64 {
    let parts = [
        config.http.bodies_memory.0,
        config.mqtt.messages_memory.0,
        config.mqtt.sessions_memory.0,
        config.storage.memory.0,
        config.query.memory.0,
    ];
    i64::try_from(parts.into_iter().fold(0, u64::saturating_add)).unwrap_or(i64::MAX)
}

/// The facts now; without ports and [`NodeFacts::memory_max_bytes`], which are no facts of the system.
pub(crate) fn now() -> NodeFacts {
    let memory = read("/proc/meminfo");
    let status = read("/proc/self/status");
    let limits = read("/proc/self/limits");
    let processors = std::thread::available_parallelism().ok();
    NodeFacts {
        hostname: text("/proc/sys/kernel/hostname"),
        processors: processors.and_then(|count| u32::try_from(count.get()).ok()),
        os_name: Some(std::env::consts::OS.to_owned()),
        os_version: text("/proc/sys/kernel/osrelease"),
        arch: Some(std::env::consts::ARCH.to_owned()),
        uptime_ms: text("/proc/uptime").and_then(|text| uptime_ms(&text)),
        memory_available_bytes: memory.as_deref().and_then(|text| kib(text, "MemAvailable:")),
        memory_total_bytes: memory.as_deref().and_then(|text| kib(text, "MemTotal:")),
        resident_bytes: status.as_deref().and_then(|text| kib(text, "VmRSS:")),
        load: text("/proc/loadavg").and_then(|text| load(&text)),
        open_files: std::fs::read_dir("/proc/self/fd").ok().and_then(|files| i64::try_from(files.count()).ok()),
        open_files_max: limits.as_deref().and_then(|text| field(text, "Max open files", 0)),
        ..NodeFacts::default()
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn text(path: &str) -> Option<String> {
    read(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The number at `index` behind the name that a line begins with.
fn field(text: &str, name: &str, index: usize) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().nth(index)?.parse().ok()
}

fn kib(text: &str, name: &str) -> Option<i64> {
    field(text, name, 0)?.checked_mul(KIB)
}

fn uptime_ms(text: &str) -> Option<i64> {
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((seconds * 1_000.0) as i64)
}

fn load(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read_by_the_names_of_their_lines() {
        let memory = "MemTotal:       24604472 kB\nMemFree:         1045012 kB\nMemAvailable:   18032016 kB\n";
        assert_eq!(kib(memory, "MemTotal:"), Some(24_604_472 * 1024));
        assert_eq!(kib(memory, "MemAvailable:"), Some(18_032_016 * 1024));
        assert_eq!(kib(memory, "SwapTotal:"), None);
        let limits = "Max open files            1024                 1048576              files\n";
        assert_eq!(field(limits, "Max open files", 0), Some(1024));
        assert_eq!(uptime_ms("69876.43 120000.11"), Some(69_876_430));
        assert_eq!(load("9.70 5.85 4.10 12/345 4028"), Some([9.70, 5.85, 4.10]));
        assert_eq!(load("9.70 high"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_is_known() {
        let facts = now();
        let (total, available) = (facts.memory_total_bytes.unwrap(), facts.memory_available_bytes.unwrap());
        assert!(total >= available && available > 0, "{facts:?}");
        assert!(facts.resident_bytes.unwrap() > 1 << 20, "{facts:?}");
        assert!(facts.uptime_ms.unwrap() > 0 && facts.open_files.unwrap() > 2, "{facts:?}");
        assert!(facts.hostname.is_some() && facts.load.is_some() && facts.open_files_max.is_some(), "{facts:?}");
    }
}
