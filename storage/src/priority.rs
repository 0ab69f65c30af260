//! Which threads go first when there are not enough cores.
//!
//! Owns:     the nice values of threads. Those that take readings in, sync, apply and flush have the one of the process.
//! Does not: wait or pause: a thread that yields has all of a core that nobody else wants.

/// Threads that yield to those which take readings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yielding {
    /// Whoever asks waits for it.
    Query,
    /// Nobody waits for it: merging shards, retention, vacuum, the scrub.
    Background,
}

impl Yielding {
    /// What is added to the process's nice value. At 5 a thread gets a third of what one at 0 gets, at 10 a tenth (the
    /// weights of Linux's scheduler, `sched_prio_to_weight` in kernel/sched/core.c).
    fn nice(self) -> i32 {
        match self {
            Yielding::Query => 5,
            Yielding::Background => 10,
        }
    }

    /// Lowers the priority of the thread that calls. Only Linux has priorities of threads; elsewhere nothing happens.
    pub fn apply(self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{getpid, getpriority_process, setpriority_process};
            // That of the first thread: the one that calls may have one of these already, from the thread that made it.
            let own = getpriority_process(Some(getpid())).unwrap_or(0);
            // On Linux `None`, which is "this process" in POSIX, is the calling thread.
            if let Err(error) = setpriority_process(None, own.saturating_add(self.nice()).min(19)) {
                tracing::warn!(%error, "lower the priority of a thread");
            }
        }
    }
}
