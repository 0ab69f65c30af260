//! A Raspberry Pi 3 in QEMU, from power on to a reading in SQL: kernel, I²C bus, USB network and agent are the real ones.
//!
//! `cross/pi` is the machine. On its bus a memory stands for a BMP180: it answers with the chip's registers, converts
//! nothing and clears no bit. Temperature and pressure are read from the same two bytes, so both are 27 898 as raw values.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use harness::{Eden, terminate, wait};
use serde_json::Value;

use crate::command::root;
use crate::cross::{self, AARCH64, Debian, Extent, Purpose};
use crate::{Failure, Outcome};

/// On a loaded machine; alone it takes a minute.
pub(super) const READS_WITHIN: Duration = Duration::from_secs(1_800);
const SAYS_WITHIN: Duration = Duration::from_secs(600);
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Both the machine and the server have other work than to be asked.
pub(super) const ASKED_EACH: Duration = Duration::from_millis(500);

/// The data sheet's example: calibration, and the raw value of 15.0 °C.
const CALIBRATION: [u8; 22] = [
    0x01, 0x98, 0xFF, 0xB8, 0xC7, 0xD1, 0x7F, 0xE5, 0x7F, 0xF5, 0x5A, 0x71, 0x18, 0x2E, 0x00, 0x04, 0x80, 0x00, 0xDD,
    0xF9, 0x0B, 0x34,
];
const RAW: u16 = 27_898;

/// A memory never clears the bit of a conversion that runs.
pub(super) const SENSOR: &str =
    "[[sensor]]\ndriver = \"bmp180\"\nname = \"s1\"\noversampling = 1\nconversion_end = \"time\"\n";
/// What the data sheet's calculation makes of it, in °C and Pa.
pub(super) const READING: [f64; 2] = [15.0, 82_080.0];

/// Boots it, waits so long for the reading, compares.
pub(super) fn run(reads_within: Duration) -> Outcome {
    let board = Debian::make(Purpose::Board)?;
    let agent = cross::build(&Debian::make(Purpose::Toolchain)?, AARCH64, Extent::Whole)?;
    let eden = Eden::start("pi");
    let work = eden.home().join("pi");
    let failed = |error: std::io::Error| format!("prepare the board: {error}");
    std::fs::create_dir(&work).map_err(failed)?;
    std::fs::write(work.join("eeprom.bin"), memory()).map_err(failed)?;
    // The server's loopback is 10.0.2.2 for the machine.
    let (mqtt, http) = (port(eden.mqtt_address()), port(eden.address()));
    let configuration = format!(
        // Nobody tells the board the time but the server.
        "[agent]\nid = \"pi\"\n\n[clock]\ntime_url = \"http://10.0.2.2:{http}/health\"\n\n[outbox]\ndir = \
         \"/tmp/outbox\"\n\n[[server]]\nurl = \"mqtt://10.0.2.2:{mqtt}\"\n\n{SENSOR}"
    );
    std::fs::write(work.join("agent.toml"), configuration).map_err(failed)?;

    let console = work.join("console");
    let (source, folder) = (root(), agent.parent().unwrap_or(&agent));
    let places = [(source.as_path(), "/source"), (folder, "/target"), (work.as_path(), "/work")];
    let mut command = board.program(&places, "/source/cross/pi");
    command.args(["agent", "/work", "/target/eden-agent"]);
    let lines = File::create(&console).map_err(failed)?;
    let start = wait::now();
    let mut machine =
        command.stdin(Stdio::null()).stdout(lines).spawn().map_err(|error| format!("start the board: {error}"))?;
    let result = watch(&mut machine, &eden, &console, reads_within);
    let took = start.elapsed();
    terminate(&machine);
    if wait::until(ENDS_WITHIN, || machine.try_wait().ok().flatten()).is_none() {
        // It has to go; how is all the same.
        let _ = machine.kill();
        let _ = machine.wait();
    }
    let said = read(&console);
    for line in said.lines().filter(|line| line.contains("pi: ")) {
        println!("{}", line.trim());
    }
    let reading = result.map_err(|error| format!("{error}; the console:\n{said}"))?;
    println!("{reading} after {:.0} s", took.as_secs_f64());
    Ok(())
}

/// What the reading is, once it is in SQL and the agent's memory was looked at.
fn watch(machine: &mut Child, eden: &Eden, console: &Path, reads_within: Duration) -> Result<String, Failure> {
    let row = wait::until(reads_within, || {
        let answer = eden.client().sql("SELECT temperature, pressure FROM bmp180 WHERE agent = 'pi'").ok();
        let row = answer.and_then(|answer| answer["rows"].get(0).cloned());
        if row.is_none() && matches!(machine.try_wait(), Ok(Some(_))) {
            return Some(Err("the board is off".to_owned()));
        }
        if row.is_none() {
            wait::pass(ASKED_EACH);
        }
        row.map(Ok)
    });
    let row: Value = row.ok_or_else(|| format!("no reading within {reads_within:?}"))??;
    let memory = wait::until(SAYS_WITHIN, || read(console).contains("VmRSS").then_some(()));
    memory.ok_or("the board did not say how much memory the agent takes")?;
    if row.as_array().is_none_or(|row| row.iter().map(Value::as_f64).ne(READING.map(Some))) {
        return Err(format!("temperature and pressure in SQL are {row}, not {READING:?}"));
    }
    Ok(format!("temperature and pressure in SQL are {row}"))
}

/// Of an address with a port.
pub(super) fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

fn read(console: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned()
}

/// 256 registers, twice: the memory has room for two.
pub(super) fn memory() -> Vec<u8> {
    let mut registers = [0_u8; 256];
    registers[0xAA..0xAA + CALIBRATION.len()].copy_from_slice(&CALIBRATION);
    registers[0xD0] = 0x55;
    registers[0xF6..0xF8].copy_from_slice(&RAW.to_be_bytes());
    registers.repeat(2)
}
