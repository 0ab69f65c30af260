use edge_agent::sensor::ChipError;
use edge_agent::sensor::bme280::{Bme280, Calibration, Kind, Oversampling, Reading};
use model::{Rng, SplitMix64};

use super::bus::{Bus, Device, Registers, Wrong};

const ADDRESS: u8 = 0x76;
/// The data sheet's example (BST-BMP280-DS001, section 3.12), with words for humidity as chips have them.
const EXAMPLE: Calibration = Calibration {
    t1: 27_504,
    t: [26_435, -1_000],
    p1: 36_477,
    p: [-10_685, 3_024, 2_855, 140, -7, 15_500, -14_600, 6_000],
    h1: 75,
    h2: 375,
    h3: 0,
    h4: 288,
    h5: 50,
    h6: 30,
};
const ADC_T: u32 = 519_888;
const ADC_P: u32 = 415_148;
const ADC_H: u32 = 26_000;

fn registers_of(calibration: &Calibration) -> ([u8; 26], [u8; 7]) {
    let Calibration { t1, t, p1, p, h1, h2, h3, h4, h5, h6 } = *calibration;
    let words = [t1, t[0] as u16, t[1] as u16, p1].into_iter().chain(p.map(|word| word as u16));
    let mut first = [0; 26];
    for (pair, word) in first.chunks_exact_mut(2).zip(words) {
        pair.copy_from_slice(&word.to_le_bytes());
    }
    first[25] = h1;
    let [h2_low, h2_high] = h2.to_le_bytes();
    let shared = (h4 & 0x0F) as u8 | ((h5 & 0x0F) << 4) as u8;
    (first, [h2_low, h2_high, h3, (h4 >> 4) as u8, shared, (h5 >> 4) as u8, h6 as u8])
}

/// A chip that measures when it is told to, and takes its time.
struct Chip {
    registers: Registers,
    until_us: Option<u64>,
    /// For the copy of the calibration after power-on.
    ready_us: u64,
    sticks: bool,
    /// Was told to skip humidity, as after power-on.
    osrs_h: u8,
    /// What it measures: pressure, temperature, humidity; none if it was reset.
    measures: Option<(u32, u32, u32)>,
}

impl Chip {
    fn new(id: u8) -> Chip {
        let mut registers = Registers::new();
        let (first, second) = registers_of(&EXAMPLE);
        registers.put(0xD0, &[id]);
        registers.put(0x88, &first);
        registers.put(0xE1, &second);
        registers.put(0xF7, &[0x80, 0, 0, 0x80, 0, 0, 0x80, 0]);
        Chip {
            registers,
            until_us: None,
            ready_us: 1_500,
            sticks: false,
            osrs_h: 0,
            measures: Some((ADC_P, ADC_T, ADC_H)),
        }
    }
}

impl Device for Chip {
    fn write(&mut self, bytes: &[u8], now_us: u64) {
        match self.registers.write(bytes) {
            Some((0xF2, value)) => self.osrs_h = value & 0x07,
            Some((0xF4, value)) if value & 0x03 != 0 => {
                // The data sheet's longest times (appendix B).
                let samples = |osrs: u8| if osrs == 0 { 0 } else { 1 << (osrs - 1) };
                let mut time_us = 1_250 + 2_300 * samples(value >> 5) + 2_300 * samples(value >> 2 & 0x07) + 575;
                if self.osrs_h != 0 {
                    time_us += 2_300 * samples(self.osrs_h) + 575;
                }
                self.until_us = Some(now_us + time_us);
            }
            _ => {}
        }
    }

    fn read(&mut self, bytes: &mut [u8], now_us: u64) -> bool {
        if self.until_us.take_if(|until| now_us >= *until).is_some()
            && let Some((adc_p, adc_t, adc_h)) = self.measures
        {
            let [_, p1, p2, p3] = (adc_p << 4).to_be_bytes();
            let [_, t1, t2, t3] = (adc_t << 4).to_be_bytes();
            let [_, _, h1, h2] = adc_h.to_be_bytes();
            let (h1, h2) = if self.osrs_h == 0 { (0x80, 0) } else { (h1, h2) };
            self.registers.put(0xF7, &[p1, p2, p3, t1, t2, t3, h1, h2]);
        }
        let measuring = if self.until_us.is_some() || self.sticks { 0x08 } else { 0 };
        let copying = u8::from(now_us < self.ready_us);
        self.registers.bytes[0xF3] = measuring | copying;
        self.registers.read(bytes);
        true
    }
}

fn read(bus: &mut Bus<Chip>, driver: &mut Bme280) -> Result<Reading, ChipError> {
    let mut time = bus.time.clone();
    driver.read(bus, &mut time)
}

fn driver(kind: Kind) -> Bme280 {
    Bme280::new(kind, ADDRESS, Oversampling::of(1).unwrap())
}

#[test]
fn the_data_sheets_example_comes_out() {
    // 25.08 °C, and 100653.27 Pa in floating point, of which the 64 bits are a fiftieth off.
    let right = Reading { centi_celsius: 2_508, pa_256: 25_767_233, percent_1024: None };
    let (celsius, pa, _) = reference(&EXAMPLE, ADC_T, ADC_P, ADC_H);
    assert!((celsius - 25.08).abs() < 0.01 && (pa - 100_653.27).abs() < 0.01, "{celsius} {pa}");
    assert_eq!(EXAMPLE.compensate(ADC_T, ADC_P, None), Ok(right));
    let mut bus = Bus::new(ADDRESS, Chip::new(0x58));
    assert_eq!(read(&mut bus, &mut driver(Kind::Bmp280)), Ok(right));
}

#[test]
fn a_bme280_gives_humidity_too() {
    let mut bus = Bus::new(ADDRESS, Chip::new(0x60));
    for samples in [1, 2, 4, 8, 16] {
        let mut driver = Bme280::new(Kind::Bme280, ADDRESS, Oversampling::of(samples).unwrap());
        let reading = read(&mut bus, &mut driver).unwrap();
        let percent = f64::from(reading.percent_1024.unwrap()) / 1_024.0;
        let (_, _, right) = reference(&EXAMPLE, ADC_T, ADC_P, ADC_H);
        assert!((percent - right).abs() < 0.05, "{percent} {right}");
        assert_eq!(reading.centi_celsius, 2_508);
    }
    assert_eq!(Oversampling::of(3), None);
    assert_eq!(Oversampling::of(32), None);
}

#[test]
fn what_a_reset_leaves_is_no_reading_and_the_same_number_measured_is_one() {
    for (kind, id) in [(Kind::Bmp280, 0x58), (Kind::Bme280, 0x60)] {
        for measures in [(0x8_0000, ADC_T, ADC_H), (ADC_P, 0x8_0000, ADC_H), (ADC_P, ADC_T, 0x8000)] {
            let mut bus = Bus::new(ADDRESS, Chip::new(id));
            bus.device.measures = Some(measures);
            read(&mut bus, &mut driver(kind)).unwrap();
        }
        let mut bus = Bus::new(ADDRESS, Chip::new(id));
        bus.device.measures = None;
        let error = read(&mut bus, &mut driver(kind)).unwrap_err().to_string();
        assert!(error.contains("no conversion took place"), "{error}");
    }
}

/// The data sheet's other way, in floating point (BST-BME280-DS002, section 8.1): °C, Pa, %.
fn reference(calibration: &Calibration, adc_t: u32, adc_p: u32, adc_h: u32) -> (f64, f64, f64) {
    let Calibration { t1, t, p1, p, h1, h2, h3, h4, h5, h6 } = *calibration;
    let (adc_t, adc_p, adc_h) = (f64::from(adc_t), f64::from(adc_p), f64::from(adc_h));
    let (t1, [t2, t3]) = (f64::from(t1), t.map(f64::from));
    let near = adc_t / 131_072.0 - t1 / 8_192.0;
    let t_fine = (adc_t / 16_384.0 - t1 / 1_024.0) * t2 + near * near * t3;
    let [p2, p3, p4, p5, p6, p7, p8, p9] = p.map(f64::from);
    let x = t_fine / 2.0 - 64_000.0;
    let y = (x * x * p6 / 32_768.0 + x * p5 * 2.0) / 4.0 + p4 * 65_536.0;
    let x = (p3 * x * x / 524_288.0 + p2 * x) / 524_288.0;
    let x = (1.0 + x / 32_768.0) * f64::from(p1);
    let pa = (1_048_576.0 - adc_p - y / 4_096.0) * 6_250.0 / x;
    let pa = pa + (p9 * pa * pa / 2_147_483_648.0 + pa * p8 / 32_768.0 + p7) / 16.0;
    let (h1, h2, h3) = (f64::from(h1), f64::from(h2), f64::from(h3));
    let (h4, h5, h6) = (f64::from(h4), f64::from(h5), f64::from(h6));
    let h = t_fine - 76_800.0;
    let h = (adc_h - (h4 * 64.0 + h5 / 16_384.0 * h))
        * (h2 / 65_536.0 * (1.0 + h6 / 67_108_864.0 * h * (1.0 + h3 / 67_108_864.0 * h)));
    let percent = h * (1.0 - h1 * h / 524_288.0);
    (t_fine / 5_120.0, pa, percent.clamp(0.0, 100.0))
}

#[test]
fn half_a_million_random_calibrations_do_not_overflow_and_those_in_range_are_right() {
    let seed = 280;
    println!("seed {seed}");
    let rng = SplitMix64::new(seed);
    let mut good = 0_u32;
    for round in 0..500_000_u32 {
        let is_near = round % 2 == 1;
        let mut word = |example: i16| {
            if is_near { example.wrapping_add(rng.below(201) as i16 - 100) } else { rng.next_u64() as i16 }
        };
        let calibration = Calibration {
            t1: word(EXAMPLE.t1 as i16) as u16,
            t: EXAMPLE.t.map(&mut word),
            p1: word(EXAMPLE.p1 as i16) as u16,
            p: EXAMPLE.p.map(&mut word),
            h1: word(75) as u8,
            h2: word(375),
            h3: word(0) as u8,
            h4: word(288) << 4 >> 4,
            h5: word(50) << 4 >> 4,
            h6: word(30) as i8,
        };
        let (first, second) = registers_of(&calibration);
        match Calibration::from_registers(&first, Some(&second), Kind::Bme280) {
            Ok(read) => assert_eq!(read, calibration),
            Err(e) => {
                assert!(matches!(e, ChipError::Calibration { .. }));
                continue;
            }
        }
        let (adc_t, adc_p) = match round % 4 {
            0 | 1 => (rng.below(1 << 20) as u32, rng.below(1 << 20) as u32),
            2 => ([0, (1 << 20) - 1][rng.below(2) as usize], [0, (1 << 20) - 1][rng.below(2) as usize]),
            _ => (ADC_T + rng.below(50_000) as u32, ADC_P + rng.below(50_000) as u32),
        };
        let adc_h = rng.below(1 << 16) as u32;
        let Ok(reading) = calibration.compensate(adc_t, adc_p, Some(adc_h)) else { continue };
        let (celsius, pa, _) = reference(&calibration, adc_t, adc_p, adc_h);
        assert!((f64::from(reading.centi_celsius) / 100.0 - celsius).abs() < 0.05, "{calibration:?} {adc_t}");
        if is_near {
            good += 1;
            let found = f64::from(reading.pa_256) / 256.0;
            assert!((found - pa).abs() < 10.0, "{calibration:?} {adc_t} {adc_p}: {found} {pa}");
        }
        assert!(reading.percent_1024.unwrap() <= 100 * 1_024);
    }
    assert!(good > 50_000, "{good}");
}

#[test]
fn each_transfer_may_fail_and_the_next_reading_is_right() {
    let mut counted = Bus::new(ADDRESS, Chip::new(0x60));
    read(&mut counted, &mut driver(Kind::Bme280)).unwrap();
    for number in 0..counted.transfers {
        let mut bus = Bus::new(ADDRESS, Chip::new(0x60)).wrong(Wrong::NackAt(number));
        let mut driver = driver(Kind::Bme280);
        let error = read(&mut bus, &mut driver).unwrap_err();
        assert!(matches!(error, ChipError::Bus { address: ADDRESS, .. }), "{error}");
        assert_eq!(read(&mut bus, &mut driver).unwrap().centi_celsius, 2_508, "after {error}");
    }
}

#[test]
fn a_chip_that_is_dead_hung_or_another_is_no_reading() {
    for byte in [0x00, 0xFF] {
        let mut bus = Bus::new(ADDRESS, Chip::new(0x60)).wrong(Wrong::Always(byte));
        assert!(matches!(read(&mut bus, &mut driver(Kind::Bme280)), Err(ChipError::OtherChip { .. })));
    }
    let mut bus = Bus::new(ADDRESS, Chip::new(0x58));
    let error = read(&mut bus, &mut driver(Kind::Bme280)).unwrap_err().to_string();
    assert_eq!(error, "the chip at 0x76 says 0x58 in id (0xd0) where a BME280 says 0x60; that is a BMP280");
    let mut bus = Bus::new(ADDRESS, Chip::new(0x60));
    bus.device.sticks = true;
    let error = read(&mut bus, &mut driver(Kind::Bme280)).unwrap_err();
    assert!(matches!(error, ChipError::Stuck { register: "status (0xf3)", .. }), "{error}");
    let mut bus = Bus::new(ADDRESS, Chip::new(0x60));
    bus.device.registers.put(0x88, &[0, 0]);
    let error = read(&mut bus, &mut driver(Kind::Bme280)).unwrap_err();
    assert_eq!(error, ChipError::Calibration { register: "dig_T1", found: 0, chip: "BME280" });
}
