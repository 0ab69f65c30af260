//! Line protocol: cases, the crate `influxdb-line-protocol` as oracle, and hostile bytes.

use decode::line_protocol::{Decoded, Options, Precision, parse};

use crate::support::readings;

mod cases;
mod hostile;
mod oracle;

const NOW_US: i64 = 1_000_000_000_000_000;

fn parse_as(precision: Precision, body: &[u8]) -> Decoded {
    parse(body, &Options { schema: "public", precision, now_us: NOW_US, errors_max: 1000 })
}

/// Readings and refusals (`!line message`), in that order.
fn shown(decoded: &Decoded) -> Vec<String> {
    let mut shown = readings(&decoded.batches);
    shown.extend(decoded.errors.iter().map(|error| format!("!{} {}", error.line, error.message)));
    shown
}
