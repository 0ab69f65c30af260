//! Acknowledged means durable (P1, P2), on a disk that hangs or fails.

use std::time::Duration;

use faults::Operation;
use serde_json::json;

use super::{Setup, publish};

/// While the disk hangs, an acknowledgement has no way to be right: whatever comes in this time is wrong.
const WHILE: Duration = Duration::from_millis(300);

fn is_log(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|name| name == "wal")
}

/// P1, and the order of acknowledgements.
#[test]
fn nothing_is_acknowledged_while_the_sync_hangs_and_then_all_in_order() {
    let setup = Setup::start();
    let mut raw = setup.v5("c");
    raw.publish(1, 100, "m,q=first v=0 1000");
    raw.expect("40 02 00 64");

    setup.faults.hold_syncs();
    let qos = |id: u16| (id % 3) as u8;
    for id in 1..=30 {
        let lines = if id % 7 == 0 { "bad".to_owned() } else { format!("m,q=q{id} v={id} 1000") };
        raw.publish(qos(id), id, &lines);
        if id == 1 {
            setup.faults.wait_for_held_sync();
        }
    }
    // The connection is alive: PINGRESP is the first thing that comes.
    raw.expect_nothing();
    raw.expect_silence(WHILE);
    setup.faults.release_syncs();
    for id in 1..=30_u16 {
        let first = match qos(id) {
            0 => continue,
            1 => "40",
            _ => "50",
        };
        if id % 7 == 0 {
            raw.expect(&format!("{first} ?? 00 {id:02x} 00 .."));
        } else {
            raw.expect(&format!("{first} 02 00 {id:02x}"));
        }
    }
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[27]]));
}

#[test]
fn a_message_repeated_while_it_is_in_flight_is_acknowledged_once() {
    let setup = Setup::start();
    let mut raw = setup.v311("c");
    setup.faults.hold_syncs();
    for qos in [1, 2] {
        for _ in 0..3 {
            raw.publish(qos, qos.into(), &format!("m,q=q{qos} v=1"));
        }
    }
    raw.expect_nothing();
    setup.faults.release_syncs();
    raw.expect("40 02 00 01");
    raw.expect("50 02 00 02");
    raw.expect_nothing();
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[2]]));
    assert_eq!(setup.metric("eden_mqtt_messages_repeated_total"), 4);
}

/// MQTT-3.3.4-7 (5).
#[test]
fn more_than_receive_maximum_in_flight_ends_the_connection() {
    let setup = Setup::start_with(|config| config.mqtt.receive_max = 2);
    let mut five = setup.v5("five");
    let mut three = setup.v311("three");
    setup.faults.hold_syncs();
    for id in 1..=3 {
        five.publish(1, id, "m v=1 1000");
        three.publish(1, id, "m v=1 1000");
    }
    five.expect("e0 ?? 93 ..");
    five.expect_closed();
    three.expect_nothing();
    setup.faults.release_syncs();
    for id in 1..=3 {
        three.expect(&format!("40 02 00 0{id}"));
    }
    assert_eq!(setup.metric("eden_mqtt_connections_broken_total{reason=\"receive_max\"}"), 1);
}

/// P2.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let mut setup = Setup::start();
    let mut raw = setup.v5("c");
    raw.publish(1, 1, "m v=1 1000");
    raw.expect("40 02 00 01");
    // One of these may be that of a segment which is prepared in the background.
    for n in 1..=2 {
        setup.faults.fail(Operation::Sync, n, is_log);
    }
    let mut acknowledged = 0_u16;
    loop {
        raw.publish(1 + (acknowledged % 2) as u8, 2, "m v=2 2000");
        let packet = raw.next();
        match packet.first() {
            Some(0x40) => acknowledged += 1,
            Some(0x50) => {
                raw.send("62 02 0002");
                raw.expect("70 02 00 02");
                acknowledged += 1;
            }
            Some(0xe0) => {
                assert_eq!(packet[2], 0x83, "{packet:02x?}");
                break;
            }
            // The connection may be lost before the reason comes.
            None => break,
            Some(other) => panic!("a packet {other:02x} came"),
        }
        assert!(acknowledged < 4, "the sync has failed");
    }
    raw.expect_closed();
    let mut raw = setup.dial();
    raw.send("10 <\"MQTT\" 05 02 003c {} \"c\">");
    raw.expect("20 ?? 00 88 ..");
    let mut raw = setup.dial();
    raw.send("10 <\"MQTT\" 04 02 003c \"c\">");
    raw.expect("20 02 00 03");
    setup.stop();
}

#[test]
fn messages_that_wait_for_a_sync_which_fails_are_never_acknowledged() {
    let mut setup = Setup::start();
    let mut clients: Vec<_> = (0..4).map(|i| setup.v311(&format!("c{i}"))).collect();
    clients[0].publish(1, 1, "m v=1 1000");
    clients[0].expect("40 02 00 01");
    for n in 1..=2 {
        setup.faults.fail(Operation::Sync, n, is_log);
    }
    for raw in &mut clients {
        for id in 2..20 {
            raw.publish(1 + (id % 2) as u8, id, "m v=2 2000");
        }
    }
    let mut acks = 0;
    for raw in &mut clients {
        while !raw.next().is_empty() {
            acks += 1;
        }
    }
    // Whatever a sync before the failed one made durable is acknowledged.
    assert!(acks < 4 * 18, "{acks}");
    setup.stop();
}

/// P9: a client that is held back is not taken for dead, and loses nothing.
#[test]
fn a_pause_does_not_trip_the_keep_alive() {
    let setup = Setup::start();
    let mut raw = setup.dial();
    raw.send("10 <\"MQTT\" 04 02 0001 \"c\">");
    raw.expect("20 02 00 00");
    setup.faults.hold_syncs();
    // More than a connection has unsettled: it is not read any more.
    let count = 3_000_u16;
    let all: Vec<u8> =
        (1..=count).flat_map(|id| publish(false, "lp/x", 1, id, format!("m,i=i{id} v=1 1000").as_bytes())).collect();
    raw.send_bytes(&all);
    // Longer than one and a half of the keep-alive.
    raw.expect_silence(Duration::from_millis(2_200));
    setup.faults.release_syncs();
    for id in 1..=count {
        let [high, low] = id.to_be_bytes();
        raw.expect(&format!("40 02 {high:02x} {low:02x}"));
    }
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[count]]));
}

#[test]
fn a_stop_acknowledges_what_becomes_durable_in_time() {
    let mut setup = Setup::start();
    let mut five = setup.v5("five");
    let mut three = setup.v311("three");
    setup.faults.hold_syncs();
    for id in 1..=3 {
        five.publish(1, id, "m,of=five v=1 1000");
        three.publish(2, id, "m,of=three v=1 1000");
    }
    five.expect_nothing();
    three.expect_nothing();
    let server = setup.server.take().unwrap();
    let stopping = setup.runtime.spawn(server.stop());
    setup.faults.release_syncs();
    for id in 1..=3 {
        five.expect(&format!("40 02 00 0{id}"));
        three.expect(&format!("50 02 00 0{id}"));
    }
    five.expect("e0 ?? 8b ..");
    five.expect_closed();
    three.expect_closed();
    assert!(setup.runtime.block_on(stopping).unwrap().unwrap().flushed);
}
