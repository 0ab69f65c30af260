//! How the board itself is: for the status message.
//!
//! Sources: the kernel's `driver-api/thermal/sysfs-api.rst`; `drivers/hwmon/raspberrypi-hwmon.c`, which tells
//! of undervoltage.

use std::path::Path;

use crate::config::SensorSection;
use crate::sensor::Station;
use crate::sensor::sysfs::{Kind, devices};

/// How the board is, as far as it says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Board {
    /// Of its processor, °C.
    pub(crate) temperature: Option<f64>,
    /// Whether its supply was too weak in the last seconds: the kernel's driver asks the firmware every two, and clears
    /// what that has noted.
    pub(crate) undervoltage: Option<bool>,
}

/// Looks below `sysfs`.
pub(crate) fn look(sysfs: &Path) -> Board {
    let zones = devices(sysfs, Kind::Thermal).unwrap_or_default();
    let zone = zones.iter().find(|zone| zone.name.contains("cpu")).or(zones.first());
    let temperature = zone.and_then(|zone| {
        let section = SensorSection {
            driver: "thermal".to_owned(),
            source: zone.id.clone(),
            sysfs: sysfs.to_owned(),
            ..SensorSection::default()
        };
        let reading = Station::new("", &section).read(0).ok()?;
        reading.fields.first()?.1.to_string().parse().ok()
    });
    let hwmon = devices(sysfs, Kind::Hwmon).unwrap_or_default();
    let volt = hwmon.iter().find(|device| device.name == "rpi_volt");
    let alarm = volt.and_then(|device| std::fs::read_to_string(device.folder.join("in0_lcrit_alarm")).ok());
    Board { temperature, undervoltage: alarm.map(|alarm| alarm.trim() != "0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_says_how_warm_it_is_and_whether_its_supply_is_weak() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()), Board::default());
        for (path, text) in [
            ("class/thermal/thermal_zone0/type", "gpu"),
            ("class/thermal/thermal_zone0/temp", "1000"),
            ("class/thermal/thermal_zone1/type", "cpu-thermal"),
            ("class/thermal/thermal_zone1/temp", "48312"),
            ("class/hwmon/hwmon1/name", "rpi_volt"),
            ("class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(look(dir.path()), Board { temperature: Some(48.312), undervoltage: Some(true) });
    }
}
