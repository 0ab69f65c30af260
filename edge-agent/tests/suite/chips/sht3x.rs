use edge_agent::sensor::ChipError;
use edge_agent::sensor::sht3x::{ADDRESS, Reading, Repeatability, Sht3x};

use super::bus::{Bus, Device, Wrong};

/// A chip that answers to no read before its conversion is over.
struct Chip {
    until_us: Option<u64>,
    words: [u8; 6],
}

impl Device for Chip {
    fn write(&mut self, bytes: &[u8], now_us: u64) {
        // The data sheet's longest times (table 4).
        let time_us = match bytes {
            [0x24, 0x00] => 15_500,
            [0x24, 0x0B] => 6_500,
            [0x24, 0x16] => 4_500,
            other => panic!("not a single shot without clock stretching: {other:02x?}"),
        };
        self.until_us = Some(now_us + time_us);
    }

    fn read(&mut self, bytes: &mut [u8], now_us: u64) -> bool {
        let is_there = self.until_us.is_some_and(|until| now_us >= until);
        if is_there {
            bytes.copy_from_slice(&self.words);
        }
        is_there
    }
}

fn bus() -> Bus<Chip> {
    // 0x6666 and 0x8000 with their checksums.
    Bus::new(ADDRESS, Chip { until_us: None, words: [0x66, 0x66, 0x93, 0x80, 0x00, 0xA2] })
}

fn read(bus: &mut Bus<Chip>, repeatability: Repeatability) -> Result<Reading, ChipError> {
    let mut time = bus.time.clone();
    Sht3x::new(ADDRESS, repeatability).read(bus, &mut time)
}

#[test]
fn each_repeatability_is_waited_for() {
    for repeatability in [Repeatability::Low, Repeatability::Medium, Repeatability::High] {
        assert_eq!(read(&mut bus(), repeatability), Ok(Reading { centi_celsius: 2_500, centi_percent: 5_000 }));
    }
}

#[test]
fn faults_are_named() {
    let error = |wrong| read(&mut bus().wrong(wrong), Repeatability::High).unwrap_err().to_string();
    assert!(error(Wrong::NackAt(0)).starts_with("write single shot, high (0x2400) of the chip at 0x44"));
    assert!(error(Wrong::NackAt(1)).starts_with("read the measured words of the chip at 0x44"));
    assert!(error(Wrong::Always(0)).contains("wrong checksum"));
    assert!(error(Wrong::Always(0xFF)).contains("wrong checksum"));
}
