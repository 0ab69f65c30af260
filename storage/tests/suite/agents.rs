//! Batches that their agents name: a retry of one that is durable changes nothing, whatever happened in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faults::{FaultDisk, Operation, SimDisk};
use model::{TableBatch, TableName, Value};
use storage::{AgentBatch, AgentGap, AgentStatus, Quarantined, Seen, SetAside, Storage};
use wal::disk::SharedDisk;

use crate::world::{START_US, World, batch, read, read_snapshot, write};

/// Batch `seq` of outbox 7 of agent `pi`.
fn named(seq: u64) -> AgentBatch {
    AgentBatch { agent: "pi".into(), epoch: 7, seq, crc: seq as u32, gaps: Vec::new() }
}

/// Batches with one reading `x` of series `a` at `time`.
fn reading(time: i64, x: f64) -> Vec<TableBatch> {
    vec![batch("t", &[("a", time, &[("x", Value::F64(x))])])]
}

/// Sends a batch, waits for its acknowledgement, and says what it was taken for.
fn send(storage: &Storage, named: &AgentBatch, readings: Vec<TableBatch>) -> Seen {
    let (pending, seen) = storage.write_of_agent(readings, named, "test").unwrap();
    assert_eq!(pending.rejected, []);
    pending.wait().unwrap();
    seen
}

/// `x` of series `a` by time.
fn stored(storage: &Storage) -> Vec<(i64, String)> {
    read(storage, "t").into_iter().map(|((_, time), fields)| (time, fields["x"].clone())).collect()
}

/// The rows of a table of schema `system`, by their tags.
fn system(storage: &Storage, table: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let name = TableName::new("system", table);
    let Some(snapshot) = storage.snapshot(&name).unwrap() else { return BTreeMap::new() };
    read_snapshot(storage, &snapshot).into_iter().map(|((series, _), fields)| (series, fields)).collect()
}

/// Some fields of the row of agent `pi`.
fn agent<const N: usize>(storage: &Storage, fields: [&str; N]) -> [String; N] {
    let rows = system(storage, "agents");
    fields.map(|field| rows["agent=pi"].get(field).cloned().unwrap_or_default())
}

#[test]
fn a_retry_of_a_durable_batch_changes_nothing_and_a_correction_stays() {
    let mut world = World::local();
    let mut storage = world.open();
    assert_eq!(send(&storage, &named(1), reading(1, 1.0)), Seen::New);
    // The acknowledgement was lost; somebody corrected the reading; the agent sends it again.
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(9.0))])]);
    let corrected = [(1, "9".to_owned())];
    for life in ["same", "killed", "closed", "flushed"] {
        match life {
            "killed" => {
                drop(storage);
                storage = world.reopen();
            }
            "closed" => {
                storage.close(Duration::from_secs(60)).unwrap();
                drop(storage);
                storage = world.reopen();
            }
            "flushed" => storage.refresh(&TableName::public("t")).unwrap(),
            _ => {}
        }
        assert_eq!(send(&storage, &named(1), reading(1, 1.0)), Seen::Duplicate, "{life}");
        assert_eq!(stored(&storage), corrected, "{life}");
    }
    let counters = agent(&storage, ["batches", "readings", "duplicates", "conflicts", "seq", "missing", "epoch"]);
    assert_eq!(counters, ["1", "1", "4", "0", "1", "0", "7"]);
    let stats = storage.stats();
    assert_eq!((stats.agents, stats.agent_duplicates_total, stats.agent_conflicts_total), (1, 2, 0));
}

#[test]
fn what_is_known_survives_that_the_log_is_truncated() {
    let mut world = World::local();
    world.config.log_segment_bytes = 16 << 10;
    world.config.log_bytes_max = 64 << 10;
    let mut storage = world.open();
    // One agent that goes on, and 50 that were heard once.
    let quiet = |n: u64| AgentBatch { agent: format!("quiet-{n}").into(), ..named(1) };
    for n in 0..50 {
        assert_eq!(send(&storage, &quiet(n), reading(-1, 0.0)), Seen::New);
    }
    for seq in 1..=200 {
        assert_eq!(send(&storage, &named(seq), reading(seq as i64, 1.0)), Seen::New);
        if seq % 20 == 0 {
            storage.refresh(&TableName::public("t")).unwrap();
            assert!(storage.stats().wal.bytes_on_disk <= 128 << 10, "{:?}", storage.stats().wal);
        }
    }
    for _ in 0..3 {
        drop(storage);
        storage = world.reopen();
        for seq in [1, 100, 200] {
            assert_eq!(send(&storage, &named(seq), reading(seq as i64, 2.0)), Seen::Duplicate, "{seq}");
        }
        (0..50).for_each(|n| assert_eq!(send(&storage, &quiet(n), reading(-1, 5.0)), Seen::Duplicate, "{n}"));
        storage.refresh(&TableName::public("t")).unwrap();
        storage.refresh(&TableName::new("system", "agents")).unwrap();
    }
    assert!(stored(&storage).into_iter().all(|(time, x)| x == if time < 0 { "0" } else { "1" }));
    assert_eq!(agent(&storage, ["batches", "seq", "duplicates"]), ["200", "200", "9"]);
    assert_eq!(system(&storage, "agents")["agent=quiet-7"]["duplicates"], "3");
}

#[test]
fn the_same_number_with_other_bytes_is_applied_and_counted() {
    let mut world = World::local();
    let storage = world.open();
    let other = |seq| AgentBatch { crc: 1000 + seq as u32, ..named(seq) };
    assert_eq!(send(&storage, &named(1), reading(1, 1.0)), Seen::New);
    assert_eq!(send(&storage, &other(1), reading(2, 2.0)), Seen::Conflict);
    assert_eq!(send(&storage, &other(2), reading(3, 3.0)), Seen::New);
    assert_eq!(send(&storage, &named(2), reading(4, 4.0)), Seen::Conflict);
    // Both boards may send again what they have no acknowledgement of.
    drop(storage);
    let storage = world.reopen();
    for batch in [named(1), other(1), named(2), other(2)] {
        assert_eq!(send(&storage, &batch, reading(1, 7.0)), Seen::Duplicate);
    }
    let all = [(1, "1"), (2, "2"), (3, "3"), (4, "4")].map(|(time, x)| (time, x.to_owned()));
    assert_eq!(stored(&storage), all);
    assert_eq!(agent(&storage, ["batches", "conflicts", "duplicates", "seq"]), ["4", "2", "4", "2"]);
    // Another outbox of the same agent has numbers of its own.
    let epoch = |epoch, seq| AgentBatch { epoch, ..named(seq) };
    assert_eq!(send(&storage, &epoch(8, 1), reading(5, 5.0)), Seen::New);
    assert_eq!(agent(&storage, ["epoch", "seq", "batches"]), ["8", "1", "5"]);
    // Eight outboxes are kept, by their last use.
    (9..15).for_each(|n| assert_eq!(send(&storage, &epoch(n, 1), reading(5, 5.0)), Seen::New));
    assert_eq!(send(&storage, &epoch(7, 1), reading(5, 5.0)), Seen::Duplicate);
    assert_eq!(send(&storage, &epoch(15, 1), reading(5, 5.0)), Seen::New);
    assert_eq!(send(&storage, &epoch(8, 1), reading(5, 5.0)), Seen::New);
    assert_eq!(send(&storage, &epoch(7, 1), reading(5, 5.0)), Seen::Duplicate);
}

#[test]
fn a_batch_too_old_to_compare_is_applied() {
    let world = World::local();
    let storage = world.open();
    (1..=256).for_each(|seq| assert_eq!(send(&storage, &named(seq), Vec::new()), Seen::New));
    assert_eq!(send(&storage, &named(1), reading(1, 1.0)), Seen::Duplicate);
    assert_eq!(send(&storage, &named(257), Vec::new()), Seen::New);
    assert_eq!(send(&storage, &named(1), reading(1, 1.0)), Seen::New);
    // Rows are made when they are asked for: batches do not grow the table in memory.
    let memory_rows = || storage.table(&TableName::new("system", "agents")).unwrap().memory_rows;
    assert_eq!(memory_rows(), 0);
    assert_eq!(agent(&storage, ["seq", "missing", "batches"]), ["257", "0", "258"]);
    assert_eq!(memory_rows(), 1);
}

#[test]
fn numbers_may_come_in_any_order_and_missing_ones_are_counted() {
    let mut world = World::local();
    let mut storage = world.open();
    for (seq, contiguous, missing) in
        [(3, "0", "2"), (1, "1", "1"), (6, "1", "3"), (2, "3", "2"), (5, "3", "1"), (4, "6", "0")]
    {
        assert_eq!(send(&storage, &named(seq), Vec::new()), Seen::New);
        assert_eq!(agent(&storage, ["seq", "missing"]), [contiguous, missing], "{seq}");
        drop(storage);
        storage = world.reopen();
        assert_eq!(agent(&storage, ["seq", "missing"]), [contiguous, missing], "{seq}");
    }
}

fn gap(first_seq: u64, last_seq: u64, readings: Option<u64>) -> AgentGap {
    AgentGap { first_seq, last_seq, readings, reason: "outbox_full".into(), time_us: START_US }
}

#[test]
fn a_gap_is_a_row_and_its_numbers_are_no_longer_missing() {
    let mut world = World::local();
    let mut storage = world.open();
    send(&storage, &named(1), Vec::new());
    send(&storage, &named(3), Vec::new());
    let gaps = vec![gap(2, 9, Some(540)), AgentGap { time_us: i64::MAX, ..gap(10, 10, None) }];
    send(&storage, &AgentBatch { gaps, ..named(11) }, Vec::new());
    let (first, second) = ("agent=pi,epoch=7,first_seq=2", "agent=pi,epoch=7,first_seq=10");
    for life in 0..4 {
        assert_eq!(agent(&storage, ["seq", "missing", "gaps", "batches"]), ["11", "0", "2", "3"]);
        let rows = system(&storage, "agent_gaps");
        let row = |received: &str| {
            let fields = [("last_seq", "9"), ("readings", "540"), ("reason", "outbox_full"), ("received", received)];
            fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(rows[first], row("1"), "life {life}");
        assert_eq!(rows[second].get("readings"), None);
        assert_eq!(rows.len(), 2);
        match life {
            0 => {}
            1 => storage.refresh(&TableName::new("system", "agent_gaps")).unwrap(),
            _ => storage.close(Duration::from_secs(60)).unwrap(),
        }
        drop(storage);
        storage = world.reopen();
    }
    // One that was given up comes all the same.
    assert_eq!(send(&storage, &named(5), Vec::new()), Seen::New);
    assert_eq!(system(&storage, "agent_gaps")[first]["received"], "2");
    drop(storage);
    let storage = world.reopen();
    assert_eq!(system(&storage, "agent_gaps")[first]["received"], "2");
    assert_eq!(agent(&storage, ["seq", "missing", "gaps", "batches"]), ["11", "0", "2", "4"]);
}

/// A case: batches with the gap that each reports, then counted gaps and `received` by `first_seq`.
type GapCase = (&'static [(u64, Option<(u64, u64)>)], u64, &'static [(u64, u64)]);

const GAP_CASES: [GapCase; 7] = [
    // Reported again.
    (&[(1, None), (3, Some((2, 2))), (5, Some((2, 2)))], 1, &[(2, 0)]),
    // Grown; batch 5 came.
    (&[(1, None), (5, None), (21, Some((2, 10))), (22, Some((2, 20)))], 2, &[(2, 1)]),
    // Overlapping; batches 12, 17 and 22 came.
    (&[(12, None), (17, None), (22, None), (24, Some((11, 20))), (25, Some((15, 23)))], 2, &[(11, 2), (15, 2)]),
    // Batch 4 comes after it was given up, then both gaps are reported again, one of them in parts.
    (
        &[(11, Some((2, 10))), (4, None), (12, Some((2, 10))), (13, Some((3, 5))), (14, Some((6, 6)))],
        1,
        &[(2, 1), (3, 1), (6, 0)],
    ),
    // A batch in two gaps comes.
    (&[(24, Some((11, 20))), (25, Some((15, 23))), (16, None)], 2, &[(11, 1), (15, 1)]),
    // Touching ones are two; all of the second came.
    (&[(6, None), (7, None), (8, Some((2, 5))), (9, Some((6, 7)))], 2, &[(2, 0), (6, 2)]),
    // One that holds another.
    (&[(10, Some((4, 5))), (11, Some((2, 9))), (5, None), (12, Some((2, 9)))], 2, &[(2, 1), (4, 1)]),
];

#[test]
fn only_batches_that_came_count_as_received_of_a_gap() {
    for restart in ["never", "killed", "closed", "truncated", "shards"] {
        let mut world = World::local();
        world.config.log_segment_bytes = 16 << 10;
        world.config.log_bytes_max = 64 << 10;
        let mut storage = world.open();
        let id = |case: usize| format!("pi-{case}");
        for step in 0..5 {
            for (case, (batches, ..)) in GAP_CASES.iter().enumerate() {
                let Some((seq, reported)) = batches.get(step) else { continue };
                let gaps = reported.iter().map(|(first, last)| gap(*first, *last, None)).collect();
                send(&storage, &AgentBatch { agent: id(case).into(), gaps, ..named(*seq) }, Vec::new());
            }
            match restart {
                "closed" => storage.close(Duration::from_secs(60)).unwrap(),
                "truncated" => {
                    // Gaps hold the log until they are in shards.
                    storage.refresh(&TableName::new("system", "agent_gaps")).unwrap();
                    for seq in 1..=200 {
                        send(&storage, &named(200 * step as u64 + seq), reading(seq as i64, 1.0));
                        if seq % 20 == 0 {
                            storage.refresh(&TableName::public("t")).unwrap();
                            assert!(storage.stats().wal.bytes_on_disk <= 128 << 10, "{:?}", storage.stats().wal);
                        }
                    }
                }
                "shards" => storage.refresh(&TableName::new("system", "agent_gaps")).unwrap(),
                _ => {}
            }
            if restart != "never" {
                drop(storage);
                storage = world.reopen();
            }
        }
        let (agents, rows) = (system(&storage, "agents"), system(&storage, "agent_gaps"));
        for (case, (_, gaps, received)) in GAP_CASES.iter().enumerate() {
            let of_agent = format!("agent={}", id(case));
            assert_eq!(agents[&of_agent]["gaps"], gaps.to_string(), "{restart}, case {case}");
            let prefix = format!("{of_agent},epoch=7,first_seq=");
            let found: BTreeMap<u64, u64> = rows
                .iter()
                .filter_map(|(row, fields)| Some((row.strip_prefix(&prefix)?.parse().ok()?, fields)))
                .map(|(first, fields)| (first, fields["received"].parse().unwrap()))
                .collect();
            assert_eq!(found.into_iter().collect::<Vec<_>>(), *received, "{restart}, case {case}");
        }
    }
}

#[test]
fn too_many_holes_make_the_lowest_one_a_gap() {
    let mut world = World::local();
    let storage = world.open();
    for n in 0..70 {
        send(&storage, &named(1 + 2 * n), Vec::new());
    }
    let rows = system(&storage, "agent_gaps");
    let found: Vec<&str> = rows.values().map(|fields| &*fields["reason"]).collect();
    assert_eq!(found, ["never_came"; 5]);
    assert_eq!(agent(&storage, ["seq", "missing", "gaps"]), ["11", "64", "5"]);
    storage.close(Duration::from_secs(60)).unwrap();
    drop(storage);
    let storage = world.reopen();
    assert_eq!(system(&storage, "agent_gaps"), rows);
    assert_eq!(agent(&storage, ["seq", "missing", "gaps"]), ["11", "64", "5"]);
    assert_eq!(send(&storage, &named(4), Vec::new()), Seen::New);
    assert_eq!(system(&storage, "agent_gaps")["agent=pi,epoch=7,first_seq=4"]["received"], "1");
}

#[test]
fn the_same_batch_from_many_connections_is_applied_once() {
    let world = World::local();
    let storage = world.open();
    for seq in 1..=20 {
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let storage = Arc::clone(&storage);
                std::thread::spawn(move || send(&storage, &named(seq), reading(seq as i64, 1.0)))
            })
            .collect();
        let seen: Vec<Seen> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        assert_eq!(seen.iter().filter(|seen| **seen == Seen::New).count(), 1, "{seen:?}");
        assert_eq!(seen.iter().filter(|seen| **seen == Seen::Duplicate).count(), 7, "{seen:?}");
    }
    assert_eq!(agent(&storage, ["batches", "duplicates", "conflicts", "readings"]), ["20", "140", "0", "20"]);
}

#[test]
fn a_duplicate_of_a_batch_that_fails_fails_with_it() {
    let sim = SimDisk::new();
    let (faulty, faults) = FaultDisk::new(Arc::new(sim.clone()));
    let world = World::on(Arc::new(faulty), PathBuf::from("/data"));
    let storage = world.open();
    send(&storage, &named(1), reading(1, 1.0));
    let is_wal = |path: &Path| path.extension().is_some_and(|extension| extension == "wal");
    faults.fail(Operation::Sync, 1, is_wal);
    let sent: Vec<_> = (0..3).map(|_| storage.write_of_agent(reading(2, 2.0), &named(2), "test")).collect();
    // Whether the later ones met the first on its way or a poisoned log: none is acknowledged.
    for one in sent {
        assert!(one.and_then(|(pending, _)| pending.wait()).is_err());
    }
    drop(storage);
    let disk: SharedDisk = Arc::new(sim.power_cut(3));
    let storage = World::on(disk, PathBuf::from("/data")).with_seed(2).open();
    assert_eq!(send(&storage, &named(1), reading(1, 7.0)), Seen::Duplicate);
    send(&storage, &named(2), reading(2, 2.0));
    assert_eq!(stored(&storage), [(1, "1".to_owned()), (2, "2".to_owned())]);
}

#[test]
fn a_duplicate_is_not_acknowledged_before_the_batch_on_its_way_is() {
    for fails in [false, true] {
        let sim = SimDisk::new();
        let (faulty, faults) = FaultDisk::new(Arc::new(sim.clone()));
        let storage = World::on(Arc::new(faulty), PathBuf::from("/data")).open();
        send(&storage, &named(1), Vec::new());
        if fails {
            faults.fail(Operation::Create, 1, |path| path.starts_with("/data/quarantine"));
        }
        let aside = SetAside {
            time_us: 0,
            source: String::new(),
            topic: String::new(),
            schema: String::new(),
            precision: String::new(),
            reason: String::new(),
            payload: Vec::new(),
            is_whole: true,
        };
        let mut again = None;
        // Judged, and not in the log yet: now the agent, which has reconnected, sends it again.
        let first = storage.write_of_agent_setting_aside(reading(1, 1.0), &named(2), "test", |_| {
            again = Some(storage.write_of_agent(reading(1, 1.0), &named(2), "test").unwrap());
            // The record that counts the duplicate becomes durable before the batch does.
            send(&storage, &named(3), Vec::new());
            vec![aside]
        });
        let (again, seen) = again.unwrap();
        assert_eq!(seen, Seen::Duplicate);
        let first = first.and_then(|(pending, _)| pending.wait());
        assert_eq!(first.is_err(), fails, "{first:?}");
        assert_eq!(again.wait().is_err(), fails);
        assert_eq!(storage.table(&TableName::public("t")).unwrap().memory_rows, u64::from(!fails));
        assert_eq!(send(&storage, &named(2), reading(1, 1.0)), if fails { Seen::New } else { Seen::Duplicate });
    }
}

#[test]
fn what_an_agent_says_of_itself_is_in_its_row() {
    let mut world = World::local();
    let mut storage = world.open();
    let status = AgentStatus {
        agent: "pi".into(),
        online: true,
        version: Some("0.1.0".into()),
        epoch: Some(7),
        seq: Some(9),
        backlog_batches: Some(3),
        backlog_bytes: Some(4096),
    };
    storage.note_agent(&status, "test").unwrap().wait().unwrap();
    let fields = ["online", "version", "backlog_batches", "backlog_bytes", "batches", "seq"];
    let will = AgentStatus { online: false, version: None, backlog_batches: None, backlog_bytes: None, ..status };
    for closed in [false, true] {
        assert_eq!(agent(&storage, fields), ["true", "0.1.0", "3", "4096", "0", ""]);
        if closed {
            storage.close(Duration::from_secs(60)).unwrap();
            // As any reader of the Delta table sees it.
            drop(storage);
            storage = world.reopen();
            let mut snapshot = storage.snapshot(&TableName::new("system", "agents")).unwrap().unwrap();
            snapshot.rows.forget();
            assert_eq!(read_snapshot(&storage, &snapshot).len(), 1);
        } else {
            drop(storage);
            storage = world.reopen();
        }
    }
    storage.note_agent(&will, "test").unwrap().wait().unwrap();
    assert_eq!(agent(&storage, fields), ["false", "0.1.0", "3", "4096", "0", ""]);
}

#[test]
fn names_that_no_agent_has_are_refused() {
    let world = World::local();
    let storage = world.open();
    let refused = |batch: AgentBatch| storage.write_of_agent(Vec::new(), &batch, "test").unwrap_err().to_string();
    assert!(refused(AgentBatch { agent: "".into(), ..named(1) }).contains("empty"));
    assert!(refused(AgentBatch { agent: "x".repeat(81).into(), ..named(1) }).contains("81 bytes"));
    assert!(refused(named(0)).contains("count from 1"));
    assert!(refused(AgentBatch { gaps: vec![gap(3, 2, None)], ..named(1) }).contains("from batch 3 to batch 2"));
    assert!(refused(AgentBatch { gaps: vec![gap(1, 2, None); 1001], ..named(1) }).contains("1001 gaps"));
    assert_eq!(storage.stats().agents, 0);
}

#[test]
fn what_is_refused_of_a_batch_is_set_aside_before_the_batch_is_known() {
    let mut world = World::local();
    let storage = world.open();
    let far =
        || vec![batch("t", &[("a", 1, &[("x", Value::F64(1.0))]), ("a", i64::MAX / 2, &[("x", Value::F64(1.0))])])];
    let aside = |reason: &str| SetAside {
        time_us: 5,
        source: "test".into(),
        topic: "/api/v3/write_lp".into(),
        schema: "public".into(),
        precision: "auto".into(),
        reason: reason.into(),
        payload: b"\xff far".to_vec(),
        is_whole: true,
    };
    let (pending, seen) = storage
        .write_of_agent_setting_aside(far(), &named(1), "test", |rejected| {
            assert_eq!(rejected.len(), 1);
            vec![aside(&rejected[0].reason)]
        })
        .unwrap();
    assert_eq!((seen, pending.accepted, pending.rejected.len()), (Seen::New, 1, 1));
    pending.wait().unwrap();
    drop(storage);
    let storage = world.reopen();
    let again = storage.write_of_agent_setting_aside(far(), &named(1), "test", |_| panic!("a duplicate"));
    assert_eq!(again.unwrap().1, Seen::Duplicate);
    let [Quarantined { payload: kept, .. }] = &storage.quarantined().unwrap()[..] else { panic!("one payload") };
    assert!(kept.reason.contains("max_future") && kept.payload == b"\xff far", "{kept:?}");
    storage.set_aside(&[aside("second"), aside("third")]).unwrap();
    storage.close(Duration::from_secs(60)).unwrap();
    drop(storage);
    let storage = world.reopen();
    let reasons: Vec<String> = storage.quarantined().unwrap().into_iter().map(|kept| kept.payload.reason).collect();
    assert_eq!(reasons[1..], ["second", "third"]);
    let snapshot = storage.snapshot(&TableName::new("system", "quarantine")).unwrap().unwrap();
    assert_eq!(snapshot.rows.count(), 3);
    assert!(storage.tables().iter().any(|table| table.name == TableName::new("system", "quarantine")));
}
