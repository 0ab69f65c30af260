//! Requests of an object store, from threads that wait for them, and what their failures mean.
//!
//! Owns:     the runtime that requests run on; how patient they are; errors in words of a disk.
//! Does not: know what is stored.
//!
//! A store that did not answer a moment ago is not waited for as long the next time: otherwise whoever cleans up after a
//! failure would take longer than the failure.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Clock;
use object_store::ObjectStore;
use object_store::client::{HttpError, HttpErrorKind};

/// How long requests are not patient after one that was not answered.
const IMPATIENT: Duration = Duration::from_secs(10);

/// Tries of a put that has certainly not reached the store.
const UNREACHED_TRIES: u32 = 4;

/// Tries to find out what became of one that may have, and the time after which there is no further one.
const IN_DOUBT_TRIES: u32 = 30;
const IN_DOUBT_MAX: Duration = Duration::from_secs(60);

/// Characters of a store's answer that are told: some send pages.
const REASON_CHARS_MAX: usize = 400;

/// See the module.
pub(crate) struct Calls {
    /// For errors.
    name: String,
    patient: Arc<dyn ObjectStore>,
    once: Arc<dyn ObjectStore>,
    /// `None` only while this is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    clock: Arc<dyn Clock>,
    /// Between two tries.
    pause_max: Duration,
    away_until: Mutex<Duration>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The clients hold secrets.
        f.debug_struct("Calls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Whoever drops this may be on a thread that must not wait.
            runtime.shutdown_background();
        }
    }
}

impl Calls {
    pub(super) fn new(
        name: String,
        [patient, once]: [Arc<dyn ObjectStore>; 2],
        pause_max: Duration,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Calls> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name("object-store").enable_all().build()?;
        Ok(Calls { name, patient, once, runtime: Some(runtime), clock, pause_max, away_until: Mutex::default() })
    }

    pub(super) fn tries(&self) -> Tries<'_> {
        Tries::new(&*self.clock)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("there until this is dropped")
    }

    /// Does `call`, which is tried again as often as is reasonable. Blocks.
    pub(super) fn run<T, F>(&self, call: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        self.noted(self.wait(call(Arc::clone(if self.is_away() { &self.once } else { &self.patient }))))
    }

    /// Whether the store did not answer a moment ago.
    fn is_away(&self) -> bool {
        self.clock.monotonic() < *self.away_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// If the store did not answer a moment ago: it is not asked.
    pub(super) fn check_there(&self) -> io::Result<()> {
        if !self.is_away() {
            return Ok(());
        }
        let reason = format!("the object store of {} did not answer a moment ago", self.name);
        Err(io::Error::new(io::ErrorKind::NotConnected, reason))
    }

    /// Does `call` once. Blocks.
    pub(super) fn once<T, F>(&self, call: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        self.noted(self.wait(call(Arc::clone(&self.once))))
    }

    /// Waits for `future`, on whatever thread: also on one of another runtime.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = sync_channel(1);
        self.runtime().spawn(async move {
            let _ = done.send(future.await);
        });
        match result.recv() {
            Ok(result) => result.map_err(|e| failure(&self.name, e)),
            Err(_) => Err(io::Error::other(format!("{}: a request was given up", self.name))),
        }
    }

    /// Has `future` done without waiting for it.
    pub(super) fn in_background(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(future);
    }

    /// Waits before the next try, after so many that failed.
    pub(super) fn pause(&self, failed: u32) {
        let time = (self.pause_max / 20 * 2_u32.saturating_pow(failed.min(8))).min(self.pause_max);
        #[expect(clippy::disallowed_methods, reason = "a pause between two tries is not waiting for an event")]
        let _ = self.wait(async move {
            tokio::time::sleep(time).await;
            Ok(())
        });
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        let until = match &result {
            Err(e) if is_away(e) => self.clock.monotonic() + IMPATIENT,
            _ => Duration::ZERO,
        };
        *self.away_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        result
    }
}

/// Whether an error means that the store did not answer, or not now: nothing is said about what it holds.
pub(crate) fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::NotConnected | K::TimedOut | K::ResourceBusy)
}

/// What a put that was not answered has left: perhaps an object, perhaps none, perhaps one that is still to come.
#[derive(Debug)]
pub(super) struct InDoubt(io::Error);

impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it may or may not have been stored: {}", self.0)
    }
}

impl Error for InDoubt {}

/// The tries of one put.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    clock: &'a dyn Clock,
    since: Duration,
    count: u32,
    may_stand: bool,
}

impl Tries<'_> {
    pub(super) fn new(clock: &dyn Clock) -> Tries<'_> {
        Tries { clock, since: clock.monotonic(), count: 0, may_stand: false }
    }

    /// The try failed with `error`; `Some` is what the whole put failed with.
    pub(super) fn failed(&mut self, error: io::Error) -> Option<io::Error> {
        match error.kind() {
            io::ErrorKind::NotConnected => self.again(error),
            _ if is_away(&error) => self.in_doubt(error),
            // That this try was refused says nothing of an earlier one.
            _ if self.may_stand => self.again(error),
            _ => Some(error),
        }
    }

    /// The store refused it without having an object of that name.
    pub(super) fn refused(&mut self, error: io::Error) -> Option<io::Error> {
        let error = io::Error::new(io::ErrorKind::ResourceBusy, error.to_string());
        self.again(error)
    }

    /// What was sent may have been stored.
    pub(super) fn in_doubt(&mut self, error: io::Error) -> Option<io::Error> {
        self.may_stand = true;
        self.again(error)
    }

    fn again(&mut self, error: io::Error) -> Option<io::Error> {
        self.count += 1;
        let is_late = self.clock.monotonic().saturating_sub(self.since) >= IN_DOUBT_MAX;
        match self.may_stand {
            true if self.count >= IN_DOUBT_TRIES || is_late => {
                Some(io::Error::new(io::ErrorKind::TimedOut, InDoubt(error)))
            }
            false if self.count >= UNREACHED_TRIES => Some(error),
            _ => None,
        }
    }

    /// How many have failed.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

/// An error of the store in words of a disk.
pub(super) fn failure(name: &str, error: object_store::Error) -> io::Error {
    use object_store::Error as E;
    let reason = reason(&error);
    let kind = match &error {
        // Not the object: all of them.
        E::NotFound { .. } if reason.contains("NoSuchBucket") => io::ErrorKind::InvalidInput,
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => io::ErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => kind_of(&error, &reason),
    };
    let away = matches!(kind, io::ErrorKind::NotConnected | io::ErrorKind::TimedOut | io::ErrorKind::ResourceBusy);
    let says = if away { "does not answer" } else { "says" };
    io::Error::new(kind, format!("the object store of {name} {says}: {reason}"))
}

fn kind_of(error: &object_store::Error, reason: &str) -> io::ErrorKind {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Connect => io::ErrorKind::NotConnected,
                _ => io::ErrorKind::TimedOut,
            };
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind();
        }
        next = error.source();
    }
    // The library gives the status in the text only.
    let is_status = |status: &str| reason.contains(&format!("status code: {status}"));
    let is_busy = ["429", "500", "502", "503", "504"].iter().any(|status| is_status(status));
    if is_busy || reason.contains("error response") { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other }
}

/// What the store said, in one line.
fn reason(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use model::SystemClock;

    use super::*;

    fn error(kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, "x")
    }

    #[test]
    fn a_put_that_has_not_reached_the_store_fails_soon_and_leaves_no_doubt() {
        let clock = SystemClock::new();
        let mut tries = Tries::new(&clock);
        let failed = std::iter::repeat_with(|| tries.failed(error(io::ErrorKind::NotConnected))).flatten().next();
        assert_eq!(failed.unwrap().kind(), io::ErrorKind::NotConnected);
        assert_eq!(tries.count, UNREACHED_TRIES);
        let refused = Tries::new(&clock).failed(error(io::ErrorKind::PermissionDenied)).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn after_a_try_that_was_not_answered_no_refusal_is_taken_for_the_truth() {
        let clock = SystemClock::new();
        let mut tries = Tries::new(&clock);
        assert!(tries.failed(error(io::ErrorKind::TimedOut)).is_none());
        assert!(tries.failed(error(io::ErrorKind::PermissionDenied)).is_none());
        let failed = std::iter::repeat_with(|| tries.failed(error(io::ErrorKind::NotConnected))).flatten().next();
        assert!(failed.unwrap().get_ref().unwrap().is::<InDoubt>());
        assert_eq!(tries.count, IN_DOUBT_TRIES);
    }
}
