//! I²C as Linux gives it, and what drivers of chips on it share.
//!
//! Owns:     opening a bus, holding it for a measurement, the words for what goes wrong on it, registers of a chip.
//! Does not: know any chip.
//!
//! Invariant: agents of one board measure one after the other on a bus. A conversion that another process began meanwhile
//! would give a plausible and wrong value.
//!
//! Meanings of error numbers: the kernel's `Documentation/i2c/fault-codes.rst`.

use std::fmt::{self, Display};
use std::fs::File;
use std::path::{Path, PathBuf};

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{self, ErrorKind, I2c, NoAcknowledgeSource, Operation};
use linux_embedded_hal::i2cdev::linux::LinuxI2CError;
use linux_embedded_hal::{Delay, I2cdev};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

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

/// Longer than any measurement: who holds a bus for as long hangs.
pub(crate) const HOLD_WAIT_MS: u32 = 2_000;
const HOLD_STEP_MS: u32 = 2;

/// The right to a bus, which one process has at a time among those that ask for it.
#[derive(Debug)]
pub(crate) struct Turn {
    path: PathBuf,
    /// Not the file by which the bus is read: that one is opened anew for each address.
    file: File,
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It can only fail for a file that is not open.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

impl Turn {
    pub(crate) fn open(path: &Path) -> Result<Turn, SensorError> {
        let file = File::open(path).map_err(|e| SensorError::file("open", path, &e))?;
        Ok(Turn { path: path.to_owned(), file })
    }

    /// Waits up to `wait_ms` until nobody else has it.
    pub(crate) fn hold(&self, wait_ms: u32) -> Result<Held<'_>, SensorError> {
        let mut waited_ms = 0;
        loop {
            match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Held(&self.file)),
                Err(Errno::WOULDBLOCK) if waited_ms < wait_ms => {
                    Delay.delay_ms(HOLD_STEP_MS);
                    waited_ms += HOLD_STEP_MS;
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(SensorError(format!(
                        "another process has held the bus {} for {wait_ms} ms: `lslocks` says which",
                        self.path.display()
                    )));
                }
                Err(e) => return Err(SensorError::file("lock", &self.path, &e.into())),
            }
        }
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
    bus: Option<(LinuxBus, Turn)>,
    chip: C,
}

impl<C: Chip> OnBus<C> {
    pub(crate) fn new(path: &Path, chip: C) -> OnBus<C> {
        OnBus { path: path.to_owned(), bus: None, chip }
    }
}

impl<C: Chip> Sensor for OnBus<C> {
    fn measure(&mut self, _time_us: i64) -> Measured {
        let (mut bus, turn) = match self.bus.take() {
            Some(opened) => opened,
            None => (LinuxBus::open(&self.path)?, Turn::open(&self.path)?),
        };
        let held = turn.hold(HOLD_WAIT_MS)?;
        let fields = self.chip.measure(&mut bus, &mut Delay)?;
        drop(held);
        self.bus = Some((bus, turn));
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_is_held_by_one_at_a_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [one, other] = [(); 2].map(|()| Turn::open(file.path()).unwrap());
        let held = one.hold(0).unwrap();
        let refused = other.hold(0).unwrap_err().to_string();
        assert!(refused.starts_with("another process has held the bus"), "{refused}");
        drop(held);
        let held = other.hold(0).unwrap();
        assert!(one.hold(0).is_err());
        drop(held);
    }
}
