//! Append-only, checksummed, segmented log.
//!
//! Owns:     segment files, the durable watermark, recovery after a crash; and [`disk`], through which everything
//!           durable is written.
//! Does not: know what a record means, serialise, compress, or run on an async runtime.
//!
//! Two policies, one format (`docs/formats/wal.md`): [`Wal`] for a server, with many appenders, a writer thread and one
//! sync for all that waits; [`RingLog`] for an outbox, bounded and driven by its owner. [`ObjectLog`] is a server's log
//! where others can reach it: the same frames, each an object of its own, so that another node can take it over.
//!
//! ```
//! use std::sync::{Arc, mpsc};
//!
//! use model::{NodeEpoch, NodeId};
//! use wal::{Outcome, Wal, WalConfig, disk::LocalDisk};
//!
//! # let dir = std::env::temp_dir().join(format!("wal-doc-{}", std::process::id()));
//! let (acks, acked) = mpsc::channel();
//! let config = WalConfig::server(&dir, NodeId(1), NodeEpoch(1));
//! let (wal, recovery) = Wal::open(Arc::new(LocalDisk), config, move |outcome| {
//!     let Outcome::Durable(group) = outcome else { return };
//!     for (_record, client) in group.records {
//!         acks.send(client).unwrap();
//!     }
//! })?;
//! assert!(recovery.clean);
//! wal.append(b"21.5".to_vec(), "client 7").unwrap();
//! assert_eq!(acked.recv().unwrap(), "client 7");
//!
//! let first = wal.reader(0).next().unwrap()?;
//! assert_eq!(first.records().next(), Some(b"21.5".as_slice()));
//! wal.close()?;
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), wal::WalError>(())
//! ```

mod appender;
mod catalog;
pub mod disk;
mod error;
mod frame;
mod objects;
mod prepare;
mod queue;
mod reader;
mod recovery;
mod ring;
mod scan;
mod segment;
mod server;
mod stats;
mod window;

pub use error::WalError;
pub use frame::RECORD_BYTES_MAX;
pub use objects::{ObjectLog, ObjectLogConfig, ObjectReader};
pub use reader::{Frame, FrameReader};
pub use recovery::{Certainty, Inspection, LogKind, Loss, LossReason, Recovery, inspect};
pub use ring::{Appended, Dropped, RING_SEGMENT_BYTES, RingConfig, RingLog};
pub use server::{Group, Outcome, SERVER_QUEUE_BYTES_MAX, SERVER_SEGMENT_BYTES, Wal, WalConfig};
pub use stats::WalStats;
