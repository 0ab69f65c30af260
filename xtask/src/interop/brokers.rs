//! Devices publish to Mosquitto, and servers of Eden subscribe there. Brokers and servers stop and die; what Mosquitto
//! acknowledged to a device is in SQL, each key once.
//!
//! Mosquitto writes its messages down when it is told to stop, so it is; killed it would lose what it acknowledged. Nor does
//! it (2.0.11) keep shared subscriptions over a restart: until a server is back it throws messages away and acknowledges them,
//! with a reason code that MQTT 5 has for this, and by which publishers here send them again. The servers are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::mqtt::{Event, Publisher, Qos, Version};
use harness::{Eden, Rng, wait};

use super::install;
use crate::mosquitto::{Mosquitto, PASSWORD_FILE, READER};
use crate::{Failure, Outcome};

/// 2026-06-01T00:00:00Z.
const START_US: u64 = 1_780_272_000_000_000;
const PUBLISHERS: u64 = 4;
const WINDOW: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// After the last fault: backing off, a server looks for its broker once a minute.
const SETTLED_WITHIN: Duration = Duration::from_secs(150);
const STARTED_WITHIN: Duration = Duration::from_secs(20);

/// A short run for CI.
pub(super) fn messages_of_a_broker_survive() -> Outcome {
    run(harness::settings::seed(), Duration::from_secs(8))
}

/// Publishes for `lasts`, with faults all the while, and compares.
pub(crate) fn run(seed: u64, lasts: Duration) -> Outcome {
    install("mosquitto", "mosquitto")?;
    println!("brokers: seed {seed}");
    let folder = std::env::temp_dir().join(format!("eden-brokers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let result = servers_share(seed, lasts, &folder);
    std::fs::remove_dir_all(&folder).map_err(|error| format!("remove {}: {error}", folder.display()))?;
    result
}

fn servers_share(seed: u64, lasts: Duration, folder: &Path) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut mosquitto = Mosquitto::start_keeping(folder)?;
    let mut servers: Vec<Eden> = ["5", "3.1.1"]
        .iter()
        .map(|version| {
            let text = format!(
                "[[mqtt.broker]]\nurl = \"mqtt://{}\"\ntopics = [\"$share/eden/lp/#\"]\nversion = \"{version}\"\n\
                 user = \"{READER}\"\npassword_file = \"{}\"\n",
                mosquitto.address,
                folder.join(PASSWORD_FILE).display()
            );
            let mut eden = Eden::options("brokers").configuration(&text).start();
            eden.note(format!("seed {seed}"));
            eden
        })
        .collect();
    for eden in &servers {
        let metric = "eden_broker_connected";
        let connected = || sum_of(eden, metric).is_ok_and(|connected| connected == 1.0).then_some(());
        if wait::until(STARTED_WITHIN, connected).is_none() {
            return Err(format!("a server has not connected to mosquitto\n{}", eden.log()));
        }
    }

    let ends = AtomicBool::new(false);
    let (mut stops, mut kills) = (0, 0);
    let address = mosquitto.address.clone();
    let acked: BTreeSet<u64> = std::thread::scope(|scope| -> Result<_, Failure> {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|index| {
                scope.spawn({
                    let (ends, address) = (&ends, &address);
                    move || publish(address, index, ends)
                })
            })
            .collect();
        let faults = (|| -> Outcome {
            let until = wait::now() + lasts;
            while wait::now() < until {
                wait::pass(Duration::from_millis(300 + rng.below(1_500)));
                match rng.below(3) {
                    0 => {
                        mosquitto.stop()?;
                        wait::pass(Duration::from_millis(rng.below(700)));
                        mosquitto.run()?;
                        stops += 1;
                    }
                    n => {
                        let eden = &mut servers[n as usize - 1];
                        eden.kill();
                        wait::pass(Duration::from_millis(rng.below(700)));
                        eden.restart();
                        kills += 1;
                    }
                }
            }
            Ok(())
        })();
        ends.store(true, Ordering::Relaxed);
        let acked = publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect();
        faults.map(|()| acked)
    })?;

    let mut stored: BTreeMap<u64, u32> = BTreeMap::new();
    let all_is_there = wait::until(SETTLED_WITHIN, || {
        stored = stored_keys(&servers);
        acked.iter().all(|key| stored.contains_key(key)).then_some(())
    });
    if all_is_there.is_none() {
        let lost: Vec<_> = acked.iter().filter(|key| !stored.contains_key(key)).take(10).collect();
        let logs: String = servers.iter().map(Eden::log).collect();
        return Err(format!(
            "seed {seed}: of {} acknowledged messages these are not stored: {lost:?}\n{logs}",
            acked.len()
        ));
    }
    for eden in &servers {
        let rows = eden.sql("SELECT count(*), count(DISTINCT time) FROM cell").row(0).to_vec();
        if rows[0] != rows[1] {
            return Err(format!("seed {seed}: {} rows have {} keys", rows[0], rows[1]));
        }
        let all_is_counted = wait::until(SETTLED_WITHIN, || {
            let sums = "SELECT received, stored FROM system.sources WHERE source = 'broker'";
            let rows = eden.sql(sums).row(0).to_vec();
            (rows[0] == rows[1]).then_some(())
        });
        if all_is_counted.is_none() {
            return Err(format!("seed {seed}: not all rows that were received are stored\n{}", eden.log()));
        }
    }
    let on_both = stored.values().filter(|count| **count > 1).count();
    let came = servers.iter().map(|eden| sum_of(eden, "eden_broker_messages_total")).sum::<Result<f64, _>>()?;
    println!(
        "{} messages that Mosquitto acknowledged are stored, each key once on a server ({on_both} came to both, after a \
         death before the acknowledgement); {stops} stops of Mosquitto, {kills} kills of servers; {came} messages \
         since the last starts",
        acked.len()
    );
    Ok(())
}

/// Publishes until `ends`, and then until all is acknowledged. Which keys were.
fn publish(address: &str, index: u64, ends: &AtomicBool) -> BTreeSet<u64> {
    let (mut acked, mut again, mut next) = (BTreeSet::new(), Vec::new(), 0);
    loop {
        let client_id = format!("device-{index}");
        let mut publisher =
            Publisher::new(address, &client_id, Version::V5, &format!("lp/{index}"), Qos::AtLeastOnce, WINDOW);
        // Message to key.
        let mut open: BTreeMap<u64, u64> = BTreeMap::new();
        loop {
            let is_over = ends.load(Ordering::Relaxed);
            while open.len() < WINDOW && (!is_over || !again.is_empty()) {
                let key = again.pop().unwrap_or_else(|| {
                    next += 1;
                    next * PUBLISHERS + index
                });
                let line = format!("cell,publisher={index} value={key}i {}", (START_US + key) * 1000);
                open.insert(publisher.publish(line.into_bytes()), key);
            }
            if open.is_empty() {
                return acked;
            }
            match publisher.next_event(LOOK_EVERY) {
                Some(Event::Acked(message)) => acked.extend(open.remove(&message)),
                Some(Event::Refused(message, _)) => again.extend(open.remove(&message)),
                Some(Event::Broken(_)) => break,
                Some(Event::Connected) | None => {}
            }
        }
        again.extend(open.into_values());
        wait::pass(RECONNECT_AFTER);
    }
}

/// The keys that are stored, with the number of servers that have each.
fn stored_keys(servers: &[Eden]) -> BTreeMap<u64, u32> {
    let mut stored = BTreeMap::new();
    for eden in servers {
        let Ok(answer) = eden.client().sql("SELECT value FROM cell") else { continue };
        for row in answer["rows"].as_array().into_iter().flatten() {
            if let Some(key) = row[0].as_u64() {
                *stored.entry(key).or_default() += 1;
            }
        }
    }
    stored
}

/// All samples of a metric.
pub(super) fn sum_of(eden: &Eden, name: &str) -> Result<f64, Failure> {
    let page = eden.client().request("GET", "/metrics", &[], &[]).map_err(|error| format!("{error:?}"))?.text();
    let samples = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    samples
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()))
        .sum::<Option<f64>>()
        .ok_or_else(|| format!("{name} has a sample that is no number"))
}
