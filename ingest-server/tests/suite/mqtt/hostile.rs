//! Bytes that nobody should send (P14).

use decode::mqtt::{self, Version};
use model::{Rng, SplitMix64};

use super::{Setup, publish, statements};

const SEED: u64 = 0x5eed_0004;

/// Streams of packets, most of them good.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus = statements::packets();
    for v5 in [false, true] {
        corpus.push(publish(v5, "eden/v1/c/lp.zst", 1, 7, &zstd::encode_all(&b"m v=1 1\n"[..], 1).unwrap()));
        corpus.push(publish(v5, "eden/v1/c/status", 1, 8, br#"{"online":true}"#));
        corpus.push(publish(v5, "lp/x", 2, 9, "m,t=\"a\\ b v=1i,w=\"text\n\" 1000\n".repeat(40).as_bytes()));
    }
    corpus
}

fn mutate(rng: &SplitMix64, bytes: &mut Vec<u8>) {
    for _ in 0..rng.below(4) {
        let len = bytes.len() as u64;
        if len == 0 {
            return;
        }
        let at = rng.below(len) as usize;
        match rng.below(6) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.next_u64() as u8),
            4 => drop(bytes.remove(at)),
            _ => {
                let end = at + rng.below(len - at as u64) as usize;
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

#[test]
fn no_bytes_make_the_reader_panic_or_read_past_the_end() {
    let rng = SplitMix64::new(SEED);
    let corpus = corpus();
    let mut good = 0;
    for _ in 0..200_000 {
        let mut bytes = corpus[rng.below(corpus.len() as u64) as usize].clone();
        mutate(&rng, &mut bytes);
        for version in [None, Some(Version::V31), Some(Version::V311), Some(Version::V5)] {
            let mut at = 0;
            while let Ok(Some(head)) = mqtt::head(&bytes[at..], 1 << 20, version) {
                let Some(body) = bytes.get(at + head.len..at + head.total()) else { break };
                let is_good = match version {
                    None => mqtt::connect(body).is_ok(),
                    Some(version) => mqtt::packet(&head, body, version).is_ok(),
                };
                good += u64::from(is_good);
                at += head.total();
                if !is_good {
                    break;
                }
            }
        }
    }
    assert!(good > 10_000, "{good}: the corpus is worn out");
}

#[test]
fn hostile_clients_hurt_nobody_else() {
    let setup = Setup::start();
    let mut honest = setup.v5("honest");
    let rng = SplitMix64::new(SEED);
    let corpus = corpus();
    for round in 0..600_u64 {
        let mut raw = setup.dial();
        if rng.below(4) > 0 {
            let version = 3 + rng.below(3);
            let name = if version == 3 { "MQIsdp" } else { "MQTT" };
            let properties = if version == 5 { "{}" } else { "" };
            raw.send(&format!("10 <\"{name}\" 0{version} 02 0000 {properties} \"h\">"));
        }
        for _ in 0..=rng.below(3) {
            let mut bytes = corpus[rng.below(corpus.len() as u64) as usize].clone();
            mutate(&rng, &mut bytes);
            let cut = rng.below(bytes.len() as u64 + 1) as usize;
            raw.send_bytes(&bytes[..cut]);
            raw.send_bytes(&bytes[cut..]);
        }
        drop(raw);
        if round % 50 == 0 {
            honest.publish(1, 1, &format!("honest v={round} {round}000"));
            honest.expect("40 02 00 01");
        }
    }
    // A task that panicked would not have counted its connection out.
    for id in 2..2_000 {
        honest.publish(1, id, "honest v=1 1000");
        let [high, low] = id.to_be_bytes();
        honest.expect(&format!("40 02 {high:02x} {low:02x}"));
        if setup.metric("eden_mqtt_connections") == 1 {
            return;
        }
    }
    panic!("{} connections are left", setup.metric("eden_mqtt_connections"));
}

/// Announced bytes cost nobody anything, and bytes that came keep only other large packets waiting.
#[test]
fn large_packets_that_never_end_keep_nobody_waiting() {
    let setup = Setup::start();
    let mut honest = setup.v311("honest");
    let attackers: Vec<_> = (0..200)
        .map(|number| {
            let mut attacker = setup.v311(&format!("attacker-{number}"));
            // PUBLISH with 1,048,500 bytes to come, and 20 kB of them.
            let mut begun = vec![0x32, 0xb4, 0xff, 0x3f, 0, 4];
            begun.extend_from_slice(b"lp/x");
            begun.resize(20_000, b'a');
            attacker.send_bytes(&begun);
            attacker
        })
        .collect();
    for id in 1..=20 {
        honest.publish(1, id, "honest v=1 1000");
        honest.expect(&format!("40 02 00 {id:02x}"));
    }
    let line = format!("honest text=\"{}\" 1000\n", "x".repeat(200_000));
    honest.publish(1, 21, &line);
    honest.expect("40 02 00 15");
    honest.send("c0 00");
    honest.expect("d0 00");
    assert_eq!(attackers.len(), 200);
}
