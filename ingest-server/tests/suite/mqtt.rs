//! The MQTT listener: raw packets in, raw packets out.
//!
//! Packets are written as people read them. `10 <"MQTT" 04 02 003c "c">` is CONNECT: `< >` puts the remaining length
//! before what it holds, `{ }` a length of properties, `"text"` is a text with its length, `'text'` its bytes alone,
//! the rest is hexadecimal. In what is expected, `??` is any byte, and `..` anything until the packet's end.

mod clients;
mod connections;
mod flow;
mod hostile;
mod kept;
mod overload;
mod promises;
mod rules;
mod sessions;
mod sparkplug;
mod statements;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use faults::{FaultDisk, Faults};
use ingest_server::config::Config;
use ingest_server::serve::{Server, Surroundings};
use model::{Clock, SystemClock};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{get, post};

/// Longer than any answer takes, even on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server in this process.
pub(super) struct Setup {
    pub(super) runtime: Runtime,
    pub(super) server: Option<Server>,
    pub(super) faults: Faults,
    pub(super) url: String,
    pub(super) mqtt: SocketAddr,
    pub(super) clock: Arc<ShiftedClock>,
    config: Config,
    surroundings: Surroundings,
    _dir: TempDir,
}

/// The machine's clock, and what a test adds to its wall time.
#[derive(Debug)]
pub(super) struct ShiftedClock {
    clock: SystemClock,
    added_us: AtomicI64,
}

impl ShiftedClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(ShiftedClock { clock: SystemClock::new(), added_us: AtomicI64::new(0) })
    }

    pub(super) fn add(&self, seconds: i64) {
        self.added_us.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for ShiftedClock {
    fn now_us(&self) -> i64 {
        self.clock.now_us() + self.added_us.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

impl Setup {
    /// With the defaults, and ready.
    pub(super) fn start() -> Self {
        Setup::start_with(|_| {})
    }

    pub(super) fn start_with(set: impl FnOnce(&mut Config)) -> Self {
        let mut setup = Setup::bind_with(set);
        setup.open();
        setup
    }

    /// Listens, but has not opened its data folder.
    pub(super) fn bind_with(set: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = Config::default();
        config.http.listen = "127.0.0.1:0".into();
        config.mqtt.listen = "127.0.0.1:0".into();
        config.postgres.listen = "127.0.0.1:0".into();
        config.grpc.listen = "127.0.0.1:0".into();
        config.storage.data = dir.path().join("data");
        set(&mut config);
        let mut surroundings = Surroundings::system();
        let (disk, faults) = FaultDisk::new(surroundings.disk);
        surroundings.disk = Arc::new(disk);
        let clock = ShiftedClock::new();
        surroundings.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::bind_in(config.clone(), surroundings.clone())).unwrap();
        let url = format!("http://{}", server.http_addr());
        let mqtt = server.mqtt_addr().unwrap();
        Setup { runtime, server: Some(server), faults, url, mqtt, clock, config, surroundings, _dir: dir }
    }

    /// Ends the server in order and starts it again.
    pub(super) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// After [`Setup::stop`].
    pub(super) fn start_again(&mut self) {
        let (config, surroundings) = (self.config.clone(), self.surroundings.clone());
        let server = self.runtime.block_on(Server::bind_in(config, surroundings)).unwrap();
        self.url = format!("http://{}", server.http_addr());
        self.mqtt = server.mqtt_addr().unwrap();
        self.server = Some(server);
        self.open();
    }

    pub(super) fn open(&mut self) {
        self.runtime.block_on(self.server.as_mut().unwrap().open()).unwrap();
    }

    pub(super) fn stop(&mut self) {
        let server = self.server.take().unwrap();
        let _ = self.runtime.block_on(server.stop());
    }

    /// A connection that has said nothing yet.
    pub(super) fn dial(&self) -> Raw {
        Raw::dial(self.mqtt)
    }

    /// A client of MQTT 3.1.1, accepted.
    pub(super) fn v311(&self, id: &str) -> Raw {
        let mut raw = self.dial();
        raw.send(&format!("10 <\"MQTT\" 04 02 0000 \"{id}\">"));
        raw.expect("20 02 00 00");
        raw
    }

    /// A client of MQTT 5, accepted.
    pub(super) fn v5(&self, id: &str) -> Raw {
        let mut raw = self.dial();
        raw.v5 = true;
        raw.send(&format!("10 <\"MQTT\" 05 02 0000 {{}} \"{id}\">"));
        raw.expect("20 ?? 00 00 ..");
        raw
    }

    pub(super) fn rows(&self, statement: &str) -> Value {
        let answer = post(&self.url, "/_sql", &[], json!({ "stmt": statement }).to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["rows"].clone()
    }

    /// The value of a metric's sample, with labels if it has any.
    pub(super) fn metric(&self, sample: &str) -> u64 {
        let page = get(&self.url, "/metrics", &[]).body;
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

impl Drop for Setup {
    /// A test that fails must not wait for a disk that it holds.
    fn drop(&mut self) {
        self.faults.release_syncs();
    }
}

/// One connection.
pub(super) struct Raw {
    stream: TcpStream,
    v5: bool,
}

impl Raw {
    /// A connection that has said nothing yet.
    pub(super) fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, v5: false }
    }

    pub(super) fn send(&mut self, packets: &str) {
        self.send_bytes(&bytes(packets));
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed, and what it said before is to be read.
        let _ = self.stream.write_all(bytes);
    }

    /// Publishes line protocol to `lp/x`.
    pub(super) fn publish(&mut self, qos: u8, id: u16, lines: &str) {
        self.publish_to("lp/x", qos, id, lines.as_bytes());
    }

    pub(super) fn publish_to(&mut self, topic: &str, qos: u8, id: u16, payload: &[u8]) {
        let packet = publish(self.v5, topic, qos, id, payload);
        self.send_bytes(&packet);
    }

    /// The next packet, whole; empty at the end.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut packet = vec![0];
        match self.stream.read(&mut packet) {
            Ok(1) => {}
            Ok(_) => return Vec::new(),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Vec::new(),
            Err(e) => panic!("no packet: {e}"),
        }
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            packet.push(byte[0]);
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let head = packet.len();
        packet.resize(head + len, 0);
        self.stream.read_exact(&mut packet[head..]).unwrap();
        packet
    }

    pub(super) fn expect(&mut self, packet: &str) {
        let found = self.next();
        assert!(is_like(&found, packet), "{packet} was expected, not {found:02x?}");
    }

    pub(super) fn expect_closed(&mut self) {
        assert_eq!(self.next(), b"", "the connection is not closed");
    }

    /// Nothing has come, and what is asked for now comes next.
    pub(super) fn expect_nothing(&mut self) {
        self.send("c0 00");
        self.expect("d0 00");
    }

    /// Nothing comes for a while: an absence has no event to wait for.
    pub(super) fn expect_silence(&mut self, period: Duration) {
        self.stream.set_read_timeout(Some(period)).unwrap();
        let mut byte = [0];
        if let Ok(len) = self.stream.read(&mut byte) {
            panic!("{len} bytes came: {byte:02x?}");
        }
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    }
}

/// PUBLISH.
pub(super) fn publish(v5: bool, topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if v5 {
        body.push(0);
    }
    body.extend(payload);
    let mut packet = vec![0x30 | qos << 1];
    packet.extend(length(body.len()));
    packet.extend(body);
    packet
}

pub(super) fn length(mut len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (len & 0x7f) as u8;
        len >>= 7;
        bytes.push(if len > 0 { byte | 0x80 } else { byte });
        if len == 0 {
            return bytes;
        }
    }
}

/// Bytes from how they are written; see the module.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let mut stack = vec![Vec::new()];
    let mut at = text.chars().peekable();
    while let Some(c) = at.next() {
        match c {
            '<' | '{' => stack.push(Vec::new()),
            '>' | '}' => {
                let inner = stack.pop().unwrap();
                let outer = stack.last_mut().unwrap();
                outer.extend(length(inner.len()));
                outer.extend(inner);
            }
            '"' | '\'' => {
                let inner: String = at.by_ref().take_while(|next| *next != c).collect();
                let out = stack.last_mut().unwrap();
                if c == '"' {
                    out.extend((inner.len() as u16).to_be_bytes());
                }
                out.extend(inner.as_bytes());
            }
            c if c.is_whitespace() => {}
            c => {
                let low = at.next().unwrap().to_digit(16).unwrap();
                stack.last_mut().unwrap().push((c.to_digit(16).unwrap() << 4 | low) as u8);
            }
        }
    }
    assert_eq!(stack.len(), 1, "{text}");
    stack.remove(0)
}

fn is_like(found: &[u8], wanted: &str) -> bool {
    let Some(wanted) = wanted.strip_suffix("..") else { return same(found, wanted, true) };
    same(found, wanted, false)
}

fn same(found: &[u8], wanted: &str, whole: bool) -> bool {
    if !wanted.contains("??") {
        let wanted = bytes(wanted);
        return if whole { found == wanted } else { found.starts_with(&wanted) };
    }
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    found.len() >= wanted.len()
        && (!whole || found.len() == wanted.len())
        && wanted.iter().zip(found).all(|(wanted, found)| *wanted == "??" || bytes(wanted) == [*found])
}
