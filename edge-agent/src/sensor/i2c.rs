//! I²C as Linux gives it, and what drivers of chips on it share.
//!
//! Owns:     opening a bus, the words for what goes wrong on it, registers of a chip.
//! Does not: know any chip.
//!
//! Meanings of error numbers: the kernel's `Documentation/i2c/fault-codes.rst`.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{self, ErrorKind, I2c, NoAcknowledgeSource, Operation};
use linux_embedded_hal::i2cdev::linux::LinuxI2CError;
use linux_embedded_hal::{Delay, I2cdev};

use super::fault::{ChipError, SensorError};
use super::{Fields, Measured, Sensor};

/// A chip that gives fields.
pub(crate) trait Chip: fmt::Debug + Send {
    /// Measures. After an error the chip is found anew.
    fn measure<I: I2c<Error: Display>, D: DelayNs>(&mut self, bus: &mut I, delay: &mut D) -> Result<Fields, ChipError>;
}

/// Registers of one chip; each has its name and its number.
pub(crate) struct Registers<'a, I> {
    pub(crate) bus: &'a mut I,
    pub(crate) address: u8,
}

impl<I: I2c<Error: Display>> Registers<'_, I> {
    pub(crate) fn read<const N: usize>(
        &mut self,
        (register, number): (&'static str, u8),
    ) -> Result<[u8; N], ChipError> {
        let mut bytes = [0; N];
        self.bus.write_read(self.address, &[number], &mut bytes).map_err(|e| self.fault("read", register, &e))?;
        Ok(bytes)
    }

    pub(crate) fn read_byte(&mut self, register: (&'static str, u8)) -> Result<u8, ChipError> {
        self.read::<1>(register).map(|[byte]| byte)
    }

    pub(crate) fn write(&mut self, (register, number): (&'static str, u8), value: u8) -> Result<(), ChipError> {
        self.bus.write(self.address, &[number, value]).map_err(|e| self.fault("write", register, &e))
    }

    pub(crate) fn fault(&self, action: &'static str, register: &'static str, error: &I::Error) -> ChipError {
        ChipError::Bus { action, register, address: self.address, fault: error.to_string() }
    }
}

/// What a chip with that identity is, for the message that it is the wrong one. With a semicolon before it.
pub(crate) fn chip_hint(found: u8) -> &'static str {
    match found {
        0x55 => "; that is a BMP180",
        0x56..=0x58 => "; that is a BMP280",
        0x60 => "; that is a BME280",
        0x61 => "; that is a BME680, which has no driver",
        0x00 | 0xFF => "; nothing drives the bus, check the wires",
        _ => "",
    }
}

/// A bus by its path.
pub(crate) struct LinuxBus(I2cdev);

impl fmt::Debug for LinuxBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinuxBus")
    }
}

impl LinuxBus {
    pub(crate) fn open(path: &Path) -> Result<LinuxBus, SensorError> {
        I2cdev::new(path).map(LinuxBus).map_err(|e| {
            let fault = BusFault::of(&e);
            let advice = match fault.errno {
                Some(libc::ENOENT) => {
                    "; there is no such bus: is I²C enabled? On a Raspberry Pi write dtparam=i2c_arm=on into config.txt, \
                     load i2c-dev, and start again"
                }
                Some(libc::EACCES | libc::EPERM) => "; the agent's user may not: add it to the group i2c",
                Some(libc::ENOTTY) => "; that is no I²C bus",
                _ => "",
            };
            SensorError(format!("open the bus {}: {}{advice}", path.display(), fault.said))
        })
    }
}

/// What is said of an address that a driver of the kernel has.
const TAKEN: &str = "; a driver of the kernel has this address: read it by iio or hwmon, or unload that driver";

/// Whether a bus said that a driver of the kernel has the address.
pub(crate) fn is_taken(said: &str) -> bool {
    said.ends_with(TAKEN)
}

/// What the kernel said about a transfer.
#[derive(Clone, Debug)]
pub(crate) struct BusFault {
    errno: Option<i32>,
    said: String,
}

impl BusFault {
    fn of(error: &LinuxI2CError) -> BusFault {
        let errno = match error {
            LinuxI2CError::Errno(errno) => Some(*errno),
            LinuxI2CError::Io(e) => e.raw_os_error(),
        };
        let said = match errno {
            Some(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
            None => error.to_string(),
        };
        BusFault { errno, said }
    }

    /// Whether no device answers at the address.
    pub(crate) fn is_nobody(&self) -> bool {
        matches!(self.errno, Some(libc::EREMOTEIO | libc::ENXIO | libc::ENODEV))
    }
}

impl Display for BusFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.errno {
            Some(libc::EREMOTEIO | libc::ENXIO | libc::ENODEV) => {
                "; no device answers at this address: check wires and address, `eden-agent scan` shows who answers"
            }
            Some(libc::ETIMEDOUT | libc::EAGAIN) => {
                "; the bus is held by something: cut the power of its chips for a moment"
            }
            Some(libc::EBUSY) => TAKEN,
            Some(libc::EIO) => "; the bus has a fault: check the wires and that the lines have pull-ups",
            _ => "",
        };
        write!(f, "{}{advice}", self.said)
    }
}

impl i2c::Error for BusFault {
    fn kind(&self) -> ErrorKind {
        match self.errno {
            _ if self.is_nobody() => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown),
            Some(libc::EAGAIN) => ErrorKind::ArbitrationLoss,
            Some(libc::EIO | libc::EINVAL | libc::EBUSY) => ErrorKind::Bus,
            _ => ErrorKind::Other,
        }
    }
}

impl i2c::ErrorType for LinuxBus {
    type Error = BusFault;
}

impl I2c for LinuxBus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), BusFault> {
        I2c::transaction(&mut self.0, address, operations).map_err(|e| BusFault::of(e.inner()))
    }
}

/// A chip on a bus, opened when it is first needed and again after each error: a bus may come and go.
#[derive(Debug)]
pub(crate) struct OnBus<C> {
    path: PathBuf,
    bus: Option<LinuxBus>,
    chip: C,
}

impl<C: Chip> OnBus<C> {
    pub(crate) fn new(path: &Path, chip: C) -> OnBus<C> {
        OnBus { path: path.to_owned(), bus: None, chip }
    }
}

impl<C: Chip> Sensor for OnBus<C> {
    fn measure(&mut self, _time_us: i64) -> Measured {
        let mut bus = match self.bus.take() {
            Some(bus) => bus,
            None => LinuxBus::open(&self.path)?,
        };
        let fields = self.chip.measure(&mut bus, &mut Delay)?;
        self.bus = Some(bus);
        Ok(fields)
    }
}
