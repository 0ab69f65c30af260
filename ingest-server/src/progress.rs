//! How far a command's work is, on standard error: one line that changes on a terminal, else a line now and then.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use model::{Clock, SystemClock};

/// Between two changes of the line on a terminal: often enough to look alive.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
/// Between two lines anywhere else: seldom enough for a log.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// Shows what a command is at.
pub struct Progress {
    clock: SystemClock,
    on_terminal: bool,
    shown_at: Duration,
    has_shown: bool,
}

impl Progress {
    /// Nothing shown yet; the first line comes after a pause, so that quick work stays quiet.
    pub fn new() -> Progress {
        let clock = SystemClock::new();
        let shown_at = clock.monotonic();
        Progress { clock, on_terminal: io::stderr().is_terminal(), shown_at, has_shown: false }
    }

    /// Shows the line that `line` makes, if it is time for one.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let now = self.clock.monotonic();
        let pause = if self.on_terminal { TERMINAL_PAUSE } else { LOG_PAUSE };
        if now.saturating_sub(self.shown_at) < pause {
            return;
        }
        self.shown_at = now;
        self.has_shown = true;
        let mut err = io::stderr().lock();
        let _ = if self.on_terminal { write!(err, "\r{}\x1b[K", line()) } else { writeln!(err, "{}", line()) };
    }

    /// Takes the line off the terminal, for another one.
    pub fn clear(&mut self) {
        if self.on_terminal && std::mem::take(&mut self.has_shown) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}

/// `12 % of 3.4 GB`.
pub fn share(done_bytes: u64, total_bytes: u64) -> String {
    let percent = done_bytes.saturating_mul(100).checked_div(total_bytes).unwrap_or_default().min(100);
    format!("{percent} % of {}", size(total_bytes))
}

/// Bytes with a unit that keeps the number short.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_of_a_readable_size() {
        assert_eq!(share(0, 0), "0 % of 0 B");
        assert_eq!(share(1, 2_000_000), "0 % of 2000 kB");
        assert_eq!(share(3_000_000_000, 4_000_000_000), "75 % of 4000 MB");
        assert_eq!(share(5, 4), "100 % of 4 B");
    }
}
