//! The statements that run or wait to.
//!
//! Owns:     their list, as `sys.jobs` shows it.
//! Does not: start or end them (`run` does).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Of a statement's text, what is shown: statements may have some MiB.
const SHOWN_BYTES_MAX: usize = 4 << 10;

/// A statement as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Counted from the start of the server.
    pub(crate) number: u64,
    /// Its text, or the beginning of it.
    pub(crate) sql: String,
    /// Who asked, where that is known.
    pub(crate) user: Option<String>,
    /// When it came in, in microseconds since 1970.
    pub(crate) since_us: i64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: BTreeMap<u64, Arc<Shown>>,
    last: u64,
}

/// Shows a statement until it is dropped.
pub(crate) struct Showing<'a> {
    running: &'a Running,
    number: u64,
}

impl Running {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Shows a statement that came in at `since_us`.
    pub(crate) fn show(&self, sql: &str, user: Option<&str>, since_us: i64) -> Showing<'_> {
        let end = sql.floor_char_boundary(SHOWN_BYTES_MAX.min(sql.len()));
        let mut inner = self.inner();
        inner.last += 1;
        let number = inner.last;
        let shown = Shown { number, sql: sql[..end].to_owned(), user: user.map(str::to_owned), since_us };
        inner.all.insert(number, Arc::new(shown));
        Showing { running: self, number }
    }

    /// The statements, in the order in which they came.
    pub(crate) fn all(&self) -> Vec<Arc<Shown>> {
        self.inner().all.values().cloned().collect()
    }
}

impl Drop for Showing<'_> {
    fn drop(&mut self) {
        self.running.inner().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_shown_while_it_runs_and_by_its_beginning() {
        let running = Running::default();
        let first = running.show("SELECT 1", Some("me"), 1);
        let long = format!("SELECT '{}'", "ü".repeat(SHOWN_BYTES_MAX));
        let second = running.show(&long, None, 2);
        let all = running.all();
        assert_eq!((all[0].number, all[0].sql.as_str(), all[0].user.as_deref()), (1, "SELECT 1", Some("me")));
        assert!(all[1].sql.len() <= SHOWN_BYTES_MAX && long.starts_with(&all[1].sql));
        drop(first);
        assert_eq!(running.all().iter().map(|shown| shown.number).collect::<Vec<_>>(), [2]);
        drop(second);
        assert!(running.all().is_empty());
    }
}
