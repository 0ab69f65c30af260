//! `COPY` as `eden sql` understands it: the shell reads and writes the files, the server never does.
//!
//! Owns:     the statement's grammar, PostgreSQL's as far as it has a meaning here.
//! Does not: run anything but imports and exports.

use std::path::{Path, PathBuf};

use model::TableName;
use model::name::PUBLIC;

use super::export::{self, What};
use super::{Format, import};
use crate::client::Client;
use crate::failure::Failure;
use crate::http::influx::schema::of_database;
use decode::time::TimeFormat;

/// How it is written, for errors.
const FORM: &str = "COPY t [(a, b)] FROM 'file' [WITH (FORMAT csv, TAGS 'a,b')], COPY t TO 'file' or COPY (SELECT …) TO \
                    'file'; STDIN and STDOUT are possible in place of a file";

/// Whether standard input holds the statements themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// It is free for `COPY … FROM STDIN`.
    Free,
    /// Statements are read from it.
    Statements,
}

/// A statement that was understood.
#[derive(Clone, Debug)]
enum Copy {
    From(import::Options),
    To(export::Options),
}

/// Runs `statement` if it is a COPY; returns the line that says what was done, for people.
///
/// # Errors
/// If it is one and is not understood, or fails.
pub fn run(statement: &str, input: Input, client: &Client) -> Option<Result<String, Failure>> {
    let tokens = match tokens(statement) {
        Ok(tokens) => tokens,
        Err(what) => {
            let is_copy = statement.trim_start().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("copy"));
            return is_copy.then(|| Err(Failure::work(format!("{what}; right is {FORM}"))));
        }
    };
    tokens.first().filter(|token| token.is_word("copy"))?;
    let mut parser = Parser { tokens: &tokens, at: 1, statement };
    Some(parser.copy().map_err(|what| Failure::work(format!("{what}; right is {FORM}"))).and_then(|copy| match copy {
        Copy::From(options) if input == Input::Statements && options.paths == [PathBuf::from("-")] => Err(Failure::usage(
            "standard input holds the statements, so COPY cannot read rows from it; give the statement as an argument: \
             eden sql \"COPY t FROM STDIN\" < file",
        )),
        Copy::From(options) => {
            let import::Outcome { stored, refused, .. } = import::run(&options, client)?;
            match refused {
                0 => Ok(format!("COPY {stored}\n")),
                refused => Err(Failure::work(format!("COPY {stored}, and {refused} rows were refused"))),
            }
        }
        Copy::To(options) => export::run(&options, client).map(|rows| format!("COPY {rows}\n")),
    }))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Unquoted name, keyword or number, as it stands there.
    Word(String),
    Name(String),
    Text(String),
    Sign(char),
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

impl Token {
    fn is_word(&self, wanted: &str) -> bool {
        matches!(&self.kind, Kind::Word(word) if word.eq_ignore_ascii_case(wanted))
    }
}

fn tokens(statement: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(char) = statement[at..].chars().next() {
        let rest = &statement[at..];
        let start = at;
        let kind = if char.is_whitespace() {
            at += char.len_utf8();
            continue;
        } else if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
            continue;
        } else if matches!(char, '\'' | '"') {
            let (text, len) = quoted(rest, char).ok_or("a quote is not closed")?;
            at += len;
            if char == '"' { Kind::Name(text) } else { Kind::Text(text) }
        } else if char.is_alphanumeric() || char == '_' {
            let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            at += len;
            Kind::Word(rest[..len].to_owned())
        } else {
            at += char.len_utf8();
            Kind::Sign(char)
        };
        tokens.push(Token { kind, start, end: at });
    }
    Ok(tokens)
}

/// The text in quotes at the beginning of `rest`, a doubled quote being one, and how long it is with them.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        if char != quote {
            text.push(char);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            chars.next();
            text.push(quote);
        } else {
            return Some((text, at + 1));
        }
    }
    None
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    statement: &'a str,
}

/// What `WITH` says.
#[derive(Debug, Default)]
struct With {
    format: Option<Format>,
    header: Option<bool>,
    delimiter: Option<u8>,
    tags: Option<Vec<String>>,
    time: Option<String>,
    time_format: TimeFormat,
    is_strict: bool,
}

impl<'a> Parser<'a> {
    fn copy(&mut self) -> Result<Copy, String> {
        if self.sign('(') {
            let query = self.query()?;
            self.expect("to")?;
            return self.to(What::Query(query));
        }
        let table = self.table()?;
        let columns = if self.sign('(') { Some(self.names()?) } else { None };
        if self.word("to") {
            return self.to(match columns {
                None => What::Table(table),
                Some(columns) => What::Columns(table, columns),
            });
        }
        self.expect("from")?;
        let path = self.file("stdin")?;
        let with = self.with()?;
        let has_header = with.header.unwrap_or(columns.is_none());
        let format = with.format.or(if path == Path::new("-") { Some(Format::Csv) } else { None });
        let is_csv = format.or(super::of_name(&path).0) == Some(Format::Csv);
        if !is_csv && (columns.is_some() || with.header.is_some() || with.delimiter.is_some()) {
            return Err("names of columns, HEADER and DELIMITER are for CSV; other formats name their columns".into());
        }
        if format.or(super::of_name(&path).0) == Some(Format::Lp) {
            return Err("line protocol names its own tables: use eden import, or eden write".into());
        }
        Ok(Copy::From(import::Options {
            paths: vec![path],
            table: Some(table),
            format,
            tags: with.tags,
            time: with.time,
            time_format: with.time_format,
            is_strict: with.is_strict,
            delimiter: with.delimiter.unwrap_or(b','),
            columns,
            has_header,
            ..import::Options::default()
        }))
    }

    fn to(&mut self, what: What) -> Result<Copy, String> {
        let path = self.file("stdout")?;
        let with = self.with()?;
        if with.tags.is_some() || with.time.is_some() || with.is_strict {
            return Err("TAGS, TIME and STRICT are for COPY FROM".into());
        }
        Ok(Copy::To(export::Options {
            format: with.format,
            delimiter: with.delimiter.unwrap_or(b','),
            has_header: with.header.unwrap_or(true),
            ..export::Options::new(what, path)
        }))
    }

    /// The text up to the parenthesis that closes the one before.
    fn query(&mut self) -> Result<String, String> {
        let start = self.peek().map_or(self.statement.len(), |token| token.start);
        let mut depth = 1;
        while let Some(token) = self.next() {
            match token.kind {
                Kind::Sign('(') => depth += 1,
                Kind::Sign(')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(self.statement[start..token.start].trim().to_owned());
            }
        }
        Err("the query's parenthesis is not closed".into())
    }

    fn table(&mut self) -> Result<TableName, String> {
        let first = self.name()?;
        if self.sign('.') {
            let table = self.name()?;
            return Ok(TableName::new(of_database(&first), &table));
        }
        Ok(TableName::new(PUBLIC, &first))
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next().map(|token| token.kind.clone()) {
            // As SQL folds it; where that finds nothing, the server takes the one that differs by case only.
            Some(Kind::Word(word)) => Ok(word.to_lowercase()),
            Some(Kind::Name(name)) => Ok(name),
            other => Err(self.unexpected("a name", other)),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, String> {
        let mut names = vec![self.name()?];
        while self.sign(',') {
            names.push(self.name()?);
        }
        if self.sign(')') { Ok(names) } else { Err("the list of columns is not closed".into()) }
    }

    fn file(&mut self, standard: &str) -> Result<PathBuf, String> {
        match self.next().map(|token| token.kind.clone()) {
            Some(Kind::Text(path)) if !path.is_empty() => Ok(path.into()),
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case(standard) => Ok("-".into()),
            other => Err(self.unexpected(&format!("a file in quotes or {}", standard.to_uppercase()), other)),
        }
    }

    fn with(&mut self) -> Result<With, String> {
        let mut with = With::default();
        self.word("with");
        if self.sign('(') {
            loop {
                self.option(&mut with)?;
                if !self.sign(',') {
                    break;
                }
            }
            if !self.sign(')') {
                return Err("the options are not closed".into());
            }
        } else {
            // As PostgreSQL had it before its version 9: `CSV HEADER`.
            if self.word("csv") {
                with.format = Some(Format::Csv);
            }
            if self.word("header") {
                with.header = Some(true);
            }
        }
        match self.next().map(|token| token.kind.clone()) {
            None => Ok(with),
            other => Err(self.unexpected("the end", other)),
        }
    }

    fn option(&mut self, with: &mut With) -> Result<(), String> {
        let name = self.name()?;
        match name.as_str() {
            "header" => with.header = Some(self.truth()?),
            "strict" => with.is_strict = self.truth()?,
            "format" => {
                let word = self.value()?;
                let format = Format::of_word(&word);
                with.format =
                    Some(format.ok_or_else(|| format!("{word:?} is no format; right is csv, jsonl or parquet"))?);
            }
            "delimiter" => {
                let text = self.value()?;
                let byte = text.as_bytes().first().copied().filter(|byte| text.len() == 1 && *byte != b'"');
                with.delimiter =
                    Some(byte.ok_or_else(|| format!("{text:?} is no delimiter; right is one such as ';'"))?);
            }
            "tags" => {
                let text = self.value()?;
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                with.tags = Some(names.map(str::to_owned).collect());
            }
            "time" => with.time = Some(self.value()?),
            "time_format" => {
                let word = self.value()?;
                let format = TimeFormat::of_word(&word);
                with.time_format = format
                    .ok_or_else(|| format!("{word:?} is no TIME_FORMAT; right is auto, rfc3339, s, ms, us or ns"))?;
            }
            other => {
                return Err(format!(
                    "the option {other:?} is not known; there are FORMAT, HEADER, DELIMITER, TAGS, TIME, TIME_FORMAT and STRICT"
                ));
            }
        }
        Ok(())
    }

    fn truth(&mut self) -> Result<bool, String> {
        if self.peek().is_none_or(|token| matches!(token.kind, Kind::Sign(',' | ')'))) {
            return Ok(true);
        }
        match self.value()?.to_lowercase().as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        match self.next().map(|token| token.kind.clone()) {
            Some(Kind::Word(text) | Kind::Text(text) | Kind::Name(text)) => Ok(text),
            other => Err(self.unexpected("a value", other)),
        }
    }

    fn unexpected(&self, wanted: &str, found: Option<Kind>) -> String {
        let place = self.tokens.get(self.at.saturating_sub(1)).map_or(0, |token| token.end);
        match found {
            Some(_) => {
                format!("expected {wanted} before character {place} of {}", super::record::shown(self.statement))
            }
            None => format!("expected {wanted} at the end of {}", super::record::shown(self.statement)),
        }
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        if self.word(wanted) {
            return Ok(());
        }
        let found = self.next().map(|token| token.kind.clone());
        Err(self.unexpected(&wanted.to_uppercase(), found))
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    fn word(&mut self, wanted: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_word(wanted));
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, wanted: char) -> bool {
        let found = self.peek().is_some_and(|token| token.kind == Kind::Sign(wanted));
        self.at += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(statement: &str) -> Result<Copy, String> {
        let tokens = tokens(statement)?;
        assert!(tokens[0].is_word("copy"), "{statement}");
        Parser { tokens: &tokens, at: 1, statement }.copy()
    }

    fn from(statement: &str) -> import::Options {
        match parse(statement) {
            Ok(Copy::From(options)) => options,
            other => panic!("{statement}: {other:?}"),
        }
    }

    fn to(statement: &str) -> export::Options {
        match parse(statement) {
            Ok(Copy::To(options)) => options,
            other => panic!("{statement}: {other:?}"),
        }
    }

    #[test]
    fn copy_from_is_an_import() {
        let options =
            from("COPY Plant.\"Press\" FROM 'a b.csv' WITH (TAGS 'line,machine', TIME ts, TIME_FORMAT ms, STRICT)");
        assert_eq!(options.table, Some(TableName::new("plant", "Press")));
        assert_eq!(options.paths, [PathBuf::from("a b.csv")]);
        assert_eq!(options.tags.unwrap(), ["line", "machine"]);
        assert_eq!((options.time.as_deref(), options.time_format), (Some("ts"), TimeFormat::Ms));
        assert!(options.is_strict && options.has_header);
        let options = from("-- why\ncopy t (time, \"A\") from stdin (delimiter ';')");
        assert_eq!((options.paths, options.format), (vec!["-".into()], Some(Format::Csv)));
        assert_eq!((options.columns.unwrap(), options.delimiter), (vec!["time".to_owned(), "A".to_owned()], b';'));
        assert!(!options.has_header);
        assert!(from("COPY t (a, time) FROM 'x' (FORMAT csv, HEADER true)").has_header);
        assert!(!from("COPY t FROM 'x' (FORMAT 'csv', HEADER false)").has_header);
        assert!(from("COPY t FROM 'x' CSV HEADER").has_header);
        assert_eq!(from("COPY t FROM 'x.jsonl'").format, None);
    }

    #[test]
    fn copy_to_is_an_export() {
        let options = to("COPY t TO 'a.parquet'");
        assert_eq!(options.what, What::Table(TableName::new("public", "t")));
        let options = to("COPY t (a, time) TO STDOUT WITH (FORMAT jsonl)");
        assert_eq!(options.what, What::Columns(TableName::new("public", "t"), vec!["a".into(), "time".into()]));
        assert_eq!((options.output, options.format), ("-".into(), Some(Format::Jsonl)));
        let options = to("COPY (SELECT ')', count(*) FROM t) TO 'it''s.csv' (HEADER off)");
        assert_eq!(options.what, What::Query("SELECT ')', count(*) FROM t".into()));
        assert_eq!((options.output, options.has_header), ("it's.csv".into(), false));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (statement, said) in [
            ("COPY t", "expected FROM at the end"),
            ("COPY t FROM", "expected a file in quotes or STDIN"),
            ("COPY t FROM x.csv", "expected a file in quotes or STDIN"),
            ("COPY t FROM 'x' (FORMAT xml)", "\"xml\" is no format"),
            ("COPY t FROM 'x' (QUOTE 'a')", "the option \"quote\" is not known"),
            ("COPY t FROM 'x.csv' WHERE a", "expected the end"),
            ("COPY t (a) FROM 'x.jsonl'", "are for CSV"),
            ("COPY t FROM 'x.lp'", "names its own tables"),
            ("COPY t TO 'x' (TAGS 'a')", "are for COPY FROM"),
            ("COPY (SELECT 1 TO 'x'", "is not closed"),
            ("COPY t TO 'x", "a quote is not closed"),
        ] {
            let error = parse_any(statement);
            assert!(error.contains(said), "{statement}: {error}");
        }
    }

    fn parse_any(statement: &str) -> String {
        match tokens(statement) {
            Ok(_) => parse(statement).unwrap_err(),
            Err(what) => what,
        }
    }
}
