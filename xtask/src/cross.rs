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

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use harness::wait;

pub(crate) use debian::{Debian, Purpose};
use trial::Bus;
pub(crate) use trial::{SHIM, make_shim};

use crate::command::{cargo, in_root, root, run as run_command};
use crate::interop::cache;
use crate::{Failure, Outcome};

/// Places in the folder of the toolchain.
const SOURCE: &str = "/source";
const TARGET: &str = "/target";
const CARGO: &str = "/cargo";
const TOOLS: &str = "/tools";

/// The standard library without unwinding and backtraces: a panic of the agent's says where it was and ends it.
const STANDARD_LIBRARY: &[&str] = &["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"];
/// Nobody unwinds through Rust either.
const RUST_FLAGS: &str = "-Cforce-unwind-tables=no";
/// Of glibc 2.39, and not used where they are missing; but their names' version would keep the program from starting there. A
/// name that is wrapped by nothing is missing everywhere.
const LINK_FLAGS: &str = "-Clink-arg=-Wl,--wrap=pidfd_spawnp,--wrap=pidfd_getpid";
/// Raspberry Pi OS of Debian 12 has it; 2.34 is asked for.
const GLIBC_MAX: (u32, u32) = (2, 36);
/// Nor through C. Of zstd what level 3 needs: `ZSTD_defaultCParameters` has `ZSTD_dfast` for it at every size.
const C_FLAGS: &[&str] = &[
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-DZSTD_EXCLUDE_GREEDY_BLOCK_COMPRESSOR",
    "-DZSTD_EXCLUDE_LAZY_BLOCK_COMPRESSOR",
    "-DZSTD_EXCLUDE_LAZY2_BLOCK_COMPRESSOR",
    "-DZSTD_EXCLUDE_BTLAZY2_BLOCK_COMPRESSOR",
    "-DZSTD_EXCLUDE_BTOPT_BLOCK_COMPRESSOR",
    "-DZSTD_EXCLUDE_BTULTRA_BLOCK_COMPRESSOR",
    "-DHUF_FORCE_DECOMPRESS_X1",
    "-DZSTD_FORCE_DECOMPRESS_SEQUENCES_SHORT",
];

/// How much of the agent is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it: what is packed.
    Whole,
    /// What a sensor and MQTT over TLS need, as [`Extent::FLAGS`].
    Small,
}

impl Extent {
    /// What grows beyond was not meant for a small board. ARMv6 has the C library in it.
    fn size_max(self) -> u64 {
        match self {
            Extent::Whole => 2_200_000,
            Extent::Small => 2_000_000,
        }
    }

    const FLAGS: &[&str] = &["--no-default-features", "--features", "tls"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Extent::Whole => "whole",
            Extent::Small => "small",
        }
    }
}

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

/// No board, but this machine: for what is measured.
pub(crate) const HERE: Board = Board {
    name: "x86_64",
    triple: "x86_64-unknown-linux-gnu",
    debian: "amd64",
    compiler: Compiler::Gcc("x86_64-linux-gnu"),
    emulator: &[],
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
        let small_agent = build(&toolchain, *board, Extent::Small)?;
        let small = facts(*board, &small_agent, Extent::Small)?;
        let agent = build(&toolchain, *board, Extent::Whole)?;
        let built = start.elapsed();
        let whole = facts(*board, &agent, Extent::Whole)?;
        let bus = if board.compiler == Compiler::Zig { Bus::Simulated } else { Bus::Preloaded };
        trial::run(&toolchain, *board, &small_agent, Extent::Small, bus)?;
        trial::run(&toolchain, *board, &agent, Extent::Whole, bus)?;
        if bus == Bus::Simulated {
            trial::run(&toolchain, *board, &with_chip(&toolchain, *board)?, Extent::Whole, Bus::Linked)?;
        }
        let package = package::make(*board, &agent)?;
        println!(
            "{}: {:.2} MB ({:.2} MB without HTTP), {whole}; built in {:.0} s, tried in {:.0} s\n  {}\n  {}",
            board.name,
            whole.size as f64 / 1e6,
            small.size as f64 / 1e6,
            built.as_secs_f64(),
            (start.elapsed() - built).as_secs_f64(),
            agent.display(),
            package.display()
        );
    }
    Ok(())
}

/// Facts of an agent that boards can take.
fn facts(board: Board, agent: &Path, extent: Extent) -> Result<elf::Elf, Failure> {
    let elf = elf::read(agent)?;
    let size_max = extent.size_max();
    if elf.size > size_max {
        return Err(format!("{}: {}: {} bytes, more than {size_max}", board.name, agent.display(), elf.size));
    }
    if let Some((major, minor)) = elf.glibc.filter(|glibc| *glibc > GLIBC_MAX) {
        return Err(format!("{}: {} needs glibc {major}.{minor}, which boards lack", board.name, agent.display()));
    }
    Ok(elf)
}

/// The folder of all that is kept between runs.
fn folder() -> Result<PathBuf, Failure> {
    let shared = cache()?;
    Ok(shared.parent().unwrap_or(&shared).join("cross"))
}

/// The agent for a board, as new as its sources.
pub(crate) fn build(toolchain: &Debian, board: Board, extent: Extent) -> Result<PathBuf, Failure> {
    compile(toolchain, board, extent, None)
}

/// The whole agent with the chip of `cross/shim` in it: for a static program, which loads no library. It is compiled from
/// the same sources as the one that is packed, and differs in what the linker is given.
fn with_chip(toolchain: &Debian, board: Board) -> Result<PathBuf, Failure> {
    let folder = folder()?.join("target").join(board.triple).join("chip");
    std::fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
    make_shim(toolchain, board, &folder)?;
    let made = folder.join(SHIM);
    let bytes = std::fs::read(&made).map_err(|error| format!("read {}: {error}", made.display()))?;
    // cargo looks at the name of what is linked, and not into it.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let name = format!("bmp180-{:016x}.o", hasher.finish());
    std::fs::rename(&made, folder.join(&name)).map_err(|error| format!("rename {}: {error}", made.display()))?;
    compile(toolchain, board, Extent::Whole, Some(&format!("{TARGET}/{}/chip/{name}", board.triple)))
}

/// Compiles the agent; `linked` is an object file, at its place in the toolchain, that is linked with it.
fn compile(toolchain: &Debian, board: Board, extent: Extent, linked: Option<&str>) -> Result<PathBuf, Failure> {
    // The only steps that ask for crates; what follows has what it needs. The standard library has a lock of its own, and
    // a manifest for nightly cargo.
    run_command(cargo().args(["fetch", "--quiet", "--locked"]))?;
    let library = toolchain.folder().join("usr/lib/rustlib/src/rust/library/Cargo.toml");
    let mut fetch = cargo();
    fetch.env("RUSTC_BOOTSTRAP", "1").args(["fetch", "--quiet", "--locked", "--manifest-path"]).arg(library);
    run_command(&mut fetch)?;
    let target = folder()?.join("target");
    std::fs::create_dir_all(&target).map_err(|error| format!("make {}: {error}", target.display()))?;
    let cargo_home = cargo_home()?;
    let source = root();
    let mut places = vec![(source.as_path(), SOURCE), (&target, TARGET), (&cargo_home, CARGO)];
    let tools = folder()?.join("tools");
    if board.compiler == Compiler::Zig {
        install_zig(&tools)?;
        places.push((&tools, TOOLS));
    }
    let mut command = toolchain.program(&places, "env");
    // `-Zbuild-std` is for nightly Rust.
    command.args(["--ignore-environment", "PATH=/tools/bin:/usr/bin:/bin", "HOME=/tmp", "RUSTC_BOOTSTRAP=1"]);
    command.args([format!("CARGO_HOME={CARGO}"), format!("CARGO_TARGET_DIR={TARGET}")]);
    let variable = board.triple.replace('-', "_");
    command.arg(format!("CFLAGS_{variable}={}", C_FLAGS.join(" ")));
    match board.compiler {
        Compiler::Gcc(prefix) => {
            command.arg(format!("CARGO_TARGET_{}_LINKER={prefix}-gcc", variable.to_uppercase()));
            command.args([format!("CC_{variable}={prefix}-gcc"), format!("AR_{variable}={prefix}-ar")]);
            command.arg(format!("RUSTFLAGS={RUST_FLAGS} {LINK_FLAGS}")).args(["cargo", "build"]);
        }
        Compiler::Zig => {
            command.arg(format!("CARGO_ZIGBUILD_ZIG_PATH={TOOLS}/ziglang/zig"));
            // zig brings its own start files.
            command.arg(format!("RUSTFLAGS={RUST_FLAGS} -Clink-self-contained=no"));
            command.args(["cargo-zigbuild", if linked.is_some() { "rustc" } else { "zigbuild" }]);
        }
    }
    command.args(STANDARD_LIBRARY);
    command.args(["--quiet", "--locked", "--offline", "--package", "edge-agent", "--profile", "agent"]);
    if extent == Extent::Small {
        command.args(Extent::FLAGS);
    }
    command.args(["--target", board.triple, "--manifest-path"]).arg(format!("{SOURCE}/Cargo.toml"));
    if let Some(object) = linked {
        command.args(["--bin", "eden-agent", "--", &format!("-Clink-arg={object}")]);
    }
    run_command(&mut command)?;
    // The next build has the same name.
    let built = target.join(board.triple).join("agent/eden-agent");
    let kept = target.join(board.triple).join(if linked.is_some() { "chip" } else { extent.name() }).join("eden-agent");
    let copied =
        std::fs::create_dir_all(kept.parent().expect("it has a folder")).and_then(|()| std::fs::copy(&built, &kept));
    copied.map_err(|error| format!("copy {} to {}: {error}", built.display(), kept.display()))?;
    Ok(kept)
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

/// The package of an agent for a board.
pub(crate) fn package(board: Board, agent: &Path) -> Result<PathBuf, Failure> {
    package::make(board, agent)
}

/// The image of a card with Debian for `board`'s machine; made if it is not as new as the script that makes it.
pub(crate) fn card(board: &Debian) -> Result<PathBuf, Failure> {
    let folder = folder()?.join("card");
    run_command(in_root(root().join("cross/card")).arg(board.folder()).arg(&folder))?;
    Ok(folder.join("card.img"))
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
