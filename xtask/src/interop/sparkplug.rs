//! An edge node of Sparkplug B, by a library that nobody here wrote, on Eden's own listener and on a Mosquitto to which Eden
//! subscribes. It loses messages, is born again with other aliases, and lives through the death of the server. What it said is in
//! SQL, or in the quarantine where an alias cannot be believed; nothing is in neither; and it is asked for a rebirth once in the
//! minute and life of the server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use harness::{Eden, Rows, wait};
use serde_json::{Value, json};

use super::brokers::sum_of;
use super::clients::install_from_pypi;
use super::{free_port, install, nothing_is_damaged, run_sql};
use crate::command::in_root;
use crate::mosquitto::Mosquitto;
use crate::{Failure, Outcome};

const SCRIPT: &str = "tests/interop/edge_node.py";
const GROUP: &str = "plant";
const NODE: &str = "line7";
const HOST: &str = "eden";
const RULE: &str =
    "[mqtt]\nsparkplug_host = \"eden\"\n[[mqtt.rule]]\ntopics = [\"spBv1.0/#\"]\ndata_format = \"sparkplug_b\"\n";
const COMES_WITHIN: Duration = Duration::from_secs(20);
/// What has been asked for has come by then.
const QUIET: Duration = Duration::from_millis(500);

/// Where the edge node connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Listener,
    Broker,
}

pub(super) fn edge_nodes_are_understood() -> Outcome {
    install("mosquitto", "mosquitto")?;
    let python = install_from_pypi("venv-sparkplug", "requirements-sparkplug.txt")?;
    // Both wait most of the time.
    std::thread::scope(|scope| {
        let runs = [Place::Listener, Place::Broker].map(|place| {
            let python = &python;
            scope.spawn(move || run(place, python).map_err(|error| format!("sparkplug, {place:?}: {error}")))
        });
        runs.into_iter().try_for_each(|run| run.join().expect("a run"))
    })
}

fn run(place: Place, python: &Path) -> Outcome {
    let folder = std::env::temp_dir().join(format!("eden-sparkplug-{place:?}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let result = of_place(place, python, &folder);
    std::fs::remove_dir_all(&folder).map_err(|error| format!("remove {}: {error}", folder.display()))?;
    result
}

fn of_place(place: Place, python: &Path, folder: &Path) -> Outcome {
    let mosquitto = (place == Place::Broker).then(|| Mosquitto::start(folder)).transpose()?;
    let mut options = Eden::options("sparkplug-interop");
    // The node comes back to the address that it knows.
    let listen = format!("127.0.0.1:{}", free_port()?);
    let address = match &mosquitto {
        Some(mosquitto) => {
            let broker = format!("[[mqtt.broker]]\nurl = \"mqtt://{}\"\ntopics = [\"spBv1.0/#\"]\n", mosquitto.address);
            options = options.configuration(&format!("{RULE}{broker}"));
            mosquitto.address.clone()
        }
        None => {
            options = options.configuration(RULE).setting("EDEN_MQTT_LISTEN", &listen);
            listen
        }
    };
    let eden = options.start();
    if mosquitto.is_some() {
        let connected = || sum_of(&eden, "eden_broker_connected").is_ok_and(|sum| sum == 1.0).then_some(());
        wait::until(COMES_WITHIN, connected).ok_or_else(|| format!("no connection to mosquitto\n{}", eden.log()))?;
    }
    let mut scene =
        Scene { eden, node: EdgeNode::start(python, &address)?, stored: Known::default(), aside: Vec::new() };
    let result = scene.play(place);
    result.map_err(|error| format!("{error}\n{}", scene.eden.log()))
}

/// Rows by time in ms and device.
type Known = BTreeMap<(i64, String), Value>;

struct Scene {
    eden: Eden,
    node: EdgeNode,
    /// What has to be in the table.
    stored: Known,
    /// Topic and length of each message that has to be in the quarantine, in order.
    aside: Vec<(String, u64)>,
}

impl Scene {
    fn play(&mut self, place: Place) -> Outcome {
        let first = std::mem::take(&mut self.node.first);
        self.stores(first);
        self.host_says(&[true])?;
        self.node.tell("born")?;
        self.says_and_is_believed("data 5 0")?;

        // Twice a message is lost within the minute: one request.
        self.node.tell("lose")?;
        self.says_and_is_not_believed("data 3 0")?;
        self.is_asked(1)?;
        self.says_and_is_believed("rebirth")?;
        self.says_and_is_believed("data 3 0")?;
        self.node.tell("lose")?;
        self.says_and_is_not_believed("data 2 0")?;
        self.says_and_is_believed("named 2")?;
        self.is_asked(1)?;
        self.says_and_is_believed("rebirth")?;
        self.says_and_is_believed("data 300 0")?;

        self.eden.kill();
        if place == Place::Listener {
            // It notices, keeps what it measures, and is born by itself when it is back.
            self.node.tell("gone")?;
            let unsent = self.node.rows("data 3 0")?;
            if let Some(sent) = unsent.iter().find(|row| !row["message"].is_null()) {
                return Err(format!("it could send to a dead server: {sent}"));
            }
            self.eden.restart();
            self.node.tell("born")?;
            // That it was away was to be seen.
            self.host_says(&[true, true])?;
            self.says_and_is_believed("kept")?;
            self.says_and_is_believed("data 3 0")?;
            self.is_asked(1)?;
            self.node.tell("lose")?;
        } else {
            // It notices nothing, and the broker keeps what it says.
            self.says_and_is_not_believed_later("data 3 1")?;
            // Its will.
            self.host_says(&[true, false])?;
            self.eden.restart();
            self.host_says(&[true, false, true])?;
            self.all_is_there()?;
        }
        self.says_and_is_not_believed("data 3 0")?;
        self.is_asked(2)?;
        self.says_and_is_believed("rebirth")?;
        self.says_and_is_believed("data 3 0")?;
        self.is_asked(2)?;

        let mut said = vec![true; 2];
        if place == Place::Broker {
            self.eden.stop();
            said = vec![true, false, true, false];
            self.host_says(&said)?;
            self.eden.restart();
            said.push(true);
            // Births are sent once (QoS 0): those that the broker gets before the server has subscribed are nobody's.
            self.host_says(&said)?;
            // It knows nobody yet, and is to know whose death it hears.
            self.says_and_is_believed("rebirth")?;
        }
        self.host_says(&said)?;

        self.node.dies()?;
        let online = format!(
            "SELECT device_id, last_value(online ORDER BY time) FROM sparkplug_state WHERE edge_node_id = '{NODE}' \
             GROUP BY device_id ORDER BY device_id NULLS FIRST"
        );
        let expected = json!([[null, false], ["press", false]]);
        let is_off = || {
            let rows = Rows::new(run_sql(&self.eden, &online).ok()?);
            let rows: Vec<_> = (0..rows.len()).map(|row| rows.row(row).to_vec()).collect();
            (json!(rows) == expected).then_some(())
        };
        wait::until(COMES_WITHIN, is_off).ok_or("its death is not told")?;

        self.eden.kill();
        self.eden.restart();
        self.all_is_there()?;
        self.eden.stop();
        nothing_is_damaged(&self.eden)?;
        let client = &self.node.client;
        println!(
            "{client}, {place:?}: {} rows are stored as the edge node said, {} messages with aliases that cannot be \
             believed are set aside, it was asked for a rebirth twice, by two lives of the server",
            self.stored.len(),
            self.aside.len()
        );
        Ok(())
    }

    fn stores(&mut self, rows: Vec<Value>) {
        for row in rows {
            let key = (row["time_ms"].as_i64().unwrap_or_default(), device_of(&row["device"]));
            let fields = row["fields"].as_object().into_iter().flatten();
            self.stored.insert(key, fields.map(|(name, value)| (name.clone(), as_in_sql(value))).collect());
        }
    }

    fn says_and_is_believed(&mut self, order: &str) -> Outcome {
        let rows = self.node.rows(order)?;
        self.stores(rows);
        self.all_is_there().map_err(|error| format!("after {order:?}: {error}"))
    }

    fn says_and_is_not_believed(&mut self, order: &str) -> Outcome {
        self.says_and_is_not_believed_later(order)?;
        self.all_is_there().map_err(|error| format!("after {order:?}: {error}"))
    }

    fn says_and_is_not_believed_later(&mut self, order: &str) -> Outcome {
        for row in self.node.rows(order)? {
            let message = &row["message"];
            let topic = message["topic"].as_str().ok_or("it could not be sent")?;
            self.aside.push((topic.to_string(), message["bytes"].as_u64().unwrap_or_default()));
        }
        Ok(())
    }

    /// The table and the quarantine have, soon, exactly what they should.
    fn all_is_there(&self) -> Outcome {
        let mut found = Err("nobody has asked".to_string());
        let mut aside = self.aside.clone();
        aside.sort_unstable();
        let complete = wait::until(COMES_WITHIN, || {
            found = self.in_table().and_then(|table| Ok((table, self.in_quarantine()?)));
            found.as_ref().is_ok_and(|(table, quarantine)| *table == self.stored && *quarantine == aside).then_some(())
        });
        if complete.is_some() {
            return Ok(());
        }
        let (table, quarantine) = found?;
        let wrong = self.stored.iter().find(|(key, fields)| table.get(*key) != Some(fields));
        let more = table.iter().find(|(key, _)| !self.stored.contains_key(*key));
        Err(format!(
            "SQL has {} of {} rows, the first that differs: {wrong:?}, in SQL {:?}; what nobody said: {more:?}; in the quarantine \
             {quarantine:?}, expected {aside:?}",
            table.len(),
            self.stored.len(),
            wrong.map(|(key, _)| table.get(key))
        ))
    }

    fn in_table(&self) -> Result<Known, Failure> {
        let rows = Rows::new(run_sql(&self.eden, &format!("SELECT * FROM {GROUP} WHERE edge_node_id = '{NODE}'"))?);
        let of_row = |row: usize| {
            let mut device = String::new();
            let mut fields = serde_json::Map::new();
            for (name, value) in rows.columns().iter().zip(rows.row(row)).filter(|(_, value)| !value.is_null()) {
                match name.as_str() {
                    "time" | "edge_node_id" => {}
                    "device_id" => device = device_of(value),
                    _ => drop(fields.insert(name.clone(), value.clone())),
                }
            }
            ((rows.time_us(row) / 1_000, device), Value::Object(fields))
        };
        Ok((0..rows.len()).map(of_row).collect())
    }

    fn in_quarantine(&self) -> Result<Vec<(String, u64)>, Failure> {
        let statement = "SELECT topic, CAST(bytes AS BIGINT) AS length FROM system.quarantine ORDER BY topic, length";
        let rows = Rows::new(run_sql(&self.eden, statement)?);
        let cells = |row: usize| (rows.row(row)[0].as_str(), rows.row(row)[1].as_u64());
        let whole = |(topic, bytes): (Option<&str>, Option<u64>)| Some((topic?.to_string(), bytes?));
        (0..rows.len()).map(|row| whole(cells(row)).ok_or_else(|| format!("{:?} is set aside", cells(row)))).collect()
    }

    /// A client beside the edge node has heard this of the host, in this order, each later than what it said before it went.
    fn host_says(&mut self, expected: &[bool]) -> Outcome {
        let mut said = Value::Null;
        let node = &mut self.node;
        let heard = wait::until(COMES_WITHIN, || {
            said = node.tell("host").ok()?["said"].clone();
            let mut states = said.as_array()?.clone();
            // It says so again if a session that it comes back to brings its own will.
            states.dedup();
            let online: Vec<_> = states.iter().map(|state| state["online"].as_bool()).collect();
            let births = states.iter().filter(|state| state["online"] == true);
            let times: Vec<_> = births.map(|state| state["timestamp"].as_i64()).collect();
            let is_so = online.iter().copied().eq(expected.iter().map(|online| Some(*online)));
            (is_so && times.is_sorted_by(|a, b| a.is_some() && a < b)).then_some(())
        });
        heard.ok_or_else(|| format!("the host is {said}, expected {expected:?}"))
    }

    /// It was asked for a rebirth so often, and is not asked more often.
    fn is_asked(&mut self, times: u64) -> Outcome {
        let mut asked = 0;
        let node = &mut self.node;
        let mut ask = |until: &dyn Fn(u64) -> bool, within| {
            wait::until(within, || {
                asked = node.tell("asked").ok()?["asked"].as_u64()?;
                until(asked).then_some(())
            })
        };
        if ask(&|asked| asked >= times, COMES_WITHIN).is_some() && ask(&|asked| asked > times, QUIET).is_none() {
            return Ok(());
        }
        Err(format!("it was asked for a rebirth {asked} times, expected {times}"))
    }
}

/// Numbers beyond those with a sign are text in the answers of SQL.
fn as_in_sql(value: &Value) -> Value {
    if value.is_u64() && !value.is_i64() { Value::String(value.to_string()) } else { value.clone() }
}

fn device_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// `edge_node.py`; it dies with its standard input.
struct EdgeNode {
    /// Name and version of the library.
    client: String,
    /// What its first birth says.
    first: Vec<Value>,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    process: Child,
}

impl EdgeNode {
    fn start(python: &Path, address: &str) -> Result<Self, Failure> {
        let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address} is not host:port"))?;
        let mut command = in_root(python);
        command.arg(SCRIPT).args([host, port, GROUP, NODE, HOST]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| format!("run {SCRIPT}: {error}"))?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let mut node = EdgeNode { client: String::new(), first: Vec::new(), orders, answers, process };
        let hello = node.answer()?;
        node.client = hello["client"].as_str().unwrap_or_default().to_string();
        node.first = hello["rows"].as_array().cloned().ok_or("it said nothing of its birth")?;
        Ok(node)
    }

    fn tell(&mut self, order: &str) -> Result<Value, Failure> {
        let orders = self.orders.as_mut().ok_or("the edge node is dead")?;
        writeln!(orders, "{order}").map_err(|error| format!("tell {SCRIPT} {order:?}: {error}"))?;
        self.answer()
    }

    fn rows(&mut self, order: &str) -> Result<Vec<Value>, Failure> {
        let answer = self.tell(order)?;
        answer["rows"].as_array().cloned().ok_or_else(|| format!("{order:?} was answered {answer}"))
    }

    fn answer(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| format!("hear {SCRIPT}: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("{SCRIPT} said {line:?}: {error}"))
    }

    fn dies(&mut self) -> Outcome {
        self.orders = None;
        self.process.wait().map(drop).map_err(|error| format!("wait for {SCRIPT}: {error}"))
    }
}

impl Drop for EdgeNode {
    fn drop(&mut self) {
        // Gone already is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
