//! A seeded fleet of sensors: `gen` writes its rows to standard output, `load` posts a file of lines over HTTP.
//!
//! Every value is a function of (seed, device, tick), so the same arguments always give the same bytes. Rows come out
//! time-major (all devices at tick 0, then all at tick 1, …), as a live fleet would send them. Nothing but std is used.

mod generate;
mod load;

use std::io;
use std::process::ExitCode;

const USAGE: &str = "\
iotgen gen  [--format lp|csv|jsonl|tsv] [--devices 1000] [--rows 10000000] [--interval-ms 10000]
            [--start-ms 1780272000000] [--seed 42] [--jitter-ms 0] [--precision ns|us|ms|s|iso]
            [--header] [--measurement env]            rows to stdout
iotgen load --url http://127.0.0.1:4200/api/v3/write_lp?db=x --file rows.lp [--batch 5000] [--conns 4]
            [--prefix 'INSERT INTO t FORMAT CSV\\n'] [--content-type text/plain]
            [--auth 'Token abc'] [--limit-rows N] [--rate-rows N]
            posts the file in batches of lines; prints one JSON line of results
iotgen entropy                                      exact entropy of one step, bits a value";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let result = Options::parse(arguments.collect()).and_then(|options| match command.as_str() {
        "gen" => generate::run(&options),
        "load" => load::run(&options),
        "entropy" => {
            generate::print_entropy();
            Ok(())
        }
        _ => Err(usage(format!("there is no command {command:?}"))),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closed early (`head`) is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iotgen: {error}");
            ExitCode::from(if error.kind() == io::ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}

fn usage(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}\n{USAGE}"))
}

/// `--name value` options; a name followed by another option or nothing is a flag.
struct Options(Vec<(String, String)>);

impl Options {
    fn parse(words: Vec<String>) -> io::Result<Self> {
        let mut options = Vec::new();
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| usage(format!("unexpected argument {word}")))?;
            let value = words.next_if(|next| !next.starts_with("--")).unwrap_or_else(|| "true".into());
            options.push((name.to_string(), value));
        }
        Ok(Options(options))
    }

    fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.iter().rev().find(|(known, _)| known == name).map_or(default, |(_, value)| value)
    }

    fn number(&self, name: &str, default: u64) -> io::Result<u64> {
        match self.text(name, "") {
            "" => Ok(default),
            text => text.parse().map_err(|_| usage(format!("--{name} {text} is not a whole number"))),
        }
    }
}
