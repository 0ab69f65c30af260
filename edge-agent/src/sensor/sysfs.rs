//! Sensors that a driver of the kernel shows as files: DS18B20 on 1-Wire, thermal zones, hwmon, IIO.
//!
//! Sources: the kernel's `Documentation/w1/slaves/w1_therm.rst`, `driver-api/thermal/sysfs-api.rst`,
//! `hwmon/sysfs-interface.rst` and `ABI/testing/sysfs-bus-iio`.

use std::fs;
use std::path::{Path, PathBuf};

use super::fault::SensorError;
use super::value::Value;
use super::{Fields, Measured, Sensor};

/// A file of the kernel's holds one short line.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Where the devices of a kind are, below the root of sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ds18b20,
    Thermal,
    Hwmon,
    Iio,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Kind::Ds18b20 => "bus/w1/devices",
            Kind::Thermal => "class/thermal",
            Kind::Hwmon => "class/hwmon",
            Kind::Iio => "bus/iio/devices",
        }
    }

    fn is_device(self, name: &str) -> bool {
        match self {
            // Family 28 is the DS18B20, 10 the DS18S20, 22 the DS1822, 3b the DS1825, 42 the DS28EA00.
            Kind::Ds18b20 => ["28-", "10-", "22-", "3b-", "42-"].iter().any(|family| name.starts_with(family)),
            Kind::Thermal => name.starts_with("thermal_zone"),
            Kind::Hwmon => name.starts_with("hwmon"),
            Kind::Iio => name.starts_with("iio:device"),
        }
    }

    /// The file with the name that its driver gives the device, which does not depend on the order of discovery.
    fn name_file(self) -> Option<&'static str> {
        match self {
            Kind::Ds18b20 => None,
            Kind::Thermal => Some("type"),
            Kind::Hwmon | Kind::Iio => Some("name"),
        }
    }

    /// For people.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Ds18b20 => "1-Wire thermometer",
            Kind::Thermal => "thermal zone",
            Kind::Hwmon => "hwmon device",
            Kind::Iio => "IIO device",
        }
    }
}

/// A device as it is found: its folder, and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) folder: PathBuf,
    /// The folder's name: `hwmon0`.
    pub(crate) id: String,
    /// The name that its driver gives it; the id where there is none.
    pub(crate) name: String,
}

/// The devices of a kind below `sysfs`, in the order of their ids. A folder that is missing holds none.
pub(crate) fn devices(sysfs: &Path, kind: Kind) -> Result<Vec<Found>, SensorError> {
    let folder = sysfs.join(kind.folder());
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(SensorError::file("list", &folder, &e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| SensorError::file("list", &folder, &e))?;
        let Ok(id) = entry.file_name().into_string() else { continue };
        if !kind.is_device(&id) {
            continue;
        }
        let folder = entry.path();
        let name = kind.name_file().and_then(|file| read(&folder.join(file)).ok()).unwrap_or_else(|| id.clone());
        found.push(Found { folder, id, name });
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// The content of a short file, without the space around it.
fn read(path: &Path) -> Result<String, SensorError> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let opened = fs::File::open(path);
    let done = opened.and_then(|file| file.take(TEXT_BYTES_MAX as u64).read_to_end(&mut text));
    done.map_err(|e| SensorError::file("read", path, &e))?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// A whole number in a file of the kernel's, in steps of ten to the power of minus `decimals`.
fn number(path: &Path, decimals: u8) -> Result<Value, SensorError> {
    let text = read(path)?;
    let steps =
        text.parse().map_err(|_| SensorError(format!("{} holds {text:?}, which is no number", path.display())))?;
    Ok(Value { steps, decimals })
}

/// Devices of the kernel's, one of them by its id or name; the only one if neither is said.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) sysfs: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) source: String,
}

impl Device {
    fn find(&self) -> Result<Found, SensorError> {
        let noun = self.kind.noun();
        let all = devices(&self.sysfs, self.kind)?;
        let is_it = |found: &&Found| self.source.is_empty() || found.id == self.source || found.name == self.source;
        let mut matching = all.iter().filter(is_it);
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(a), Some(b)) if self.source.is_empty() => {
                Err(SensorError(format!("there is more than one {noun}: set source to {:?}, {:?} …", a.id, b.id)))
            }
            (Some(a), Some(b)) => Err(SensorError(format!(
                "more than one {noun} is named {:?}: set source to {:?}, {:?} …",
                self.source, a.id, b.id
            ))),
            (None, _) => {
                let names: Vec<String> = all.iter().map(|found| format!("{} ({})", found.id, found.name)).collect();
                let there = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
                let wanted = if self.source.is_empty() { String::new() } else { format!(" {:?}", self.source) };
                Err(SensorError(format!(
                    "there is no {noun}{wanted} below {}: {there}",
                    self.sysfs.join(self.kind.folder()).display()
                )))
            }
        }
    }
}

impl Sensor for Device {
    fn measure(&mut self, _time_us: i64) -> Measured {
        let found = self.find()?;
        match self.kind {
            Kind::Ds18b20 => ds18b20(&found.folder),
            Kind::Thermal => {
                let value = number(&found.folder.join("temp"), 3)?;
                Ok(vec![("temperature".into(), value)])
            }
            Kind::Hwmon => hwmon(&found),
            Kind::Iio => iio(&found),
        }
    }
}

/// The bytes of the chip's memory as the kernel shows them, and the temperature that it makes of them.
fn ds18b20(folder: &Path) -> Measured {
    let path = folder.join("w1_slave");
    let text = read(&path)?;
    let no_answer = |what: &str| {
        Err(SensorError(format!(
            "{}: {what}: check the wires and the resistor of 4.7 kΩ to the supply",
            path.display()
        )))
    };
    let mut lines = text.lines();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return no_answer("it did not answer") };
    if !first.trim_end().ends_with("YES") {
        return no_answer("the checksum of its answer is wrong");
    }
    if first.split_whitespace().take(9).all(|byte| byte == "00") {
        return no_answer("it answers only zeros, whose checksum is right too");
    }
    let steps = second.rsplit_once("t=").and_then(|(_, steps)| steps.trim().parse::<i64>().ok());
    match steps {
        // What the chip holds from power-on until its first conversion (data sheets, table 1): a DS18S20 counts halves, the
        // others sixteenths of a degree.
        Some(85_000) if first.starts_with("50 05") || first.starts_with("aa 00") => {
            no_answer("it was without power: 85 °C is what it says before it measures")
        }
        Some(steps @ -55_000..=125_000) => Ok(vec![("temperature".into(), Value { steps, decimals: 3 })]),
        Some(steps) => no_answer(&format!("{steps} thousandths of a °C is outside of -55 to 125 °C")),
        None => no_answer("there is no temperature in what it says"),
    }
}

/// Quantities of hwmon: the beginning of a file's name, the field, and the decimals that its unit has.
const HWMON: [(&str, &str, u8); 6] = [
    ("temp", "temperature", 3),
    ("in", "voltage", 3),
    ("curr", "current", 3),
    ("power", "power", 6),
    ("humidity", "humidity", 3),
    ("fan", "fan_rpm", 0),
];

fn hwmon(found: &Found) -> Measured {
    let mut fields = Fields::new();
    for file in files(&found.folder)? {
        let Some(stem) = file.strip_suffix("_input") else { continue };
        let Some((digits, field, decimals)) = HWMON.iter().find_map(|(prefix, field, decimals)| {
            let digits = stem.strip_prefix(prefix)?;
            (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some((digits, field, *decimals))
        }) else {
            continue;
        };
        // A channel that is switched off, or has nothing at its end, cannot be read; the others can.
        let Ok(value) = number(&found.folder.join(&file), decimals) else { continue };
        let name = if digits == "1" { (*field).into() } else { format!("{field}_{digits}").into() };
        fields.push((name, value));
    }
    some(fields, found)
}

/// Quantities of IIO: the channel's type, the field, and the power of ten from the kernel's unit to ours.
const IIO: [(&str, &str, i8); 6] = [
    // m°C to °C.
    ("temp", "temperature", -3),
    // kPa to Pa.
    ("pressure", "pressure", 3),
    // m% to %.
    ("humidityrelative", "humidity", -3),
    ("illuminance", "illuminance", 0),
    // mV to V.
    ("voltage", "voltage", -3),
    ("current", "current", -3),
];

fn iio(found: &Found) -> Measured {
    let mut fields = Fields::new();
    for file in files(&found.folder)? {
        let Some(channel) = file.strip_prefix("in_") else { continue };
        let (channel, is_raw) = match (channel.strip_suffix("_input"), channel.strip_suffix("_raw")) {
            (Some(channel), _) => (channel, false),
            (_, Some(channel)) => (channel, true),
            _ => continue,
        };
        let Some((digits, field, power)) = IIO.iter().find_map(|(kind, field, power)| {
            let digits = channel.strip_prefix(kind)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then_some((digits, *field, *power))
        }) else {
            continue;
        };
        let Some(value) = iio_value(&found.folder, &file, channel, channel.trim_end_matches(digits), is_raw, power)
        else {
            continue;
        };
        let name = if digits.is_empty() { field.into() } else { format!("{field}_{digits}").into() };
        if !fields.iter().any(|(other, _)| *other == name) {
            fields.push((name, value));
        }
    }
    some(fields, found)
}

/// `(raw + offset) · scale`, or what is processed already.
fn iio_value(folder: &Path, file: &str, channel: &str, kind: &str, is_raw: bool, power: i8) -> Option<Value> {
    let value = read(&folder.join(file)).ok()?;
    if !is_raw {
        return Value::parse(&format!("{}e{power}", Value::parse(&value)?));
    }
    // A scale stands for one channel, or for all of a kind.
    let factor = |what: &str| {
        [channel, kind].iter().find_map(|of| read(&folder.join(format!("in_{of}_{what}"))).ok()?.parse::<f64>().ok())
    };
    let raw: f64 = value.parse().ok()?;
    let number = (raw + factor("offset").unwrap_or(0.0)) * factor("scale").unwrap_or(1.0) * 10_f64.powi(power.into());
    // More than any of these sensors resolves.
    number.is_finite().then(|| Value::parse(&format!("{number:.6}")))?
}

fn files(folder: &Path) -> Result<Vec<String>, SensorError> {
    let entries = fs::read_dir(folder).map_err(|e| SensorError::file("list", folder, &e))?;
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn some(fields: Fields, found: &Found) -> Measured {
    if fields.is_empty() {
        return Err(SensorError(format!("{} has no channel that can be read and is known", found.folder.display())));
    }
    Ok(fields)
}
