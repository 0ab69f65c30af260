//! More than the server can take, over HTTP; over MQTT it is in `mqtt_overload`.

use std::time::Duration;

use tests::Eden;
use tests::scenario::{Over, Overload, overload};

/// P1 and P10. Bodies may take 8 MiB here and rows in memory 16 MiB. A body that is being read is there unpacked and as columns too, and
/// flushes, the log, and threads need most of the rest. Without budgets 32 clients alone would be more.
#[test]
fn a_server_that_is_offered_four_times_what_it_can_take_over_http_stays_in_its_memory_and_loses_nothing() {
    let mut eden = Eden::options("http-overload")
        .setting("EDEN_HTTP_BODIES_MEMORY", "8MiB")
        .setting("EDEN_STORAGE_MEMORY", "16MiB")
        .setting("EDEN_STORAGE_TABLE_MEMORY", "8MiB")
        .setting("MIMALLOC_PURGE_DELAY", "0")
        .start();
    let report = overload(
        &mut eden,
        &Overload {
            over: Over::Http,
            calm: Duration::from_secs(3),
            storm: Duration::from_secs(8),
            clients: 32,
            more_bytes_max: 360 << 20,
        },
    );
    println!("{report}");
}
