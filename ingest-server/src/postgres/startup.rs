//! The beginning of a connection: who comes, and whether they may.
//!
//! Owns:     what may come before a client is known: little, and not for long.
//! Does not: know what an accepted client may do (`connection`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgwire::messages::PgWireBackendMessage as Say;
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};
use tokio::net::TcpStream;

use super::Postgres;
use super::connection::Connection;
use super::error::Failed;
use super::read::Opening;
use super::settings::Settings;
use super::socket::{Reader, Stop, Writer, split};
use crate::connections::{Facts, Shown};

/// A client must have said who it is in this time.
const STARTUP_TIME_MAX: Duration = Duration::from_secs(10);

/// Questions about encryption that a client may ask first.
const QUESTIONS_MAX: usize = 2;

/// Serves a connection to its end.
pub(super) async fn serve(postgres: Arc<Postgres>, stream: TcpStream, peer: SocketAddr) {
    // Answers are waited for: Nagle's algorithm would hold them back.
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(%peer, error = %e, "set TCP_NODELAY");
    }
    let (mut reader, mut writer) = split(stream);
    let greeting = tokio::time::timeout(STARTUP_TIME_MAX, greet(&mut reader, &mut writer));
    let greeted = tokio::select! {
        greeted = greeting => greeted.unwrap_or(Err(Stop::Gone)),
        () = postgres.stop.cancelled() => return,
    };
    let (version, parameters) = match greeted {
        Ok(Greeted::Startup { version, parameters }) => (version, parameters),
        Ok(Greeted::Cancel { process, secret }) => return postgres.cancel(process, &secret),
        Err(stop) => return refuse(stop, writer, peer).await,
    };
    match admit(&postgres, version, &parameters) {
        Ok((user, settings)) => {
            let slot = postgres.enter();
            welcome(&mut writer, version, &parameters, &settings, slot.process, &slot.secret);
            let shown = Arc::new(Shown::default());
            let facts = Facts {
                protocol: "postgres",
                version: "3.0",
                client: settings.show("application_name").map_or("", |(_, name)| name).into(),
                peer,
                since_us: postgres.app.clock.now_us(),
            };
            let _ = shown.facts.set(facts);
            let showing = postgres.app.connections.show(&shown);
            let connection =
                Connection::new(Arc::clone(&postgres), Arc::clone(&slot), peer, reader, writer, user, settings);
            Box::pin(connection.serve(shown)).await;
            postgres.leave(&slot);
            drop(showing);
        }
        Err(failed) => refuse(Stop::Failed(failed), writer, peer).await,
    }
}

async fn refuse(stop: Stop, mut writer: Writer, peer: SocketAddr) {
    let Stop::Failed(failed) = stop else { return };
    tracing::debug!(%peer, reason = failed.message(), "PostgreSQL connection refused");
    writer.say(Say::ErrorResponse(failed.fatal().response()));
    let _ = tokio::time::timeout(STARTUP_TIME_MAX, writer.flush()).await;
}

enum Greeted {
    Startup { version: (u16, u16), parameters: BTreeMap<String, String> },
    Cancel { process: i32, secret: Vec<u8> },
}

/// Receives the first messages. There is no encryption here yet: a client that insists on it goes away.
async fn greet(reader: &mut Reader, writer: &mut Writer) -> Result<Greeted, Stop> {
    for _ in 0..=QUESTIONS_MAX {
        match reader.opening().await? {
            Opening::Startup { version, parameters } => return Ok(Greeted::Startup { version, parameters }),
            Opening::Cancel { process, secret } => return Ok(Greeted::Cancel { process, secret }),
            // What a client sends behind its question was not meant to be read before the answer.
            Opening::Ssl | Opening::Gss if reader.has_more() => {
                return Err(Failed::new("08P01", "data behind a request for encryption").into());
            }
            Opening::Ssl => writer.say(Say::SslResponse(SslResponse::Refuse)),
            Opening::Gss => writer.say(Say::GssEncResponse(GssEncResponse::Refuse)),
        }
        writer.flush().await?;
    }
    Err(Failed::new("08P01", "more requests for encryption than there are kinds of it").into())
}

/// Whether the client may come in, as whom, and with which parameters of its session.
fn admit(
    postgres: &Postgres,
    version: (u16, u16),
    parameters: &BTreeMap<String, String>,
) -> Result<(String, Settings), Failed> {
    if version.0 != 3 {
        let message = format!("unsupported frontend protocol {}.{}: server supports 3.0", version.0, version.1);
        return Err(Failed::new("08P01", message));
    }
    postgres.app.for_queries()?;
    let user = user(parameters)?;
    let mut settings = Settings::new(&user);
    for (name, value) in parameters {
        match name.as_str() {
            // There is one database. What begins with _pq_ is an extension of the protocol, and there are none.
            "user" | "database" | "replication" => {}
            name if name.starts_with("_pq_.") => {}
            "options" => options(value, &mut settings)?,
            name => drop(settings.set(name, value)?),
        }
    }
    if parameters.get("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0")) {
        return Err(Failed::new("0A000", "replication is not supported"));
    }
    settings.begin();
    Ok((user, settings))
}

/// Who a client is. Whoever reaches the listener is trusted, as on the other listeners; a password is to be asked for here.
fn user(parameters: &BTreeMap<String, String>) -> Result<String, Failed> {
    match parameters.get("user") {
        Some(user) if !user.is_empty() && user.len() <= 63 => Ok(user.clone()),
        _ => Err(Failed::new("28000", "no PostgreSQL user name specified in startup packet")),
    }
}

/// `-c name=value`, as often as wanted.
fn options(options: &str, settings: &mut Settings) -> Result<(), Failed> {
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") => words.next().unwrap_or_default(),
            Some(assignment) => assignment,
            None => word,
        };
        match assignment.split_once('=') {
            Some((name, value)) => drop(settings.set(&name.replace('-', "_"), value)?),
            None => return Err(Failed::new("42601", "options are written -c name=value")),
        }
    }
    Ok(())
}

fn welcome(
    writer: &mut Writer,
    version: (u16, u16),
    parameters: &BTreeMap<String, String>,
    settings: &Settings,
    process: i32,
    secret: &[u8; super::SECRET_BYTES],
) {
    let unknown: Vec<String> = parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if version.1 > 0 || !unknown.is_empty() {
        writer.say(Say::NegotiateProtocolVersion(NegotiateProtocolVersion::new(0, unknown)));
    }
    writer.say(Say::Authentication(Authentication::Ok));
    for (name, value) in settings.reported() {
        writer.say(Say::ParameterStatus(ParameterStatus::new(name.to_owned(), value.to_owned())));
    }
    let secret = SecretKey::I32(i32::from_be_bytes(*secret));
    writer.say(Say::BackendKeyData(BackendKeyData::new(process, secret)));
}
