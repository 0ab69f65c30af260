use edge_agent::scan::{Answer, ask};

use super::bus::{Bus, Device, Empty, Registers};

struct Bosch(Registers);

impl Device for Bosch {
    fn write(&mut self, bytes: &[u8], _now_us: u64) {
        self.0.write(bytes);
    }

    fn read(&mut self, bytes: &mut [u8], _now_us: u64) -> bool {
        self.0.read(bytes);
        true
    }
}

/// Answers to a read alone, like an expander of ports: a byte written to it would switch its outputs.
struct Expander;

impl Device for Expander {
    fn write(&mut self, bytes: &[u8], _now_us: u64) {
        panic!("{bytes:02x?} was written to a chip that nobody knows");
    }

    fn read(&mut self, bytes: &mut [u8], _now_us: u64) -> bool {
        bytes.fill(0xFF);
        true
    }
}

/// Answers to its status only.
struct Sht(bool);

impl Device for Sht {
    fn write(&mut self, bytes: &[u8], _now_us: u64) {
        self.0 = bytes == [0xF3, 0x2D];
    }

    fn read(&mut self, bytes: &mut [u8], _now_us: u64) -> bool {
        // The status after power-on, with its checksum.
        bytes.copy_from_slice(&[0x80, 0x10, 0xE1][..bytes.len()]);
        self.0
    }
}

#[test]
fn chips_are_known_by_what_they_say() {
    for (id, answer) in [
        (0x55, Answer::Chip("bmp180")),
        (0x58, Answer::Chip("bmp280")),
        (0x60, Answer::Chip("bme280")),
        (0x61, Answer::Other("a chip without a driver; register 0xd0 holds 0x61".to_owned())),
    ] {
        let mut registers = Registers::new();
        registers.put(0xD0, &[id]);
        assert_eq!(ask(&mut Bus::new(0x76, Bosch(registers)), 0x76), Ok(answer));
    }
    assert_eq!(ask(&mut Bus::new(0x45, Sht(false)), 0x45), Ok(Answer::Chip("sht3x")));
    assert_eq!(ask(&mut Bus::new(0x44, Empty), 0x44), Ok(Answer::Nobody));
}

#[test]
fn nothing_is_written_where_no_known_chip_can_be() {
    for address in (0x08..=0x77).filter(|address| ![0x44, 0x45, 0x76, 0x77].contains(address)) {
        let mut bus = Bus::new(address, Expander);
        assert_eq!(ask(&mut bus, address), Ok(Answer::Other("a chip without a driver".to_owned())));
        assert!(bus.written.is_empty());
        assert_eq!(ask(&mut Bus::new(0x00, Empty), address), Ok(Answer::Nobody));
    }
}
