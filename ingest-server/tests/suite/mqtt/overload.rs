//! More than the server can take (P10).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::Clock as _;
use serde_json::json;

use super::{Raw, Setup, ShiftedClock, publish};

/// A sync of the slow disk takes so long.
const SYNC_TIME: Duration = Duration::from_millis(25);
/// How long the overload lasts.
const LOAD_TIME: Duration = Duration::from_secs(3);
/// Connections of each version.
const CLIENTS: u16 = 6;
/// What an MQTT 5 client may have in flight.
const RECEIVE_MAX: u16 = 64;

/// Makes syncs of the log take [`SYNC_TIME`], all but those that come in a moment in between, until told to stop.
fn slow_disk(setup: &Setup, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (faults, stop) = (setup.faults.clone(), Arc::clone(stop));
    let is_log = |path: &std::path::Path| path.extension().is_some_and(|name| name == "wal");
    faults.hold_syncs_of(is_log);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(SYNC_TIME);
            faults.release_syncs();
            // Whoever waits must notice.
            std::thread::park_timeout(Duration::from_millis(2));
            faults.hold_syncs_of(is_log);
        }
        faults.release_syncs();
    })
}

/// What a client has sent and was told.
struct Done {
    attempted: u16,
    acknowledged: BTreeSet<u16>,
}

fn reading(client: &str, id: u16) -> Vec<u8> {
    // About 1 kB each, so that memory is what runs out.
    format!("m,client={client},id={id} v={id},text=\"{}\" 1000", "x".repeat(900)).into_bytes()
}

fn id_of(packet: &[u8]) -> u16 {
    assert!(matches!(packet[..2], [0x40, 2]), "{packet:02x?}");
    u16::from_be_bytes([packet[2], packet[3]])
}

/// Sends without waiting for acknowledgements, but as far as the version makes it wait.
fn push(mut raw: Raw, client: &str, v5: bool, clock: &ShiftedClock, until: Duration) -> Done {
    let mut reader = Raw { stream: raw.stream.try_clone().unwrap(), v5 };
    let mut done = Done { attempted: 0, acknowledged: BTreeSet::new() };
    if v5 {
        while clock.monotonic() < until {
            while done.attempted - (done.acknowledged.len() as u16) < RECEIVE_MAX {
                done.attempted += 1;
                raw.publish_to("lp/x", 1, done.attempted, &reading(client, done.attempted));
            }
            done.acknowledged.insert(id_of(&reader.next()));
        }
    } else {
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let mut attempted = 0;
                while clock.monotonic() < until && attempted < u16::MAX {
                    attempted += 1;
                    raw.send_bytes(&publish(false, "lp/x", 1, attempted, &reading(client, attempted)));
                }
                attempted
            });
            while !writing.is_finished() {
                done.acknowledged.insert(id_of(&reader.next()));
            }
            done.attempted = writing.join().unwrap();
        });
    }
    while done.acknowledged.len() < usize::from(done.attempted) {
        done.acknowledged.insert(id_of(&reader.next()));
    }
    done
}

/// MQTT 5 is held back by Receive Maximum, older versions by not being read; the rest of the server goes on; what was
/// acknowledged is there; and afterwards all is as before.
#[test]
fn an_overloaded_server_holds_clients_back_and_loses_nothing() {
    let setup = Setup::start_with(|config| {
        config.mqtt.receive_max = RECEIVE_MAX.into();
        config.mqtt.messages_memory = ingest_server::config::ByteSize(512 << 10);
        config.mqtt.max_packet_bytes = ingest_server::config::ByteSize(64 << 10);
    });
    let mut before = setup.v311("before");
    before.publish(1, 1, "other v=1 1000");
    before.expect("40 02 00 01");
    let stop = Arc::new(AtomicBool::new(false));
    let disk = slow_disk(&setup, &stop);
    let clock = Arc::clone(&setup.clock);
    let until = clock.monotonic() + LOAD_TIME;
    let clients: Vec<(String, bool, Raw)> = (0..2 * CLIENTS)
        .map(|i| {
            let (v5, name) = (i % 2 == 0, format!("c{i}"));
            let raw = if v5 { setup.v5(&name) } else { setup.v311(&name) };
            (name, v5, raw)
        })
        .collect();
    let pushing: Vec<_> = clients
        .into_iter()
        .map(|(name, v5, raw)| {
            let clock = Arc::clone(&clock);
            std::thread::spawn(move || (push(raw, &name, v5, &clock, until), name))
        })
        .collect();
    // Whoever sends little is served too, if slowly; and nobody is cut off.
    let mut slowest = Duration::ZERO;
    for id in 2..20 {
        let sent = setup.clock.monotonic();
        before.publish(1, id, "other v=1 1000");
        before.expect(&format!("40 02 00 {id:02x}"));
        slowest = slowest.max(clock.monotonic() - sent);
        if clock.monotonic() > until {
            break;
        }
    }
    assert!(slowest < LOAD_TIME, "{slowest:?}");
    let all: Vec<(Done, String)> = pushing.into_iter().map(|one| one.join().unwrap()).collect();
    stop.store(true, Ordering::Relaxed);
    disk.join().unwrap();

    let mut attempted = 0;
    for (done, name) in &all {
        let rows = setup.rows(&format!("SELECT count(*) FROM m WHERE client = '{name}'"));
        assert_eq!(rows, json!([[done.acknowledged.len()]]), "{name}");
        assert_eq!(done.acknowledged.len(), usize::from(done.attempted), "{name}");
        attempted += usize::from(done.attempted);
    }
    let syncs = LOAD_TIME.as_millis() / SYNC_TIME.as_millis();
    let pauses = setup.metric("eden_mqtt_pauses_total");
    println!("{attempted} messages in about {syncs} syncs, {pauses} pauses, slowest of little {slowest:?}");
    assert!(pauses > 0, "memory was never short: there was no overload");
    assert_eq!(setup.metric("eden_mqtt_connections_broken_total{reason=\"receive_max\"}"), 0);
    // As before: ten in a row take no time worth the name.
    let sent = setup.clock.monotonic();
    for id in 1..=10 {
        before.publish(1, id, "other v=1 1000");
        before.expect(&format!("40 02 00 {id:02x}"));
    }
    let took = clock.monotonic() - sent;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// One that waits too long for memory is told so, in MQTT 5 by 0x97; what it sent is not acknowledged.
#[test]
fn a_large_packet_that_finds_no_memory_is_refused() {
    let setup = Setup::start_with(|config| {
        config.mqtt.messages_memory = ingest_server::config::ByteSize(1);
        config.mqtt.max_packet_bytes = ingest_server::config::ByteSize(256 << 10);
    });
    let text = "x".repeat(200_000);
    let payload = format!("m text=\"{text}\" 1000");
    let all = publish(true, "lp/x", 1, 1, payload.as_bytes());
    // Two that hold nearly all of it, and never end.
    let holders: Vec<Raw> = (0..2)
        .map(|i| {
            let mut raw = setup.v5(&format!("holder{i}"));
            raw.send_bytes(&all[..150_000]);
            raw
        })
        .collect();
    while setup.metric("eden_mqtt_received_bytes_total") < 300_000 {}
    let mut late = setup.v5("late");
    let sent = setup.clock.monotonic();
    late.send_bytes(&all);
    let packet = late.next();
    assert_eq!((packet[0], packet[2]), (0xe0, 0x97), "{packet:02x?}");
    let waited = setup.clock.monotonic() - sent;
    assert!(waited >= Duration::from_secs(9), "{waited:?}");
    late.expect_closed();
    // Small ones are not in the way of large ones.
    let mut small = setup.v5("small");
    small.publish(1, 1, "m v=1 2000");
    small.expect("40 02 00 01");
    drop(holders);
    let mut again = setup.v5("late");
    again.send_bytes(&all);
    again.expect("40 02 00 01");
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[2]]));
}
