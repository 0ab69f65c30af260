//! Sensirion SHT30, SHT31 and SHT35: temperature and relative humidity, on I²C.
//!
//! Data sheet *SHT3x-DIS* (version 7, 2022). Single shots without clock stretching: boards hold the clock wrongly, or not at
//! all (Raspberry Pi: BCM2835's I²C), so the longest time of a conversion is waited for instead.

use std::fmt::Display;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

use super::Fields;
use super::fault::ChipError;
use super::i2c::{Chip, Registers};
use super::value::Value;

/// The address with ADDR at ground; at the supply it is one more.
pub const ADDRESS: u8 = 0x44;

/// How often the chip samples for one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatability {
    /// In 4.5 ms at most.
    Low,
    /// In 6.5 ms.
    Medium,
    /// In 15.5 ms.
    High,
}

impl Repeatability {
    fn command(self) -> (&'static str, [u8; 2]) {
        match self {
            Repeatability::High => ("single shot, high (0x2400)", [0x24, 0x00]),
            Repeatability::Medium => ("single shot, medium (0x240b)", [0x24, 0x0B]),
            Repeatability::Low => ("single shot, low (0x2416)", [0x24, 0x16]),
        }
    }

    fn time_us(self) -> u32 {
        match self {
            Repeatability::Low => 4_500,
            Repeatability::Medium => 6_500,
            Repeatability::High => 15_500,
        }
    }
}

/// A chip.
#[derive(Clone, Debug)]
pub struct Sht3x {
    address: u8,
    repeatability: Repeatability,
}

/// What a chip measured at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Hundredths of a degree Celsius.
    pub centi_celsius: i32,
    /// Hundredths of a percent of relative humidity.
    pub centi_percent: u32,
}

impl Sht3x {
    /// A chip at `address`.
    pub fn new(address: u8, repeatability: Repeatability) -> Sht3x {
        Sht3x { address, repeatability }
    }

    /// Measures.
    ///
    /// # Errors
    /// See [`ChipError`].
    pub fn read<I: I2c<Error: Display>, D: DelayNs>(
        &mut self,
        bus: &mut I,
        delay: &mut D,
    ) -> Result<Reading, ChipError> {
        let (name, command) = self.repeatability.command();
        let registers = Registers { bus, address: self.address };
        registers.bus.write(self.address, &command).map_err(|e| registers.fault("write", name, &e))?;
        delay.delay_us(self.repeatability.time_us());
        let mut bytes = [0; 6];
        registers.bus.read(self.address, &mut bytes).map_err(|e| registers.fault("read", "the measured words", &e))?;
        decode(bytes)
    }
}

/// The two words of a measurement, each with its checksum.
///
/// # Errors
/// If a checksum is wrong, or a value is outside of what the chip measures.
pub fn decode([t_msb, t_lsb, t_crc, h_msb, h_lsb, h_crc]: [u8; 6]) -> Result<Reading, ChipError> {
    for (register, bytes, crc) in [("the temperature", [t_msb, t_lsb], t_crc), ("the humidity", [h_msb, h_lsb], h_crc)]
    {
        if crc8(bytes) != crc {
            return Err(ChipError::Checksum { register });
        }
    }
    let round = |number: i64| (number + 32_767).div_euclid(65_535);
    // −45 + 175 · S / (2^16 − 1) and 100 · S / (2^16 − 1), section 4.13.
    let centi_celsius = round(17_500 * i64::from(u16::from_be_bytes([t_msb, t_lsb]))) - 4_500;
    let centi_percent = round(10_000 * i64::from(u16::from_be_bytes([h_msb, h_lsb])));
    if !(-4_000..=12_500).contains(&centi_celsius) {
        let found = format!("{centi_celsius} hundredths of a °C");
        return Err(ChipError::OutOfRange { field: "temperature", found, range: "-40 to 125 °C" });
    }
    Ok(Reading { centi_celsius: centi_celsius as i32, centi_percent: centi_percent as u32 })
}

/// Polynomial 0x31, begun at 0xff (section 4.12).
pub(crate) fn crc8(bytes: [u8; 2]) -> u8 {
    let mut crc = 0xFF_u8;
    for byte in bytes {
        crc ^= byte;
        for _ in 0..8 {
            let carries = crc & 0x80 != 0;
            crc <<= 1;
            if carries {
                crc ^= 0x31;
            }
        }
    }
    crc
}

impl Chip for Sht3x {
    fn measure<I: I2c<Error: Display>, D: DelayNs>(&mut self, bus: &mut I, delay: &mut D) -> Result<Fields, ChipError> {
        let Reading { centi_celsius, centi_percent } = self.read(bus, delay)?;
        Ok(vec![
            ("temperature".into(), Value { steps: centi_celsius.into(), decimals: 2 }),
            ("humidity".into(), Value { steps: centi_percent.into(), decimals: 2 }),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_data_sheets() {
        assert_eq!(crc8([0xBE, 0xEF]), 0x92);
    }

    #[test]
    fn words_become_values() {
        let packed = |t: u16, h: u16| {
            let ([a, b], [c, d]) = (t.to_be_bytes(), h.to_be_bytes());
            decode([a, b, crc8([a, b]), c, d, crc8([c, d])])
        };
        assert_eq!(packed(0x6666, 0x8000), Ok(Reading { centi_celsius: 2_500, centi_percent: 5_000 }));
        assert!(matches!(packed(0, 0), Err(ChipError::OutOfRange { .. })), "a dead bus is no -45 °C");
        assert!(matches!(packed(u16::MAX, u16::MAX), Err(ChipError::OutOfRange { .. })));
        assert!(matches!(decode([0xFF; 6]), Err(ChipError::Checksum { .. })), "all ones");
        assert!(matches!(decode([0; 6]), Err(ChipError::Checksum { .. })), "all zeros");
    }
}
