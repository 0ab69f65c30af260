//! The two directions of a connection.
//!
//! Owns:     what was read and not yet understood, and what was said and not yet sent.
//! Does not: know what messages mean.

use bytes::{Buf as _, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Failed;
use super::read::{self, Message, Opening};

/// Answers gather up to this many bytes before they are sent.
pub(super) const SEND_BYTES: usize = 64 << 10;

/// What a client may send ahead while a statement runs; beyond it nothing more is read.
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// Why something ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is not there any more.
    Gone,
    /// It is told why.
    Failed(Failed),
}

impl<E: Into<Failed>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

pub(super) fn split(stream: TcpStream) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    (Reader { half: read, bytes: BytesMut::new() }, Writer { half: write, bytes: BytesMut::new() })
}

/// What comes from the client.
#[derive(Debug)]
pub(super) struct Reader {
    half: OwnedReadHalf,
    bytes: BytesMut,
}

impl Reader {
    async fn more(&mut self) -> Result<(), Stop> {
        loop {
            self.half.readable().await.map_err(|_| Stop::Gone)?;
            match self.half.try_read_buf(&mut self.bytes) {
                Ok(0) => return Err(Stop::Gone),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Stop::Gone),
            }
        }
    }

    /// The first message. Cancel safe.
    pub(super) async fn opening(&mut self) -> Result<Opening, Stop> {
        loop {
            if let Some(opening) = read::opening(&mut self.bytes)? {
                return Ok(opening);
            }
            self.more().await?;
        }
    }

    /// The next message. Cancel safe.
    pub(super) async fn message(&mut self, bytes_max: usize) -> Result<Message, Stop> {
        loop {
            if let Some(message) = read::message(&mut self.bytes, bytes_max)? {
                return Ok(message);
            }
            self.more().await?;
        }
    }

    /// Whether a part of a message is there already.
    pub(super) fn has_more(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Returns when the client is gone. Reads ahead meanwhile, as far as there is room. Cancel safe.
    async fn gone(&mut self) {
        while self.bytes.len() < AHEAD_BYTES_MAX {
            if self.more().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// What goes to the client.
#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
    pub(super) bytes: BytesMut,
}

impl Writer {
    /// Says something, which is sent with what follows.
    pub(super) fn say(&mut self, message: PgWireBackendMessage) {
        // It only fails for a message that is larger than any may be, and then nothing of it is written but its head.
        let before = self.bytes.len();
        if let Err(error) = message.encode(&mut self.bytes) {
            self.bytes.truncate(before);
            tracing::warn!(%error, "a message to a PostgreSQL client was left out");
        }
    }

    /// Sends what was said.
    pub(super) async fn flush(&mut self) -> Result<(), Stop> {
        while !self.bytes.is_empty() {
            self.half.writable().await.map_err(|_| Stop::Gone)?;
            match self.half.try_write(&self.bytes) {
                Ok(0) => return Err(Stop::Gone),
                Ok(sent) => self.bytes.advance(sent),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Stop::Gone),
            }
        }
        Ok(())
    }

    /// Sends what was said if it is enough to be worth it.
    pub(super) async fn flush_if_full(&mut self) -> Result<(), Stop> {
        if self.bytes.len() >= SEND_BYTES { self.flush().await } else { Ok(()) }
    }
}

/// What may end a statement from outside.
pub(super) struct Guard<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) cancel: CancellationToken,
    pub(super) deadline: Option<Instant>,
}

impl Guard<'_> {
    /// Does `work` unless the client goes away, cancels, or its time is up. What is dropped then ends the statement.
    pub(super) async fn run<T>(&mut self, work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
        let deadline = self.deadline;
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                Err(Stop::Failed(Failed::new("57014", "canceling statement due to user request")))
            }
            done = work => done,
            () = late => Err(Stop::Failed(Failed::new("57014", "canceling statement due to statement timeout"))),
            () = self.reader.gone() => Err(Stop::Gone),
        }
    }
}
