//! What an operator may set: one TOML file, overridden by the environment by one rule.
//!
//! Owns:     every key, its default and its manual entry (the doc comments below are what `docs/agent.md` holds).
//! Does not: touch a port or a disk other than the file itself.
//!
//! How keys are read, by which names and with which errors: `settings`. The environment's prefix is `EDEN_AGENT_`.

mod load;
mod manual;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use settings::section;

pub use crate::outbox::Replay;
pub use crate::sensor::bmp180::ConversionEnd;
pub use crate::sensor::lanes::Stamp;
pub use crate::sensor::shape::{Aggregate, Aggregates, Numbers};
pub use crate::wall::Trust;
pub use manual::manual;
pub use settings::{ByteSize, ConfigError, Period};

section! {
    /// The agent itself.
    "agent" AgentSection {
        /// The agent's id: its MQTT client id, a part of its topics, and the tag `agent` of its readings.
        /// 1 to 80 bytes without `/`, `+`, `#`, backslashes, spaces and control characters. Empty: the
        /// host's name. Another id begins a new epoch.
        id: String = String::new(),
        /// What is logged to standard error: `error`, `warn`, `info`, `debug` or `trace`, also by
        /// part: `info,edge_agent=debug`.
        log: String = "info".into(),
        /// How long a stop tries to send what waits. What is not sent by then stays in the outbox.
        grace: Period = Period(Duration::from_secs(5)),
    }
}

section! {
    /// How readings are put together.
    "batch" BatchSection {
        /// A batch with so many readings is closed before the next sync is due; so is one of 128 KiB.
        max_readings: u32 = 1_000,
    }
}

section! {
    /// Which time readings get.
    "clock" ClockSection {
        /// When the wall clock is taken as it is. `"synchronised"`: while the kernel says that something
        /// keeps it right (NTP, PTP). `"system"`: always, for a board whose own clock is right.
        trust: Trust = Trust::Synchronised,
        /// After this time a clock that nobody vouches for is taken all the same, and the readings are
        /// marked. Until then they wait in the outbox, unless a server says what time it is.
        wait: Period = Period(Duration::from_secs(600)),
        /// Who is asked for the time while it is not known: any `http://` address, for the header `Date`
        /// of its answer. Empty: the `[[server]]`s that are HTTP without TLS.
        time_url: String = String::new(),
    }
}

section! {
    /// The durable queue of what was not acknowledged.
    "outbox" OutboxSection {
        /// Its folder; made if missing. Each agent needs its own.
        dir: PathBuf = PathBuf::from("./eden-outbox"),
        /// Size of its log at most, at least 2MiB. When it is full the oldest batches are dropped, a
        /// segment of 1 MiB at a time, and reported.
        max_bytes: ByteSize = ByteSize(256 << 20),
        /// The open batch is closed and made durable after this time, at least 10ms: a power cut loses at
        /// most as much, and no reading leaves sooner. Longer wears an SD card less.
        sync_interval: Period = Period(Duration::from_secs(10)),
    }
}

section! {
    /// How batches are sent.
    "uplink" UplinkSection {
        /// Batches sent and not acknowledged at a time, 1 to 64, over MQTT. HTTP sends one after the
        /// other.
        in_flight: u32 = 32,
        /// In which order what waits is sent after an outage. `"oldest-first"`: as it was made; what is
        /// measured now comes last. `"interleaved"`: what was made since the connection came about takes
        /// turns with what waited, the oldest of each first, so that what is measured now is at the server
        /// now. `"newest-first"`: whatever is newest.
        replay: Replay = Replay::OldestFirst,
        /// Bytes in a second, of batches that were made before the connection came about, at most, at least
        /// 1KiB. Once the outbox is three quarters full they are sent without. `"0B"`: as the server takes
        /// them.
        replay_rate: ByteSize = ByteSize(0),
        /// Time between two status messages, over MQTT; at least 1s.
        status_interval: Period = Period(Duration::from_secs(30)),
    }
}

section! {
    /// A server; several are tried in the order in which they stand.
    "server" ServerSection {
        /// `mqtt://host:port` or `http://host:port`, with TLS `mqtts://host:port` or `https://host:port`;
        /// without a port 1883, 4200, 8883 or 443.
        url: String = "mqtt://127.0.0.1:1883".into(),
        /// With TLS: a file of certificates, in PEM, one of which must have signed the server's. Empty:
        /// what the system trusts.
        ca: String = String::new(),
        /// `"3.1.1"` or `"5"`; of no meaning for HTTP.
        mqtt_version: MqttVersion = MqttVersion::V311,
    }
}

section! {
    /// A sensor.
    "sensor" SensorSection {
        /// Its kind, one of the list below: `bmp180`, `ds18b20`, `command`, `simulated-bmp180` …
        driver: String = String::new(),
        /// Its name, the tag `sensor` of its readings; no two alike.
        name: String = String::new(),
        /// Time between two readings; at least 1ms.
        interval: Period = Period(Duration::from_secs(1)),
        /// The table of its readings. Empty: the driver's name, without `simulated-`.
        table: String = String::new(),
        /// Further tags of its readings: `{ room = "kitchen" }`. No tag has the name of a field.
        tags: BTreeMap<String, String> = BTreeMap::new(),
        /// Which invented place a simulated sensor stands at. 0: one that follows from agent and name.
        seed: u32 = 0,
        /// Of a chip: its I²C bus.
        bus: PathBuf = PathBuf::from("/dev/i2c-1"),
        /// Of a chip: its address, such as 0x77. 0: the driver's own.
        address: u32 = 0,
        /// Of a chip: samples of which one reading is made. 0: as many as the chip can, for the least
        /// noise; fewer take less time and current.
        oversampling: u32 = 0,
        /// Of a `bmp180`: `"register"` asks the chip whether its conversion is over, `"time"` only waits
        /// for as long as the data sheet says, for a simulated chip that never clears that bit.
        conversion_end: ConversionEnd = ConversionEnd::Register,
        /// Of `ds18b20`, `thermal`, `hwmon` and `iio`: the device, by its folder's name or its own, such
        /// as `28-00000a1b2c3d`, `cpu-thermal` or `hwmon0`. Empty: the only one there is. Of `file`: its path.
        source: String = String::new(),
        /// Of `ds18b20`, `thermal`, `hwmon` and `iio`: where the kernel shows devices.
        sysfs: PathBuf = PathBuf::from("/sys"),
        /// Of `command`: a program and its arguments; no shell reads them.
        command: Vec<String> = Vec::new(),
        /// Of `command`: a program that takes longer is ended; at most 1h.
        timeout: Period = Period(Duration::from_secs(10)),
        /// Added to fields, for a sensor that is known to be off: `{ temperature = "-0.4" }`.
        offsets: Numbers = Numbers::default(),
        /// Readings in which no field moved by as much since the last one kept are left out:
        /// `{ temperature = "0.2" }`. Fields that are not named do not count; a reading without any of
        /// those that are is kept. With a window, they are the fields that it makes.
        dead_band: Numbers = Numbers::default(),
        /// With a dead band, one reading is kept at least this often.
        max_silence: Period = Period(Duration::from_secs(600)),
        /// Readings of so much time become one, stamped with its beginning, the first after a start with
        /// that of its first reading. 0s: each is kept.
        window: Period = Period(Duration::ZERO),
        /// What is kept of a window: `mean` under the field's name, `min` and `max` as `temperature_min`
        /// and `temperature_max`.
        aggregates: Aggregates = Aggregates(vec![Aggregate::Mean]),
        /// The time of a reading: `"measured"`, to the microsecond, or `"interval"`, when it was due: whole
        /// multiples of the interval, which take fewer bytes here and at the server.
        stamp: Stamp = Stamp::Measured,
    }
}

/// The version of MQTT that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[agent]`
    pub agent: AgentSection,
    /// `[batch]`
    pub batch: BatchSection,
    /// `[clock]`
    pub clock: ClockSection,
    /// `[outbox]`
    pub outbox: OutboxSection,
    /// `[uplink]`
    pub uplink: UplinkSection,
    /// `[[server]]`, in order of preference; none means the default of one.
    pub servers: Vec<ServerSection>,
    /// `[[sensor]]`
    pub sensors: Vec<SensorSection>,
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    Yes,
    No,
}

/// A part that a build may be without (docs/boards.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    Http,
    Tls,
}

impl Feature {
    fn is_built_in(self) -> bool {
        match self {
            Feature::Http => cfg!(feature = "http"),
            Feature::Tls => cfg!(feature = "tls"),
        }
    }

    /// What is said of a configuration that needs it.
    pub(crate) fn left_out(self) -> String {
        let (name, feature) = match self {
            Feature::Http => ("HTTP", "http"),
            Feature::Tls => ("TLS", "tls"),
        };
        format!(
            "this build of eden-agent was made without {name}: install the package eden-agent, or build with --features \
             {feature}"
        )
    }
}

/// A server's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Mqtt {
        host: String,
        port: u16,
        tls: Tls,
    },
    Http {
        /// Without a slash at its end.
        base: String,
        tls: Tls,
    },
}

impl Config {
    /// Who is asked for the time.
    pub(crate) fn time_urls(&self) -> Vec<String> {
        if !self.clock.time_url.is_empty() {
            return vec![self.clock.time_url.clone()];
        }
        let servers = self.servers.iter().filter_map(|server| server.address().ok());
        let base = |address| match address {
            Address::Http { base, tls: Tls::No } => Some(format!("{base}/health")),
            // Whether a certificate is valid is a matter of the time.
            Address::Http { .. } | Address::Mqtt { .. } => None,
        };
        servers.filter_map(base).collect()
    }
}

impl Address {
    /// What of the agent it needs that this build is without.
    pub(crate) fn lacks(&self) -> Option<Feature> {
        let (is_http, tls) = match self {
            Address::Mqtt { tls, .. } => (false, *tls),
            Address::Http { tls, .. } => (true, *tls),
        };
        let needed = [(is_http, Feature::Http), (tls == Tls::Yes, Feature::Tls)];
        needed.into_iter().find(|(is_needed, feature)| *is_needed && !feature.is_built_in()).map(|(_, feature)| feature)
    }
}

impl ServerSection {
    /// A server at `url`, spoken to as by default.
    pub fn new(url: &str) -> Self {
        ServerSection { url: url.to_owned(), ..ServerSection::default() }
    }

    pub(crate) fn address(&self) -> Result<Address, String> {
        let right = "write \"mqtt://host:1883\" or \"http://host:4200\", or mqtts and https for TLS";
        let wrong = |what: &str| format!("{:?} {what}; {right}", self.url);
        let (scheme, rest) = self.url.split_once("://").ok_or_else(|| wrong("is no URL"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '@', '?', '#', ' ']) {
            return Err(wrong("has more than a host and a port"));
        }
        let is_v6_without_port = rest.ends_with(']');
        let (host, port) = match rest.rsplit_once(':').filter(|_| !is_v6_without_port) {
            Some((host, port)) => (
                host,
                Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| wrong("has no such port"))?),
            ),
            None => (rest, None),
        };
        let is_v6 = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains([':', '[', ']']) && !is_v6) {
            return Err(wrong("has no host"));
        }
        match scheme {
            "mqtt" => Ok(Address::Mqtt { host: host.to_owned(), port: port.unwrap_or(1883), tls: Tls::No }),
            "mqtts" => Ok(Address::Mqtt { host: host.to_owned(), port: port.unwrap_or(8883), tls: Tls::Yes }),
            "http" => Ok(Address::Http { base: format!("http://{host}:{}", port.unwrap_or(4200)), tls: Tls::No }),
            "https" => Ok(Address::Http { base: format!("https://{host}:{}", port.unwrap_or(443)), tls: Tls::Yes }),
            _ => Err(wrong("has an unknown scheme")),
        }
    }
}

/// What is wrong with an agent's id, if anything is.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    model::name::check_name("agent", id).map_err(|e| e.to_string())?;
    match id.chars().find(|c| matches!(c, '/' | '+' | '#' | '\\') || c.is_whitespace()) {
        Some(c) => {
            Err(format!("the agent id {id:?} has {c:?}, which topics or tags do not take; use letters, digits and -"))
        }
        None => Ok(()),
    }
}
