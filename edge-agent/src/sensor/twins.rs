//! Simulated twins: each measures an invented place, in the steps of the chip that it stands for.

use super::place::{InventedPlace, Weather};
use super::value::Value;
use super::{Measured, Sensor};

/// Which chip a twin stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    Bmp180,
    Bme280,
    Sht3x,
    Ds18b20,
}

/// A twin.
#[derive(Debug)]
pub(super) struct Twin {
    pub(super) likeness: Likeness,
    pub(super) place: InventedPlace,
}

impl Sensor for Twin {
    fn measure(&mut self, time_us: i64) -> Measured {
        if self.likeness == Likeness::Bmp180 {
            return Ok(self.place.read(time_us).fields());
        }
        let Weather { centi_celsius, pa, percent } = self.place.weather(time_us);
        let hundredths = |value: f64| Value { steps: value.round() as i64, decimals: 2 };
        let temperature = ("temperature".into(), hundredths(centi_celsius));
        let humidity = ("humidity".into(), hundredths(percent * 100.0));
        Ok(match self.likeness {
            Likeness::Bme280 => {
                let pressure = Value { steps: (pa * 10.0).round() as i64, decimals: 1 };
                vec![temperature, ("pressure".into(), pressure), humidity]
            }
            Likeness::Sht3x => vec![temperature, humidity],
            // Sixteenths of a degree, as the kernel shows them: in thousandths, cut.
            Likeness::Bmp180 | Likeness::Ds18b20 => {
                let sixteenths = (centi_celsius * 0.16).round() as i64;
                vec![("temperature".into(), Value { steps: sixteenths * 1_000 / 16, decimals: 3 })]
            }
        })
    }
}
