//! Statements that clients prepared.
//!
//! Owns:     their handles, their bound values, and forgetting them.
//!
//! A client that dies does not close what it prepared: a statement that nobody used for [`AGE_MAX`] goes, and of more than
//! [`STATEMENTS_MAX`] the one that was not used for longest.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use query::ScalarValue;

/// Prepared statements of all clients.
const STATEMENTS_MAX: usize = 10_000;

/// How long a statement stays that nobody uses.
const AGE_MAX: Duration = Duration::from_secs(3_600);

/// A statement and the values for its parameters, a row for each time it is to run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prepared {
    pub(super) sql: String,
    pub(super) rows: Vec<Vec<ScalarValue>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PreparedStatements(Mutex<HashMap<String, (Prepared, Duration)>>);

impl PreparedStatements {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Prepared, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a statement; its handle.
    pub(super) fn add(&self, sql: String, now: Duration) -> String {
        let handle = uuid::Uuid::new_v4().to_string();
        let mut statements = self.lock();
        if statements.len() >= STATEMENTS_MAX {
            statements.retain(|_, (_, used)| now.saturating_sub(*used) < AGE_MAX);
        }
        if statements.len() >= STATEMENTS_MAX {
            let oldest = statements.iter().min_by_key(|(_, (_, used))| *used).map(|(handle, _)| handle.clone());
            oldest.map(|oldest| statements.remove(&oldest));
        }
        statements.insert(handle.clone(), (Prepared { sql, rows: Vec::new() }, now));
        handle
    }

    /// The statement, if it is there.
    pub(super) fn get(&self, handle: &str, now: Duration) -> Option<Prepared> {
        let mut statements = self.lock();
        let (statement, used) = statements.get_mut(handle)?;
        *used = now;
        Some(statement.clone())
    }

    /// Gives it values; false if it is not there.
    pub(super) fn bind(&self, handle: &str, rows: Vec<Vec<ScalarValue>>, now: Duration) -> bool {
        let mut statements = self.lock();
        let Some((statement, used)) = statements.get_mut(handle) else { return false };
        (statement.rows, *used) = (rows, now);
        true
    }

    /// Forgets it.
    pub(super) fn close(&self, handle: &str) {
        self.lock().remove(handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_that_was_not_used_for_longest_makes_room() {
        let statements = PreparedStatements::default();
        let second = Duration::from_secs;
        let first = statements.add("SELECT 1".into(), second(0));
        let others: Vec<String> =
            (1..STATEMENTS_MAX).map(|i| statements.add(format!("SELECT {i}"), second(1))).collect();
        assert!(statements.get(&first, second(2)).is_some());
        let newest = statements.add("SELECT 2".into(), second(3));
        assert!(statements.get(&first, second(3)).is_some() && statements.get(&newest, second(3)).is_some());
        assert_eq!(others.iter().filter(|handle| statements.get(handle, second(3)).is_none()).count(), 1);
        assert!(statements.bind(&first, vec![vec![1_i64.into()]], second(3)));
        assert_eq!(statements.get(&first, second(3)).unwrap().rows.len(), 1);
        statements.close(&first);
        assert!(!statements.bind(&first, Vec::new(), second(3)));
    }
}
