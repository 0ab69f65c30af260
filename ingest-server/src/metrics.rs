//! Every metric of the server: its name, its kind and its help, and the counters of this room.
//!
//! Owns:     the catalogue ([`ALL`], which `docs/metrics.md` repeats) and what HTTP counts.
//! Does not: count for other rooms: `storage` and `query` hand out their own statistics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sources::Sources;

/// What a metric's value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name, with prefix and unit.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($( $(#[doc = $help:literal])+ $kind:ident $constant:ident = $name:literal; )+) => {
        $( $(#[doc = $help])+ pub const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, help: concat!($($help),+) }; )+

        /// All metrics, in the order of the page.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

catalogue! {
    /// 1 with the version as a label.
    Gauge BUILD_INFO = "eden_build_info";
    /// 1 once the log is replayed and writes are taken, else 0.
    Gauge READY = "eden_ready";
    /// Share of the log that is replayed, 0 to 1; 1 when ready.
    Gauge REPLAY_SHARE = "eden_replay_share";
    /// Tasks that ended in a panic; more than 0 is a bug to report.
    Counter PANICS = "eden_panics_total";
    /// Connections that are open.
    Gauge HTTP_CONNECTIONS = "eden_http_connections";
    /// Connections accepted.
    Counter HTTP_CONNECTIONS_TOTAL = "eden_http_connections_total";
    /// Requests answered, by endpoint and status.
    Counter HTTP_REQUESTS = "eden_http_requests_total";
    /// Time from a request's head to the head of its answer, by endpoint.
    Histogram HTTP_SECONDS = "eden_http_request_duration_seconds";
    /// Bytes of write bodies as received, before decompression.
    Counter INGEST_BODY_BYTES = "eden_ingest_body_bytes_total";
    /// Lines of line protocol read, good and bad.
    Counter INGEST_LINES = "eden_ingest_lines_total";
    /// Lines refused because they could not be parsed.
    Counter INGEST_LINES_REFUSED = "eden_ingest_lines_refused_total";
    /// Samples, data points and rows read of formats without lines, good and bad.
    Counter INGEST_SAMPLES = "eden_ingest_samples_total";
    /// Of those, refused ones; they are set aside.
    Counter INGEST_SAMPLES_REFUSED = "eden_ingest_samples_refused_total";
    /// Exemplars that came with samples; none is stored.
    Counter INGEST_EXEMPLARS = "eden_ingest_exemplars_total";
    /// Rows that came in, good and bad, by source; what cannot be read at all counts as one.
    Counter INGEST_ROWS_RECEIVED = "eden_ingest_rows_received_total";
    /// What became of rows that came in, by source and result: `stored`, `duplicate`, `quarantined` or `refused`.
    Counter INGEST_ROWS = "eden_ingest_rows_total";
    /// MQTT connections that are open.
    Gauge MQTT_CONNECTIONS = "eden_mqtt_connections";
    /// MQTT connections accepted from the system, refused ones included.
    Counter MQTT_CONNECTIONS_TOTAL = "eden_mqtt_connections_total";
    /// MQTT connections refused at CONNECT, by reason.
    Counter MQTT_REFUSED = "eden_mqtt_connections_refused_total";
    /// MQTT connections ended because another one came with the same client id.
    Counter MQTT_TAKEN_OVER = "eden_mqtt_connections_taken_over_total";
    /// MQTT connections ended because of what the client did, by reason.
    Counter MQTT_BROKEN = "eden_mqtt_connections_broken_total";
    /// Bytes received by MQTT.
    Counter MQTT_BYTES = "eden_mqtt_received_bytes_total";
    /// MQTT messages received, by QoS, repeated ones included.
    Counter MQTT_MESSAGES = "eden_mqtt_messages_total";
    /// MQTT messages received again with a packet identifier in use; not stored again.
    Counter MQTT_DUPLICATES = "eden_mqtt_messages_repeated_total";
    /// PUBACK and PUBREC sent.
    Counter MQTT_ACKS = "eden_mqtt_acks_total";
    /// MQTT messages of which something could not be stored: it is set aside, and the message acknowledged.
    Counter MQTT_SET_ASIDE = "eden_mqtt_messages_set_aside_total";
    /// MQTT messages that a rule takes and of which it stores nothing.
    Counter MQTT_IGNORED = "eden_mqtt_messages_ignored_total";
    /// Times that no MQTT connection was taken for a moment because of `[mqtt] connects_per_second`.
    Counter MQTT_CONNECTS_HELD = "eden_mqtt_connects_held_total";
    /// Commands to agents, by what became of them: `sent`, `kept` for later, `nobody` or `full`.
    Counter MQTT_COMMANDS = "eden_mqtt_commands_total";
    /// MQTT sessions that are kept while their client is away.
    Gauge MQTT_SESSIONS_AWAY = "eden_mqtt_sessions_away";
    /// Bytes of MQTT sessions, of commands that wait, and of retained ones.
    Gauge MQTT_SESSIONS_BYTES = "eden_mqtt_sessions_bytes";
    /// Times that an MQTT connection was not read because `[mqtt] messages_memory` was used up.
    Counter MQTT_PAUSES = "eden_mqtt_pauses_total";
    /// Times that MQTT messages waited because storage was busy.
    Counter MQTT_BUSY = "eden_mqtt_storage_busy_total";
    /// 1 while a broker is connected to, else 0, by broker.
    Gauge BROKER_CONNECTED = "eden_broker_connected";
    /// Connections to a broker that it accepted, by broker.
    Counter BROKER_CONNECTIONS = "eden_broker_connections_total";
    /// Messages received from a broker, those that came again included, by broker.
    Counter BROKER_MESSAGES = "eden_broker_messages_total";
    /// Bytes of these messages, topics included, by broker.
    Counter BROKER_BYTES = "eden_broker_message_bytes_total";
    /// Messages acknowledged to a broker, by broker.
    Counter BROKER_ACKS = "eden_broker_acks_total";
    /// Rows made durable.
    Counter STORAGE_ROWS_STORED = "eden_storage_rows_stored_total";
    /// Rows refused by a table's schema or by time limits.
    Counter STORAGE_ROWS_REJECTED = "eden_storage_rows_rejected_total";
    /// Rows that met a row of the same key, in memory or in a shard.
    Counter STORAGE_ROWS_MERGED = "eden_storage_rows_merged_total";
    /// Flushes committed.
    Counter STORAGE_FLUSHES = "eden_storage_flushes_total";
    /// Rows written to shards, rewrites included.
    Counter STORAGE_SHARD_ROWS = "eden_storage_shard_rows_written_total";
    /// Bytes written to shards, rewrites included.
    Counter STORAGE_SHARD_BYTES = "eden_storage_shard_bytes_written_total";
    /// Shards replaced because a correction met them.
    Counter STORAGE_SHARDS_REWRITTEN = "eden_storage_shards_rewritten_total";
    /// Merges of shards into fewer.
    Counter STORAGE_COMPACTIONS = "eden_storage_compactions_total";
    /// Rows merged, each time counted.
    Counter STORAGE_COMPACTED_ROWS = "eden_storage_compacted_rows_total";
    /// Bytes of shards that merges read.
    Counter STORAGE_COMPACTED_BYTES = "eden_storage_compacted_bytes_total";
    /// Rows that were removed because they were older than their table's retention.
    Counter STORAGE_ROWS_EXPIRED = "eden_storage_rows_expired_total";
    /// Files deleted because no table needed them any more.
    Counter STORAGE_FILES_DELETED = "eden_storage_files_deleted_total";
    /// Bytes free on the disk of the data folder.
    Gauge STORAGE_DISK_FREE_BYTES = "eden_storage_disk_free_bytes";
    /// 1 while writes are refused because the disk is full but for its reserve, else 0.
    Gauge STORAGE_ADMISSION_STOPPED = "eden_storage_admission_stopped";
    /// Rows in memory that wait for the shards to be rewritten whose rows they replace.
    Gauge STORAGE_WAITING_ROWS = "eden_storage_waiting_rows";
    /// Bytes of rows in memory.
    Gauge STORAGE_MEMORY_BYTES = "eden_storage_memory_bytes";
    /// Rows in memory that are not yet in shards.
    Gauge STORAGE_MEMORY_ROWS = "eden_storage_memory_rows";
    /// Tables.
    Gauge STORAGE_TABLES = "eden_storage_tables";
    /// 1 after a failed sync: nothing is acknowledged until a restart.
    Gauge STORAGE_POISONED = "eden_storage_poisoned";
    /// Flushes that failed; their rows stay in the log and are flushed again.
    Counter STORAGE_FLUSHES_FAILED = "eden_storage_flushes_failed_total";
    /// Stretches of the log found missing or damaged at start.
    Counter STORAGE_LOG_LOSSES = "eden_storage_log_losses_total";
    /// Shards found damaged since the start; see `system.data_loss`.
    Gauge STORAGE_DAMAGED_SHARDS = "eden_storage_damaged_shards";
    /// Tables that cannot be used because their Delta log is damaged.
    Gauge STORAGE_DAMAGED_TABLES = "eden_storage_damaged_tables";
    /// Agents that are known; see `system.agents`.
    Gauge AGENTS = "eden_agents";
    /// Agents forgotten because too many are known.
    Counter AGENTS_FORGOTTEN = "eden_agents_forgotten_total";
    /// Batches of agents that were durable already and not applied again.
    Counter AGENT_DUPLICATES = "eden_agent_duplicates_total";
    /// Batches of agents with the number of another one: two devices have one id.
    Counter AGENT_CONFLICTS = "eden_agent_conflicts_total";
    /// Lines and payloads set aside; see `system.quarantine`.
    Counter SET_ASIDE = "eden_storage_set_aside_total";
    /// Records, each of what came together, dropped from `system.quarantine` because it is full.
    Counter SET_ASIDE_DROPPED = "eden_storage_set_aside_dropped_total";
    /// Bytes of the log's files.
    Gauge WAL_BYTES = "eden_wal_bytes";
    /// Files of the log.
    Gauge WAL_SEGMENTS = "eden_wal_segments";
    /// Bytes that wait to be written to the log.
    Gauge WAL_QUEUE_BYTES = "eden_wal_queue_bytes";
    /// Syncs of the log.
    Counter WAL_SYNCS = "eden_wal_syncs_total";
    /// Time spent in syncs of the log.
    Counter WAL_SYNC_SECONDS = "eden_wal_sync_seconds_total";
    /// The longest sync of the log since start.
    Gauge WAL_SYNC_SECONDS_MAX = "eden_wal_sync_seconds_max";
    /// Records made durable in the log.
    Counter WAL_RECORDS = "eden_wal_records_total";
    /// Bytes written to the log, padding included.
    Counter WAL_WRITTEN_BYTES = "eden_wal_written_bytes_total";
    /// Statements that ended, however.
    Counter QUERY_TOTAL = "eden_query_statements_total";
    /// Statements that failed.
    Counter QUERY_FAILED = "eden_query_statements_failed_total";
    /// Statements cancelled because whoever asked went away.
    Counter QUERY_CANCELLED = "eden_query_statements_cancelled_total";
    /// Statements whose plan was kept from the time before.
    Counter QUERY_PLANS_REUSED = "eden_query_plans_reused_total";
    /// Time that statements took, waiting included.
    Counter QUERY_SECONDS = "eden_query_seconds_total";
    /// Statements that are running.
    Gauge QUERY_RUNNING = "eden_query_running";
    /// Statements that wait to run.
    Gauge QUERY_WAITING = "eden_query_waiting";
    /// Memory that running statements have reserved.
    Gauge QUERY_MEMORY_BYTES = "eden_query_memory_bytes";
    /// Disk that running statements have spilled to.
    Gauge QUERY_SPILL_BYTES = "eden_query_spill_bytes";
}

/// Upper bounds of the histogram's buckets, in microseconds.
const BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS_US.len() + 1],
    sum_us: u64,
}

#[derive(Default)]
struct Endpoint {
    statuses: BTreeMap<u16, u64>,
    seconds: Histogram,
}

/// The counters of this room.
#[derive(Default)]
pub struct Metrics {
    /// See [`HTTP_CONNECTIONS`].
    pub connections: AtomicU64,
    /// See [`HTTP_CONNECTIONS_TOTAL`].
    pub connections_total: AtomicU64,
    /// See [`INGEST_BODY_BYTES`].
    pub body_bytes: AtomicU64,
    /// See [`INGEST_LINES`].
    pub lines: AtomicU64,
    /// See [`INGEST_LINES_REFUSED`].
    pub lines_refused: AtomicU64,
    /// See [`INGEST_SAMPLES`].
    pub samples: AtomicU64,
    /// See [`INGEST_SAMPLES_REFUSED`].
    pub samples_refused: AtomicU64,
    /// See [`INGEST_EXEMPLARS`].
    pub exemplars: AtomicU64,
    /// What became of the rows that came in.
    pub sources: Arc<Sources>,
    /// Of the MQTT listener.
    pub mqtt: MqttMetrics,
    /// Of each broker, in the order of the configuration.
    pub brokers: Vec<BrokerMetrics>,
    endpoints: Mutex<BTreeMap<&'static str, Endpoint>>,
}

/// The counters of the MQTT listener.
#[derive(Default)]
pub struct MqttMetrics {
    /// See [`MQTT_CONNECTIONS`].
    pub connections: AtomicU64,
    /// See [`MQTT_CONNECTIONS_TOTAL`].
    pub connections_total: AtomicU64,
    /// See [`MQTT_CONNECTS_HELD`].
    pub connects_held: AtomicU64,
    /// See [`MQTT_TAKEN_OVER`].
    pub taken_over: AtomicU64,
    /// See [`MQTT_BYTES`].
    pub bytes: AtomicU64,
    /// See [`MQTT_MESSAGES`]; by QoS.
    pub messages: [AtomicU64; 3],
    /// See [`MQTT_DUPLICATES`].
    pub duplicates: AtomicU64,
    /// See [`MQTT_ACKS`].
    pub acks: AtomicU64,
    /// See [`MQTT_SET_ASIDE`].
    pub set_aside: AtomicU64,
    /// See [`MQTT_IGNORED`].
    pub ignored: AtomicU64,
    /// See [`MQTT_PAUSES`].
    pub pauses: AtomicU64,
    /// See [`MQTT_BUSY`].
    pub busy: AtomicU64,
    refused: Counts,
    broken: Counts,
    commands: Counts,
}

impl MqttMetrics {
    /// Counts a connection that was refused.
    pub fn count_refused(&self, reason: &'static str) {
        count(&self.refused, reason);
    }

    /// Counts a connection that was ended for what its client did.
    pub fn count_broken(&self, reason: &'static str) {
        count(&self.broken, reason);
    }

    /// Counts a command.
    pub fn count_command(&self, result: &'static str) {
        count(&self.commands, result);
    }

    fn write(&self, page: &mut Page) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        page.one(&MQTT_CONNECTIONS, get(&self.connections));
        page.one(&MQTT_CONNECTIONS_TOTAL, get(&self.connections_total));
        labelled(page, &MQTT_REFUSED, "reason", &self.refused);
        page.one(&MQTT_TAKEN_OVER, get(&self.taken_over));
        labelled(page, &MQTT_BROKEN, "reason", &self.broken);
        page.one(&MQTT_BYTES, get(&self.bytes));
        page.head(&MQTT_MESSAGES);
        for (qos, messages) in self.messages.iter().enumerate() {
            page.sample(MQTT_MESSAGES.name, &format!("{{qos=\"{qos}\"}}"), get(messages));
        }
        page.one(&MQTT_DUPLICATES, get(&self.duplicates));
        page.one(&MQTT_ACKS, get(&self.acks));
        page.one(&MQTT_SET_ASIDE, get(&self.set_aside));
        page.one(&MQTT_IGNORED, get(&self.ignored));
        page.one(&MQTT_CONNECTS_HELD, get(&self.connects_held));
        labelled(page, &MQTT_COMMANDS, "result", &self.commands);
        page.one(&MQTT_PAUSES, get(&self.pauses));
        page.one(&MQTT_BUSY, get(&self.busy));
    }
}

/// The counters of a broker that is subscribed to.
#[derive(Default)]
pub struct BrokerMetrics {
    /// As it is labelled.
    pub url: String,
    /// See [`BROKER_CONNECTED`].
    pub connected: AtomicU64,
    /// See [`BROKER_CONNECTIONS`].
    pub connections: AtomicU64,
    /// See [`BROKER_MESSAGES`].
    pub messages: AtomicU64,
    /// See [`BROKER_BYTES`].
    pub bytes: AtomicU64,
    /// See [`BROKER_ACKS`].
    pub acks: AtomicU64,
}

fn write_brokers(brokers: &[BrokerMetrics], page: &mut Page) {
    type Figure = fn(&BrokerMetrics) -> &AtomicU64;
    let figures: [(&Metric, Figure); 5] = [
        (&BROKER_CONNECTED, |broker| &broker.connected),
        (&BROKER_CONNECTIONS, |broker| &broker.connections),
        (&BROKER_MESSAGES, |broker| &broker.messages),
        (&BROKER_BYTES, |broker| &broker.bytes),
        (&BROKER_ACKS, |broker| &broker.acks),
    ];
    for (metric, figure) in figures {
        page.head(metric);
        for broker in brokers {
            let value = figure(broker).load(Ordering::Relaxed) as f64;
            page.sample(metric.name, &format!("{{broker={:?}}}", broker.url), value);
        }
    }
}

type Counts = Mutex<BTreeMap<&'static str, u64>>;

fn count(counts: &Counts, label: &'static str) {
    *counts.lock().expect("no holder of this lock panics").entry(label).or_default() += 1;
}

fn labelled(page: &mut Page, metric: &Metric, label: &str, counts: &Counts) {
    page.head(metric);
    for (value, count) in counts.lock().expect("no holder of this lock panics").iter() {
        page.sample(metric.name, &format!("{{{label}=\"{value}\"}}"), *count as f64);
    }
}

impl Metrics {
    /// With counters for brokers of these addresses.
    pub fn of<'a>(brokers: impl Iterator<Item = &'a str>) -> Self {
        let broker = |url: &str| BrokerMetrics { url: url.to_owned(), ..BrokerMetrics::default() };
        Metrics { brokers: brokers.map(broker).collect(), ..Metrics::default() }
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts one answered request.
    pub fn count_request(&self, endpoint: &'static str, status: u16, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.iter().position(|bound| us <= *bound).unwrap_or(BUCKETS_US.len());
        let mut endpoints = self.endpoints.lock().expect("no holder of this lock panics");
        let endpoint = endpoints.entry(endpoint).or_default();
        *endpoint.statuses.entry(status).or_default() += 1;
        endpoint.seconds.buckets[bucket] += 1;
        endpoint.seconds.sum_us = endpoint.seconds.sum_us.saturating_add(us);
    }

    /// Puts the counters of this room on `page`.
    pub fn write(&self, page: &mut Page) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        page.one(&HTTP_CONNECTIONS, get(&self.connections));
        page.one(&HTTP_CONNECTIONS_TOTAL, get(&self.connections_total));
        page.one(&INGEST_BODY_BYTES, get(&self.body_bytes));
        page.one(&INGEST_LINES, get(&self.lines));
        page.one(&INGEST_LINES_REFUSED, get(&self.lines_refused));
        page.one(&INGEST_SAMPLES, get(&self.samples));
        page.one(&INGEST_SAMPLES_REFUSED, get(&self.samples_refused));
        page.one(&INGEST_EXEMPLARS, get(&self.exemplars));
        self.sources.write(page);
        self.mqtt.write(page);
        write_brokers(&self.brokers, page);

        let endpoints = self.endpoints.lock().expect("no holder of this lock panics");
        page.head(&HTTP_REQUESTS);
        for (name, endpoint) in endpoints.iter() {
            for (status, count) in &endpoint.statuses {
                page.sample(HTTP_REQUESTS.name, &format!("{{endpoint=\"{name}\",status=\"{status}\"}}"), *count as f64);
            }
        }
        page.head(&HTTP_SECONDS);
        for (name, endpoint) in endpoints.iter() {
            let mut count = 0;
            for (i, in_bucket) in endpoint.seconds.buckets.iter().enumerate() {
                count += in_bucket;
                let bound = BUCKETS_US.get(i).map_or("+Inf".into(), |us| (*us as f64 / 1e6).to_string());
                let labels = format!("{{endpoint=\"{name}\",le=\"{bound}\"}}");
                page.sample("eden_http_request_duration_seconds_bucket", &labels, count as f64);
            }
            let labels = format!("{{endpoint=\"{name}\"}}");
            page.sample("eden_http_request_duration_seconds_sum", &labels, endpoint.seconds.sum_us as f64 / 1e6);
            page.sample("eden_http_request_duration_seconds_count", &labels, count as f64);
        }
    }
}

/// A page in the Prometheus text format, version 0.0.4.
#[derive(Default)]
pub struct Page(String);

impl Page {
    /// HELP and TYPE of `metric`; its samples must follow.
    pub fn head(&mut self, metric: &Metric) {
        let help = metric.help.trim();
        let _ = writeln!(self.0, "# HELP {} {help}\n# TYPE {} {}", metric.name, metric.name, metric.kind.name());
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A metric of one sample without labels.
    pub fn one(&mut self, metric: &Metric, value: f64) {
        self.head(metric);
        self.sample(metric.name, "", value);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// The page `docs/metrics.md`.
pub fn manual() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` answers in the Prometheus text format. Names begin with `eden_`, values are in base units\n\
         (seconds, bytes), counters end in `_total` and start at 0 with the process.\n\n\
         | name | kind | what |\n|---|---|---|\n",
    );
    for metric in ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", metric.name, metric.kind.name(), metric.help.trim());
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_in_docs_is_what_the_code_says() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        expect_test::expect_file![page].assert_eq(&manual());
    }

    #[test]
    fn names_keep_the_rules() {
        for metric in ALL {
            assert!(metric.name.starts_with("eden_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        }
    }

    #[test]
    fn a_request_lands_in_its_bucket_and_all_above() {
        let metrics = Metrics::default();
        metrics.count_request("write_lp", 204, Duration::from_micros(900));
        let mut page = Page::default();
        metrics.write(&mut page);
        let page = page.finish();
        for line in [
            "eden_http_requests_total{endpoint=\"write_lp\",status=\"204\"} 1",
            "eden_http_request_duration_seconds_bucket{endpoint=\"write_lp\",le=\"0.0005\"} 0",
            "eden_http_request_duration_seconds_bucket{endpoint=\"write_lp\",le=\"0.001\"} 1",
            "eden_http_request_duration_seconds_bucket{endpoint=\"write_lp\",le=\"+Inf\"} 1",
            "eden_http_request_duration_seconds_sum{endpoint=\"write_lp\"} 0.0009",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }
}
