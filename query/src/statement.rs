//! What may be said: one statement, of the kinds that run here.
//!
//! Owns:     parsing, the list of statements that are allowed, `REFRESH TABLE` and `OPTIMIZE TABLE`.
//! Does not: know tables or columns (`resolve` does), or what the statements that change tables may say (`change` does).

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, ExplainStatement, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{ObjectName, Query, SetExpr, Statement as Ast, visit_relations};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::catalog::SYSTEM;
use crate::change::{self, Change};
use crate::crate_db::SYS;
use crate::error::{QueryError, tidy};
use crate::extent;
use crate::functions::{asof, like};
use crate::nesting::{self, DEPTH_MAX, RETRIED_MAX};
use crate::parameters;
use crate::postgres;
use crate::queries::Target;

/// What runs here, for errors that refuse something else.
const SUPPORTED: &str = "SELECT, WITH, VALUES, TABLE, EXPLAIN, SHOW TABLES, SHOW COLUMNS, SHOW <setting>, \
                         SHOW FUNCTIONS, DESCRIBE, CREATE TABLE, ALTER TABLE, DROP TABLE, INSERT INTO, \
                         UPDATE, DELETE FROM, OPTIMIZE TABLE, KILL and REFRESH TABLE";

/// Longest statement.
const SQL_BYTES_MAX: usize = 4 << 20;

/// A statement that may run.
#[derive(Debug)]
pub(crate) enum Statement {
    /// Answers with rows.
    Read(DfStatement),
    /// Flushes tables.
    Refresh(Vec<ObjectName>),
    /// Changes tables or rows.
    Change(Box<Change>),
    /// Ends statements.
    Kill(Target),
}

impl Statement {
    /// Whether it reads tables of schema `system`, or of CrateDB's `sys`, and no others.
    pub(crate) fn only_looks_at_the_server(&self) -> bool {
        let Statement::Read(DfStatement::Statement(ast)) = self else { return false };
        let mut tables = 0;
        let others = visit_relations(&**ast, |name| {
            tables += 1;
            match name.0.as_slice() {
                [.., schema, _]
                    if schema.as_ident().is_some_and(|schema| {
                        [SYSTEM, SYS].iter().any(|known| schema.value.eq_ignore_ascii_case(known))
                    }) =>
                {
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            }
        });
        tables > 0 && others.is_continue()
    }
}

/// Parses and checks `sql`, which has no parameters.
#[cfg(test)]
pub(crate) fn parse(sql: &str) -> Result<Statement, QueryError> {
    parse_bound(sql, &[], Surplus::Refused)
}

/// What becomes of values that no parameter is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surplus {
    Refused,
    /// By queries, as CrateDB does; SQLAlchemy's dialect for it sends such. A change is refused all the same.
    Ignored,
}

/// Parses and checks `sql`, with a value for each of its parameters.
pub(crate) fn parse_bound(sql: &str, values: &[ScalarValue], surplus: Surplus) -> Result<Statement, QueryError> {
    match parse_tree(sql)? {
        Parsed::Done(statement) if values.is_empty() => Ok(statement),
        Parsed::Done(_) => {
            Err(QueryError::Plan(format!("the statement has 0 parameters, and {} values came with it", values.len())))
        }
        Parsed::Tree(mut tree) => {
            if let Some(ast) = ast(&mut tree) {
                let ignores = surplus == Surplus::Ignored && matches!(ast, Ast::Query(_));
                let used = if ignores { parameters::find(ast)?.count.min(values.len()) } else { values.len() };
                parameters::bind(ast, &values[..used])?;
            }
            understand(tree)
        }
    }
}

/// As [`parse_bound`], where `names[0]` is the name of the parameter that `values[0]` is for.
pub(crate) fn parse_named(sql: &str, names: &[String], values: &[ScalarValue]) -> Result<Statement, QueryError> {
    let mut places = Vec::new();
    let parsed = parse_tokens(sql, |tokens| {
        places = parameters::number_named(tokens, names)?;
        Ok(())
    });
    match parsed? {
        Parsed::Done(statement) => Ok(statement),
        Parsed::Tree(mut tree) => {
            let used: Vec<ScalarValue> = places.iter().filter_map(|place| values.get(*place)).cloned().collect();
            if let Some(ast) = ast(&mut tree) {
                parameters::bind(ast, &used)?;
            }
            understand(tree)
        }
    }
}

/// As [`parse_bound`], an INSERT of one row of VALUES with as many rows as there are values for.
pub(crate) fn parse_with_rows(sql: &str, rows: &[Vec<ScalarValue>]) -> Result<Statement, QueryError> {
    let unsupported = || QueryError::Unsupported("rows of values are for INSERT INTO t (a, b) VALUES (?, ?)".into());
    let Parsed::Tree(mut tree) = parse_tree(sql)? else { return Err(unsupported()) };
    let Some(Ast::Insert(insert)) = ast(&mut tree) else { return Err(unsupported()) };
    let body = insert.source.as_mut().map(|query| &mut *query.body);
    let Some(SetExpr::Values(values)) = body else { return Err(unsupported()) };
    let [row] = values.rows.as_slice() else { return Err(unsupported()) };
    let bound = |values: &Vec<ScalarValue>| {
        let mut row = row.clone();
        parameters::bind(&mut row.content, values)?;
        Ok(row)
    };
    values.rows = rows.iter().map(bound).collect::<Result<_, QueryError>>()?;
    understand(tree)
}

/// A statement as the parser gives it.
pub(crate) enum Parsed {
    /// One that is understood already. It has no parameters.
    Done(Statement),
    /// One that [`understand`] has to look at.
    Tree(DfStatement),
}

/// Parses `sql`, leaving its parameters.
pub(crate) fn parse_tree(sql: &str) -> Result<Parsed, QueryError> {
    parse_tokens(sql, parameters::number)
}

/// As [`parse_tree`], with `number` to number the parameters.
fn parse_tokens(
    sql: &str,
    number: impl FnOnce(&mut [TokenWithSpan]) -> Result<(), QueryError>,
) -> Result<Parsed, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(QueryError::Unsupported(format!(
            "a statement of {} bytes is not supported; at most {SQL_BYTES_MAX} are",
            sql.len()
        )));
    }
    let syntax = |error: &ParserError| QueryError::syntax(error, sql);
    let dialect = GenericDialect {};
    let mut tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| syntax(&error.into()))?;
    asof::mark(&mut tokens);
    let depth = nesting::depth(&tokens);
    if depth > DEPTH_MAX {
        return Err(QueryError::Unsupported(format!(
            "a statement that nests and chains {depth} operators is not supported; at most {DEPTH_MAX} are; \
             for long lists of values there is IN"
        )));
    }
    let retried = nesting::retried(&tokens);
    if retried > RETRIED_MAX {
        return Err(QueryError::Unsupported(format!(
            "{retried} of CAST, SUBSTRING and their like within each other are not supported; at most {RETRIED_MAX} are"
        )));
    }
    let is_placeholder = |(_, token): &(usize, &TokenWithSpan)| matches!(token.token, Token::Placeholder(_));
    let written: Vec<(usize, TokenWithSpan)> =
        tokens.iter().enumerate().filter(is_placeholder).map(|(at, token)| (at, token.clone())).collect();
    number(&mut tokens)?;
    let is_space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_) | Token::SemiColon);
    let first = tokens.iter().position(|token| !is_space(token)).unwrap_or(tokens.len());
    match tokens.get(first).map(|token| &token.token) {
        Some(token) if is_word(token, "REFRESH") => {
            let tables = parse_tables("REFRESH", tokens.split_off(first)).map_err(|error| syntax(&error))?;
            return Ok(Parsed::Done(Statement::Refresh(tables)));
        }
        Some(token) if is_word(token, "OPTIMIZE") => {
            let tables = parse_tables("OPTIMIZE", tokens.split_off(first)).map_err(|error| syntax(&error))?;
            return Ok(Parsed::Done(Statement::Change(Box::new(Change::Optimize(tables)))));
        }
        Some(token) if is_word(token, "KILL") => {
            let target = parse_kill(tokens.split_off(first)).map_err(|error| syntax(&error))?;
            return Ok(Parsed::Done(Statement::Kill(target)));
        }
        Some(token) if is_word(token, "ALTER") => {
            if let Some(reset) = parse_reset(tokens[first..].to_vec()).map_err(|error| syntax(&error))? {
                return Ok(Parsed::Done(Statement::Change(Box::new(reset))));
            }
        }
        Some(token) if is_word(token, "COPY") => return Err(copy_is_for_clients()),
        Some(token) if is_word(token, "TABLE") => select_all(&mut tokens, first),
        _ => {}
    }
    let numbered = numbered(sql, &written, &tokens);
    if let Some(mut statement) = postgres::parse(&numbered, &tokens) {
        ast(&mut statement).into_iter().for_each(like::rewrite);
        return Ok(Parsed::Tree(statement));
    }
    let names_session = postgres::names_session(&tokens);
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&dialect)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| match error.find_root() {
            DataFusionError::SQL(error, _) => syntax(error),
            error => QueryError::Plan(tidy(&error.strip_backtrace())),
        })?;
    let first = statements.pop_front();
    if !statements.is_empty() {
        return Err(QueryError::Unsupported("more than one statement at a time is not supported".into()));
    }
    let Some(mut statement) = first else {
        return Err(QueryError::Syntax { message: "the statement is empty".into(), line: 1, column: 1 });
    };
    asof::nest(&mut statement);
    ast(&mut statement).into_iter().for_each(like::rewrite);
    Ok(Parsed::Tree(if names_session { postgres::rewritten(statement) } else { statement }))
}

/// `sql` with its placeholders, which are `written`, as they are in `tokens`; each with its place among them.
fn numbered<'a>(sql: &'a str, written: &[(usize, TokenWithSpan)], tokens: &[TokenWithSpan]) -> Cow<'a, str> {
    let changes = written.iter().filter_map(|(at, old)| tokens.get(*at).map(|new| (old, new)));
    let mut changes = changes.filter(|(old, new)| old.token != new.token).peekable();
    if changes.peek().is_none() {
        return Cow::Borrowed(sql);
    }
    let mut text = String::with_capacity(sql.len() + 16);
    let (mut line, mut column, mut hidden) = (1, 1, 0);
    for char in sql.chars() {
        if let Some((old, new)) =
            changes.next_if(|(old, _)| (old.span.start.line, old.span.start.column) == (line, column))
        {
            hidden = old.token.to_string().chars().count();
            text.push_str(&new.token.to_string());
        }
        if hidden > 0 {
            hidden -= 1;
        } else {
            text.push(char);
        }
        (line, column) = if char == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    Cow::Owned(text)
}

/// Checks a statement.
pub(crate) fn understand(mut statement: DfStatement) -> Result<Statement, QueryError> {
    if let Some(ast) = ast(&mut statement) {
        extent::check(ast)?;
    }
    match statement {
        DfStatement::Statement(ast) if Change::tag_of(&ast).is_some() => {
            Change::parse(*ast).map(|change| Statement::Change(Box::new(change)))
        }
        read => {
            check(&read)?;
            Ok(Statement::Read(read))
        }
    }
}

/// The statement inside of EXPLAIN.
pub(crate) fn ast(statement: &mut DfStatement) -> Option<&mut Ast> {
    match statement {
        DfStatement::Statement(ast) => Some(ast),
        DfStatement::Explain(ExplainStatement { statement, .. }) => ast(statement),
        DfStatement::CreateExternalTable(_) | DfStatement::CopyTo(_) | DfStatement::Reset(_) => None,
    }
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// `TABLE t` is short for `SELECT * FROM t`, which the parser knows.
fn select_all(tokens: &mut Vec<TokenWithSpan>, at: usize) {
    let span = tokens[at].span;
    let long = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
    tokens.splice(at..=at, long.map(|token| TokenWithSpan::new(token, span)));
}

/// The tables of `REFRESH TABLE a[, b]`, or of another `verb`.
fn parse_tables(verb: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<ObjectName>, ParserError> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    for wanted in [verb, "TABLE"] {
        let token = parser.next_token();
        if !is_word(&token.token, wanted) {
            return parser.expected(wanted, token);
        }
    }
    let tables = parser.parse_comma_separated(|parser| parser.parse_object_name(false))?;
    expect_end(&mut parser)?;
    Ok(tables)
}

/// `KILL ALL`, or `KILL` and the number of a statement, as a number or as text.
fn parse_kill(tokens: Vec<TokenWithSpan>) -> Result<Target, ParserError> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    parser.next_token();
    let token = parser.next_token();
    let target = match &token.token {
        all if is_word(all, "ALL") => Some(Target::All),
        Token::Number(id, _) | Token::SingleQuotedString(id) => id.parse().ok().map(Target::One),
        _ => None,
    };
    let Some(target) = target else { return parser.expected("ALL or an id of system.queries", token) };
    expect_end(&mut parser)?;
    Ok(target)
}

/// `ALTER TABLE t RESET (retention)`; `None` for another `ALTER`.
fn parse_reset(tokens: Vec<TokenWithSpan>) -> Result<Option<Change>, ParserError> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let reset = change::parse_reset(&mut parser)?;
    if reset.is_some() {
        expect_end(&mut parser)?;
    }
    Ok(reset)
}

fn expect_end(parser: &mut Parser<'_>) -> Result<(), ParserError> {
    while parser.consume_token(&Token::SemiColon) {}
    let token = parser.next_token();
    if token.token == Token::EOF { Ok(()) } else { parser.expected("end of statement", token) }
}

fn check(statement: &DfStatement) -> Result<(), QueryError> {
    match statement {
        DfStatement::Statement(statement) => check_ast(statement),
        DfStatement::Explain(ExplainStatement { statement, .. }) => check_explained(statement),
        DfStatement::CopyTo(_) => Err(copy_is_for_clients()),
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => Err(refused(&statement.to_string())),
    }
}

/// Only queries have plans.
fn check_explained(statement: &DfStatement) -> Result<(), QueryError> {
    match statement {
        DfStatement::Statement(ast) => match Change::tag_of(ast) {
            Some(tag) => Err(QueryError::Unsupported(format!(
                "EXPLAIN {tag} is not supported: only queries are explained; EXPLAIN SELECT with the same WHERE shows \
                 how rows are found"
            ))),
            None => check_ast(ast),
        },
        other => check(other),
    }
}

fn check_ast(statement: &Ast) -> Result<(), QueryError> {
    match statement {
        Ast::Query(query) => check_query(query),
        Ast::Explain { statement, .. } => check_ast(statement),
        Ast::ExplainTable { .. }
        | Ast::ShowTables { .. }
        | Ast::ShowColumns { .. }
        | Ast::ShowFunctions { .. }
        | Ast::ShowVariable { .. } => Ok(()),
        Ast::Copy { .. } => Err(copy_is_for_clients()),
        other => Err(refused(&other.to_string())),
    }
}

/// Files belong to whoever asks, not to the server: it neither reads nor writes them for a statement.
fn copy_is_for_clients() -> QueryError {
    QueryError::Unsupported(
        "COPY is not supported by the server, which reads and writes no files for a statement: `eden sql` runs COPY with \
         the files where it runs, and `eden import` and `eden export` do the same"
            .into(),
    )
}

/// A query that only reads. What hides deeper, in a CTE, DataFusion's plan is searched for again (`run`).
pub(crate) fn check_query(query: &Query) -> Result<(), QueryError> {
    if !query.locks.is_empty() {
        return Err(QueryError::Unsupported(
            "FOR UPDATE and FOR SHARE are not supported: rows are never locked".into(),
        ));
    }
    check_body(&query.body)
}

fn check_body(body: &SetExpr) -> Result<(), QueryError> {
    match body {
        SetExpr::Select(select) if select.into.is_some() => Err(refused("SELECT INTO")),
        SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => Ok(()),
        SetExpr::Query(query) => check_query(query),
        SetExpr::SetOperation { left, right, .. } => check_body(left).and_then(|()| check_body(right)),
        SetExpr::Insert(_) => Err(refused("INSERT")),
        SetExpr::Update(_) => Err(refused("UPDATE")),
        SetExpr::Delete(_) => Err(refused("DELETE")),
        SetExpr::Merge(_) => Err(refused("MERGE")),
    }
}

/// The first words of a statement, which are its name: `CREATE EXTERNAL TABLE`.
fn refused(statement: &str) -> QueryError {
    let is_keyword = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
    let words: Vec<&str> = statement.split_whitespace().take_while(is_keyword).take(3).collect();
    let name = if words.is_empty() { "this statement".to_owned() } else { words.join(" ") };
    QueryError::Unsupported(format!("{name} is not supported; supported are {SUPPORTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_read_are_allowed() {
        for sql in [
            "SELECT 1",
            "select * from t;",
            ";;SELECT 1;;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1), (2)",
            "TABLE t",
            " table t ORDER BY a LIMIT 1;",
            "(SELECT 1) UNION ALL (SELECT 2)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE VERBOSE SELECT 1",
            "EXPLAIN FORMAT tree SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM t",
            "SHOW datafusion.execution.batch_size",
            "SHOW ALL",
            "SHOW FUNCTIONS LIKE 'date%'",
            "DESCRIBE t",
            "DESC t",
        ] {
            assert!(matches!(parse(sql), Ok(Statement::Read(_))), "{sql}: {:?}", parse(sql));
        }
    }

    #[test]
    fn everything_else_is_refused_by_its_name() {
        for (sql, name) in [
            ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/x'", "CREATE EXTERNAL TABLE"),
            ("TRUNCATE TABLE t", "TRUNCATE TABLE"),
            ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "INSERT"),
            ("SET a = 1", "SET"),
            ("RESET a", "RESET"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
            ("DROP VIEW v", "DROP VIEW"),
            ("SELECT 1 INTO t", "SELECT INTO"),
            ("BEGIN", "BEGIN"),
        ] {
            match parse(sql) {
                Err(QueryError::Unsupported(message)) => {
                    assert!(message.starts_with(&format!("{name} ")), "{sql}: {message}");
                    assert!(message.ends_with("REFRESH TABLE"), "{message}");
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn copy_is_refused_with_the_commands_that_do_it() {
        for sql in [
            "COPY t TO '/tmp/x.csv'",
            "COPY (SELECT 1) TO '/tmp/x.csv'",
            "COPY t (a, b) FROM '/etc/passwd' WITH (FORMAT csv)",
            " copy t FROM STDIN",
            "EXPLAIN COPY t TO '/tmp/x.csv'",
        ] {
            match parse(sql) {
                Err(QueryError::Unsupported(message)) => assert!(message.contains("`eden import`"), "{sql}: {message}"),
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn one_statement_at_a_time() {
        assert!(matches!(parse("SELECT 1; SELECT 2"), Err(QueryError::Unsupported(_))));
        for sql in ["", " ;", "-- nothing"] {
            assert!(matches!(parse(sql), Err(QueryError::Syntax { .. })), "{sql}");
        }
    }

    #[test]
    fn a_syntax_error_has_a_place() {
        for (sql, place) in [
            ("SELECT * FRM t", (1, 10)),
            ("SELECT *\n  FROM t WHERE", (2, 15)),
            ("SELECT (", (1, 9)),
            ("SELECT 'abc", (1, 8)),
            ("REFRESH t", (1, 9)),
            ("REFRESH TABLE t u", (1, 17)),
            ("KILL", (1, 5)),
            ("KILL 'a'", (1, 6)),
            ("KILL 1 2", (1, 8)),
        ] {
            match parse(sql) {
                Err(QueryError::Syntax { line, column, message }) => {
                    assert_eq!((line, column), place, "{sql}: {message}");
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let nested = |n| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
        assert!(matches!(parse(&nested(400)), Err(QueryError::Syntax { .. })));
        assert!(matches!(parse(&nested(1_000_000)), Err(QueryError::Unsupported(_))));
        assert!(matches!(parse(&format!("SELECT 1{}", " OR 1".repeat(100_000))), Err(QueryError::Unsupported(_))));
        assert!(matches!(parse(&" ".repeat(SQL_BYTES_MAX + 1)), Err(QueryError::Unsupported(_))));
        assert!(parse(&format!("SELECT a IN ({}-1)", "-1, ".repeat(100_000))).is_ok());
    }

    #[test]
    fn kill_takes_one_or_all() {
        for (sql, expected) in
            [("KILL 17", Target::One(17)), ("kill '17';", Target::One(17)), ("KILL ALL", Target::All)]
        {
            assert!(matches!(parse(sql), Ok(Statement::Kill(target)) if target == expected), "{sql}: {:?}", parse(sql));
        }
    }

    #[test]
    fn who_looks_at_the_server_is_told_apart() {
        for (sql, expected) in [
            ("SELECT * FROM system.queries", true),
            ("SELECT id FROM eden.System.queries q JOIN system.tables USING (id)", true),
            ("SELECT * FROM system.queries, t", false),
            ("SELECT * FROM system.queries WHERE id IN (SELECT id FROM t)", false),
            ("SELECT * FROM system.queries, generate_series(1, 10)", false),
            ("SELECT 1", false),
            ("SELECT id FROM sys.jobs", true),
        ] {
            assert_eq!(parse(sql).unwrap().only_looks_at_the_server(), expected, "{sql}");
        }
    }

    #[test]
    fn placeholders_are_renamed_where_they_stand() {
        for (sql, expected) in [
            (
                "SELECT ?, '?' -- ?\n, \"?\", ü.? FROM pg_class WHERE a = ?",
                "SELECT $1, '?' -- ?\n, \"?\", ü.$2 FROM pg_class WHERE a = $3",
            ),
            ("SELECT $1", "SELECT $1"),
        ] {
            let mut tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap();
            let written: Vec<_> = tokens.iter().cloned().enumerate().collect();
            parameters::number(&mut tokens).unwrap();
            assert_eq!(numbered(sql, &written, &tokens), expected);
        }
        for sql in
            ["SELECT $b, $a, current_user", "SELECT attname FROM pg_attribute WHERE attname = $b AND attnum = $a"]
        {
            let values = [ScalarValue::Int64(Some(1)), ScalarValue::from("x")];
            let statement = parse_named(sql, &["a".into(), "b".into()], &values).unwrap();
            let Statement::Read(statement) = statement else { panic!("{sql}") };
            let text = statement.to_string();
            assert!(text.contains("'x'") && text.find("'x'") < text.rfind('1'), "{text}");
        }
    }

    #[test]
    fn a_comment_of_another_dialect_hides_no_depth() {
        let sql = format!("SELECT current_user --\r, {}", "1+".repeat(600_000));
        assert!(parse(&(sql + "1\n")).is_ok(), "the rest is a comment");
    }

    #[test]
    fn refresh_takes_tables() {
        for (sql, expected) in [
            ("REFRESH TABLE t", &["t"][..]),
            ("-- now\nrefresh table doc.t, \"My Table\" ;", &["doc.t", "\"My Table\""]),
        ] {
            match parse(sql) {
                Ok(Statement::Refresh(tables)) => {
                    assert_eq!(tables.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
    }
}
