//! OpenTelemetry's metrics, as Protocol Buffers.

use decode::otlp;

use crate::metrics;

/// The body.
pub fn check(body: &[u8]) {
    metrics::check(body, |take| otlp::decode(body, 77, "public", take).map(|totals| u64::from(totals.points)));
}
