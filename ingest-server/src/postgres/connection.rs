//! A session from its first message to its last.
//!
//! Owns:     what a session has: parameters, transaction, prepared statements, portals; which message does what.
//! Does not: run statements (`simple`, `extended`, `copy_in`, `copy_out`).
//!
//! Invariants
//!  1. One statement at a time; while it runs the client is watched, and when it goes away the statement ends.
//!  2. After an error in the extended protocol nothing is done until Sync.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use pgwire::messages::PgWireBackendMessage as Say;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;
use query::{Access, Origin, QueryRequest};
use tokio::time::Instant;

use super::command::Command;
use super::error::{Failed, protocol, warning};
use super::extended::{Portal, Prepared};
use super::read::Message;
use super::settings::Settings;
use super::socket::{Guard, Reader, Stop, Writer};
use super::{Begun, Postgres, Slot};
use crate::connections::Shown;

/// How long the last message may take to leave.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Where a session is in a transaction. Nothing depends on it but what the client is told: each statement has its own
/// view, and what it writes is durable when it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transaction {
    open: bool,
    failed: bool,
    /// Whether something was written in it.
    wrote: bool,
    /// Whether it only reads, if it said.
    read_only: Option<bool>,
}

pub(super) struct Connection {
    pub(super) postgres: Arc<Postgres>,
    slot: Arc<Slot>,
    peer: SocketAddr,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) user: String,
    settings: Settings,
    transaction: Transaction,
    /// What `SET LOCAL` changed, with what it was.
    local: Vec<(&'static str, String)>,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    /// An error happened, and Sync has not come yet.
    skips: bool,
}

impl Connection {
    pub(super) fn new(
        postgres: Arc<Postgres>,
        slot: Arc<Slot>,
        peer: SocketAddr,
        reader: Reader,
        writer: Writer,
        user: String,
        settings: Settings,
    ) -> Self {
        Connection {
            postgres,
            slot,
            peer,
            reader,
            writer,
            user,
            settings,
            transaction: Transaction::default(),
            local: Vec::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            skips: false,
        }
    }

    /// Serves the client until it goes.
    pub(super) async fn serve(mut self, shown: Arc<Shown>) {
        let stop = self.postgres.stop.clone();
        let bytes_max = usize::try_from(self.postgres.app.config.postgres.max_message_bytes.0).unwrap_or(usize::MAX);
        let mut outcome = self.ready().await;
        while outcome.is_ok() {
            let message = tokio::select! {
                message = self.reader.message(bytes_max) => message,
                () = stop.cancelled() => {
                    Err(Failed::new("57P01", "terminating connection: the server is stopping").fatal().into())
                }
            };
            outcome = match message {
                Ok(Message::Terminate) => return,
                Ok(message) => {
                    shown.messages.fetch_add(1, Ordering::Relaxed);
                    shown.in_flight.store(1, Ordering::Relaxed);
                    let outcome = self.handle(message).await;
                    shown.in_flight.store(0, Ordering::Relaxed);
                    outcome
                }
                Err(stop) => Err(stop),
            };
        }
        if let Err(Stop::Failed(failed)) = outcome {
            self.writer.say(Say::ErrorResponse(failed.response()));
            let _ = tokio::time::timeout(FAREWELL_TIME_MAX, self.writer.flush()).await;
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Stop> {
        if self.skips && message != Message::Sync {
            return Ok(());
        }
        let outcome = match message {
            Message::Query(sql) => return self.simple(&sql).await,
            Message::Sync => {
                self.skips = false;
                if !self.transaction.open {
                    self.portals.clear();
                }
                return self.ready().await;
            }
            Message::Flush => self.writer.flush().await,
            Message::Parse { name, sql, types } => self.parse(name, sql, &types).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe(target) => self.describe(&target),
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Message::Close(target) => {
                self.close(&target);
                Ok(())
            }
            // What was still on its way when a copy failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => Ok(()),
            Message::Password(_) | Message::Terminate => {
                Err(protocol("a message that nobody waits for").fatal().into())
            }
        };
        match outcome {
            Ok(()) => self.writer.flush_if_full().await,
            Err(Stop::Failed(failed)) if !failed.is_fatal() => {
                self.skips = true;
                self.fail(&failed);
                // Whoever sent Flush and not yet Sync waits for it.
                self.writer.flush().await
            }
            Err(stop) => Err(stop),
        }
    }

    /// Tells the client what failed.
    pub(super) fn fail(&mut self, failed: &Failed) {
        self.writer.say(Say::ErrorResponse(failed.response()));
        self.transaction.failed = self.transaction.open;
    }

    /// Tells the client that it is its turn.
    pub(super) async fn ready(&mut self) -> Result<(), Stop> {
        let status = match self.transaction {
            Transaction { open: false, .. } => TransactionStatus::Idle,
            Transaction { failed: true, .. } => TransactionStatus::Error,
            Transaction { .. } => TransactionStatus::Transaction,
        };
        self.writer.say(Say::ReadyForQuery(ReadyForQuery::new(status)));
        self.writer.flush().await
    }

    /// Says that a statement is done.
    pub(super) fn complete(&mut self, tag: impl Into<String>) {
        self.writer.say(Say::CommandComplete(CommandComplete::new(tag.into())));
    }

    /// Understands a statement.
    pub(super) fn command(&self, sql: &str) -> Result<Command, Failed> {
        Command::parse(sql, Settings::exists)
    }

    /// Refuses what may not be done in a failed transaction.
    pub(super) fn check_transaction(&self, command: &Command) -> Result<(), Failed> {
        let ends = matches!(command, Command::Commit | Command::Rollback | Command::Savepoint("ROLLBACK"));
        if self.transaction.failed && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Failed::new("25P02", message));
        }
        Ok(())
    }

    /// The request for a statement of this session.
    pub(super) fn request(&self, sql: impl Into<String>) -> QueryRequest {
        let access = if self.is_read_only() { Access::Read } else { Access::Change };
        let session = query::ClientSession {
            manner: query::Manner::PostgreSql,
            user: self.user.clone(),
            process: self.slot.process,
            settings: self.settings.all().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        let application =
            self.settings.show("application_name").map_or_else(|_| String::new(), |(_, name)| name.to_owned());
        let origin = Origin { protocol: "postgres", peer: self.peer.to_string(), user: self.user.clone(), application };
        QueryRequest {
            origin,
            default_schema: Some(self.settings.schema()),
            access,
            session: Some(Arc::new(session)),
            ..QueryRequest::new(sql)
        }
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.transaction.read_only.unwrap_or(self.settings.is_read_only())
    }

    /// Begins a statement: what may end it, and where its answer goes.
    pub(super) fn begin<'a>(slot: &'a Slot, settings: &Settings, reader: &'a mut Reader) -> (Begun<'a>, Guard<'a>) {
        let begun = slot.begin();
        let deadline = settings.statement_timeout().map(|timeout| Instant::now() + timeout);
        let guard = Guard { reader, cancel: begun.cancel.clone(), deadline };
        (begun, guard)
    }

    /// The parts that a running statement needs, apart from each other.
    pub(super) fn parts(&mut self) -> (&Slot, &Settings, &mut Reader, &mut Writer) {
        (&self.slot, &self.settings, &mut self.reader, &mut self.writer)
    }

    /// Notes that something was written.
    pub(super) fn note_write(&mut self) {
        self.transaction.wrote = self.transaction.open;
    }

    fn tell(&mut self, changed: Option<(&'static str, String)>) {
        if let Some((name, value)) = changed {
            self.writer.say(Say::ParameterStatus(ParameterStatus::new(name.to_owned(), value)));
        }
    }

    fn warn(&mut self, code: &str, message: &str) {
        if self.settings.wants_warnings() {
            self.writer.say(Say::NoticeResponse(warning(code, message)));
        }
    }

    /// Carries out a statement of the session; gives rows if it answers any. `None` for one that is not of the session.
    pub(super) fn session_command(&mut self, command: &Command) -> Result<Option<Option<RecordBatch>>, Failed> {
        match command {
            Command::Empty => self.writer.say(Say::EmptyQueryResponse(EmptyQueryResponse::new())),
            Command::Query | Command::Copy(_) => return Ok(None),
            Command::Show(name) => {
                let (name, value) = self.settings.show(name)?;
                return Ok(Some(Some(texts(&[name], &[vec![value.to_owned()]])?)));
            }
            Command::ShowAll => {
                let (names, values) =
                    self.settings.all().map(|(name, value)| (name.to_owned(), value.to_owned())).unzip();
                return Ok(Some(Some(texts(&["name", "setting"], &[names, values])?)));
            }
            Command::Set { name, value, local } => {
                if *local {
                    if self.transaction.open {
                        let (name, before) = self.settings.show(name)?;
                        self.local.push((name, before.to_owned()));
                    } else {
                        self.settings.show(name)?;
                        self.warn("25P01", "SET LOCAL can only be used in transaction blocks");
                        self.complete("SET");
                        return Ok(Some(None));
                    }
                }
                let changed = match value {
                    Some(value) => self.settings.set(name, value)?,
                    None => self.settings.reset(name)?,
                };
                let wanted = value.as_deref().filter(|_| name.eq_ignore_ascii_case("timezone"));
                if wanted
                    .is_some_and(|wanted| !["utc", "gmt", "etc/utc"].contains(&wanted.to_ascii_lowercase().as_str()))
                {
                    self.warn("01000", "times are always shown in UTC, with their offset");
                }
                self.tell(changed);
                self.complete("SET");
            }
            Command::Characteristics { session, read_only } => {
                if let Some(read_only) = read_only {
                    match session {
                        true => {
                            let value = if *read_only { "on" } else { "off" };
                            let changed = self.settings.set("default_transaction_read_only", value)?;
                            self.tell(changed);
                        }
                        false if self.transaction.open => self.transaction.read_only = Some(*read_only),
                        false => self.warn("25P01", "SET TRANSACTION can only be used in transaction blocks"),
                    }
                }
                self.complete("SET");
            }
            Command::Reset(name) => {
                match name {
                    Some(name) => {
                        let changed = self.settings.reset(name)?;
                        self.tell(changed);
                    }
                    None => self.reset_all(),
                }
                self.complete("RESET");
            }
            Command::Begin { read_only } => {
                if self.transaction.open {
                    self.warn("25001", "there is already a transaction in progress");
                } else {
                    self.transaction = Transaction { open: true, read_only: *read_only, ..Transaction::default() };
                }
                self.complete("BEGIN");
            }
            Command::Commit | Command::Rollback => {
                let Transaction { open, failed, wrote, .. } = self.transaction;
                let is_rollback = *command == Command::Rollback || failed;
                if !open {
                    self.warn("25P01", "there is no transaction in progress");
                } else if is_rollback && wrote {
                    self.warn("01000", "what was written in this transaction stays: there is no rollback");
                }
                for (name, before) in std::mem::take(&mut self.local).into_iter().rev() {
                    let changed = self.settings.set(name, &before)?;
                    self.tell(changed);
                }
                self.transaction = Transaction::default();
                self.portals.clear();
                self.complete(if is_rollback { "ROLLBACK" } else { "COMMIT" });
            }
            Command::Savepoint(tag) => {
                if !self.transaction.open {
                    return Err(Failed::new("25P01", format!("{tag} can only be used in transaction blocks")));
                }
                if *tag == "ROLLBACK" {
                    self.transaction.failed = false;
                    if self.transaction.wrote {
                        self.warn("01000", "what was written since the savepoint stays: there is no rollback");
                    }
                }
                self.complete(*tag);
            }
            Command::Deallocate(name) => {
                match name {
                    Some(name) => {
                        if self.statements.remove(name).is_none() {
                            return Err(Failed::new("26000", format!("prepared statement \"{name}\" does not exist")));
                        }
                    }
                    None => self.statements.clear(),
                }
                self.complete(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" });
            }
            Command::DiscardAll => {
                self.statements.clear();
                self.portals.clear();
                self.reset_all();
                self.complete("DISCARD ALL");
            }
            Command::Nothing(tag) => self.complete(*tag),
        }
        Ok(Some(None))
    }

    fn reset_all(&mut self) {
        for changed in self.settings.reset_all() {
            self.tell(Some(changed));
        }
    }
}

/// Rows of texts, given by column.
fn texts(names: &[&str], columns: &[Vec<String>]) -> Result<RecordBatch, Failed> {
    let fields: Vec<_> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    let columns = columns.iter().map(|column| Arc::new(StringArray::from(column.clone())) as ArrayRef).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Failed::new("XX000", error.to_string()))
}

/// The columns of what the session answers itself.
pub(super) fn session_columns(command: &Command) -> Option<Vec<String>> {
    match command {
        Command::Show(name) => Some(vec![name.clone()]),
        Command::ShowAll => Some(vec!["name".to_owned(), "setting".to_owned()]),
        _ => None,
    }
}
