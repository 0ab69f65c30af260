//! An edge node of Sparkplug B, its birth, its death, and a server that forgets.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Raw, length};
use crate::process::Eden;

const RULE: &str = "[[mqtt.rule]]\ntopics = [\"spBv1.0/#\"]\ndata_format = \"sparkplug_b\"\n";
/// SUBSCRIBE of MQTT 3.1.1, as libraries for edge nodes send it.
const SUBSCRIBE: &str = "82 <0001 \"spBv1.0/g/NCMD/n/#\" 01 \"spBv1.0/g/DCMD/n/#\" 01 \"spBv1.0/STATE/scada\" 01>";
/// NCMD at QoS 0 for g and n, with the metric that asks for a rebirth.
const TOPIC: &str = "spBv1.0/g/NCMD/n";

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &length(bytes.len()), bytes].concat()
}

/// `seq`, and metrics: name, alias, and whether the value is on. All of them are booleans.
fn payload(at_s: usize, seq: Option<u8>, metrics: &[(&str, u8, bool)]) -> Vec<u8> {
    let mut out = [&[0x08][..], &length(at_s * 1_000)].concat();
    for (name, alias, on) in metrics {
        let mut metric = Vec::new();
        if !name.is_empty() {
            metric.extend(field(1, name.as_bytes()));
            metric.extend([0x20, 11]);
        }
        if *alias > 0 {
            metric.extend([0x10, *alias]);
        }
        metric.extend([14 << 3, u8::from(*on)]);
        out.extend(field(2, &metric));
    }
    out.extend(seq.map(|seq| [&[0x18][..], &length(seq.into())].concat()).unwrap_or_default());
    out
}

fn start(dir: TempDir) -> Eden {
    start_with(dir, RULE)
}

fn start_with(dir: TempDir, configuration: &str) -> Eden {
    std::fs::write(dir.path().join("eden.toml"), configuration).unwrap();
    Eden::start_in(dir, &[])
}

fn dial(eden: &Eden) -> Raw {
    let addresses = std::fs::read_to_string(eden.data().join("addresses.json")).unwrap();
    let addresses: Value = serde_json::from_str(&addresses).unwrap();
    Raw::dial(addresses["mqtt"].as_str().unwrap().parse().unwrap())
}

fn connect(eden: &Eden) -> Raw {
    let mut raw = dial(eden);
    // Its will is its death.
    raw.send("10 <\"MQTT\" 04 06 0000 \"edge\" \"spBv1.0/g/NDEATH/n\" 0000>");
    raw.expect("20 02 00 00");
    raw.send(SUBSCRIBE);
    raw.expect("90 05 00 01 01 01 01");
    raw
}

/// Publishes with QoS 1, so that it is known when it is stored.
fn say(raw: &mut Raw, what: &str, payload: &[u8]) {
    raw.publish_to(&format!("spBv1.0/g/{what}"), 1, 9, payload);
    raw.expect("40 02 00 09");
}

fn is_asked_for_a_rebirth(raw: &mut Raw) {
    let packet = raw.next();
    let said = String::from_utf8_lossy(&packet);
    assert!(packet[0] == 0x30 && said.contains(TOPIC) && said.contains("Node Control/Rebirth"), "{packet:02x?}");
}

#[test]
fn an_edge_node_is_heard_asked_again_after_a_gap_or_a_restart_and_never_misunderstood() {
    let eden = start(TempDir::new().unwrap());
    let mut raw = connect(&eden);
    let birth = [("bdSeq", 0, true), ("pump", 1, false), ("valve", 2, true)];
    say(&mut raw, "NBIRTH/n", &payload(1, Some(0), &birth));
    say(&mut raw, "DBIRTH/n/d", &payload(2, Some(1), &[("door", 3, true)]));
    say(&mut raw, "NDATA/n", &payload(3, Some(2), &[("", 1, true)]));
    say(&mut raw, "DDATA/n/d", &payload(4, Some(3), &[("", 3, false)]));
    // Number 4 is lost.
    raw.publish_to("spBv1.0/g/NDATA/n", 0, 0, &payload(5, Some(5), &[("", 2, false), ("pump", 0, false)]));
    is_asked_for_a_rebirth(&mut raw);
    say(&mut raw, "NDATA/n", &payload(6, Some(6), &[("", 2, false)]));
    // Once a minute.
    raw.expect_nothing();
    let dir = eden.kill();

    let eden = start(dir);
    let mut raw = connect(&eden);
    raw.publish_to("spBv1.0/g/NDATA/n", 0, 0, &payload(7, Some(7), &[("", 1, true)]));
    is_asked_for_a_rebirth(&mut raw);
    // The aliases are others now.
    say(&mut raw, "NBIRTH/n", &payload(8, Some(0), &[("pump", 2, true), ("valve", 1, true)]));
    say(&mut raw, "NDATA/n", &payload(9, Some(1), &[("", 1, false)]));
    let rows = "SELECT cast(time as bigint) / 1000000, device_id, pump, valve, door FROM g ORDER BY time";
    assert_eq!(
        eden.rows(rows),
        json!([
            [1, null, false, true, null],
            [2, "d", null, null, true],
            [3, null, true, null, null],
            [4, "d", null, null, false],
            [5, null, false, null, null],
            [8, null, true, true, null],
            [9, null, null, false, null]
        ])
    );
    let aside = eden.rows("SELECT topic, reason, precision, is_whole FROM system.quarantine ORDER BY time");
    let reason = "1 metrics have aliases that no birth since declares, and no names";
    assert_eq!(
        aside,
        json!([
            ["spBv1.0/g/NDATA/n", reason, "", false],
            ["spBv1.0/g/NDATA/n", reason, "", true],
            ["spBv1.0/g/NDATA/n", reason, "", true]
        ])
    );
    let replay = eden.post("/api/v1/quarantine/replay", &[], b"{}").json();
    assert_eq!(replay["not_replayable"], json!(3), "{replay}");

    // The connection breaks, and its will is the node's death.
    drop(raw);
    let mut raw = connect(&eden);
    // What comes after it in the log is durable after it.
    say(&mut raw, "NDATA/n", &payload(10, Some(2), &[("pump", 0, true)]));
    let online = "SELECT online FROM sparkplug_state WHERE device_id IS NULL ORDER BY time DESC LIMIT 1";
    assert_eq!(eden.rows(online), json!([[false]]));
    let commands = eden.get("/metrics").body;
    assert!(commands.contains("eden_mqtt_commands_total{result=\"sent\"} 1"), "{commands}");
}

/// The state of the host, retained or not and with QoS 1, which is acknowledged: when it says that it is online since, in ms.
fn is_told_of_its_host(raw: &mut Raw) -> i64 {
    let packet = raw.next();
    let at = packet.iter().position(|byte| *byte == b'{').unwrap_or_else(|| panic!("{packet:02x?}"));
    let (head, payload) = packet.split_at(at);
    let (rest, id) = head.split_at(head.len() - 2);
    assert!(packet[0] & 0xf6 == 0x32 && rest.ends_with(b"spBv1.0/STATE/scada"), "{packet:02x?}");
    raw.send_bytes(&[0x40, 2, id[0], id[1]]);
    let said: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(said["online"], json!(true), "{said}");
    said["timestamp"].as_i64().unwrap()
}

#[test]
fn an_edge_node_that_waits_for_its_host_is_told_that_it_is_there() {
    let configuration = format!("[mqtt]\nsparkplug_host = \"scada\"\n{RULE}");
    let eden = start_with(TempDir::new().unwrap(), &configuration);
    let mut raw = connect(&eden);
    let first = is_told_of_its_host(&mut raw);
    // Others may say what they like.
    raw.publish_to("spBv1.0/STATE/scada", 1, 9, br#"{"online":false,"timestamp":1}"#);
    raw.expect("40 02 00 09");
    raw.expect_nothing();
    // One that keeps its session does not subscribe again.
    let mut keeps = dial(&eden);
    keeps.send("10 <\"MQTT\" 04 00 0000 \"keeps\">");
    keeps.expect("20 02 00 00");
    keeps.send("82 <0001 \"spBv1.0/STATE/+\" 01>");
    keeps.expect("90 03 00 01 01");
    assert_eq!(is_told_of_its_host(&mut keeps), first);
    let dir = eden.kill();

    let eden = start_with(dir, &configuration);
    let mut keeps = dial(&eden);
    keeps.send("10 <\"MQTT\" 04 00 0000 \"keeps\">");
    keeps.expect("20 02 01 00");
    let second = is_told_of_its_host(&mut keeps);
    assert!(second > first, "{second} is not after {first}");
    keeps.expect_nothing();
    assert_eq!(is_told_of_its_host(&mut connect(&eden)), second);
}
