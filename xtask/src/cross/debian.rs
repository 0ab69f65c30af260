//! Minimal Debians in the user's cache, and programs in them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::command::{in_root, root, run as run_command};
use crate::interop::install;

/// What one is for: the first word of `cross/root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Rust, compilers for ARM, qemu-user.
    Toolchain,
    /// Whole machines, and what starts on them.
    Board,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Toolchain => "toolchain",
            Purpose::Board => "board",
        }
    }
}

/// A folder that `cross/root` made.
#[derive(Debug)]
pub(crate) struct Debian {
    folder: PathBuf,
}

impl Debian {
    /// As new as the script; made if it is not.
    pub(crate) fn make(purpose: Purpose) -> Result<Self, Failure> {
        let (name, folder) = (purpose.name(), Debian::place(purpose)?);
        if !is_current(&folder, name) {
            install("mmdebstrap", "mmdebstrap")?;
            println!("making a Debian with what {name} needs; once, some minutes");
            run_command(in_root(root().join("cross/root")).arg(name).arg(&folder))?;
        }
        Ok(Debian { folder })
    }

    /// Whether it is there already.
    pub(crate) fn is_made(purpose: Purpose) -> Result<bool, Failure> {
        Ok(is_current(&Debian::place(purpose)?, purpose.name()))
    }

    fn place(purpose: Purpose) -> Result<PathBuf, Failure> {
        Ok(super::folder()?.join(purpose.name()))
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program of it, which sees each of `places` where it says. It becomes the process that is started: signals reach
    /// it.
    pub(crate) fn program(&self, places: &[(&Path, &str)], program: &str) -> Command {
        let mut command = in_root(root().join("cross/enter"));
        command.arg(&self.folder);
        for (folder, place) in places {
            let mut pair = folder.as_os_str().to_owned();
            pair.push("=");
            pair.push(place);
            command.arg(pair);
        }
        command.arg("--").arg(program);
        command
    }
}

fn is_current(folder: &Path, purpose: &str) -> bool {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let script = read(root().join("cross/root"));
    script.is_some_and(|script| read(folder.join("made-by")) == Some(format!("{script}# {purpose}\n")))
}
