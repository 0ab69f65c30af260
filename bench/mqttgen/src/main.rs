//! Load over MQTT 3.1.1: many connections, many publishes in flight, and what each acknowledgement took.
//!
//! Each message is one reading, as line protocol or as JSON. No two have the same key: every connection is a device of its own, and
//! its times grow by a microsecond. With `--idle` it holds connections that only ping, so that somebody else can look at
//! the server's memory. One line of JSON at the end says what happened.

mod histogram;
mod idle;
mod packet;
mod publish;
mod socket;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

/// Load over MQTT 3.1.1.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// The server, host:port.
    #[arg(long)]
    pub(crate) address: String,
    /// Where each connection publishes; {client} is its client id.
    #[arg(long, default_value = "eden/v1/{client}/lp")]
    pub(crate) topic: String,
    /// Client ids and devices are this and a number.
    #[arg(long, default_value = "gen")]
    pub(crate) name: String,
    /// Connections that publish.
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Publishes of one connection that wait for their acknowledgement; does not matter at QoS 0.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: u16,
    /// How a reading is written.
    #[arg(long, value_enum, default_value_t = Payload::Line)]
    pub(crate) payload: Payload,
    /// Instead of as fast as acknowledgements allow, a message of each connection in so many seconds, the first ones
    /// spread over the first interval.
    #[arg(long)]
    pub(crate) every: Option<u64>,
    /// How long to publish, or to hold idle connections.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// 0, 1 or 2.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// The time of each device's first reading, in ns.
    #[arg(long, default_value_t = 1_780_272_000_000_000_000)]
    pub(crate) start_ns: u64,
    /// Instead of publishing, open so many connections and hold them.
    #[arg(long)]
    pub(crate) idle: Option<usize>,
    /// Keep-alive of every connection, in seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) keep_alive: u16,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
}

/// How a reading is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Payload {
    /// `mqtt,device=gen-0 temperature=21.5 1780272000000000000`.
    Line,
    /// `{"t":1780272000000000,"temperature":21.5}`, t in microseconds; the device is in the topic.
    Json,
}

/// Waits no longer than this for a connection, or for the last acknowledgements.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let options = Options::parse();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.worker_threads(options.threads.max(1)).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mqttgen: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match options.idle {
            Some(connections) => idle::run(&options, connections).await,
            None => publish::run(&options).await,
        }
    });
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mqttgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The present.
#[expect(clippy::disallowed_methods, reason = "this program measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// CPU time of this process so far, in steps of 10 ms.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}
