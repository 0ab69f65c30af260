//! Far more MQTT messages than the server can take, and then its death.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::mqtt::{Event, Publisher, Qos, Version};
use tests::{Eden, cpu, wait};

/// Clients, one half of each version.
const CLIENTS: usize = 16;
/// Messages that each has open all the time, as far as the server lets it.
const WINDOW: usize = 400;
/// Bytes of a message: all that are open are many times the memory that there is for them.
const MESSAGE_BYTES: usize = 4 << 10;
/// How long the load lasts before the server is killed.
const LOAD_TIME: Duration = Duration::from_secs(5);
/// What the server may take more than when it was idle. Budgets of messages and of rows in memory are 18 MiB here; most of
/// the rest is what flushes, the log and threads need. Without budgets it would be more each second.
const MORE_BYTES_MAX: u64 = 360 << 20;

struct Load {
    client: String,
    acked: BTreeSet<u64>,
    published: u64,
}

/// Keeps the window full until the connection ends.
fn push(address: &str, number: usize, is_over: &AtomicBool) -> Load {
    let client = format!("c{number}");
    let version = if number.is_multiple_of(2) { Version::V311 } else { Version::V5 };
    let mut publisher = Publisher::new(address, &client, version, "lp/x", Qos::AtLeastOnce, WINDOW);
    let mut load = Load { client, acked: BTreeSet::new(), published: 0 };
    let text = "x".repeat(MESSAGE_BYTES);
    loop {
        while load.published - (load.acked.len() as u64) < WINDOW as u64 && !is_over.load(Ordering::Relaxed) {
            let id = load.published + 1;
            let line = format!("m,client={},id={id} v={id},text=\"{text}\" 1780272000000000000", load.client);
            assert_eq!(publisher.publish(line.into_bytes()), id);
            load.published = id;
        }
        match publisher.next_event(Duration::from_secs(60)) {
            Some(Event::Acked(id)) => assert!(load.acked.insert(id), "{id} was acknowledged twice"),
            Some(Event::Connected) => {}
            Some(Event::Broken(_)) if is_over.load(Ordering::Relaxed) => return load,
            other => panic!("{}: {other:?}", load.client),
        }
    }
}

/// P1 and P10.
#[test]
fn an_overloaded_server_stays_in_its_memory_and_what_it_acknowledged_survives_a_kill() {
    let mut eden = Eden::options("mqtt-overload")
        .setting("EDEN_MQTT_MESSAGES_MEMORY", "2MiB")
        .setting("EDEN_STORAGE_MEMORY", "16MiB")
        .setting("EDEN_STORAGE_TABLE_MEMORY", "8MiB")
        // What the server holds is measured, not what the allocator keeps at hand for each thread.
        .setting("MIMALLOC_PURGE_DELAY", "0")
        .start();
    eden.write_lp("warm v=1 1780272000000000000");
    eden.sql("SELECT * FROM warm");
    let (address, pid) = (eden.mqtt_address().to_owned(), eden.pid());
    let idle = cpu::memory_bytes(pid);
    let is_over = AtomicBool::new(false);
    let mut most = 0;
    let loads: Vec<Load> = std::thread::scope(|scope| {
        let pushing: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (address, is_over) = (&address, &is_over);
                scope.spawn(move || push(address, number, is_over))
            })
            .collect();
        let until = wait::now() + LOAD_TIME;
        while wait::now() < until {
            most = most.max(cpu::memory_bytes(pid));
            std::thread::park_timeout(Duration::from_millis(50));
        }
        // Both are still asked and answered.
        let rows = eden.sql("SELECT count(*) FROM m");
        assert!(rows.single().as_i64().unwrap() > 0);
        is_over.store(true, Ordering::Relaxed);
        eden.kill();
        pushing.into_iter().map(|one| one.join().expect("a publisher has panicked")).collect()
    });
    eden.restart();
    let mut acked = 0;
    for Load { client, acked: ids, published } in &loads {
        let rows = eden.sql(&format!("SELECT CAST(v AS BIGINT) AS id FROM m WHERE client = '{client}'"));
        let stored: BTreeSet<u64> = (0..rows.len()).map(|row| rows.get(row, "id").as_u64().unwrap()).collect();
        assert!(
            ids.is_subset(&stored),
            "{client}: {:?} were acknowledged",
            ids.difference(&stored).collect::<Vec<_>>()
        );
        assert!(stored.iter().all(|id| *id <= *published), "{client}: stored and never sent");
        assert!(!ids.is_empty(), "{client} was starved");
        acked += ids.len();
    }
    println!(
        "{acked} messages of {MESSAGE_BYTES} bytes acknowledged in {LOAD_TIME:?}; {} KiB idle, {} KiB at most",
        idle / 1024,
        most / 1024
    );
    assert!(most < idle + MORE_BYTES_MAX, "{most} bytes at most, {idle} idle");

    // And then all is as before.
    let mut publisher = Publisher::new(eden.mqtt_address(), "after", Version::V5, "lp/x", Qos::AtLeastOnce, 1);
    assert_eq!(publisher.next_event(Duration::from_secs(60)), Some(Event::Connected));
    let mut slowest = Duration::ZERO;
    for id in 1..=50 {
        let sent = wait::now();
        publisher.publish(format!("after v={id} 178027200000000{id:04}").into_bytes());
        assert_eq!(publisher.next_event(Duration::from_secs(60)), Some(Event::Acked(id)));
        slowest = slowest.max(wait::now() - sent);
    }
    println!("afterwards the slowest of 50 took {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
