//! The fleet: devices, their random walks, and the formats their rows are written in.

use std::io::{self, BufWriter, Write};

use crate::Options;

/// Step tables: (change in tenths, weight). The walk reflects at the sensor's limits.
const TEMPERATURE: &[(i32, u32)] = &[(-1, 20), (0, 60), (1, 20)];
const PRESSURE: &[(i32, u32)] = &[(-1, 25), (0, 50), (1, 25)];
const HUMIDITY: &[(i32, u32)] = &[(-2, 10), (-1, 20), (0, 40), (1, 20), (2, 10)];
const LIMITS: [(i32, i32); 3] = [(-200, 600), (9500, 10500), (0, 1000)];
const FIRMWARE: [&str; 5] = ["1.4.2", "1.5.0", "1.5.1", "2.0.0", "2.0.1"];

/// SplitMix64: small, fast and good enough to drive a random walk.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }
}

struct Device {
    rng: Rng,
    phase_ms: u64,
    /// temperature, pressure, humidity in tenths
    v: [i32; 3],
    tags_lp: String,
    tags_csv: String,
    tags_json: String,
}

fn step(rng: &mut Rng, v: &mut i32, table: &[(i32, u32)], (lo, hi): (i32, i32)) {
    let mut r = rng.below(100);
    for &(d, w) in table {
        if r < w {
            let n = *v + d;
            *v = if n < lo || n > hi { *v - d } else { n };
            return;
        }
        r -= w;
    }
}

fn device(i: u64, seed: u64, interval_ms: u64) -> Device {
    let mut rng = Rng(seed ^ (i + 1).wrapping_mul(0xD129_42F0_5F4A_3D1B));
    rng.next();
    let name = format!("dev-{i:04}");
    let site = format!("site-{:02}", i / 50);
    let fw = FIRMWARE[rng.below(5) as usize];
    let v = [150 + rng.below(150) as i32, 9900 + rng.below(300) as i32, 300 + rng.below(400) as i32];
    Device {
        phase_ms: u64::from(rng.below(interval_ms as u32)),
        v,
        tags_lp: format!(",device={name},firmware={fw},site={site} temperature="),
        tags_csv: format!("{name}|{site}|{fw}|"),
        tags_json: format!("\"device\":\"{name}\",\"site\":\"{site}\",\"firmware\":\"{fw}\",\"temperature\":"),
        rng,
    }
}

fn put_int(out: &mut Vec<u8>, mut n: u64) {
    let mut b = [0u8; 20];
    let mut i = 20;
    loop {
        i -= 1;
        b[i] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&b[i..]);
}

fn put_tenths(out: &mut Vec<u8>, t: i32) {
    if t < 0 {
        out.push(b'-');
    }
    let a = u64::from(t.unsigned_abs());
    put_int(out, a / 10);
    out.push(b'.');
    out.push(b'0' + (a % 10) as u8);
}

/// Days since 1970-01-01 to (year, month, day).
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let m = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

fn put_time(out: &mut Vec<u8>, ms: u64, precision: &str) {
    match precision {
        "ns" => {
            put_int(out, ms);
            out.extend_from_slice(b"000000");
        }
        "us" => {
            put_int(out, ms);
            out.extend_from_slice(b"000");
        }
        "s" => put_int(out, ms / 1000),
        "iso" => {
            let (y, mo, d) = civil((ms / 86_400_000) as i64);
            let s = ms / 1000 % 86_400;
            let text =
                format!("{y:04}-{mo:02}-{d:02}T{:02}:{:02}:{:02}.{:03}Z", s / 3600, s / 60 % 60, s % 60, ms % 1000);
            out.extend_from_slice(text.as_bytes());
        }
        _ => put_int(out, ms),
    }
}

pub(crate) fn run(o: &Options) -> io::Result<()> {
    let format = o.text("format", "lp").to_string();
    let precision = o.text("precision", if format == "lp" { "ns" } else { "ms" }).to_string();
    let measurement = o.text("measurement", "env").to_string();
    let (devices, rows) = (o.number("devices", 1000)?, o.number("rows", 10_000_000)?);
    let (interval, start) = (o.number("interval-ms", 10_000)?, o.number("start-ms", 1_780_272_000_000)?);
    let (seed, jitter) = (o.number("seed", 42)?, o.number("jitter-ms", 0)?);
    let mut fleet: Vec<Device> = (0..devices).map(|i| device(i, seed, interval)).collect();
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let sep = if format == "tsv" { b'\t' } else { b',' };
    if o.text("header", "") == "true" {
        writeln!(out, "ts,device,site,firmware,temperature,pressure,humidity")?;
    }
    let mut line = Vec::with_capacity(256);
    let mut written = 0u64;
    let mut tick = 0u64;
    while written < rows {
        for d in &mut fleet {
            if written == rows {
                break;
            }
            step(&mut d.rng, &mut d.v[0], TEMPERATURE, LIMITS[0]);
            step(&mut d.rng, &mut d.v[1], PRESSURE, LIMITS[1]);
            step(&mut d.rng, &mut d.v[2], HUMIDITY, LIMITS[2]);
            let mut t = start + tick * interval + d.phase_ms;
            if jitter > 0 {
                t += u64::from(d.rng.below(jitter as u32));
            }
            line.clear();
            match format.as_str() {
                "lp" => {
                    line.extend_from_slice(measurement.as_bytes());
                    line.extend_from_slice(d.tags_lp.as_bytes());
                    put_tenths(&mut line, d.v[0]);
                    line.extend_from_slice(b",pressure=");
                    put_tenths(&mut line, d.v[1]);
                    line.extend_from_slice(b",humidity=");
                    put_tenths(&mut line, d.v[2]);
                    line.push(b' ');
                    put_time(&mut line, t, &precision);
                }
                "jsonl" => {
                    line.extend_from_slice(b"{\"ts\":");
                    if precision == "iso" {
                        line.push(b'"');
                    }
                    put_time(&mut line, t, &precision);
                    if precision == "iso" {
                        line.push(b'"');
                    }
                    line.push(b',');
                    line.extend_from_slice(d.tags_json.as_bytes());
                    put_tenths(&mut line, d.v[0]);
                    line.extend_from_slice(b",\"pressure\":");
                    put_tenths(&mut line, d.v[1]);
                    line.extend_from_slice(b",\"humidity\":");
                    put_tenths(&mut line, d.v[2]);
                    line.push(b'}');
                }
                _ => {
                    put_time(&mut line, t, &precision);
                    line.push(sep);
                    line.extend(d.tags_csv.bytes().map(|b| if b == b'|' { sep } else { b }));
                    put_tenths(&mut line, d.v[0]);
                    line.push(sep);
                    put_tenths(&mut line, d.v[1]);
                    line.push(sep);
                    put_tenths(&mut line, d.v[2]);
                }
            }
            line.push(b'\n');
            out.write_all(&line)?;
            written += 1;
        }
        tick += 1;
    }
    out.flush()
}

/// The walk's own entropy: no lossless coder can use fewer bits a value than this on average.
pub(crate) fn print_entropy() {
    let mut sum = 0.0;
    for (name, t) in [("temperature", TEMPERATURE), ("pressure", PRESSURE), ("humidity", HUMIDITY)] {
        let h: f64 = t.iter().map(|&(_, w)| f64::from(w) / 100.0).map(|p| -p * p.log2()).sum();
        println!("{name}: {h:.4} bits a value");
        sum += h;
    }
    println!("mean: {:.4} bits = {:.4} bytes a value", sum / 3.0, sum / 24.0);
}
