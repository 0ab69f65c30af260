//! Sessions that outlive a connection, and retained commands.

use std::sync::Arc;

use serde_json::json;

use super::{Raw, Setup};

/// Statements of 3.1.1 that the tests below show.
pub(super) const V3_NUMBERS: &str = "MQTT-3.1.2-4 MQTT-3.1.2-5 MQTT-3.1.2-6 MQTT-3.1.2-7 MQTT-3.2.2-2 MQTT-3.3.1-1 \
    MQTT-3.3.1-5 MQTT-3.3.1-6 MQTT-3.3.1-7 MQTT-3.3.1-8 MQTT-3.3.1-9 MQTT-3.3.1-10 MQTT-3.3.1-11 MQTT-3.3.1-12 \
    MQTT-3.8.4-3 MQTT-4.1.0-1 MQTT-4.4.0-1";
/// Those of 5.
pub(super) const V5_NUMBERS: &str = "MQTT-3.1.2-4 MQTT-3.1.2-5 MQTT-3.1.2-6 MQTT-3.1.2-23 MQTT-3.2.2-3 MQTT-3.3.1-1 \
    MQTT-3.3.1-5 MQTT-3.3.1-6 MQTT-3.3.1-7 MQTT-3.3.1-8 MQTT-3.3.1-9 MQTT-3.3.1-10 MQTT-3.3.1-11 MQTT-3.3.1-12 \
    MQTT-3.3.1-13 MQTT-3.8.4-3 MQTT-3.8.4-4 MQTT-4.1.0-1 MQTT-4.1.0-2 MQTT-4.4.0-1 MQTT-4.4.0-2";

/// Connects `pi` without a clean start; `present` is the flag that must come back.
fn resume3(setup: &Setup, present: u8) -> Raw {
    let mut raw = setup.dial();
    raw.send("10 <\"MQTT\" 04 00 0000 \"pi\">");
    raw.expect(&format!("20 02 {present:02x} 00"));
    raw
}

/// The same with MQTT 5, and a session that is kept for `seconds`.
fn resume5(setup: &Setup, present: u8, seconds: u32) -> Raw {
    let mut raw = setup.dial();
    raw.v5 = true;
    raw.send(&format!("10 <\"MQTT\" 05 00 0000 {{11 {seconds:08x}}} \"pi\">"));
    raw.expect(&format!("20 ?? {present:02x} 00 .."));
    raw
}

fn leave(mut raw: Raw) {
    raw.send("e0 00");
    raw.expect_closed();
}

/// Ends a connection without a word, and waits until that is noticed.
fn vanish(setup: &Setup, raw: Raw) {
    drop(raw);
    while setup.metric("eden_mqtt_sessions_away") == 0 {}
}

/// Publishes a command, which is acknowledged with `code`.
fn command(sender: &mut Raw, name: &str, payload: &str, code: u8) {
    sender.publish_to(&format!("eden/v1/pi/cmd/{name}"), 1, 9, payload.as_bytes());
    sender.expect(&if code == 0 { "40 02 00 09".to_owned() } else { format!("40 03 00 09 {code:02x}") });
}

#[test]
fn commands_wait_for_a_client_of_version_3_that_is_away() {
    let mut setup = Setup::start();
    let mut agent = resume3(&setup, 0);
    agent.send("82 <0001 \"eden/v1/pi/cmd/#\" 01>");
    agent.expect("90 03 00 01 01");
    leave(agent);
    let mut sender = setup.v5("sender");
    command(&mut sender, "a", "one", 0);
    command(&mut sender, "b", "two", 0);
    // QoS 0 does not wait.
    sender.publish_to("eden/v1/pi/cmd/c", 0, 0, b"lost");
    sender.expect_nothing();
    assert_eq!(setup.metric("eden_mqtt_commands_total{result=\"kept\"}"), 2);
    assert_eq!(setup.metric("eden_mqtt_sessions_away"), 1);

    let mut agent = resume3(&setup, 1);
    agent.expect("32 <\"eden/v1/pi/cmd/a\" 0001 'one'>");
    agent.expect("32 <\"eden/v1/pi/cmd/b\" 0002 'two'>");
    agent.send("40 02 0001");
    agent.expect_nothing();
    // Without a word; and the subscription is still there.
    vanish(&setup, agent);
    command(&mut sender, "d", "three", 0);
    let mut agent = resume3(&setup, 1);
    agent.expect("3a <\"eden/v1/pi/cmd/b\" 0002 'two'>");
    agent.expect("32 <\"eden/v1/pi/cmd/d\" 0003 'three'>");
    agent.send("40 02 0002");
    agent.expect_nothing();

    // The server too may go: what was sent and not acknowledged comes again.
    drop(sender);
    setup.restart();
    agent.expect_closed();
    let mut sender = setup.v5("sender");
    command(&mut sender, "e", "four", 0);
    setup.restart();
    let mut agent = resume3(&setup, 1);
    agent.expect("3a <\"eden/v1/pi/cmd/d\" 0003 'three'>");
    agent.expect("32 <\"eden/v1/pi/cmd/e\" 0004 'four'>");
    agent.send("40 02 0003 40 02 0004");
    agent.expect_nothing();

    // A clean session ends it, and is none itself.
    leave(agent);
    leave(setup.v311("pi"));
    let mut sender = setup.v5("sender");
    command(&mut sender, "f", "five", 0x10);
    setup.restart();
    let mut agent = resume3(&setup, 0);
    agent.expect_nothing();
}

#[test]
fn a_session_of_version_5_is_kept_for_as_long_as_the_client_says() {
    let setup = Setup::start();
    let mut sender = setup.v5("sender");
    let subscribe = |agent: &mut Raw| {
        agent.send("82 <0001 {} \"eden/v1/pi/cmd/#\" 01>");
        agent.expect("90 <0001 {} 01>");
    };
    // Not beyond the connection.
    let mut agent = resume5(&setup, 0, 0);
    subscribe(&mut agent);
    leave(agent);
    command(&mut sender, "a", "x", 0x10);

    let mut agent = resume5(&setup, 0, 60);
    subscribe(&mut agent);
    leave(agent);
    command(&mut sender, "a", "x", 0);
    setup.clock.add(58);
    let mut agent = resume5(&setup, 1, 60);
    agent.expect("32 <\"eden/v1/pi/cmd/a\" 0001 {} 'x'>");
    // While somebody is connected it does not run out.
    setup.clock.add(600);
    // A reason of failure is an acknowledgement.
    agent.send("40 03 0001 83");
    agent.expect_nothing();
    leave(agent);
    setup.clock.add(61);
    command(&mut sender, "b", "y", 0x10);
    let mut agent = resume5(&setup, 0, 60);
    subscribe(&mut agent);
    // DISCONNECT may say another time.
    agent.send("e0 <00 {11 00000005}>");
    agent.expect_closed();
    setup.clock.add(6);
    let mut agent = resume5(&setup, 0, 60);
    subscribe(&mut agent);
    agent.send("e0 <00 {11 00000000}>");
    agent.expect_closed();
    let agent = resume5(&setup, 0, 60);
    leave(agent);
    // Clean Start with a session to be kept: a new one.
    let mut agent = setup.dial();
    agent.send("10 <\"MQTT\" 05 02 0000 {11 0000003c} \"pi\">");
    agent.expect("20 ?? 00 00 ..");
    subscribe(&mut agent);
    vanish(&setup, agent);
    command(&mut sender, "b", "y", 0);
    // A command may be of no use before its client is back.
    sender.send(
        "32 <\"eden/v1/pi/cmd/late\" 0001 {02 0000000a} 'late'> 32 <\"eden/v1/pi/cmd/z\" 0002 {02 00000014} 'z'>",
    );
    sender.expect("40 02 00 01");
    sender.expect("40 02 00 02");
    setup.clock.add(11);
    let mut agent = resume5(&setup, 1, 60);
    agent.expect("32 <\"eden/v1/pi/cmd/b\" 0001 {} 'y'>");
    let packet = agent.next();
    let left = packet[packet.len() - 2];
    assert!((7..=9).contains(&left), "{packet:02x?}");
    agent.expect_nothing();
}

#[test]
fn a_client_that_comes_back_is_sent_what_is_in_flight_with_its_identifiers() {
    let setup = Setup::start();
    let mut agent = setup.dial();
    // Receive Maximum 2.
    agent.send("10 <\"MQTT\" 05 00 0000 {11 0000003c 21 0002} \"pi\">");
    agent.expect("20 ?? 00 00 ..");
    agent.send("82 <0001 {} \"eden/v1/pi/cmd/#\" 01>");
    agent.expect("90 <0001 {} 01>");
    let mut sender = setup.v5("sender");
    for name in ["a", "b", "c"] {
        command(&mut sender, name, name, 0);
    }
    agent.expect("32 <\"eden/v1/pi/cmd/a\" 0001 {} 'a'>");
    agent.expect("32 <\"eden/v1/pi/cmd/b\" 0002 {} 'b'>");
    agent.expect_nothing();
    agent.send("40 02 0001");
    agent.expect("32 <\"eden/v1/pi/cmd/c\" 0003 {} 'c'>");
    // Taken over: the new connection goes on where the old one was.
    let mut new = resume5(&setup, 1, 60);
    agent.expect("e0 ?? 8e ..");
    new.expect("3a <\"eden/v1/pi/cmd/b\" 0002 {} 'b'>");
    new.expect("3a <\"eden/v1/pi/cmd/c\" 0003 {} 'c'>");
    new.send("40 02 0003");
    new.expect_nothing();
    command(&mut sender, "d", "d", 0);
    new.expect("32 <\"eden/v1/pi/cmd/d\" 0004 {} 'd'>");
}

/// MQTT-4.3.3-10 (5): also by a connection that goes on with the session.
#[test]
fn a_qos_2_message_that_comes_again_by_another_connection_is_stored_once() {
    let setup = Setup::start();
    let mut client = resume3(&setup, 0);
    // Without a time, each time it is applied makes a row.
    client.publish(2, 7, "m v=1");
    client.expect("50 02 00 07");
    drop(client);
    let mut client = resume3(&setup, 1);
    client.send("3c <\"lp/x\" 0007 'm v=1'>");
    client.expect("50 02 00 07");
    client.send("62 02 0007");
    client.expect("70 02 00 07");
    // PUBREC was never seen: the connection went while the message was being stored.
    setup.faults.hold_syncs();
    client.publish(2, 8, "m v=2");
    setup.faults.wait_for_held_sync();
    drop(client);
    setup.faults.release_syncs();
    let mut client = resume3(&setup, 1);
    client.send("3c <\"lp/x\" 0008 'm v=2'>");
    client.expect("50 02 00 08");
    client.send("62 02 0008");
    client.expect("70 02 00 08");
    assert_eq!(setup.rows("SELECT v, count(*) FROM m GROUP BY v ORDER BY v"), json!([[1.0, 1], [2.0, 1]]));
}

/// MQTT-3.3.4-7 (5): it is counted anew by each connection.
#[test]
fn what_an_earlier_connection_had_in_flight_does_not_count_for_receive_maximum() {
    let setup = Setup::start_with(|config| config.mqtt.receive_max = 2);
    let mut client = resume5(&setup, 0, 60);
    for id in 1..=2 {
        client.publish(2, id, "m v=1 1000");
        client.expect(&format!("50 02 00 0{id}"));
    }
    drop(client);
    let mut client = resume5(&setup, 1, 60);
    for id in 3..=4 {
        client.publish(2, id, "m v=1 1000");
        client.expect(&format!("50 02 00 0{id}"));
    }
    client.send("62 02 0001");
    client.expect("70 02 00 01");
    client.publish(2, 5, "m v=1 1000");
    client.expect("e0 ?? 93 ..");
}

#[test]
fn retained_commands_are_sent_to_whoever_subscribes() {
    let mut setup = Setup::start();
    let mut sender = setup.v311("sender");
    let retain = |sender: &mut Raw, qos: u8, payload: &str| {
        let id = if qos > 0 { "0001" } else { "" };
        sender.send(&format!("3{} <\"eden/v1/pi/cmd/mode\" {id} '{payload}'>", 1 + 2 * qos));
        if qos > 0 {
            sender.expect("40 02 00 01");
        }
        sender.expect_nothing();
    };
    retain(&mut sender, 1, "slow");
    // What is not to be retained leaves it alone.
    command(&mut sender, "mode", "now", 0);
    let subscribe3 = |setup: &Setup| {
        let mut agent = setup.v311("pi");
        agent.send("82 <0001 \"eden/v1/pi/cmd/+\" 01>");
        agent.expect("90 03 00 01 01");
        agent
    };
    let mut agent = subscribe3(&setup);
    agent.expect("33 <\"eden/v1/pi/cmd/mode\" 0001 'slow'>");
    agent.send("40 02 0001");
    // Again, with the subscription; and with its QoS.
    agent.send("82 <0002 \"eden/v1/pi/cmd/+\" 00>");
    agent.expect("90 03 00 02 00");
    agent.expect("31 <\"eden/v1/pi/cmd/mode\" 'slow'>");
    // To a subscription that is there it goes without the flag. QoS 0 takes its place too.
    retain(&mut sender, 0, "fast");
    agent.expect("30 <\"eden/v1/pi/cmd/mode\" 'fast'>");
    drop(agent);
    setup.restart();
    let mut agent = subscribe3(&setup);
    agent.expect("31 <\"eden/v1/pi/cmd/mode\" 'fast'>");
    drop(agent);
    let mut sender = setup.v311("sender");
    retain(&mut sender, 1, "third");

    // MQTT 5: Retain Handling 0, 1 and 2, and Retain As Published.
    let mut agent = resume5(&setup, 0, 60);
    let (filter, topic) = ("\"eden/v1/pi/cmd/#\"", "\"eden/v1/pi/cmd/mode\"");
    let mut id = 0;
    let mut subscribe = |agent: &mut Raw, options: &str| {
        id += 1;
        agent.send(&format!("82 <{id:04x} {{}} {filter} {options}>"));
        let granted = u8::from_str_radix(options, 16).unwrap() & 1;
        agent.expect(&format!("90 <{id:04x} {{}} {granted:02x}>"));
    };
    let mut sent = |agent: &mut Raw, options: &str| {
        subscribe(agent, options);
        agent.send("c0 00");
        let mut all = Vec::new();
        loop {
            let packet = agent.next();
            if packet == [0xd0, 0] {
                return all;
            }
            all.push(packet);
        }
    };
    let retained = |flags: &str| vec![super::bytes(&format!("{flags} <{topic} {{}} 'third'>"))];
    assert_eq!(sent(&mut agent, "20"), Vec::<Vec<u8>>::new(), "2: not at all");
    assert_eq!(sent(&mut agent, "10"), Vec::<Vec<u8>>::new(), "1: it was there");
    assert_eq!(sent(&mut agent, "00"), retained("31"), "0: in any case");
    agent.send(&format!("a2 <00ff {{}} {filter}>"));
    agent.expect("b0 <00ff {} 00>");
    assert_eq!(sent(&mut agent, "10"), retained("31"), "1: it is new");
    assert_eq!(sent(&mut agent, "28"), Vec::<Vec<u8>>::new());
    retain(&mut sender, 0, "fourth");
    agent.expect(&format!("31 <{topic} {{}} 'fourth'>"));
    // Nothing to say: it is forgotten, and sent on as it is.
    retain(&mut sender, 1, "");
    agent.expect(&format!("31 <{topic} {{}}>"));
    assert_eq!(sent(&mut agent, "00"), Vec::<Vec<u8>>::new());
    drop(agent);
    setup.restart();
    let mut agent = subscribe3(&setup);
    agent.expect_nothing();
}

#[test]
fn a_retained_command_does_not_end_with_a_session() {
    let setup = Setup::start();
    let mut sender = setup.v5("sender");
    sender.send("33 <\"eden/v1/pi/cmd/mode\" 0001 {} 'slow'>");
    sender.expect("40 02 00 01");
    for _ in 0..2 {
        let mut agent = resume3(&setup, 0);
        agent.send("82 <0001 \"eden/v1/pi/cmd/#\" 00>");
        agent.expect("90 03 00 01 00");
        agent.expect("31 <\"eden/v1/pi/cmd/mode\" 'slow'>");
        drop(agent);
        leave(setup.v311("pi"));
    }
}

#[test]
fn what_waits_is_bounded_for_one_client_and_for_all() {
    let setup = Setup::start_with(|config| config.mqtt.sessions_memory = ingest_server::config::ByteSize(200_000));
    let away = |id: &str| {
        let mut agent = setup.dial();
        agent.send(&format!("10 <\"MQTT\" 04 00 0000 \"{id}\">"));
        agent.expect("20 02 00 00");
        agent.send(&format!("82 <0001 \"eden/v1/{id}/cmd/#\" 01>"));
        agent.expect("90 03 00 01 01");
        leave(agent);
    };
    away("pi");
    away("qi");
    let mut sender = setup.v5("sender");
    for _ in 0..64 {
        command(&mut sender, "x", "x", 0);
    }
    command(&mut sender, "x", "x", 0x97);
    // For all: about 150,000 bytes are left, and each command must fit twice.
    let large = "y".repeat(40_000);
    let mut codes = Vec::new();
    for _ in 0..6 {
        sender.publish_to("eden/v1/qi/cmd/x", 1, 1, large.as_bytes());
        codes.push(sender.next().get(4).copied().unwrap_or(0));
    }
    assert_eq!(codes, [0, 0, 0, 0x97, 0x97, 0x97]);
    let mut agent = resume3(&setup, 1);
    for id in 1..=16 {
        agent.expect(&format!("32 <\"eden/v1/pi/cmd/x\" 00{id:02x} 'x'>"));
    }
    assert_eq!(setup.metric("eden_mqtt_commands_total{result=\"full\"}"), 4);
    assert!(setup.metric("eden_mqtt_sessions_bytes") < 200_000);
    // Without room for another session a client is taken all the same, and told.
    let mut more = setup.dial();
    more.send("10 <\"MQTT\" 05 02 0000 {11 0000003c} \"more\">");
    let connack = more.next();
    assert_eq!(connack[5], 0x21, "{connack:02x?}");
}

#[test]
fn a_command_is_acknowledged_when_it_is_durable_and_not_before() {
    let setup = Setup::start();
    let mut agent = resume3(&setup, 0);
    agent.send("82 <0001 \"eden/v1/pi/cmd/#\" 01>");
    agent.expect("90 03 00 01 01");
    leave(agent);
    let mut sender = setup.v5("sender");
    setup.faults.hold_syncs_of(|path| path.components().any(|part| part.as_os_str() == "mqtt"));
    sender.publish_to("eden/v1/pi/cmd/x", 1, 1, b"x");
    sender.publish(1, 2, "m v=1 1000");
    setup.faults.wait_for_held_sync();
    // The reading is durable, and its acknowledgement waits for its turn.
    sender.expect_nothing();
    sender.expect_silence(std::time::Duration::from_millis(200));
    let mut second = setup.dial();
    second.send("10 <\"MQTT\" 04 00 0000 \"qi\">");
    second.expect("20 02 00 00");
    second.send("82 <0001 \"eden/v1/qi/cmd/#\" 01>");
    second.expect_nothing();
    setup.faults.release_syncs();
    sender.expect("40 02 00 01");
    sender.expect("40 02 00 02");
    second.expect("90 03 00 01 01");
}

/// P2: and what was refused may come all the same, since nobody knows.
#[test]
fn a_command_that_could_not_be_kept_is_not_acknowledged_and_later_ones_are() {
    let mut setup = Setup::start();
    let mut agent = resume3(&setup, 0);
    agent.send("82 <0001 \"eden/v1/pi/cmd/#\" 01>");
    agent.expect("90 03 00 01 01");
    leave(agent);
    let mut sender = setup.v5("sender");
    command(&mut sender, "x", "first", 0);
    setup.faults.fail(faults::Operation::Sync, 1, |path| path.components().any(|part| part.as_os_str() == "mqtt"));
    sender.publish_to("eden/v1/pi/cmd/x", 1, 1, b"second");
    sender.expect("e0 ?? 83 ..");
    sender.expect_closed();
    // Readings go on, and after a second commands.
    let mut sender = setup.v5("sender");
    sender.publish(1, 2, "m v=1 1000");
    sender.expect("40 02 00 02");
    loop {
        sender.publish_to("eden/v1/pi/cmd/x", 1, 1, b"third");
        match sender.next()[..] {
            [0x40, 2, 0, 1] => break,
            [0x40, 3, 0, 1, 0x97] => {}
            ref other => panic!("{other:02x?}"),
        }
    }
    setup.restart();
    let mut agent = resume3(&setup, 1);
    agent.expect("32 <\"eden/v1/pi/cmd/x\" 0001 'first'>");
    agent.expect("32 <\"eden/v1/pi/cmd/x\" 0002 'second'>");
    agent.expect("32 <\"eden/v1/pi/cmd/x\" 0003 'third'>");
}

/// P3.
#[test]
fn damage_to_what_is_kept_is_found_and_the_rest_is_served() {
    let mut setup = Setup::start();
    let mut agent = resume3(&setup, 0);
    agent.send("82 <0001 \"eden/v1/pi/cmd/#\" 01>");
    agent.expect("90 03 00 01 01");
    leave(agent);
    let mut sender = setup.v5("sender");
    for payload in ["aaaaaaaa", "bbbbbbbb", "cccccccc"] {
        command(&mut sender, "x", payload, 0);
    }
    setup.stop();
    let data = setup.config.storage.data.clone();
    let damaged = std::fs::read_dir(data.join("mqtt")).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let Some(at) = bytes.windows(8).position(|window| window == b"bbbbbbbb") else { return false };
        bytes[at] = b'!';
        std::fs::write(&path, bytes).is_ok()
    });
    assert!(damaged);
    let disk: wal::disk::SharedDisk = Arc::new(wal::disk::LocalDisk::new());
    let options = storage::check::CheckOptions::new(data.clone());
    let report = storage::check::check(disk, &options, &mut |_| {}).unwrap();
    assert!(report.is_damaged());
    assert!(report.findings.iter().any(|finding| finding.file.starts_with(data.join("mqtt"))), "{report:?}");
    setup.start_again();
    let mut agent = resume3(&setup, 1);
    agent.expect("32 <\"eden/v1/pi/cmd/x\" 0001 'aaaaaaaa'>");
    agent.expect("32 <\"eden/v1/pi/cmd/x\" 0003 'cccccccc'>");
    agent.expect_nothing();
}

/// P10: however many filters there are.
#[test]
fn a_session_is_written_once_for_a_packet() {
    let setup = Setup::start();
    let mut agent = resume3(&setup, 0);
    agent.send("82 <0001 \"eden/v1/pi/cmd/#\" 01>");
    agent.expect("90 03 00 01 01");
    leave(agent);
    let mut sender = setup.v311("sender");
    for _ in 0..50 {
        command(&mut sender, "x", &"y".repeat(4_000), 0);
    }
    let mut agent = resume3(&setup, 1);
    for _ in 0..16 {
        assert_eq!(agent.next()[0], 0x32);
    }
    let filter = "\"eden/v1/pi/cmd/#\" 01 ".repeat(2_000);
    agent.send(&format!("82 <0002 {filter}>"));
    let suback = agent.next();
    assert_eq!((suback[0], suback.len()), (0x90, 2_005));
    agent.send(&format!("a2 <0003 {}>", "\"eden/v1/pi/cmd/#\" ".repeat(2_000)));
    agent.expect("b0 02 00 03");
    let files = std::fs::read_dir(setup.config.storage.data.join("mqtt")).unwrap();
    let bytes: u64 = files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 4 << 20, "{bytes}");
}
