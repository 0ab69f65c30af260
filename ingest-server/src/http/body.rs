//! Request bodies: received within a budget, decompressed within a limit.
//!
//! Invariants
//!  1. No body is larger than `max_body_bytes`, compressed or not; what is read beyond it is thrown away.
//!  2. Bodies in reception take no more memory than `bodies_memory` in all (P10).

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::config::ByteSize;

/// A whole body must have arrived in this time.
const RECEPTION_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a request waits for its share of the budget.
const BUDGET_WAIT_MAX: Duration = Duration::from_secs(10);
/// What a client may still send of a body that is too large, so that it gets to read the answer.
const DRAIN_BYTES_MAX: usize = 64 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Memory that a zstd frame may ask for, as a power of two: more than any allowed body needs.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

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
    #[error("content-encoding {encoding:?} is not supported; use gzip, zstd or none")]
    Encoding {
        /// What was sent.
        encoding: String,
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
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, BodyError> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Plain) };
        let text = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match &*text {
            "" | "identity" => Ok(Encoding::Plain),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "zstd" => Ok(Encoding::Zstd),
            _ => Err(BodyError::Encoding { encoding: text.chars().take(40).collect() }),
        }
    }
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
    let limit = app.config.http.max_body_bytes;
    let encoding = Encoding::of(headers)?;
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
        match self.encoding {
            Encoding::Plain => Ok(self.bytes),
            Encoding::Gzip => bounded("gzip", self.limit, flate2::read::MultiGzDecoder::new(&*self.bytes)),
            Encoding::Zstd => {
                let malformed = |e: std::io::Error| BodyError::Malformed { encoding: "zstd", reason: e.to_string() };
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&*self.bytes).map_err(malformed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(malformed)?;
                bounded("zstd", self.limit, decoder)
            }
        }
    }
}

fn bounded(encoding: &'static str, limit: ByteSize, decoder: impl Read) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    decoder
        .take(limit.0.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| BodyError::Malformed { encoding, reason: e.to_string() })?;
    if bytes.len() as u64 > limit.0 {
        return Err(BodyError::TooLarge { limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use flate2::write::GzEncoder;
    use tokio::sync::Semaphore;

    use super::*;

    fn received(encoding: Encoding, bytes: Vec<u8>) -> Received {
        let budget = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Received { bytes, encoding, limit: ByteSize(1000), _budget: budget }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_of_several_members_is_one_body() {
        let bytes = [gzip(b"a v=1\n"), gzip(b"a v=2\n")].concat();
        assert_eq!(received(Encoding::Gzip, bytes).decompress().unwrap(), b"a v=1\na v=2\n");
    }

    #[test]
    fn a_bomb_is_too_large_and_stops_at_the_limit() {
        let zeros = vec![0; 50 << 20];
        for (encoding, bytes) in
            [(Encoding::Gzip, gzip(&zeros)), (Encoding::Zstd, zstd::encode_all(&*zeros, 1).unwrap())]
        {
            let too_large = BodyError::TooLarge { limit: ByteSize(1000) };
            assert_eq!(received(encoding, bytes).decompress().unwrap_err(), too_large);
        }
    }

    #[test]
    fn a_body_of_exactly_the_limit_passes() {
        let bytes = vec![b'x'; 1000];
        let zstd = zstd::encode_all(&*bytes, 1).unwrap();
        assert_eq!(received(Encoding::Zstd, zstd).decompress().unwrap(), bytes);
    }

    #[test]
    fn garbage_and_torn_bodies_are_malformed() {
        let mut torn = gzip(b"a v=1\n");
        torn.truncate(torn.len() - 3);
        for (encoding, bytes) in [(Encoding::Gzip, torn), (Encoding::Gzip, vec![7; 30]), (Encoding::Zstd, vec![7; 30])]
        {
            let error = received(encoding, bytes).decompress().unwrap_err();
            assert!(matches!(error, BodyError::Malformed { .. }), "{error}");
        }
    }
}
