//! Who is connected, as `system.connections` shows it.
//!
//! Owns:     the list of connections of all listeners, and what each has counted.
//! Does not: accept or end connections; know what a client has subscribed to (`mqtt::sessions`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use model::FieldType;
use storage::{LiveTable, TableSchema};

use crate::mqtt::sessions::Sessions;

/// What is known of a connection once its client is.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What is spoken: `mqtt` or `http`.
    pub protocol: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The client id, if there are any in this protocol.
    pub client: Arc<str>,
    /// Where from.
    pub peer: SocketAddr,
    /// Since when, in microseconds since 1970.
    pub since_us: i64,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Shown {
    /// Without them it is not shown.
    pub facts: OnceLock<Facts>,
    /// Messages or requests received.
    pub messages: AtomicU64,
    /// Bytes received, where they are counted.
    pub bytes: AtomicU64,
    /// Messages or requests that are not answered yet.
    pub in_flight: AtomicU64,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: HashMap<u64, Arc<Shown>>,
    next: u64,
}

/// Shows a connection until it is dropped.
#[derive(Debug)]
pub struct Showing {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Shows `shown`, as soon as there are facts.
    pub fn show(self: &Arc<Self>, shown: &Arc<Shown>) -> Showing {
        let mut inner = self.inner();
        inner.next += 1;
        let number = inner.next;
        inner.all.insert(number, Arc::clone(shown));
        Showing { connections: Arc::clone(self), number }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.connections.inner().all.remove(&self.number);
    }
}

/// `system.connections`.
#[derive(Debug)]
pub struct ConnectionsTable {
    connections: Arc<Connections>,
    sessions: Arc<Sessions>,
    schema: Arc<TableSchema>,
}

impl ConnectionsTable {
    /// The table's name.
    pub const NAME: &str = "connections";

    /// Of `connections`, with what `sessions` knows of their clients.
    pub fn new(connections: Arc<Connections>, sessions: Arc<Sessions>) -> Self {
        let tags = ["protocol", "client", "peer"].map(Arc::from);
        let fields = [
            ("version", FieldType::Text),
            ("messages", FieldType::I64),
            ("bytes", FieldType::I64),
            ("in_flight", FieldType::I64),
            ("subscriptions", FieldType::I64),
            ("commands_in_flight", FieldType::I64),
        ];
        let schema = Arc::new(TableSchema::new(&tags, &fields.map(|(name, kind)| (name.into(), kind))));
        ConnectionsTable { connections, sessions, schema }
    }
}

impl LiveTable for ConnectionsTable {
    fn schema(&self) -> Arc<TableSchema> {
        Arc::clone(&self.schema)
    }

    fn rows(&self) -> RecordBatch {
        let all: Vec<Arc<Shown>> = self.connections.inner().all.values().cloned().collect();
        let known: Vec<(&Facts, &Shown)> =
            all.iter().filter_map(|shown| shown.facts.get().map(|facts| (facts, &**shown))).collect();
        let texts = |text: fn(&Facts) -> String| -> ArrayRef {
            Arc::new(known.iter().map(|(facts, _)| Some(text(facts))).collect::<StringViewArray>())
        };
        let numbers = |number: &dyn Fn(&Facts, &Shown) -> Option<u64>| -> ArrayRef {
            let number = |(facts, shown): &(&Facts, &Shown)| number(facts, shown).map(u64::cast_signed);
            Arc::new(known.iter().map(number).collect::<Int64Array>())
        };
        let get = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed));
        let is_mqtt = |facts: &Facts| facts.protocol == "mqtt";
        let counts = |facts: &Facts| is_mqtt(facts).then(|| self.sessions.counts(&facts.client));
        let since: Vec<i64> = known.iter().map(|(facts, _)| facts.since_us).collect();
        let columns: Vec<ArrayRef> = vec![
            texts(|facts| facts.protocol.to_owned()),
            texts(|facts| facts.client.to_string()),
            texts(|facts| facts.peer.to_string()),
            texts(|facts| facts.version.to_owned()),
            numbers(&|_, shown| get(&shown.messages)),
            numbers(&|facts, shown| get(&shown.bytes).filter(|_| is_mqtt(facts))),
            numbers(&|_, shown| get(&shown.in_flight)),
            numbers(&|facts, _| counts(facts).map(|(subscriptions, _)| subscriptions as u64)),
            numbers(&|facts, _| counts(facts).map(|(_, in_flight)| in_flight as u64)),
            Arc::new(TimestampMicrosecondArray::from(since).with_timezone("UTC")),
        ];
        RecordBatch::try_new(Arc::clone(self.schema.arrow()), columns).expect("columns were made for the schema")
    }
}
