//! The agent for boards: built with Debian's compilers for ARM, tried under qemu-user, packed for Debian.
//!
//! Owns:     which boards there are and how the agent is built for each; the two minimal Debians in the user's cache.
//! Does not: know the sizes that the agent should have on a desktop, or start whole machines (`soak::pi`).
//!
//! Why this way: docs/adr/0037-the-agent-for-boards.md.

mod debian;
mod elf;
mod package;
mod trial;

use std::path::{Path, PathBuf};

use harness::wait;

pub(crate) use debian::{Debian, Purpose};

use crate::command::{cargo, in_root, root, run as run_command};
use crate::interop::cache;
use crate::{Failure, Outcome};

/// Places in the folder of the toolchain.
const SOURCE: &str = "/source";
const TARGET: &str = "/target";
const CARGO: &str = "/cargo";
const TOOLS: &str = "/tools";

/// Measured: 2.8 MB with drivers of chips and TLS. What grows beyond was not meant for a small board.
const SIZE_MAX: u64 = 3_000_000;

/// A kind of board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Board {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Rust's name of the target.
    pub(crate) triple: &'static str,
    /// Debian's name of the architecture.
    pub(crate) debian: &'static str,
    compiler: Compiler,
    /// qemu-user and what it has to know.
    emulator: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    /// Debian's gcc with this prefix.
    Gcc(&'static str),
    /// zig by `cargo-zigbuild`, with a standard library of our own making: Debian's ARM begins at version 7.
    Zig,
}

pub(crate) const AARCH64: Board = Board {
    name: "aarch64",
    triple: "aarch64-unknown-linux-gnu",
    debian: "arm64",
    compiler: Compiler::Gcc("aarch64-linux-gnu"),
    emulator: &["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
};

const BOARDS: &[Board] = &[
    AARCH64,
    Board {
        name: "armv7",
        triple: "armv7-unknown-linux-gnueabihf",
        debian: "armhf",
        compiler: Compiler::Gcc("arm-linux-gnueabihf"),
        emulator: &["qemu-arm", "-L", "/usr/arm-linux-gnueabihf"],
    },
    Board {
        name: "armv6",
        triple: "arm-unknown-linux-musleabihf",
        debian: "armhf",
        compiler: Compiler::Zig,
        // The processor of the Raspberry Pi 1 and Zero.
        emulator: &["qemu-arm", "-cpu", "arm1176"],
    },
];

/// Builds, tries and packs for the boards that are named, or for all.
pub(crate) fn run(names: &[String]) -> Outcome {
    if let Some(name) = names.iter().find(|name| !BOARDS.iter().any(|board| board.name == *name)) {
        let known: Vec<_> = BOARDS.iter().map(|board| board.name).collect();
        return Err(format!("there is no board {name:?}, but {}", known.join(", ")));
    }
    let toolchain = Debian::make(Purpose::Toolchain)?;
    for board in BOARDS.iter().filter(|board| names.is_empty() || names.iter().any(|name| name == board.name)) {
        let start = wait::now();
        let agent = build(&toolchain, *board)?;
        let built = start.elapsed();
        let elf = elf::read(&agent)?;
        trial::run(&toolchain, *board, &agent)?;
        let package = package::make(*board, &agent)?;
        println!(
            "{}: {:.2} MB, {elf}; built in {:.0} s, tried in {:.0} s\n  {}\n  {}",
            board.name,
            elf.size as f64 / 1e6,
            built.as_secs_f64(),
            (start.elapsed() - built).as_secs_f64(),
            agent.display(),
            package.display()
        );
        if elf.size > SIZE_MAX {
            return Err(format!("{}: {} bytes, more than {SIZE_MAX}", agent.display(), elf.size));
        }
    }
    Ok(())
}

/// The folder of all that is kept between runs.
fn folder() -> Result<PathBuf, Failure> {
    let shared = cache()?;
    Ok(shared.parent().unwrap_or(&shared).join("cross"))
}

/// The agent for a board, as new as its sources.
pub(crate) fn build(toolchain: &Debian, board: Board) -> Result<PathBuf, Failure> {
    // The only step that asks for crates; what follows has what it needs.
    run_command(cargo().args(["fetch", "--quiet", "--locked"]))?;
    let target = folder()?.join("target");
    std::fs::create_dir_all(&target).map_err(|error| format!("make {}: {error}", target.display()))?;
    let cargo_home = cargo_home()?;
    let source = root();
    let mut places = vec![(source.as_path(), SOURCE), (&target, TARGET), (&cargo_home, CARGO)];
    let tools = folder()?.join("tools");
    if board.compiler == Compiler::Zig {
        install_zig(&tools)?;
        let library = toolchain.folder().join("usr/lib/rustlib/src/rust/library/Cargo.toml");
        // The standard library has a lock of its own, and a manifest for nightly cargo.
        let mut fetch = cargo();
        fetch.env("RUSTC_BOOTSTRAP", "1").args(["fetch", "--quiet", "--locked", "--manifest-path"]).arg(library);
        run_command(&mut fetch)?;
        places.push((&tools, TOOLS));
    }
    let mut command = toolchain.program(&places, "env");
    command.args(["--ignore-environment", "PATH=/tools/bin:/usr/bin:/bin", "HOME=/tmp"]);
    command.args([format!("CARGO_HOME={CARGO}"), format!("CARGO_TARGET_DIR={TARGET}")]);
    let variable = board.triple.replace('-', "_");
    match board.compiler {
        Compiler::Gcc(prefix) => {
            command.arg(format!("CARGO_TARGET_{}_LINKER={prefix}-gcc", variable.to_uppercase()));
            command.args([format!("CC_{variable}={prefix}-gcc"), format!("AR_{variable}={prefix}-ar")]);
            command.args(["cargo", "build"]);
        }
        Compiler::Zig => {
            command.arg(format!("CARGO_ZIGBUILD_ZIG_PATH={TOOLS}/ziglang/zig"));
            // `-Zbuild-std` is for nightly Rust. zig brings its own start files.
            command.args(["RUSTC_BOOTSTRAP=1", "RUSTFLAGS=-Clink-self-contained=no"]);
            command.args(["cargo-zigbuild", "zigbuild", "-Zbuild-std=std,panic_abort"]);
        }
    }
    command.args(["--quiet", "--locked", "--offline", "--package", "edge-agent", "--profile", "agent"]);
    command.args(["--target", board.triple, "--manifest-path"]).arg(format!("{SOURCE}/Cargo.toml"));
    run_command(&mut command)?;
    Ok(target.join(board.triple).join("agent/eden-agent"))
}

/// zig and `cargo-zigbuild`, from Python's registry.
fn install_zig(tools: &Path) -> Outcome {
    let requirements = root().join("cross/requirements.txt");
    let failed = |error: std::io::Error| format!("read {}: {error}", requirements.display());
    let wanted = std::fs::read_to_string(&requirements).map_err(failed)?;
    let installed = tools.join("requirements.txt");
    if std::fs::read_to_string(&installed).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    println!("installing {}", wanted.split_whitespace().collect::<Vec<_>>().join(", "));
    let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"];
    run_command(
        in_root("python3")
            .args(arguments)
            .args(["--upgrade", "--target"])
            .arg(tools)
            .arg("--requirement")
            .arg(&requirements),
    )?;
    std::fs::write(&installed, wanted).map_err(|error| format!("write {}: {error}", installed.display()))
}

/// Where cargo keeps the sources of crates.
fn cargo_home() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    named.or_else(usual).ok_or_else(|| "neither CARGO_HOME nor HOME is set".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page about its configuration file, in the documentation of `cross` 0.2.5.
    const BOTH: &[&str] = &["build-std", "xargo", "zig", "pre-build", "dockerfile", "env"];
    const OF_BUILD: &[&str] = &["default-target"];
    const OF_TARGETS: &[&str] = &["image", "runner"];
    const OF_ENV: &[&str] = &["volumes", "passthrough"];

    fn unknown(text: &str) -> Vec<String> {
        let table: toml::Table = text.parse().expect("TOML");
        let mut unknown = Vec::new();
        let mut check = |place: &str, value: &toml::Value, known: &[&[&str]]| {
            for key in value.as_table().expect("a table").keys().filter(|key| !known.concat().contains(&key.as_str())) {
                unknown.push(format!("{place}.{key}"));
            }
        };
        for (name, value) in &table {
            match name.as_str() {
                "build" => check("build", value, &[BOTH, OF_BUILD]),
                "target" => {
                    for (triple, value) in value.as_table().expect("targets") {
                        check(triple, value, &[BOTH, OF_TARGETS]);
                    }
                }
                _ => check("", &toml::Value::Table(table.clone()), &[&["build", "target"]]),
            }
            if let Some(env) = value.get("env") {
                check("env", env, &[OF_ENV]);
            }
        }
        unknown
    }

    #[test]
    fn cross_knows_every_key_of_its_file_and_every_board_is_in_it() {
        let text = std::fs::read_to_string(root().join("cross/Cross.toml")).expect("cross/Cross.toml");
        assert_eq!(unknown(&text), Vec::<String>::new());
        let table: toml::Table = text.parse().expect("TOML");
        for board in BOARDS {
            assert!(table["target"].get(board.triple).is_some(), "{} is not in cross/Cross.toml", board.triple);
        }
    }

    #[test]
    fn a_key_that_cross_does_not_know_is_found() {
        let text = "[build.env]\npasstrough = []\n[target.x]\nimages = \"y\"\n[targets.x]\n";
        assert_eq!(unknown(text), ["env.passtrough", "x.images", ".targets"]);
    }
}
