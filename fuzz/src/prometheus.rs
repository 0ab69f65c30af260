//! Prometheus remote write, packed and not. The first byte says which.

use decode::prometheus::{Version, decode};
use decode::unpack;

use crate::metrics;

/// What the server takes at most, unpacked, by default 64 MiB: less, for more runs.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The body.
pub fn check(bytes: &[u8]) {
    let Some((&which, body)) = bytes.split_first() else { return };
    let version = if which & 1 == 0 { Version::One } else { Version::Two };
    let unpacked;
    let body = match which & 2 == 0 {
        true => body,
        false => match unpack::snappy(body, BODY_BYTES_MAX) {
            Ok(body) => {
                unpacked = body;
                &*unpacked
            }
            Err(_) => return,
        },
    };
    metrics::check(body, |take| {
        let totals = decode(body, version, "public", take)?;
        Ok(u64::from(totals.samples) + u64::from(totals.histograms))
    });
}
