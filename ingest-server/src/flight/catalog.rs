//! The answers about catalogs, schemas, tables and the server itself.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, SqlInfo};
use storage::Storage;
use tonic::Status;

use super::error::internal;
use super::plain;

/// The one database.
const CATALOG: &str = "eden";

const TABLE: &str = "TABLE";

/// What the server says of itself.
pub(super) static SERVER: LazyLock<SqlInfoData> = LazyLock::new(|| {
    let mut about = SqlInfoDataBuilder::new();
    about.append(SqlInfo::FlightSqlServerName, "Eden");
    about.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    about.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    about.append(SqlInfo::FlightSqlServerReadOnly, false);
    about.append(SqlInfo::FlightSqlServerSql, true);
    about.append(SqlInfo::FlightSqlServerSubstrait, false);
    about.append(SqlInfo::FlightSqlServerTransaction, 0_i32);
    about.append(SqlInfo::FlightSqlServerCancel, false);
    about.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    about.build().expect("constants are information")
});

pub(super) fn catalogs(asked: CommandGetCatalogs) -> Result<RecordBatch, Status> {
    let mut found = asked.into_builder();
    found.append(CATALOG);
    found.build().map_err(internal)
}

pub(super) fn schemas(asked: CommandGetDbSchemas, storage: &Storage) -> Result<RecordBatch, Status> {
    let mut names: Vec<String> = storage.tables().iter().map(|table| table.name.schema.to_string()).collect();
    names.extend([model::name::PUBLIC.to_owned(), "information_schema".to_owned()]);
    names.sort();
    names.dedup();
    let mut found = asked.into_builder();
    names.iter().for_each(|name| found.append(CATALOG, name));
    found.build().map_err(internal)
}

pub(super) fn all_tables(asked: CommandGetTables, storage: &Storage) -> Result<RecordBatch, Status> {
    let mut found = asked.into_builder();
    for table in storage.tables() {
        let schema = plain::schema(table.schema.arrow());
        found.append(CATALOG, &*table.name.schema, &*table.name.table, TABLE, &schema).map_err(internal)?;
    }
    found.build().map_err(internal)
}

pub(super) fn table_types(asked: CommandGetTableTypes) -> Result<RecordBatch, Status> {
    let mut found = asked.into_builder();
    found.append(TABLE);
    found.build().map_err(internal)
}
