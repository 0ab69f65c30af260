//! What the process was told to do.
//!
//! Owns:     commands and their options, the help that shows them, and what is said of a mistake in them.
//! Does not: look at files or the environment, print, or end the process.
//!
//! One table describes commands and options; the help, the checks and the advice are made of it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use lexopt::{Arg, Parser};
use settings::close_names::closest;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Run(ConfigArgs),
    Read {
        config: ConfigArgs,
        format: Format,
    },
    Scan {
        bus: Vec<PathBuf>,
        sysfs: PathBuf,
    },
    Check(ConfigArgs),
    Outbox {
        config: ConfigArgs,
        format: Format,
    },
    /// Shows this: help, or the version.
    Show(String),
}

/// Where the configuration is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigArgs {
    pub(super) config: Option<PathBuf>,
}

/// How something is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
}

const ABOUT: &str = "Measures, keeps what it measured until a server has it for certain, and sends it";
const CODES: &str = "Configuration: docs/agent.md. Exit codes: 0 done, 1 something did not work, 2 usage or\n\
                     configuration, 75 told to start again.";
const HELP: &str = "help";
const VERSION: &str = "version";
const SYSFS: &str = "/sys";

/// An option with a value.
#[derive(Debug, PartialEq, Eq)]
struct Opt {
    name: &'static str,
    value: &'static str,
    about: &'static str,
    /// The values that it takes, the default first; none if it takes any.
    words: &'static [(&'static str, &'static str)],
    repeats: bool,
}

const CONFIG: Opt = Opt {
    name: "config",
    value: "FILE",
    about: "Configuration file [default: ./agent.toml]",
    words: &[],
    repeats: false,
};
const FORMAT: Opt = Opt {
    name: "format",
    value: "FORMAT",
    about: "How it is shown",
    words: &[("table", "for people"), ("json", "for programs")],
    repeats: false,
};
const BUS: Opt = Opt {
    name: "bus",
    value: "PATH",
    about: "An I²C bus to look at, such as /dev/i2c-1; may be given more than once [default: all there are]",
    words: &[],
    repeats: true,
};
const SYSFS_FOLDER: Opt = Opt {
    name: "sysfs",
    value: "FOLDER",
    about: "Where the kernel shows devices [default: /sys]",
    words: &[],
    repeats: false,
};

struct Description {
    name: &'static str,
    about: &'static str,
    options: &'static [Opt],
    make: fn(Values) -> Command,
}

const COMMANDS: &[Description] = &[
    Description {
        name: "run",
        about: "Measure and send until told to stop (SIGTERM or Ctrl-C)",
        options: &[CONFIG],
        make: |mut values| Command::Run(values.config()),
    },
    Description {
        name: "read",
        about: "Read each sensor once and show what it measured; nothing is kept or sent",
        options: &[CONFIG, FORMAT],
        make: |mut values| Command::Read { config: values.config(), format: values.format() },
    },
    Description {
        name: "scan",
        about: "Show what is on the buses of this board, as sections of a configuration",
        options: &[BUS, SYSFS_FOLDER],
        make: |mut values| Command::Scan {
            sysfs: values.take(&SYSFS_FOLDER).map_or_else(|| SYSFS.into(), PathBuf::from),
            bus: values.0.into_iter().map(|(_, path)| path.into()).collect(),
        },
    },
    Description {
        name: "check",
        about: "Say whether configuration, sensors, outbox and servers are as they should be",
        options: &[CONFIG],
        make: |mut values| Command::Check(values.config()),
    },
    Description {
        name: "outbox",
        about: "Show what waits in the outbox; also while an agent runs",
        options: &[CONFIG, FORMAT],
        make: |mut values| Command::Outbox { config: values.config(), format: values.format() },
    },
];

/// The options that were given, with values that each takes.
#[derive(Default)]
struct Values(Vec<(&'static str, OsString)>);

impl Values {
    fn take(&mut self, option: &Opt) -> Option<OsString> {
        let at = self.0.iter().position(|(name, _)| *name == option.name)?;
        Some(self.0.remove(at).1)
    }

    fn config(&mut self) -> ConfigArgs {
        ConfigArgs { config: self.take(&CONFIG).map(PathBuf::from) }
    }

    fn format(&mut self) -> Format {
        if self.take(&FORMAT).is_some_and(|word| word == "json") { Format::Json } else { Format::Table }
    }
}

/// Reads what follows the program's name.
///
/// # Errors
/// What is wrong with it and what would be right, in some lines.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = Parser::from_args(arguments);
    let wrong = |what: String| format!("{what}\n\n{}\nTry 'eden-agent --help'.", usage(None));
    let Some(first) = parser.next().map_err(|e| wrong(e.to_string()))? else {
        return Err(help());
    };
    let name = match first {
        Arg::Short('h') | Arg::Long(HELP) => return Ok(Command::Show(help())),
        Arg::Short('V') | Arg::Long(VERSION) => return Ok(Command::Show(version())),
        Arg::Value(name) => name.to_string_lossy().into_owned(),
        option => return Err(wrong(unknown("option", &shown(&option), [HELP, VERSION]))),
    };
    if name == HELP {
        return match parser.next().map_err(|e| wrong(e.to_string()))? {
            None => Ok(Command::Show(help())),
            Some(Arg::Value(name)) => {
                find(&name.to_string_lossy()).map(|one| Command::Show(help_of(one))).map_err(wrong)
            }
            Some(other) => Err(wrong(format!("help takes the name of a command, not {}", shown(&other)))),
        };
    }
    let command = find(&name).map_err(wrong)?;
    parse_options(&mut parser, command)
}

fn find(name: &str) -> Result<&'static Description, String> {
    let found = COMMANDS.iter().find(|command| command.name == name);
    found.ok_or_else(|| unknown("command", name, COMMANDS.iter().map(|command| command.name).chain([HELP])))
}

fn parse_options(parser: &mut Parser, command: &'static Description) -> Result<Command, String> {
    let wrong = |what: String| format!("{what}\n\n{}\nTry 'eden-agent {} --help'.", usage(Some(command)), command.name);
    let mut values = Values::default();
    while let Some(argument) = parser.next().map_err(|e| wrong(e.to_string()))? {
        let option = match &argument {
            Arg::Short('h') | Arg::Long(HELP) => return Ok(Command::Show(help_of(command))),
            Arg::Long(name) => command.options.iter().find(|option| option.name == *name),
            Arg::Short(_) => None,
            Arg::Value(_) => {
                return Err(wrong(format!("{} takes no {}", command.name, shown(&argument))));
            }
        };
        let Some(option) = option else {
            let known = command.options.iter().map(|option| option.name).chain([HELP]);
            return Err(wrong(unknown("option", &shown(&argument), known)));
        };
        let Opt { name, value, words, repeats, .. } = option;
        if !repeats && values.0.iter().any(|(given, _)| given == name) {
            return Err(wrong(format!("--{name} is given more than once")));
        }
        // What looks like an option is one, and the value was forgotten; `--config=-x` is a file of that name.
        let is_option = |given: &OsString| given.len() > 1 && given.to_string_lossy().starts_with('-');
        let given = parser.optional_value().or_else(|| parser.value().ok().filter(|given| !is_option(given)));
        let one_of = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        let Some(given) = given else {
            let right = if words.is_empty() { format!("--{name} {value}") } else { format!("--{name} {}", one_of()) };
            return Err(wrong(format!("--{name} has no value; write {right}")));
        };
        if !words.is_empty() && !words.iter().any(|(word, _)| given == *word) {
            return Err(wrong(format!("--{name}: {:?} is not known; write {}", given.to_string_lossy(), one_of())));
        }
        values.0.push((name, given));
    }
    Ok((command.make)(values))
}

/// As it was written.
fn shown(argument: &Arg<'_>) -> String {
    match argument {
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Long(name) => format!("--{name}"),
        Arg::Value(value) => format!("{:?}", value.to_string_lossy()),
    }
}

fn unknown<'a>(what: &str, found: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let dashes = if what == "option" { "--" } else { "" };
    match closest(found.trim_start_matches('-'), known) {
        Some(close) => format!("there is no {what} {found}; did you mean {dashes}{close}?"),
        None => format!("there is no {what} {found}"),
    }
}

fn version() -> String {
    format!("eden-agent {}\n", env!("CARGO_PKG_VERSION"))
}

fn usage(command: Option<&Description>) -> String {
    let Some(command) = command else { return "Usage: eden-agent COMMAND [OPTIONS]".to_owned() };
    let mut text = format!("Usage: eden-agent {}", command.name);
    for Opt { name, value, repeats, .. } in command.options {
        let _ = write!(text, " [--{name} {value}]{}", if *repeats { "..." } else { "" });
    }
    text
}

fn help() -> String {
    let mut rows: Vec<_> = COMMANDS.iter().map(|command| (command.name.to_owned(), command.about.to_owned())).collect();
    rows.push((HELP.to_owned(), "Show this, or with the name of a command its options".to_owned()));
    let options = [
        ("-h, --help".to_owned(), "Show help".to_owned()),
        ("-V, --version".to_owned(), "Show the version".to_owned()),
    ];
    format!("{ABOUT}\n\n{}\n\nCommands:\n{}\nOptions:\n{}\n{CODES}\n", usage(None), columns(&rows), columns(&options))
}

fn help_of(command: &Description) -> String {
    let mut rows = Vec::new();
    for Opt { name, value, about, words, .. } in command.options {
        let mut about = (*about).to_owned();
        for (i, (word, meaning)) in words.iter().enumerate() {
            let _ = write!(about, "{} {word} {meaning}", if i == 0 { ":" } else { "," });
        }
        if let Some((default, _)) = words.first() {
            let _ = write!(about, " [default: {default}]");
        }
        rows.push((format!("    --{name} {value}"), about));
    }
    rows.push(("-h, --help".to_owned(), "Show this".to_owned()));
    format!("{}\n\n{}\n\nOptions:\n{}", command.about, usage(Some(command)), columns(&rows))
}

fn columns(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (left, right)| {
        let _ = writeln!(text, "  {left:width$}  {right}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn config(path: &str) -> ConfigArgs {
        ConfigArgs { config: Some(path.into()) }
    }

    #[test]
    fn commands_take_their_options_in_either_way_of_writing_them() {
        for (line, command) in [
            ("run", Command::Run(ConfigArgs::default())),
            ("run --config a.toml", Command::Run(config("a.toml"))),
            ("check --config=a.toml", Command::Check(config("a.toml"))),
            ("read --format json --config a", Command::Read { config: config("a"), format: Format::Json }),
            ("outbox --format=table", Command::Outbox { config: ConfigArgs::default(), format: Format::Table }),
            ("check --config=-x", Command::Check(config("-x"))),
            ("scan", Command::Scan { bus: vec![], sysfs: "/sys".into() }),
            (
                "scan --bus /dev/i2c-1 --sysfs /s --bus=/dev/i2c-2",
                Command::Scan { bus: vec!["/dev/i2c-1".into(), "/dev/i2c-2".into()], sysfs: "/s".into() },
            ),
        ] {
            assert_eq!(given(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn a_path_that_is_no_text_arrives_as_it_is() {
        use std::os::unix::ffi::OsStringExt as _;
        let path = OsString::from_vec(b"a\xff.toml".to_vec());
        let command = parse(["run".into(), "--config".into(), path.clone()]);
        assert_eq!(command, Ok(Command::Run(ConfigArgs { config: Some(path.into()) })));
    }

    #[test]
    fn a_mistake_is_answered_with_what_is_right() {
        for (line, said) in [
            ("runn", "there is no command runn; did you mean run?"),
            ("measure", "there is no command measure\n\nUsage: eden-agent COMMAND [OPTIONS]\nTry 'eden-agent --help'."),
            ("help runn", "did you mean run?"),
            ("--versoin", "there is no option --versoin; did you mean --version?"),
            (
                "run --confg a",
                "there is no option --confg; did you mean --config?\n\nUsage: eden-agent run [--config FILE]",
            ),
            ("run -c a", "there is no option -c"),
            ("run --format json", "there is no option --format\n"),
            ("run a.toml", "run takes no \"a.toml\""),
            ("run --config", "--config has no value; write --config FILE"),
            ("run --config -h", "--config has no value"),
            ("read --config --format json", "--config has no value; write --config FILE"),
            ("read --format", "--format has no value; write --format table or json"),
            ("read --format jsn", "--format: \"jsn\" is not known; write table or json"),
            ("read --config a --config b", "--config is given more than once"),
        ] {
            let answer = given(line).expect_err(line);
            assert!(answer.contains(said), "{line}: {answer}");
        }
    }

    #[test]
    fn help_teaches_the_commands_and_their_options() {
        let show = |line| match given(line) {
            Ok(Command::Show(text)) => text,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(show("--version"), format!("eden-agent {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(show("-V"), show("--version"));
        assert_eq!(show("-h"), show("--help"));
        assert_eq!(show("help"), show("--help"));
        assert_eq!(show("help read"), show("read --help"));
        assert_eq!(show("read --config a -h"), show("read --help"));
        assert_eq!(given(""), Err(show("--help")));
        expect_test::expect![[r#"
            Measures, keeps what it measured until a server has it for certain, and sends it

            Usage: eden-agent COMMAND [OPTIONS]

            Commands:
              run     Measure and send until told to stop (SIGTERM or Ctrl-C)
              read    Read each sensor once and show what it measured; nothing is kept or sent
              scan    Show what is on the buses of this board, as sections of a configuration
              check   Say whether configuration, sensors, outbox and servers are as they should be
              outbox  Show what waits in the outbox; also while an agent runs
              help    Show this, or with the name of a command its options

            Options:
              -h, --help     Show help
              -V, --version  Show the version

            Configuration: docs/agent.md. Exit codes: 0 done, 1 something did not work, 2 usage or
            configuration, 75 told to start again.
        "#]]
        .assert_eq(&show("--help"));
        expect_test::expect![[r#"
            Read each sensor once and show what it measured; nothing is kept or sent

            Usage: eden-agent read [--config FILE] [--format FORMAT]

            Options:
                  --config FILE    Configuration file [default: ./agent.toml]
                  --format FORMAT  How it is shown: table for people, json for programs [default: table]
              -h, --help           Show this
        "#]]
        .assert_eq(&show("read --help"));
        expect_test::expect![[r#"
            Show what is on the buses of this board, as sections of a configuration

            Usage: eden-agent scan [--bus PATH]... [--sysfs FOLDER]

            Options:
                  --bus PATH      An I²C bus to look at, such as /dev/i2c-1; may be given more than once [default: all there are]
                  --sysfs FOLDER  Where the kernel shows devices [default: /sys]
              -h, --help          Show this
        "#]].assert_eq(&show("scan --help"));
    }
}
