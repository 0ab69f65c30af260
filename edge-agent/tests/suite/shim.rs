//! The real `eden-agent` on a bus that a library in `LD_PRELOAD` plays: `cross/shim/bmp180.c`, a BMP180 with its timing.
//!
//! Its C compiler is the one that zstd is built with.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

struct Board {
    folder: TempDir,
    shim: PathBuf,
}

impl Board {
    fn new() -> Board {
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join("bmp180.so");
        std::fs::write(folder.path().join("bus"), "").unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/shim/bmp180.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]);
        let built = command.arg(&shim).arg(source).arg("-ldl").status().unwrap();
        assert!(built.success(), "the library was not built: {built}");
        Board { folder, shim }
    }

    /// What `eden-agent` says of a BMP180 with these further keys, with a fault of the library's list.
    fn run(&self, command: &str, keys: &str, fault: &str) -> String {
        let configuration = self.folder.path().join("agent.toml");
        std::fs::write(&configuration, format!("[[sensor]]\ndriver = \"bmp180\"\nname = \"s1\"\n{keys}\n")).unwrap();
        let mut agent = Command::new(env!("CARGO_BIN_EXE_eden-agent"));
        agent.args([command, "--config"]).arg(&configuration);
        agent.env("LD_PRELOAD", &self.shim).env("EDEN_SHIM_FILE", self.folder.path().join("bus"));
        let output = agent.env("EDEN_SHIM_FAULT", fault).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_chip_on_a_bus_of_linux_is_read_in_every_mode() {
    let board = Board::new();
    // The data sheet's example, whose raw pressure is that of one sample; more samples have more bits, and round otherwise.
    for (samples, pascal) in [(1, 69_964), (2, 69_962), (4, 69_963), (8, 69_963)] {
        let said = board.run("read", &format!("oversampling = {samples}"), "");
        assert!(said.contains("temperature 15.0"), "{samples} samples: {said}");
        assert!(said.contains(&format!("pressure {pascal}")), "{samples} samples: {said}");
    }
}

#[test]
fn a_bus_that_another_process_holds_is_left_alone() {
    let board = Board::new();
    let bus = std::fs::File::open(board.folder.path().join("bus")).unwrap();
    bus.lock().unwrap();
    let refused = board.run("read", "", "");
    assert!(refused.contains("another process has held the bus /dev/i2c-1"), "{refused}");
    bus.unlock().unwrap();
    let said = board.run("read", "", "");
    assert!(said.contains("pressure 69963"), "{said}");
}

#[test]
fn a_conversion_is_not_read_before_it_ends() {
    let board = Board::new();
    let patient = board.run("read", "oversampling = 1", "slow");
    assert!(patient.contains("pressure 69964"), "a chip that needs longer: {patient}");
    // The library tells: who only waits for as long as a chip should need reads what was there before.
    let hasty = board.run("read", "oversampling = 1\nconversion_end = \"time\"", "late");
    assert!(!hasty.contains("69964"), "{hasty}");
}

#[test]
fn what_is_wrong_with_a_bus_is_said() {
    let board = Board::new();
    for (fault, said) in [
        ("absent", "no device answers at this address"),
        ("other-chip", "that is a BMP280"),
        ("blank", "the calibration word AC1 is 0xffff"),
        ("floating", "nothing drives the bus, check the wires"),
        ("stuck", "the conversion is not over after"),
        ("held", "the bus is held by something"),
        ("flaky", "the bus has a fault"),
    ] {
        let found = board.run("read", "", fault);
        assert!(found.contains(said), "{fault}: {found}");
    }
}

#[test]
fn a_bus_that_is_not_there_and_an_address_where_nobody_answers_are_told_apart() {
    let board = Board::new();
    let none = board.run("read", "bus = \"/dev/i2c-97\"", "");
    assert!(none.contains("there is no such bus"), "{none}");
    let nobody = board.run("read", "address = 0x76", "");
    assert!(nobody.contains("no device answers at this address"), "{nobody}");
}
