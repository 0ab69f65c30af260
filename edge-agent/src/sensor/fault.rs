//! Why a sensor gave no reading, in words that say what to do.

use std::io;

/// Why a sensor gave no reading: where, the cause, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SensorError(pub String);

impl SensorError {
    /// Something that the system said about a file.
    pub(crate) fn file(action: &str, path: &std::path::Path, error: &io::Error) -> SensorError {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "; there is no such file: `eden-agent scan` shows what there is",
            io::ErrorKind::PermissionDenied => "; the agent's user may not do that",
            _ => "",
        };
        SensorError(format!("{action} {}: {error}{advice}", path.display()))
    }
}

/// Why a chip on a bus gave no reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChipError {
    /// A transfer failed.
    #[error("{action} {register} of the chip at {address:#04x}: {fault}")]
    Bus {
        /// What was being done: `read` or `write`.
        action: &'static str,
        /// The register or command, as the data sheet names it.
        register: &'static str,
        /// The chip's address on the bus.
        address: u8,
        /// What the bus said.
        fault: String,
    },
    /// Something else answers at this address.
    #[error("the chip at {address:#04x} says {found:#04x} in {register} where a {wanted} says {id:#04x}{hint}")]
    OtherChip {
        /// The register that tells chips apart.
        register: &'static str,
        /// The chip's address on the bus.
        address: u8,
        /// What it holds.
        found: u8,
        /// The chip that was asked for.
        wanted: &'static str,
        /// What that chip's register holds.
        id: u8,
        /// What it may be instead, with a semicolon before it.
        hint: &'static str,
    },
    /// A word of the calibration is what no chip has.
    #[error(
        "the calibration word {register} is {found:#06x}, which no {chip} has: the bus or the chip is broken; check the wires"
    )]
    Calibration {
        /// The word.
        register: &'static str,
        /// What it holds.
        found: u16,
        /// The chip.
        chip: &'static str,
    },
    /// A conversion did not end.
    #[error(
        "the conversion is not over after {waited_ms} ms ({register} says so): the chip hangs; cut its power for a moment"
    )]
    Stuck {
        /// The register that says so.
        register: &'static str,
        /// How long it was waited for.
        waited_ms: u32,
    },
    /// What was read lies outside of what the chip can measure.
    #[error("{field} is {found}, outside of what the chip can measure ({range}): it was read wrongly")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The value.
        found: String,
        /// What it can be.
        range: &'static str,
    },
    /// The checksum of what was read is wrong.
    #[error("{register} came with a wrong checksum: the wires are long or loose, or the bus is too fast")]
    Checksum {
        /// What was read.
        register: &'static str,
    },
}

impl From<ChipError> for SensorError {
    fn from(error: ChipError) -> Self {
        SensorError(error.to_string())
    }
}
