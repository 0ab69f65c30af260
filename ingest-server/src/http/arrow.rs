//! `POST /api/v1/arrow?table=…`: the rows of a stream of Arrow's IPC format.
//!
//! Owns:     its parameters and answers.
//! Does not: read the stream (`stream`), decide what its columns are (`plan`), or store rows (`intake`).
//!
//! Whoever writes so is a program that reads answers: rows that are refused are named in a 400, and set aside too.
//!
//! The format: <https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>.

mod plan;
pub(crate) mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use model::TableName;
use model::name::check_name;
use serde_json::json;

use super::influx::schema;
use super::intake::rows::{self, RefusedSamples, RowWrite, Stored};
use super::intake::{REFUSED_HEADER, WriteError};
use super::table::find;
use super::{Peer, answer, body};
use crate::app::App;
use crate::sources::Source;
use plan::Wanted;

const PATH: &str = "/api/v1/arrow";
/// What clients of that name send, and what says nothing.
const MEDIA: [&str; 3] = ["", "application/vnd.apache.arrow.stream", "application/octet-stream"];

fn parameters(query: &HashMap<String, String>) -> Result<Wanted, String> {
    if let Some(unknown) = query.keys().find(|name| !["db", "schema", "table", "tags", "time"].contains(&&***name)) {
        let shown: String = unknown.chars().take(40).collect();
        return Err(format!("there is no parameter {shown:?}; known are db, table, tags and time"));
    }
    let db = query.get("db").or_else(|| query.get("schema")).map(String::as_str).unwrap_or_default();
    let schema = schema::checked(db).map_err(|e| format!("db: {e}"))?;
    let table = query.get("table").ok_or("the parameter table is missing: /api/v1/arrow?table=t&tags=a,b")?;
    check_name("table", table).map_err(|e| format!("table: {e}"))?;
    let list =
        |text: &String| text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    let time = query.get("time").filter(|time| !time.is_empty()).map_or("time", String::as_str).to_owned();
    Ok(Wanted { table: TableName::new(&schema, table), tags: query.get("tags").map(list), time })
}

fn media(headers: &HeaderMap) -> Result<(), String> {
    let content_type = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let media = content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if MEDIA.contains(&&*media.to_ascii_lowercase()) {
        return Ok(());
    }
    let shown: String = media.chars().take(100).collect();
    Err(format!("content-type {shown:?} is not supported; use {}", MEDIA[1]))
}

/// The handler.
pub async fn write(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(reason) = media(&headers) {
        return answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    }
    let wanted = match parameters(&query) {
        Ok(wanted) => wanted,
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, reason),
    };
    match store(&app, wanted, format!("http {peer}"), &headers, body).await {
        Ok(Stored { refused, .. }) if refused.total == 0 => StatusCode::NO_CONTENT.into_response(),
        Ok(Stored { totals, refused }) => partial(totals, &refused),
        Err(error) => error.answer(),
    }
}

async fn store(
    app: &Arc<App>,
    mut wanted: Wanted,
    source: String,
    headers: &HeaderMap,
    body: Body,
) -> Result<Stored<u32>, WriteError> {
    let storage = app.for_writes()?.storage;
    let known = find(&storage, &wanted.table.schema, &wanted.table.table);
    if let Some(known) = &known {
        wanted.table = known.name.clone();
    }
    let received = body::receive(app, headers, body).await?;
    let row_write = RowWrite { path: PATH, counted_as: Source::Arrow, schema: wanted.table.schema.to_string(), source };
    rows::write(app, row_write, received, move |body, _, take| stream::decode(body, &wanted, known.as_ref(), take))
        .await
}

fn partial(rows: u32, refused: &RefusedSamples) -> Response {
    let named =
        refused.named.iter().map(|row| json!({ "row": row.number, "line": row.line, "error_message": row.reason }));
    let text = format!("{} of {rows} rows were refused and set aside, all others are stored", refused.total);
    let mut response =
        answer::json(StatusCode::BAD_REQUEST, &json!({ "error": text, "data": named.collect::<Vec<_>>() }));
    response.headers_mut().insert(REFUSED_HEADER, HeaderValue::from(refused.total));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Wanted, String> {
        parameters(&query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn parameters_name_table_tags_and_time() {
        let wanted = read(&[("table", "air"), ("tags", "site, room,"), ("time", "ts"), ("db", "plant")]).unwrap();
        assert_eq!(wanted.table, TableName::new("plant", "air"));
        assert_eq!((wanted.tags, &*wanted.time), (Some(vec!["site".into(), "room".into()]), "ts"));
        let wanted = read(&[("table", "air"), ("tags", ""), ("schema", "doc")]).unwrap();
        assert_eq!((&*wanted.table.schema, wanted.tags, &*wanted.time), ("public", Some(vec![]), "time"));
        assert_eq!(read(&[("table", "air")]).unwrap().tags, None);
        for (query, said) in [
            (&[][..], "the parameter table is missing"),
            (&[("table", "")], "table: a table name is empty"),
            (&[("table", "a"), ("db", "system")], "db: the schema"),
            (&[("table", "a"), ("tag", "b")], "there is no parameter \"tag\""),
        ] {
            assert!(read(query).unwrap_err().starts_with(said), "{query:?}");
        }
    }
}
