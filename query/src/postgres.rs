//! What clients of PostgreSQL ask a server about itself.
//!
//! Owns:     `pg_catalog`, the functions of a session, and the statements about both as those clients write them.
//! Does not: speak their protocol (`ingest-server` does).
//!
//! The tables, functions and rewrites are those of `datafusion-pg-catalog`. Its rewrites make statements about the catalog
//! run that DataFusion would refuse, by leaving out what a client can do without. So they are for statements that
//! read nothing but the catalog; a statement that reads a table of anybody's is never changed like that.

mod arrays;
mod functions;
mod information_schema;
mod json;
mod names;
mod rewrite;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemoryCatalogProvider, SchemaProvider};
use datafusion::common::TableReference;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::TableType;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::{
    PG_CATALOG_TABLES, PgCatalogSchemaProvider, PgCatalogStaticTables, setup_pg_catalog,
};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    AliasDuplicatedProjectionRewrite, CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral,
    FixVersionColumnName, PrependUnqualifiedPgTableName, RemoveSubqueryFromProjection, ResolveUnqualifiedIdentifier,
    RewriteArrayAnyAllOperation, RewritePgCatalogOperator, RewriteRegCastToSubquery, SqlStatementRewriteRule,
    StripCallableQualifier, StripCollate,
};
use model::TableName;
use storage::Storage;

use crate::catalog::{CATALOG, INFORMATION_SCHEMA, Tables};
use crate::crate_db;
use crate::nesting::{self, DEPTH_MAX, RETRIED_MAX};

pub(crate) use functions::constant;
pub(crate) use information_schema::InformationSchema;
pub(crate) use tables::PgCatalog;

/// The schema of PostgreSQL's own tables.
pub(crate) const PG_CATALOG: &str = "pg_catalog";

/// Whose names a session sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Manner {
    /// PostgreSQL's.
    #[default]
    PostgreSql,
    /// CrateDB's.
    CrateDb {
        /// What the schema `public` is called: `doc`, or `public` for who calls it so.
        public: &'static str,
    },
}

/// A client that has a session, as its functions show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSession {
    /// Whose names it sees.
    pub manner: Manner,
    /// `current_user`.
    pub user: String,
    /// `pg_backend_pid()`.
    pub process: i32,
    /// What `current_setting` gives, by name.
    pub settings: BTreeMap<String, String>,
}

/// Reading them takes some 10 ms, and they never change.
static STATIC_TABLES: LazyLock<Result<Arc<PgCatalogStaticTables>, String>> =
    LazyLock::new(|| PgCatalogStaticTables::try_new().map(Arc::new).map_err(|error| error.to_string()));

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// Its rules alone, without the statements that it knows by heart.
static RULES: LazyLock<Vec<Box<dyn SqlStatementRewriteRule>>> = LazyLock::new(|| {
    vec![
        Box::new(AliasDuplicatedProjectionRewrite),
        Box::new(ResolveUnqualifiedIdentifier),
        Box::new(RewriteArrayAnyAllOperation),
        Box::new(PrependUnqualifiedPgTableName),
        Box::new(StripCallableQualifier),
        Box::new(FixArrayLiteral),
        Box::new(CurrentUserVariableToSessionUserFunctionCall),
        Box::new(StripCollate),
        Box::new(RewritePgCatalogOperator),
        Box::new(RewriteRegCastToSubquery::new()),
        Box::new(RemoveSubqueryFromProjection),
        Box::new(FixVersionColumnName),
    ]
});

/// `pg_catalog` over the tables of `storage`. One for an engine: its OIDs stay the same as long as it lives.
pub(crate) fn catalog(storage: &Arc<Storage>) -> Result<Arc<dyn SchemaProvider>> {
    let tables = STATIC_TABLES.clone().map_err(DataFusionError::Internal)?;
    let live = LiveTables { storage: Arc::clone(storage) };
    Ok(Arc::new(PgCatalogSchemaProvider::try_new(live, tables, EmptyContextProvider)?))
}

/// Adds the functions that clients of PostgreSQL call.
pub(crate) fn install(state: SessionState) -> Result<SessionState> {
    let context = SessionContext::new_with_state(state);
    // Looked for by the library, and replaced for each statement.
    context.register_catalog(CATALOG, Arc::new(MemoryCatalogProvider::new()));
    setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
    for function in functions::of_server().into_iter().chain(arrays::all()).chain([json::build_object()]) {
        context.register_udf(function);
    }
    let mut builder = SessionStateBuilder::new_from_existing(context.state());
    let types = crate_db::Types(builder.type_planner().take());
    Ok(builder.with_type_planner(Arc::new(types)).build())
}

/// Makes `state` one of a client's session.
pub(crate) fn enter(state: &mut SessionState, session: &ClientSession) -> Result<()> {
    let default_schema = state.config().options().catalog.default_schema.clone();
    let mut functions = functions::of_session(session, &default_schema);
    if let Manner::CrateDb { public } = session.manner {
        functions.extend(crate_db::functions(&default_schema, public, &session.user));
    }
    for function in functions {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}

/// Names the columns of a query as the client expects them.
pub(crate) fn name_columns(session: &ClientSession, statement: &mut DfStatement) {
    if session.manner == Manner::PostgreSql {
        names::name_columns(statement);
    }
}

/// Makes `information_schema` that of PostgreSQL or CrateDB, for a query. `SHOW` needs DataFusion's.
pub(crate) fn use_information_schema(state: &mut SessionState) {
    // Then it is looked for in our catalog.
    state.config_mut().options_mut().catalog.information_schema = false;
}

/// The tables that exist now, as `pg_catalog` lists them.
#[derive(Clone)]
struct LiveTables {
    storage: Arc<Storage>,
}

impl std::fmt::Debug for LiveTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveTables").finish_non_exhaustive()
    }
}

#[async_trait]
impl CatalogInfo for LiveTables {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        Ok(vec![CATALOG.to_owned()])
    }

    async fn schema_names(&self, _catalog: &str) -> Result<Option<Vec<String>>> {
        let tables = Tables::new(self.storage.tables());
        Ok(Some(tables.schemas().into_iter().chain([PG_CATALOG, INFORMATION_SCHEMA]).map(str::to_owned).collect()))
    }

    async fn table_names(&self, _catalog: &str, schema: &str) -> Result<Option<Vec<String>>> {
        let tables = Tables::new(self.storage.tables());
        Ok(Some(tables.in_schema(schema).iter().map(|info| info.name.table.to_string()).collect()))
    }

    async fn table_schema(&self, _catalog: &str, schema: &str, table: &str) -> Result<Option<SchemaRef>> {
        let info = self.storage.table(&TableName::new(schema, table));
        Ok(info.map(|info| Arc::clone(info.schema.arrow())))
    }

    async fn table_type(&self, _catalog: &str, schema: &str, table: &str) -> Result<Option<TableType>> {
        let info = self.storage.table(&TableName::new(schema, table));
        Ok(info.map(|_| TableType::Base))
    }
}

/// Words beside `pg_…` that tell a statement of those clients.
const WORDS: [&str; 13] = [
    "information_schema",
    "current_user",
    "session_user",
    "user",
    "current_schema",
    "current_schemas",
    "current_catalog",
    "current_database",
    "current_setting",
    "version",
    "regclass",
    "regtype",
    "collate",
];

/// Of these those that tell of the session.
const SESSION: [&str; 4] = ["current_setting", "current_user", "current_schema", "current_catalog"];

/// A statement that asks for the catalog or for the session, as it can be planned here; `None` for any other.
pub(crate) fn parse(sql: &str, tokens: &[TokenWithSpan]) -> Option<DfStatement> {
    let is_word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => {
            let word = word.value.to_lowercase();
            word.starts_with("pg_") || WORDS.contains(&word.as_str())
        }
        _ => false,
    };
    if !tokens.iter().any(is_word) {
        return None;
    }
    // The parser of the library has no `current_setting`, and leaves out what asks for the schemas that are looked through;
    // and columns lose their names in it.
    let asks_for_session = tokens.iter().any(|token| SESSION.iter().any(|name| is_named(token, name)));
    // Its own dialect has other comments and texts than that of `tokens`.
    let own = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().ok()?;
    if nesting::depth(&own) > DEPTH_MAX || nesting::retried(&own) > RETRIED_MAX {
        return None;
    }
    // What it does not understand is said by the parser that has places for its errors.
    let statements = if asks_for_session {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
        let by_rules = |mut ast: Ast| {
            names::keep_names(&mut ast);
            RULES.iter().fold(ast, |ast, rule| rule.rewrite(ast))
        };
        statements.into_iter().map(by_rules).collect()
    } else {
        PARSER.parse(sql).ok()?
    };
    let mut statements = statements.into_iter();
    let (mut ast, None) = (statements.next()?, statements.next()) else { return None };
    rewrite::rewrite(&mut ast);
    let statement = DfStatement::Statement(Box::new(ast));
    let (references, _) = resolve_table_references(&statement, true).ok()?;
    references.iter().all(is_of_catalog).then_some(statement)
}

fn is_named(token: &TokenWithSpan, wanted: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(wanted))
}

/// Whether a statement about tables names what [`rewritten`] writes in another way.
pub(crate) fn names_session(tokens: &[TokenWithSpan]) -> bool {
    tokens.iter().any(|token| match &token.token {
        Token::Word(word) => {
            let word = word.value.to_lowercase();
            word == PG_CATALOG || WORDS.contains(&word.as_str())
        }
        _ => false,
    })
}

/// Writes what only is spelled differently here: `current_user` without parentheses, `pg_catalog.version()`.
pub(crate) fn rewritten(statement: DfStatement) -> DfStatement {
    let rules: [&dyn SqlStatementRewriteRule; 3] =
        [&CurrentUserVariableToSessionUserFunctionCall, &StripCallableQualifier, &FixVersionColumnName];
    match statement {
        DfStatement::Statement(mut ast) => {
            names::keep_names(&mut ast);
            DfStatement::Statement(Box::new(rules.iter().fold(*ast, |ast, rule| rule.rewrite(ast))))
        }
        other => other,
    }
}

/// Whether a name is one of the catalog's tables.
fn is_of_catalog(reference: &TableReference) -> bool {
    match reference.schema() {
        Some(schema) => [PG_CATALOG, INFORMATION_SCHEMA].contains(&schema),
        // A function in FROM, or a table of the catalog without its schema.
        None => PG_CATALOG_TABLES.contains(&reference.table()) || rewrite::TABLE_FUNCTIONS.contains(&reference.table()),
    }
}
