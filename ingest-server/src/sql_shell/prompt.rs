//! The prompt of `eden sql`: lines that can be edited and come back, and commands that begin with a backslash.
//!
//! Owns:     the history, in `$XDG_STATE_HOME/eden/sql_history` (`~/.local/state` where that is not set), and the commands.
//! Does not: run statements.

use std::path::PathBuf;
use std::time::Duration;

use model::{Clock, SystemClock};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::show;
use super::statements::Splitter;
use crate::cli::Format;
use crate::client::Client;
use crate::failure::Failure;
use crate::transfer::copy::Input;
use crate::transfer::interrupt;

const HELP: &str = "\
\\d          the tables
\\d TABLE    the columns of a table
\\timing     says how long each statement took, or stops saying it
\\watch N    runs the last statement again every N seconds, 2 if none are given, until Ctrl-C
\\q, Ctrl-D  leaves
Ctrl-C      forgets what was typed
A statement may go over several lines; it ends with a semicolon.";

const TABLES: &str = "SELECT table_schema AS schema, table_name AS table FROM information_schema.tables \
                      WHERE table_schema <> 'information_schema' ORDER BY 1, 2";

/// How often a statement is run again, in seconds.
const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 86_400.0;

/// A line that is no SQL.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Quit,
    Help,
    Timing,
    /// The last statement again and again, each time after so long.
    Watch(Duration),
    /// Answered by a statement.
    Statement(String),
    Unknown,
}

impl Command {
    /// `None` for a line of SQL.
    fn parse(line: &str) -> Option<Command> {
        let mut words = line.trim().trim_end_matches(';').split_whitespace();
        Some(match (words.next()?, words.next(), words.next()) {
            ("\\q" | "quit" | "exit", None, None) => Command::Quit,
            ("\\?" | "\\h" | "help", None, None) => Command::Help,
            ("\\timing", None, None) => Command::Timing,
            ("\\watch", seconds, None) => period(seconds.unwrap_or("2")).map_or(Command::Unknown, Command::Watch),
            ("\\d" | "\\dt", None, None) => Command::Statement(TABLES.into()),
            ("\\d", Some(table), None) => Command::Statement(format!("SHOW COLUMNS FROM {table}")),
            (word, ..) if word.starts_with('\\') => Command::Unknown,
            _ => return None,
        })
    }
}

/// Reads statements and shows what they answer, until the end of input.
///
/// # Errors
/// Of the terminal. Those of statements are shown.
pub(super) fn run(client: &Client, format: Format) -> Result<(), Failure> {
    let of_terminal = |error: ReadlineError| Failure::work(format!("read from the terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(of_terminal)?;
    let history = history();
    if let Some(history) = &history {
        // There is none before the first time.
        let _ = editor.load_history(history);
    }
    println!("connected to {}; end statements with ;, \\? shows more commands, \\q leaves", client.url());
    let clock = SystemClock::new();
    let (mut splitter, mut is_timed) = (Splitter::default(), false);
    let mut last: Option<String> = None;
    // Whether it went well.
    let run = |statement: &str, is_timed: bool| {
        let started = clock.monotonic();
        let shown = show(client, statement, format, Input::Statements);
        if let Err(failure) = &shown {
            eprintln!("error: {failure}");
        }
        if is_timed {
            eprintln!("{}", took(clock.monotonic().saturating_sub(started)));
        }
        shown.is_ok()
    };
    loop {
        let line = match editor.readline(if splitter.is_empty() { "eden> " } else { " ...> " }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                splitter = Splitter::default();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(of_terminal(error)),
        };
        if !line.trim().is_empty() {
            let _ = editor.add_history_entry(&line);
        }
        match splitter.is_empty().then(|| Command::parse(&line)).flatten() {
            Some(Command::Quit) => break,
            Some(Command::Help) => println!("{HELP}"),
            Some(Command::Timing) => {
                is_timed = !is_timed;
                println!("timing is {}", if is_timed { "on" } else { "off" });
            }
            Some(Command::Watch(period)) => match &last {
                Some(statement) => {
                    println!("every {} s, until Ctrl-C", period.as_secs_f64());
                    interrupt::during(|stop| while run(statement, is_timed) && !stop.wait(period) {});
                }
                None => eprintln!("error: there is no statement yet that could be watched"),
            },
            Some(Command::Statement(statement)) => {
                run(&statement, is_timed);
                last = Some(statement);
            }
            Some(Command::Unknown) => eprintln!("error: there is no command {}; \\? shows them", line.trim()),
            None => {
                for statement in splitter.push(&(line + "\n")) {
                    run(&statement, is_timed);
                    last = Some(statement);
                }
            }
        }
    }
    if let Some(history) = history {
        let folder = history.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = folder.map_err(ReadlineError::from).and_then(|()| editor.save_history(&history)) {
            eprintln!("the history was not kept in {}: {error}", history.display());
        }
    }
    Ok(())
}

/// Seconds as they are typed.
fn period(seconds: &str) -> Option<Duration> {
    let seconds: f64 = seconds.trim_end_matches('s').parse().ok()?;
    (SECONDS_MIN..=SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn history() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("eden/sql_history"))
}

fn took(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_sql() {
        for (line, command) in [
            ("\\q", Some(Command::Quit)),
            (" exit; ", Some(Command::Quit)),
            ("\\?", Some(Command::Help)),
            ("\\timing", Some(Command::Timing)),
            ("\\d", Some(Command::Statement(TABLES.into()))),
            ("\\d plant.press;", Some(Command::Statement("SHOW COLUMNS FROM plant.press".into()))),
            ("\\copy", Some(Command::Unknown)),
            ("\\watch", Some(Command::Watch(Duration::from_secs(2)))),
            ("\\watch 0.5;", Some(Command::Watch(Duration::from_millis(500)))),
            ("\\watch 10s", Some(Command::Watch(Duration::from_secs(10)))),
            ("\\watch 0", Some(Command::Unknown)),
            ("\\watch NaN", Some(Command::Unknown)),
            ("\\watch 1 2", Some(Command::Unknown)),
            ("SELECT 1;", None),
            ("", None),
        ] {
            assert_eq!(Command::parse(line), command, "{line}");
        }
    }

    #[test]
    fn durations_are_milliseconds() {
        assert_eq!(took(Duration::from_micros(1_234_560)), "1234.6 ms");
    }
}
