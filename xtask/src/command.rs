//! Runs programs in the root of the source tree and says clearly which one failed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Failure, Outcome};

pub(crate) use harness::workspace as root;

/// The cargo that runs us, in the root.
pub(crate) fn cargo() -> Command {
    let mut cargo = harness::cargo();
    cargo.current_dir(root());
    cargo
}

/// A command that starts in the root.
pub(crate) fn in_root(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs to the end; output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| format!("run {}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", shown(command))) }
}

/// Runs to the end and returns standard output; standard error goes to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("run {}: {error}", shown(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{} failed: {}\n{text}", shown(command), output.status))
    }
}

/// Runs to the end, shows standard output as it comes, and returns it.
pub(crate) fn shown_output(command: &mut Command) -> Result<String, Failure> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| format!("run {}: {error}", shown(command)))?;
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.map_err(|error| format!("read the output of {}: {error}", shown(command)))?;
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().map_err(|error| format!("wait for {}: {error}", shown(command)))?;
    if status.success() { Ok(text) } else { Err(format!("{} failed: {status}", shown(command))) }
}

/// Whether a program can be started at all.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}
