//! What an operator writes, and what is said about mistakes.

use std::time::Duration;

use edge_agent::config::{ByteSize, Config, MqttVersion, Replay};

const SENSOR: &str = "[[sensor]]\ndriver = \"simulated-bmp180\"\nname = \"s1\"\n";

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let place = format!("{}/", dir.path().display());
    Config::load(Some(&path), environment, "host-1").map_err(|e| e.to_string().replace(&place, ""))
}

#[test]
fn a_minimal_file_is_filled_up_with_defaults() {
    let config = load(SENSOR, &[]).unwrap();
    assert_eq!(config.agent.id, "host-1");
    assert_eq!(config.servers[0].url, "mqtt://127.0.0.1:1883");
    assert_eq!(config.sensors[0].interval.0, Duration::from_secs(1));
    assert_eq!((config.batch.max_readings, config.outbox.max_bytes), (1_000, ByteSize(256 << 20)));
}

#[test]
fn each_key_can_be_set() {
    let text = r#"
        [agent]
        id = "pi-7"
        log = "debug"
        grace = "1s"
        [batch]
        max_readings = 10
        [outbox]
        dir = "/var/lib/eden-agent"
        max_bytes = "16MiB"
        sync_interval = "500ms"
        [uplink]
        in_flight = 64
        replay = "newest-first"
        replay_rate = "64KiB"
        status_interval = "1m"
        [[server]]
        url = "mqtt://[::1]:1884"
        mqtt_version = "5"
        [[server]]
        url = "http://eden.example:4200/"
        [[sensor]]
        driver = "simulated-bmp180"
        name = "s1"
        interval = "250ms"
        table = "air"
        tags = { room = "kitchen" }
        seed = 7
        [clock]
        trust = "system"
        wait = "1h"
        [[sensor]]
        driver = "bmp180"
        name = "s2"
        bus = "/dev/i2c-3"
        address = 0x77
        oversampling = 4
        conversion_end = "time"
        offsets = { temperature = "-0.4" }
        dead_band = { pressure = "10" }
        max_silence = "5m"
        window = "1m"
        aggregates = ["mean", "min", "max"]
        stamp = "interval"
        [[sensor]]
        driver = "command"
        name = "s3"
        command = ["/usr/bin/co2", "--once"]
        timeout = "2s"
        [[sensor]]
        driver = "ds18b20"
        name = "s4"
        source = "28-00000a1b2c3d"
        sysfs = "/tmp/sys"
    "#;
    let config = load(text, &[]).unwrap();
    assert_eq!(config.servers[0].mqtt_version, MqttVersion::V5);
    assert_eq!(config.servers.len(), 2);
    assert_eq!((config.uplink.in_flight, config.sensors[0].seed), (64, 7));
    assert_eq!((config.uplink.replay, config.uplink.replay_rate), (Replay::NewestFirst, ByteSize(64 << 10)));
    assert_eq!(config.sensors[0].tags["room"], "kitchen");
}

#[test]
fn variables_with_the_prefix_override_the_file_and_must_name_a_section() {
    let config = load(SENSOR, &[("EDEN_AGENT_AGENT_ID", "pi-9"), ("EDEN_AGENT_OUTBOX_MAX_BYTES", "4MiB")]).unwrap();
    assert_eq!((&*config.agent.id, config.outbox.max_bytes), ("pi-9", ByteSize(4 << 20)));
    assert!(load(SENSOR, &[("EDEN_HTTP_LISTEN", "x"), ("HOME", "/")]).is_ok(), "other programs' names");
    assert_eq!(
        load(SENSOR, &[("EDEN_AGENT_OUTBX_DIR", "x")]).unwrap_err(),
        r#"environment variable EDEN_AGENT_OUTBX_DIR: unknown section "outbx"; did you mean "outbox"?"#
    );
}

#[test]
fn every_section_and_list_is_known_by_its_name() {
    for section in ["agent", "batch", "clock", "outbox", "uplink"] {
        let said = load(&format!("[[{section}]]"), &[]).unwrap_err();
        assert!(said.ends_with(&format!("write [{section}] on a line of its own")), "{said}");
    }
    for list in ["server", "sensor"] {
        let said = load(&format!("[{list}]"), &[]).unwrap_err();
        assert!(said.ends_with(&format!("write [[{list}]] on a line of its own for each")), "{said}");
    }
    let said = load("[agnet]", &[]).unwrap_err();
    assert_eq!(said, r#"agent.toml:1:2: unknown section "agnet"; did you mean "agent"?"#);
}

#[test]
fn a_version_of_mqtt_that_is_not_spoken_is_refused() {
    assert_eq!(
        load("[[server]]\nmqtt_version = \"4\"", &[]).unwrap_err(),
        r#"agent.toml:2:16: mqtt_version: "4" is no version that is spoken; write "3.1.1" or "5""#
    );
}

#[test]
fn values_that_cannot_work_are_refused() {
    let sensor = |keys: &str| format!("[[sensor]]\n{keys}");
    for (text, said) in [
        ("[agent]\nid = \"a/b\"".to_owned(), "has '/', which topics or tags do not take"),
        ("[agent]\nid = 'a\\'".to_owned(), "has '\\\\', which topics or tags do not take"),
        ("[agent]\nid = \"a b\"".to_owned(), "has ' ', which topics or tags do not take"),
        ("[agent]\nid = \"a+\"".to_owned(), "has '+', which topics or tags do not take"),
        ("[agent]\nid = \"a\\u0007\"".to_owned(), "has a control character"),
        ("[outbox]\nmax_bytes = \"1MiB\"".to_owned(), "at least 2MiB"),
        ("[uplink]\nin_flight = 65".to_owned(), "65 is not from 1 to 64"),
        ("[uplink]\nreplay = \"newest\"".to_owned(), "write \"interleaved\" or \"newest-first\" or \"oldest-first\""),
        ("[uplink]\nreplay_rate = \"1000B\"".to_owned(), "1000B is too little; at least 1KiB"),
        ("[batch]\nmax_readings = 0".to_owned(), "at least 1"),
        ("[[server]]\nurl = \"http://x\"\nca = \"/ca.pem\"".to_owned(), "is not encrypted"),
        ("[[server]]\nurl = \"mqtt://x\"\nca = \"/ca.pem\"".to_owned(), "is not encrypted"),
        ("[clock]\ntime_url = \"https://x\"".to_owned(), "does not begin with"),
        ("[[server]]\nurl = \"mqtt://x:99999\"".to_owned(), "has no such port"),
        ("[[server]]\nurl = \"x:1883\"".to_owned(), "is no URL"),
        ("[[server]]\nurl = \"mqtt://:1883\"".to_owned(), "has no host"),
        ("[[server]]\nurl = \"http://x/path\"".to_owned(), "more than a host and a port"),
        ("[clock]\ntrust = \"me\"".to_owned(), "\"me\" is not known; write \"synchronised\" or \"system\""),
        (sensor("driver = \"bmp180\"\nname = \"a\"\noversampling = 3"), "3 is not among [1, 2, 4, 8]"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\naddress = 0x78"), "0x78 is not from 0x08 to 0x77"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\nsource = \"x\""), "source: the driver \"bmp180\" has none"),
        (sensor("driver = \"hwmon\"\nname = \"a\"\naddress = 9"), "address: the driver \"hwmon\" has none"),
        (sensor("driver = \"sht3x\"\nname = \"a\"\nconversion_end = \"time\""), "conversion_end: the driver"),
        (sensor("driver = \"command\"\nname = \"a\""), "command is missing"),
        (sensor("driver = \"file\"\nname = \"a\""), "source is missing"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\noffsets = { humidity = \"1\" }"), "has no field \"humidity\""),
        (sensor("driver = \"bmp180\"\nname = \"a\"\noffsets = { temperature = 1 }"), "numbers in quotes"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\ndead_band = { pressure = \"0\" }"), "not greater than 0"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\naggregates = []"), "at least one of mean, min and max"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\nwindow = \"10ms\""), "shorter than the interval"),
        (
            sensor("driver = \"bmp180\"\nname = \"a\"\ndead_band = { temperature_min = \"1\" }"),
            "no field \"temperature_min\" is kept; window and aggregates make temperature, pressure",
        ),
        (
            sensor(
                "driver = \"bmp180\"\nname = \"a\"\nwindow = \"1m\"\naggregates = [\"min\", \"max\"]\n\
                 dead_band = { temperature = \"1\" }",
            ),
            "make temperature_min, temperature_max, pressure_min, pressure_max",
        ),
        (
            sensor(
                "driver = \"file\"\nname = \"a\"\nsource = \"x\"\nwindow = \"1m\"\naggregates = [\"min\"]\n\
                 dead_band = { value = \"1\" }",
            ),
            "no field \"value\" is kept",
        ),
        (sensor("driver = \"bmp180\"\nname = \"a\"\nmax_silence = \"1m\""), "there is no dead_band"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\naggregates = [\"min\"]"), "there is no window"),
        (sensor("driver = \"bmp180\"\nname = \"a\"\nsysfs = \"/x\""), "sysfs: the driver \"bmp180\" has none"),
        (sensor("driver = \"file\"\nname = \"a\"\nsource = \"x\"\ntimeout = \"1s\""), "timeout: the driver"),
        (
            sensor(
                "driver = \"bmp180\"\nname = \"a\"\nwindow = \"1m\"\naggregates = [\"min\"]\n\
                 tags = { pressure_min = \"x\" }",
            ),
            "has the name of a field",
        ),
        (sensor("name = \"s1\""), "driver is missing"),
        (sensor("driver = \"simulated-bmp18\"\nname = \"s1\""), "did you mean \"simulated-bmp180\"?"),
        (sensor("driver = \"simulated-bmp180\""), "name is empty"),
        (format!("{SENSOR}{SENSOR}"), "two sensors are named \"s1\""),
        (format!("{SENSOR}tags = {{ agent = \"x\" }}"), "the tag \"agent\" is set by the agent"),
        (format!("{SENSOR}tags = {{ Pressure = \"x\" }}"), "the tag \"Pressure\" has the name of a field"),
        (format!("{SENSOR}tags = {{ time = \"x\" }}"), "is reserved"),
        (format!("{SENSOR}interval = \"0s\""), "at least 1ms"),
    ] {
        let refused = load(&text, &[]).unwrap_err();
        assert!(refused.contains(said) && refused.lines().count() == 1, "{text}\n{refused}");
    }
}
