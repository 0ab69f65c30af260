//! The list of drivers: their names, their fields, and what of a `[[sensor]]` each takes.
//!
//! Owns:     which keys a driver takes, and making a sensor of them.
//! Does not: touch a bus or a file when it makes one: that is the first measurement's.

use std::fmt;

use crate::config::SensorSection;

use super::Sensor;
use super::bme280::{self, Bme280};
use super::bmp180::{self, Bmp180, ConversionEnd};
use super::i2c::OnBus;
use super::place::InventedPlace;
use super::program::{File, Program};
use super::sht3x::{self, Repeatability, Sht3x};
use super::sysfs::{Device, Kind};
use super::twins::{Likeness, Twin};

/// A kind of sensor.
#[derive(Clone, Copy)]
pub struct Driver {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The table of its readings, unless configured.
    pub table: &'static str,
    /// The fields of its readings; none if they depend on the device.
    pub fields: &'static [&'static str],
    /// How many samples one reading may be of, of which the first is the default; none if it cannot be set.
    pub oversampling: &'static [u32],
    made_of: MadeOf,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MadeOf {
    Twin(Likeness),
    /// A chip at this address or, if it has two, at the next one.
    Chip {
        model: Model,
        addresses: &'static [u8],
    },
    Files(Kind),
    Program,
    File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Bmp180,
    Bosch280(bme280::Kind),
    Sht3x,
}

const AIR: &[&str] = &["temperature", "pressure", "humidity"];
const AIR_WITHOUT_HUMIDITY: &[&str] = &["temperature", "pressure"];
const CLIMATE: &[&str] = &["temperature", "humidity"];
const TEMPERATURE: &[&str] = &["temperature"];
const BMP180_SAMPLES: &[u32] = &[8, 1, 2, 4];
const BOSCH280_SAMPLES: &[u32] = &[16, 1, 2, 4, 8];
const SHT3X_SAMPLES: &[u32] = &[4, 1, 2];

const fn chip(
    name: &'static str,
    fields: &'static [&'static str],
    oversampling: &'static [u32],
    model: Model,
    addresses: &'static [u8],
) -> Driver {
    Driver { name, table: name, fields, oversampling, made_of: MadeOf::Chip { model, addresses } }
}

const fn other(name: &'static str, table: &'static str, fields: &'static [&'static str], made_of: MadeOf) -> Driver {
    Driver { name, table, fields, oversampling: &[], made_of }
}

/// All drivers.
pub const DRIVERS: &[Driver] = &[
    chip("bmp180", AIR_WITHOUT_HUMIDITY, BMP180_SAMPLES, Model::Bmp180, &[bmp180::ADDRESS]),
    chip("bmp280", AIR_WITHOUT_HUMIDITY, BOSCH280_SAMPLES, Model::Bosch280(bme280::Kind::Bmp280), &[0x76, 0x77]),
    chip("bme280", AIR, BOSCH280_SAMPLES, Model::Bosch280(bme280::Kind::Bme280), &[bme280::ADDRESS, 0x77]),
    chip("sht3x", CLIMATE, SHT3X_SAMPLES, Model::Sht3x, &[sht3x::ADDRESS, 0x45]),
    other("ds18b20", "ds18b20", TEMPERATURE, MadeOf::Files(Kind::Ds18b20)),
    other("thermal", "thermal", TEMPERATURE, MadeOf::Files(Kind::Thermal)),
    other("hwmon", "hwmon", &[], MadeOf::Files(Kind::Hwmon)),
    other("iio", "iio", &[], MadeOf::Files(Kind::Iio)),
    other("command", "command", &[], MadeOf::Program),
    other("file", "file", &[], MadeOf::File),
    other("simulated-bmp180", "bmp180", AIR_WITHOUT_HUMIDITY, MadeOf::Twin(Likeness::Bmp180)),
    other("simulated-bme280", "bme280", AIR, MadeOf::Twin(Likeness::Bme280)),
    other("simulated-sht3x", "sht3x", CLIMATE, MadeOf::Twin(Likeness::Sht3x)),
    other("simulated-ds18b20", "ds18b20", TEMPERATURE, MadeOf::Twin(Likeness::Ds18b20)),
];

/// The driver of that name.
pub(crate) fn driver(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

impl Driver {
    /// The keys of `section` that this driver takes no notice of, and values that it does not take.
    pub(crate) fn check(&self, section: &SensorSection) -> Result<(), String> {
        let name = self.name;
        let useless =
            |key: &str, is_set: bool| if is_set { Err(format!("{key}: the driver {name:?} has none")) } else { Ok(()) };
        let is_chip = matches!(self.made_of, MadeOf::Chip { .. });
        useless("bus", !is_chip && section.bus != SensorSection::default().bus)?;
        useless("address", !is_chip && section.address != 0)?;
        useless("oversampling", self.oversampling.is_empty() && section.oversampling != 0)?;
        useless("command", self.made_of != MadeOf::Program && !section.command.is_empty())?;
        let has_source = matches!(self.made_of, MadeOf::Files(_) | MadeOf::File);
        let has_devices = matches!(self.made_of, MadeOf::Files(_));
        useless("sysfs", !has_devices && section.sysfs != SensorSection::default().sysfs)?;
        useless("timeout", self.made_of != MadeOf::Program && section.timeout != SensorSection::default().timeout)?;
        useless("source", !has_source && !section.source.is_empty())?;
        let has_end = matches!(self.made_of, MadeOf::Chip { model: Model::Bmp180, .. });
        useless("conversion_end", !has_end && section.conversion_end != ConversionEnd::Register)?;
        useless("seed", !matches!(self.made_of, MadeOf::Twin(_)) && section.seed != 0)?;
        if section.oversampling != 0 && !self.oversampling.contains(&section.oversampling) {
            let mut right = self.oversampling.to_vec();
            right.sort_unstable();
            return Err(format!(
                "oversampling: {} is not among {right:?}, which the chip can do",
                section.oversampling
            ));
        }
        match self.made_of {
            // 0x00 to 0x07 and 0x78 to 0x7f are reserved (UM10204, 3.1.12).
            MadeOf::Chip { .. } if section.address != 0 && !(0x08..=0x77).contains(&section.address) => {
                Err(format!("address: {:#04x} is not from 0x08 to 0x77", section.address))
            }
            MadeOf::Program if section.command.is_empty() => {
                Err("command is missing: write command = [\"/usr/bin/program\", \"argument\"]".to_owned())
            }
            MadeOf::File if section.source.is_empty() => Err("source is missing: the path of the file".to_owned()),
            _ => Ok(()),
        }
    }

    /// What shares a wire: sensors of one lane are read one after the other, lanes beside each other.
    pub(crate) fn lane(&self, section: &SensorSection) -> String {
        match self.made_of {
            MadeOf::Chip { .. } => section.bus.display().to_string(),
            MadeOf::Files(Kind::Ds18b20) => "w1".to_owned(),
            MadeOf::Twin(_) => "simulated".to_owned(),
            MadeOf::Files(_) | MadeOf::Program | MadeOf::File => format!("sensor {}", section.name),
        }
    }

    /// Addresses at which the chip may be; none if it is no chip on I²C.
    pub(crate) fn addresses(&self) -> &'static [u8] {
        match self.made_of {
            MadeOf::Chip { addresses, .. } => addresses,
            _ => &[],
        }
    }

    /// The sensor that `section` describes; it was checked.
    pub(crate) fn make(&self, section: &SensorSection, seed: u64) -> Box<dyn Sensor> {
        let samples = match section.oversampling {
            0 => self.oversampling.first().copied().unwrap_or(1),
            samples => samples,
        };
        match self.made_of {
            MadeOf::Twin(likeness) => Box::new(Twin { likeness, place: InventedPlace::new(seed) }),
            MadeOf::Chip { model, addresses } => {
                let address =
                    u8::try_from(section.address).ok().filter(|address| *address != 0).unwrap_or(addresses[0]);
                match model {
                    Model::Bmp180 => {
                        let mode = bmp180::Oversampling::of(samples).expect("the configuration was checked");
                        Box::new(OnBus::new(&section.bus, Bmp180::new(address, mode, section.conversion_end)))
                    }
                    Model::Bosch280(kind) => {
                        let samples = bme280::Oversampling::of(samples).expect("the configuration was checked");
                        Box::new(OnBus::new(&section.bus, Bme280::new(kind, address, samples)))
                    }
                    Model::Sht3x => {
                        let repeatability = match samples {
                            1 => Repeatability::Low,
                            2 => Repeatability::Medium,
                            _ => Repeatability::High,
                        };
                        Box::new(OnBus::new(&section.bus, Sht3x::new(address, repeatability)))
                    }
                }
            }
            MadeOf::Files(kind) => {
                Box::new(Device { sysfs: section.sysfs.clone(), kind, source: section.source.clone() })
            }
            MadeOf::Program => Box::new(Program::new(&section.command, section.timeout.0)),
            MadeOf::File => Box::new(File { path: section.source.clone().into() }),
        }
    }
}
