//! Finds the `eden` and the `eden-agent` that belong to the sources, and builds them if they are not there.
//!
//! `cargo test --workspace` has built both already (their packages have integration tests), so nothing is compiled then.
//! Cargo tells tests of other packages no path, hence the look beside the running executable. `cargo test` does not
//! always write the list of sources beside a binary; then `cargo build` is asked, which finds everything built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const SERVER: &str = "ingest-server";

/// Which build to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The dev build.
    Dev,
    /// The release build: for measuring.
    Release,
}

/// The path of an `eden` as new as its sources; `EDEN_BIN` names another one.
///
/// # Panics
/// When it has to be built and that fails.
pub fn eden_binary(profile: Profile) -> PathBuf {
    match std::env::var_os("EDEN_BIN") {
        Some(path) => path.into(),
        None => program(profile, SERVER, "eden"),
    }
}

/// The path of an `eden-agent` as new as its sources; `EDEN_AGENT_BIN` names another one.
///
/// # Panics
/// When it has to be built and that fails.
pub fn agent_binary(profile: Profile) -> PathBuf {
    match std::env::var_os("EDEN_AGENT_BIN") {
        Some(path) => path.into(),
        None => program(profile, "edge-agent", "eden-agent"),
    }
}

/// The path of a program of a package of this workspace, as new as its sources were when it was first asked for: sources
/// that change during a run belong to the next one.
///
/// # Panics
/// When it has to be built and that fails.
pub fn program(profile: Profile, package: &str, name: &str) -> PathBuf {
    static KNOWN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

    let target = target_dir();
    let (folder, flags): (_, &[&str]) = match profile {
        Profile::Dev => ("debug", &[]),
        Profile::Release => ("release", &["--release"]),
    };
    let binary = target.join(folder).join(name);
    // Held while building: one thread builds, the others wait for it.
    let mut known = KNOWN.lock().expect("another thread failed to build a program");
    if known.contains(&binary) {
        return binary;
    }
    if is_older_than_its_sources(&binary) {
        let status = cargo()
            // Cargo unites the features of the packages that it is given. With the server among them they are those of
            // the whole workspace, so what `cargo test --workspace` compiled is used and not compiled again.
            .args(["build", "--quiet", "--package", SERVER, "--package", package, "--bin", name])
            .args(flags)
            .env("CARGO_TARGET_DIR", &target)
            .current_dir(workspace())
            .status()
            .expect("run cargo build");
        assert!(status.success(), "cargo build of {name} failed");
    }
    known.push(binary.clone());
    binary
}

/// The cargo that runs us, started as from a shell.
///
/// What cargo tells a test or `cargo xtask` about its package must not reach the next cargo: `ring` asks to be built
/// again when `CARGO_MANIFEST_DIR` changes, and all of DataFusion stands on it.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_ours = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_"].iter().any(|start| text.starts_with(start))
            || ["CARGO", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "OUT_DIR"]
                .contains(&&*text);
        if is_ours {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The root of the source tree. Cargo's word at run time goes first: checkouts that share a target folder may share this
/// executable, and then the path that was compiled in is another's.
pub fn workspace() -> PathBuf {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().expect("the package lies in the workspace").to_path_buf()
}

/// `target`, from `target/debug/deps/suite-0123` or `target/debug/xtask`.
fn target_dir() -> PathBuf {
    let executable = std::env::current_exe().expect("path of this executable");
    executable
        .ancestors()
        .skip(1)
        .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
        .and_then(Path::parent)
        .expect("this executable lies in cargo's target folder")
        .to_path_buf()
}

/// Compares with the sources that cargo lists in `eden.d` beside the binary.
fn is_older_than_its_sources(binary: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|info| info.modified()).ok();
    let (Some(built), Ok(listed)) = (modified(binary), std::fs::read_to_string(binary.with_extension("d"))) else {
        return true;
    };
    let Some((_, sources)) = listed.split_once(": ") else { return true };
    // A space inside a path is written `\ `.
    let sources = sources.trim_end().replace("\\ ", "\0");
    let workspace = workspace();
    sources.split(' ').any(|source| {
        let source = source.replace('\0', " ");
        let source = Path::new(&source);
        // Another checkout's binary is not ours, however new it is.
        !source.starts_with(&workspace) || modified(source).is_none_or(|changed| changed > built)
    })
}
