//! What an operator may set: one TOML file, overridden by the environment by one rule.
//!
//! Owns:     every key, its default and its manual entry (the doc comments below are what `eden config show`
//!           prints and what `docs/config.md` holds).
//! Does not: touch a port or a disk other than the file itself; parts are built from it in `serve`.
//!
//! How keys are read, by which names and with which errors: `settings`. The environment's prefix is `EDEN_`; variables
//! that name no section are other programs' business.

mod broker;
mod load;
mod manual;
mod mqtt_rule;

use std::path::PathBuf;
use std::time::Duration;

use settings::section;
use storage::StorageConfig;

pub use broker::BrokerVersion;
pub use load::{PartialWrites, TopicFilters};
pub use manual::{Entry, entries, manual, show};
pub use mqtt_rule::MqttRule;
pub use settings::{ByteSize, ConfigError, Period};

section! {
    /// The HTTP endpoint: writes, SQL, health and metrics.
    "http" Http {
        /// Address and port to listen on. Port 0 takes a free one; it is logged and written to
        /// `addresses.json` in the data folder. `0.0.0.0:4200` is reachable from other machines:
        /// there are no users and passwords yet, so do this in a trusted network only.
        listen: String = "127.0.0.1:4200".into(),
        /// Largest request body, before and after decompression; a larger one is answered 413.
        max_body_bytes: ByteSize = ByteSize(10 << 20),
        /// Bodies being received, in all; above it requests wait, and after 10 s are answered 503.
        bodies_memory: ByteSize = ByteSize(128 << 20),
        /// Connections at a time; further ones wait in the system's queue.
        connections_max: u32 = 1024,
    }
}

section! {
    /// The MQTT listener: MQTT 3.1, 3.1.1 and 5. It takes readings; it is no broker.
    "mqtt" Mqtt {
        /// Address and port to listen on; an empty text switches it off. Port 0 takes a free one; it
        /// is logged and written to `addresses.json`. There are no users and passwords yet: listen on
        /// other addresses than this machine's own in a trusted network only.
        listen: String = "127.0.0.1:1883".into(),
        /// Topics whose messages are plain line protocol with times in nanoseconds, as filters with
        /// the wildcards `+` and `#`. By the environment: separated by commas. The topics of agents,
        /// `eden/v1/...`, are taken whatever stands here; [[mqtt.rule]] is asked before.
        line_protocol: TopicFilters = TopicFilters(vec!["lp/#".into()]),
        /// Connections at a time; further ones wait in the system's queue.
        connections_max: u32 = 10_000,
        /// Largest packet, which is a message with its topic; a larger one ends its connection.
        max_packet_bytes: ByteSize = ByteSize(1 << 20),
        /// Messages with QoS 1 or 2 that an MQTT 5 client may have in flight (Receive Maximum).
        receive_max: u32 = 128,
        /// Messages that are being received and stored, in all, one half of it for packets of more than
        /// 4 KiB; above it nothing more is read.
        messages_memory: ByteSize = ByteSize(64 << 20),
        /// Topics of a connection that may have an alias, in MQTT 5 (Topic Alias Maximum). 0: none.
        topic_aliases_max: u32 = 32,
        /// Connections that are taken in a second, after as many at once; further ones wait in the system's
        /// queue. 0: without limit.
        connects_per_second: u32 = 1_000,
        /// How long a session is kept at most while its client is away: its subscriptions, and the commands
        /// for it. 0s: not at all. Clients of MQTT 5 say how long they want, up to this.
        session_expiry_max: Period = Period(Duration::from_secs(7 * 86_400)),
        /// Sessions, commands that wait, and retained ones, of all clients; beyond it commands are refused.
        sessions_memory: ByteSize = ByteSize(32 << 20),
        /// The id by which edge nodes of Sparkplug B know this server as their primary host: its STATE is on
        /// this listener and on each broker whose `topics` take `spBv1.0/STATE/<id>`. Empty: it has none.
        sparkplug_host: String = String::new(),
    }
}

section! {
    /// The gRPC listener: Arrow Flight SQL for ADBC, and for clients of InfluxDB 3.
    "grpc" Grpc {
        /// Address and port to listen on; an empty text switches it off. Port 0 takes a free one; it
        /// is logged and written to `addresses.json`. There are no users and passwords yet: listen on
        /// other addresses than this machine's own in a trusted network only.
        listen: String = "127.0.0.1:4300".into(),
    }
}

section! {
    /// The listener of PostgreSQL's protocol: SQL for psql, drivers and dashboards.
    "postgres" Postgres {
        /// Address and port to listen on; an empty text switches it off. Port 0 takes a free one; it
        /// is logged and written to `addresses.json`. There are no users and passwords yet: listen on
        /// other addresses than this machine's own in a trusted network only.
        listen: String = "127.0.0.1:5432".into(),
        /// Connections at a time; further ones wait in the system's queue.
        connections_max: u32 = 256,
        /// Largest message of a client: a statement with its parameters, or a part of what is copied in.
        max_message_bytes: ByteSize = ByteSize(16 << 20),
    }
}

section! {
    /// A broker whose messages are taken in: [[mqtt.broker]] for each. Its topics are read by the rules of
    /// `[mqtt]`, as if devices published here.
    "mqtt.broker" BrokerSection {
        /// Where it is: "mqtt://host:1883".
        url: String = String::new(),
        /// What is subscribed to, as filters with the wildcards `+` and `#`. Of several servers with
        /// "$share/GROUP/FILTER" each gets a part.
        topics: TopicFilters = TopicFilters(Vec::new()),
        /// 1: what the broker had from us no acknowledgement for, which follows the sync, it sends again.
        /// 0: as it comes. QoS 2 would add nothing: a reading that comes twice counts once.
        qos: u32 = 1,
        /// "5" or "3.1.1". In 3.1.1 nobody tells the broker that a message is larger than
        /// `[mqtt] max_packet_bytes`: it would send it again for ever.
        version: BrokerVersion = BrokerVersion::V5,
        /// By which the broker knows this server again. Empty: "eden-" and the node's id.
        client_id: String = String::new(),
        /// How long the broker keeps messages for this server while it is away, in MQTT 5.
        session_expiry: Period = Period(Duration::from_secs(86_400)),
        /// Sent with the password, if not empty.
        user: String = String::new(),
        /// A file whose first line is the password.
        password_file: String = String::new(),
    }
}

section! {
    /// What is accepted.
    "ingest" Ingest {
        /// A reading later than now by more than this is refused: its clock is wrong.
        max_future: Period = Period(Duration::from_secs(86_400)),
        /// What `/write`, `/api/v2/write` and `/api/v1/prom/write` answer when only some lines or samples
        /// can be stored. "quarantine": success, with the others in `system.quarantine`, for clients that
        /// throw all of it away otherwise. "refuse": an error, as InfluxDB 1 and 2 and Prometheus do.
        partial_writes: PartialWrites = PartialWrites::Quarantine,
    }
}

section! {
    /// The data folder: log, tables and identity.
    "storage" StorageSection {
        /// The data folder; made if missing. `--data` on the command line wins.
        data: PathBuf = PathBuf::from("./eden-data"),
        /// Where the tables are: empty for the folder `tables` in the data folder, `s3://BUCKET/PREFIX` for
        /// an object store, or `file:///FOLDER`. The log stays in the data folder: what is acknowledged is
        /// durable there. A store is reached by the usual variables of the environment: `AWS_ACCESS_KEY_ID`,
        /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, and for others than Amazon's
        /// `AWS_ENDPOINT_URL`, with `AWS_ALLOW_HTTP=true` for one without TLS.
        tables: String = String::new(),
        /// Rows that have been in memory for longer are written to shards, so that a small table
        /// reaches its Delta table too. A flush happens sooner when memory or log fills.
        flush_max_age: Period = Period(Duration::from_secs(3_600)),
        /// A table whose rows in memory take more than this is flushed.
        table_memory: ByteSize = ByteSize(64 << 20),
        /// Rows in memory of all tables; above it writers wait.
        memory: ByteSize = ByteSize(256 << 20),
        /// Log on disk above which the tables that hold its oldest part are flushed. A longer log
        /// makes larger shards and a slower start after a crash.
        log_bytes_max: ByteSize = ByteSize(1 << 30),
        /// How long rows are kept, by their own time, in tables that have no retention of their own
        /// (`ALTER TABLE t SET (retention = '90d')`). A day goes when all of it is older. 0s: for ever.
        retention: Period = Period(Duration::ZERO),
        /// Shards are merged into fewer and larger ones, reading no more than this in a second.
        compaction_rate: ByteSize = ByteSize(64 << 20),
        /// How long files that are in no table any more stay, for whoever still reads them. At least
        /// twice the time that a query may take.
        vacuum_grace: Period = Period(Duration::from_secs(3_600)),
        /// All shards are read again and again, so much in a second, and compared with their
        /// checksums. 0B: not at all.
        scrub_rate: ByteSize = ByteSize(4 << 20),
        /// The same for tables in an object store, where reading costs money.
        store_scrub_rate: ByteSize = ByteSize(0),
        /// With less room than this on the disk (or than a twentieth of a small disk) nothing more is taken
        /// in until there is again; queries, deletions and whatever frees room go on.
        disk_reserve: ByteSize = ByteSize(256 << 20),
        /// Largest size of the shards that have a column for `ALTER TABLE` to change its type.
        alter_bytes_max: ByteSize = ByteSize(1 << 30),
        /// The same for a column of whole numbers that becomes one of floats because a float came;
        /// beyond it the row goes to `system.quarantine`.
        widen_bytes_max: ByteSize = ByteSize(64 << 20),
    }
}

section! {
    /// SQL.
    "query" Query {
        /// Memory of all queries together; above it they spill to disk, then fail with an error
        /// that names this key.
        memory: ByteSize = ByteSize(512 << 20),
        /// A query that takes longer is stopped.
        timeout: Period = Period(Duration::from_secs(300)),
        /// Threads that run queries, apart from those that take writes. 0: one a core.
        threads: u32 = 0,
        /// Queries that run at a time; further ones wait, and are answered 429 when too many do.
        concurrent_max: u32 = 16,
    }
}

section! {
    /// The process.
    "server" Process {
        /// How long a stop waits for requests in flight and for the flush. What is not flushed by
        /// then stays in the log and is replayed at the next start.
        grace: Period = Period(Duration::from_secs(10)),
        /// What is logged to standard error: `error`, `warn`, `info`, `debug` or `trace`, also by
        /// part: `info,storage=debug`.
        log: String = "info".into(),
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[http]`
    pub http: Http,
    /// `[mqtt]`
    pub mqtt: Mqtt,
    /// `[postgres]`
    pub postgres: Postgres,
    /// `[grpc]`
    pub grpc: Grpc,
    /// `[[mqtt.broker]]`
    pub brokers: Vec<BrokerSection>,
    /// `[[mqtt.rule]]`
    pub mqtt_rules: Vec<MqttRule>,
    /// `[ingest]`
    pub ingest: Ingest,
    /// `[storage]`
    pub storage: StorageSection,
    /// `[query]`
    pub query: Query,
    /// `[server]`
    pub server: Process,
}

impl Config {
    /// The part that storage is opened with.
    pub fn storage_config(&self) -> StorageConfig {
        StorageConfig {
            flush_max_age: self.storage.flush_max_age.0,
            table_memory_bytes_max: self.storage.table_memory.bytes(),
            memory_bytes_max: self.storage.memory.bytes(),
            log_bytes_max: self.storage.log_bytes_max.0,
            max_future: self.ingest.max_future.0,
            retention_default: Some(self.storage.retention.0).filter(|retention| !retention.is_zero()),
            compaction_bytes_per_second: self.storage.compaction_rate.0,
            vacuum_grace: self.storage.vacuum_grace.0.max(self.query.timeout.0 * 2),
            disk_reserve_bytes: self.storage.disk_reserve.0,
            scrub_bytes_per_second: self.storage.scrub_rate.0,
            alter_bytes_max: self.storage.alter_bytes_max.0,
            widen_bytes_max: self.storage.widen_bytes_max.0,
            ..StorageConfig::new(self.storage.data.clone())
        }
    }
}
