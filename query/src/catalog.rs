//! The tables that exist, and the catalog in which DataFusion looks for them while it plans one statement.
//!
//! Owns:     looking up names, in their own case or any; schemas and their aliases; which table has a snapshot.
//! Does not: take snapshots (`run` does) or scan them (`provider` does).
//!
//! A catalog lives as long as one statement. Tables that the statement names come with their snapshot; the others
//! only have columns, for `information_schema`.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::TableType;
use model::TableName;
use model::name::PUBLIC;
use storage::TableInfo;

use crate::blank::Blank;
use crate::crate_db::{SYS, Sys};
use crate::names;
use crate::plans::Snapshots;
use crate::postgres::{ClientSession, InformationSchema, Manner, PG_CATALOG, PgCatalog};
use crate::run::Shared;

/// The one catalog.
pub(crate) const CATALOG: &str = "eden";

/// The schema that DataFusion makes itself.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// The schema whose tables the server itself writes.
pub(crate) const SYSTEM: &str = "system";

/// Schemas that are there even while they have no table.
const SCHEMAS: [&str; 2] = [PUBLIC, SYSTEM];

/// What users of CrateDB, of InfluxDB and of nothing in particular call [`PUBLIC`].
const ALIASES: [&str; 3] = ["doc", "iox", ""];

/// The schema that `name` means.
pub(crate) fn unaliased(name: &str) -> &str {
    if ALIASES.contains(&name) { PUBLIC } else { name }
}

/// All tables at one moment.
#[derive(Debug)]
pub(crate) struct Tables {
    infos: Vec<TableInfo>,
}

impl Tables {
    /// Of these tables.
    pub(crate) fn new(mut infos: Vec<TableInfo>) -> Self {
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Tables { infos }
    }

    /// The table of exactly this name.
    pub(crate) fn get(&self, schema: &str, table: &str) -> Option<&TableInfo> {
        let order = |info: &TableInfo| (&*info.name.schema, &*info.name.table).cmp(&(schema, table));
        self.infos.binary_search_by(order).ok().map(|index| &self.infos[index])
    }

    /// The one table whose name differs at most by case.
    pub(crate) fn ignoring_case(&self, schema: &str, table: &str) -> Option<&TableInfo> {
        let table = table.to_lowercase();
        self.in_schema(schema).iter().find(|info| info.name.table.to_lowercase() == table)
    }

    /// The tables of a schema.
    pub(crate) fn in_schema(&self, schema: &str) -> &[TableInfo] {
        let first = self.infos.partition_point(|info| *info.name.schema < *schema);
        let end = self.infos.partition_point(|info| *info.name.schema <= *schema);
        &self.infos[first..end]
    }

    /// The schemas, `information_schema` not among them.
    pub(crate) fn schemas(&self) -> BTreeSet<&str> {
        self.infos.iter().map(|info| &*info.name.schema).chain(SCHEMAS).collect()
    }

    /// Whether a schema exists.
    pub(crate) fn has_schema(&self, schema: &str) -> bool {
        SCHEMAS.contains(&schema) || !self.in_schema(schema).is_empty()
    }

    /// Whether `sys` is CrateDB's, and not a schema of somebody's own.
    pub(crate) fn has_sys(&self) -> bool {
        self.in_schema(SYS).is_empty()
    }

    /// Tables that `name` may have been meant for, as SQL spells them.
    pub(crate) fn close_to(&self, name: &TableName) -> Vec<String> {
        let here = names::close(&name.table, self.in_schema(&name.schema).iter().map(|info| &*info.name.table));
        if !here.is_empty() {
            return here.into_iter().map(|table| spelled(&name.schema, table)).collect();
        }
        // Or of exactly that name in another schema.
        let elsewhere = self.infos.iter().filter(|info| info.name.table == name.table);
        elsewhere.map(|info| spelled(&info.name.schema, &info.name.table)).collect()
    }
}

/// A table's name as SQL spells it; `public` goes without saying.
pub(crate) fn spelled(schema: &str, table: &str) -> String {
    if schema == PUBLIC { names::quoted(table) } else { format!("{}.{}", names::quoted(schema), names::quoted(table)) }
}

/// The catalog of one statement.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pub(crate) tables: Arc<Tables>,
    /// Of the tables that the statement names.
    pub(crate) snapshots: Arc<Snapshots>,
    /// `pg_catalog`.
    postgres: PgCatalog,
    /// CrateDB's own tables.
    sys: Sys,
    /// Whose `information_schema` there is.
    manner: Manner,
}

impl Catalog {
    /// For a statement of `session` that reads `snapshots`.
    pub(crate) fn new(
        shared: &Shared,
        tables: &Arc<Tables>,
        snapshots: Arc<Snapshots>,
        session: Option<&Arc<ClientSession>>,
    ) -> Self {
        let manner = session.map(|session| session.manner).unwrap_or_default();
        let public = match manner {
            Manner::PostgreSql => PUBLIC,
            Manner::CrateDb { public } => public,
        };
        Catalog {
            tables: Arc::clone(tables),
            snapshots,
            postgres: PgCatalog {
                inner: Arc::clone(&shared.postgres),
                storage: Arc::clone(&shared.storage),
                session: session.cloned(),
            },
            sys: Sys { public, ..shared.sys.clone() },
            manner,
        }
    }
}

impl CatalogProviderList for Catalog {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        self.tables.schemas().into_iter().map(str::to_owned).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            PG_CATALOG => return Some(Arc::new(self.postgres.clone())),
            // Only asked for where DataFusion does not make it itself: for clients of PostgreSQL.
            INFORMATION_SCHEMA => {
                let (tables, manner) = (Arc::clone(&self.tables), self.manner);
                return Some(Arc::new(InformationSchema { tables, manner }));
            }
            SYS if self.tables.has_sys() => return Some(Arc::new(self.sys.clone())),
            _ => {}
        }
        let schema = || Schema { catalog: self.clone(), name: name.into() };
        self.tables.has_schema(name).then(|| Arc::new(schema()) as Arc<dyn SchemaProvider>)
    }
}

#[derive(Debug)]
struct Schema {
    catalog: Catalog,
    name: Arc<str>,
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        self.catalog.tables.in_schema(&self.name).iter().map(|info| info.name.table.to_string()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = TableName { schema: Arc::clone(&self.name), table: name.into() };
        if let Some(snapshot) = self.catalog.snapshots.get(&table) {
            return Ok(Some(Arc::clone(snapshot) as Arc<dyn TableProvider>));
        }
        let info = self.catalog.tables.get(&self.name, name);
        Ok(info.map(|info| {
            let (name, schema) = (info.name.clone(), Arc::clone(&info.schema));
            Arc::new(Blank { name, schema, is_newest: false }) as Arc<dyn TableProvider>
        }))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.catalog.tables.get(&self.name, name).is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use model::{FieldType, TableId};
    use storage::TableSchema;

    use super::*;

    /// Tables of these names, each with the tag `Device` and the fields `temp`, `Humidity` and `motor.current.L1`.
    pub(crate) fn tables(names: &[(&str, &str)]) -> Tables {
        let fields = ["temp", "Humidity", "motor.current.L1"].map(|name| (name.into(), FieldType::F64));
        let schema = Arc::new(TableSchema::new(&["Device".into()], &fields));
        let info = |(schema_name, table): &(&str, &str)| TableInfo {
            name: TableName::new(schema_name, table),
            id: TableId([0; 16]),
            schema: Arc::clone(&schema),
            shards: 0,
            shard_rows: 0,
            shard_bytes: 0,
            memory_rows: 0,
            waiting_rows: 0,
        };
        Tables::new(names.iter().map(info).collect())
    }

    #[test]
    fn tables_are_found_exactly_or_in_any_case() {
        let tables = tables(&[("public", "Env"), ("public", "bmp180"), ("plant", "env")]);
        assert!(tables.get("public", "Env").is_some());
        assert!(tables.get("public", "env").is_none());
        assert_eq!(&*tables.ignoring_case("public", "env").unwrap().name.table, "Env");
        assert!(tables.ignoring_case("system", "env").is_none());
        assert_eq!(tables.schemas().into_iter().collect::<Vec<_>>(), ["plant", "public", "system"]);
    }

    #[test]
    fn suggestions_prefer_the_same_schema() {
        let tables = tables(&[("public", "Env"), ("public", "bmp180"), ("plant", "env"), ("plant", "line")]);
        for (wanted, expected) in [
            (("public", "enw"), &["\"Env\""][..]),
            (("plant", "lines"), &["plant.line"]),
            (("public", "line"), &["plant.line"]),
            (("plant", "bmp180"), &["bmp180"]),
            (("public", "unheard"), &[]),
        ] {
            assert_eq!(tables.close_to(&TableName::new(wanted.0, wanted.1)), expected, "{wanted:?}");
        }
    }
}
