//! The stored tables against the oracle, in the two ways that kill scenarios share.

use crate::delta_log::DeltaLog;
use crate::oracle::Oracle;
use crate::{Eden, Rows};

/// After a restart: acked ⊆ stored ⊆ attempted, values equal; what is seen now has to stay. Returns the rows compared.
pub(super) fn after_a_restart(eden: &Eden, oracle: &mut Oracle, tables: &[&str]) -> u64 {
    let mut compared = 0;
    for table in tables {
        let rows = match eden.client().sql(&format!("SELECT * FROM {table}")) {
            Ok(answer) => Rows::new(answer),
            Err(_) if oracle.acked_keys(table) == 0 => continue,
            Err(error) => panic!("{error}"),
        };
        if let Err(differences) = oracle.check(table, &rows) {
            panic!("after a kill: {differences}");
        }
        oracle.settle(table, &rows);
        compared += rows.len() as u64;
    }
    compared
}

/// Stops the server; then the Delta tables alone hold exactly the rows that SQL showed (P4, P5).
pub(super) fn after_a_clean_stop(eden: &mut Eden, oracle: &Oracle) {
    let status = eden.stop();
    assert!(status.success(), "a clean stop ended with {status}");
    for table in oracle.tables() {
        let stored = DeltaLog::read(&eden.table(&table)).rows();
        assert_eq!(stored, oracle.acked_keys(&table) as u64, "rows of {table} in its shards after a clean stop");
    }
}
