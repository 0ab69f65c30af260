//! Stock MQTT clients publish readings at every QoS in every version they speak; what was acknowledged is in SQL, also
//! after a kill (P1).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::mqtt::{Event, Publisher, Qos, Version};
use harness::{Eden, wait};

use super::clients::{Clients, install_from_npm};
use super::{install, piped};
use crate::command::{in_root, output, root};
use crate::{Failure, Outcome};

/// The one package that this installs from npm.
const MQTT_JS: &str = "mqtt@5.16.0";
const SINGLES: usize = 100;
/// Readings in the last message.
const IN_ONE_MESSAGE: usize = 500;
const MESSAGES: usize = SINGLES + 1;
const READINGS: usize = SINGLES + IN_ONE_MESSAGE;
/// 2026-06-01T00:00:00Z.
const START_NS: u64 = 1_780_272_000_000_000_000;
/// At QoS 0 nothing says when it has arrived.
const STORED_WITHIN: Duration = Duration::from_secs(30);
const ACKED_WITHIN: Duration = Duration::from_secs(60);

/// A client with the versions it speaks.
struct Stock<'a> {
    name: &'static str,
    versions: &'static [&'static str],
    publish: &'a dyn Fn(&Run<'_>) -> Result<Published, Failure>,
}

/// One publisher's task.
struct Run<'a> {
    address: &'a str,
    client_id: &'a str,
    version: &'a str,
    qos: u8,
    /// One message a line, line feeds as `\n`.
    file: &'a Path,
    messages: &'a [String],
}

/// What the client says it did.
struct Published {
    client: String,
    acked: BTreeSet<usize>,
}

pub(super) fn stock_clients_publish(clients: &Clients) -> Outcome {
    install("mosquitto_pub", "mosquitto-clients")?;
    install("node", "nodejs")?;
    install("npm", "npm")?;
    let node_modules = install_from_npm(&[MQTT_JS])?;
    let mut eden = Eden::start("mqtt-interop");
    let folder = eden.home().to_path_buf();

    let paho = |run: &Run<'_>| script(in_root(&clients.python).arg("tests/interop/publish_paho.py"), run);
    let mqtt_js = |run: &Run<'_>| {
        let mut command = in_root("node");
        script(command.env("NODE_PATH", &node_modules).arg("tests/interop/publish_mqttjs.js"), run)
    };
    let stock = [
        Stock { name: "mosquitto", versions: &["3.1", "3.1.1", "5"], publish: &mosquitto_pub },
        Stock { name: "paho", versions: &["3.1", "3.1.1", "5"], publish: &paho },
        Stock { name: "mqttjs", versions: &["3.1", "3.1.1", "5"], publish: &mqtt_js },
        Stock { name: "rumqttc", versions: &["3.1.1", "5"], publish: &rumqttc },
    ];
    let mut published_by = Vec::new();
    for Stock { name, versions, publish } in &stock {
        for version in *versions {
            for qos in 0..=2 {
                let client_id = format!("{name}-{}-{qos}", version.replace('.', ""));
                let messages = messages(&client_id);
                let file = folder.join(&client_id);
                let text: String = messages.iter().map(|message| message.replace('\n', "\\n") + "\n").collect();
                std::fs::write(&file, text).map_err(|error| format!("write {}: {error}", file.display()))?;
                let run = Run {
                    address: eden.mqtt_address(),
                    client_id: &client_id,
                    version,
                    qos,
                    file: &file,
                    messages: &messages,
                };
                let published = publish(&run).map_err(|error| format!("{client_id}: {error}"))?;
                if published.acked.len() != MESSAGES {
                    return Err(format!("{client_id}: {} of {MESSAGES} acknowledged", published.acked.len()));
                }
                let patience = if qos == 0 { STORED_WITHIN } else { Duration::ZERO };
                stored(&eden, &client_id, patience)?;
                println!("{}: MQTT {version}, QoS {qos}: {READINGS} readings are stored", published.client);
                published_by.push((client_id, qos));
            }
        }
    }
    eden.kill();
    eden.restart();
    for (client_id, _) in published_by.iter().filter(|(_, qos)| *qos > 0) {
        stored(&eden, client_id, Duration::ZERO)?;
    }
    println!("all that was acknowledged at QoS 1 and 2 is there after kill -9");
    downlink(&eden)
}

/// A device may listen to its own downlink.
fn downlink(eden: &Eden) -> Outcome {
    for version in ["mqttv311", "mqttv5"] {
        let (host, port) = host_and_port(eden.mqtt_address())?;
        let arguments = ["-h", host, "-p", port, "-V", version, "-i", "listener", "-t", "eden/v1/listener/cmd/#", "-E"];
        output(Command::new("mosquitto_sub").args(arguments))?;
    }
    println!("mosquitto_sub: its own downlink is granted");
    Ok(())
}

/// Single readings, then many in one message.
fn messages(client_id: &str) -> Vec<String> {
    let line = |n: usize| format!("interop,device={client_id} n={n}i {}", START_NS + n as u64 * 1_000_000);
    let mut messages: Vec<_> = (0..SINGLES).map(line).collect();
    messages.push((SINGLES..READINGS).map(line).collect::<Vec<_>>().join("\n"));
    messages
}

fn stored(eden: &Eden, client_id: &str, within: Duration) -> Outcome {
    let statement = format!("SELECT n, time FROM interop WHERE device = '{client_id}' ORDER BY n");
    let mut last = String::new();
    let complete = wait::until(within, || {
        // The table is not there before the first reading is.
        let rows = match eden.client().sql(&statement) {
            Ok(answer) => harness::Rows::new(answer),
            Err(error) => {
                last = error;
                return None;
            }
        };
        let good = (0..rows.len()).all(|n| {
            let time_us = (START_NS / 1_000) as i64 + n as i64 * 1_000;
            rows.get(n, "n").as_u64() == Some(n as u64) && rows.time_us(n) == time_us
        });
        last = format!("{} readings stored, expected {READINGS}", rows.len());
        (good && rows.len() == READINGS).then_some(())
    });
    complete.ok_or_else(|| format!("{client_id}: {last}"))
}

/// One process for the single readings, a message a line, and one for the large message. It ends well only when all was
/// acknowledged.
fn mosquitto_pub(run: &Run<'_>) -> Result<Published, Failure> {
    let (host, port) = host_and_port(run.address)?;
    let (qos, topic) = (run.qos.to_string(), format!("eden/v1/{}/lp", run.client_id));
    let version = format!("mqttv{}", run.version.replace('.', ""));
    let common = ["-h", host, "-p", port, "-i", run.client_id, "-V", &version, "-q", &qos, "-t", &topic];
    let (large, singles) = run.messages.split_last().expect("messages");
    piped("mosquitto_pub", &[&common[..], &["-l"]].concat(), (singles.join("\n") + "\n").as_bytes())?;
    piped("mosquitto_pub", &[&common[..], &["-s"]].concat(), large.as_bytes())?;
    // It says its version and ends with an error.
    let said = Command::new("mosquitto_pub").arg("--version").output();
    let said = said.map_err(|error| format!("run mosquitto_pub: {error}"))?;
    let version = String::from_utf8_lossy(&said.stdout);
    let version = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(Published { client: format!("mosquitto_pub {}", version.unwrap_or("?")), acked: (0..MESSAGES).collect() })
}

/// A script beside the tests, which says what was acknowledged.
fn script(command: &mut Command, run: &Run<'_>) -> Result<Published, Failure> {
    let (host, port) = host_and_port(run.address)?;
    let qos = run.qos.to_string();
    let text = output(command.args([host, port, run.client_id, run.version, &qos]).arg(run.file))?;
    let mut published = Published { client: String::new(), acked: BTreeSet::new() };
    for line in text.lines() {
        if let Some(client) = line.strip_prefix("version ") {
            published.client = client.to_string();
        } else if let Some(number) = line.strip_prefix("acked ") {
            published.acked.insert(number.parse().map_err(|error| format!("{line}: {error}"))?);
        }
    }
    Ok(published)
}

/// In this process.
fn rumqttc(run: &Run<'_>) -> Result<Published, Failure> {
    let version = if run.version == "5" { Version::V5 } else { Version::V311 };
    let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(run.qos)];
    let topic = format!("eden/v1/{}/lp", run.client_id);
    let mut publisher = Publisher::new(run.address, run.client_id, version, &topic, qos, MESSAGES);
    for message in run.messages {
        publisher.publish(message.clone().into_bytes());
    }
    let mut acked = BTreeSet::new();
    let deadline = wait::now() + ACKED_WITHIN;
    while acked.len() < MESSAGES {
        match publisher.next_event(Duration::from_millis(100)) {
            Some(Event::Acked(number)) => drop(acked.insert(number as usize - 1)),
            Some(Event::Connected) => {}
            Some(other) => return Err(format!("{other:?}")),
            // At QoS 0 what is not queued any more was sent.
            None if run.qos == 0 && publisher.open().is_empty() => acked.extend(0..MESSAGES),
            None if wait::now() > deadline => break,
            None => {}
        }
    }
    let lock =
        std::fs::read_to_string(root().join("Cargo.lock")).map_err(|error| format!("read Cargo.lock: {error}"))?;
    let locked = lock.split("name = \"rumqttc\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    Ok(Published { client: format!("rumqttc {}", locked.unwrap_or("?")), acked })
}

fn host_and_port(address: &str) -> Result<(&str, &str), Failure> {
    address.rsplit_once(':').ok_or_else(|| format!("{address} is not host:port"))
}
