//! Statements that the protocol's room carries out itself: those about the session, and `COPY`.
//!
//! Owns:     parting what a client sends into statements, and telling those from what the query engine runs.
//! Does not: understand queries: what is not recognised here goes to the engine as it was written.

use super::error::Failed;

/// What a statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing: blanks and comments.
    Empty,
    /// The engine runs it.
    Query,
    /// `SET`; without a value `SET … TO DEFAULT`.
    Set {
        /// The parameter.
        name: String,
        /// Its value.
        value: Option<String>,
        /// Until the end of the transaction.
        local: bool,
    },
    /// `SET TRANSACTION`, or `SET SESSION CHARACTERISTICS AS TRANSACTION`.
    Characteristics {
        /// Whether for all that follow.
        session: bool,
        /// Whether they only read, if that is said.
        read_only: Option<bool>,
    },
    /// `SHOW` of a parameter.
    Show(String),
    /// `SHOW ALL`.
    ShowAll,
    /// `RESET`, of one or of all.
    Reset(Option<String>),
    /// `BEGIN`.
    Begin {
        /// Whether it only reads, if that is said.
        read_only: Option<bool>,
    },
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`: with the tag that answers it.
    Savepoint(&'static str),
    /// `DEALLOCATE`, of one or of all.
    Deallocate(Option<String>),
    /// `DISCARD`: all that a session has.
    DiscardAll,
    /// `CLOSE ALL`, `UNLISTEN`: there is nothing to close, with the tag that answers it.
    Nothing(&'static str),
    /// `COPY … TO STDOUT` or `FROM STDIN`.
    Copy(Box<Copy>),
}

/// A `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied out: a query.
    pub from_query: Option<String>,
    /// Where rows are copied into, as written, if this is the way.
    pub into: Option<String>,
    /// Its columns, if they are named.
    pub columns: Vec<String>,
    /// How rows are written.
    pub format: CopyFormat,
}

/// How rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFormat {
    /// Whether as CSV.
    pub csv: bool,
    /// Whether the first line is the columns' names.
    pub header: bool,
    /// Between values.
    pub delimiter: u8,
    /// What stands for null.
    pub null: String,
    /// Around values, in CSV.
    pub quote: u8,
}

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// In double quotes.
    Name(String),
    /// In single quotes.
    Text(String),
    Symbol(char),
    /// What stands in parentheses.
    Group(String),
}

/// Statements, each with the byte where it begins. What a semicolon ends is one, unless it is quoted or in a comment.
pub fn split(sql: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < sql.len() {
        if sql.as_bytes()[at] == b';' {
            found.push((start, &sql[start..at]));
            start = at + 1;
            at += 1;
        } else {
            at = after(sql, at);
        }
    }
    found.push((start, &sql[start..]));
    found.retain(|(_, text)| !is_blank(text));
    for (start, text) in &mut found {
        *start += text.len() - text.trim_start().len();
        *text = text.trim();
    }
    found
}

/// Where what begins at `at` ends: a quoted text, a comment, or one character.
fn after(sql: &str, at: usize) -> usize {
    let rest = &sql[at..];
    let bytes = rest.as_bytes();
    let past = |end: Option<usize>, length: usize| at + end.map_or(rest.len(), |end| end + length);
    match bytes[0] {
        b'\'' => {
            let is_escaped = at > 0 && matches!(sql.as_bytes()[at - 1], b'e' | b'E');
            let mut end = 1;
            while end < bytes.len() && bytes[end] != b'\'' {
                end += if is_escaped && bytes[end] == b'\\' { 2 } else { 1 };
            }
            at + (end + 1).min(rest.len())
        }
        b'"' => past(rest[1..].find('"').map(|end| end + 1), 1),
        b'-' if rest.starts_with("--") => past(rest.find('\n'), 1),
        b'/' if rest.starts_with("/*") => {
            let (mut depth, mut end) = (1, 2);
            while depth > 0 && end < bytes.len() {
                let here = &bytes[end..];
                if here.starts_with(b"*/") {
                    depth -= 1;
                    end += 2;
                } else if here.starts_with(b"/*") {
                    depth += 1;
                    end += 2;
                } else {
                    end += 1;
                }
            }
            at + end
        }
        b'$' => {
            let tag = rest[1..].find('$').map(|end| &rest[..end + 2]);
            let is_tag = |tag: &&str| {
                tag[1..].chars().next().is_some_and(|c| !c.is_ascii_digit())
                    && tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_')
            };
            match tag.filter(is_tag) {
                Some(tag) => past(rest[tag.len()..].find(tag).map(|end| end + tag.len()), tag.len()),
                None => at + 1,
            }
        }
        _ => at + rest.chars().next().map_or(1, char::len_utf8),
    }
}

/// Whether there is nothing but blanks and comments.
fn is_blank(sql: &str) -> bool {
    tokens(sql, 1).is_empty()
}

/// The first `limit` pieces of a statement.
fn tokens(sql: &str, limit: usize) -> Vec<Token> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() && found.len() < limit {
        let char = sql[at..].chars().next().unwrap_or_default();
        let end = after(sql, at);
        let inner = || sql.get(at + 1..end - 1).unwrap_or_default();
        match char {
            '\'' => found.push(Token::Text(inner().replace("''", "'"))),
            '"' => found.push(Token::Name(inner().to_owned())),
            '-' | '/' if end > at + 1 => {}
            '(' => {
                let (mut depth, mut to) = (1, at + 1);
                while depth > 0 && to < sql.len() {
                    depth = match sql.as_bytes()[to] {
                        b'(' => depth + 1,
                        b')' => depth - 1,
                        _ => depth,
                    };
                    to = after(sql, to);
                }
                let close = if depth == 0 { to - 1 } else { to };
                found.push(Token::Group(sql[at + 1..close].to_owned()));
                at = to;
                continue;
            }
            c if c.is_whitespace() => {}
            c if c.is_alphanumeric() || c == '_' => {
                let length: usize = sql[at..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$'))
                    .map(char::len_utf8)
                    .sum();
                found.push(Token::Word(sql[at..at + length].to_owned()));
                at += length;
                continue;
            }
            other => found.push(Token::Symbol(other)),
        }
        at = end;
    }
    found
}

/// Pieces that are taken one by one.
struct Pieces(std::iter::Peekable<std::vec::IntoIter<Token>>);

impl Pieces {
    fn word(&mut self, wanted: &str) -> bool {
        self.0.next_if(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted))).is_some()
    }

    /// The first that is there.
    fn any(&mut self, wanted: &[&'static str]) -> Option<&'static str> {
        wanted.iter().copied().find(|wanted| self.word(wanted))
    }

    fn name(&mut self) -> Option<String> {
        match self.0.next() {
            Some(Token::Word(word)) => Some(word),
            Some(Token::Name(name) | Token::Text(name)) => Some(name),
            _ => None,
        }
    }

    fn symbol(&mut self, wanted: char) -> bool {
        self.0.next_if_eq(&Token::Symbol(wanted)).is_some()
    }

    fn is_done(&mut self) -> bool {
        self.0.peek().is_none()
    }

    /// What a parameter is set to: words, numbers, texts, parted by commas.
    fn value(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut parts = 0;
        loop {
            let sign = if self.symbol('-') { "-" } else { "" };
            match self.0.next()? {
                Token::Word(word) => value.push_str(&format!("{sign}{word}")),
                Token::Text(text) | Token::Name(text) => value.push_str(&text),
                _ => return None,
            }
            parts += 1;
            if !self.symbol(',') {
                break;
            }
            value.push_str(", ");
        }
        (parts > 0 && self.is_done()).then_some(value)
    }

    /// `READ ONLY`, `READ WRITE`, `ISOLATION LEVEL …`, `DEFERRABLE`: whether it only reads, if that is said.
    fn modes(&mut self) -> Result<Option<bool>, Failed> {
        let mut read_only = None;
        while !self.is_done() {
            let _ = self.symbol(',');
            if self.word("READ") {
                read_only = match self.any(&["ONLY", "WRITE"]) {
                    Some("ONLY") => Some(true),
                    Some(_) => Some(false),
                    None => return Err(unexpected("READ ONLY or READ WRITE")),
                };
            } else if self.word("ISOLATION") {
                let level = self.word("LEVEL") && self.any(&["SERIALIZABLE", "REPEATABLE", "READ"]).is_some();
                if !level {
                    return Err(unexpected("ISOLATION LEVEL and one of the four"));
                }
                let _ = self.any(&["COMMITTED", "UNCOMMITTED", "READ"]);
            } else if self.word("NOT") || self.word("DEFERRABLE") {
                let _ = self.word("DEFERRABLE");
            } else {
                return Err(unexpected("READ ONLY, READ WRITE or ISOLATION LEVEL"));
            }
        }
        Ok(read_only)
    }
}

fn unexpected(wanted: &str) -> Failed {
    Failed::new("42601", format!("expected {wanted}"))
}

/// Pieces that a statement of a session has at most.
const PIECES_MAX: usize = 200;

impl Command {
    /// What one statement asks for. `is_parameter` knows the names that `SHOW` shows.
    ///
    /// # Errors
    /// `42601` for a statement of the session that is not understood.
    pub fn parse(sql: &str, is_parameter: fn(&str) -> bool) -> Result<Command, Failed> {
        let Some(Token::Word(first)) = tokens(sql, 1).into_iter().next() else {
            return Ok(if is_blank(sql) { Command::Empty } else { Command::Query });
        };
        let first = first.to_ascii_uppercase();
        const OURS: [&str; 17] = [
            "SET",
            "SHOW",
            "RESET",
            "BEGIN",
            "START",
            "COMMIT",
            "END",
            "ROLLBACK",
            "ABORT",
            "SAVEPOINT",
            "RELEASE",
            "DEALLOCATE",
            "DISCARD",
            "CLOSE",
            "UNLISTEN",
            "COPY",
            "LISTEN",
        ];
        if !OURS.contains(&first.as_str()) {
            return Ok(Command::Query);
        }
        let mut all = tokens(sql, PIECES_MAX).into_iter();
        // The first, which is known.
        all.next();
        let mut pieces = Pieces(all.peekable());
        let command = match first.as_str() {
            "SET" => return set(&mut pieces),
            "SHOW" => {
                if pieces.word("ALL") {
                    return Ok(Command::ShowAll);
                }
                if pieces.word("TIME") && pieces.word("ZONE") {
                    return Ok(Command::Show("TimeZone".to_owned()));
                }
                if pieces.word("TRANSACTION") {
                    return Ok(Command::Show("transaction_isolation".to_owned()));
                }
                return Ok(match pieces.name() {
                    Some(name) if pieces.is_done() && is_parameter(&name) => Command::Show(name),
                    _ => Command::Query,
                });
            }
            "RESET" => match pieces.name() {
                Some(name) if name.eq_ignore_ascii_case("ALL") => Command::Reset(None),
                Some(name) if name.eq_ignore_ascii_case("TIME") && pieces.word("ZONE") => {
                    Command::Reset(Some("TimeZone".to_owned()))
                }
                Some(name) => Command::Reset(Some(name)),
                None => return Err(unexpected("the name of a parameter")),
            },
            "BEGIN" | "START" => {
                let _ = pieces.any(&["TRANSACTION", "WORK"]);
                Command::Begin { read_only: pieces.modes()? }
            }
            "COMMIT" | "END" => {
                let _ = pieces.any(&["TRANSACTION", "WORK"]);
                Command::Commit
            }
            "ROLLBACK" | "ABORT" => {
                let _ = pieces.any(&["TRANSACTION", "WORK"]);
                if pieces.word("TO") {
                    let _ = pieces.word("SAVEPOINT");
                    let _ = pieces.name();
                    Command::Savepoint("ROLLBACK")
                } else {
                    Command::Rollback
                }
            }
            "SAVEPOINT" => {
                let _ = pieces.name();
                Command::Savepoint("SAVEPOINT")
            }
            "RELEASE" => {
                let _ = pieces.word("SAVEPOINT");
                let _ = pieces.name();
                Command::Savepoint("RELEASE")
            }
            "DEALLOCATE" => {
                let _ = pieces.word("PREPARE");
                match pieces.name() {
                    Some(name) if name.eq_ignore_ascii_case("ALL") => Command::Deallocate(None),
                    Some(name) => Command::Deallocate(Some(name)),
                    None => return Err(unexpected("the name of a prepared statement")),
                }
            }
            "DISCARD" => match pieces.any(&["ALL", "PLANS", "TEMP", "TEMPORARY", "SEQUENCES"]) {
                Some("ALL") => Command::DiscardAll,
                Some(_) => Command::Nothing("DISCARD"),
                None => return Err(unexpected("ALL, PLANS, TEMP or SEQUENCES")),
            },
            "CLOSE" if pieces.word("ALL") => Command::Nothing("CLOSE CURSOR ALL"),
            "UNLISTEN" => {
                let _ = pieces.0.next();
                Command::Nothing("UNLISTEN")
            }
            "LISTEN" => return Err(Failed::new("0A000", "LISTEN is not supported: nobody notifies")),
            "COPY" => return copy(&mut pieces).map(|copy| Command::Copy(Box::new(copy))),
            _ => return Ok(Command::Query),
        };
        if !pieces.is_done() {
            return Err(unexpected(&format!("the end of {first}")));
        }
        Ok(command)
    }
}

fn set(pieces: &mut Pieces) -> Result<Command, Failed> {
    let scope = pieces.any(&["SESSION", "LOCAL"]);
    if scope == Some("SESSION") && pieces.word("CHARACTERISTICS") {
        if !(pieces.word("AS") && pieces.word("TRANSACTION")) {
            return Err(unexpected("AS TRANSACTION"));
        }
        return Ok(Command::Characteristics { session: true, read_only: pieces.modes()? });
    }
    if pieces.word("TRANSACTION") {
        return Ok(Command::Characteristics { session: false, read_only: pieces.modes()? });
    }
    let local = scope == Some("LOCAL");
    let (name, needs_sign) = match pieces.name() {
        Some(word) if word.eq_ignore_ascii_case("TIME") && pieces.word("ZONE") => ("TimeZone".to_owned(), false),
        Some(word) if word.eq_ignore_ascii_case("NAMES") => ("client_encoding".to_owned(), false),
        Some(name) => (name, true),
        None => return Err(unexpected("the name of a parameter")),
    };
    if needs_sign && !(pieces.symbol('=') || pieces.word("TO")) {
        return Err(unexpected("= or TO"));
    }
    if pieces.word("DEFAULT") && pieces.is_done() {
        return Ok(Command::Set { name, value: None, local });
    }
    let value = pieces.value().ok_or_else(|| unexpected("a value"))?;
    Ok(Command::Set { name, value: Some(value), local })
}

fn copy(pieces: &mut Pieces) -> Result<Copy, Failed> {
    let mut from_query = None;
    let mut table = String::new();
    let mut columns = Vec::new();
    if let Some(Token::Group(query)) = pieces.0.next_if(|token| matches!(token, Token::Group(_))) {
        from_query = Some(query);
    } else {
        loop {
            match pieces.0.next() {
                Some(Token::Word(word)) => table.push_str(&word),
                Some(Token::Name(name)) => table.push_str(&format!("\"{name}\"")),
                _ => return Err(unexpected("a table or a query in parentheses")),
            }
            let goes_on = table.ends_with('.') || pieces.symbol('.').then(|| table.push('.')).is_some();
            if !goes_on {
                break;
            }
        }
        if let Some(Token::Group(list)) = pieces.0.next_if(|token| matches!(token, Token::Group(_))) {
            for part in tokens(&list, PIECES_MAX) {
                match part {
                    Token::Word(word) => columns.push(word.to_ascii_lowercase()),
                    Token::Name(name) => columns.push(name),
                    Token::Symbol(',') => {}
                    _ => return Err(unexpected("names of columns")),
                }
            }
        }
    }
    let into = match pieces.any(&["TO", "FROM"]) {
        Some("TO") => {
            if from_query.is_none() {
                let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
                let list = if columns.is_empty() {
                    "*".into()
                } else {
                    columns.iter().map(quoted).collect::<Vec<_>>().join(", ")
                };
                from_query = Some(format!("SELECT {list} FROM {table}"));
            }
            None
        }
        Some(_) if from_query.is_none() => Some(table),
        _ => return Err(unexpected("TO STDOUT or FROM STDIN")),
    };
    let end = if into.is_some() { "STDIN" } else { "STDOUT" };
    if !pieces.word(end) {
        let hint = format!("write {end}: the file is then the client's, \\copy in psql");
        return Err(Failed::new("0A000", "COPY reads and writes no files of the server").hint(hint));
    }
    let format = options(pieces)?;
    Ok(Copy { from_query, into, columns, format })
}

fn options(pieces: &mut Pieces) -> Result<CopyFormat, Failed> {
    let _ = pieces.word("WITH");
    let mut inner = match pieces.0.next_if(|token| matches!(token, Token::Group(_))) {
        Some(Token::Group(list)) => Pieces(tokens(&list, PIECES_MAX).into_iter().peekable()),
        _ => Pieces(std::mem::take(&mut pieces.0.by_ref().collect::<Vec<_>>()).into_iter().peekable()),
    };
    if !pieces.is_done() {
        return Err(unexpected("the end of COPY"));
    }
    let (mut csv, mut header, mut delimiter, mut null, mut quote) = (false, false, None, None, b'"');
    let byte = |value: Option<String>| match value.as_deref().map(str::as_bytes) {
        Some([byte]) if byte.is_ascii() && !b"\r\n".contains(byte) => Ok(*byte),
        _ => Err(Failed::new("22023", "COPY takes one ASCII character as delimiter and as quote")),
    };
    while !inner.is_done() {
        let _ = inner.symbol(',');
        let Some(option) = inner.name() else { return Err(unexpected("an option of COPY")) };
        let _ = inner.word("AS");
        match option.to_ascii_uppercase().as_str() {
            "FORMAT" => match inner.name().unwrap_or_default().to_ascii_lowercase().as_str() {
                "text" => csv = false,
                "csv" => csv = true,
                other => {
                    return Err(Failed::new(
                        "0A000",
                        format!("COPY format \"{other}\" is not supported; text and csv are"),
                    ));
                }
            },
            "CSV" => csv = true,
            "HEADER" => header = !matches!(inner.any(&["TRUE", "ON", "MATCH", "FALSE", "OFF"]), Some("FALSE" | "OFF")),
            "DELIMITER" => delimiter = Some(byte(inner.name())?),
            "QUOTE" => quote = byte(inner.name())?,
            "NULL" => null = Some(inner.name().unwrap_or_default()),
            "ENCODING" if inner.name().is_some_and(|name| name.to_ascii_lowercase().replace('-', "") == "utf8") => {}
            other => return Err(Failed::new("0A000", format!("COPY option {other} is not supported"))),
        }
    }
    let delimiter = delimiter.unwrap_or(if csv { b',' } else { b'\t' });
    let null = null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
    Ok(CopyFormat { csv, header, delimiter, null, quote })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Command {
        Command::parse(sql, |name| name == "TimeZone").unwrap_or_else(|failed| panic!("{sql}: {failed:?}"))
    }

    #[test]
    fn semicolons_end_statements_unless_quoted_or_commented() {
        let texts = |sql| split(sql).into_iter().collect::<Vec<_>>();
        assert_eq!(texts("SET a = 1; SELECT 2;;"), [(0, "SET a = 1"), (11, "SELECT 2")]);
        for one in [
            "SELECT ';'",
            "SELECT \"a;b\"",
            "SELECT 1 -- ; no",
            "/* ; /* ; */ ; */ SELECT 1",
            "SELECT $a$ ; $a$",
            "SELECT E'\\';'",
            "SELECT $1, ';'",
        ] {
            assert_eq!(texts(one), [(0, one)]);
        }
        for none in ["", " ;; ", "-- ping", "/* x */ ;"] {
            assert_eq!(texts(none), []);
        }
        for cut in ["'", "\"", "/*", "$a$", "E'\\"] {
            assert!(texts(cut).len() <= 1);
        }
    }

    #[test]
    fn statements_of_the_session_are_told_from_queries() {
        let set = |name: &str, value: Option<&str>, local| Command::Set {
            name: name.into(),
            value: value.map(str::to_owned),
            local,
        };
        for (sql, expected) in [
            ("SELECT 1", Command::Query),
            ("-- ping", Command::Empty),
            ("set timezone to 'UTC'", set("timezone", Some("UTC"), false)),
            ("SET TIME ZONE 'UTC'", set("TimeZone", Some("UTC"), false)),
            ("SET LOCAL search_path = a, \"B\"", set("search_path", Some("a, B"), true)),
            ("SET extra_float_digits = 3", set("extra_float_digits", Some("3"), false)),
            ("SET x TO DEFAULT", set("x", None, false)),
            ("SHOW TimeZone", Command::Show("TimeZone".into())),
            ("SHOW TRANSACTION ISOLATION LEVEL", Command::Show("transaction_isolation".into())),
            ("SHOW TABLES", Command::Query),
            ("BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY", Command::Begin { read_only: Some(true) }),
            ("start transaction", Command::Begin { read_only: None }),
            ("ROLLBACK TO SAVEPOINT a", Command::Savepoint("ROLLBACK")),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                Command::Characteristics { session: true, read_only: Some(true) },
            ),
            ("DISCARD ALL", Command::DiscardAll),
            ("UNLISTEN *", Command::Nothing("UNLISTEN")),
        ] {
            assert_eq!(parsed(sql), expected, "{sql}");
        }
        for sql in ["SET a", "SET a = ", "BEGIN TWICE", "COMMIT now", "RESET"] {
            assert_eq!(Command::parse(sql, |_| false).unwrap_err().code(), "42601", "{sql}");
        }
    }

    #[test]
    fn copy_says_what_goes_where_and_never_to_a_file() {
        let Command::Copy(copy) =
            parsed("COPY public.\"T\" (a, \"B\") FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')")
        else {
            panic!()
        };
        assert_eq!(
            (copy.into.as_deref(), &copy.columns[..]),
            (Some("public.\"T\""), &["a".to_owned(), "B".to_owned()][..])
        );
        let expected = CopyFormat { csv: true, header: true, delimiter: b';', null: String::new(), quote: b'"' };
        assert_eq!(copy.format, expected);
        let Command::Copy(copy) = parsed("COPY (SELECT ')' AS a) TO STDOUT") else { panic!() };
        assert_eq!(copy.from_query.as_deref(), Some("SELECT ')' AS a"));
        assert_eq!(copy.format.delimiter, b'\t');
        let Command::Copy(copy) = parsed("copy t to stdout csv header") else { panic!() };
        assert_eq!((copy.from_query.as_deref(), copy.format.header), (Some("SELECT * FROM t"), true));
        for sql in [
            "COPY t TO '/tmp/x'",
            "COPY t FROM PROGRAM 'id'",
            "COPY t TO STDOUT (FORMAT binary)",
            "COPY t FROM STDIN (FREEZE)",
        ] {
            assert_eq!(Command::parse(sql, |_| false).unwrap_err().code(), "0A000", "{sql}");
        }
    }
}
