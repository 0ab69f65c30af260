//! Ctrl-C and SIGTERM while a file is on its way: the batch that is being sent is awaited, and then it is told how far
//! things are. A second signal ends the process at once, which is safe too.
//!
//! Invariant: outside of [`during`] a signal ends the process, as if nobody had taken it over.

use std::sync::{Mutex, OnceLock, mpsc};

use crate::cli::process::{INTERRUPTED, StopSignals};
use crate::stop_flag::StopFlag;

/// Signals belong to the process, so this does too: the flag of the work that goes on, if any does.
static WORK: Mutex<Option<StopFlag>> = Mutex::new(None);
static WATCH: OnceLock<()> = OnceLock::new();

/// Runs `work` with a flag that a signal raises.
pub(crate) fn during<T>(work: impl FnOnce(&StopFlag) -> T) -> T {
    let flag = StopFlag::new();
    set(Some(flag.clone()));
    WATCH.get_or_init(|| {
        // Without this thread signals end the process, as they do anyway.
        let (tell, is_watching) = mpsc::channel();
        if std::thread::Builder::new().name("eden-signals".into()).spawn(move || watch(tell)).is_ok() {
            let _ = is_watching.recv();
        }
    });
    let result = work(&flag);
    set(None);
    result
}

fn set(flag: Option<StopFlag>) {
    *WORK.lock().expect("no holder of this lock panics") = flag;
}

/// Lives as long as the process.
fn watch(is_watching: mpsc::Sender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let Ok(mut signals) = StopSignals::new() else { return };
        let _ = is_watching.send(());
        loop {
            signals.received().await;
            let work = WORK.lock().expect("no holder of this lock panics").clone();
            match work {
                Some(flag) if !flag.is_raised() => flag.raise(),
                #[expect(clippy::exit, reason = "the operator asked for exactly this")]
                _ => std::process::exit(INTERRUPTED),
            }
        }
    });
}
