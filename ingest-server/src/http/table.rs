//! `GET /api/v1/table`: the columns of a table and what each is for, which SQL's types do not tell.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use model::TableName;
use model::name::PUBLIC;
use serde_json::json;
use storage::schema::sql_type;
use storage::{ColumnKind, Storage, TableInfo};

use super::answer::{self, STARTING_RETRY, unavailable};
use super::influx::schema::of_database;
use crate::app::App;

/// The handler.
pub async fn table(State(app): State<Arc<App>>, query: Query<HashMap<String, String>>) -> Response {
    let storage = match app.for_queries() {
        Ok(parts) => parts.storage,
        Err(reason) => return unavailable(&reason.to_string(), STARTING_RETRY),
    };
    let schema = of_database(query.get("db").map_or(PUBLIC, String::as_str));
    let Some(table) = query.get("table") else {
        return answer::error(
            StatusCode::BAD_REQUEST,
            "the parameter table is missing: /api/v1/table?db=public&table=t",
        );
    };
    match find(&storage, schema, table) {
        Some(info) => answer::json(StatusCode::OK, &describe(&info)),
        None => answer::error(StatusCode::NOT_FOUND, format!("there is no table {table:?} in schema {schema:?}")),
    }
}

/// The table of this name, or else the one that differs from it by case only.
pub(super) fn find(storage: &Storage, schema: &str, table: &str) -> Option<TableInfo> {
    storage.table(&TableName::new(schema, table)).or_else(|| {
        let is_it = |name: &TableName| *name.schema == *schema && name.table.to_lowercase() == table.to_lowercase();
        storage.tables().into_iter().find(|info| is_it(&info.name))
    })
}

fn describe(info: &TableInfo) -> serde_json::Value {
    let columns = info.schema.columns().iter().map(|column| {
        let (kind, sql) = match column.kind {
            ColumnKind::Tag => ("tag", "TEXT".to_owned()),
            ColumnKind::Time => ("time", "TIMESTAMP".to_owned()),
            ColumnKind::Field(field_type) => ("field", sql_type(field_type)),
        };
        json!({ "name": *column.name, "kind": kind, "type": sql })
    });
    json!({ "schema": *info.name.schema, "table": *info.name.table, "columns": columns.collect::<Vec<_>>() })
}
