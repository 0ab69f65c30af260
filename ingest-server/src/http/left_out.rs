//! Queries that go on without damaged shards: how a request asks for it, and how the answer says what is missing.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use query::LeftOut;

use super::sql_error::SqlError;

/// Asks for it: `true`, or `false`, which is what goes without saying.
pub const SKIP_DAMAGED_HEADER: &str = "x-eden-skip-damaged";
/// How many shards are left out.
pub const SHARDS_HEADER: &str = "x-eden-left-out-shards";
/// How many rows those have.
pub const ROWS_HEADER: &str = "x-eden-left-out-rows";
/// Which those are, by their paths below `DATA/tables`, separated by spaces; the first of them.
pub const NAMES_HEADER: &str = "x-eden-left-out";

/// Shards named in an answer; all are counted.
const NAMED_MAX: usize = 20;

/// Whether a query shall go on without damaged shards.
pub(super) fn is_wanted(headers: &HeaderMap) -> Result<bool, SqlError> {
    let value = headers.get(SKIP_DAMAGED_HEADER).map_or(&b"false"[..], HeaderValue::as_bytes);
    match value {
        b"true" | b"1" => Ok(true),
        b"false" | b"0" => Ok(false),
        other => {
            let other = String::from_utf8_lossy(&other[..other.len().min(40)]).into_owned();
            Err(SqlError::request(format!("the header X-Eden-Skip-Damaged is {other:?}; use true or false")))
        }
    }
}

/// Says what is left out, if that was asked for.
pub(super) fn say(mut response: Response, is_wanted: bool, left_out: &[LeftOut]) -> Response {
    if !is_wanted {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(SHARDS_HEADER), HeaderValue::from(left_out.len()));
    let rows: u64 = left_out.iter().map(|left_out| left_out.rows).sum();
    headers.insert(HeaderName::from_static(ROWS_HEADER), HeaderValue::from(rows));
    // ASCII without blanks: that is how folders are named.
    let names: Vec<&str> = left_out.iter().take(NAMED_MAX).map(|left_out| &*left_out.shard).collect();
    if let (false, Ok(names)) = (names.is_empty(), HeaderValue::from_str(&names.join(" "))) {
        headers.insert(HeaderName::from_static(NAMES_HEADER), names);
    }
    response
}
