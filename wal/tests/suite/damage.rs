//! Damage is named, and the rest is served (P3); newer formats are left alone (P13).
//!
//! The oracle compares bytes: a frame whose bytes are as they were written must be served, each other one must lie in a
//! loss that says the right thing. It takes frames apart by itself, as `docs/formats/wal.md` lays them out.

use std::path::Path;
use std::sync::Arc;

use faults::{SimDisk, mutate_from, seeds};
use model::{NodeEpoch, Rng, SplitMix64};
use wal::disk::{Disk, SharedDisk, read_file};
use wal::{Certainty, FrameReader, LogKind, Loss, LossReason, RingConfig, RingLog, WalError, inspect};

use crate::rig::{BLOCK, DIR, NODE, Rig, SEGMENT_BYTES, config, record, segment_path, sim};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Server,
    Ring,
}

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Closed,
    Killed,
    /// Killed, in a life that had cut bytes at its start.
    KilledAfterCut,
}

struct Log {
    policy: Policy,
    disk: SimDisk,
    segments: Vec<Segment>,
    /// What is reported without any damage.
    losses: Vec<Loss>,
}

struct Segment {
    id: u64,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
}

#[derive(Clone)]
struct Frame {
    at: usize,
    content_bytes: usize,
    offset: u64,
    is_data: bool,
    records: Vec<Vec<u8>>,
}

impl Frame {
    fn end(&self) -> u64 {
        self.offset + (self.content_bytes as u64).next_multiple_of(BLOCK)
    }
}

fn open(disk: &SimDisk, policy: Policy, epoch: u64) -> Result<(Vec<Vec<u8>>, wal::Recovery, u64), WalError> {
    let read = |reader: FrameReader| {
        reader.map(|frame| frame.unwrap()).flat_map(|f| f.records().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
    };
    match policy {
        Policy::Server => {
            let rig = Rig::open(Arc::new(disk.clone()), config(epoch))?;
            let records = read(rig.wal.reader(0));
            let end = rig.append(b"behind");
            Ok((records, rig.recovery.clone(), end))
        }
        Policy::Ring => {
            let (mut ring, recovery) = RingLog::open(Arc::new(disk.clone()), ring_config(epoch))?;
            let records = read(ring.reader(0));
            ring.append(b"behind")?;
            let end = ring.sync()?;
            Ok((records, recovery, end))
        }
    }
}

fn ring_config(epoch: u64) -> RingConfig {
    let config = RingConfig::outbox(DIR, NODE, NodeEpoch(epoch), 1 << 30);
    RingConfig { segment_size_bytes: SEGMENT_BYTES, ..config }
}

/// Three lives of 25 records each.
fn build(policy: Policy, left: Left) -> Log {
    let mut disk = sim();
    for epoch in 1..=3 {
        let size = |index: usize| (index * 2311) % 9000;
        let closes = epoch == 1 || (epoch == 3 && left == Left::Closed);
        match policy {
            Policy::Server => {
                let rig = Rig::on(&disk, epoch);
                for index in 0..25 {
                    rig.append(&record(epoch as usize * 100 + index, size(index)));
                }
                if closes {
                    rig.wal.close().unwrap();
                }
            }
            Policy::Ring => {
                let (mut ring, _) = RingLog::open(Arc::new(disk.clone()), ring_config(epoch)).unwrap();
                for index in 0..25 {
                    ring.append(&record(epoch as usize * 100 + index, size(index))).unwrap();
                    ring.sync().unwrap();
                }
                if closes {
                    ring.close().unwrap();
                }
            }
        }
        disk = disk.kill();
        if epoch == 2 && left == Left::KilledAfterCut {
            let segments = segments(&disk);
            let last = segments.iter().rfind(|segment| !segment.frames.is_empty()).unwrap();
            let mut bytes = last.bytes.clone();
            let end = (last.frames.last().unwrap().end() - last.frames[0].offset + BLOCK) as usize;
            bytes.resize(bytes.len().max(end + 100), 0);
            bytes[end..end + 100].fill(7);
            disk.plant(&segment_path(last.id), &bytes).unwrap();
        }
    }
    let (_, recovery, _) = open(&disk.fork(), policy, 4).unwrap();
    Log { policy, segments: segments(&disk), disk, losses: recovery.losses }
}

fn segments(disk: &SimDisk) -> Vec<Segment> {
    let names = disk.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name);
    let ids = names.filter_map(|name| name.strip_suffix(".wal")?.parse().ok());
    ids.map(|id| {
        let bytes = read_file(disk, &segment_path(id)).unwrap();
        Segment { id, frames: frames(&bytes), bytes }
    })
    .collect()
}

/// Takes undamaged bytes apart.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = BLOCK as usize;
    while bytes.get(at..at + 4) == Some(b"EFRM") {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let content_bytes = 80 + u32_at(at + 12);
        let is_data = bytes[at + 5] == 1;
        let mut records = Vec::new();
        let mut record_at = at + 80;
        while is_data && record_at < at + content_bytes {
            let len = u32_at(record_at);
            records.push(bytes[record_at + 4..record_at + 4 + len].to_vec());
            record_at += 4 + len;
        }
        let offset = u64::from_le_bytes(bytes[at + 56..at + 64].try_into().unwrap());
        frames.push(Frame { at, content_bytes, offset, is_data, records });
        at += content_bytes.next_multiple_of(BLOCK as usize);
    }
    frames
}

fn covers(loss: &Loss, frame: &Frame) -> bool {
    loss.from <= frame.offset && loss.to.is_none_or(|to| frame.end() <= to)
}

fn touches(loss: &Loss, frame: &Frame) -> bool {
    loss.from < frame.end() && loss.to.is_none_or(|to| frame.offset < to)
}

/// Damages one segment and compares what is served and reported with the bytes that are left.
fn check(log: &Log, seed: u64) -> Result<(), String> {
    let rng = SplitMix64::new(seed);
    let pick = |bound: usize| rng.below(bound as u64) as usize;
    let hit = pick(log.segments.len());
    let donor = &log.segments[pick(log.segments.len())].bytes;
    let segment = &log.segments[hit];
    let mut bytes = segment.bytes.clone();
    let mutation = mutate_from(&mut bytes, donor, rng.next_u64());
    let disk = log.disk.fork();
    disk.plant(&segment_path(segment.id), &bytes).unwrap();

    let kind = if log.policy == Policy::Server { LogKind::Server } else { LogKind::Ring };
    let looked_at: SharedDisk = Arc::new(disk.clone());
    let before = disk.ops();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut see = |frame: &wal::Frame| seen.extend(frame.records().map(<[u8]>::to_vec));
    let looked = inspect(&looked_at, Path::new(DIR), kind, Some(NODE), 0, &mut see).map_err(|e| e.to_string())?;
    if disk.ops() != before {
        return Err(format!("{mutation:?}: a look changed something"));
    }
    let (served, recovery, end) = open(&disk, log.policy, 4).map_err(|e| e.to_string())?;
    let losses = &recovery.losses;
    // How long a segment may have been whose header block is gone, only the settings tell.
    let known =
        |losses: &[Loss]| -> Vec<Loss> { losses.iter().map(|loss| Loss { to: None, ..loss.clone() }).collect() };
    if seen != served || known(&looked.losses) != known(losses) {
        return Err(format!("{mutation:?}: a look finds {:#?}, opening finds {losses:#?}", looked.losses));
    }
    let fail = |what: &str| Err(format!("{mutation:?} in segment {}: {what}; reported {losses:#?}", segment.id));

    let is_whole = |frame: &Frame| {
        let content = frame.at..frame.at + frame.content_bytes;
        bytes.get(content.clone()) == Some(&segment.bytes[content])
    };
    let (whole, damaged): (Vec<&Frame>, Vec<&Frame>) = segment.frames.iter().partition(|frame| is_whole(frame));
    let elsewhere = |i: usize| if i == hit { whole.clone() } else { log.segments[i].frames.iter().collect() };
    let expected: Vec<&Vec<u8>> =
        (0..log.segments.len()).flat_map(elsewhere).flat_map(|frame| &frame.records).collect();
    if !served.iter().eq(expected) {
        return fail("what is whole is not what is served");
    }

    // What each damaged frame must be reported as.
    let continues = log.segments[hit + 1..].iter().any(|later| !later.frames.is_empty());
    let last_whole = whole.last().map(|frame| frame.at);
    let header = bytes.get(..BLOCK as usize);
    let header_is_whole = header.is_some() && header == segment.bytes.get(..BLOCK as usize);
    let tail_at = whole.last().map_or(BLOCK, |frame| frame.end() - segment.frames[0].offset + BLOCK) as usize;
    let is_filled = segment.bytes[49] == 1;
    let bytes_max = u64::from_le_bytes(segment.bytes[40..48].try_into().unwrap()) as usize;
    let ended = whole.last().is_some_and(|last| !last.is_data && last.at > BLOCK as usize);
    let tail_shows = !ended
        && (bytes.get(tail_at..).is_some_and(|tail| tail.iter().any(|byte| *byte != 0))
            || (header_is_whole && is_filled && bytes.len() < bytes_max)
            || (whole.is_empty() && !header_is_whole));
    let mut silent = false;
    for frame in damaged.iter().filter(|frame| frame.is_data) {
        let is_tail = !continues && last_whole.is_none_or(|last| last < frame.at);
        let wanted = if is_tail { Certainty::Possible } else { Certainty::Certain };
        if is_tail && !tail_shows {
            // Zeros to the end: as if it had never been written. The one loss that no log can see.
            silent = true;
        } else if !losses.iter().any(|loss| loss.certainty == wanted && covers(loss, frame)) {
            return fail(&format!("the frame at {} is not reported as {wanted}", frame.offset));
        }
    }
    if !continues && tail_shows && !losses.iter().any(|loss| loss.reason == LossReason::TornTail) {
        return fail("cut bytes are not reported");
    }

    // Nothing else is claimed.
    let is_new = |loss: &&Loss| !log.losses.contains(loss);
    for loss in losses.iter().filter(is_new) {
        let hits_data = damaged.iter().any(|frame| frame.is_data && touches(loss, frame));
        if loss.certainty == Certainty::Certain && !hits_data {
            return fail("a loss is certain where no record was damaged");
        }
        let all = log.segments.iter().enumerate().flat_map(|(i, _)| elsewhere(i));
        let spares = |frame: &Frame| loss.certainty == Certainty::Nothing || !touches(loss, frame) || !frame.is_data;
        if !all.into_iter().all(spares) {
            return fail("a loss names a record that is served");
        }
    }
    let shows = !damaged.is_empty() || !header_is_whole || (!continues && tail_shows);
    // Without its last start or end frame a log looks like one that never had it; nothing is lost with it.
    let is_unseen = !continues && !tail_shows && damaged.iter().all(|frame| !frame.is_data);
    let nothing_new = losses.iter().all(|loss| log.losses.contains(loss));
    if shows == nothing_new && !silent && !is_unseen {
        return fail(if shows { "damage is passed over in silence" } else { "damage is reported where there is none" });
    }
    let forgets = log.losses.iter().any(|loss| !losses.contains(loss));
    if forgets && damaged.is_empty() && (continues || !tail_shows) {
        return fail("what was lost before is no longer reported");
    }

    // The log goes on behind everything that was ever written, and says the same at the next start.
    let highest = log.segments.iter().flat_map(|segment| &segment.frames).map(Frame::end).max().unwrap_or(0);
    if !silent && end <= highest {
        return fail("offsets are used again");
    }
    let (mut again, second, _) = open(&disk.kill(), log.policy, 5).map_err(|e| e.to_string())?;
    if again.pop().as_deref() != Some(b"behind") || again != served {
        return fail("the next start serves something else");
    }
    let certain = |losses: &[Loss]| -> Vec<Loss> {
        losses.iter().filter(|loss| loss.certainty == Certainty::Certain).cloned().collect()
    };
    if certain(&second.losses) != certain(losses) || second.losses.len() != losses.len() {
        return fail(&format!("the next start reports {:#?}", second.losses));
    }
    Ok(())
}

fn check_all(policy: Policy, left: Left) {
    let log = build(policy, left);
    assert!(log.segments.len() > 5, "{} segments", log.segments.len());
    assert_eq!(log.losses.is_empty(), left != Left::KilledAfterCut, "{:?}", log.losses);
    for seed in seeds(500) {
        check(&log, seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[test]
fn damage_to_a_server_log_that_was_closed_is_named() {
    check_all(Policy::Server, Left::Closed);
}

#[test]
fn damage_to_a_server_log_that_was_killed_is_named() {
    check_all(Policy::Server, Left::Killed);
}

#[test]
fn damage_to_a_server_log_with_a_cut_in_it_is_named() {
    check_all(Policy::Server, Left::KilledAfterCut);
}

#[test]
fn damage_to_an_outbox_that_was_closed_is_named() {
    check_all(Policy::Ring, Left::Closed);
}

#[test]
fn damage_to_an_outbox_that_was_killed_is_named() {
    check_all(Policy::Ring, Left::Killed);
}

#[test]
fn a_missing_segment_is_named() {
    let log = build(Policy::Server, Left::Closed);
    let with_data = |segment: &Segment| segment.frames.iter().any(|frame| frame.is_data);
    // Not the last: a log without its end looks like a log that ended there. The watermark of the caller tells.
    for (i, segment) in log.segments.iter().enumerate().take(log.segments.len() - 1) {
        let disk = log.disk.fork();
        disk.remove_file(&segment_path(segment.id)).unwrap();
        let (served, recovery, _) = open(&disk, log.policy, 4).unwrap();
        let all: usize = log.segments.iter().flat_map(|s| &s.frames).map(|frame| frame.records.len()).sum();
        let gone: usize = segment.frames.iter().map(|frame| frame.records.len()).sum();
        assert_eq!(served.len(), all - gone);
        if i == 0 {
            assert_eq!(recovery.first, log.segments[1].frames[0].offset, "seen by who knows where it began");
        } else if with_data(segment) {
            let named = recovery.losses.iter().any(|loss| {
                loss.certainty == Certainty::Certain
                    && segment.frames.iter().all(|frame| !frame.is_data || covers(loss, frame))
            });
            assert!(named, "segment {}: {:#?}", segment.id, recovery.losses);
        }
    }
}

#[test]
fn a_segment_of_a_newer_format_is_refused_and_nothing_is_changed() {
    let log = build(Policy::Server, Left::Killed);
    for segment in &log.segments {
        let mut bytes = segment.bytes.clone();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..BLOCK as usize]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        let disk = log.disk.fork();
        disk.plant(&segment_path(segment.id), &bytes).unwrap();
        let before = disk.ops();
        let refused = open(&disk, log.policy, 4).unwrap_err();
        assert!(matches!(refused, WalError::NewerFormat { version: 2, .. }), "{refused}");
        assert_eq!(disk.ops(), before);
    }
}

#[test]
fn a_frame_that_is_damaged_after_the_log_was_opened_is_an_error_and_no_record() {
    let disk = sim();
    let rig = Rig::on(&disk, 1);
    rig.append(b"a");
    rig.append(b"b");
    let file = disk.open_write(&segment_path(1)).unwrap();
    file.write_all_at(b"X", 3 * BLOCK + 84).unwrap();
    let mut reader = rig.wal.reader(0);
    assert_eq!(reader.next().unwrap().unwrap().records().next(), Some(b"a".as_slice()));
    let error = reader.next().unwrap().unwrap_err();
    assert!(matches!(error, WalError::Corrupt { at, .. } if at == 3 * BLOCK), "{error}");
    assert!(reader.next().is_none());
}
