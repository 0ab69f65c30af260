//! Errors as gRPC says them.

use arrow_flight::error::FlightError;
use query::QueryError;
use storage::StorageError;
use tonic::{Code, Status};

use crate::app::Unavailable;

/// The status of a statement's failure: its code tells programs what to do, its message people.
pub(super) fn status(error: &QueryError) -> Status {
    let code = match error.root() {
        QueryError::Syntax { .. } | QueryError::Plan(_) | QueryError::Unsupported(_) => Code::InvalidArgument,
        QueryError::TableExists { .. } => Code::AlreadyExists,
        QueryError::UnknownTable { .. } | QueryError::UnknownColumn { .. } | QueryError::UnknownSchema { .. } => {
            Code::NotFound
        }
        QueryError::ReadOnly { .. } => Code::PermissionDenied,
        QueryError::Busy { .. } | QueryError::MemoryLimit { .. } | QueryError::SpillLimit { .. } => {
            Code::ResourceExhausted
        }
        QueryError::Timeout { .. } => Code::DeadlineExceeded,
        QueryError::Cancelled | QueryError::Killed { .. } => Code::Cancelled,
        QueryError::Corrupt { .. } => Code::DataLoss,
        QueryError::Storage(StorageError::Closed | StorageError::Busy { .. }) => Code::Unavailable,
        QueryError::Storage(_)
        | QueryError::Internal(_)
        | QueryError::Pending { .. }
        | QueryError::Unfinished { .. } => Code::Internal,
    };
    let message = error.to_string();
    if matches!(code, Code::Internal | Code::DataLoss) {
        tracing::warn!(error = %message, "a query failed");
    }
    Status::new(code, message)
}

/// The server starts or stops.
pub(super) fn unavailable(reason: &Unavailable) -> Status {
    Status::unavailable(reason.to_string())
}

/// As the stream of a result says it.
pub(super) fn in_stream(error: &QueryError) -> FlightError {
    FlightError::Tonic(Box::new(status(error)))
}

/// Of Arrow's own, while reading what a client sent.
pub(super) fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the message is malformed: {error}"))
}

/// A bug here.
pub(super) fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "a call of Flight SQL failed");
    Status::internal("a bug in eden; the server's log says where")
}
