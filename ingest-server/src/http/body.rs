//! Request bodies: received within a budget, decompressed within a limit.
//!
//! Invariants
//!  1. No body is larger than `max_body_bytes`, compressed or not; what is read beyond it is thrown away.
//!  2. Bodies in reception take no more memory than `bodies_memory` in all (P10).

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::config::ByteSize;
use decode::unpack::{self, UnpackError};

/// A whole body must have arrived in this time.
const RECEPTION_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a request waits for its share of the budget.
const BUDGET_WAIT_MAX: Duration = Duration::from_secs(10);
/// What a client may still send of a body that is too large, so that it gets to read the answer.
const DRAIN_BYTES_MAX: usize = 64 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a body is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    /// Larger than allowed.
    #[error("the body is larger than {limit}; send smaller batches or raise [http] max_body_bytes")]
    TooLarge {
        /// The limit.
        limit: ByteSize,
    },
    /// Compressed in a way we do not know.
    #[error("content-encoding {encoding:?} is not supported; use {known}")]
    Encoding {
        /// What was sent.
        encoding: String,
        /// What is taken.
        known: &'static str,
    },
    /// Compressed wrongly.
    #[error("the body is not {encoding}: {reason}")]
    Malformed {
        /// What it should be.
        encoding: &'static str,
        /// What the decompressor said.
        reason: String,
    },
    /// The client went away.
    #[error("receive the body: {0}")]
    Interrupted(String),
    /// The client is too slow.
    #[error("the body did not arrive within {} s", RECEPTION_TIME_MAX.as_secs())]
    Slow,
    /// Too many bodies are being received.
    #[error("too many requests are being received; try again")]
    Busy,
}

impl BodyError {
    /// The status that says it.
    pub fn status(&self) -> StatusCode {
        match self {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Encoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Malformed { .. } | BodyError::Interrupted(_) => StatusCode::BAD_REQUEST,
            BodyError::Slow => StatusCode::REQUEST_TIMEOUT,
            BodyError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Zstd,
    Snappy,
}

/// How the bodies of an endpoint may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packings {
    /// gzip, zstd, or not at all.
    Usual,
    /// As blocks of snappy, whether the header says so or nothing.
    Snappy,
}

impl Encoding {
    fn of(headers: &HeaderMap, packings: Packings) -> Result<Self, BodyError> {
        match packings {
            Packings::Usual => Encoding::usual(headers),
            Packings::Snappy => match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().trim_ascii()) {
                None | Some(b"" | b"snappy") => Ok(Encoding::Snappy),
                Some(other) => Err(unknown(&String::from_utf8_lossy(other), "snappy")),
            },
        }
    }

    fn usual(headers: &HeaderMap) -> Result<Self, BodyError> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Plain) };
        let text = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match &*text {
            "" | "identity" => Ok(Encoding::Plain),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "zstd" => Ok(Encoding::Zstd),
            _ => Err(unknown(&text, "gzip, zstd or none")),
        }
    }
}

fn unknown(encoding: &str, known: &'static str) -> BodyError {
    BodyError::Encoding { encoding: encoding.chars().take(40).collect(), known }
}

/// A body as it arrived, and its share of the budget.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    encoding: Encoding,
    limit: ByteSize,
    _budget: OwnedSemaphorePermit,
}

/// Receives a body.
///
/// # Errors
/// See [`BodyError`]; nothing has been done with what arrived.
pub async fn receive(app: &App, headers: &HeaderMap, body: Body) -> Result<Received, BodyError> {
    receive_as(app, headers, body, Packings::Usual).await
}

/// As [`receive`], of an endpoint that has its own compressions.
///
/// # Errors
/// See [`BodyError`]; nothing has been done with what arrived.
pub async fn receive_as(app: &App, headers: &HeaderMap, body: Body, packings: Packings) -> Result<Received, BodyError> {
    let limit = app.config.http.max_body_bytes;
    let encoding = Encoding::of(headers, packings)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limit.0) {
        drain(body).await;
        return Err(BodyError::TooLarge { limit });
    }
    let share = u32::try_from(announced.unwrap_or(limit.0).div_ceil(1024)).unwrap_or(u32::MAX);
    let budget = std::sync::Arc::clone(&app.bodies_kib).acquire_many_owned(share);
    let budget = tokio::time::timeout(BUDGET_WAIT_MAX, budget)
        .await
        .map_err(|_| BodyError::Busy)?
        .expect("the semaphore is never closed");
    let bytes = tokio::time::timeout(RECEPTION_TIME_MAX, collect(body, announced, limit))
        .await
        .map_err(|_| BodyError::Slow)??;
    Ok(Received { bytes, encoding, limit, _budget: budget })
}

async fn collect(mut body: Body, announced: Option<u64>, limit: ByteSize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::with_capacity(announced.map_or(0, |bytes| bytes as usize));
    while let Some(data) = next(&mut body).await? {
        if bytes.len() + data.len() > limit.bytes() {
            drain(body).await;
            return Err(BodyError::TooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Err(e) => return Err(BodyError::Interrupted(e.to_string())),
        }
    }
    Ok(None)
}

/// Reads on for a while: a client that is still sending would see a reset instead of the answer.
async fn drain(mut body: Body) {
    let reading = async {
        let mut read = 0;
        while let Ok(Some(data)) = next(&mut body).await {
            read += data.len();
            if read > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, reading).await;
}

impl Received {
    /// Bytes as they arrived.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if nothing arrived.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes without compression. Works for as long as they need: not for an async task.
    ///
    /// # Errors
    /// If they are not what the header says, or become too large.
    pub fn decompress(self) -> Result<Vec<u8>, BodyError> {
        let (encoding, unpacked) = match self.encoding {
            Encoding::Plain => return Ok(self.bytes),
            Encoding::Gzip => ("gzip", unpack::gzip(&self.bytes, self.limit.bytes())),
            Encoding::Zstd => ("zstd", unpack::zstd(&self.bytes, self.limit.bytes())),
            Encoding::Snappy => ("snappy", unpack::snappy(&self.bytes, self.limit.bytes())),
        };
        unpacked.map_err(|error| match error {
            UnpackError::Malformed(reason) => BodyError::Malformed { encoding, reason },
            UnpackError::TooLarge => BodyError::TooLarge { limit: self.limit },
        })
    }
}
