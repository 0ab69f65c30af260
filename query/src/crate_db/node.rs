//! What the process and its machine are like at a moment.
//!
//! Owns:     what is asked.
//! Does not: know it: whoever starts the engine gives a source.

use std::fmt;
use std::sync::Arc;

/// Facts about a node; `None` where they are not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The machine's name.
    pub hostname: Option<String>,
    /// Where HTTP is listened to.
    pub http_port: Option<u16>,
    /// Where PostgreSQL's protocol is listened to.
    pub postgres_port: Option<u16>,
    /// Threads that the process may run at once.
    pub processors: Option<u32>,
    /// The operating system.
    pub os_name: Option<String>,
    /// Its version.
    pub os_version: Option<String>,
    /// The processor's architecture.
    pub arch: Option<String>,
    /// How long the machine is up, in milliseconds.
    pub uptime_ms: Option<i64>,
    /// Memory of the machine that is free or can be made so.
    pub memory_available_bytes: Option<i64>,
    /// All memory of the machine.
    pub memory_total_bytes: Option<i64>,
    /// Memory that the process has.
    pub resident_bytes: Option<i64>,
    /// Memory that the process may take by its settings.
    pub memory_max_bytes: Option<i64>,
    /// Load of the machine over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Files and sockets that the process has open.
    pub open_files: Option<i64>,
    /// How many it may.
    pub open_files_max: Option<i64>,
}

/// Where facts come from. May block for the disk.
#[derive(Clone)]
pub struct NodeSource(Arc<dyn Fn() -> NodeFacts + Send + Sync>);

impl NodeSource {
    /// From a function.
    pub fn new(source: impl Fn() -> NodeFacts + Send + Sync + 'static) -> Self {
        NodeSource(Arc::new(source))
    }

    /// The facts now.
    pub(crate) fn now(&self) -> NodeFacts {
        (self.0)()
    }
}

impl Default for NodeSource {
    fn default() -> Self {
        NodeSource::new(NodeFacts::default)
    }
}

impl fmt::Debug for NodeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSource").finish_non_exhaustive()
    }
}
