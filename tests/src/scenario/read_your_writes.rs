//! P6: a query that starts after an ack sees that reading.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Eden;
use crate::reading::Reading;

const CLIENTS: u64 = 64;

/// Writes and reads back `pairs` readings from 64 clients at once; the number of stale answers is 0.
///
/// # Panics
/// When a query does not see the write before it.
pub fn read_your_writes(pairs: u64) {
    let eden = Eden::options("read-your-writes").setting("EDEN_QUERY_CONCURRENT_MAX", "128").start();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (eden, next) = (&eden, &next);
            scope.spawn(move || {
                let mut connection = eden.client();
                let query = format!("SELECT max(n) FROM pings WHERE client = 'c{client}'");
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= pairs {
                        return;
                    }
                    let time_us = 1_780_272_000_000_000 + n as i64;
                    let reading =
                        Reading::at("pings", time_us).tag("client", &format!("c{client}")).field("n", n as i64);
                    let outcome = connection.write(&[reading]);
                    assert_eq!(outcome, crate::Outcome::Acked);
                    let answer = connection.sql(&query).unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(answer["rows"][0][0].as_u64(), Some(n), "stale answer for client {client} (P6)");
                }
            });
        }
    });
}
