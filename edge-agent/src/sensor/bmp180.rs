//! Bosch BMP180: pressure and temperature, on I²C.
//!
//! Data sheet BST-BMP180-DS000, whose names of registers and of steps of the calculation are used. Steps of 0.1 °C and
//! 1 Pa, −40 … 85 °C, 300 … 1100 hPa.

use std::fmt::Display;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

use super::fault::ChipError;
use super::i2c::{Chip, Registers};
use super::place::{Bmp180Reading, DeciCelsius, Pascal};

/// The only address that the chip has.
pub const ADDRESS: u8 = 0x77;
/// What `id` holds.
pub const CHIP_ID: u8 = 0x55;

const ID: (&str, u8) = ("id (0xd0)", 0xD0);
const CTRL_MEAS: (&str, u8) = ("ctrl_meas (0xf4)", 0xF4);
const OUT: (&str, u8) = ("out_msb (0xf6)", 0xF6);
const CALIBRATION: (&str, u8) = ("calibration (0xaa)", 0xAA);
const WORDS: [&str; 11] = ["AC1", "AC2", "AC3", "AC4", "AC5", "AC6", "B1", "B2", "MB", "MC", "MD"];
/// Start of conversion, a bit of `ctrl_meas`: the chip clears it at the end.
const SCO: u8 = 0x20;
const MEASURE_TEMPERATURE: u8 = 0x2E;
const MEASURE_PRESSURE: u8 = 0x34;
const TEMPERATURE_TIME_US: u32 = 4_500;
/// A conversion that takes so much longer than the data sheet says is not waited for.
const PATIENCE: u32 = 4;

/// How many samples the chip takes for one pressure: `oss` 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversampling {
    /// One, in 4.5 ms at most: *ultra low power*, noise of 6 Pa.
    One,
    /// Two, in 7.5 ms: *standard*, 5 Pa.
    Two,
    /// Four, in 13.5 ms: *high resolution*, 4 Pa.
    Four,
    /// Eight, in 25.5 ms: *ultra high resolution*, 3 Pa.
    Eight,
}

impl Oversampling {
    /// All modes.
    pub const ALL: [Oversampling; 4] = [Self::One, Self::Two, Self::Four, Self::Eight];

    /// `oss` of the data sheet.
    pub fn oss(self) -> u8 {
        self as u8
    }

    /// The longest that a conversion of the pressure takes, in microseconds.
    pub fn conversion_time_us(self) -> u32 {
        match self {
            Oversampling::One => 4_500,
            Oversampling::Two => 7_500,
            Oversampling::Four => 13_500,
            Oversampling::Eight => 25_500,
        }
    }

    /// The mode of so many samples.
    pub(crate) fn of(samples: u32) -> Option<Oversampling> {
        Self::ALL.into_iter().find(|mode| 1 << mode.oss() == samples)
    }
}

/// How the end of a conversion is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversionEnd {
    /// The chip's own bit says so, after the data sheet's longest time.
    Register,
    /// The data sheet's longest time is all there is: for a bus that is simulated by a memory, which never clears a bit.
    Time,
}

/// The calibration of one chip, as its EEPROM holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// AC1.
    pub ac1: i16,
    /// AC2.
    pub ac2: i16,
    /// AC3.
    pub ac3: i16,
    /// AC4.
    pub ac4: u16,
    /// AC5.
    pub ac5: u16,
    /// AC6.
    pub ac6: u16,
    /// B1.
    pub b1: i16,
    /// B2.
    pub b2: i16,
    /// MB, of which the calculation makes no use.
    pub mb: i16,
    /// MC.
    pub mc: i16,
    /// MD.
    pub md: i16,
}

impl Calibration {
    /// From the registers 0xaa to 0xbf.
    ///
    /// # Errors
    /// If a word is 0 or 0xffff: the data sheet says that none is, so what answered was not the chip's memory.
    pub fn from_registers(bytes: &[u8; 22]) -> Result<Calibration, ChipError> {
        let mut words = [0_u16; 11];
        for (word, pair) in words.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *word = u16::from_be_bytes(*pair);
        }
        if let Some(at) = words.iter().position(|word| matches!(word, 0 | 0xFFFF)) {
            return Err(ChipError::Calibration { register: WORDS[at], found: words[at], chip: "BMP180" });
        }
        let [ac1, ac2, ac3, ac4, ac5, ac6, b1, b2, mb, mc, md] = words;
        let signed = u16::cast_signed;
        Ok(Calibration {
            ac1: signed(ac1),
            ac2: signed(ac2),
            ac3: signed(ac3),
            ac4,
            ac5,
            ac6,
            b1: signed(b1),
            b2: signed(b2),
            mb: signed(mb),
            mc: signed(mc),
            md: signed(md),
        })
    }

    /// Temperature and pressure from the raw values `ut` and `up`, as the data sheet calculates them (figure 4), with
    /// divisions that round down. 64 bits hold every step for any calibration.
    ///
    /// # Errors
    /// If the result is outside of what the chip measures.
    pub fn compensate(&self, ut: u16, up: u32, oversampling: Oversampling) -> Result<Bmp180Reading, ChipError> {
        let oss = oversampling.oss();
        let temperature_wrong =
            |found: String| ChipError::OutOfRange { field: "temperature", found, range: "-40 to 85 °C" };
        let x1 = ((i64::from(ut) - i64::from(self.ac6)) * i64::from(self.ac5)) >> 15;
        let divisor = x1 + i64::from(self.md);
        if divisor == 0 {
            return Err(temperature_wrong("not a number".to_owned()));
        }
        let x2 = floor_div(i64::from(self.mc) << 11, divisor);
        let b5 = x1 + x2;
        let deci_celsius = (b5 + 8) >> 4;
        if !(-400..=850).contains(&deci_celsius) {
            return Err(temperature_wrong(format!("{deci_celsius} tenths of a °C")));
        }
        let b6 = b5 - 4000;
        let x1 = (i64::from(self.b2) * ((b6 * b6) >> 12)) >> 11;
        let x2 = (i64::from(self.ac2) * b6) >> 11;
        let b3 = (((i64::from(self.ac1) * 4 + x1 + x2) << oss) + 2) >> 2;
        let x1 = (i64::from(self.ac3) * b6) >> 13;
        let x2 = (i64::from(self.b1) * ((b6 * b6) >> 12)) >> 16;
        let x3 = (x1 + x2 + 2) >> 2;
        let b4 = (i64::from(self.ac4) * (x3 + 32_768)) >> 15;
        let b7 = (i64::from(up) - b3) * (50_000 >> oss);
        let pressure_wrong =
            |found: String| ChipError::OutOfRange { field: "pressure", found, range: "300 to 1100 hPa" };
        if b4 <= 0 {
            return Err(pressure_wrong("not a number".to_owned()));
        }
        let p = if b7 < 0x8000_0000 { floor_div(b7 * 2, b4) } else { floor_div(b7, b4) * 2 };
        // The last step changes it by less than a hundredth; far from the range it is not taken, nor would it fit.
        if !(0..=200_000).contains(&p) {
            return Err(pressure_wrong(format!("{p} Pa")));
        }
        let x1 = ((p >> 8) * (p >> 8) * 3_038) >> 16;
        let x2 = (-7_357 * p) >> 16;
        let pa = p + ((x1 + x2 + 3_791) >> 4);
        if !(30_000..=110_000).contains(&pa) {
            return Err(pressure_wrong(format!("{pa} Pa")));
        }
        Ok(Bmp180Reading { temperature: DeciCelsius(deci_celsius as i16), pressure: Pascal(pa as u32) })
    }
}

/// The quotient rounded down, whichever sign the divisor has.
fn floor_div(dividend: i64, divisor: i64) -> i64 {
    let quotient = dividend / divisor;
    let is_above = dividend % divisor != 0 && (dividend < 0) != (divisor < 0);
    quotient - i64::from(is_above)
}

/// A chip whose identity and calibration were read.
#[derive(Clone, Debug)]
pub struct Bmp180 {
    address: u8,
    oversampling: Oversampling,
    end: ConversionEnd,
    calibration: Option<Calibration>,
}

impl Bmp180 {
    /// A chip at `address` that was not spoken to yet.
    pub fn new(address: u8, oversampling: Oversampling, end: ConversionEnd) -> Bmp180 {
        Bmp180 { address, oversampling, end, calibration: None }
    }

    /// Measures temperature and pressure. The first time it reads identity and calibration too.
    ///
    /// # Errors
    /// See [`ChipError`]; the next call begins with the identity again, for the chip may have been changed.
    pub fn read<I: I2c<Error: Display>, D: DelayNs>(
        &mut self,
        bus: &mut I,
        delay: &mut D,
    ) -> Result<Bmp180Reading, ChipError> {
        let known = self.calibration.take();
        let mut registers = Registers { bus, address: self.address };
        let calibration = match known {
            Some(calibration) => calibration,
            None => identify(&mut registers)?,
        };
        let ut = self.convert(&mut registers, delay, MEASURE_TEMPERATURE, TEMPERATURE_TIME_US)?;
        let mode = self.oversampling;
        let command = MEASURE_PRESSURE | (mode.oss() << 6);
        let raw = self.convert(&mut registers, delay, command, mode.conversion_time_us())?;
        let reading = calibration.compensate((ut >> 8) as u16, raw >> (8 - mode.oss()), mode)?;
        self.calibration = Some(calibration);
        Ok(reading)
    }

    /// One conversion; the three bytes of its result, the first one highest.
    fn convert<I: I2c<Error: Display>, D: DelayNs>(
        &self,
        registers: &mut Registers<'_, I>,
        delay: &mut D,
        command: u8,
        time_us: u32,
    ) -> Result<u32, ChipError> {
        registers.write(CTRL_MEAS, command)?;
        delay.delay_us(time_us);
        if self.end == ConversionEnd::Register {
            let mut waited = 1;
            while registers.read_byte(CTRL_MEAS)? & SCO != 0 {
                if waited == PATIENCE {
                    let waited_ms = (time_us * PATIENCE).div_ceil(1_000);
                    return Err(ChipError::Stuck { register: CTRL_MEAS.0, waited_ms });
                }
                delay.delay_us(time_us);
                waited += 1;
            }
        }
        let [msb, lsb, xlsb] = registers.read::<3>(OUT)?;
        Ok(u32::from_be_bytes([0, msb, lsb, xlsb]))
    }
}

fn identify<I: I2c<Error: Display>>(registers: &mut Registers<'_, I>) -> Result<Calibration, ChipError> {
    let found = registers.read_byte(ID)?;
    if found != CHIP_ID {
        return Err(ChipError::OtherChip {
            register: ID.0,
            address: registers.address,
            found,
            wanted: "BMP180",
            id: CHIP_ID,
            hint: super::i2c::chip_hint(found),
        });
    }
    Calibration::from_registers(&registers.read::<22>(CALIBRATION)?)
}

impl Chip for Bmp180 {
    fn measure<I: I2c<Error: Display>, D: DelayNs>(
        &mut self,
        bus: &mut I,
        delay: &mut D,
    ) -> Result<super::Fields, ChipError> {
        self.read(bus, delay).map(Bmp180Reading::fields)
    }
}
