//! Sensors of the kernel's and of the operator's own, and sensors that fail beside others that do not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::config::{Config, Period, SensorSection, Trust};
use edge_agent::sensor::Station;
use edge_agent::timepiece::SystemTimepiece;
use edge_agent::{Agent, AgentStats, Surroundings};
use model::{SplitMix64, SystemClock};
use wal::disk::LocalDisk;

fn section(driver: &str, source: &str, sysfs: &Path) -> SensorSection {
    SensorSection {
        driver: driver.to_owned(),
        name: "s1".to_owned(),
        source: source.to_owned(),
        sysfs: sysfs.to_owned(),
        ..SensorSection::default()
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// What a sensor says: its fields, or its error without the folder of the test.
fn says(section: &SensorSection) -> String {
    let said = match Station::new("pi-7", section).read(0) {
        Ok(reading) => {
            let fields: Vec<String> = reading.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            fields.join(",")
        }
        Err(e) => e.to_string(),
    };
    said.replace(&format!("{}/", section.sysfs.display()), "")
}

#[test]
fn a_thermometer_on_1_wire_is_read_and_its_faults_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let thermometer = section("ds18b20", "", dir.path());
    assert_eq!(says(&thermometer), "there is no 1-Wire thermometer below bus/w1/devices: there is none");
    let file = "bus/w1/devices/28-0a/w1_slave";
    write(dir.path(), "bus/w1/devices/w1_bus_master1/name", "w1");
    for (text, said) in [
        ("72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n", "temperature=23.125"),
        ("5e ff 4b 46 7f ff 02 10 c8 : crc=c8 YES\n5e ff 4b 46 7f ff 02 10 c8 t=-10125\n", "temperature=-10.125"),
        ("50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t=85000\n", "it was without power"),
        ("aa 00 4b 46 ff ff 0c 10 87 : crc=87 YES\naa 00 4b 46 ff ff 0c 10 87 t=85000\n", "it was without power"),
        ("aa 00 4b 46 7f ff 06 10 57 : crc=57 YES\naa 00 4b 46 7f ff 06 10 57 t=10625\n", "temperature=10.625"),
        (
            "ff ff ff ff ff ff ff ff ff : crc=c9 NO\nff ff ff ff ff ff ff ff ff t=-62\n",
            "checksum of its answer is wrong",
        ),
        ("00 00 00 00 00 00 00 00 00 : crc=00 YES\n00 00 00 00 00 00 00 00 00 t=0\n", "it answers only zeros"),
        ("72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=225125\n", "outside of -55 to 125"),
        ("72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01\n", "no temperature in what it says"),
        ("", "it did not answer"),
    ] {
        write(dir.path(), file, text);
        assert!(says(&thermometer).contains(said), "{text:?}: {}", says(&thermometer));
    }
    write(dir.path(), "bus/w1/devices/28-0b/w1_slave", "");
    assert_eq!(says(&thermometer), "there is more than one 1-Wire thermometer: set source to \"28-0a\", \"28-0b\" …");
    assert!(says(&section("ds18b20", "28-0c", dir.path())).ends_with("28-0a (28-0a), 28-0b (28-0b)"));
}

#[test]
fn what_the_kernel_shows_becomes_fields_in_whole_units() {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("class/thermal/thermal_zone0/type", "cpu-thermal"),
        ("class/thermal/thermal_zone0/temp", "48312"),
        ("class/hwmon/hwmon0/name", "sht3x"),
        ("class/hwmon/hwmon0/temp1_input", "21500"),
        ("class/hwmon/hwmon0/temp2_input", "-500"),
        ("class/hwmon/hwmon0/humidity1_input", "40125"),
        ("class/hwmon/hwmon0/in0_input", "5012"),
        ("class/hwmon/hwmon0/fan1_input", "none"),
        ("class/hwmon/hwmon0/temp1_max", "99000"),
        ("bus/iio/devices/iio:device0/name", "bme280"),
        ("bus/iio/devices/iio:device0/in_temp_input", "21510"),
        ("bus/iio/devices/iio:device0/in_pressure_input", "100.653277343"),
        ("bus/iio/devices/iio:device0/in_humidityrelative_input", "40125"),
        ("bus/iio/devices/iio:device1/name", "mcp3424"),
        ("bus/iio/devices/iio:device1/in_voltage0_raw", "1000"),
        ("bus/iio/devices/iio:device1/in_voltage0_scale", "0.125"),
        ("bus/iio/devices/iio:device1/in_voltage1_raw", "-8"),
        ("bus/iio/devices/iio:device1/in_voltage_scale", "2"),
        ("bus/iio/devices/iio:device1/in_voltage_offset", "4"),
    ] {
        write(dir.path(), path, text);
    }
    for (driver, source, said) in [
        ("thermal", "", "temperature=48.312"),
        ("thermal", "cpu-thermal", "temperature=48.312"),
        ("thermal", "gpu", "there is no thermal zone \"gpu\" below class/thermal: thermal_zone0 (cpu-thermal)"),
        ("hwmon", "sht3x", "humidity=40.125,voltage_0=5.012,temperature=21.500,temperature_2=-0.500"),
        ("iio", "bme280", "humidity=40.125,pressure=100653.277343,temperature=21.510"),
        ("iio", "iio:device1", "voltage_0=0.125500,voltage_1=-0.008000"),
    ] {
        assert_eq!(says(&section(driver, source, dir.path())), said, "{driver} {source}");
    }
    write(dir.path(), "class/thermal/thermal_zone0/temp", "hot");
    assert!(says(&section("thermal", "", dir.path())).ends_with("temp holds \"hot\", which is no number"));
}

#[test]
fn a_file_is_read_anew_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("co2");
    let file = section("file", path.to_str().unwrap(), dir.path());
    assert!(says(&file).starts_with("read co2: No such file"), "{}", says(&file));
    write(dir.path(), "co2", "412\n");
    assert_eq!(says(&file), "value=412");
    write(dir.path(), "co2", r#"{"ppm": 413.5}"#);
    assert_eq!(says(&file), "ppm=413.5");
}

#[test]
fn a_bus_that_is_not_there_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let chip = SensorSection { bus: dir.path().join("i2c-1"), ..section("bmp180", "", dir.path()) };
    assert!(
        says(&chip).starts_with(
            "open the bus i2c-1: No such file or directory (os error 2); there is no such bus: is I²C enabled?"
        ),
        "{}",
        says(&chip)
    );
    write(dir.path(), "i2c-1", "");
    assert!(says(&chip).contains("that is no I²C bus"), "{}", says(&chip));
}

/// Runs an agent without a server until `done` says so, and stops it.
fn run(sensors: Vec<SensorSection>, done: impl Fn(&AgentStats) -> bool) -> AgentStats {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { sensors, ..Config::default() };
    config.agent.id = "pi-7".to_owned();
    config.clock.trust = Trust::System;
    config.outbox.dir = dir.path().join("outbox");
    config.servers = vec![edge_agent::config::ServerSection::new("mqtt://127.0.0.1:1")];
    let clock = Arc::new(SystemClock::new());
    let surroundings = Surroundings {
        disk: Arc::new(LocalDisk::new()),
        timepiece: Arc::new(SystemTimepiece::new()),
        clock,
        rng: Arc::new(SplitMix64::new(7)),
        serial: None,
        log_lines: Arc::default(),
    };
    let agent = Agent::start(config, surroundings).unwrap();
    let stats = loop {
        let stats = agent.stats();
        if done(&stats) {
            break stats;
        }
        std::thread::yield_now();
    };
    assert!(agent.stop(Duration::ZERO).closed);
    stats
}

#[test]
fn sensors_that_fail_or_hang_hold_up_none_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str, section: SensorSection| SensorSection { name: name.to_owned(), ..section };
    let sysfs = Path::new("/sys");
    let program = |script: &str| SensorSection {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..section("command", "", sysfs)
    };
    let fast = SensorSection { interval: Period(Duration::from_millis(5)), ..section("simulated-bmp180", "", sysfs) };
    let sensors = vec![
        named("hangs", program("sleep 600")),
        named("fails", program("exit 1")),
        named("missing", section("bmp180", "", sysfs)),
        named("good", fast),
    ];
    let sensors: Vec<SensorSection> =
        sensors
            .into_iter()
            .map(|sensor| {
                if sensor.driver == "bmp180" {
                    SensorSection { bus: dir.path().join("none"), ..sensor }
                } else {
                    sensor
                }
            })
            .collect();
    let stats = run(sensors, |stats| stats.readings >= 100 && stats.failing_sensors.len() == 2);
    assert_eq!(stats.failing_sensors, ["fails", "missing"]);
    // Tried again later and later, not at each moment.
    assert!((2..10).contains(&stats.sensor_failures), "{stats:?}");
}
