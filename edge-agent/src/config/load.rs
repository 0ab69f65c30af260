//! From the file and the environment to a [`Config`].

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use settings::{ConfigError, Configuration, Others, Part, Section as _, Setting, Value, quoted, text, unknown};

use super::{
    Address, AgentSection, BatchSection, ClockSection, Config, ConversionEnd, Feature, MqttVersion, OutboxSection,
    Replay, SensorSection, ServerSection, Stamp, Tls, Trust, UplinkSection, check_id,
};
use crate::outbox::IN_FLIGHT_MAX;
use crate::sensor::shape::Aggregate;
use crate::sensor::{DRIVERS, driver};

impl Setting for MqttVersion {
    fn read(value: &Value) -> Result<Self, String> {
        match text(value, "\"3.1.1\" or \"5\"")? {
            "3.1.1" => Ok(MqttVersion::V311),
            "5" => Ok(MqttVersion::V5),
            other => Err(format!("{other:?} is no version that is spoken; write \"3.1.1\" or \"5\"")),
        }
    }

    fn show(&self) -> String {
        quoted(match self {
            MqttVersion::V311 => "3.1.1",
            MqttVersion::V5 => "5",
        })
    }
}

/// A key that takes one of a few words.
fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<String> = words.iter().map(|(name, _)| quoted(name)).collect();
    let names = names.join(" or ");
    let found = text(value, &names)?;
    let one = words.iter().find(|(name, _)| *name == found);
    one.map(|(_, one)| *one).ok_or_else(|| format!("{found:?} is not known; write {names}"))
}

fn show_word<T: PartialEq>(words: &[(&str, T)], value: &T) -> String {
    quoted(words.iter().find(|(_, one)| one == value).map_or("", |(name, _)| name))
}

const CONVERSION_ENDS: &[(&str, ConversionEnd)] =
    &[("register", ConversionEnd::Register), ("time", ConversionEnd::Time)];

impl Setting for ConversionEnd {
    fn read(value: &Value) -> Result<Self, String> {
        word(value, CONVERSION_ENDS)
    }

    fn show(&self) -> String {
        show_word(CONVERSION_ENDS, self)
    }
}

const TRUSTS: &[(&str, Trust)] = &[("synchronised", Trust::Synchronised), ("system", Trust::System)];

impl Setting for Trust {
    fn read(value: &Value) -> Result<Self, String> {
        word(value, TRUSTS)
    }

    fn show(&self) -> String {
        show_word(TRUSTS, self)
    }
}

const REPLAYS: &[(&str, Replay)] = &[
    ("interleaved", Replay::Interleaved),
    ("newest-first", Replay::NewestFirst),
    ("oldest-first", Replay::OldestFirst),
];

impl Setting for Replay {
    fn read(value: &Value) -> Result<Self, String> {
        word(value, REPLAYS)
    }

    fn show(&self) -> String {
        show_word(REPLAYS, self)
    }
}

const STAMPS: &[(&str, Stamp)] = &[("measured", Stamp::Measured), ("interval", Stamp::Interval)];

impl Setting for Stamp {
    fn read(value: &Value) -> Result<Self, String> {
        word(value, STAMPS)
    }

    fn show(&self) -> String {
        show_word(STAMPS, self)
    }
}

impl Config {
    /// The defaults, overridden by `file` if there is one, overridden by `environment`. `host` names the agent if
    /// nothing else does.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        host: &str,
    ) -> Result<Self, ConfigError> {
        let mut config = Config::default();
        settings::read(&mut config, file, environment, "EDEN_AGENT_", Others::Refused)?;
        if config.agent.id.is_empty() {
            host.clone_into(&mut config.agent.id);
        }
        if config.servers.is_empty() {
            config.servers.push(ServerSection::default());
        }
        config.check()?;
        Ok(config)
    }

    /// Checks what is right only together, and what a library's caller may have set.
    ///
    /// # Errors
    /// [`ConfigError::Whole`]: the first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.find_mistake().map_or(Ok(()), |reason| Err(ConfigError::Whole(reason)))
    }

    fn find_mistake(&self) -> Option<String> {
        if let Err(reason) = check_id(&self.agent.id) {
            return Some(format!("[agent] id: {reason}"));
        }
        if self.batch.max_readings == 0 {
            return Some("[batch] max_readings: at least 1".into());
        }
        if self.outbox.max_bytes.0 < 2 * wal::RING_SEGMENT_BYTES {
            return Some(format!("[outbox] max_bytes: {} is too little; at least 2MiB", self.outbox.max_bytes));
        }
        if self.outbox.sync_interval.0 < Duration::from_millis(10) {
            return Some("[outbox] sync_interval: at least 10ms".into());
        }
        if !(1..=IN_FLIGHT_MAX as u32).contains(&self.uplink.in_flight) {
            return Some(format!("[uplink] in_flight: {} is not from 1 to {IN_FLIGHT_MAX}", self.uplink.in_flight));
        }
        if (1..1 << 10).contains(&self.uplink.replay_rate.0) {
            return Some(format!("[uplink] replay_rate: {} is too little; at least 1KiB", self.uplink.replay_rate));
        }
        if self.uplink.status_interval.0 < Duration::from_secs(1) {
            return Some("[uplink] status_interval: at least 1s".into());
        }
        if self.servers.is_empty() {
            return Some("there is no [[server]]".into());
        }
        let time_url = &self.clock.time_url;
        if !time_url.is_empty() && !time_url.starts_with("http://") {
            return Some(format!("[clock] time_url: {time_url:?} does not begin with \"http://\""));
        }
        if !time_url.is_empty() && !Feature::Http.is_built_in() {
            return Some(format!("[clock] time_url: {}", Feature::Http.left_out()));
        }
        for server in &self.servers {
            match server.address() {
                Err(reason) => return Some(format!("[[server]] url: {reason}")),
                Ok(address) if let Some(feature) = address.lacks() => {
                    return Some(format!("[[server]] url: {:?}: {}", server.url, feature.left_out()));
                }
                Ok(Address::Mqtt { tls: Tls::Yes, .. } | Address::Http { tls: Tls::Yes, .. }) => {}
                Ok(_) if !server.ca.is_empty() => {
                    return Some(format!("[[server]] ca: {:?} is not encrypted", server.url));
                }
                Ok(_) => {}
            }
        }
        let mut names = BTreeSet::new();
        for sensor in &self.sensors {
            let Err(reason) = check_sensor(sensor) else {
                if !names.insert(&sensor.name) {
                    return Some(format!("two sensors are named {:?}", sensor.name));
                }
                continue;
            };
            return Some(format!("[[sensor]] {:?}: {reason}", sensor.name));
        }
        None
    }
}

impl Configuration for Config {
    const SECTIONS: &'static [&'static str] = &[
        AgentSection::NAME,
        BatchSection::NAME,
        ClockSection::NAME,
        OutboxSection::NAME,
        UplinkSection::NAME,
        ServerSection::NAME,
        SensorSection::NAME,
    ];

    fn part(&mut self, section: &str) -> Option<Part<'_>> {
        Some(match section {
            AgentSection::NAME => Part::section(&mut self.agent),
            BatchSection::NAME => Part::section(&mut self.batch),
            ClockSection::NAME => Part::section(&mut self.clock),
            OutboxSection::NAME => Part::section(&mut self.outbox),
            UplinkSection::NAME => Part::section(&mut self.uplink),
            ServerSection::NAME => Part::list(&mut self.servers),
            SensorSection::NAME => Part::list(&mut self.sensors),
            _ => return None,
        })
    }
}

fn check_sensor(sensor: &SensorSection) -> Result<(), String> {
    let Some(driver) = driver(&sensor.driver) else {
        let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
        return Err(if sensor.driver.is_empty() {
            format!("driver is missing; there are {}", names.join(", "))
        } else {
            unknown("driver", &sensor.driver, &names)
        });
    };
    check_tag_value("name", &sensor.name)?;
    if sensor.interval.0 < Duration::from_millis(1) {
        return Err("interval: at least 1ms".into());
    }
    if !sensor.table.is_empty() {
        model::name::check_name("table", &sensor.table).map_err(|e| e.to_string())?;
        if sensor.table.starts_with('#') || sensor.table.ends_with('\\') {
            return Err(format!("the table name {:?} cannot be written in line protocol", sensor.table));
        }
    }
    driver.check(sensor)?;
    check_shape(sensor, driver.fields)?;
    for (name, value) in &sensor.tags {
        model::name::check_column_name("tag", name).map_err(|e| e.to_string())?;
        if name.eq_ignore_ascii_case("agent") || name.eq_ignore_ascii_case("sensor") {
            return Err(format!("the tag {name:?} is set by the agent"));
        }
        if kept_fields(sensor, driver.fields).iter().any(|field| name.eq_ignore_ascii_case(field)) {
            return Err(format!("the tag {name:?} has the name of a field that the sensor measures; choose another"));
        }
        if name.ends_with('\\') {
            return Err(format!("the tag name {name:?} ends with a backslash"));
        }
        check_tag_value(name, value)?;
    }
    Ok(())
}

fn check_shape(sensor: &SensorSection, fields: &[&str]) -> Result<(), String> {
    if let Some(name) = sensor.offsets.0.keys().find(|name| !fields.is_empty() && !fields.contains(&name.as_str())) {
        return Err(format!("offsets: the sensor has no field {name:?}; it has {}", fields.join(", ")));
    }
    let kept = kept_fields(sensor, fields);
    let has_means = sensor.window.0.is_zero() || sensor.aggregates.0.contains(&Aggregate::Mean);
    for name in sensor.dead_band.0.keys() {
        // Where the device says which fields it has, any may be a mean.
        let is_kept = match fields.is_empty() {
            true => has_means || sensor.aggregates.0.iter().any(|aggregate| name.ends_with(&aggregate.name_of(""))),
            false => kept.contains(name),
        };
        if !is_kept {
            let there = if kept.is_empty() { "names with _min or _max".to_owned() } else { kept.join(", ") };
            return Err(format!("dead_band: no field {name:?} is kept; window and aggregates make {there}"));
        }
    }
    if let Some((name, _)) = sensor.dead_band.0.iter().find(|(_, band)| band.steps <= 0) {
        return Err(format!("dead_band: {name} is not greater than 0"));
    }
    if sensor.aggregates.0.is_empty() {
        return Err("aggregates: at least one of mean, min and max".into());
    }
    if !sensor.window.0.is_zero() && sensor.window.0 < sensor.interval.0 {
        return Err(format!("window: {} is shorter than the interval", sensor.window));
    }
    if sensor.timeout.0.is_zero() || sensor.timeout.0 > Duration::from_secs(3_600) {
        return Err("timeout: more than 0s and at most 1h".into());
    }
    if sensor.max_silence.0.is_zero() {
        return Err("max_silence: more than 0s".into());
    }
    let default = SensorSection::default();
    if sensor.dead_band.0.is_empty() && sensor.max_silence != default.max_silence {
        return Err("max_silence: there is no dead_band that could silence the sensor".into());
    }
    if sensor.window.0.is_zero() && sensor.aggregates != default.aggregates {
        return Err("aggregates: there is no window of which they could be".into());
    }
    Ok(())
}

/// The fields that are kept of readings of `fields`.
fn kept_fields(sensor: &SensorSection, fields: &[&str]) -> Vec<String> {
    if sensor.window.0.is_zero() {
        return fields.iter().map(|&field| field.to_owned()).collect();
    }
    let of_one =
        |field: &&str| sensor.aggregates.0.iter().map(|aggregate| aggregate.name_of(field)).collect::<Vec<_>>();
    fields.iter().flat_map(of_one).collect()
}

fn check_tag_value(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{name} is empty"));
    }
    if value.len() > 1024 || value.chars().any(char::is_control) || value.ends_with('\\') {
        return Err(format!("{name}: at most 1024 bytes, no control characters, no backslash at the end"));
    }
    Ok(())
}
