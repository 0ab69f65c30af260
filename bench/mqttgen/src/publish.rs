//! Connections that publish as fast as acknowledgements allow, or at a pace.
//!
//! Invariants
//!  1. Every connection is accepted, and one message of it is acknowledged, before any clock starts.
//!  2. A rate counts messages from the start to the last acknowledgement; at QoS 2 that is PUBREC (P1).
//!  3. At QoS 0 a message counts as taken when a ping behind it was answered.

use std::io::{Error, ErrorKind, Result, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::histogram::Histogram;
use crate::packet::{self, Reply};
use crate::socket::{Socket, WRITE_MAX};
use crate::{Options, PATIENCE, Payload, cpu_seconds, now};

/// A server's queue of connections that it has not accepted yet is short.
const CONNECTING_MAX: usize = 64;

/// What one connection did.
struct Done {
    sent: u64,
    /// Before the clock started, and after.
    primed: u64,
    acked: u64,
    latencies: Histogram,
    last_ack: Instant,
    error: Option<Error>,
}

/// All connections in one line of JSON.
pub(crate) async fn run(options: &Options) -> Result<String> {
    let start_line = Arc::new(Barrier::new(options.connections + 1));
    let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut tasks = JoinSet::new();
    for connection in 0..options.connections {
        let (options, start_line, connecting) = (options.clone(), start_line.clone(), connecting.clone());
        tasks.spawn(async move {
            let name = format!("{}-{connection}", options.name);
            let prepared = {
                let _permit = connecting.acquire().await;
                Connection::prepare(&options, &name).await
            };
            start_line.wait().await;
            let start = now();
            match prepared {
                Ok(prepared) => {
                    let deadline = start + Duration::from_secs(options.seconds);
                    match options.every.map(Duration::from_secs) {
                        Some(every) => {
                            let first = start + every.mul_f64(connection as f64 / options.connections as f64);
                            prepared.run_paced(first, every, deadline).await
                        }
                        None => prepared.run(deadline).await,
                    }
                }
                Err(error) => Done::failed(start, error),
            }
        });
    }
    start_line.wait().await;
    let (start, cpu_before) = (now(), cpu_seconds());
    let mut total = Done::new(start);
    let (mut failed, mut first_error) = (0, String::new());
    while let Some(done) = tasks.join_next().await {
        let done = done.map_err(Error::other)?;
        total.sent += done.sent;
        total.primed += done.primed;
        total.acked += done.acked;
        total.latencies.merge(&done.latencies);
        total.last_ack = total.last_ack.max(done.last_ack);
        if let Some(error) = done.error {
            failed += 1;
            if first_error.is_empty() {
                first_error = error.to_string();
            }
        }
    }
    let seconds = total.last_ack.duration_since(start).as_secs_f64();
    let cpu = cpu_seconds() - cpu_before;
    let messages = total.acked as f64;
    Ok(format!(
        "{{\"connections\":{},\"in_flight\":{},\"qos\":{},\"messages\":{},\"acked_in_all\":{},\"sent_in_all\":{},\
         \"seconds\":{seconds:.3},\"messages_per_s\":{:.0},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"max_ms\":{:.3},\
         \"generator_cpu_us\":{:.3},\"failed\":{failed},\"error\":{first_error:?}}}",
        options.connections,
        options.in_flight,
        options.qos,
        total.acked,
        total.primed + total.acked,
        total.sent,
        if seconds > 0.0 { messages / seconds } else { 0.0 },
        total.latencies.at_ms(0.5),
        total.latencies.at_ms(0.99),
        total.latencies.max_ms(),
        if messages > 0.0 { cpu * 1e6 / messages } else { 0.0 },
    ))
}

impl Done {
    fn new(start: Instant) -> Self {
        Done { sent: 0, primed: 0, acked: 0, latencies: Histogram::new(), last_ack: start, error: None }
    }

    fn failed(start: Instant, error: Error) -> Self {
        Done { error: Some(error), ..Done::new(start) }
    }
}

struct Connection {
    socket: Socket,
    replies: Vec<Reply>,
    device: String,
    topic: String,
    qos: u8,
    format: Payload,
    next_ns: u64,
    /// When the publish with this id was put into the buffer; ids are positions plus one.
    sent_at: Vec<Instant>,
    free: Vec<u16>,
    payload: Vec<u8>,
    done: Done,
}

impl Connection {
    async fn prepare(options: &Options, name: &str) -> Result<Self> {
        let mut connection = Connection {
            socket: Socket::connect(options, name).await?,
            replies: Vec::new(),
            device: name.to_string(),
            topic: options.topic.replace("{client}", name),
            qos: options.qos,
            format: options.payload,
            next_ns: options.start_ns,
            sent_at: vec![now(); usize::from(options.in_flight)],
            free: (1..=options.in_flight).rev().collect(),
            payload: Vec::new(),
            done: Done::new(now()),
        };
        connection.publish_one()?;
        connection.settle().await?;
        connection.done.primed = std::mem::take(&mut connection.done.acked);
        connection.done.latencies = Histogram::new();
        Ok(connection)
    }

    async fn run(mut self, deadline: Instant) -> Done {
        let result = async {
            while now() < deadline {
                self.fill()?;
                self.exchange(deadline).await?;
            }
            self.say_goodbye().await
        };
        let result = result.await;
        self.ended(result)
    }

    /// A message at `first` and then one `every` so long; one that finds all before it unanswered waits.
    async fn run_paced(mut self, first: Instant, every: Duration, deadline: Instant) -> Done {
        let mut due = first;
        let result = async {
            while now() < deadline {
                if now() >= due && (self.qos == 0 || !self.free.is_empty()) {
                    self.publish_one()?;
                    due += every;
                }
                let next = if due > now() { due.min(deadline) } else { deadline };
                self.exchange(next).await?;
            }
            self.say_goodbye().await
        };
        let result = result.await;
        self.ended(result)
    }

    async fn say_goodbye(&mut self) -> Result<()> {
        self.settle().await?;
        self.socket.out.extend_from_slice(&packet::DISCONNECT);
        while !self.socket.out.is_empty() {
            self.exchange(now() + PATIENCE).await?;
        }
        Ok(())
    }

    fn ended(mut self, result: Result<()>) -> Done {
        // A server may close as soon as it has read DISCONNECT.
        self.done.error = result.err().filter(|error| !(self.is_settled() && error.kind() == ErrorKind::UnexpectedEof));
        self.done
    }

    /// Puts publishes into the buffer, as many as may be in flight.
    fn fill(&mut self) -> Result<()> {
        if self.qos == 0 {
            while self.socket.out.len() < WRITE_MAX {
                self.publish_one()?;
            }
            return Ok(());
        }
        while !self.free.is_empty() {
            self.publish_one()?;
        }
        Ok(())
    }

    fn publish_one(&mut self) -> Result<()> {
        self.payload.clear();
        let n = self.done.sent;
        // Steps of a tenth, as a cheap sensor reports.
        let (whole, tenths) = (15 + n / 10 % 20, n % 10);
        let (device, time) = (&self.device, self.next_ns);
        match self.format {
            Payload::Line => write!(self.payload, "mqtt,device={device} temperature={whole}.{tenths} {time}")?,
            Payload::Json => {
                write!(self.payload, "{{\"t\":{},\"temperature\":{whole}.{tenths}}}", time / 1_000)?;
            }
        }
        // The server floors to µs, and two readings of one µs would be one.
        self.next_ns += 1_000;
        let id = if self.qos == 0 { 0 } else { self.free.pop().unwrap_or_default() };
        if id > 0 {
            self.sent_at[usize::from(id) - 1] = now();
        }
        packet::publish(&self.topic, self.qos, id, &self.payload, &mut self.socket.out);
        self.done.sent += 1;
        Ok(())
    }

    /// Waits until everything sent is acknowledged.
    async fn settle(&mut self) -> Result<()> {
        let deadline = now() + PATIENCE;
        if self.qos == 0 {
            self.socket.out.extend_from_slice(&packet::PING);
        }
        while !self.is_settled() {
            if now() >= deadline {
                return Err(Error::new(ErrorKind::TimedOut, "acknowledgements did not come"));
            }
            self.exchange(deadline).await?;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        match self.qos {
            0 => self.done.primed + self.done.acked == self.done.sent,
            _ => self.free.len() == self.sent_at.len(),
        }
    }

    async fn exchange(&mut self, deadline: Instant) -> Result<()> {
        let rest = deadline.saturating_duration_since(now());
        let Ok(result) = timeout(rest, self.socket.exchange(&mut self.replies)).await else { return Ok(()) };
        result?;
        let arrived = now();
        for reply in self.replies.drain(..) {
            match reply {
                Reply::PubAck(id) | Reply::PubRec(id) => {
                    let sent_at = self.sent_at.get(usize::from(id).wrapping_sub(1));
                    let sent_at = sent_at.ok_or_else(|| Error::other(format!("id {id} is not ours")))?;
                    self.done.latencies.add(arrived.saturating_duration_since(*sent_at));
                    self.done.acked += 1;
                    self.done.last_ack = arrived;
                    match reply {
                        Reply::PubAck(_) => self.free.push(id),
                        _ => packet::release(id, &mut self.socket.out),
                    }
                }
                Reply::PubComp(id) => self.free.push(id),
                Reply::PingResp => {
                    self.done.acked = self.done.sent - self.done.primed;
                    self.done.last_ack = arrived;
                }
                Reply::ConnAck => return Err(Error::other("a second CONNACK")),
            }
        }
        Ok(())
    }
}
