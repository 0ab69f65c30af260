//! A bus with simulated chips: it has a clock of its own, which waits move on, and faults.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{Error, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

/// Time on the bus, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Time(Rc<Cell<u64>>);

impl Time {
    pub(crate) fn us(&self) -> u64 {
        self.0.get()
    }
}

impl DelayNs for Time {
    fn delay_ns(&mut self, ns: u32) {
        self.0.set(self.0.get() + u64::from(ns).div_ceil(1_000));
    }
}

/// A chip: what it does with bytes that are written to it, and what it gives.
pub(crate) trait Device {
    /// Bytes written in one go.
    fn write(&mut self, bytes: &[u8], now_us: u64);
    /// Bytes read in one go; false if it does not acknowledge.
    fn read(&mut self, bytes: &mut [u8], now_us: u64) -> bool;
}

/// What is wrong with a bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wrong {
    #[default]
    Nothing,
    /// The n-th transfer is not acknowledged, counted from 0; those after it are.
    NackAt(u32),
    /// All that is read is this.
    Always(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nack;

impl fmt::Display for Nack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody acknowledged")
    }
}

impl Error for Nack {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown)
    }
}

/// One chip at one address.
pub(crate) struct Bus<D> {
    pub(crate) address: u8,
    pub(crate) device: D,
    pub(crate) wrong: Wrong,
    pub(crate) time: Time,
    pub(crate) transfers: u32,
    /// Addresses that were written to.
    pub(crate) written: Vec<u8>,
}

impl<D: Device> Bus<D> {
    pub(crate) fn new(address: u8, device: D) -> Bus<D> {
        Bus { address, device, wrong: Wrong::Nothing, time: Time::default(), transfers: 0, written: Vec::new() }
    }

    pub(crate) fn wrong(mut self, wrong: Wrong) -> Self {
        self.wrong = wrong;
        self
    }
}

impl<D> ErrorType for Bus<D> {
    type Error = Nack;
}

impl<D: Device> I2c for Bus<D> {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Nack> {
        let number = self.transfers;
        self.transfers += 1;
        if self.wrong == Wrong::NackAt(number) || address != self.address {
            return Err(Nack);
        }
        let now_us = self.time.us();
        for operation in operations {
            match operation {
                Operation::Write(bytes) => {
                    self.written.push(address);
                    self.device.write(bytes, now_us);
                }
                Operation::Read(bytes) => {
                    if !self.device.read(bytes, now_us) {
                        return Err(Nack);
                    }
                    if let Wrong::Always(byte) = self.wrong {
                        bytes.fill(byte);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Registers that are read on from a pointer, as most chips have them.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    pub(crate) bytes: [u8; 256],
    pointer: u8,
}

impl Registers {
    pub(crate) fn new() -> Registers {
        Registers { bytes: [0; 256], pointer: 0 }
    }

    pub(crate) fn put(&mut self, at: u8, bytes: &[u8]) {
        self.bytes[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
    }

    /// The register that is written, if one is.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Option<(u8, u8)> {
        let (first, rest) = bytes.split_first()?;
        self.pointer = *first;
        let value = *rest.first()?;
        self.bytes[usize::from(*first)] = value;
        Some((*first, value))
    }

    pub(crate) fn read(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.bytes[usize::from(self.pointer)];
            self.pointer = self.pointer.wrapping_add(1);
        }
    }
}

/// An empty bus.
#[derive(Debug)]
pub(crate) struct Empty;

impl Device for Empty {
    fn write(&mut self, _bytes: &[u8], _now_us: u64) {}

    fn read(&mut self, _bytes: &mut [u8], _now_us: u64) -> bool {
        false
    }
}
