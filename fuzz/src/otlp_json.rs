//! OpenTelemetry's metrics, as JSON.

use decode::otlp::protobuf_of_json;

use crate::memory::within;
use crate::otlp_protobuf;

/// The body, and what it becomes.
pub fn check(body: &[u8]) {
    let Ok(message) = within(4096 + 128 * body.len(), || protobuf_of_json(body)) else { return };
    assert!(message.len() <= 8 * body.len(), "{} bytes of {}", message.len(), body.len());
    otlp_protobuf::check(&message);
}
