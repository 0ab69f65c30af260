//! A link that fails: a TCP proxy in front of a server, with faults on demand or at random.
//!
//! Owns:     the listening port, which stays when the server comes back on another, and two threads for each connection.
//! Does not: know what the bytes mean, nor when a fault is due: a test or a seeded [`Rng`] says so.
//!
//! Invariants
//!  1. Bytes pass in order and unchanged, or the connection ends; nothing is ever left out or doubled.
//!  2. A fault hits the connections that exist; later ones begin whole. Only [`Proxy::refuse`] and
//!     [`Proxy::fault_next`] look ahead.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::rng::Rng;
use crate::wait;

/// How often a pump looks whether a fault was ordered.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a reset waits for bytes that it can leave unread.
const UNREAD_WITHIN: Duration = Duration::from_millis(20);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const CHUNK: usize = 16 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client: acknowledgements.
    Down,
}

/// What can happen to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both ends see the connection reset.
    Reset,
    /// Bytes that go this way wait so long, then pass.
    Stall(Way, Duration),
    /// Neither way passes for so long.
    StallBoth(Duration),
    /// The end that receives this way reads the end of the stream; the other way goes on.
    HalfClose(Way),
    /// After so many further bytes this way, the connection is reset; with `Down` and few bytes an acknowledgement is
    /// lost that the server has sent.
    CutAfter(Way, u64),
    /// After so many further bytes this way, the rest waits until [`Proxy::heal`], or is lost with the connection.
    HoldAfter(Way, u64),
    /// Each chunk waits so long in either direction from now on.
    Delay(Duration),
}

impl Fault {
    /// One of the faults, none of which lasts longer than `longest`.
    pub fn random(rng: &mut Rng, longest: Duration) -> Self {
        let way = rng.pick(&[Way::Up, Way::Down]);
        let mut time = |longest: Duration| Duration::from_millis(1 + rng.below(longest.as_millis().max(1) as u64));
        let (stall, delay) = (time(longest), time(longest / 20));
        match rng.below(7) {
            0 => Fault::Reset,
            1 => Fault::Stall(way, stall),
            2 => Fault::StallBoth(stall),
            3 => Fault::HalfClose(way),
            // An acknowledgement is 4 bytes, a batch some hundred.
            4 => Fault::CutAfter(Way::Down, rng.below(64)),
            5 => Fault::CutAfter(Way::Up, rng.below(4_096)),
            _ => Fault::Delay(delay),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The proxy; it ends with its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    server: String,
    refuses: bool,
    fault_next: Option<Fault>,
    links: Vec<Arc<Link>>,
    pumps: Vec<JoinHandle<()>>,
    accepted: u64,
}

impl Proxy {
    /// A proxy of `server` (`host:port`) on a free port.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn start(server: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind the proxy");
        let address = listener.local_addr().expect("address of the proxy");
        let state = State { server: server.to_string(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: AtomicBool::new(false) });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || shared.accept(&listener)
        });
        Proxy { address, shared, accepting: Some(accepting) }
    }

    /// `host:port` that clients connect to, the same for the proxy's whole life.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The port of [`Proxy::address`].
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// New connections go to this server; those that exist stay where they are.
    pub fn point_at(&self, server: &str) {
        self.shared.state().server = server.to_string();
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuses: bool) {
        self.shared.state().refuses = refuses;
    }

    /// Does this to the next connection, before its first byte.
    pub fn fault_next(&self, fault: Fault) {
        self.shared.state().fault_next = Some(fault);
    }

    /// Connections that exist now.
    pub fn connections(&self) -> usize {
        self.shared.state().live_links().len()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// Does this to every connection.
    pub fn fault(&self, fault: Fault) {
        for link in self.shared.state().live_links() {
            link.fault(fault);
        }
    }

    /// Does this to one connection chosen at random; false if there is none.
    pub fn fault_one(&self, rng: &mut Rng, fault: Fault) -> bool {
        let links = self.shared.state().live_links();
        if links.is_empty() {
            return false;
        }
        links[rng.below(links.len() as u64) as usize].fault(fault);
        true
    }

    /// Ends stalls and delays, accepts again, and resets what was half closed: the links are good from now on.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.refuses = false;
        state.fault_next = None;
        for link in state.live_links() {
            link.heal();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // The accepting thread waits for a connection: this is its last.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let pumps = {
            let mut state = self.shared.state();
            for link in &state.links {
                link.end();
            }
            std::mem::take(&mut state.pumps)
        };
        for pump in pumps {
            let _ = pump.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a thread of the proxy panicked")
    }

    fn accept(&self, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let Ok(client) = client else { continue };
            let (server, refuses) = {
                let state = self.state();
                (state.server.clone(), state.refuses)
            };
            if refuses {
                continue;
            }
            // A server that is down: the client sees its connection end.
            let Some(server) = connect(&server) else { continue };
            let mut state = self.state();
            state.accepted += 1;
            let fault = state.fault_next.take();
            let Ok(sockets) = Sockets::new(client, server) else { continue };
            let (link, sockets) = (Arc::new(Link::default()), Arc::new(sockets));
            if let Some(fault) = fault {
                link.fault(fault);
            }
            for way in [Way::Up, Way::Down] {
                let (link, sockets) = (link.clone(), sockets.clone());
                state.pumps.push(std::thread::spawn(move || link.pump(way, &sockets)));
            }
            state.links.push(link);
            state.pumps.retain(|pump| !pump.is_finished());
        }
    }
}

impl State {
    fn live_links(&mut self) -> Vec<Arc<Link>> {
        self.links.retain(|link| !link.ended.load(Ordering::Relaxed));
        self.links.clone()
    }
}

fn connect(server: &str) -> Option<TcpStream> {
    TcpStream::connect_timeout(&server.parse().ok()?, CONNECT_WITHIN).ok()
}

/// The two ends of a connection, held by its pumps alone: when both are done they close, and Linux resets a connection
/// that is closed with bytes unread.
#[derive(Debug)]
struct Sockets {
    client: TcpStream,
    server: TcpStream,
}

impl Sockets {
    fn new(client: TcpStream, server: TcpStream) -> std::io::Result<Self> {
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOOK_EVERY))?;
            // A reader that does not read must not hold a pump for ever.
            stream.set_write_timeout(Some(LOOK_EVERY))?;
        }
        Ok(Sockets { client, server })
    }
}

/// What is ordered for one connection.
#[derive(Debug, Default)]
struct Link {
    up: Mutex<Lane>,
    down: Mutex<Lane>,
    ended: AtomicBool,
    resets: AtomicBool,
}

/// What is ordered for one direction.
#[derive(Debug, Default)]
struct Lane {
    stalled_until: Option<Instant>,
    delay: Duration,
    bytes_left: Option<u64>,
    /// When none are left: whether the rest waits, or the connection is reset.
    holds: bool,
    closes: bool,
    closed: bool,
}

impl Link {
    fn lane(&self, way: Way) -> MutexGuard<'_, Lane> {
        let lane = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        lane.lock().expect("a pump panicked")
    }

    fn fault(&self, fault: Fault) {
        match fault {
            Fault::Reset => {
                let _lanes = (self.lane(Way::Up), self.lane(Way::Down));
                self.resets.store(true, Ordering::Relaxed);
            }
            Fault::Stall(way, time) => self.lane(way).stalled_until = Some(wait::now() + time),
            Fault::StallBoth(time) => {
                let until = Some(wait::now() + time);
                self.lane(Way::Up).stalled_until = until;
                self.lane(Way::Down).stalled_until = until;
            }
            Fault::HalfClose(way) => self.lane(way).closes = true,
            Fault::CutAfter(way, bytes) | Fault::HoldAfter(way, bytes) => {
                let mut lane = self.lane(way);
                lane.bytes_left = Some(bytes);
                lane.holds = matches!(fault, Fault::HoldAfter(..));
            }
            Fault::Delay(time) => {
                self.lane(Way::Up).delay = time;
                self.lane(Way::Down).delay = time;
            }
        }
    }

    fn heal(&self) {
        let mut is_broken = false;
        for way in [Way::Up, Way::Down] {
            let mut lane = self.lane(way);
            is_broken |= lane.closes || lane.closed;
            *lane = Lane { closes: lane.closes, closed: lane.closed, ..Lane::default() };
        }
        if is_broken {
            self.resets.store(true, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Lets bytes arrive that nobody will read, then closes.
    fn reset(&self, sockets: &Sockets) {
        let mut byte = [0];
        for stream in [&sockets.client, &sockets.server] {
            wait::until(UNREAD_WITHIN, || stream.peek(&mut byte).ok());
        }
        self.end();
    }

    /// Moves bytes one way until the connection ends.
    fn pump(&self, way: Way, sockets: &Sockets) {
        let (from, to) = match way {
            Way::Up => (&sockets.client, &sockets.server),
            Way::Down => (&sockets.server, &sockets.client),
        };
        let mut buffer = vec![0; CHUNK];
        while !self.ended.load(Ordering::Relaxed) {
            if self.resets.load(Ordering::Relaxed) {
                // One pump does it; the other ends with it.
                if way == Way::Up {
                    self.reset(sockets);
                }
                wait::until(UNREAD_WITHIN * 3, || self.ended.load(Ordering::Relaxed).then_some(()));
                return;
            }
            let arrived = from.peek(&mut buffer[..1]);
            match self.take(way, from, arrived, &mut buffer) {
                Taken::Nothing => {}
                Taken::Held => pause(),
                Taken::Bytes(bytes, delay) => {
                    if !delay.is_zero() {
                        wait::until(delay, || self.ended.load(Ordering::Relaxed).then_some(()));
                    }
                    self.forward(to, &buffer[..bytes]);
                }
                Taken::CloseNow => {
                    let _ = to.shutdown(Shutdown::Write);
                }
                Taken::Failed => self.end(),
            }
        }
    }

    /// Reads what has arrived, if it may pass. Orders come under the same lock, so none is overtaken by a read.
    fn take(&self, way: Way, mut from: &TcpStream, arrived: std::io::Result<usize>, buffer: &mut [u8]) -> Taken {
        let mut lane = self.lane(way);
        if lane.closes && !lane.closed {
            lane.closed = true;
            return Taken::CloseNow;
        }
        let none_left = lane.bytes_left == Some(0);
        if none_left && !lane.holds {
            self.resets.store(true, Ordering::Relaxed);
        }
        let stalled = none_left || lane.stalled_until.is_some_and(|until| wait::now() < until);
        if stalled || lane.closed || self.resets.load(Ordering::Relaxed) {
            return Taken::Held;
        }
        match arrived {
            Ok(0) => {
                // The sender is done; the other way may go on.
                lane.closes = true;
                lane.closed = true;
                drop(lane);
                let both_are_done = self.lane(way.other()).closed;
                if both_are_done { Taken::Failed } else { Taken::CloseNow }
            }
            Ok(_) => {
                let may_pass = lane.bytes_left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
                let may_pass = may_pass.min(buffer.len());
                match from.read(&mut buffer[..may_pass]) {
                    Ok(bytes) => {
                        if let Some(left) = &mut lane.bytes_left {
                            *left -= bytes as u64;
                        }
                        Taken::Bytes(bytes, lane.delay)
                    }
                    Err(error) if is_timeout(&error) => Taken::Nothing,
                    Err(_) => Taken::Failed,
                }
            }
            Err(error) if is_timeout(&error) => Taken::Nothing,
            Err(_) => Taken::Failed,
        }
    }

    fn forward(&self, mut to: &TcpStream, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.ended.load(Ordering::Relaxed) && !self.resets.load(Ordering::Relaxed) {
            match to.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if is_timeout(&error) => {}
                Err(_) => self.end(),
            }
        }
    }
}

/// What a pump got from the sender.
enum Taken {
    Nothing,
    /// A fault holds it.
    Held,
    Bytes(usize, Duration),
    /// The receiver is to read the end of the stream.
    CloseNow,
    /// The connection is over.
    Failed,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Way::Up => Way::Down,
            Way::Down => Way::Up,
        }
    }
}

fn pause() {
    wait::until(LOOK_EVERY, || None::<()>);
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that sends back what it gets, each connection in a thread, and says of each how many bytes came.
    fn echo() -> (String, std::sync::mpsc::Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, all_seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, seen) = (stream.unwrap(), seen.clone());
                std::thread::spawn(move || {
                    let (mut all, mut buffer) = (Vec::new(), [0; 1_000]);
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                        all.extend_from_slice(&buffer[..bytes]);
                        if stream.write_all(&buffer[..bytes]).is_err() {
                            break;
                        }
                    }
                    let _ = seen.send(all);
                });
            }
        });
        (address, all_seen)
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn round_trip(stream: &mut TcpStream, text: &[u8]) {
        stream.write_all(text).unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn bytes_pass_both_ways_and_the_end_passes_too() {
        let (server, seen) = echo();
        let proxy = Proxy::start(&server);
        let mut stream = client(&proxy);
        let text: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let sent = text.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        writing.join().unwrap();
        assert_eq!(back, text);
        assert_eq!(seen.recv_timeout(SOON).unwrap(), text);
        assert!(wait::until(SOON, || (proxy.connections() == 0).then_some(())).is_some());
    }

    #[test]
    fn a_reset_ends_what_exists_and_the_next_connection_is_whole() {
        let (server, _seen) = echo();
        let proxy = Proxy::start(&server);
        let mut stream = client(&proxy);
        round_trip(&mut stream, b"one");
        proxy.fault(Fault::Reset);
        let ended = wait::until(SOON, || stream.write_all(b"two").err());
        assert!(ended.is_some());
        round_trip(&mut client(&proxy), b"three");
        assert_eq!(proxy.accepted(), 2);
    }

    #[test]
    fn a_reset_with_bytes_on_their_way_is_a_reset_for_the_client() {
        let (server, _seen) = echo();
        let proxy = Proxy::start(&server);
        let mut stream = client(&proxy);
        round_trip(&mut stream, b"one");
        proxy.fault(Fault::Reset);
        stream.write_all(b"two").unwrap();
        let error = stream.read(&mut [0; 3]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_cut_lets_exactly_so_many_bytes_pass() {
        let (server, seen) = echo();
        let proxy = Proxy::start(&server);
        proxy.fault_next(Fault::CutAfter(Way::Down, 4));
        let mut stream = client(&proxy);
        stream.write_all(b"123456").unwrap();
        let (mut back, mut buffer) = (Vec::new(), [0; 10]);
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            back.extend_from_slice(&buffer[..bytes]);
        }
        assert_eq!(back, b"1234");
        assert_eq!(seen.recv_timeout(SOON).unwrap(), b"123456", "the server had it all");
    }

    #[test]
    fn what_is_held_passes_later_or_is_lost_with_its_connection() {
        let (server, _seen) = echo();
        let proxy = Proxy::start(&server);
        for passes in [true, false] {
            proxy.fault_next(Fault::HoldAfter(Way::Down, 4));
            let mut stream = client(&proxy);
            stream.write_all(b"123456").unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"1234");
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert!(is_timeout(&stream.read(&mut back).unwrap_err()));
            stream.set_read_timeout(Some(SOON)).unwrap();
            if passes {
                proxy.heal();
                stream.read_exact(&mut back[..2]).unwrap();
                assert_eq!(&back[..2], b"56");
            } else {
                proxy.fault(Fault::Reset);
                assert_eq!(stream.read(&mut back).unwrap_or(0), 0);
            }
        }
    }

    #[test]
    fn a_stall_holds_one_way_and_loses_nothing() {
        let (server, _seen) = echo();
        let proxy = Proxy::start(&server);
        let mut stream = client(&proxy);
        round_trip(&mut stream, b"one");
        proxy.fault(Fault::Stall(Way::Down, SOON * 10));
        stream.write_all(b"two").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut back = [0; 3];
        assert!(is_timeout(&stream.read(&mut back).unwrap_err()));
        proxy.heal();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"two");
        proxy.fault(Fault::Delay(Duration::from_millis(20)));
        round_trip(&mut stream, b"three");
    }

    #[test]
    fn a_half_close_leaves_the_other_way_open() {
        let (server, seen) = echo();
        let proxy = Proxy::start(&server);
        let mut stream = client(&proxy);
        round_trip(&mut stream, b"one");
        proxy.fault(Fault::HalfClose(Way::Down));
        assert_eq!(stream.read(&mut [0; 3]).unwrap(), 0);
        stream.write_all(b"two").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(seen.recv_timeout(SOON).unwrap(), b"onetwo");
    }

    #[test]
    fn the_port_stays_when_the_server_moves() {
        let (first, _seen) = echo();
        let proxy = Proxy::start(&first);
        round_trip(&mut client(&proxy), b"one");
        // Nobody listens on port 1.
        proxy.point_at("127.0.0.1:1");
        assert_eq!(client(&proxy).read(&mut [0; 3]).unwrap_or(0), 0);
        let (second, seen) = echo();
        proxy.point_at(&second);
        let mut stream = client(&proxy);
        round_trip(&mut stream, b"two");
        drop(stream);
        assert_eq!(seen.recv_timeout(SOON).unwrap(), b"two");
    }
}
