//! Sensors: what measures, and how a reading becomes a line.
//!
//! Owns:     the trait that drivers implement, the list of drivers, and line protocol as the agent writes it.
//! Does not: decide when to measure (`agent`), nor batch.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::bmp180::{Bmp180Twin, DeciCelsius};
use crate::config::SensorSection;

/// The value of a field, exact in the sensor's own steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// How many steps.
    pub steps: i64,
    /// A step is 10 to the power of minus this.
    pub decimals: u8,
}

impl Value {
    /// A whole number.
    pub fn whole(steps: i64) -> Value {
        Value { steps, decimals: 0 }
    }
}

/// As a decimal number: `-0.5`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value { steps, decimals } = *self;
        if decimals == 0 {
            return write!(f, "{steps}");
        }
        let sign = if steps < 0 { "-" } else { "" };
        let digits = format!("{:0width$}", steps.unsigned_abs(), width = usize::from(decimals) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
        write!(f, "{sign}{whole}.{fraction}")
    }
}

/// Why a sensor gave no reading.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SensorError(pub String);

/// Something that measures.
pub trait Sensor: fmt::Debug + Send {
    /// Measures now, `time_us` by the wall clock in microseconds since 1970-01-01 UTC; fields by name.
    ///
    /// # Errors
    /// If there is no reading to be had now; the next interval tries again.
    fn measure(&mut self, time_us: i64) -> Result<Vec<(&'static str, Value)>, SensorError>;
}

/// A kind of sensor.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The table of its readings, unless configured.
    pub table: &'static str,
    /// The fields of its readings.
    pub fields: &'static [&'static str],
    make: fn(u64) -> Box<dyn Sensor>,
}

/// All drivers.
pub const DRIVERS: &[Driver] = &[Driver {
    name: "simulated-bmp180",
    table: "bmp180",
    fields: &["temperature", "pressure"],
    make: |seed| Box::new(SimulatedBmp180(Bmp180Twin::new(seed))),
}];

#[derive(Debug)]
struct SimulatedBmp180(Bmp180Twin);

impl Sensor for SimulatedBmp180 {
    fn measure(&mut self, time_us: i64) -> Result<Vec<(&'static str, Value)>, SensorError> {
        let reading = self.0.read(time_us);
        let DeciCelsius(deci) = reading.temperature;
        Ok(vec![
            ("temperature", Value { steps: deci.into(), decimals: 1 }),
            ("pressure", Value::whole(reading.pressure.0.into())),
        ])
    }
}

/// What a sensor measured at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The table.
    pub table: String,
    /// Tags: `agent`, `sensor`, and those configured.
    pub tags: BTreeMap<String, String>,
    /// Fields, in the sensor's order.
    pub fields: Vec<(&'static str, Value)>,
    /// Microseconds since 1970-01-01 UTC.
    pub time_us: i64,
}

/// A sensor as configured: with its table, tags and interval.
#[derive(Debug)]
pub struct Station {
    /// Its name, the tag `sensor`.
    pub name: String,
    /// Time between two readings.
    pub interval: Duration,
    table: String,
    tags: BTreeMap<String, String>,
    /// Table and tags in line protocol.
    series: String,
    sensor: Box<dyn Sensor>,
}

impl Station {
    /// The sensor that `section` describes, at agent `agent`. The configuration was checked.
    pub fn new(agent: &str, section: &SensorSection) -> Station {
        let driver = driver(&section.driver).expect("the configuration was checked");
        let seed = match section.seed {
            0 => seed_of(agent, &section.name),
            seed => u64::from(seed),
        };
        let table = if section.table.is_empty() { driver.table } else { &section.table }.to_owned();
        let mut tags = section.tags.clone();
        tags.insert("agent".to_owned(), agent.to_owned());
        tags.insert("sensor".to_owned(), section.name.clone());
        let mut series = String::new();
        escape(&mut series, &table, &[',', ' ', '\\']);
        for (name, value) in &tags {
            series.push(',');
            escape(&mut series, name, &[',', '=', ' ', '\\']);
            series.push('=');
            escape(&mut series, value, &[',', '=', ' ', '\\']);
        }
        let sensor = (driver.make)(seed);
        Station { name: section.name.clone(), interval: section.interval.0, table, tags, series, sensor }
    }

    /// Measures, as data.
    ///
    /// # Errors
    /// See [`Sensor::measure`].
    pub fn read(&mut self, time_us: i64) -> Result<Reading, SensorError> {
        let fields = self.sensor.measure(time_us)?;
        Ok(Reading { table: self.table.clone(), tags: self.tags.clone(), fields, time_us })
    }

    /// Measures, as a line of line protocol at the end of `lines`.
    ///
    /// # Errors
    /// See [`Sensor::measure`]; nothing is added then.
    pub(crate) fn read_line(&mut self, time_us: i64, lines: &mut String) -> Result<(), SensorError> {
        let fields = self.sensor.measure(time_us)?;
        if fields.is_empty() {
            return Err(SensorError("it gave no value".to_owned()));
        }
        lines.push_str(&self.series);
        for (i, (name, value)) in fields.iter().enumerate() {
            lines.push(if i == 0 { ' ' } else { ',' });
            escape(lines, name, &[',', '=', ' ', '\\']);
            let _ = write!(lines, "={value}");
        }
        let _ = writeln!(lines, " {time_us}");
        Ok(())
    }
}

/// The driver of that name.
pub(crate) fn driver(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

/// Simulated sensors of different names stand at different places, at each start the same.
fn seed_of(agent: &str, name: &str) -> u64 {
    // FNV-1a.
    let bytes = agent.bytes().chain([0]).chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn escape(out: &mut String, text: &str, special: &[char]) {
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_show_their_steps_exactly() {
        for (steps, decimals, shown) in
            [(215, 1, "21.5"), (-5, 1, "-0.5"), (0, 1, "0.0"), (7, 3, "0.007"), (101_325, 0, "101325")]
        {
            assert_eq!(Value { steps, decimals }.to_string(), shown);
        }
    }

    #[test]
    fn a_reading_is_a_line() {
        let section = SensorSection {
            driver: "simulated-bmp180".to_owned(),
            name: "s 1".to_owned(),
            tags: BTreeMap::from([("room".to_owned(), "a,b=c".to_owned())]),
            seed: 7,
            ..SensorSection::default()
        };
        let mut station = Station::new("pi-7", &section);
        let mut lines = String::new();
        station.read_line(1_780_272_000_000_000, &mut lines).unwrap();
        let start = r"bmp180,agent=pi-7,room=a\,b\=c,sensor=s\ 1 temperature=";
        assert!(lines.starts_with(start) && lines.ends_with(" 1780272000000000\n"), "{lines}");
        assert!(lines.contains(",pressure="), "{lines}");
    }
}
