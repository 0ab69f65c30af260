//! The command line of `eden`: what it says, and which module does the work.

pub(crate) mod process;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use decode::time::TimeFormat;
use storage::check::repair::Act;

use crate::client::Client;
use crate::config::{self, Config, Period};
use crate::failure::Failure;
use crate::http::influx::schema::of_database;
use crate::serve::Surroundings;
use crate::transfer;
use crate::{check_command, demo, mqtt_command, quarantine_command, sql_shell, write_command};

/// Eden stores the readings of machines and answers SQL about them.
#[derive(Debug, Parser)]
#[command(
    name = "eden",
    version,
    about = "Eden stores the readings of machines and answers SQL about them.",
    after_help = "Begin with:\n  eden demo --for 20s         ten simulated sensors, written and queried for real\n  \
                  eden serve                  a server on 127.0.0.1:4200, data in ./eden-data\n  \
                  eden sql 'SHOW TABLES'      what is stored"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server until Ctrl-C or SIGTERM.
    #[command(after_help = "Examples:\n  eden serve\n  eden serve --data /var/lib/eden\n  \
                            EDEN_HTTP_LISTEN=0.0.0.0:4200 eden serve --config /etc/eden.toml\n\n\
                            Settings: see `eden config show`. Every key can be set by the environment too:\n\
                            EDEN_HTTP_LISTEN is [http] listen.")]
    Serve(ServeArgs),
    /// Run a server with ten simulated sensors writing to it.
    #[command(after_help = "Examples:\n  eden demo\n  eden demo --for 20s\n\n\
                            Run again with the same folder, it goes on from what is stored there.")]
    Demo(DemoArgs),
    /// Ask a running server.
    #[command(after_help = "Examples:\n  eden sql 'SHOW TABLES'\n  \
                            eden sql \"SELECT sensor, max(temperature) FROM bmp180 GROUP BY sensor\"\n  \
                            eden sql --format csv 'SELECT * FROM bmp180' > bmp180.csv\n  \
                            eden sql < statements.sql\n  \
                            eden sql \"COPY bmp180 TO 'bmp180.parquet'\"\n\n\
                            Without QUERY, statements are read from standard input, each ended by a semicolon.\n\
                            The server is --url, else the one that runs on --data, else the one on port 4200,\n\
                            else a running demo.")]
    Sql(SqlArgs),
    /// Write line protocol to a running server.
    #[command(after_help = "Examples:\n  echo 'room,site=here temperature=21.5' | eden write\n  \
                            eden write --db plant --precision ms monday.lp tuesday.lp\n\n\
                            Lines that are refused are named with their numbers; the others are stored. Exit code 1\n\
                            if any was refused.")]
    Write(WriteArgs),
    /// Write files to a table of a running server: CSV, JSON lines, line protocol, Parquet.
    #[command(after_help = "Examples:\n  eden import --table press --tags line,machine press.csv\n  \
                            eden import --table plant.press --time ts --time-format ms day-*.jsonl.gz\n  \
                            eden import --table press --resume-file press.note archive/\n  \
                            eden import --db plant readings.lp\n  \
                            sqlite3 -csv -header old.db 'SELECT * FROM t' | eden import --table t --format csv -\n\n\
                            The format is in the files' names (.csv .jsonl .ndjson .lp .parquet, also with .gz or .zst), or\n\
                            in --format. Of a folder, all such files are imported. A batch counts when it is durable.\n\
                            Importing a file again changes nothing, so after an error or Ctrl-C the same command is right;\n\
                            with --resume-file it goes on where it was. Rows that are refused are named with their place and\n\
                            reason, and the others are stored. Exit code 1 if any was refused.")]
    Import(ImportArgs),
    /// Write a table, or the rows of a query, to a file.
    #[command(after_help = "Examples:\n  eden export --table press --output press.parquet\n  \
                            eden export --table press --from 2026-06-01 --to 2026-07-01 --output june.csv.zst\n  \
                            eden export --query 'SELECT machine, avg(force) FROM press GROUP BY machine' --format jsonl\n\n\
                            The format is in the file's name, or in --format. The file gets its name when it is whole.\n\
                            Without --output, rows go to standard output.")]
    Export(ExportArgs),
    /// Examine a data folder, changing nothing.
    #[command(after_help = "Examples:\n  eden check\n  eden check --data /var/lib/eden --table bmp180\n  \
                            eden check --outbox /var/lib/eden-agent/outbox\n\n\
                            Reads the log, the Delta logs and every shard, and compares them with their checksums, with\n\
                            each other and with the rules. A server may be running. Exit code 1 if anything is damaged.")]
    Check(CheckArgs),
    /// Set aside what is damaged, so that the rest of a table can be used again; the server must be stopped.
    #[command(after_help = "Examples:\n  eden repair\n  eden repair --data /var/lib/eden --yes\n\n\
                            Without --yes it only says what it would do, and what would be missing then. Nothing is\n\
                            deleted: damaged files go to the folder `damaged` in the data folder.")]
    Repair(RepairArgs),
    /// Look at what could not be stored, and write it again.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Try out what the MQTT listener makes of messages.
    #[command(subcommand)]
    Mqtt(MqttCommand),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum MqttCommand {
    /// Show which rule takes a message, the rows it becomes, and what is refused. Touches no data.
    #[command(after_help = "Examples:\n  \
                            eden mqtt test --topic lp/plant --payload 'room,site=here temperature=21.5'\n  \
                            eden mqtt test --config eden.toml --topic tele/kitchen/SENSOR --file sensor.json\n  \
                            mosquitto_sub -C 1 -t zigbee2mqtt/lamp | eden mqtt test --topic zigbee2mqtt/lamp\n  \
                            eden mqtt test --topic plant/m7 --payload 21.5 --user-property site=here\n\n\
                            Rows are shown as line protocol with times in microseconds. Rules are [[mqtt.rule]] of the\n\
                            configuration. Whether the tables take the rows is not tried. Exit code 1 if no rule takes\n\
                            the message, or a part of it is refused.")]
    Test {
        /// Topic of the message.
        #[arg(long)]
        topic: String,
        /// What it says [default: standard input].
        #[arg(long, value_name = "TEXT", conflicts_with = "file")]
        payload: Option<String>,
        /// File with what it says.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// A user property of MQTT 5; may be given again.
        #[arg(long = "user-property", value_name = "NAME=VALUE", value_parser = name_and_value)]
        user_properties: Vec<(String, String)>,
        #[command(flatten)]
        args: ConfigArgs,
    },
}

/// The words for formats of times, with what each means.
fn time_format() -> impl TypedValueParser<Value = TimeFormat> {
    let word = |format: TimeFormat| {
        PossibleValue::new(format.word()).help(match format {
            TimeFormat::Auto => "Numbers by their magnitude, texts as RFC 3339",
            TimeFormat::Rfc3339 => "Such as 2026-06-01T08:30:00.25Z; without a zone it is UTC",
            TimeFormat::S => "Seconds since 1970",
            TimeFormat::Ms => "Milliseconds",
            TimeFormat::Us => "Microseconds",
            TimeFormat::Ns => "Nanoseconds",
        })
    };
    PossibleValuesParser::new(TimeFormat::ALL.map(word)).map(|word| TimeFormat::of_word(&word).unwrap_or_default())
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("right is NAME=VALUE, such as site=here")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Data folder [default: that of the configuration, ./eden-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only this table, such as bmp180 or system.agents; may be given again.
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// The outbox of an agent; may be given again.
    #[arg(long = "outbox", value_name = "DIR")]
    outboxes: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct RepairArgs {
    /// Data folder [default: that of the configuration, ./eden-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only this table; may be given again.
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file [default: ./eden.toml if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder; wins over the configuration [default: ./eden-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Data folder.
    #[arg(long, value_name = "DIR", default_value = "./eden-demo")]
    data: PathBuf,
    /// End after this time, such as 20s or 5m, with a summary [default: until Ctrl-C].
    #[arg(long = "for", value_name = "DURATION")]
    period: Option<Period>,
}

/// Which server a client command talks to.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// The server, such as http://127.0.0.1:4200.
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub url: Option<String>,
    /// The data folder of a server that runs on this machine.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// One list of objects.
    Json,
    /// An object a line.
    Jsonl,
    /// Comma-separated values with a header line.
    Csv,
}

#[derive(Debug, Args)]
struct SqlArgs {
    /// One or more statements, separated by semicolons.
    query: Option<String>,
    /// How rows are shown.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Go on without damaged shards, and say which.
    #[arg(long)]
    skip_damaged: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct WriteArgs {
    /// Files of line protocol, written in this order; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    /// Schema that the tables are in.
    #[arg(long, default_value = "public")]
    db: String,
    /// Unit of the times: auto, ns, us, ms, s, m or h.
    #[arg(long, default_value = "auto")]
    precision: String,
    /// Requests on their way at a time. Lines of one series keep their order: their requests follow each other.
    #[arg(long, value_name = "REQUESTS", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: u8,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Files and folders; - is standard input.
    #[arg(value_name = "FILE", required = true)]
    paths: Vec<PathBuf>,
    /// Table that the rows are for, such as press or plant.press; made if it is missing. Line protocol names its own.
    #[arg(long)]
    table: Option<String>,
    /// Schema of the tables that line protocol names.
    #[arg(long, default_value = "public", conflicts_with = "table")]
    db: String,
    /// Format of the files [default: by their names].
    #[arg(long, value_enum)]
    format: Option<transfer::Format>,
    /// Columns that say what was measured; needed if the table is not there yet [default: those of the table].
    #[arg(long, value_name = "COLUMN,…")]
    tags: Option<String>,
    /// Column that is the time [default: time].
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// How times are written; auto tells numbers apart by their magnitude.
    #[arg(long, value_parser = time_format(), default_value = TimeFormat::Auto.word())]
    time_format: TimeFormat,
    /// Rows of a batch.
    #[arg(long, value_name = "ROWS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Stop at the first row that is refused.
    #[arg(long)]
    strict: bool,
    /// Between the fields of CSV.
    #[arg(long, value_name = "CHAR", default_value = ",")]
    delimiter: char,
    /// Names of the columns, for CSV without a header line.
    #[arg(long, value_name = "COLUMN,…")]
    columns: Option<String>,
    /// Note in this file how far the import is, and go on from there if it is there.
    #[arg(long, value_name = "FILE")]
    resume_file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["table", "query"]))]
struct ExportArgs {
    /// Table to export, such as press or plant.press.
    #[arg(long)]
    table: Option<String>,
    /// Query whose rows are exported.
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// Format of the file [default: by its name, csv for standard output].
    #[arg(long, value_enum)]
    format: Option<transfer::Format>,
    /// File to write; - is standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// First time, such as 2026-06-01 or 2026-06-01T08:30:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// First time that is too late.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Show what was set aside, the newest first: why, and the lines as they came.
    List {
        /// Only lines of this table.
        #[arg(long)]
        table: Option<String>,
        /// How many to show.
        #[arg(long, default_value_t = 20)]
        limit: u64,
        /// How they are shown.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Write again what was set aside. What is stored then is out of the quarantine.
    #[command(after_help = "Examples:\n  eden quarantine replay\n  \
                            eden quarantine replay --table air\n  \
                            eden quarantine replay --where \"time > now() - interval '1 day' AND source LIKE 'mqtt%'\"\n\n\
                            Lines without a time get that at which they came. Exit code 1 if anything is still set aside.")]
    Replay {
        /// Only what has lines of this table.
        #[arg(long)]
        table: Option<String>,
        /// Only what this SQL condition on the columns of system.quarantine holds for.
        #[arg(long = "where", value_name = "CONDITION")]
        condition: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is right, and what is wrong if it is not.
    Check(ConfigArgs),
    /// Print the configuration that is in force, with a description of each key.
    Show {
        #[command(flatten)]
        args: ConfigArgs,
        /// Print the defaults: no file, no environment.
        #[arg(long)]
        defaults: bool,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file [default: ./eden.toml if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    // clap ends the process itself for --help, --version (0) and bad usage (2).
    let result = match Cli::parse().command {
        Command::Serve(args) => serve(args),
        Command::Demo(args) => demo(args),
        Command::Sql(args) => Client::find(&args.target).and_then(|client| {
            let client = client.skipping_damaged(args.skip_damaged);
            sql_shell::run(&client, args.query.as_deref(), args.format)
        }),
        Command::Write(args) => {
            let in_flight = usize::from(args.in_flight);
            let options =
                write_command::Options { files: args.files, db: args.db, precision: args.precision, in_flight };
            write_command::run(&options, &args.target)
        }
        Command::Import(args) => import(args),
        Command::Export(args) => export(args),
        Command::Check(args) => {
            with_data(args.data).and_then(|config| check_command::run_check(&config, &args.tables, args.outboxes))
        }
        Command::Repair(args) => {
            let act = if args.yes { Act::Do } else { Act::Plan };
            with_data(args.data).and_then(|config| check_command::run_repair(&config, &args.tables, act))
        }
        Command::Quarantine(QuarantineCommand::List { table, limit, format, target }) => {
            quarantine_command::list(table.as_deref(), limit, format, &target)
        }
        Command::Quarantine(QuarantineCommand::Replay { table, condition, target }) => {
            quarantine_command::replay(table.as_deref(), condition.as_deref(), &target)
        }
        Command::Mqtt(MqttCommand::Test { topic, payload, file, user_properties, args }) => {
            let trial = mqtt_command::Trial { topic, payload, file, user_properties };
            load(args.config).and_then(|config| mqtt_command::test(&config, &trial))
        }
        Command::Config(command) => configuration(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("eden: {failure}");
            failure.exit_code()
        }
    }
}

fn import(args: ImportArgs) -> Result<(), Failure> {
    let names = |list: &str| -> Vec<String> {
        list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let delimiter =
        u8::try_from(args.delimiter).ok().filter(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r'));
    let options = transfer::import::Options {
        paths: args.paths,
        table: args.table.as_deref().map(transfer::table_name),
        schema: of_database(&args.db).to_owned(),
        format: args.format,
        tags: args.tags.as_deref().map(names),
        time: args.time,
        time_format: args.time_format,
        batch_rows: args.batch as usize,
        is_strict: args.strict,
        delimiter: delimiter.ok_or_else(|| Failure::usage("--delimiter: right is one character such as ; or |"))?,
        has_header: args.columns.is_none(),
        columns: args.columns.as_deref().map(names),
        resume_file: args.resume_file,
    };
    let done = transfer::import::run(&options, &Client::find(&args.target)?)?;
    let transfer::import::Outcome { stored, refused, files } = done;
    let unit = if files == 1 { "file" } else { "files" };
    // Whoever closed the pipe does not want to know; the exit code still tells.
    let _ = writeln!(io::stdout(), "{stored} rows stored, {refused} refused, from {files} {unit}");
    if refused > 0 { Err(Failure::work(format!("{refused} rows were refused"))) } else { Ok(()) }
}

fn export(args: ExportArgs) -> Result<(), Failure> {
    let what = match (args.table, args.query) {
        (Some(table), _) => transfer::export::What::Table(transfer::table_name(&table)),
        (None, query) => transfer::export::What::Query(query.unwrap_or_default()),
    };
    let options = transfer::export::Options {
        from: args.from,
        to: args.to,
        format: args.format,
        ..transfer::export::Options::new(what, args.output)
    };
    let rows = transfer::export::run(&options, &Client::find(&args.target)?)?;
    if options.output != Path::new("-") {
        let _ = writeln!(io::stdout(), "{rows} rows written to {}", options.output.display());
    }
    Ok(())
}

fn load(file: Option<PathBuf>) -> Result<Config, Failure> {
    let file = file.or_else(|| Some(PathBuf::from("eden.toml")).filter(|path| path.exists()));
    // Names and values that are not Unicode belong to no key of ours.
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    Config::load(file.as_deref(), environment).map_err(Failure::usage)
}

/// The configuration, with the data folder that is given.
fn with_data(given: Option<PathBuf>) -> Result<Config, Failure> {
    let mut config = load(None)?;
    if let Some(data) = given {
        config.storage.data = data;
    }
    Ok(config)
}

fn serve(args: ServeArgs) -> Result<(), Failure> {
    let mut config = load(args.config)?;
    if let Some(data) = args.data {
        config.storage.data = data;
    }
    let surroundings = Surroundings { panics: process::prepare(&config.server.log)?, ..Surroundings::system() };
    run_to_end(process::serve(config, surroundings))
}

fn demo(args: DemoArgs) -> Result<(), Failure> {
    let mut config = load(None)?;
    config.storage.data = args.data;
    // What is played with does not go where somebody keeps his own.
    config.storage.tables = String::new();
    if config.server.log == Config::default().server.log {
        // The view is on the same terminal: only what went wrong may interrupt it.
        config.server.log = "warn".into();
    }
    let surroundings = Surroundings { panics: process::prepare(&config.server.log)?, ..Surroundings::system() };
    run_to_end(demo::run(config, surroundings, args.period.map(|period| period.0)))
}

fn run_to_end(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = process::runtime()?;
    let result = runtime.block_on(work);
    // Whoever is late by now has been named; the process does not wait for it.
    runtime.shutdown_background();
    result
}

fn configuration(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => {
            let config = load(args.config)?;
            process::check_log_filter(&config.server.log)?;
            println!("the configuration is right");
        }
        ConfigCommand::Show { defaults: true, .. } => print!("{}", config::show(&Config::default())),
        ConfigCommand::Show { args, .. } => print!("{}", config::show(&load(args.config)?)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
