//! Who is connected, and how fast one may connect.

use std::time::Duration;

use model::Clock as _;
use serde_json::json;

use super::Setup;
use crate::process::post;

#[test]
fn connections_are_shown_as_they_are_now() {
    let setup = Setup::start();
    let mut agent = setup.v5("pi-7");
    agent.send("82 <0001 {} \"eden/v1/pi-7/cmd/#\" 01>");
    agent.expect("90 <0001 {} 01>");
    let mut sender = setup.v311("sender");
    sender.publish_to("eden/v1/pi-7/cmd/x", 1, 1, b"go");
    sender.expect("40 02 00 01");
    agent.expect("32 <\"eden/v1/pi-7/cmd/x\" 0001 {} 'go'>");
    sender.publish(1, 2, "m v=1 1000");
    sender.expect("40 02 00 02");
    setup.faults.hold_syncs();
    sender.publish(1, 3, "m v=2 2000");
    sender.expect_nothing();
    // One that has not said who it is.
    let _stranger = setup.dial();
    let columns = "client, version, messages, in_flight, subscriptions, commands_in_flight, bytes > 20";
    let mqtt = format!("SELECT {columns} FROM system.connections WHERE protocol = 'mqtt' ORDER BY client");
    assert_eq!(setup.rows(&mqtt), json!([["pi-7", "5", 0, 0, 1, 1, true], ["sender", "3.1.1", 3, 1, 0, 0, true]]));
    setup.faults.release_syncs();
    sender.expect("40 02 00 03");
    // Whoever asks is connected too, and waits for the answer; and the times are those of now.
    let asking = setup.rows("SELECT messages, in_flight, bytes FROM system.connections WHERE protocol = 'http'");
    assert!(asking.as_array().unwrap().contains(&json!([1, 1, null])), "{asking}");
    let odd = "SELECT count(*) FROM system.connections WHERE time > now() OR time < now() - interval '10 minutes' \
               OR peer NOT LIKE '127.0.0.1:%'";
    assert_eq!(setup.rows(odd), json!([[0]]));
    drop(agent);
    while setup.rows(&mqtt).as_array().unwrap().len() > 1 {}

    // It is a table among the others, that only the server writes.
    let listed = setup.rows("SELECT count(*) FROM information_schema.columns WHERE table_name = 'connections'");
    assert_eq!(listed, json!([[10]]));
    for statement in [
        "DROP TABLE system.connections",
        "DELETE FROM system.connections",
        "ALTER TABLE system.connections ADD COLUMN x TEXT",
    ] {
        let answer = post(&setup.url, "/_sql", &[], json!({ "stmt": statement }).to_string().as_bytes());
        assert!((400..500).contains(&answer.status), "{statement}: {answer:?}");
    }
    let done = post(&setup.url, "/_sql", &[], br#"{"stmt":"REFRESH TABLE system.connections"}"#);
    assert_eq!(done.status, 200, "{done:?}");
}

#[test]
fn clients_that_come_too_fast_wait() {
    let setup = Setup::start_with(|config| config.mqtt.connects_per_second = 5);
    let started = setup.clock.monotonic();
    // Five at once, and then one each 200 ms.
    let clients: Vec<_> = (0..9)
        .map(|i| {
            let mut raw = setup.dial();
            raw.send(&format!("10 <\"MQTT\" 04 02 0000 \"c{i}\">"));
            raw
        })
        .collect();
    for mut raw in clients {
        raw.expect("20 02 00 00");
    }
    let took = setup.clock.monotonic() - started;
    assert!(took >= Duration::from_millis(600), "{took:?}");
    assert!(setup.metric("eden_mqtt_connects_held_total") >= 4);
}
