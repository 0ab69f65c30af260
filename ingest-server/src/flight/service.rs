//! Flight SQL's commands.
//!
//! A ticket holds the statement itself, so that whoever has it may fetch from any server that has the data.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use query::{Access, Origin, QueryError, QueryRequest, QueryResult, ScalarValue};
use serde::{Deserialize, Serialize};
use storage::Storage;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::error::{in_stream, internal, malformed, status, unavailable};
use super::prepared::{Prepared, PreparedStatements};
use super::{catalog, plain};
use crate::app::App;

/// Characters of what a client calls itself that are kept.
const APPLICATION_CHARS_MAX: usize = 100;

/// Values that a client may bind to one statement, in rows.
const BOUND_ROWS_MAX: usize = 100_000;

/// The rows of an answer.
pub(super) type RowStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// What a ticket of ours holds. Without SQL, nothing is left to do or to fetch.
#[derive(Debug, Serialize, Deserialize)]
struct Statement {
    sql: String,
    database: Option<String>,
}

/// See the module.
pub(super) struct Flight {
    app: Arc<App>,
    prepared: PreparedStatements,
}

impl Flight {
    pub(super) fn new(app: Arc<App>) -> Self {
        Flight { app, prepared: PreparedStatements::default() }
    }

    fn now(&self) -> Duration {
        self.app.clock.monotonic()
    }

    fn storage(&self) -> Result<Arc<Storage>, Status> {
        Ok(self.app.for_queries().map_err(|reason| unavailable(&reason))?.storage)
    }

    fn prepared(&self, handle: &[u8]) -> Result<Prepared, Status> {
        let found = std::str::from_utf8(handle).ok().and_then(|handle| self.prepared.get(handle, self.now()));
        found.ok_or_else(|| Status::not_found("the statement is not prepared any more; prepare it again"))
    }

    /// Runs a statement; what it answers.
    async fn run(&self, request: QueryRequest) -> Result<QueryResult, Status> {
        let engine = self.app.for_queries().map_err(|reason| unavailable(&reason))?.engine;
        engine.execute(request).await.map_err(|error| status(&error))
    }

    /// Runs a statement; its rows, none if it has none.
    pub(super) async fn rows_of(
        &self,
        sql: String,
        database: Option<String>,
        origin: Origin,
    ) -> Result<Response<RowStream>, Status> {
        self.rows(request(sql, database, origin)).await
    }

    async fn rows(&self, request: QueryRequest) -> Result<Response<RowStream>, Status> {
        let QueryResult::Rows(rows) = self.run(request).await? else {
            return Ok(one_batch(RecordBatch::new_empty(Arc::new(Schema::empty()))));
        };
        let schema = plain::schema(&rows.schema);
        let to = Arc::clone(&schema);
        let batches = rows.map(move |batch| match batch {
            Ok(batch) => plain::batch(&batch, &to).map_err(FlightError::Arrow),
            Err(error) => Err(in_stream(&error)),
        });
        let data = FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(Status::from);
        Ok(Response::new(Box::pin(data)))
    }

    /// The columns of a statement's rows, as they will be sent, none if it has no rows; and the types of its parameters.
    async fn describe(&self, request: QueryRequest) -> Result<(Option<SchemaRef>, Schema), Status> {
        let engine = self.app.for_queries().map_err(|reason| unavailable(&reason))?.engine;
        let described = engine.describe(request).await.map_err(|error| status(&error))?;
        let columns = described.columns.map(|columns| plain::schema(&columns));
        let parameter = |(number, of_type): (usize, &DataType)| Field::new(format!("${number}"), of_type.clone(), true);
        let parameters: Vec<Field> = (1..).zip(&described.parameters).map(parameter).collect();
        Ok((columns, Schema::clone(&plain::schema(&Schema::new(parameters)))))
    }

    /// Runs a statement for each row of values; the number of rows it changed in all.
    async fn update(&self, base: QueryRequest, rows: Vec<Vec<ScalarValue>>) -> Result<i64, Status> {
        if rows.len() > 1 {
            // An INSERT of one row of values takes them all at once, with one sync.
            let engine = self.app.for_queries().map_err(|reason| unavailable(&reason))?.engine;
            match engine.execute(QueryRequest { rows: rows.clone(), ..base.clone() }).await {
                Ok(QueryResult::Done { rows, .. }) => return Ok(rows.map_or(0, |rows| rows as i64)),
                // Other statements run once for each.
                Ok(QueryResult::Rows(_)) | Err(QueryError::Unsupported(_)) => {}
                Err(error) => return Err(status(&error)),
            }
        }
        let rows = if rows.is_empty() { vec![Vec::new()] } else { rows };
        let mut changed = 0;
        for parameters in rows {
            match self.run(QueryRequest { parameters, ..base.clone() }).await? {
                QueryResult::Done { rows, .. } => changed += rows.map_or(0, |rows| rows as i64),
                QueryResult::Rows(rows) => {
                    // A query as an update: its rows are what it gives.
                    let batches: Vec<RecordBatch> = rows.try_collect().await.map_err(|error| status(&error))?;
                    changed += batches.iter().map(|batch| batch.num_rows() as i64).sum::<i64>();
                }
            }
        }
        Ok(changed)
    }
}

fn request(sql: String, database: Option<String>, origin: Origin) -> QueryRequest {
    QueryRequest { default_schema: database, access: Access::Change, origin, ..QueryRequest::new(sql) }
}

/// Whom a call comes from.
pub(super) fn origin<T>(call: &Request<T>) -> Origin {
    let peer = call.remote_addr().map_or_else(String::new, |peer| peer.to_string());
    let application = call.metadata().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let application = application.chars().take(APPLICATION_CHARS_MAX).collect();
    Origin { protocol: "flight", peer, user: String::new(), application }
}

/// The schema that a call is for, as clients of InfluxDB 3 and Grafana name it.
fn database(metadata: &MetadataMap) -> Option<String> {
    let named = ["database", "bucket-name", "iox-namespace-name"].iter().find_map(|key| metadata.get(*key));
    named.and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// What a client needs to fetch: where (here), by which ticket, and the columns.
fn info(schema: &Schema, ticket: Vec<u8>, descriptor: FlightDescriptor) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new().try_with_schema(schema).map_err(internal)?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

/// As [`info`], of a command that is its own ticket.
fn info_of<T: ProstMessageExt>(
    command: &T,
    schema: &Schema,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    info(schema, command.as_any().encode_to_vec(), request.into_inner())
}

fn ticket(statement: &Statement) -> Result<Vec<u8>, Status> {
    let statement_handle = serde_json::to_vec(statement).map_err(internal)?.into();
    Ok(TicketStatementQuery { statement_handle }.as_any().encode_to_vec())
}

/// What a client gets of a statement that has no rows, and was carried out.
fn done(request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
    info(&Schema::empty(), ticket(&Statement { sql: String::new(), database: None })?, request.into_inner())
}

fn one_batch(batch: RecordBatch) -> Response<RowStream> {
    let builder = FlightDataEncoderBuilder::new().with_schema(batch.schema());
    let data = builder.build(stream::iter([Ok(batch)])).map_err(Status::from);
    Response::new(Box::pin(data))
}

fn ipc(schema: &Schema) -> Result<Bytes, Status> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into().map_err(internal)?;
    Ok(bytes)
}

/// The rows of values that a client sends for parameters.
async fn bound(data: PeekableFlightDataStream) -> Result<Vec<Vec<ScalarValue>>, Status> {
    let data = data.map_err(|status| FlightError::Tonic(Box::new(status)));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
    let mut rows = Vec::new();
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(malformed)?;
        if rows.len() + batch.num_rows() > BOUND_ROWS_MAX {
            return Err(Status::invalid_argument(format!("at most {BOUND_ROWS_MAX} rows of values are taken at once")));
        }
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row));
            rows.push(values.collect::<Result<Vec<_>, _>>().map_err(malformed)?);
        }
    }
    Ok(rows)
}

#[async_trait]
impl FlightSqlService for Flight {
    type FlightService = Flight;

    async fn do_handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        // There are no users yet: whoever reaches the port is let in, by whatever name.
        let welcome = HandshakeResponse { protocol_version: 0, payload: Bytes::new() };
        Ok(Response::new(Box::pin(stream::iter([Ok(welcome)]))))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = Statement { sql: query.query, database: database(request.metadata()) };
        let base = self::request(statement.sql.clone(), statement.database.clone(), origin(&request));
        match self.describe(base.clone()).await? {
            (Some(columns), _) => info(&columns, ticket(&statement)?, request.into_inner()),
            (None, _) => {
                self.update(base, Vec::new()).await?;
                done(request)
            }
        }
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<RowStream>, Status> {
        let Statement { sql, database } = serde_json::from_slice(&ticket.statement_handle).map_err(malformed)?;
        if sql.is_empty() {
            return Ok(one_batch(RecordBatch::new_empty(Arc::new(Schema::empty()))));
        }
        self.rows_of(sql, database, origin(&request)).await
    }

    async fn do_put_statement_update(
        &self,
        update: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let base = self::request(update.query, database(request.metadata()), origin(&request));
        self.update(base, Vec::new()).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let base = self::request(query.query.clone(), database(request.metadata()), origin(&request));
        let (columns, parameters) = self.describe(base).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: self.prepared.add(query.query, self.now()).into(),
            dataset_schema: columns.map_or_else(|| Ok(Bytes::new()), |columns| ipc(&columns))?,
            parameter_schema: ipc(&parameters)?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        self.prepared.close(&String::from_utf8_lossy(&query.prepared_statement_handle));
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let rows = bound(request.into_inner()).await?;
        let handle = query.prepared_statement_handle;
        if !self.prepared.bind(&String::from_utf8_lossy(&handle), rows, self.now()) {
            return Err(Status::not_found("the statement is not prepared any more; prepare it again"));
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let Prepared { sql, rows } = self.prepared(&query.prepared_statement_handle)?;
        let base = self::request(sql, database(request.metadata()), origin(&request));
        let sent = bound(request.into_inner()).await?;
        let rows = if sent.is_empty() { rows } else { sent };
        self.update(base, rows).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let Prepared { sql, rows } = self.prepared(&query.prepared_statement_handle)?;
        let base = self::request(sql, database(request.metadata()), origin(&request));
        let parameters = rows.first().cloned().unwrap_or_default();
        match self.describe(QueryRequest { parameters, ..base.clone() }).await? {
            (Some(columns), _) => info_of(&query, &columns, request),
            (None, _) => {
                self.update(base, rows).await?;
                done(request)
            }
        }
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<RowStream>, Status> {
        let Prepared { sql, rows } = self.prepared(&query.prepared_statement_handle)?;
        let mut rows = rows.into_iter();
        let parameters = rows.next().unwrap_or_default();
        if rows.next().is_some() {
            return Err(Status::invalid_argument("a query takes one row of values; several are for INSERT"));
        }
        let base = self::request(sql, database(request.metadata()), origin(&request));
        self.rows(QueryRequest { parameters, ..base }).await
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query, &query.into_builder().schema(), request)
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _request: Request<Ticket>,
    ) -> Result<Response<RowStream>, Status> {
        catalog::catalogs(query).map(one_batch)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query, &query.clone().into_builder().schema(), request)
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _request: Request<Ticket>,
    ) -> Result<Response<RowStream>, Status> {
        catalog::schemas(query, &*self.storage()?).map(one_batch)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query, &query.clone().into_builder().schema(), request)
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        _request: Request<Ticket>,
    ) -> Result<Response<RowStream>, Status> {
        catalog::all_tables(query, &*self.storage()?).map(one_batch)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query, &query.into_builder().schema(), request)
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> Result<Response<RowStream>, Status> {
        catalog::table_types(query).map(one_batch)
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query, &catalog::SERVER.schema(), request)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _request: Request<Ticket>,
    ) -> Result<Response<RowStream>, Status> {
        query.into_builder(&catalog::SERVER).build().map(one_batch).map_err(internal)
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
