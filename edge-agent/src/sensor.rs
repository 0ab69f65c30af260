//! Sensors: what measures, and what becomes of it before it is a line.
//!
//! Owns:     the trait that drivers implement, the list of drivers, the threads that measure, and how readings are shaped
//!           (offsets, windows, dead bands) and written as line protocol.
//! Does not: batch, keep or send (`agent`, `outbox`).
//!
//! Invariants
//!  1. A sensor that fails, or hangs, holds up none that is on another bus.
//!  2. A value is what the sensor said, in its own steps, or there is an error: never a plausible number from a dead bus.

pub mod bme280;
pub mod bmp180;
mod drivers;
mod fault;
pub(crate) mod i2c;
pub(crate) mod lanes;
pub(crate) mod place;
mod program;
pub(crate) mod shape;
pub mod sht3x;
mod station;
pub(crate) mod sysfs;
mod twins;
mod value;

use std::borrow::Cow;
use std::fmt;

pub(crate) use drivers::driver;
pub use drivers::{DRIVERS, Driver};
pub use fault::{ChipError, SensorError};
pub use program::fields_of;
pub use station::{Reading, Station};
pub(crate) use station::{Series, escape_tag};
pub use value::Value;

/// Fields by name, in the sensor's order.
pub type Fields = Vec<(Cow<'static, str>, Value)>;

/// The fields of a reading, or why there is none.
pub type Measured = Result<Fields, SensorError>;

/// Ends the measurement that runs, if one does.
pub type Interrupt = Box<dyn Fn() + Send + Sync>;

/// Something that measures.
pub trait Sensor: fmt::Debug + Send {
    /// Measures now, `time_us` by the wall clock in microseconds since 1970-01-01 UTC, of which real sensors take no
    /// notice.
    ///
    /// # Errors
    /// If there is no reading to be had now; a later call tries again.
    fn measure(&mut self, time_us: i64) -> Measured;

    /// For how long a measurement may rightly take; zero for what does not wait.
    fn time_max(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    /// What another thread calls to end a measurement that takes long; none if nothing can.
    fn interrupt(&self) -> Option<Interrupt> {
        None
    }
}
