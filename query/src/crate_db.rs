//! What clients of CrateDB ask a server about itself.
//!
//! Owns:     the schema `sys`, the names that a session of theirs sees, their names of types.
//! Does not: speak their protocol (`ingest-server` does).
//!
//! Their default schema is `doc`, which is [`PUBLIC`] here. Some have that name built in, so their `information_schema`
//! and `current_schema` call it so too (docs/adr/0032-clients-of-cratedb.md).

mod columns;
mod node;
mod sys;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::DataType as SqlType;
use model::name::PUBLIC;

use crate::postgres::constant;
use crate::resolve::folded;

pub use node::{NodeFacts, NodeSource};
pub(crate) use sys::Sys;

/// The schema of CrateDB's own tables.
pub(crate) const SYS: &str = "sys";

/// The version that clients of CrateDB read to know which SQL they may send.
pub const CRATEDB_VERSION: &str = "6.4.0";

/// What their `version()` says.
const VERSION: &str = concat!("CrateDB 6.4.0 (Eden ", env!("CARGO_PKG_VERSION"), ")");

/// What their `current_user` is without a name.
const USER: &str = "crate";

/// The functions whose answers are other ones than PostgreSQL's.
pub(crate) fn functions(default_schema: &str, public: &str, user: &str) -> Vec<ScalarUDF> {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let schema = if default_schema == PUBLIC { public } else { default_schema };
    let user = if user.is_empty() { USER } else { user };
    vec![
        constant("current_schema", text(schema)),
        constant("session_user", text(user)),
        constant("user", text(user)),
        constant("version", text(VERSION)),
    ]
}

/// Names of types that are CrateDB's alone, before those of another planner.
#[derive(Debug)]
pub(crate) struct Types(pub(crate) Option<Arc<dyn TypePlanner>>);

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        if let SqlType::Custom(name, modifiers) = sql_type
            && let ([part], true) = (name.0.as_slice(), modifiers.is_empty())
            && let Some(data_type) = part.as_ident().and_then(|name| data_type(&folded(name)))
        {
            return Ok(Some(Arc::new(Field::new("", data_type, true))));
        }
        self.0.as_ref().map_or(Ok(None), |others| others.plan_type_field(sql_type))
    }
}

/// Source: CrateDB's reference, "Data types", the aliases in the tables of its types.
fn data_type(name: &str) -> Option<DataType> {
    Some(match name {
        "long" => DataType::Int64,
        "short" => DataType::Int16,
        "byte" => DataType::Int8,
        _ => return None,
    })
}
