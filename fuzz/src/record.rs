//! Records of the server's log, whose checksums held.

use model::record::{self, Record};

use crate::memory::within;

/// What is read is written and read as the same.
pub fn check(bytes: &[u8]) {
    let Ok(record) = within(4096 + 64 * bytes.len(), || record::decode(bytes)) else { return };
    let written = encoded(&record);
    let again = record::decode(&written).expect("what we write we read");
    // By their bytes, since NaN is not itself.
    assert_eq!(encoded(&again), written, "{record:?}");
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    match record {
        Record::Batch { table, source, batch } => record::encode_batch(*table, source, batch, &mut out),
        Record::AgentBatch(batch) => record::encode_agent_batch(batch, &mut out),
        Record::AgentStatus(status) => record::encode_agent_status(status, &mut out),
        Record::AgentState(state) => record::encode_agent_state(state, &mut out),
        Record::Removal { table, source, removal } => record::encode_removal(*table, source, removal, &mut out),
    }
    out
}
