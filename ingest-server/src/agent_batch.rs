//! An agent's batch by its name: what its head line says, as storage is told. The same whichever way it came.

use decode::line_protocol::AgentHeader;
use storage::AgentBatch;

/// The name of the batch whose whole body, decompressed, is `body`.
pub(crate) fn named(header: AgentHeader, body: &[u8]) -> AgentBatch {
    AgentBatch {
        agent: header.agent.into(),
        epoch: header.epoch,
        seq: header.seq,
        crc: crc32c::crc32c(body),
        gaps: header.gaps,
    }
}
