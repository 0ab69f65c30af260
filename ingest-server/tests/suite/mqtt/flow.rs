//! What happens to messages, and between connections.

use std::time::Duration;

use serde_json::json;

use super::{Setup, bytes, publish};

/// Statements of 3.1.1 that the tests below show.
pub(super) const V3_NUMBERS: &str = "MQTT-3.1.2-8 MQTT-3.1.2-10 MQTT-3.1.2-24 MQTT-3.1.4-2 MQTT-3.1.4-5 MQTT-3.2.2-5 \
    MQTT-3.14.4-3 MQTT-3.8.4-6 MQTT-3.10.4-1";
/// Those of 5.
pub(super) const V5_NUMBERS: &str = "MQTT-3.1.2-8 MQTT-3.1.2-10 MQTT-3.1.2-22 MQTT-3.1.2-25 MQTT-3.1.4-3 \
    MQTT-3.1.4-6 MQTT-3.14.4-3 MQTT-3.3.4-7 MQTT-3.3.4-9 MQTT-3.8.4-8 MQTT-3.8.3-3 MQTT-3.3.2-4 MQTT-3.3.2-5 \
    MQTT-3.3.2-6 MQTT-3.3.2-15 MQTT-3.3.2-16 MQTT-3.3.2-17 MQTT-3.3.2-18 MQTT-3.3.2-20 MQTT-3.10.4-2 MQTT-3.14.0-1";

#[test]
fn readings_of_all_qos_are_stored_and_times_are_nanoseconds() {
    let setup = Setup::start();
    for (i, mut raw) in [setup.v311("a"), setup.v5("b")].into_iter().enumerate() {
        for qos in 0..3 {
            let id = if qos > 0 { 7 + u16::from(qos) } else { 0 };
            raw.publish(qos, id, &format!("m,client=c{i} v={qos} 178027200000000{qos}000"));
        }
        raw.expect("40 02 00 08");
        raw.expect("50 02 00 09");
    }
    assert_eq!(
        setup.rows("SELECT client, v, cast(time as bigint) FROM m ORDER BY client, v"),
        json!([
            ["c0", 0.0, 1_780_272_000_000_000_i64],
            ["c0", 1.0, 1_780_272_000_000_001_i64],
            ["c0", 2.0, 1_780_272_000_000_002_i64],
            ["c1", 0.0, 1_780_272_000_000_000_i64],
            ["c1", 1.0, 1_780_272_000_000_001_i64],
            ["c1", 2.0, 1_780_272_000_000_002_i64],
        ])
    );
    assert_eq!(setup.metric("eden_mqtt_messages_total{qos=\"2\"}"), 2);
    assert_eq!(setup.metric("eden_mqtt_acks_total"), 4);
}

/// Messages that one read brings are written together, and still each stands for itself.
#[test]
fn a_bad_message_hurts_none_that_came_with_it() {
    let setup = Setup::start();
    let mut raw = setup.v5("c");
    let payloads: [&str; 7] = [
        "m v=1 1000",
        "m v=",
        "m v=2 2000\nbad\nm v=3 3000",
        // Two halves of what would be one line if they were simply joined.
        "m text=\"open",
        "shut\" 4000",
        "m v=\"text\" 5000",
        "m text=\"whole\" 6000",
    ];
    let mut all = Vec::new();
    for (payload, id) in payloads.iter().zip(1..) {
        all.extend(publish(true, "lp/x", 1, id, payload.as_bytes()));
    }
    raw.send_bytes(&all);
    for (id, is_refused) in [(1, false), (2, true), (3, true), (4, true), (5, true), (6, true), (7, false)] {
        if is_refused {
            raw.expect(&format!("40 ?? 00 0{id} 00 .."));
        } else {
            raw.expect(&format!("40 02 00 0{id}"));
        }
    }
    assert_eq!(
        setup.rows("SELECT v, text FROM m ORDER BY time"),
        json!([[1.0, null], [2.0, null], [3.0, null], [null, "whole"]])
    );
    assert_eq!(setup.metric("eden_mqtt_messages_set_aside_total"), 5);
}

#[test]
fn agents_batches_have_microseconds_and_one_agent() {
    let setup = Setup::start();
    let mut raw = setup.v5("pi-7");
    let body = |agent: &str, seq: u64| {
        format!("# eden agent={agent} epoch=5 seq={seq} precision=us\nb,seq=s{seq} v={seq} 178027200000000{seq}\n")
    };
    raw.publish_to("eden/v1/pi-7/lp", 1, 1, body("pi-7", 1).as_bytes());
    raw.expect("40 02 00 01");
    let packed = zstd::encode_all(body("pi-7", 2).as_bytes(), 3).unwrap();
    raw.publish_to("eden/v1/pi-7/lp.zst", 1, 2, &packed);
    raw.expect("40 02 00 02");
    // A batch without readings.
    raw.publish_to("eden/v1/pi-7/lp", 1, 3, b"# eden agent=pi-7 epoch=5 seq=3 precision=us\n");
    raw.expect("40 02 00 03");
    // Plain line protocol of a device that knows no headers: nanoseconds.
    raw.publish_to("eden/v1/pi-7/lp", 1, 4, b"b,seq=s4 v=4 1780272000000004000");
    raw.expect("40 02 00 04");
    raw.publish_to("eden/v1/pi-7/status", 1, 5, br#"{"online":true,"version":"1","epoch":5,"seq":3,"news":[1]}"#);
    raw.expect("40 02 00 05");
    assert_eq!(setup.metric("eden_mqtt_messages_set_aside_total"), 0);

    let cut = &packed[..packed.len() - 3];
    let wrong: [(&str, &[u8]); 8] = [
        ("eden/v1/pi-8/lp", body("pi-7", 5).as_bytes().to_vec().leak()),
        ("eden/v1/pi-7/lp", b"# eden agent=pi-7 epoch=5 precision=us\nb v=6 1\n"),
        ("eden/v1/pi-7/lp.zst", b"b v=7 1"),
        ("eden/v1/pi-7/lp.zst", cut.to_vec().leak()),
        ("eden/v1/pi-7/status", b"online"),
        ("eden/v1/pi-7/status", br#"{"version":"1"}"#),
        ("eden/v1/pi-7/other", b"x"),
        ("elsewhere", b"b v=8 1"),
    ];
    for (i, (topic, payload)) in wrong.iter().enumerate() {
        raw.publish_to(topic, 1, 16, payload);
        raw.expect("40 ?? 00 10 00 ..");
        assert_eq!(setup.metric("eden_mqtt_messages_set_aside_total"), i as u64 + 1, "{topic}");
    }
    assert_eq!(
        setup.rows("SELECT seq, cast(time as bigint) FROM b ORDER BY seq"),
        json!([
            ["s1", 1_780_272_000_000_001_i64],
            ["s2", 1_780_272_000_000_002_i64],
            ["s4", 1_780_272_000_000_004_i64]
        ])
    );
}

/// MQTT-4.3.3-2 (3.1.1), MQTT-4.3.3-10 (5): what is repeated is not applied again.
#[test]
fn a_repeated_message_is_stored_once() {
    let setup = Setup::start();
    let mut raw = setup.v311("c");
    // Without a time, each time it is applied makes a row.
    raw.publish(2, 1, "m v=1");
    raw.expect("50 02 00 01");
    for _ in 0..3 {
        raw.send("3c <\"lp/x\" 0001 'm v=1'>");
        raw.expect("50 02 00 01");
    }
    raw.send("62 02 0001");
    raw.expect("70 02 00 01");
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[1]]));
    assert_eq!(setup.metric("eden_mqtt_messages_repeated_total"), 3);
}

/// MQTT-3.1.4-2 (3.1.1), MQTT-3.1.4-3 (5), MQTT-3.1.2-8: the old connection ends, and its will comes before what the
/// new one says.
#[test]
fn a_client_id_is_taken_over() {
    let setup = Setup::start();
    let mut old = setup.dial();
    old.send("10 <\"MQTT\" 05 06 003c {} \"c\" {} \"lp/w\" \"m,of=old v=0 1000\">");
    old.expect("20 ?? 00 00 ..");
    let mut new = setup.v311("c");
    new.publish(1, 1, "m,of=old v=1 1000");
    new.expect("40 02 00 01");
    old.expect("e0 ?? 8e ..");
    old.expect_closed();
    // One key: the newest write has won.
    assert_eq!(setup.rows("SELECT v FROM m"), json!([[1.0]]));
    let mut newest = setup.v311("c");
    new.expect_closed();
    newest.expect_nothing();
    assert_eq!(setup.metric("eden_mqtt_connections_taken_over_total"), 2);
}

/// MQTT-3.1.2-8, MQTT-3.1.2-10, MQTT-3.14.4-3, MQTT-3.1.2-24 (3.1.1), MQTT-3.1.2-22 (5).
#[test]
fn wills_are_published_unless_the_client_says_goodbye() {
    let setup = Setup::start();
    let connect = |version: u8, keep_alive: u8, client: &str| {
        let properties = if version == 5 { "{}" } else { "" };
        let will = format!("m,of={client} v=1 1000");
        let mut raw = setup.dial();
        raw.send(&format!(
            "10 <\"MQTT\" 0{version} 06 00{keep_alive:02x} {properties} \"{client}\" {properties} \"lp/w\" \"{will}\">"
        ));
        raw.expect("20 ?? 00 00 ..");
        raw
    };
    let mut goodbye = connect(4, 60, "goodbye3");
    goodbye.send("e0 00");
    goodbye.expect_closed();
    let mut goodbye = connect(5, 60, "goodbye5");
    goodbye.send("e0 00");
    goodbye.expect_closed();
    let mut with_will = connect(5, 60, "with_will");
    with_will.send("e0 01 04");
    with_will.expect_closed();
    drop(connect(4, 60, "gone"));
    let mut bad = connect(4, 60, "bad");
    bad.send("00 00");
    bad.expect_closed();
    // One and a half of a second, and then the end.
    let mut silent3 = connect(4, 1, "silent3");
    let mut silent5 = connect(5, 1, "silent5");
    silent3.expect_closed();
    silent5.expect("e0 ?? 8d ..");
    silent5.expect_closed();
    let wanted = json!([["bad"], ["gone"], ["silent3"], ["silent5"], ["with_will"]]);
    let mut last = setup.v311("last");
    for _ in 0..200 {
        // The end of a connection that is simply gone has no event to wait for; each ack takes a while.
        last.publish(1, 1, "other v=1 1000");
        last.expect("40 02 00 01");
        if setup.metric("eden_mqtt_connections") == 1 && setup.rows("SELECT DISTINCT of FROM m ORDER BY of") == wanted {
            return;
        }
    }
    assert_eq!(setup.rows("SELECT DISTINCT of FROM m ORDER BY of"), wanted);
}

#[test]
fn commands_reach_the_agent_that_has_subscribed() {
    let setup = Setup::start();
    let mut sender = setup.v5("sender");
    let mut agent = setup.v5("pi-7");
    let nobody = "40 03 00 01 10";
    sender.publish_to("eden/v1/pi-7/cmd/restart", 1, 1, b"now");
    sender.expect(nobody);
    agent.send("82 <0001 {} \"eden/v1/pi-7/cmd/#\" 01>");
    agent.expect("90 <0001 {} 01>");

    // The lower QoS of both; and all properties as they came.
    sender.publish_to("eden/v1/pi-7/cmd/restart", 0, 0, b"now");
    agent.expect("30 <\"eden/v1/pi-7/cmd/restart\" {} 'now'>");
    let properties = "{01 01 02 00000e10 03 \"t\" 08 \"r\" 09 \"c\" 26 \"b\" \"1\" 26 \"a\" \"2\"}";
    sender.send(&format!("34 <\"eden/v1/pi-7/cmd/x/y\" 0001 {properties} 'go'>"));
    sender.expect("50 02 00 01");
    sender.send("62 02 0001");
    sender.expect("70 02 00 01");
    agent.expect(&format!("32 <\"eden/v1/pi-7/cmd/x/y\" 0001 {properties} 'go'>"));
    agent.send("40 02 0001");
    // Expired before it came.
    sender.send("32 <\"eden/v1/pi-7/cmd/x\" 0002 {02 00000000} 'late'>");
    sender.expect("40 02 00 02");
    agent.expect_nothing();
    // To oneself, and without what one says oneself.
    agent.publish_to("eden/v1/pi-7/cmd/self", 0, 0, b"a");
    agent.expect("30 <\"eden/v1/pi-7/cmd/self\" {} 'a'>");
    agent.send("82 <0002 {} \"eden/v1/pi-7/cmd/#\" 05>");
    agent.expect("90 <0002 {} 01>");
    agent.publish_to("eden/v1/pi-7/cmd/self", 1, 9, b"b");
    agent.expect("40 03 00 09 10");

    agent.send("a2 <0003 {} \"eden/v1/pi-7/cmd/#\">");
    agent.expect("b0 <0003 {} 00>");
    sender.publish_to("eden/v1/pi-7/cmd/restart", 1, 1, b"now");
    sender.expect(nobody);
    assert_eq!(setup.metric("eden_mqtt_commands_total{result=\"nobody\"}"), 3);

    // An agent of 3.1.1 is sent no properties.
    let mut old = setup.v311("pi-7");
    old.send("82 <0001 \"eden/v1/pi-7/cmd/+\" 00>");
    old.expect("90 03 00 01 00");
    sender.send("32 <\"eden/v1/pi-7/cmd/x\" 0001 {03 \"t\"} 'go'>");
    sender.expect("40 02 00 01");
    old.expect("30 <\"eden/v1/pi-7/cmd/x\" 'go'>");
}

/// MQTT-3.3.4-9, MQTT-3.1.2-24, MQTT-3.1.2-25 (5).
#[test]
fn a_client_is_sent_no_more_than_it_takes() {
    let setup = Setup::start();
    let mut agent = setup.dial();
    // Receive Maximum 1, Maximum Packet Size 64.
    agent.send("10 <\"MQTT\" 05 02 0000 {21 0001 27 00000040} \"c\">");
    agent.expect("20 ?? 00 00 ..");
    agent.send("82 <0001 {} \"eden/v1/c/cmd/#\" 01>");
    agent.expect("90 <0001 {} 01>");
    let mut sender = setup.v311("sender");
    for (id, payload) in [(1, "one"), (2, "two"), (3, &*"x".repeat(100)), (4, "three")] {
        sender.publish_to("eden/v1/c/cmd/x", 1, id, payload.as_bytes());
        sender.expect(&format!("40 02 00 0{id}"));
    }
    agent.expect("32 <\"eden/v1/c/cmd/x\" 0001 {} 'one'>");
    agent.expect_nothing();
    agent.send("40 02 0001");
    agent.expect("32 <\"eden/v1/c/cmd/x\" 0002 {} 'two'>");
    agent.send("40 03 0002 80");
    // The one with 100 bytes is not sent, and stands in nobody's way.
    agent.expect("32 <\"eden/v1/c/cmd/x\" 0004 {} 'three'>");
    // More than can wait.
    let code = |packet: Vec<u8>| packet.get(4).copied().unwrap_or(0);
    let mut sender = setup.v5("sender");
    let codes: Vec<u8> = (1..=70)
        .map(|id| {
            sender.publish_to("eden/v1/c/cmd/x", 1, id, b"y");
            code(sender.next())
        })
        .collect();
    // One is in flight.
    assert_eq!(codes.iter().filter(|code| **code == 0x97).count(), 7, "{codes:02x?}");
    assert_eq!(setup.metric("eden_mqtt_commands_total{result=\"full\"}"), 7);
}

#[test]
fn connections_are_refused_until_the_log_is_replayed_and_ended_when_the_server_stops() {
    let mut setup = Setup::bind_with(|_| {});
    let (mut three, mut five) = (setup.dial(), setup.dial());
    // MQTT-3.2.2-5, MQTT-3.1.4-5 (3.1.1): what follows a refused CONNECT is not dealt with.
    three.send("10 <\"MQTT\" 04 02 003c \"c\"> c0 00");
    // MQTT-3.1.4-6, MQTT-3.14.0-1 (5): and no DISCONNECT comes instead of CONNACK.
    five.send("10 <\"MQTT\" 05 02 003c {} \"c\"> c0 00");
    three.expect("20 02 00 03");
    three.expect_closed();
    five.expect("20 ?? 00 88 ..");
    five.expect_closed();
    assert_eq!(setup.metric("eden_mqtt_connections_refused_total{reason=\"unavailable\"}"), 2);
    // One that comes shortly before is let in when the server is ready.
    let mut early = setup.dial();
    early.send("10 <\"MQTT\" 04 02 003c \"early\">");
    setup.open();
    early.expect("20 02 00 00");
    let mut five = setup.v5("c");
    five.publish(1, 1, "m v=1 1");
    five.expect("40 02 00 01");
    let mut three = setup.v311("d");
    setup.stop();
    five.expect("e0 ?? 8b ..");
    five.expect_closed();
    three.expect_closed();
}

/// Larger than the budget in all, so they take turns; none is refused.
#[test]
fn large_packets_share_a_small_budget() {
    let setup = Setup::start_with(|config| config.mqtt.messages_memory = ingest_server::config::ByteSize(1));
    let body: String = (0..14_000).map(|i| format!("m,of=x v={i} {i}000\n")).collect();
    let clients: Vec<_> = (0..6).map(|i| setup.v311(&format!("c{i}"))).collect();
    let threads: Vec<_> = clients
        .into_iter()
        .zip(0..)
        .map(|(mut raw, i)| {
            let body = body.replace("of=x", &format!("of=c{i}"));
            std::thread::spawn(move || {
                raw.publish(1, 1, &body);
                raw.expect("40 02 00 01");
                raw.publish(1, 2, "small v=1 1000");
                raw.expect("40 02 00 02");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(setup.rows("SELECT count(*) FROM m"), json!([[6 * 14_000]]));
}

/// MQTT-3.3.4-7 (5).
#[test]
fn packets_may_come_in_any_pieces() {
    let setup = Setup::start();
    let mut raw = setup.v5("c");
    let all = [
        publish(true, "lp/x", 1, 1, b"m v=1 1000"),
        bytes("c0 00"),
        publish(true, "lp/x", 2, 2, "m v=2 2000\n".repeat(600).as_bytes()),
    ]
    .concat();
    for piece in all.chunks(7) {
        raw.send_bytes(piece);
    }
    let mut found = [raw.next(), raw.next(), raw.next()];
    found.sort();
    assert_eq!(found, [bytes("40 02 0001"), bytes("50 02 0002"), bytes("d0 00")]);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let setup = Setup::start_with(|config| config.mqtt.connections_max = 1);
    let mut first = setup.v311("a");
    let mut second = setup.dial();
    second.send("10 <\"MQTT\" 04 02 0000 \"b\">");
    second.expect_silence(Duration::from_millis(100));
    first.send("e0 00");
    first.expect_closed();
    drop(first);
    second.expect("20 02 00 00");
}

#[test]
fn the_listener_can_be_off_and_topics_can_be_set() {
    let setup = Setup::start_with(|config| {
        config.mqtt.line_protocol = ingest_server::config::TopicFilters(vec!["plant/+/lp".into()]);
    });
    let mut raw = setup.v311("c");
    raw.publish_to("plant/a/lp", 1, 1, b"m v=1 1000");
    raw.expect("40 02 00 01");
    raw.publish_to("lp/x", 1, 2, b"m v=2 2000");
    raw.expect("40 02 00 02");
    assert_eq!(setup.rows("SELECT v FROM m"), json!([[1.0]]));
    assert_eq!(setup.metric("eden_mqtt_messages_set_aside_total"), 1);

    let dir = tempfile::TempDir::new().unwrap();
    let mut config = ingest_server::config::Config::default();
    config.http.listen = "127.0.0.1:0".into();
    config.mqtt.listen = String::new();
    config.postgres.listen = String::new();
    config.grpc.listen = String::new();
    config.storage.data = dir.path().join("data");
    let mut server = setup.runtime.block_on(ingest_server::serve::Server::bind(config)).unwrap();
    assert_eq!(server.mqtt_addr(), None);
    setup.runtime.block_on(server.open()).unwrap();
    let addresses = ingest_server::addresses::Addresses::read(&dir.path().join("data")).unwrap();
    assert_eq!((addresses.mqtt, addresses.postgres, addresses.grpc), (None, None, None));
    setup.runtime.block_on(server.stop()).unwrap();
}

#[test]
fn a_taken_port_is_refused_before_anything_is_opened() {
    let setup = Setup::start();
    let dir = tempfile::TempDir::new().unwrap();
    let mut config = ingest_server::config::Config::default();
    config.http.listen = "127.0.0.1:0".into();
    config.mqtt.listen = setup.mqtt.to_string();
    config.postgres.listen = String::new();
    config.grpc.listen = String::new();
    config.storage.data = dir.path().join("data");
    let failure = setup.runtime.block_on(ingest_server::serve::Server::bind(config)).err().unwrap();
    assert!(matches!(failure, ingest_server::failure::Failure::Usage(_)), "{failure}");
    for said in [&*setup.mqtt.to_string(), "is taken", "EDEN_MQTT_LISTEN", "switches MQTT off"] {
        assert!(failure.to_string().contains(said), "{failure}");
    }
}
