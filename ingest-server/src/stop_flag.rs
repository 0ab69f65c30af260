//! A flag that threads wait on: it is how they pace themselves and how they are told to end.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Raised once, seen by all clones.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<(Mutex<bool>, Condvar)>);

impl StopFlag {
    /// A flag that is down.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag and wakes all that wait.
    pub fn raise(&self) {
        let (raised, changed) = &*self.0;
        *raised.lock().expect("no holder of this lock panics") = true;
        changed.notify_all();
    }

    /// Waits until the flag is up, at most for `period`; tells whether it is up.
    pub fn wait(&self, period: Duration) -> bool {
        let (raised, changed) = &*self.0;
        let raised = raised.lock().expect("no holder of this lock panics");
        let (raised, _) =
            changed.wait_timeout_while(raised, period, |raised| !*raised).expect("no holder of this lock panics");
        *raised
    }

    /// Whether the flag is up.
    pub fn is_raised(&self) -> bool {
        *self.0.0.lock().expect("no holder of this lock panics")
    }
}
