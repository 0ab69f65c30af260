//! `eden sql`: statements from the command line, a file or a prompt; rows as a table or for other programs.

mod outcome;
mod prompt;
mod statements;
mod table;

use std::io::{self, BufRead, IsTerminal, Write};

use crate::cli::Format;
use crate::client::Client;
use crate::failure::Failure;
use crate::transfer::copy::{self, Input};
use statements::Splitter;

/// Runs the command.
///
/// # Errors
/// The first statement's that fails; at a prompt none, they are shown there.
pub fn run(client: &Client, query: Option<&str>, format: Format) -> Result<(), Failure> {
    match query {
        Some(query) => {
            let mut splitter = Splitter::default();
            let mut statements = splitter.push(query);
            statements.extend(splitter.finish());
            statements.iter().try_for_each(|statement| show(client, statement, format, Input::Free))
        }
        None if io::stdin().is_terminal() => prompt::run(client, format),
        None => script(client, format),
    }
}

fn script(client: &Client, format: Format) -> Result<(), Failure> {
    let mut splitter = Splitter::default();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| Failure::work(format!("read standard input: {e}")))?;
        for statement in splitter.push(&(line + "\n")) {
            show(client, &statement, format, Input::Statements)?;
        }
    }
    splitter.finish().iter().try_for_each(|statement| show(client, statement, format, Input::Statements))
}

fn show(client: &Client, statement: &str, format: Format, input: Input) -> Result<(), Failure> {
    if let Some(copied) = copy::run(statement, input, client) {
        // Rows may have gone to standard output.
        eprint!("{}", copied?);
        return Ok(());
    }
    let mut out = io::stdout().lock();
    if outcome::changes_something(statement) && format != Format::Table {
        // It has no rows for another program, and the endpoint for those only reads.
        let answer = client.sql(statement)?;
        eprint!("{}", outcome::render(statement, &answer));
        return Ok(());
    }
    match format {
        Format::Table => {
            let answer = client.sql(statement)?;
            let has_columns = answer["cols"].as_array().is_some_and(|columns| !columns.is_empty());
            let shown = if has_columns { table::render(&answer) } else { outcome::render(statement, &answer) };
            out.write_all(shown.as_bytes()).or_else(closed_pipe)
        }
        Format::Json => {
            client.copy_rows(statement, "json", &mut out)?;
            out.write_all(b"\n").or_else(closed_pipe)
        }
        Format::Jsonl => client.copy_rows(statement, "jsonl", &mut out),
        Format::Csv => client.copy_rows(statement, "csv", &mut out),
    }
}

/// `eden sql … | head` has all it wants.
fn closed_pipe(error: io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::work(format!("write to standard output: {error}")))
}
