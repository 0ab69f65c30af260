//! What is on the buses of this board, as configuration to paste.
//!
//! Owns:     which questions a bus is asked, and the words for what answers.
//! Does not: write to an address where no chip that it knows can be: a byte that one chip reads as a register is a command to
//!           another.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};

use embedded_hal::i2c::{Error as _, ErrorKind, I2c};
use settings::quoted;

use crate::config::SensorSection;
use crate::sensor::i2c::{HOLD_WAIT_MS, LinuxBus, Turn, is_taken};
use crate::sensor::sht3x::crc8;
use crate::sensor::sysfs::{Kind, devices};
use crate::sensor::{Station, bme280, driver, sht3x};

/// Addresses that are not reserved (UM10204, 3.1.12).
const ADDRESSES: std::ops::RangeInclusive<u8> = 0x08..=0x77;
const BOSCH_ID: u8 = 0xD0;
/// *Read status* of an SHT3x.
const SHT3X_STATUS: [u8; 2] = [0xF3, 0x2D];

/// What answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A chip that this driver reads.
    Chip(&'static str),
    /// Something else; in words.
    Other(String),
    /// Nobody.
    Nobody,
}

/// Asks who is at `address`.
///
/// # Errors
/// If the bus does not work: what it said.
pub fn ask<I: I2c<Error: Display>>(bus: &mut I, address: u8) -> Result<Answer, String> {
    let failed = |error: I::Error| match error.kind() {
        ErrorKind::NoAcknowledge(_) => Ok(Answer::Nobody),
        _ if is_taken(&error.to_string()) => Ok(Answer::Other("used by a driver of the kernel".to_owned())),
        _ => Err(error.to_string()),
    };
    if [bme280::ADDRESS, bme280::ADDRESS + 1].contains(&address) {
        let mut id = [0];
        return match bus.write_read(address, &[BOSCH_ID], &mut id) {
            Ok(()) => Ok(match id {
                [0x55] => Answer::Chip("bmp180"),
                [0x56..=0x58] => Answer::Chip("bmp280"),
                [0x60] => Answer::Chip("bme280"),
                [id] => Answer::Other(format!("a chip without a driver; register 0xd0 holds {id:#04x}")),
            }),
            Err(e) => failed(e),
        };
    }
    if [sht3x::ADDRESS, sht3x::ADDRESS + 1].contains(&address) {
        // It answers to no read without a command before it.
        let mut status = [0; 3];
        match bus.write(address, &SHT3X_STATUS).and_then(|()| bus.read(address, &mut status)) {
            Ok(()) if crc8([status[0], status[1]]) == status[2] => return Ok(Answer::Chip("sht3x")),
            Ok(()) => return Ok(Answer::Other("a chip without a driver".to_owned())),
            Err(e) if matches!(e.kind(), ErrorKind::NoAcknowledge(_)) => {}
            Err(e) => return failed(e),
        }
    }
    match bus.read(address, &mut [0]) {
        Ok(()) => Ok(Answer::Other("a chip without a driver".to_owned())),
        Err(e) => failed(e),
    }
}

/// Looks at the given buses, or at all that there are, and at what the kernel shows below `sysfs`.
pub(crate) fn scan(buses: &[PathBuf], sysfs: &Path) -> String {
    let mut report = Report::default();
    let all = if buses.is_empty() { all_buses(Path::new("/dev")) } else { buses.to_vec() };
    if all.is_empty() {
        report.note(
            "no I²C bus: on a Raspberry Pi write dtparam=i2c_arm=on into config.txt, load i2c-dev, and start again",
        );
    }
    for path in &all {
        scan_bus(path, &mut report);
    }
    for (kind, driver) in
        [(Kind::Ds18b20, "ds18b20"), (Kind::Iio, "iio"), (Kind::Hwmon, "hwmon"), (Kind::Thermal, "thermal")]
    {
        scan_devices(sysfs, kind, driver, &mut report);
    }
    report.text()
}

fn all_buses(dev: &Path) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("i2c-")?.parse::<u32>().ok();
    let entries = std::fs::read_dir(dev).into_iter().flatten();
    let mut buses: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| number(path).is_some()).collect();
    buses.sort_by_key(number);
    buses
}

fn scan_bus(path: &Path, report: &mut Report) {
    let (mut bus, turn) = match LinuxBus::open(path).and_then(|bus| Ok((bus, Turn::open(path)?))) {
        Ok(opened) => opened,
        Err(e) => return report.note(&e.to_string()),
    };
    let mut found = 0;
    for address in ADDRESSES {
        // Between two questions an agent that runs may measure.
        let held = match turn.hold(HOLD_WAIT_MS) {
            Ok(held) => held,
            Err(e) => return report.note(&e.to_string()),
        };
        let asked = ask(&mut bus, address);
        drop(held);
        match asked {
            Ok(Answer::Nobody) => continue,
            Ok(Answer::Other(what)) => report.note(&format!("{} at {address:#04x}: {what}", path.display())),
            Ok(Answer::Chip(driver)) => report.chip(driver, path, address),
            Err(fault) => {
                report.note(&format!("{} at {address:#04x}: {fault}", path.display()));
                return;
            }
        }
        found += 1;
    }
    if found == 0 {
        report.note(&format!("{}: no chip answers", path.display()));
    }
}

fn scan_devices(sysfs: &Path, kind: Kind, driver: &'static str, report: &mut Report) {
    let all = match devices(sysfs, kind) {
        Ok(all) => all,
        Err(e) => return report.note(&e.to_string()),
    };
    for device in &all {
        // A name says more than a number that depends on the order of discovery, if it is one device's alone.
        let is_only = all.iter().filter(|other| other.name == device.name).count() == 1;
        let source = if is_only { &device.name } else { &device.id };
        let section = SensorSection {
            driver: driver.to_owned(),
            name: "scan".to_owned(),
            source: source.clone(),
            sysfs: sysfs.to_owned(),
            ..SensorSection::default()
        };
        match Station::new("scan", &section).read(0) {
            Ok(reading) => {
                let fields: Vec<String> =
                    reading.fields.iter().map(|(name, value)| format!("{name} {value}")).collect();
                report.device(driver, &device.id, source, sysfs, &fields.join(", "));
            }
            Err(e) => report.note(&format!("{} {} ({}): {e}", kind.noun(), device.id, device.name)),
        }
    }
    if all.is_empty() {
        report.note(&format!("no {}", kind.noun()));
    }
}

/// TOML: notes are comments.
#[derive(Default)]
struct Report {
    notes: String,
    sections: String,
    /// Sensors by the beginning of their names, which have numbers from the second on.
    names: BTreeMap<String, u32>,
}

impl Report {
    fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "# {}", text.replace('\n', " "));
    }

    fn chip(&mut self, name: &'static str, bus: &Path, address: u8) {
        self.note(&format!("{} at {address:#04x}: {name}", bus.display()));
        let is_default = driver(name).is_some_and(|driver| driver.addresses().first() == Some(&address));
        self.section(name, name);
        if bus != SensorSection::default().bus {
            let _ = writeln!(self.sections, "bus = {}", quoted(&bus.display().to_string()));
        }
        if !is_default {
            let _ = writeln!(self.sections, "address = {address:#04x}");
        }
    }

    fn device(&mut self, driver: &'static str, id: &str, source: &str, sysfs: &Path, fields: &str) {
        self.note(&format!("{driver} {id}: {fields}"));
        self.section(driver, source);
        let _ = writeln!(self.sections, "source = {}", quoted(source));
        if sysfs != SensorSection::default().sysfs {
            let _ = writeln!(self.sections, "sysfs = {}", quoted(&sysfs.display().to_string()));
        }
    }

    fn section(&mut self, driver: &str, name: &str) {
        let number = self.names.entry(name.to_owned()).or_default();
        *number += 1;
        let name = if *number == 1 { name.to_owned() } else { format!("{name}-{number}") };
        let _ = write!(self.sections, "\n[[sensor]]\ndriver = {}\nname = {}\n", quoted(driver), quoted(&name));
    }

    fn text(self) -> String {
        self.notes + &self.sections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buses_are_found_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["i2c-10", "i2c-1", "i2c-", "i2c-x", "null"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<PathBuf> = all_buses(dir.path());
        assert_eq!(names, [dir.path().join("i2c-1"), dir.path().join("i2c-10")]);
    }

    #[test]
    fn what_the_kernel_shows_becomes_sections_and_what_does_not_work_notes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("class/thermal/thermal_zone0/type", "cpu-thermal\n");
        write("class/thermal/thermal_zone0/temp", "48312\n");
        write("class/hwmon/hwmon0/name", "rpi_volt\n");
        write(
            "bus/w1/devices/28-00000a1b2c3d/w1_slave",
            "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n",
        );
        let text = scan(&[dir.path().join("i2c-9")], dir.path());
        let place = dir.path().display().to_string();
        let text = text.replace(&place, "/sys");
        expect_test::expect![[r#"
            # open the bus /sys/i2c-9: No such file or directory (os error 2); there is no such bus: is I²C enabled? On a Raspberry Pi write dtparam=i2c_arm=on into config.txt, load i2c-dev, and start again
            # ds18b20 28-00000a1b2c3d: temperature 23.125
            # no IIO device
            # hwmon device hwmon0 (rpi_volt): /sys/class/hwmon/hwmon0 has no channel that can be read and is known
            # thermal thermal_zone0: temperature 48.312

            [[sensor]]
            driver = "ds18b20"
            name = "28-00000a1b2c3d"
            source = "28-00000a1b2c3d"
            sysfs = "/sys"

            [[sensor]]
            driver = "thermal"
            name = "cpu-thermal"
            source = "cpu-thermal"
            sysfs = "/sys"
        "#]].assert_eq(&text);
    }
}
