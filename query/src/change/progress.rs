//! How far a statement that changes something has come, for the error if it does not end well.
//!
//! Owns:     what is counted, and how an error says it.
//! Does not: end with the statement's future: a time limit drops that, and what was done must be told all the same.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::QueryError;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    statement: OnceLock<&'static str>,
    /// Rows whose removal was handed to storage.
    begun_rows: AtomicU64,
    /// Rows whose removal is durable.
    done_rows: AtomicU64,
    /// Whether storage works on something that has no rows to count.
    is_busy: AtomicBool,
}

impl Progress {
    /// Names the statement.
    pub(super) fn name(&self, statement: &'static str) {
        let _ = self.statement.set(statement);
    }

    /// Rows are handed to storage.
    pub(super) fn begin_rows(&self, rows: usize) {
        self.begun_rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// The rows handed to storage before were not taken, for sure.
    pub(super) fn take_back(&self, rows: usize) {
        self.begun_rows.fetch_sub(rows as u64, Ordering::Relaxed);
    }

    /// All rows handed to storage are durable; gives their number.
    pub(super) fn rows_done(&self) -> u64 {
        let rows = self.begun_rows.load(Ordering::Relaxed);
        self.done_rows.store(rows, Ordering::Relaxed);
        rows
    }

    /// Storage begins or ends work that goes on even if nobody waits for it.
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.is_busy.store(is_busy, Ordering::Relaxed);
    }

    /// What ended the statement, and what stays of it.
    pub(crate) fn explain(&self, error: QueryError) -> QueryError {
        let Some(&statement) = self.statement.get() else { return error };
        let begun = self.begun_rows.load(Ordering::Relaxed);
        if self.is_busy.load(Ordering::Relaxed) {
            return QueryError::Pending { statement, cause: Box::new(error) };
        }
        if begun == 0 {
            return error;
        }
        let done = self.done_rows.load(Ordering::Relaxed);
        QueryError::Unfinished { statement, done_rows: done, begun_rows: begun, cause: Box::new(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_stays_of_a_statement() {
        let progress = Progress::default();
        assert!(matches!(progress.explain(QueryError::Cancelled), QueryError::Cancelled));
        progress.name("DELETE");
        assert!(matches!(progress.explain(QueryError::Cancelled), QueryError::Cancelled));
        progress.begin_rows(10);
        let shown = progress.explain(QueryError::Cancelled).to_string();
        assert!(shown.starts_with("DELETE ended after 0 to 10 rows: the statement was cancelled;"), "{shown}");
        assert_eq!(progress.rows_done(), 10);
        progress.begin_rows(5);
        progress.take_back(5);
        let shown = progress.explain(QueryError::Cancelled).to_string();
        assert!(shown.starts_with("DELETE ended after 10 rows: the statement was cancelled;"), "{shown}");
        progress.set_busy(true);
        let shown = progress.explain(QueryError::Cancelled).to_string();
        assert!(shown.contains("DELETE goes on"), "{shown}");
    }
}
