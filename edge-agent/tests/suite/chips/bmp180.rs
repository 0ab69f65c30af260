use edge_agent::sensor::ChipError;
use edge_agent::sensor::bmp180::{ADDRESS, Bmp180, CHIP_ID, Calibration, ConversionEnd, Oversampling};
use edge_agent::{Bmp180Reading, DeciCelsius, Pascal};
use model::{Rng, SplitMix64};

use super::bus::{Bus, Device, Registers, Time, Wrong};

/// The data sheet's example (BST-BMP180-DS000, figure 4).
const EXAMPLE: [u16; 11] = [408, 65_464, 51_153, 32_741, 32_757, 23_153, 6_190, 4, 32_768, 56_825, 2_868];
const UT: u16 = 27_898;
const UP: u32 = 23_843;

fn calibration_bytes(words: [u16; 11]) -> [u8; 22] {
    let mut bytes = [0; 22];
    for (pair, word) in bytes.chunks_exact_mut(2).zip(words) {
        pair.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

fn example() -> Calibration {
    Calibration::from_registers(&calibration_bytes(EXAMPLE)).unwrap()
}

/// A chip that takes its time, and holds the last result until the next is there.
pub(super) struct Chip {
    registers: Registers,
    ut: u16,
    /// By `oss`, 0 to 3.
    up: u32,
    /// When the conversion ends, and what it gives.
    running: Option<(u64, [u8; 3])>,
    /// The bit is never cleared.
    sticks: bool,
    conversions: Vec<u8>,
}

impl Chip {
    pub(super) fn new(calibration: [u16; 11], ut: u16, up: u32) -> Chip {
        let mut registers = Registers::new();
        registers.put(0xD0, &[CHIP_ID]);
        registers.put(0xAA, &calibration_bytes(calibration));
        // What the chip holds after power-on.
        registers.put(0xF6, &[0x80, 0, 0]);
        Chip { registers, ut, up, running: None, sticks: false, conversions: Vec::new() }
    }

    fn settle(&mut self, now_us: u64) {
        if let Some((until, result)) = self.running
            && now_us >= until
        {
            self.registers.put(0xF6, &result);
            if !self.sticks {
                self.registers.bytes[0xF4] &= !0x20;
            }
            self.running = None;
        }
    }
}

impl Device for Chip {
    fn write(&mut self, bytes: &[u8], now_us: u64) {
        self.settle(now_us);
        if let Some((0xF4, command)) = self.registers.write(bytes) {
            self.conversions.push(command);
            let oss = command >> 6;
            self.running = match command & 0x1F {
                0x0E => {
                    let [msb, lsb] = self.ut.to_be_bytes();
                    Some((now_us + 4_500, [msb, lsb, 0]))
                }
                0x14 => {
                    let time_us = [4_500, 7_500, 13_500, 25_500][usize::from(oss)];
                    let [_, msb, lsb, xlsb] = (self.up << (8 - oss)).to_be_bytes();
                    Some((now_us + time_us, [msb, lsb, xlsb]))
                }
                other => panic!("the chip has no command {other:#04x}"),
            };
        }
    }

    fn read(&mut self, bytes: &mut [u8], now_us: u64) -> bool {
        self.settle(now_us);
        self.registers.read(bytes);
        true
    }
}

fn read(bus: &mut Bus<Chip>, driver: &mut Bmp180) -> Result<Bmp180Reading, ChipError> {
    let mut time: Time = bus.time.clone();
    driver.read(bus, &mut time)
}

fn bus() -> Bus<Chip> {
    Bus::new(ADDRESS, Chip::new(EXAMPLE, UT, UP))
}

fn driver(oversampling: Oversampling) -> Bmp180 {
    Bmp180::new(ADDRESS, oversampling, ConversionEnd::Register)
}

#[test]
fn the_data_sheets_example_comes_out() {
    let right = Bmp180Reading { temperature: DeciCelsius(150), pressure: Pascal(69_964) };
    assert_eq!(example().compensate(UT, UP, Oversampling::One), Ok(right));
    let mut bus = bus();
    let mut driver = driver(Oversampling::One);
    assert_eq!(read(&mut bus, &mut driver), Ok(right));
    let transfers = bus.transfers;
    assert_eq!(read(&mut bus, &mut driver), Ok(right), "again");
    assert_eq!(bus.transfers - transfers, transfers - 2, "identity and calibration are read once");
}

#[test]
fn each_mode_waits_as_long_as_the_data_sheet_says_and_gives_the_same_pressure() {
    for mode in Oversampling::ALL {
        let mut bus = bus();
        bus.device.up = UP << mode.oss();
        let reading = read(&mut bus, &mut driver(mode)).unwrap();
        assert_eq!(reading.temperature, DeciCelsius(150));
        // Where the steps are cut differs by mode.
        assert!(reading.pressure.0.abs_diff(69_964) <= 4, "{mode:?} {reading:?}");
        assert_eq!(bus.time.us(), 4_500 + u64::from(mode.conversion_time_us()), "{mode:?}");
        assert_eq!(bus.device.conversions, [0x2E, 0x34 | (mode.oss() << 6)]);
    }
}

/// The data sheet's steps once more, in 128 bits, with floors written as such; `None` where they divide by zero.
fn reference(words: [u16; 11], ut: u16, up: u32, oss: u8) -> Option<(i128, i128)> {
    let signed = |at: usize| i128::from(words[at].cast_signed());
    let unsigned = |at: usize| i128::from(words[at]);
    let floor = |a: i128, b: i128| {
        let quotient = a / b;
        if a % b != 0 && (a % b < 0) != (b < 0) { quotient - 1 } else { quotient }
    };
    let power = |n: u32| 2_i128.pow(n);
    let (ac1, ac2, ac3) = (signed(0), signed(1), signed(2));
    let (ac4, ac5, ac6) = (unsigned(3), unsigned(4), unsigned(5));
    let (b1, b2, mc, md) = (signed(6), signed(7), signed(9), signed(10));
    let x1 = floor((i128::from(ut) - ac6) * ac5, power(15));
    let x2 = if x1 + md == 0 { return None } else { floor(mc * power(11), x1 + md) };
    let b5 = x1 + x2;
    let t = floor(b5 + 8, power(4));
    let b6 = b5 - 4000;
    let x3 = floor(b2 * floor(b6 * b6, power(12)), power(11)) + floor(ac2 * b6, power(11));
    let b3 = floor((ac1 * 4 + x3) * power(oss.into()) + 2, 4);
    let x3 = floor(floor(ac3 * b6, power(13)) + floor(b1 * floor(b6 * b6, power(12)), power(16)) + 2, 4);
    let b4 = floor(ac4 * (x3 + 32_768), power(15));
    if b4 <= 0 {
        return None;
    }
    let b7 = (i128::from(up) - b3) * i128::from(50_000 >> oss);
    let p = if b7 < 0x8000_0000 { floor(b7 * 2, b4) } else { floor(b7, b4) * 2 };
    let x1 = floor(floor(p, 256) * floor(p, 256) * 3038, power(16));
    let x2 = floor(-7357 * p, power(16));
    Some((t, p + floor(x1 + x2 + 3791, power(4))))
}

#[test]
fn half_a_million_random_calibrations_neither_overflow_nor_differ_from_128_bits() {
    let seed = 180;
    println!("seed {seed}");
    let rng = SplitMix64::new(seed);
    let (mut good, mut refused) = (0_u32, 0_u32);
    for round in 0..500_000_u32 {
        // Half of them near the example, so that many results are in the chip's range.
        let word = |at: usize| match round % 2 {
            0 => rng.next_u64() as u16,
            _ => EXAMPLE[at].wrapping_add(rng.below(201) as u16).wrapping_sub(100),
        };
        let words: [u16; 11] = std::array::from_fn(word);
        let Ok(calibration) = Calibration::from_registers(&calibration_bytes(words)) else {
            assert!(words.iter().any(|word| matches!(word, 0 | 0xFFFF)));
            continue;
        };
        let mode = Oversampling::ALL[rng.below(4) as usize];
        let (ut, up) = match round % 4 {
            0 | 1 => (rng.next_u64() as u16, rng.below(1 << (16 + mode.oss())) as u32),
            2 => ([0, u16::MAX][rng.below(2) as usize], [0, (1 << (16 + mode.oss())) - 1][rng.below(2) as usize]),
            _ => (UT + rng.below(9_000) as u16, (UP << mode.oss()) + rng.below(20_000) as u32),
        };
        let expected = reference(words, ut, up, mode.oss());
        match calibration.compensate(ut, up, mode) {
            Ok(reading) => {
                good += 1;
                let found = (i128::from(reading.temperature.0), i128::from(reading.pressure.0));
                assert_eq!(Some(found), expected, "{words:?} {ut} {up} {mode:?}");
            }
            Err(e) => {
                refused += 1;
                let in_range =
                    expected.is_some_and(|(t, p)| (-400..=850).contains(&t) && (30_000..=110_000).contains(&p));
                assert!(!in_range, "{e}: {words:?} {ut} {up} {mode:?} is {expected:?}");
            }
        }
    }
    assert!(good > 50_000 && refused > 100_000, "{good} good, {refused} refused");
}

#[test]
fn each_transfer_may_fail_and_the_next_reading_is_right() {
    let mut counted = bus();
    read(&mut counted, &mut driver(Oversampling::One)).unwrap();
    assert_eq!(counted.transfers, 8);
    for number in 0..counted.transfers {
        let mut bus = bus().wrong(Wrong::NackAt(number));
        let mut driver = driver(Oversampling::One);
        let error = read(&mut bus, &mut driver).unwrap_err();
        let ChipError::Bus { register, address: ADDRESS, .. } = &error else { panic!("{error:?}") };
        assert!(error.to_string().ends_with("nobody acknowledged"), "{error}");
        let (control, out) = ("ctrl_meas (0xf4)", "out_msb (0xf6)");
        let names = ["id (0xd0)", "calibration (0xaa)", control, control, out, control, control, out];
        assert_eq!(*register, names[number as usize]);
        assert_eq!(read(&mut bus, &mut driver).unwrap().pressure, Pascal(69_964), "after {error}");
    }
}

#[test]
fn a_dead_bus_is_no_reading() {
    for byte in [0x00, 0xFF] {
        let error = read(&mut bus().wrong(Wrong::Always(byte)), &mut driver(Oversampling::One)).unwrap_err();
        assert!(error.to_string().ends_with("nothing drives the bus, check the wires"), "{error}");
    }
}

#[test]
fn another_chip_is_named() {
    let mut bus = bus();
    bus.device.registers.put(0xD0, &[0x60]);
    let error = read(&mut bus, &mut driver(Oversampling::One)).unwrap_err().to_string();
    assert_eq!(error, "the chip at 0x77 says 0x60 in id (0xd0) where a BMP180 says 0x55; that is a BME280");
}

#[test]
fn words_of_the_calibration_that_no_chip_has_are_named() {
    for (at, name) in ["AC1", "AC2", "AC3", "AC4", "AC5", "AC6", "B1", "B2", "MB", "MC", "MD"].into_iter().enumerate() {
        for word in [0, 0xFFFF] {
            let mut words = EXAMPLE;
            words[at] = word;
            let mut bus = Bus::new(ADDRESS, Chip::new(words, UT, UP));
            let error = read(&mut bus, &mut driver(Oversampling::One)).unwrap_err();
            assert_eq!(error, ChipError::Calibration { register: name, found: word, chip: "BMP180" });
        }
    }
}

#[test]
fn a_bit_that_is_never_cleared_is_an_error_unless_it_is_not_looked_at() {
    let mut bus = bus();
    bus.device.sticks = true;
    let error = read(&mut bus, &mut driver(Oversampling::One)).unwrap_err();
    assert_eq!(error, ChipError::Stuck { register: "ctrl_meas (0xf4)", waited_ms: 18 });
    let mut by_time = Bmp180::new(ADDRESS, Oversampling::One, ConversionEnd::Time);
    assert_eq!(read(&mut bus, &mut by_time).unwrap().pressure, Pascal(69_964));
}

#[test]
fn a_chip_that_is_slow_is_waited_for() {
    struct Slow(Chip);
    impl Device for Slow {
        fn write(&mut self, bytes: &[u8], now_us: u64) {
            self.0.write(bytes, now_us);
            if let Some((until, _)) = &mut self.0.running {
                *until += 3_000;
            }
        }
        fn read(&mut self, bytes: &mut [u8], now_us: u64) -> bool {
            self.0.read(bytes, now_us)
        }
    }
    let mut bus = Bus::new(ADDRESS, Slow(Chip::new(EXAMPLE, UT, UP)));
    let mut time = bus.time.clone();
    let reading = driver(Oversampling::One).read(&mut bus, &mut time).unwrap();
    assert_eq!((reading.temperature, reading.pressure), (DeciCelsius(150), Pascal(69_964)));
}

#[test]
fn values_beyond_the_chips_range_are_refused() {
    let calibration = example();
    for (ut, up) in [(0, UP), (u16::MAX, UP), (UT, 0), (UT, 65_535)] {
        let error = calibration.compensate(ut, up, Oversampling::One).unwrap_err();
        assert!(matches!(error, ChipError::OutOfRange { .. }), "{ut} {up}: {error}");
    }
}
