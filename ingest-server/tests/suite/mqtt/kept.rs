//! What is kept of sessions, on a disk that loses power (P1).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use decode::mqtt::{Publish, Retained, Wanted};
use faults::SimDisk;
use ingest_server::mqtt::links::Link;
use ingest_server::mqtt::sessions::{Forwarded, Sessions};
use model::{Clock, NodeEpoch, NodeId, Rng, SplitMix64};
use wal::disk::SharedDisk;

use super::ShiftedClock;

const TOPIC: &str = "eden/v1/pi/cmd/x";

fn open(disk: &SimDisk, epoch: u64) -> Arc<Sessions> {
    let disk: SharedDisk = Arc::new(disk.clone());
    let life = (NodeId(7), NodeEpoch(epoch));
    let clock = ShiftedClock::new() as Arc<dyn Clock>;
    Sessions::open(disk, Path::new("/data"), life, clock, 8 << 20, Duration::from_secs(3_600)).unwrap()
}

fn publish(payload: &[u8], retain: bool) -> Publish<'_> {
    Publish { dup: false, qos: 1, retain, topic: TOPIC, id: 1, properties: b"", expiry: None, alias: None, payload }
}

/// A payload that begins with its number.
fn payload(number: u64, bytes: u64) -> Vec<u8> {
    let mut payload = format!("{number} ").into_bytes();
    payload.resize(payload.len() + bytes as usize, b'.');
    payload
}

fn number(payload: &[u8]) -> u64 {
    let text = str::from_utf8(payload).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// What a client is sent, as numbers, in order.
fn drain(sessions: &Arc<Sessions>, client: &Arc<str>, link: &Arc<Link>) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(next) = sessions.next(client, link, u16::MAX) {
        found.push(number(&next.order.payload));
        sessions.done(client, link, next.id);
    }
    found
}

/// `lives` lives, each ended by a power cut at a random operation of the disk.
async fn lives(seed: u64) {
    let rng = SplitMix64::new(seed);
    let mut disk = SimDisk::new();
    disk.create_data();
    let client: Arc<str> = "pi".into();
    let (mut subscribed, mut next_number) = (false, 0_u64);
    // Acknowledged and not taken by the client; may be there; and of the retained one: the last that was
    // acknowledged, and those after it.
    let (mut acknowledged, mut possible): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    let mut retained: Vec<Option<u64>> = vec![None];
    for life in 1..=4_u64 {
        let sessions = open(&disk, life);
        let mut link = Arc::new(Link::default());
        let began = sessions.begin(&client, &link, false, 3_000);
        assert!(began.is_present || !subscribed, "seed {seed}: the session is gone");
        disk.cut_after(1 + rng.below(120));
        let mut is_well = match began.durable {
            Some(durable) => durable.await.is_ok(),
            None => true,
        };
        if is_well && life > 1 {
            let found = drain(&sessions, &client, &link);
            let missing: Vec<_> = acknowledged.iter().filter(|number| !found.contains(number)).collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?} were acknowledged, and {found:?} came");
            assert!(found.iter().all(|number| possible.contains(number)), "seed {seed}: {found:?}, of {possible:?}");
            assert!(found.is_sorted(), "seed {seed}: {found:?}");
            acknowledged.clear();
        }
        let filter = "eden/v1/pi/cmd/#";
        let how = if rng.below(2) == 0 { Retained::Always } else { Retained::Never };
        let wanted = Wanted { filter, qos: 1, no_local: false, retain_as_published: true, retained: how };
        if is_well {
            assert!(sessions.subscribe(&client, &link, &wanted, 1));
            is_well = sessions.note(&client, &link).unwrap().await.is_ok();
            subscribed |= is_well;
            if how == Retained::Always {
                let next = sessions.next(&client, &link, u16::MAX);
                let found = next.as_ref().map(|next| number(&next.order.payload));
                assert!(retained.contains(&found), "seed {seed}: {found:?} is retained, not one of {retained:?}");
                retained = vec![found];
                next.iter().for_each(|next| sessions.done(&client, &link, next.id));
            }
        }
        let mut is_away = false;
        for _ in 0..rng.below(150) {
            if !is_well || !disk.is_on() {
                break;
            }
            match rng.below(10) {
                0..=5 => {
                    next_number += 1;
                    let is_retained = rng.below(4) == 0;
                    possible.push(next_number);
                    if is_retained {
                        retained.push(Some(next_number));
                    }
                    let bytes = [10, 3_000, 60_000][rng.below(3) as usize];
                    let payload = payload(next_number, bytes);
                    let (forwarded, durable) = sessions.forward("pi", &publish(&payload, is_retained), "other");
                    match (forwarded, durable) {
                        (Forwarded::Full, _) => {
                            possible.pop();
                            if is_retained {
                                retained.pop();
                            }
                        }
                        (_, Some(durable)) => {
                            is_well = durable.await.is_ok();
                            if is_well {
                                acknowledged.push(next_number);
                                if is_retained {
                                    retained = vec![Some(next_number)];
                                }
                            }
                        }
                        other => panic!("seed {seed}: {:?} without a receipt", other.0),
                    }
                }
                6 | 7 if !is_away => {
                    let found = drain(&sessions, &client, &link);
                    acknowledged.retain(|number| !found.contains(number));
                }
                _ => {
                    is_away = !is_away;
                    if is_away {
                        sessions.end(&client, &link, None);
                    } else {
                        link = Arc::new(Link::default());
                        let began = sessions.begin(&client, &link, false, 3_000);
                        assert!(began.is_present);
                        if let Some(durable) = began.durable {
                            is_well = durable.await.is_ok();
                        }
                    }
                }
            }
        }
        if rng.below(4) == 0 {
            let closing = Arc::clone(&sessions);
            tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
        }
        disk = disk.power_cut(rng.next_u64());
    }
}

trait DataFolder {
    fn create_data(&self);
}

impl DataFolder for SimDisk {
    fn create_data(&self) {
        wal::disk::create_dir_all(self, Path::new("/data")).unwrap();
    }
}

#[test]
fn acknowledged_commands_survive_any_power_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for seed in faults::seeds(60) {
        runtime.block_on(lives(seed));
    }
}
