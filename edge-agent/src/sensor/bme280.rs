//! Bosch BMP280 and BME280: pressure, temperature and, of the latter, humidity, on I²C.
//!
//! Data sheets BST-BMP280-DS001 and BST-BME280-DS002, whose names of registers and of steps of the calculation are used
//! (64 bits for the pressure). One conversion at a time (*forced mode*): the chip sleeps in between, and does not warm
//! itself.

use std::fmt::Display;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

use super::Fields;
use super::fault::ChipError;
use super::i2c::{Chip, Registers, chip_hint};
use super::value::Value;

/// The address with SDO at ground; with SDO at the supply it is one more.
pub const ADDRESS: u8 = 0x76;

const ID: (&str, u8) = ("id (0xd0)", 0xD0);
const STATUS: (&str, u8) = ("status (0xf3)", 0xF3);
const CTRL_HUM: (&str, u8) = ("ctrl_hum (0xf2)", 0xF2);
const CTRL_MEAS: (&str, u8) = ("ctrl_meas (0xf4)", 0xF4);
const CONFIG: (&str, u8) = ("config (0xf5)", 0xF5);
const DATA: (&str, u8) = ("press_msb (0xf7)", 0xF7);
const CALIBRATION_1: (&str, u8) = ("calib00 (0x88)", 0x88);
const CALIBRATION_2: (&str, u8) = ("calib26 (0xe1)", 0xE1);
/// A conversion runs.
const MEASURING: u8 = 0x08;
/// The calibration is being copied from the chip's memory: for 2 ms after power-on.
const IM_UPDATE: u8 = 0x01;
const FORCED: u8 = 0x01;
/// What a conversion that was skipped, or did not take place, leaves behind.
const NO_RESULT_20: u32 = 0x8_0000;
const NO_RESULT_16: u32 = 0x8000;
const PATIENCE: u32 = 10;

/// Which of the two chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pressure and temperature.
    Bmp280,
    /// Humidity too.
    Bme280,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Bmp280 => "BMP280",
            Kind::Bme280 => "BME280",
        }
    }

    /// What `id` holds. 0x56 and 0x57 are samples of the BMP280.
    fn ids(self) -> &'static [u8] {
        match self {
            Kind::Bmp280 => &[0x58, 0x57, 0x56],
            Kind::Bme280 => &[0x60],
        }
    }
}

/// How many samples the chip takes for one value: 1, 2, 4, 8 or 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversampling(u8);

impl Oversampling {
    /// So many samples.
    pub fn of(samples: u32) -> Option<Oversampling> {
        (samples.is_power_of_two() && samples <= 16).then(|| Oversampling(samples.trailing_zeros() as u8))
    }

    /// `osrs` of the data sheet.
    fn bits(self) -> u8 {
        self.0 + 1
    }

    fn samples(self) -> u32 {
        1 << self.0
    }
}

/// The calibration of one chip; what belongs to humidity is 0 in a BMP280.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    /// dig_T1.
    pub t1: u16,
    /// dig_T2 and dig_T3.
    pub t: [i16; 2],
    /// dig_P1.
    pub p1: u16,
    /// dig_P2 to dig_P9.
    pub p: [i16; 8],
    /// dig_H1.
    pub h1: u8,
    /// dig_H2.
    pub h2: i16,
    /// dig_H3.
    pub h3: u8,
    /// dig_H4, 12 bits.
    pub h4: i16,
    /// dig_H5, 12 bits.
    pub h5: i16,
    /// dig_H6.
    pub h6: i8,
}

/// What a chip measured at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Hundredths of a degree Celsius.
    pub centi_celsius: i32,
    /// 256ths of a pascal.
    pub pa_256: u32,
    /// 1024ths of a percent of relative humidity; none from a BMP280.
    pub percent_1024: Option<u32>,
}

impl Calibration {
    /// From the registers 0x88 to 0xa1, and of a BME280 0xe1 to 0xe7.
    ///
    /// # Errors
    /// If dig_T1 or dig_P1 is 0 or 0xffff: the calculation divides by the one, and what answered was no memory.
    pub fn from_registers(first: &[u8; 26], second: Option<&[u8; 7]>, kind: Kind) -> Result<Calibration, ChipError> {
        let word = |at: usize| u16::from_le_bytes([first[at], first[at + 1]]);
        let signed = |at: usize| word(at).cast_signed();
        for (register, at) in [("dig_T1", 0), ("dig_T2", 2), ("dig_P1", 6)] {
            if matches!(word(at), 0 | 0xFFFF) {
                return Err(ChipError::Calibration { register, found: word(at), chip: kind.name() });
            }
        }
        let mut calibration = Calibration {
            t1: word(0),
            t: [signed(2), signed(4)],
            p1: word(6),
            p: std::array::from_fn(|i| signed(8 + 2 * i)),
            ..Calibration::default()
        };
        if let Some(second) = second {
            // H4 and H5 share the byte at 0xe5, and are signed.
            let twelve = |high: u8, low: u8| (i16::from(high.cast_signed()) << 4) | i16::from(low & 0x0F);
            calibration.h1 = first[25];
            calibration.h2 = i16::from_le_bytes([second[0], second[1]]);
            calibration.h3 = second[2];
            calibration.h4 = twelve(second[3], second[4]);
            calibration.h5 = twelve(second[5], second[4] >> 4);
            calibration.h6 = second[6].cast_signed();
            if calibration.h2 == 0 || calibration.h2 == -1 {
                let found = calibration.h2.cast_unsigned();
                return Err(ChipError::Calibration { register: "dig_H2", found, chip: kind.name() });
            }
        }
        Ok(calibration)
    }

    /// Values from the raw ones, 20, 20 and 16 bits. No calibration overflows 64 bits: where a value leaves the range
    /// early, it is refused there.
    ///
    /// # Errors
    /// If a value is outside of what the chip measures.
    pub fn compensate(&self, adc_t: u32, adc_p: u32, adc_h: Option<u32>) -> Result<Reading, ChipError> {
        let t_fine = self.t_fine(adc_t);
        let centi_celsius = (t_fine * 5 + 128) >> 8;
        if !(-4_000..=8_500).contains(&centi_celsius) {
            let found = format!("{centi_celsius} hundredths of a °C");
            return Err(ChipError::OutOfRange { field: "temperature", found, range: "-40 to 85 °C" });
        }
        let pa_256 = self.pa_256(adc_p, t_fine);
        let Some(pa_256) = pa_256.filter(|pa_256| (30_000 << 8..=110_000 << 8).contains(pa_256)) else {
            let found = pa_256.map_or("not a number".to_owned(), |pa_256| format!("{} Pa", pa_256 >> 8));
            return Err(ChipError::OutOfRange { field: "pressure", found, range: "300 to 1100 hPa" });
        };
        let percent_1024 = adc_h.map(|adc_h| self.percent_1024(adc_h, t_fine));
        Ok(Reading { centi_celsius: centi_celsius as i32, pa_256: pa_256 as u32, percent_1024 })
    }

    fn t_fine(&self, adc_t: u32) -> i64 {
        let (adc_t, t1) = (i64::from(adc_t), i64::from(self.t1));
        let [t2, t3] = self.t.map(i64::from);
        let var1 = (((adc_t >> 3) - (t1 << 1)) * t2) >> 11;
        let near = (adc_t >> 4) - t1;
        let var2 = (((near * near) >> 12) * t3) >> 14;
        var1 + var2
    }

    fn pa_256(&self, adc_p: u32, t_fine: i64) -> Option<i64> {
        let [p2, p3, p4, p5, p6, p7, p8, p9] = self.p.map(i64::from);
        let var1 = t_fine - 128_000;
        let var2 = var1 * var1 * p6 + ((var1 * p5) << 17) + (p4 << 35);
        let var1 = ((var1 * var1 * p3) >> 8) + ((var1 * p2) << 12);
        let var1 = i64::try_from((((1_i128 << 47) + i128::from(var1)) * i128::from(self.p1)) >> 33).ok()?;
        if var1 == 0 {
            return None;
        }
        let p = i128::from((1_048_576 - i64::from(adc_p)) << 31) - i128::from(var2);
        let p = i64::try_from(p * 3_125 / i128::from(var1)).ok()?;
        // Any pressure that the chip measures is far below.
        if p.unsigned_abs() >= 1 << 40 {
            return None;
        }
        let var1 = ((i128::from(p9) * i128::from(p >> 13) * i128::from(p >> 13)) >> 25) as i64;
        let var2 = (p8 * p) >> 19;
        Some(((p + var1 + var2) >> 8) + (p7 << 4))
    }

    fn percent_1024(&self, adc_h: u32, t_fine: i64) -> u32 {
        let x = t_fine - 76_800;
        let left = ((i64::from(adc_h) << 14) - (i64::from(self.h4) << 20) - (i64::from(self.h5) * x) + 16_384) >> 15;
        let inner = (((x * i64::from(self.h6)) >> 10) * (((x * i64::from(self.h3)) >> 11) + 32_768)) >> 10;
        let right = ((inner + 2_097_152) * i64::from(self.h2) + 8_192) >> 14;
        let x = i128::from(left) * i128::from(right);
        let x = x - (((((x >> 15) * (x >> 15)) >> 7) * i128::from(self.h1)) >> 4);
        // The data sheet cuts at 0 and 100 %: noise goes beyond both.
        (x.clamp(0, 419_430_400) >> 12) as u32
    }
}

/// A chip whose identity and calibration were read.
#[derive(Clone, Debug)]
pub struct Bme280 {
    kind: Kind,
    address: u8,
    oversampling: Oversampling,
    calibration: Option<Calibration>,
}

impl Bme280 {
    /// A chip at `address` that was not spoken to yet.
    pub fn new(kind: Kind, address: u8, oversampling: Oversampling) -> Bme280 {
        Bme280 { kind, address, oversampling, calibration: None }
    }

    /// Measures. The first time it reads identity and calibration too.
    ///
    /// # Errors
    /// See [`ChipError`]; the next call begins with the identity again.
    pub fn read<I: I2c<Error: Display>, D: DelayNs>(
        &mut self,
        bus: &mut I,
        delay: &mut D,
    ) -> Result<Reading, ChipError> {
        let known = self.calibration.take();
        let mut registers = Registers { bus, address: self.address };
        let calibration = match known {
            Some(calibration) => calibration,
            None => self.identify(&mut registers, delay)?,
        };
        let osrs = self.oversampling.bits();
        if self.kind == Kind::Bme280 {
            // It takes effect with the write of `ctrl_meas`.
            registers.write(CTRL_HUM, osrs)?;
        }
        registers.write(CTRL_MEAS, osrs << 5 | osrs << 2 | FORCED)?;
        let time_us = self.conversion_time_us();
        delay.delay_us(time_us);
        wait_for(&mut registers, delay, MEASURING, time_us)?;
        let [p1, p2, p3, t1, t2, t3, h1, h2] = match self.kind {
            Kind::Bme280 => registers.read::<8>(DATA)?,
            Kind::Bmp280 => {
                let [p1, p2, p3, t1, t2, t3] = registers.read::<6>(DATA)?;
                [p1, p2, p3, t1, t2, t3, 0, 0]
            }
        };
        let twenty = |msb, lsb, xlsb| u32::from_be_bytes([0, msb, lsb, xlsb]) >> 4;
        let (adc_p, adc_t) = (twenty(p1, p2, p3), twenty(t1, t2, t3));
        let adc_h = (self.kind == Kind::Bme280).then(|| u32::from(u16::from_be_bytes([h1, h2])));
        // Each alone may be measured; all together are not.
        if adc_t == NO_RESULT_20 && adc_p == NO_RESULT_20 && adc_h.is_none_or(|adc_h| adc_h == NO_RESULT_16) {
            return Err(ChipError::OutOfRange {
                field: "each value",
                found: "missing: no conversion took place".to_owned(),
                range: "the chip was reset meanwhile",
            });
        }
        let reading = calibration.compensate(adc_t, adc_p, adc_h)?;
        self.calibration = Some(calibration);
        Ok(reading)
    }

    /// The longest that a conversion takes: 1.25 ms, 2.3 ms for each sample of each value, and 0.575 ms for each value
    /// but the first (data sheet, appendix B).
    fn conversion_time_us(&self) -> u32 {
        let values = if self.kind == Kind::Bme280 { 3 } else { 2 };
        1_250 + values * 2_300 * self.oversampling.samples() + (values - 1) * 575
    }

    fn identify<I: I2c<Error: Display>, D: DelayNs>(
        &self,
        registers: &mut Registers<'_, I>,
        delay: &mut D,
    ) -> Result<Calibration, ChipError> {
        let found = registers.read_byte(ID)?;
        if !self.kind.ids().contains(&found) {
            return Err(ChipError::OtherChip {
                register: ID.0,
                address: registers.address,
                found,
                wanted: self.kind.name(),
                id: self.kind.ids()[0],
                hint: chip_hint(found),
            });
        }
        wait_for(registers, delay, IM_UPDATE, 2_000)?;
        // No filter: each reading is of its moment.
        registers.write(CONFIG, 0)?;
        let first = registers.read::<26>(CALIBRATION_1)?;
        let second = match self.kind {
            Kind::Bme280 => Some(registers.read::<7>(CALIBRATION_2)?),
            Kind::Bmp280 => None,
        };
        Calibration::from_registers(&first, second.as_ref(), self.kind)
    }
}

/// Waits until `bit` of `status` is clear.
fn wait_for<I: I2c<Error: Display>, D: DelayNs>(
    registers: &mut Registers<'_, I>,
    delay: &mut D,
    bit: u8,
    time_us: u32,
) -> Result<(), ChipError> {
    for _ in 0..PATIENCE {
        if registers.read_byte(STATUS)? & bit == 0 {
            return Ok(());
        }
        delay.delay_us(time_us.div_ceil(PATIENCE).max(1_000));
    }
    Err(ChipError::Stuck { register: STATUS.0, waited_ms: (2 * time_us).div_ceil(1_000) })
}

impl Chip for Bme280 {
    fn measure<I: I2c<Error: Display>, D: DelayNs>(&mut self, bus: &mut I, delay: &mut D) -> Result<Fields, ChipError> {
        self.read(bus, delay).map(Reading::fields)
    }
}

impl Reading {
    /// °C in steps of 0.01, Pa in steps of 0.1, % in steps of 0.01.
    pub(crate) fn fields(self) -> Fields {
        let deci_pa = (i64::from(self.pa_256) * 10 + 128) >> 8;
        let mut fields = vec![
            ("temperature".into(), Value { steps: self.centi_celsius.into(), decimals: 2 }),
            ("pressure".into(), Value { steps: deci_pa, decimals: 1 }),
        ];
        if let Some(percent_1024) = self.percent_1024 {
            let steps = (i64::from(percent_1024) * 100 + 512) >> 10;
            fields.push(("humidity".into(), Value { steps, decimals: 2 }));
        }
        fields
    }
}
