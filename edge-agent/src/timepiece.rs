//! The clock since boot, which never jumps, and whether the wall clock is known to be right.
//!
//! Owns:     what is asked of the operating system about clocks besides [`model::Clock`].
//! Does not: decide what time a reading gets (`wall`).
//!
//! Sources: `clock_gettime(2)`, `adjtimex(2)`, `random(4)`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// One start of the board: its clock since boot means nothing in another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

/// Hexadecimal digits.
impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BootId {
    /// From the kernel's text: 32 hexadecimal digits, with or without dashes.
    fn parse(text: &str) -> Option<BootId> {
        let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
        let pairs = digits.as_chunks::<2>();
        if !pairs.1.is_empty() || pairs.0.len() != 16 {
            return None;
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(pairs.0) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(BootId(id))
    }
}

/// Tells the time since boot.
pub trait Timepiece: fmt::Debug + Send + Sync + 'static {
    /// Which boot.
    fn boot_id(&self) -> BootId;
    /// Microseconds since then; never goes back, and goes on while the board sleeps.
    fn boot_us(&self) -> i64;
    /// Whether something keeps the wall clock right at this moment.
    fn is_synchronised(&self) -> bool;
}

/// The kernel's clock since boot and its own word on whether the wall clock is synchronised.
#[derive(Debug)]
pub struct SystemTimepiece {
    boot_id: BootId,
    /// It was said that the kernel does not answer.
    is_said: AtomicBool,
}

impl SystemTimepiece {
    /// Of this boot. Where the kernel names no boot, each process is one.
    pub fn new() -> SystemTimepiece {
        let named = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot_id =
            named.and_then(|text| BootId::parse(&text)).unwrap_or_else(|| BootId(uuid::Uuid::new_v4().into_bytes()));
        SystemTimepiece { boot_id, is_said: AtomicBool::new(false) }
    }
}

impl Default for SystemTimepiece {
    fn default() -> Self {
        Self::new()
    }
}

impl Timepiece for SystemTimepiece {
    fn boot_id(&self) -> BootId {
        self.boot_id
    }

    fn boot_us(&self) -> i64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes one `timespec` to a place that is ours and lives as long as the call.
        let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
        // Since Linux 2.6.39; nothing older runs this program.
        assert_eq!(done, 0, "the kernel has no clock since boot");
        #[expect(clippy::useless_conversion, reason = "both are 32 bits wide on some boards")]
        let (seconds, nanoseconds) = (i64::from(time.tv_sec), i64::from(time.tv_nsec));
        seconds * 1_000_000 + nanoseconds / 1_000
    }

    fn is_synchronised(&self) -> bool {
        // SAFETY: all zeros is a `timex`; with `modes` 0 the call changes nothing and fills it in.
        let (state, timex) = unsafe {
            let mut timex: libc::timex = std::mem::zeroed();
            (libc::adjtimex(&raw mut timex), timex)
        };
        if state == -1 {
            let error = std::io::Error::last_os_error();
            if !self.is_said.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the kernel does not say whether the clock is right, so it never counts as right: is adjtimex filtered?");
            }
            return false;
        }
        state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_a_name_and_its_clock_goes_on() {
        let timepiece = SystemTimepiece::new();
        let before = timepiece.boot_us();
        assert!(before > 0 && timepiece.boot_us() >= before);
        assert_eq!(timepiece.boot_id(), SystemTimepiece::new().boot_id());
        // Nothing is known about this machine; that it answers is what counts.
        let _ = timepiece.is_synchronised();
    }

    #[test]
    fn boot_ids_are_read_as_the_kernel_writes_them() {
        let id = BootId::parse("bf8a565c-0c36-4d65-b349-d135442de544\n").unwrap();
        assert_eq!(id.to_string(), "bf8a565c0c364d65b349d135442de544");
        for wrong in ["", "bf8a565c", "zz8a565c-0c36-4d65-b349-d135442de544", "bf8a565c-0c36-4d65-b349-d135442de54400"]
        {
            assert_eq!(BootId::parse(wrong), None);
        }
    }
}
