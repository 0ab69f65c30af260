//! The service as gRPC sees it.
//!
//! Owns:     tickets in JSON, which InfluxDB 3's own clients make themselves instead of asking for one:
//!           `{"database":"db","sql_query":"SELECT 1","query_type":"sql"}`.
//! Does not: answer anything else: `service` does, by the crate's reading of Flight SQL.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo, SchemaResult, Ticket,
};
use serde::Deserialize;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::error::malformed;
use super::service::{Flight, RowStream, origin};

/// A ticket that a client of InfluxDB 3 made.
#[derive(Debug, Deserialize)]
struct InfluxTicket {
    #[serde(default)]
    database: String,
    sql_query: String,
    #[serde(default)]
    query_type: String,
}

/// See the module.
pub(super) struct Front(Flight);

impl Front {
    pub(super) fn new(flight: Flight) -> Self {
        Front(flight)
    }
}

#[async_trait]
impl FlightService for Front {
    type HandshakeStream = <Flight as FlightService>::HandshakeStream;
    type ListFlightsStream = <Flight as FlightService>::ListFlightsStream;
    type DoGetStream = RowStream;
    type DoPutStream = <Flight as FlightService>::DoPutStream;
    type DoActionStream = <Flight as FlightService>::DoActionStream;
    type ListActionsStream = <Flight as FlightService>::ListActionsStream;
    type DoExchangeStream = <Flight as FlightService>::DoExchangeStream;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<RowStream>, Status> {
        let origin = origin(&request);
        let ticket = &request.get_ref().ticket;
        // Protocol Buffers' messages never begin so.
        if !ticket.starts_with(b"{") {
            return FlightService::do_get(&self.0, request).await;
        }
        let ticket: InfluxTicket = serde_json::from_slice(ticket).map_err(malformed)?;
        if !matches!(&*ticket.query_type, "" | "sql") {
            let said: String = ticket.query_type.chars().take(20).collect();
            return Err(Status::unimplemented(format!("queries of type {said:?} are not supported; send SQL")));
        }
        self.0.rows_of(ticket.sql_query, Some(ticket.database), origin).await
    }

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        FlightService::handshake(&self.0, request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        FlightService::list_flights(&self.0, request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        FlightService::get_flight_info(&self.0, request).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        FlightService::poll_flight_info(&self.0, request).await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        FlightService::get_schema(&self.0, request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        FlightService::do_put(&self.0, request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        FlightService::do_action(&self.0, request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        FlightService::list_actions(&self.0, request).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        FlightService::do_exchange(&self.0, request).await
    }
}
