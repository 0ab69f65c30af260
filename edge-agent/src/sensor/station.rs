//! A sensor as configured, and the series that its readings belong to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::shape::Offsets;
use super::{Fields, Measured, Sensor, SensorError, driver};
use crate::config::SensorSection;

/// What a sensor measured at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The table.
    pub table: String,
    /// Tags: `agent`, `sensor`, and those configured.
    pub tags: BTreeMap<String, String>,
    /// Fields, in the sensor's order.
    pub fields: Fields,
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
    /// What shares a wire with it.
    pub(crate) lane: String,
    pub(crate) sensor: Box<dyn Sensor>,
    series: Series,
    offsets: Offsets,
}

impl Station {
    /// The sensor that `section` describes, at agent `agent`. The configuration was checked.
    pub fn new(agent: &str, section: &SensorSection) -> Station {
        let driver = driver(&section.driver).expect("the configuration was checked");
        let seed = match section.seed {
            0 => seed_of(agent, &section.name),
            seed => u64::from(seed),
        };
        Station {
            name: section.name.clone(),
            interval: section.interval.0,
            lane: driver.lane(section),
            sensor: driver.make(section, seed),
            series: Series::new(agent, section),
            offsets: section.offsets.clone(),
        }
    }

    /// Measures, as data; what was configured as offset is added.
    ///
    /// # Errors
    /// See [`Sensor::measure`].
    pub fn read(&mut self, time_us: i64) -> Result<Reading, SensorError> {
        let mut fields = self.series.check(self.sensor.measure(time_us)?)?;
        self.offsets.add_to(&mut fields);
        let Series { table, tags, .. } = &self.series;
        Ok(Reading { table: table.clone(), tags: tags.clone(), fields, time_us })
    }
}

/// The series of a sensor's readings.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    table: String,
    tags: BTreeMap<String, String>,
    /// Table and tags in line protocol.
    text: String,
}

impl Series {
    pub(crate) fn new(agent: &str, section: &SensorSection) -> Series {
        let driver = driver(&section.driver).expect("the configuration was checked");
        let table = if section.table.is_empty() { driver.table } else { &section.table }.to_owned();
        let mut tags = section.tags.clone();
        tags.insert("agent".to_owned(), agent.to_owned());
        tags.insert("sensor".to_owned(), section.name.clone());
        let mut text = String::new();
        escape(&mut text, &table, &[',', ' ', '\\']);
        for (name, value) in &tags {
            text.push(',');
            escape(&mut text, name, &[',', '=', ' ', '\\']);
            text.push('=');
            escape_tag(&mut text, value);
        }
        Series { table, tags, text }
    }

    /// Gives the fields back, unless a tag has the name of one: a table has one column of a name.
    pub(crate) fn check(&self, fields: Fields) -> Measured {
        let is_tag = |name: &str| self.tags.keys().any(|tag| tag.eq_ignore_ascii_case(name));
        match fields.iter().find(|(name, _)| is_tag(name)) {
            Some((name, _)) => {
                Err(SensorError(format!("it gave a field {name:?}, and a tag has that name: rename the tag")))
            }
            None => Ok(fields),
        }
    }

    /// Appends a reading of `fields`, of which there is at least one, at `time_us` of any clock.
    pub(crate) fn write_line(&self, fields: &Fields, time_us: i64, lines: &mut String) {
        lines.push_str(&self.text);
        for (i, (name, value)) in fields.iter().enumerate() {
            lines.push(if i == 0 { ' ' } else { ',' });
            escape(lines, name, &[',', '=', ' ', '\\']);
            let _ = write!(lines, "={value}");
        }
        let _ = writeln!(lines, " {time_us}");
    }
}

/// Simulated sensors of different names stand at different places, at each start the same.
fn seed_of(agent: &str, name: &str) -> u64 {
    // FNV-1a.
    let bytes = agent.bytes().chain([0]).chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Appends the value of a tag in line protocol.
pub(crate) fn escape_tag(out: &mut String, value: &str) {
    escape(out, value, &[',', '=', ' ', '\\']);
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
    fn a_field_with_the_name_of_a_tag_is_refused() {
        let section = SensorSection {
            driver: "command".to_owned(),
            name: "s1".to_owned(),
            tags: BTreeMap::from([("Value".to_owned(), "x".to_owned())]),
            command: ["/bin/echo", "1"].map(str::to_owned).to_vec(),
            ..SensorSection::default()
        };
        let refused = Station::new("pi-7", &section).read(0).unwrap_err().to_string();
        assert!(refused.contains("\"value\", and a tag has that name"), "{refused}");
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
        let reading = Station::new("pi-7", &section).read(1_780_272_000_000_000).unwrap();
        let mut lines = String::new();
        Series::new("pi-7", &section).write_line(&reading.fields, reading.time_us, &mut lines);
        let start = r"bmp180,agent=pi-7,room=a\,b\=c,sensor=s\ 1 temperature=";
        assert!(lines.starts_with(start) && lines.ends_with(" 1780272000000000\n"), "{lines}");
        assert!(lines.contains(",pressure="), "{lines}");
    }
}
