//! What a failed query answers: CrateDB's codes and HTTP's statuses.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use query::QueryError;
use serde_json::{Value, json};
use storage::StorageError;

use super::answer::{self, STARTING_RETRY};
use crate::app::Unavailable;

/// A query's failure as clients of CrateDB know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// CrateDB's number.
    pub code: u16,
    /// The status that belongs to it.
    pub status: StatusCode,
    /// For people.
    pub message: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    kind: &'static str,
}

impl SqlError {
    fn new(kind: &'static str, code: u16, status: StatusCode, message: impl Into<String>) -> Self {
        SqlError { code, status, message: message.into(), retry_after: None, kind }
    }

    /// The request itself is not understood.
    pub fn request(message: impl Into<String>) -> Self {
        SqlError::new("SQLParseException", 4000, StatusCode::BAD_REQUEST, message)
    }

    /// Understood, but not to be had.
    pub fn unsupported(message: impl Into<String>) -> Self {
        SqlError::new("UnsupportedFeatureException", 4004, StatusCode::BAD_REQUEST, message)
    }

    /// The request's body cannot be taken.
    pub fn body(status: StatusCode, message: impl Into<String>) -> Self {
        SqlError::new("SQLParseException", 4000, status, message)
    }

    /// The answer of `/_sql`.
    pub fn crate_answer(&self, with_trace: bool) -> Response {
        let mut body = json!({ "error": { "message": format!("{}[{}]", self.kind, self.message), "code": self.code } });
        if with_trace {
            body["error_trace"] = json!(format!("{}: {}", self.kind, self.message));
        }
        self.with_retry(answer::json(self.status, &body))
    }

    /// What `/_sql` says of one row of `bulk_args`.
    pub fn of_one_row(&self) -> Value {
        let message = format!("{}[{}]", self.kind, self.message);
        json!({ "rowcount": -2, "error": { "code": self.code, "message": message } })
    }

    /// The answer of InfluxDB's endpoints.
    pub fn influx_answer(&self) -> Response {
        self.with_retry(answer::error(self.status, self.message.clone()))
    }

    fn with_retry(&self, response: Response) -> Response {
        match self.retry_after {
            Some(after) => answer::retry_after(response, after),
            None => response,
        }
    }
}

impl From<QueryError> for SqlError {
    fn from(error: QueryError) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        let (kind, code, status) = match error.root() {
            QueryError::Syntax { .. } => ("SQLParseException", 4000, S::BAD_REQUEST),
            QueryError::Plan(_) => ("SQLParseException", 4000, S::BAD_REQUEST),
            QueryError::Unsupported(_) | QueryError::ReadOnly { .. } => {
                ("UnsupportedFeatureException", 4004, S::BAD_REQUEST)
            }
            QueryError::TableExists { .. } => ("RelationAlreadyExists", 4093, S::CONFLICT),
            QueryError::UnknownTable { .. } => ("RelationUnknown", 4041, S::NOT_FOUND),
            QueryError::UnknownColumn { .. } => ("ColumnUnknownException", 4043, S::NOT_FOUND),
            QueryError::UnknownSchema { .. } => ("SchemaUnknownException", 4045, S::NOT_FOUND),
            QueryError::Busy { .. } => ("TooManyRequests", 4290, S::TOO_MANY_REQUESTS),
            QueryError::MemoryLimit { .. } | QueryError::SpillLimit { .. } => {
                ("CircuitBreakingException", 5003, S::INTERNAL_SERVER_ERROR)
            }
            QueryError::Timeout { .. } => ("QueryTimeout", 5003, S::INTERNAL_SERVER_ERROR),
            QueryError::Cancelled | QueryError::Killed { .. } => ("JobKilledException", 5005, S::INTERNAL_SERVER_ERROR),
            QueryError::Corrupt { .. } => ("ShardCorrupt", 5002, S::INTERNAL_SERVER_ERROR),
            QueryError::Storage(StorageError::Closed | StorageError::Busy { .. }) => {
                ("ServiceUnavailable", 5030, S::SERVICE_UNAVAILABLE)
            }
            // The last two are no roots.
            QueryError::Storage(_)
            | QueryError::Internal(_)
            | QueryError::Pending { .. }
            | QueryError::Unfinished { .. } => ("UnhandledServerException", 5000, S::INTERNAL_SERVER_ERROR),
        };
        if status == S::INTERNAL_SERVER_ERROR {
            tracing::warn!(error = %message, code, "a query failed");
        }
        let retry_after = match error.root() {
            QueryError::Busy { retry_after, .. } | QueryError::Storage(StorageError::Busy { retry_after, .. }) => {
                Some(*retry_after)
            }
            QueryError::Storage(StorageError::Closed) => Some(STARTING_RETRY),
            _ => None,
        };
        SqlError { retry_after, ..SqlError::new(kind, code, status, message) }
    }
}

impl From<Unavailable> for SqlError {
    fn from(reason: Unavailable) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let error = SqlError::new("ServiceUnavailable", 5030, status, reason.to_string());
        SqlError { retry_after: Some(STARTING_RETRY), ..error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code_and_status() {
        let unknown = |name: &str| (name.to_owned(), vec!["bmp180".to_owned()]);
        for (error, code, status, said) in [
            (
                QueryError::Syntax { message: "expected: a".into(), line: 1, column: 8 },
                4000,
                400,
                "SQLParseException[expected: a (line 1, column 8)]",
            ),
            (QueryError::Unsupported("no COPY".into()), 4004, 400, "UnsupportedFeatureException[no COPY]"),
            (
                QueryError::TableExists { name: "t".into() },
                4093,
                409,
                "RelationAlreadyExists[table t exists; CREATE TABLE IF NOT EXISTS leaves it as it is]",
            ),
            (
                QueryError::Unfinished {
                    statement: "DELETE",
                    done_rows: 5,
                    begun_rows: 9,
                    cause: Box::new(QueryError::Storage(StorageError::Closed)),
                },
                5030,
                503,
                "ServiceUnavailable[DELETE ended after 5 to 9 rows: the server is stopping; what it did stays done, \
                 and running it again does the rest]",
            ),
            (
                QueryError::Pending { statement: "DROP TABLE", cause: Box::new(QueryError::Cancelled) },
                5005,
                500,
                "JobKilledException[the statement was cancelled; DROP TABLE goes on in the server and may still succeed]",
            ),
            (
                {
                    let (name, near) = unknown("bmp18");
                    QueryError::UnknownTable { name, near }
                },
                4041,
                404,
                "RelationUnknown[table bmp18 unknown; did you mean bmp180?]",
            ),
            (
                {
                    let (name, near) = unknown("x");
                    QueryError::UnknownColumn { name, near }
                },
                4043,
                404,
                "ColumnUnknownException[column x unknown; did you mean bmp180?]",
            ),
            (
                QueryError::UnknownSchema { name: "foo".into(), near: vec![] },
                4045,
                404,
                "SchemaUnknownException[schema foo unknown]",
            ),
            (QueryError::Cancelled, 5005, 500, "JobKilledException[the statement was cancelled]"),
            (
                QueryError::Killed { id: 7, by: "[::1]:9 over sql".into() },
                5005,
                500,
                "JobKilledException[the statement was ended by KILL 7 from [::1]:9 over sql]",
            ),
        ] {
            let error = SqlError::from(error);
            assert_eq!((error.code, error.status.as_u16()), (code, status));
            assert_eq!(format!("{}[{}]", error.kind, error.message), said);
        }
    }

    #[test]
    fn a_full_server_says_when_to_come_again() {
        let busy = QueryError::Busy { running: 4, waiting: 9, retry_after: Duration::from_millis(1500) };
        let answer = SqlError::from(busy).crate_answer(false);
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "2");
    }
}
