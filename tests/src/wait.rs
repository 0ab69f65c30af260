//! The one place where a test waits for another process: a condition, polled until a deadline.

use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_millis(2);

/// The present, for measuring real processes.
#[expect(clippy::disallowed_methods, reason = "real processes run on real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks until the answer is there; `None` after `within`.
pub fn until<T>(within: Duration, mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + within;
    loop {
        if let Some(answer) = answer() {
            return Some(answer);
        }
        if now() >= deadline {
            return None;
        }
        pause();
    }
}

/// Lets time pass, for real processes to go on.
pub fn pass(time: Duration) {
    let _: Option<()> = until(time, || None);
}

#[expect(clippy::disallowed_methods, reason = "another process's state has no event to wait for")]
fn pause() {
    std::thread::sleep(POLL_EVERY);
}
