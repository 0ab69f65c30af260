//! Line protocol: cases, the crate `influxdb-line-protocol` as oracle, and hostile bytes.

mod cases;
mod compare;
mod hostile;
mod oracle;
mod sound;

use compare::{NOW_US, parse_as};
use decode::line_protocol::Decoded;

use crate::support::readings;

/// Readings and refusals (`!line message`), in that order.
fn shown(decoded: &Decoded) -> Vec<String> {
    let mut shown = readings(&decoded.batches);
    shown.extend(decoded.errors.iter().map(|error| format!("!{} {}", error.line, error.message)));
    shown
}
