//! The simple protocol: a text with one or more statements, answered as text.

use std::sync::Arc;

use query::{QueryResult, Rows};

use super::command::{self, Command};
use super::connection::Connection;
use super::running::{Running, Source, description};
use super::socket::Stop;

impl Connection {
    /// Runs the statements of `sql` one after the other, until one fails.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<(), Stop> {
        let statements = command::split(sql);
        if statements.is_empty() {
            self.session_command(&Command::Empty)?;
        }
        for (start, statement) in statements {
            match self.one(statement).await {
                Ok(()) => {}
                Err(Stop::Failed(failed)) if !failed.is_fatal() => {
                    self.fail(&failed.within(sql, start));
                    break;
                }
                Err(stop) => return Err(stop),
            }
        }
        self.ready().await
    }

    async fn one(&mut self, sql: &str) -> Result<(), Stop> {
        let command = self.command(sql)?;
        self.check_transaction(&command)?;
        match self.session_command(&command)? {
            Some(None) => return Ok(()),
            Some(Some(batch)) => {
                let source = Source::Session(Some(batch));
                return self.answer(source, "SHOW").await;
            }
            None => {}
        }
        if let Command::Copy(copy) = command {
            return self.copy(&copy).await;
        }
        match self.start(self.request(sql)).await? {
            QueryResult::Rows(rows) => self.answer(Source::Statement(Box::new(rows)), tag_of_rows(sql)).await,
            QueryResult::Done { statement, rows } => {
                self.note_write();
                self.complete(tag(statement, rows));
                Ok(())
            }
        }
    }

    /// Starts a statement.
    pub(super) async fn start(&mut self, request: query::QueryRequest) -> Result<QueryResult, Stop> {
        let engine = self.postgres.app.for_queries()?.engine;
        let (slot, settings, reader, _) = self.parts();
        let (_begun, mut guard) = Connection::begin(slot, settings, reader);
        guard.run(async { Ok(engine.execute(request).await?) }).await
    }

    /// The rows of a statement.
    pub(super) async fn start_rows(&mut self, request: query::QueryRequest) -> Result<Rows, Stop> {
        match self.start(request).await? {
            QueryResult::Rows(rows) => Ok(rows),
            QueryResult::Done { statement, .. } => {
                Err(super::error::Failed::new("0A000", format!("{statement} has no rows")).into())
            }
        }
    }

    /// Sends all rows, as text.
    async fn answer(&mut self, source: Source, tag: &'static str) -> Result<(), Stop> {
        let Some(columns) = source.schema() else { return Ok(()) };
        let mut running = Running::new(source, &columns, |_| false);
        let (slot, settings, reader, writer) = self.parts();
        let (begun, mut guard) = Connection::begin(slot, settings, reader);
        writer.say(description(&Arc::clone(&columns), |_| false));
        running.send(&mut guard, writer, None).await?;
        drop((guard, begun));
        let sent = running.sent;
        self.complete(if tag == "SELECT" { format!("SELECT {sent}") } else { tag.to_owned() });
        Ok(())
    }
}

/// How a statement with rows is called when it is done.
pub(super) fn tag_of_rows(sql: &str) -> &'static str {
    let first = sql.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty()).unwrap_or_default();
    match first.to_ascii_uppercase().as_str() {
        "EXPLAIN" => "EXPLAIN",
        "SHOW" => "SHOW",
        _ => "SELECT",
    }
}

/// How a statement without rows is called when it is done.
pub(super) fn tag(statement: &str, rows: Option<u64>) -> String {
    match statement {
        "INSERT" => format!("INSERT 0 {}", rows.unwrap_or(0)),
        "DELETE" | "UPDATE" => format!("{statement} {}", rows.unwrap_or(0)),
        other => other.to_owned(),
    }
}
