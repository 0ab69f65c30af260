//! The extended protocol: prepared statements, parameters, portals that are read in portions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pgwire::messages::PgWireBackendMessage as Say;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use query::{QueryResult, ScalarValue};

use super::command::{self, Command};
use super::connection::{Connection, session_columns};
use super::decode;
use super::error::{Failed, protocol};
use super::read::{Bind, Target};
use super::running::{Running, Source, description};
use super::simple::{tag, tag_of_rows};
use super::socket::Stop;
use super::types;

/// Prepared statements and portals that a session may have at a time.
const KEPT_MAX: usize = 4_096;

/// Portals of a session that may be in the middle of their rows: each holds one of `[query] concurrent_max`.
const SUSPENDED_MAX: usize = 4;

/// A prepared statement.
pub(super) struct Prepared {
    sql: String,
    command: Command,
    /// The OIDs of its parameters' types.
    parameters: Vec<u32>,
    /// The columns of its rows; `None` if it answers none.
    columns: Option<SchemaRef>,
}

/// A statement with its parameters, perhaps in the middle of its rows.
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    values: Vec<ScalarValue>,
    formats: Vec<i16>,
    state: State,
}

enum State {
    New,
    Running(Box<Running>),
    Done,
}

/// Whether value `index` is binary: formats come for none, for all, or one by one.
fn is_binary(formats: &[i16], index: usize) -> bool {
    match formats {
        [] => false,
        [all] => *all == 1,
        each => each.get(index) == Some(&1),
    }
}

impl Connection {
    pub(super) async fn parse(&mut self, name: String, sql: String, types: &[u32]) -> Result<(), Stop> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Failed::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        if self.statements.len() >= KEPT_MAX {
            return Err(Failed::new("53000", format!("a session has at most {KEPT_MAX} prepared statements")).into());
        }
        let statements = command::split(&sql);
        let (start, statement) = match statements.as_slice() {
            [] => (0, ""),
            [one] => *one,
            _ => return Err(Failed::new("42601", "cannot insert multiple commands into a prepared statement").into()),
        };
        let command = self.command(statement)?;
        self.check_transaction(&command)?;
        let mut prepared = Prepared { sql: statement.to_owned(), command, parameters: types.to_vec(), columns: None };
        if prepared.command == Command::Query {
            let unknown = |oid: u32| Failed::new("0A000", format!("parameters with the OID {oid} are not supported"));
            let nulls: Vec<_> =
                types.iter().map(|oid| types::null_of(*oid).ok_or_else(|| unknown(*oid))).collect::<Result<_, _>>()?;
            let request = query::QueryRequest { parameters: nulls.clone(), ..self.request(statement) };
            let engine = self.postgres.app.for_queries()?.engine;
            let (slot, settings, reader, _) = self.parts();
            let (begun, mut guard) = Connection::begin(slot, settings, reader);
            let described = guard.run(async { Ok(engine.describe(request).await) }).await?;
            drop((guard, begun));
            let described = described.map_err(|error| Failed::from(error).within(&sql, start))?;
            let given = |index: usize| match nulls.get(index) {
                Some(null) if *null != ScalarValue::Null => Some(types[index]),
                _ => None,
            };
            let oid = |(index, data_type)| given(index).unwrap_or_else(|| types::of_parameter(data_type).oid());
            prepared.parameters = described.parameters.iter().enumerate().map(oid).collect();
            prepared.columns = described.columns;
        } else {
            prepared.columns = session_columns(&prepared.command).map(|names| {
                let fields: Vec<_> = names.into_iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
                Arc::new(Schema::new(fields))
            });
        }
        self.statements.insert(name, Arc::new(prepared));
        self.writer.say(Say::ParseComplete(ParseComplete::new()));
        Ok(())
    }

    pub(super) fn bind(&mut self, bind: Bind) -> Result<(), Stop> {
        let prepared = Arc::clone(self.prepared(&bind.statement)?);
        self.check_transaction(&prepared.command)?;
        let (given, needed) = (bind.parameters.len(), prepared.parameters.len());
        if given != needed {
            let message = format!("bind message supplies {given} parameters, but the statement requires {needed}");
            return Err(Failed::new("08P01", message).into());
        }
        for (formats, count) in [(&bind.parameter_formats, given), (&bind.result_formats, usize::MAX)] {
            let is_known = formats.iter().all(|format| matches!(format, 0 | 1));
            if !is_known || (formats.len() > 1 && count != usize::MAX && formats.len() != count) {
                return Err(protocol("formats that fit no value").into());
            }
        }
        if self.portals.len() >= KEPT_MAX {
            return Err(Failed::new("53000", format!("a session has at most {KEPT_MAX} portals")).into());
        }
        let value = |(index, (oid, bytes)): (usize, (&u32, &Option<bytes::Bytes>))| {
            let value = decode::value(*oid, is_binary(&bind.parameter_formats, index), bytes.as_ref());
            value.map_err(|failed| failed.detail(format!("parameter ${}", index + 1)))
        };
        let values =
            prepared.parameters.iter().zip(&bind.parameters).enumerate().map(value).collect::<Result<_, _>>()?;
        let portal = Portal { prepared, values, formats: bind.result_formats, state: State::New };
        // The one without a name makes way for the next.
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(Failed::new("42P03", format!("portal \"{}\" already exists", bind.portal)).into());
        }
        self.portals.insert(bind.portal, portal);
        self.writer.say(Say::BindComplete(BindComplete::new()));
        Ok(())
    }

    fn prepared(&self, name: &str) -> Result<&Arc<Prepared>, Failed> {
        self.statements
            .get(name)
            .ok_or_else(|| Failed::new("26000", format!("prepared statement \"{name}\" does not exist")))
    }

    pub(super) fn describe(&mut self, target: &Target) -> Result<(), Stop> {
        let (prepared, formats) = match target {
            Target::Statement(name) => {
                let prepared = Arc::clone(self.prepared(name)?);
                let types = ParameterDescription::new(prepared.parameters.clone());
                self.writer.say(Say::ParameterDescription(types));
                (prepared, Vec::new())
            }
            Target::Portal(name) => match self.portals.get(name) {
                Some(portal) => (Arc::clone(&portal.prepared), portal.formats.clone()),
                None => return Err(Failed::new("34000", format!("portal \"{name}\" does not exist")).into()),
            },
        };
        match &prepared.columns {
            Some(columns) => self.writer.say(description(columns, |index| is_binary(&formats, index))),
            None => self.writer.say(Say::NoData(NoData::new())),
        }
        Ok(())
    }

    pub(super) fn close(&mut self, target: &Target) {
        match target {
            Target::Statement(name) => drop(self.statements.remove(name)),
            Target::Portal(name) => drop(self.portals.remove(name)),
        }
        self.writer.say(Say::CloseComplete(CloseComplete::new()));
    }

    pub(super) async fn execute(&mut self, name: &str, rows_max: u32) -> Result<(), Stop> {
        // Out of the way while it runs; what fails does not come back.
        let Some(mut portal) = self.portals.remove(name) else {
            return Err(Failed::new("34000", format!("portal \"{name}\" does not exist")).into());
        };
        let prepared = Arc::clone(&portal.prepared);
        self.check_transaction(&prepared.command)?;
        let tag = match portal.state {
            State::New => {
                if let Command::Copy(copy) = &prepared.command {
                    return self.copy(copy).await;
                }
                let source = match self.session_command(&prepared.command)? {
                    Some(None) => {
                        self.portals.insert(name.to_owned(), Portal { state: State::Done, ..portal });
                        return Ok(());
                    }
                    Some(Some(batch)) => Source::Session(Some(batch)),
                    None => {
                        let request = query::QueryRequest {
                            parameters: portal.values.clone(),
                            ..self.request(prepared.sql.clone())
                        };
                        match self.start(request).await? {
                            QueryResult::Rows(rows) => Source::Statement(Box::new(rows)),
                            QueryResult::Done { statement, rows } => {
                                self.note_write();
                                self.complete(tag(statement, rows));
                                self.portals.insert(name.to_owned(), Portal { state: State::Done, ..portal });
                                return Ok(());
                            }
                        }
                    }
                };
                let columns = prepared.columns.clone().or_else(|| source.schema());
                let columns = columns.unwrap_or_else(|| Arc::new(Schema::empty()));
                let formats = portal.formats.clone();
                let running = Running::new(source, &columns, |index| is_binary(&formats, index));
                portal.state = State::Running(Box::new(running));
                tag_of_rows(&prepared.sql)
            }
            State::Running(_) => tag_of_rows(&prepared.sql),
            State::Done => {
                // As a statement that had all its rows taken before.
                self.complete("SELECT 0");
                self.portals.insert(name.to_owned(), portal);
                return Ok(());
            }
        };
        if let State::Running(running) = &mut portal.state {
            let before = running.sent;
            let limit = (rows_max > 0).then(|| u64::from(rows_max));
            let (slot, settings, reader, writer) = self.parts();
            let (begun, mut guard) = Connection::begin(slot, settings, reader);
            let done = running.send(&mut guard, writer, limit).await?;
            drop((guard, begun));
            let sent = running.sent - before;
            match done {
                true => {
                    portal.state = State::Done;
                    self.complete(if tag == "SELECT" { format!("SELECT {sent}") } else { tag.to_owned() });
                }
                false => {
                    let suspended = |portal: &&Portal| matches!(portal.state, State::Running(_));
                    if self.portals.values().filter(suspended).count() >= SUSPENDED_MAX {
                        let message = format!("a session reads at most {SUSPENDED_MAX} portals at a time in portions");
                        return Err(Failed::new("53000", message).hint("read one to its end, or close it").into());
                    }
                    self.writer.say(Say::PortalSuspended(PortalSuspended::new()));
                }
            }
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }
}
