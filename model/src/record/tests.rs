use super::*;
use crate::{BatchBuilder, Rng, SplitMix64, Value};

const TABLE: TableId = TableId(*b"0123456789abcdef");

fn pick<'a, T: ?Sized>(rng: &SplitMix64, of: &[&'a T]) -> &'a T {
    of[rng.below(of.len() as u64) as usize]
}

/// A batch of up to 200 rows and 5 names, with every type, sparse and dense columns, and no rows now and then.
fn seeded(seed: u64) -> TableBatch {
    let rng = SplitMix64::new(seed);
    let names = ["t", "température", "a b", "x", "y"];
    let texts = ["", "x", "déjà vu", "a text that is longer than the others"];
    let mut batch = BatchBuilder::new(TableName::new(pick(&rng, &["public", "plant"]), pick(&rng, &names)));
    let all_present = rng.below(2) == 0;
    let columns = 1 + rng.below(5);
    for row in 0..rng.below(200) {
        let tags = (0..rng.below(4)).map(|i| (names[i as usize], pick(&rng, &texts)));
        let series = batch.intern_series(SeriesKey::from_tags(tags));
        batch.start_row(series, rng.next_u64() as i64, row as u32);
        for column in 0..columns {
            if !all_present && rng.below(3) == 0 {
                continue;
            }
            let value = match (column + seed) % 6 {
                0 => Value::F64(f64::from_bits(rng.next_u64() >> 2)),
                1 => Value::I64(rng.next_u64() as i64),
                2 => Value::U64(rng.next_u64()),
                3 => Value::Bool(rng.below(2) == 1),
                4 => {
                    let digits = if seed.is_multiple_of(4) { 9 } else { decimal::DIGITS_MAX };
                    Value::Decimal {
                        units: rng.next_u64() as i64 % decimal::units_end(digits),
                        scale: (seed % 19) as u8,
                    }
                }
                _ => Value::Text(pick(&rng, &texts)),
            };
            let name = names[(column + seed / 5) as usize % 5];
            let field_type = match value {
                Value::Decimal { units, scale } if decimal::units_end(9) > units.abs() && scale <= 9 => {
                    FieldType::Decimal { digits: 9, scale }
                }
                value => value.field_type(),
            };
            let column = batch.field_column(name, field_type);
            batch.set(column, value);
        }
    }
    batch.finish()
}

fn encoded(batch: &TableBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_batch(TABLE, "http 127.0.0.1:50412", batch, &mut bytes);
    bytes
}

#[test]
fn what_is_logged_reads_back_without_line_numbers() {
    for seed in 0..500 {
        let mut batch = seeded(seed);
        let bytes = encoded(&batch);
        batch.lines.fill(0);
        let source = "http 127.0.0.1:50412".to_owned();
        assert_eq!(decode(&bytes), Ok(Record::Batch { table: TABLE, source, batch }), "seed {seed}");
    }
}

#[test]
fn a_row_of_three_floats_takes_36_bytes() {
    let mut batch = BatchBuilder::new(TableName::public("env"));
    let series = batch.intern_series(SeriesKey::from_tags([("device", "d1")]));
    let columns = ["temperature", "pressure", "humidity"].map(|name| batch.field_column(name, FieldType::F64));
    for row in 0..1000 {
        batch.start_row(series, row, 0);
        columns.iter().for_each(|column| batch.set(*column, Value::F64(1.0)));
    }
    let batch = batch.finish();
    let len = encoded(&batch).len();
    assert!((36_000..36_200).contains(&len), "{len} bytes");
    assert!(len <= encoded_len("http 127.0.0.1:50412", &batch), "the estimate is too low");
}

/// The example of `docs/formats/record.md`: these bytes are what released versions wrote (P13).
#[test]
fn the_layout_is_the_documented_one() {
    let mut batch = BatchBuilder::new(TableName::public("env"));
    let series = batch.intern_series(SeriesKey::from_tags([("d", "1")]));
    let on = batch.field_column("on", FieldType::Bool);
    let note = batch.field_column("note", FieldType::Text);
    batch.start_row(series, 1, 1);
    batch.set(on, Value::Bool(true));
    batch.start_row(series, -1, 2);
    batch.set(on, Value::Bool(false));
    batch.set(note, Value::Text("é"));
    let mut bytes = Vec::new();
    encode_batch(TABLE, "s", &batch.finish(), &mut bytes);
    let expected = [
        &[1, 1][..],
        b"0123456789abcdef",
        &[1, 0, 0, 0, b's'],
        &[6, 0, 0, 0],
        b"public",
        &[3, 0, 0, 0],
        b"env",
        // Series: one, its end, its key.
        &[1, 0, 0, 0, 8, 0, 0, 0],
        &[1, 0, b'd', 1, 0, 0, 0, b'1'],
        // Rows: two, their series, their times.
        &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
        // Fields: two.
        &[2, 0, 0, 0],
        &[2, 0, 0, 0, b'o', b'n', 4, 1],
        &[0b01, 0, 0, 0, 0, 0, 0, 0],
        &[4, 0, 0, 0, b'n', b'o', b't', b'e', 5, 0],
        &[0b10, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 2, 0, 0, 0, 0xc3, 0xa9],
    ];
    assert_eq!(bytes, expected.concat());
}

/// The other example of `docs/formats/record.md`.
#[test]
fn the_layout_of_decimals_is_the_documented_one() {
    let mut batch = BatchBuilder::new(TableName::public("env"));
    let series = batch.intern_series(SeriesKey::from_tags([] as [(&str, &str); 0]));
    let column = batch.field_column("t", FieldType::Decimal { digits: 9, scale: 1 });
    batch.start_row(series, 1, 1);
    batch.set(column, Value::Decimal { units: -215, scale: 1 });
    let mut bytes = Vec::new();
    encode_batch(TABLE, "s", &batch.finish(), &mut bytes);
    let field = [&[1, 0, 0, 0, 1, 0, 0, 0, b't', 6, 9, 1, 1][..], &[0x29, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]];
    assert!(bytes.ends_with(&field.concat()), "{bytes:x?}");
}

#[test]
fn a_newer_version_or_kind_is_told_apart_from_damage() {
    let bytes = encoded(&seeded(1));
    for (at, newer) in [(0, (2, 1)), (1, (1, 6))] {
        let mut bytes = bytes.clone();
        bytes[at] = if at == 0 { newer.0 } else { newer.1 };
        assert_eq!(decode(&bytes), Err(RecordError::NewerFormat { version: newer.0, kind: newer.1 }));
    }
}

#[test]
fn every_cut_and_every_byte_too_many_is_an_error() {
    let bytes = encoded(&seeded(3));
    for len in 0..bytes.len() {
        assert!(matches!(decode(&bytes[..len]), Err(RecordError::Malformed { .. })), "cut to {len} bytes");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(decode(&longer), Err(RecordError::Malformed { what: "bytes after the last field", .. })));
}

/// A record by hand: two series, two rows, one field as given.
fn check(series_keys: &[u8], ends: [u32; 2], series_of: [u32; 2], field: &[u8], expected: &str) {
    let mut bytes = vec![1, 1];
    bytes.extend_from_slice(&TABLE.0);
    for text in ["s", "public", "t"] {
        put_text(&mut bytes, text);
    }
    put_len(&mut bytes, 2);
    put_array(&mut bytes, &ends, u32::to_le_bytes);
    bytes.extend_from_slice(series_keys);
    put_len(&mut bytes, 2);
    put_array(&mut bytes, &series_of, u32::to_le_bytes);
    put_array(&mut bytes, &[5, 6], i64::to_le_bytes);
    bytes.extend_from_slice(field);
    match (decode(&bytes), expected) {
        (Ok(_), "ok") => {}
        (Err(RecordError::Malformed { what, .. }), expected) if what == expected => {}
        (got, _) => panic!("wanted {expected:?}, got {got:?}"),
    }
}

#[test]
fn each_broken_invariant_is_named() {
    let keys = b"\x01\0a\x01\0\0\x001\x01\0b\x01\0\0\x001";
    let none = 0_u32.to_le_bytes();
    check(keys, [8, 16], [0, 1], &none, "ok");
    check(keys, [0, 8], [0, 1], &none, "the record ends too early");
    check(&keys[..8], [0, 8], [0, 1], &none, "ok");
    check(keys, [16, 16], [0, 1], &none, "ok");
    check(keys, [17, 16], [0, 1], &none, "ends of series keys decrease");
    check(keys, [7, 16], [0, 1], &none, "a series key is not canonical");
    check(&[&keys[..8], &keys[..8]].concat(), [8, 16], [0, 1], &none, "a series stands there twice");
    check(keys, [8, 16], [0, 2], &none, "a row names a series that is not there");

    let check = |fields: &[&[u8]], expected: &str| {
        let mut bytes = (fields.len() as u32).to_le_bytes().to_vec();
        fields.iter().for_each(|field| bytes.extend_from_slice(field));
        check(keys, [8, 16], [0, 1], &bytes, expected);
    };
    check(&[b"\x01\0\0\0x\x06\x12\x12\x01\xff\xff\x63\xa7\xb3\xb6\xe0\x0d\0\0\0\0\0\0\0\0"], "ok");
    let finer = "a decimal of no digits, or of more than 18, or of more behind the point";
    for digits in [b"\x13\x01", b"\0\0", b"\x03\x04"] {
        check(&[&[&b"\x01\0\0\0x\x06"[..], digits, b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"].concat()], finer);
    }
    let long = "a decimal of more digits than its type has";
    check(&[b"\x01\0\0\0x\x06\x09\x01\x01\0\xca\x9a\x3b\0\0\0\0\xff\xc9\x9a\x3b\0\0\0\0"], long);
    check(&[b"\x01\0\0\0x\x06\x12\x12\x01\0\0\x64\xa7\xb3\xb6\xe0\x0d\0\0\0\0\0\0\0\0"], long);
    let boolean = b"\x01\0\0\0x\x04\x01\x03\0\0\0\0\0\0\0".as_slice();
    check(&[boolean], "ok");
    check(&[boolean, boolean], "two fields have the same name and type");
    check(&[b"\x01\0\0\0\xff\x04\x01\x03\0\0\0\0\0\0\0"], "a name is not UTF-8");
    check(&[b"\x01\0\0\0x\x09\x01\x03\0\0\0\0\0\0\0"], "unknown field type");
    check(&[b"\x01\0\0\0x\x04\x02\x03\0\0\0\0\0\0\0"], "unknown form of validity");
    check(&[b"\x01\0\0\0x\x04\x01\x04\0\0\0\0\0\0\0"], "booleans past the last row");
    let not_canonical = "validity bits past the last row, or all of them set";
    check(&[b"\x01\0\0\0x\x04\x00\x04\0\0\0\0\0\0\0"], not_canonical);
    check(&[b"\x01\0\0\0x\x04\x00\x03\0\0\0\0\0\0\0"], not_canonical);
    check(&[b"\x01\0\0\0x\x05\x01\x01\0\0\0\x03\0\0\0abc"], "ok");
    check(&[b"\x01\0\0\0x\x05\x01\x04\0\0\0\x03\0\0\0abc"], "a text ends inside a character or past the last one");
    check(&[b"\x01\0\0\0x\x05\x01\x01\0\0\0\x02\0\0\0\xc3\xa9"], "a text ends inside a character or past the last one");
    check(&[b"\x01\0\0\0x\x05\x01\x02\0\0\0\x01\0\0\0a"], "a text ends inside a character or past the last one");
    check(&[b"\x01\0\0\0x\x05\x01\x02\0\0\0\x02\0\0\0a\xff"], "a text is not UTF-8");
}

#[test]
#[should_panic(expected = "has 1 values")]
fn a_batch_that_breaks_its_invariants_is_not_logged() {
    let mut batch = seeded(1);
    batch.fields[0].values = FieldValues::I64(vec![0]);
    encoded(&batch);
}

#[test]
fn hostile_bytes_neither_panic_nor_pass_for_what_they_are_not() {
    let mut originals: Vec<Vec<u8>> = (0..40).map(|seed| encoded(&seeded(seed))).collect();
    originals.extend((0..30).map(|seed| again(&about_agent(seed))));
    originals.extend((0..20).map(|seed| again(&removal(seed))));
    for seed in 0..40_000 {
        let rng = SplitMix64::new(seed);
        let mut bytes = originals[rng.below(90) as usize].clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(6) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes[at] = rng.next_u64() as u8,
                2 => bytes.truncate(at + 1),
                3 => bytes.insert(at, rng.next_u64() as u8),
                4 => drop(bytes.remove(at)),
                _ => {
                    let word: u32 = if rng.below(2) == 0 { u32::MAX } else { rng.below(300) as u32 };
                    let end = bytes.len().min(at + 4);
                    bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        // Everything that is read back is what the bytes said, to the bit.
        if let Ok(record) = decode(&bytes) {
            if let Record::Batch { batch, .. } = &record {
                batch.assert_sound();
            }
            assert!(again(&record) == bytes, "seed {seed}: decoded, but encodes to other bytes");
        }
    }
}

/// The bytes of any record.
fn again(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    match record {
        Record::Batch { table, source, batch } => encode_batch(*table, source, batch, &mut bytes),
        Record::AgentBatch(batch) => encode_agent_batch(batch, &mut bytes),
        Record::AgentStatus(status) => encode_agent_status(status, &mut bytes),
        Record::AgentState(state) => encode_agent_state(state, &mut bytes),
        Record::Removal { table, source, removal } => encode_removal(*table, source, removal, &mut bytes),
    }
    bytes
}

/// A record about an agent, of each kind in turn.
fn about_agent(seed: u64) -> Record {
    let rng = SplitMix64::new(seed);
    let maybe = |rng: &SplitMix64| (rng.below(2) == 0).then(|| rng.next_u64());
    let agent = pick(&rng, &["pi-7", "Fühler 3", "x"]).into();
    match seed % 3 {
        0 => Record::AgentBatch(AgentBatchRecord {
            agent,
            epoch: rng.next_u64(),
            seq: 1 + rng.below(1000),
            crc: rng.next_u64() as u32,
            seen: [Seen::New, Seen::Duplicate, Seen::Conflict][rng.below(3) as usize],
            received_us: rng.next_u64() as i64,
            readings: rng.below(1000),
            gaps: (0..rng.below(4))
                .map(|_| {
                    let first_seq = 1 + rng.below(1000);
                    AgentGap {
                        first_seq,
                        last_seq: first_seq + rng.below(1000),
                        readings: maybe(&rng),
                        reason: pick(&rng, &["outbox_full", ""]).into(),
                        time_us: rng.next_u64() as i64,
                    }
                })
                .collect(),
        }),
        1 => Record::AgentStatus(AgentStatusRecord {
            agent,
            received_us: rng.next_u64() as i64,
            online: rng.below(2) == 0,
            version: (rng.below(2) == 0).then(|| "0.1.0".into()),
            epoch: maybe(&rng),
            seq: maybe(&rng),
            backlog_batches: maybe(&rng),
            backlog_bytes: maybe(&rng),
        }),
        _ => Record::AgentState(AgentState {
            agent,
            as_of: rng.next_u64(),
            first_seen_us: rng.next_u64() as i64,
            last_seen_us: rng.next_u64() as i64,
            online: [None, Some(false), Some(true)][rng.below(3) as usize],
            version: (rng.below(2) == 0).then(|| "0.1.0".into()),
            backlog_batches: maybe(&rng),
            backlog_bytes: maybe(&rng),
            counters: AgentCounters { batches: rng.next_u64(), readings: 2, gaps: 3, duplicates: 4, conflicts: 5 },
            epochs: (0..rng.below(3))
                .map(|epoch| (epoch, rng.below(5)))
                .map(|(epoch, ranges)| AgentEpoch {
                    epoch,
                    highest: rng.next_u64(),
                    accounted: (0..ranges).map(|i| (1 + 10 * i, 5 + 10 * i + rng.below(5))).collect(),
                    given_up: (0..ranges / 2).map(|i| (1 + 10 * i + rng.below(3), 3 + 10 * i + rng.below(3))).collect(),
                    recent: (0..rng.below(20)).map(|_| (1 + rng.below(99), rng.next_u64() as u32)).collect(),
                    gaps: (0..rng.below(3))
                        .map(|i| EpochGap {
                            first_seq: 1 + i,
                            last_seq: 1 + i + rng.below(9),
                            received: rng.below(2),
                            time_us: rng.next_u64() as i64,
                            reported: rng.below(2) == 0,
                        })
                        .collect(),
                })
                .collect(),
        }),
    }
}

fn reads_back_and_every_cut_is_an_error(record: Record, seed: u64) {
    let mut bytes = again(&record);
    assert_eq!(decode(&bytes), Ok(record), "seed {seed}");
    for len in 0..bytes.len() {
        assert!(matches!(decode(&bytes[..len]), Err(RecordError::Malformed { .. })), "{seed}: cut to {len} bytes");
    }
    bytes.push(0);
    assert!(matches!(decode(&bytes), Err(RecordError::Malformed { what: "bytes after the last field", .. })));
}

#[test]
fn what_is_logged_of_agents_reads_back_and_every_cut_of_it_is_an_error() {
    for seed in 0..300 {
        reads_back_and_every_cut_is_an_error(about_agent(seed), seed);
    }
}

/// The examples of `docs/formats/record.md`: these bytes are what released versions wrote (P13).
#[test]
fn the_layout_of_records_about_agents_is_the_documented_one() {
    let gap = AgentGap { first_seq: 2, last_seq: 3, readings: Some(9), reason: "damaged".into(), time_us: -1 };
    let batch = AgentBatchRecord {
        agent: "pi".into(),
        epoch: 7,
        seq: 4,
        crc: 0x0102_0304,
        seen: Seen::New,
        received_us: 5,
        readings: 6,
        gaps: vec![gap],
    };
    let expected = [
        &[1, 2, 2, 0, 0, 0, b'p', b'i'][..],
        &[7, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 1],
        &[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0, b'd', b'a', b'm', b'a', b'g', b'e', b'd'],
        &[255, 255, 255, 255, 255, 255, 255, 255],
    ];
    assert_eq!(again(&Record::AgentBatch(batch)), expected.concat());
    let status = AgentStatusRecord {
        agent: "pi".into(),
        received_us: 5,
        online: true,
        version: Some("1".into()),
        epoch: Some(7),
        seq: None,
        backlog_batches: None,
        backlog_bytes: None,
    };
    let expected = [
        &[1, 3, 2, 0, 0, 0, b'p', b'i', 5, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[1, 1, 0, 0, 0, b'1', 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(again(&Record::AgentStatus(status)), expected.concat());
    let gap = EpochGap { first_seq: 2, last_seq: 4, received: 1, time_us: -1, reported: true };
    let state = AgentState {
        agent: "pi".into(),
        as_of: 9,
        first_seen_us: 5,
        last_seen_us: 6,
        online: Some(true),
        version: None,
        backlog_batches: None,
        backlog_bytes: Some(8),
        counters: AgentCounters { batches: 1, readings: 2, gaps: 3, duplicates: 4, conflicts: 5 },
        epochs: vec![AgentEpoch {
            epoch: 7,
            highest: 5,
            accounted: vec![(1, 5)],
            given_up: vec![(2, 3)],
            recent: vec![(5, 0x0102_0304)],
            gaps: vec![gap],
        }],
    };
    let expected = [
        &[1, 4, 2, 0, 0, 0, b'p', b'i', 9, 0, 0, 0, 0, 0, 0, 0][..],
        &[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        &[4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1],
        &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[255, 255, 255, 255, 255, 255, 255, 255, 1],
    ];
    assert_eq!(again(&Record::AgentState(state)), expected.concat());
}

#[test]
fn broken_records_about_agents_are_named() {
    let Record::AgentState(mut state) = about_agent(2) else { panic!("a state") };
    let epoch = |accounted: &[(u64, u64)]| AgentEpoch { accounted: accounted.to_vec(), ..AgentEpoch::default() };
    // Ranges of `accounted`, then of `given_up`.
    for (good, accounted) in [
        (true, &[(1_u64, 2_u64), (4, 4)][..]),
        (true, &[(1, u64::MAX)]),
        (false, &[(0, 2)]),
        (false, &[(3, 2)]),
        (false, &[(1, 2), (3, 4)]),
        (false, &[(1, u64::MAX), (5, 6)]),
    ] {
        state.epochs = vec![epoch(&[(1, 2); 2][..accounted.len()])];
        state.epochs[0].accounted = vec![(1, 1), (9, 9)][..accounted.len()].to_vec();
        let mut bytes = again(&Record::AgentState(state.clone()));
        let end = bytes.len() - 12;
        for (i, (first, last)) in accounted.iter().rev().enumerate() {
            let at = end - 16 * (i + 1);
            bytes[at..at + 8].copy_from_slice(&first.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&last.to_le_bytes());
        }
        assert_eq!(decode(&bytes).is_ok(), good, "{accounted:?}");
    }
    for (good, given_up) in [
        (true, [(1_u64, 2_u64), (4, 4)]),
        (true, [(3, 3), (7, u64::MAX)]),
        (false, [(1, 2), (3, 3)]),
        (false, [(2, 1), (7, 7)]),
        (false, [(0, 1), (7, 7)]),
        (false, [(1, 1), (4, 5)]),
        (false, [(1, 5), (7, 7)]),
        (false, [(3, 7), (9, 9)]),
    ] {
        state.epochs = vec![epoch(&[(1, 4), (7, u64::MAX)])];
        state.epochs[0].given_up = vec![(1, 1), (9, 9)];
        let mut bytes = again(&Record::AgentState(state.clone()));
        let at = bytes.len() - 8 - 32;
        let numbers = given_up.iter().flat_map(|(first, last)| [first.to_le_bytes(), last.to_le_bytes()]);
        bytes.splice(at..at + 32, numbers.flatten());
        assert_eq!(decode(&bytes).is_ok(), good, "{given_up:?}");
    }
}

#[test]
fn a_count_beyond_the_bytes_allocates_nothing() {
    let about = [about_agent(0), about_agent(1), about_agent(5), removal(2), removal(3)];
    for bytes in about.iter().map(again).chain([encoded(&seeded(2))]) {
        // Each u32 of the record in turn becomes 4 billion; an allocation of that many entries would abort.
        for at in 2..bytes.len() - 4 {
            let mut bytes = bytes.clone();
            bytes[at..at + 4].fill(0xff);
            let _ = decode(&bytes);
        }
    }
}

/// A removal of whole rows, or of fields of rows.
fn removal(seed: u64) -> Record {
    let rng = SplitMix64::new(seed);
    let keys: Vec<SeriesKey> = (0..5).map(|n| SeriesKey::from_tags([("d", format!("é{n}"))])).collect();
    let rows: Vec<(&SeriesKey, i64)> =
        (0..rng.below(30)).map(|_| (&keys[rng.below(5) as usize], rng.next_u64() as i64)).collect();
    let mut removal = Removal::of_rows(TableName::new(pick(&rng, &["public", "plant"]), "t"), rows);
    if seed % 2 == 1 {
        removal.fields = Some((0..1 + rng.below(3)).map(|n| format!("f{n}").into()).collect());
    }
    Record::Removal { table: TABLE, source: "sql".into(), removal }
}

#[test]
fn a_removal_reads_back_and_every_cut_of_it_is_an_error() {
    for seed in 0..200 {
        reads_back_and_every_cut_is_an_error(removal(seed), seed);
    }
}

/// The example of `docs/formats/record.md`: these bytes are what released versions wrote (P13).
#[test]
fn the_layout_of_a_removal_is_the_documented_one() {
    let key = SeriesKey::from_tags([("d", "1")]);
    let rows = Removal::of_rows(TableName::public("env"), [(&key, 1), (&key, -1)]);
    let cells = Removal { fields: Some(vec!["on".into()]), ..rows.clone() };
    let head = [
        &[1, 5][..],
        b"0123456789abcdef",
        &[1, 0, 0, 0, b's'],
        &[6, 0, 0, 0],
        b"public",
        &[3, 0, 0, 0],
        b"env",
        &[1, 0, 0, 0, 8, 0, 0, 0],
        &[1, 0, b'd', 1, 0, 0, 0, b'1'],
        &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
    ]
    .concat();
    for (removal, tail) in [(rows, &[0][..]), (cells, &[1, 1, 0, 0, 0, 2, 0, 0, 0, b'o', b'n'])] {
        let bytes = again(&Record::Removal { table: TABLE, source: "s".into(), removal });
        assert_eq!(bytes, [&head, tail].concat());
    }
}

#[test]
fn broken_removals_are_named() {
    let Record::Removal { removal, .. } = removal(1) else { panic!("a removal") };
    let key = SeriesKey::from_tags([("d", "1")]);
    let one = Removal { fields: removal.fields, ..Removal::of_rows(TableName::public("t"), [(&key, 1)]) };
    let bytes = again(&Record::Removal { table: TABLE, source: "s".into(), removal: one.clone() });
    let fields = bytes.len() - one.fields.iter().flatten().map(|field| 4 + field.len()).sum::<usize>();
    let check = |at: usize, to: u8, what: &'static str| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        match decode(&bytes) {
            Err(RecordError::Malformed { what: got, .. }) => assert_eq!(got, what),
            got => panic!("{got:?}"),
        }
    };
    check(fields - 5, 2, "unknown form of what is removed");
    check(fields - 5 - 12, 1, "a row names a series that is not there");
    let none = [&bytes[..fields - 4], &[0; 4]].concat();
    assert!(matches!(decode(&none), Err(RecordError::Malformed { what: "a removal of no fields", .. })));
    let name = [2, 0, 0, 0, b'o', b'n'];
    let twice = [&bytes[..fields - 4], &[2, 0, 0, 0], &name, &name].concat();
    assert!(matches!(decode(&twice), Err(RecordError::Malformed { what: "a field stands there twice", .. })));
}
