//! Why a command ends without having done its work: one line for people, one number for scripts.

use std::fmt::Display;
use std::process::ExitCode;

/// A command's failure. The text is one line that says what to do.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// The work was tried and failed: exit code 1.
    #[error("{0}")]
    Work(String),
    /// It could not be tried as asked (command line, configuration, port, folder, lock): exit code 2.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// A [`Failure::Work`] that says `reason`.
    pub fn work(reason: impl Display) -> Self {
        Failure::Work(one_line(&reason.to_string()))
    }

    /// A [`Failure::Usage`] that says `reason`.
    pub fn usage(reason: impl Display) -> Self {
        Failure::Usage(one_line(&reason.to_string()))
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Work(_) => ExitCode::from(1),
            Failure::Usage(_) => ExitCode::from(2),
        }
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
