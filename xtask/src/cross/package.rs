//! The package for Debian: made by `cross/package`, which needs only `dpkg-deb`.

use std::path::{Path, PathBuf};

use super::{Board, Compiler, elf};
use crate::Failure;
use crate::command::{in_root, root, run as run_command};

/// Packs an agent; returns the file.
pub(super) fn make(board: Board, agent: &Path) -> Result<PathBuf, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    // Two kinds of board share Debian's name `armhf`; the file's name tells them apart, and the package refuses the older.
    let kind = if board.compiler == Compiler::Zig { board.name } else { board.debian };
    let package = agent.with_file_name(format!("eden-agent_{version}_{kind}.deb"));
    let depends = elf::read(agent)?.depends();
    let mut command = in_root(root().join("cross/package"));
    command.arg(agent).args([version, board.debian, board.name, &depends]).arg(&package);
    run_command(&mut command)?;
    Ok(package)
}
