//! What a statement takes and gives, without running it.
//!
//! Owns:     the types of parameters, as far as they follow from where they stand, and the columns of the answer.
//! Does not: look at rows: tables only have their columns here.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParser, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::DataType as SqlType;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::catalog::{Catalog, Tables};
use crate::engine::QueryRequest;
use crate::error::QueryError;
use crate::parameters::{self, Found};
use crate::postgres;
use crate::resolve;
use crate::run::Shared;
use crate::session;
use crate::statement::{self, Parsed, Statement};

/// What a parameter may be whose place does not tell, in the order in which it is tried.
const GUESSES: [DataType; 3] = [DataType::Utf8, DataType::Int64, DataType::Float64];

/// A statement as it presents itself to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The types of `$1` and so on. Text where anything goes.
    pub parameters: Vec<DataType>,
    /// The columns of its rows; `None` if it answers none.
    pub columns: Option<SchemaRef>,
}

/// Describes the statement of `request`.
pub(crate) async fn describe(shared: &Shared, request: &QueryRequest) -> Result<Description, QueryError> {
    let Parsed::Tree(mut tree) = statement::parse_tree(&request.sql)? else {
        return Ok(Description { parameters: Vec::new(), columns: None });
    };
    let Found { count, limits, casts } = match statement::ast(&mut tree) {
        Some(ast) => parameters::find(ast)?,
        None => Found::default(),
    };
    let rows = ScalarValue::Int64(None);
    let declared = |number: usize| {
        let given = request.parameters.get(number - 1).filter(|value| **value != ScalarValue::Null);
        given.or_else(|| limits.contains(&number).then_some(&rows))
    };
    let declared: Vec<Option<&ScalarValue>> = (1..=count).map(declared).collect();
    let types = |found: &HashMap<String, Option<DataType>>| {
        let of = |(index, declared): (usize, &Option<&ScalarValue>)| match declared {
            Some(value) => value.data_type(),
            None => found.get(&format!("${}", index + 1)).cloned().flatten().unwrap_or(DataType::Utf8),
        };
        declared.iter().enumerate().map(of).collect()
    };
    if let Some(ast) = statement::ast(&mut tree) {
        parameters::bind_known(ast, &declared)?;
    }
    if let Some(session) = &request.session {
        postgres::name_columns(session, &mut tree);
    }
    let tables = Arc::new(Tables::new(shared.storage.tables()));
    let schema = resolve::default_schema(request.default_schema.as_deref(), &tables);
    let mut of_columns = HashMap::new();
    let (query, answers) = match statement::understand(tree)? {
        Statement::Read(query) => (query, true),
        Statement::Refresh(_) | Statement::Kill(_) => return Ok(Description { parameters: Vec::new(), columns: None }),
        Statement::Change(change) => {
            of_columns = change.parameters(&tables, &schema)?;
            match change.query() {
                Some(query) => (DfStatement::Statement(Box::new(query)), false),
                None => return Ok(Description { parameters: types(&HashMap::new()), columns: None }),
            }
        }
    };
    let catalog = Catalog::new(shared, &tables, Arc::default(), request.session.as_ref());
    let state = session::of_statement(&shared.template, catalog, &schema, request.session.as_deref(), &query);
    let state = state.map_err(|error| plan_error(shared, &error))?;
    let planning = Planning { shared, state: &state, tables: &tables, schema: &schema };
    // What a parameter is cast to it is: `$1::int[]`.
    let mut given = HashMap::new();
    for (number, sql_type) in casts.into_iter().filter(|(number, _)| declared[number - 1].is_none()) {
        if let Some(data_type) = planning.type_of(&sql_type).await {
            given.insert(format!("${number}"), Some(data_type));
        }
    }
    given.extend(oids(&request.sql).map(|(name, data_type)| (name, Some(data_type))));
    let (mut plan, guess) = planning.with_guesses(&query, count).await?;
    // One that has two types in two places is text, which can become both.
    let mut found = plan.get_parameter_types().unwrap_or_default();
    if let Some(guess) = &guess {
        for number in 1..=count {
            found.entry(format!("${number}")).or_insert_with(|| Some(guess.clone()));
        }
    }
    found.extend(given);
    found.extend(of_columns.into_iter().map(|(name, data_type)| (name, Some(data_type))));
    // What nothing is known of is text, in the columns too.
    let is_unknown =
        |number: usize| declared[number - 1].is_none() && !matches!(found.get(&format!("${number}")), Some(Some(_)));
    if guess.is_none() && (1..=count).any(is_unknown) {
        let text = ScalarValue::Utf8(None);
        let texts: Vec<_> = (1..=count).map(|number| is_unknown(number).then_some(&text)).collect();
        let mut typed = query;
        if let Some(ast) = statement::ast(&mut typed) {
            parameters::bind_known(ast, &texts)?;
        }
        if let Ok(typed) = planning.plan(typed).await {
            plan = typed;
        }
    }
    let columns = answers.then(|| columns(&plan));
    Ok(Description { parameters: types(&found), columns })
}

struct Planning<'a> {
    shared: &'a Shared,
    state: &'a SessionState,
    tables: &'a Tables,
    schema: &'a str,
}

impl Planning<'_> {
    /// The plan of `query`, and what was taken for its parameters of unknown type, if it needed that.
    async fn with_guesses(
        &self,
        query: &DfStatement,
        count: usize,
    ) -> Result<(LogicalPlan, Option<DataType>), QueryError> {
        let error = match self.plan(query.clone()).await {
            Ok(plan) => return Ok((plan, None)),
            Err(error) if count == 0 => return Err(error),
            Err(error) => error,
        };
        for guess in GUESSES {
            let null = ScalarValue::try_from(&guess).map_err(|error| plan_error(self.shared, &error))?;
            let mut guessed = query.clone();
            if let Some(ast) = statement::ast(&mut guessed) {
                parameters::bind_known(ast, &vec![Some(&null); count])?;
            }
            if let Ok(plan) = self.plan(guessed).await {
                return Ok((plan, Some(guess)));
            }
        }
        Err(error)
    }

    /// The type that a name of a type stands for.
    async fn type_of(&self, sql_type: &SqlType) -> Option<DataType> {
        let sql = format!("SELECT CAST(NULL AS {sql_type})");
        let statement = DFParser::parse_sql(&sql).ok()?.pop_front()?;
        let plan = self.state.statement_to_plan(statement).await.ok()?;
        Some(plan.schema().field(0).data_type().clone())
    }

    async fn plan(&self, mut query: DfStatement) -> Result<LogicalPlan, QueryError> {
        resolve::resolve(&mut query, self.tables, self.schema)?;
        let plan = self.state.statement_to_plan(query).await.map_err(|error| plan_error(self.shared, &error))?;
        // What types become when both sides of an operator, or of a UNION, must be the same is only known after this.
        let options = self.state.config_options();
        let analyzed = self.state.analyzer().execute_and_check(plan, options, |_, _| {});
        analyzed.map_err(|error| plan_error(self.shared, &error))
    }
}

/// Parameters that are cast to PostgreSQL's numbers of things, `$1::oid[]`: those are whole numbers to DataFusion, and a type of
/// their own to clients.
fn oids(sql: &str) -> impl Iterator<Item = (String, DataType)> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap_or_default();
    let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let casts = (0..tokens.len()).filter_map(|at| match tokens.get(at..)? {
        [Token::Placeholder(name), Token::DoubleColon, Token::Word(word), rest @ ..]
            if word.value.eq_ignore_ascii_case("oid") =>
        {
            let is_list = matches!(rest, [Token::LBracket, Token::RBracket, ..]);
            let data_type = if is_list { DataType::new_list(DataType::UInt32, true) } else { DataType::UInt32 };
            Some((name.clone(), data_type))
        }
        _ => None,
    });
    casts.collect::<Vec<_>>().into_iter()
}

fn plan_error(shared: &Shared, error: &datafusion::error::DataFusionError) -> QueryError {
    QueryError::datafusion(error, shared.limits)
}

fn columns(plan: &LogicalPlan) -> SchemaRef {
    let schema: &Schema = plan.schema().as_arrow();
    Arc::new(schema.clone())
}
