//! The far end of an uplink, byte by byte: an MQTT server and an HTTP server that do what a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use edge_agent::outbox::Encoding;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection, encrypted or not.
trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// One MQTT connection, as the server has it.
pub(crate) struct Connection {
    stream: Box<dyn Duplex>,
    socket: TcpStream,
    version: u8,
    pub(crate) client_id: String,
    pub(crate) will: Option<(String, String)>,
    /// The filter that the agent asked for.
    pub(crate) subscribed: Option<String>,
}

/// A PUBLISH packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) id: u16,
    pub(crate) payload: Vec<u8>,
}

impl Publish {
    pub(crate) fn is_status(&self) -> bool {
        self.topic.ends_with("/status")
    }

    pub(crate) fn text(&self) -> String {
        let encoding = if self.topic.ends_with(".zst") { Encoding::Zstd } else { Encoding::Plain };
        text(&self.payload, encoding)
    }
}

pub(crate) fn text(payload: &[u8], encoding: Encoding) -> String {
    let bytes = match encoding {
        Encoding::Plain => payload.to_vec(),
        Encoding::Zstd => zstd::bulk::decompress(payload, 1 << 20).unwrap(),
    };
    String::from_utf8(bytes).unwrap()
}

/// The seq in a body's first line.
pub(crate) fn seq(text: &str) -> u64 {
    let first = text.lines().next().unwrap();
    first.split("seq=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// What a connection gets from the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Publish(Publish),
    Disconnect,
    /// The connection ended without a goodbye.
    End,
}

pub(crate) struct MqttPeer(TcpListener, Option<Arc<ServerConfig>>);

impl MqttPeer {
    pub(crate) fn new() -> Self {
        MqttPeer(TcpListener::bind("127.0.0.1:0").unwrap(), None)
    }

    /// With TLS.
    pub(crate) fn with_tls(config: ServerConfig) -> Self {
        MqttPeer(TcpListener::bind("127.0.0.1:0").unwrap(), Some(Arc::new(config)))
    }

    /// The same on the loopback of IPv6; none on a machine that has none.
    pub(crate) fn with_tls_on_v6(config: ServerConfig) -> Option<Self> {
        let listener = TcpListener::bind("[::1]:0").ok()?;
        Some(MqttPeer(listener, Some(Arc::new(config))))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}", self.0.local_addr().unwrap())
    }

    /// Takes the next connection and ends it.
    pub(crate) fn turn_away(&self) {
        drop(self.0.accept().unwrap());
    }

    /// Takes the next connection; whether it ends without an MQTT packet.
    pub(crate) fn ends_before_connect(&self) -> bool {
        let (socket, _) = self.0.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = ServerConnection::new(Arc::clone(self.1.as_ref().unwrap())).unwrap();
        packet(&mut StreamOwned::new(connection, socket)).is_none()
    }

    /// Takes the next connection and answers its CONNECT.
    pub(crate) fn accept(&self, receive_maximum: Option<u16>) -> Connection {
        let (socket, _) = self.0.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let below = socket.try_clone().unwrap();
        let mut stream: Box<dyn Duplex> = match &self.1 {
            None => Box::new(below),
            Some(config) => Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), below)),
        };
        let (first, body) = packet(&mut stream).unwrap();
        assert_eq!(first, 0x10, "CONNECT comes first");
        let mut body = Bytes(&body);
        assert_eq!(body.text(), "MQTT");
        let (version, flags) = (body.u8(), body.u8());
        assert_eq!(flags & 0b10, 0b10, "a clean session");
        let keep_alive = body.u16();
        assert!(keep_alive > 0, "dead connections are found");
        if version == 5 {
            body.properties();
        }
        let client_id = body.text();
        let will = (flags & 0b100 != 0).then(|| {
            assert_eq!(flags >> 3 & 0b11, 1, "the will has QoS 1");
            if version == 5 {
                body.properties();
            }
            (body.text(), body.text())
        });
        let mut connection = Connection { stream, socket, version, client_id, will, subscribed: None };
        match (version, receive_maximum) {
            (5, Some(maximum)) => {
                let [high, low] = maximum.to_be_bytes();
                connection.send(&[0x20, 6, 0, 0, 3, 0x21, high, low]);
            }
            (5, None) => connection.send(&[0x20, 3, 0, 0, 0]),
            _ => connection.send(&[0x20, 2, 0, 0]),
        }
        connection
    }
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) {
        // The agent may be gone: what it then does not hear is what the test looks at.
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet that means something; pings are answered.
    pub(crate) fn next(&mut self) -> Packet {
        loop {
            let Some((first, body)) = packet(&mut self.stream) else { return Packet::End };
            match first >> 4 {
                3 => {
                    assert_eq!(
                        first & 0b1111,
                        0b0010,
                        "QoS 1, not retained, and not a repetition: a clean session has none"
                    );
                    let mut body = Bytes(&body);
                    let (topic, id) = (body.text(), body.u16());
                    assert_ne!(id, 0);
                    if self.version == 5 {
                        body.properties();
                    }
                    return Packet::Publish(Publish { topic, id, payload: body.0.to_vec() });
                }
                8 => {
                    let mut body = Bytes(&body);
                    let id = body.u16();
                    if self.version == 5 {
                        body.properties();
                    }
                    self.subscribed = Some(body.text());
                    let [high, low] = id.to_be_bytes();
                    match self.version {
                        5 => self.send(&[0x90, 4, high, low, 0, 1]),
                        _ => self.send(&[0x90, 3, high, low, 1]),
                    }
                }
                // Of a command.
                4 => {}
                12 => self.send(&[0xD0, 0]),
                14 => return Packet::Disconnect,
                kind => panic!("a packet of kind {kind}"),
            }
        }
    }

    /// The next packet, acknowledged if it is to be.
    pub(crate) fn next_acked(&mut self) -> Packet {
        let packet = self.next();
        if let Packet::Publish(publish) = &packet {
            self.ack(publish.id);
        }
        packet
    }

    /// The next batch; status messages are acknowledged on the way.
    pub(crate) fn next_batch(&mut self) -> Publish {
        loop {
            match self.next() {
                Packet::Publish(publish) if publish.is_status() => self.ack(publish.id),
                Packet::Publish(publish) => return publish,
                other => panic!("{other:?} where a batch was awaited"),
            }
        }
    }

    /// Sends a message of QoS 1; `retained` as if it had been kept.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, retained: bool) {
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&[0, 1]);
        if self.version == 5 {
            body.push(0);
        }
        body.extend_from_slice(payload.as_bytes());
        let mut packet = vec![0x32 | u8::from(retained)];
        let mut length = body.len();
        while length >= 0x80 {
            packet.push(length as u8 | 0x80);
            length >>= 7;
        }
        packet.push(length as u8);
        packet.append(&mut body);
        self.send(&packet);
    }

    pub(crate) fn ack(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[0x40, 2, high, low]);
    }

    /// Acknowledges with an error (MQTT 5).
    pub(crate) fn refuse(&mut self, id: u16, reason: u8) {
        let [high, low] = id.to_be_bytes();
        self.send(&[0x40, 3, high, low, reason]);
    }

    /// Whether nothing comes for `period`.
    pub(crate) fn is_silent(&mut self, period: Duration) -> bool {
        self.socket.set_read_timeout(Some(period)).unwrap();
        let is_silent = self.socket.peek(&mut [0]).is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        is_silent
    }
}

/// First byte and content of the next packet; `None` at the end of the connection.
fn packet(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let first = byte[0];
    let (mut len, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte).ok()?;
        len |= usize::from(byte[0] & 0x7F) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    Some((first, body))
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&mut self) -> u8 {
        let byte = self.0[0];
        self.0 = &self.0[1..];
        byte
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    fn text(&mut self) -> String {
        let len = usize::from(self.u16());
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8(text.to_vec()).unwrap()
    }

    /// Passes over properties, which are shorter than 128 bytes here.
    fn properties(&mut self) {
        let len = usize::from(self.u8());
        self.0 = &self.0[len..];
    }
}

/// A POST that an HTTP server got.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) body: String,
    /// On which connection, counted from 0.
    pub(crate) connection: usize,
    /// What it was answered.
    pub(crate) status: u16,
}

/// Answers POSTs with one status after the other, the last one for ever.
pub(crate) struct HttpPeer {
    addr: SocketAddr,
    posts: Receiver<Post>,
    is_failing: Arc<AtomicBool>,
}

impl HttpPeer {
    pub(crate) fn new(statuses: &'static [u16]) -> Self {
        HttpPeer::start(statuses, Arc::default(), None)
    }

    /// Answers 503 until it recovers, and 204 from then on.
    pub(crate) fn failing() -> Self {
        HttpPeer::start(&[204], Arc::new(AtomicBool::new(true)), None)
    }

    /// With TLS.
    pub(crate) fn with_tls(config: ServerConfig) -> Self {
        HttpPeer::start(&[204], Arc::default(), Some(Arc::new(config)))
    }

    pub(crate) fn recover(&self) {
        self.is_failing.store(false, Ordering::SeqCst);
    }

    fn start(statuses: &'static [u16], is_failing: Arc<AtomicBool>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, posts) = channel();
        let failing = Arc::clone(&is_failing);
        std::thread::spawn(move || {
            let mut answered = 0;
            let mut status = || {
                if failing.load(Ordering::SeqCst) {
                    return 503;
                }
                answered += 1;
                statuses[answered.min(statuses.len()) - 1]
            };
            for (number, stream) in listener.incoming().enumerate() {
                let stream = stream.unwrap();
                let stream: Box<dyn Duplex> = match &tls {
                    None => Box::new(stream),
                    Some(config) => {
                        Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream))
                    }
                };
                serve(stream, number, &mut status, &sender);
            }
        });
        HttpPeer { addr, posts, is_failing }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(crate) fn next(&self) -> Post {
        self.posts.recv_timeout(PATIENCE).unwrap()
    }

    /// What came and was not looked at.
    pub(crate) fn rest(&self) -> Vec<Post> {
        self.posts.try_iter().collect()
    }
}

fn serve(stream: Box<dyn Duplex>, connection: usize, status: &mut dyn FnMut() -> u16, posts: &Sender<Post>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap().to_owned();
        let (mut len, mut encoding) = (0, Encoding::Plain);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if header == "content-encoding: zstd" {
                encoding = Encoding::Zstd;
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).unwrap();
        let status = status();
        let content = match status {
            204 => "\r\n",
            422 => "x-eden-refused: 1\r\ncontent-length: 2\r\n\r\nno",
            _ => "content-length: 2\r\n\r\nno",
        };
        // Before the answer: whoever knows of the answer finds the post here.
        if posts.send(Post { path, body: text(&body, encoding), connection, status }).is_err() {
            return;
        }
        let _ = write!(reader.get_mut(), "HTTP/1.1 {status} x\r\n{content}");
    }
}
