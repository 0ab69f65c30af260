//! Who is between judging rows by a table's columns and having them in memory; and tables that nobody may enter.
//!
//! Owns:     counting requests inside, by table, and closing a table for a change of its columns' types.
//! Does not: judge rows (`admit`) or change columns (`evolve`).
//!
//! A row is judged by the types that its table has, logged in them, and only later applied. Were a type to change in
//! between, the row would be one of a table that is no longer. So a change closes the table: whoever is inside
//! finishes, whoever comes waits.
//!
//! Invariants
//!  1. A request enters all its tables at once and holds nothing while it waits, so no two can wait for each other.
//!  2. A request is inside until its records are applied, and `applied` tells so, or have failed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use model::TableName;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: HashMap<TableName, usize>,
    closed: HashSet<TableName>,
}

/// Leave to be inside some tables, given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    tables: Vec<TableName>,
}

/// A table that nobody is inside; open again when dropped.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    gate: &'a Gate,
    table: TableName,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Enters `tables`, whether they exist or not; `None` if one was closed all the time up to `limit`.
    pub(crate) fn enter(self: &Arc<Self>, mut tables: Vec<TableName>, limit: Duration) -> Option<Pass> {
        tables.sort_unstable();
        tables.dedup();
        let is_closed = |state: &mut State| !state.closed.is_empty() && tables.iter().any(|t| state.closed.contains(t));
        let waited = self.changed.wait_timeout_while(self.state(), limit, is_closed);
        let (mut state, waited) = waited.expect("no holder of this lock panics");
        if waited.timed_out() {
            return None;
        }
        for table in &tables {
            *state.inside.entry(table.clone()).or_default() += 1;
        }
        drop(state);
        Some(Pass { gate: Arc::clone(self), tables })
    }

    /// Closes `table` and waits until nobody is inside; `None` if that took longer than `limit`.
    pub(crate) fn close(&self, table: &TableName, limit: Duration) -> Option<Closed<'_>> {
        let is_closed = |state: &mut State| state.closed.contains(table);
        let waited = self.changed.wait_timeout_while(self.state(), limit, is_closed);
        let (mut state, waited) = waited.expect("no holder of this lock panics");
        if waited.timed_out() {
            return None;
        }
        state.closed.insert(table.clone());
        let closed = Closed { gate: self, table: table.clone() };
        let is_busy = |state: &mut State| state.inside.contains_key(table);
        let (state, waited) =
            self.changed.wait_timeout_while(state, limit, is_busy).expect("no holder of this lock panics");
        // Before `closed` may be dropped, which takes it again.
        drop(state);
        (!waited.timed_out()).then_some(closed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        for table in &self.tables {
            let inside = state.inside.get_mut(table).expect("whoever leaves is inside");
            *inside -= 1;
            if *inside == 0 {
                state.inside.remove(table);
            }
        }
        if !state.closed.is_empty() {
            self.gate.changed.notify_all();
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.gate.state().closed.remove(&self.table);
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_table_is_closed_only_when_nobody_is_inside_and_nobody_enters_before_it_is_open() {
        let gate = Arc::new(Gate::default());
        let (a, b) = (TableName::public("a"), TableName::public("b"));
        let pass = gate.enter(vec![a.clone(), b.clone(), a.clone()], LONG).unwrap();
        assert!(gate.close(&a, Duration::ZERO).is_none());
        // Which opened it again.
        let other = gate.enter(vec![a.clone()], LONG).unwrap();
        drop(pass);
        let closed_b = gate.close(&b, LONG).unwrap();
        assert!(gate.enter(vec![a.clone(), b.clone()], Duration::ZERO).is_none());
        drop(other);
        let closed_a = gate.close(&a, Duration::ZERO).expect("whoever waited in vain is not inside");
        drop((closed_a, closed_b));
        assert!(gate.enter(vec![a, b], Duration::ZERO).is_some());
        assert!(gate.state().inside.is_empty());
    }

    #[test]
    fn requests_for_many_tables_and_changes_of_them_do_not_wait_for_each_other_forever() {
        let gate = Arc::new(Gate::default());
        let tables: Vec<TableName> = (0..3).map(|n| TableName::public(&n.to_string())).collect();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (gate, tables) = (&gate, &tables);
                scope.spawn(move || {
                    for n in 0..2000 {
                        let wanted = vec![tables[(writer + n) % 3].clone(), tables[(writer + 2 * n) % 3].clone()];
                        drop(gate.enter(wanted, LONG).unwrap());
                    }
                });
            }
            for table in &tables {
                let gate = &gate;
                scope.spawn(move || (0..500).for_each(|_| drop(gate.close(table, LONG).unwrap())));
            }
        });
    }
}
