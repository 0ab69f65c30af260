//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`
//!
//! Writes what the search begins with into `corpus/<target>/seed-*`: what our own writers make, and the corpora of `decode`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ::wal::disk::{Disk, create_dir_all, read_file};
use faults::SimDisk;
use flate2::write::GzEncoder;
use fuzz::{outbox, segments, wal};
use model::record::{
    self, AgentBatchRecord, AgentCounters, AgentEpoch, AgentGap, AgentState, AgentStatusRecord, EpochGap, Seen,
};
use model::{BatchBuilder, Removal, SeriesKey, TableId, TableName, Value};

fn main() {
    let of_decode = |folder: &str| files(&root().join("../decode").join(folder));
    let lines = of_decode("corpus/line_protocol");
    let packed = [b"m v=1 1\n".to_vec(), b"m,t=a v=1 1\n".repeat(200)];
    let prefixed = |first: u8, bytes: &[u8]| [&[first], bytes].concat();
    let heads = lines.iter().filter_map(|body| body.strip_prefix(b"# eden ").map(<[u8]>::to_vec));
    write("agent_head", heads);
    write("line_protocol", lines.clone());
    write("csv", texts(CSV));
    write("json_lines", texts(JSON_LINES));
    write("mqtt", MQTT.iter().map(|talk| bytes(talk)));
    write("otlp_json", of_decode("tests/corpus/otlp_json"));
    write("otlp_protobuf", of_decode("tests/corpus/otlp"));
    let bodies = of_decode("tests/corpus/prometheus");
    let prometheus = (0..4).flat_map(|which: u8| {
        let body = move |body: &Vec<u8>| match which & 2 == 0 {
            true => body.clone(),
            false => snap::raw::Encoder::new().compress_vec(body).expect("it packs what is there"),
        };
        bodies.iter().map(move |bytes| prefixed(which, &body(bytes)))
    });
    write("prometheus", prometheus);
    write("record", records());
    let rules = fuzz::rules::seeds();
    write("rules", rules);
    write("settings", texts(SETTINGS));
    write("sparkplug", [sparkplug()]);
    let unpack = packed.iter().flat_map(|bytes| {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(bytes).expect("a vector takes bytes");
        [
            prefixed(0, &gzip.finish().expect("a vector takes bytes")),
            prefixed(1, &zstd::encode_all(&**bytes, 1).expect("it packs what is there")),
            prefixed(2, &snap::raw::Encoder::new().compress_vec(bytes).expect("it packs what is there")),
        ]
    });
    write("unpack", unpack);
    write("wal", [ring(1), ring(2)]);
    write("outbox", [outbox_log(false), outbox_log(true)]);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable file")).collect()
}

fn write(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
    let folder = root().join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a writable folder");
    for (number, bytes) in seeds.into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:02}")), bytes).expect("a writable folder");
    }
}

fn texts(of: &[&str]) -> Vec<Vec<u8>> {
    of.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const CSV: &[&str] = &[
    ",time,room,v\n2026-06-01T00:00:00Z,a,1.5\n2026-06-01T00:00:01Z,\"b, \"\"c\"\"\nd\",\n",
    ";a;\"\";5\" pipe\r\n;;\r\n\"x\" ;y",
    "\ta\t\"b\nc\td\"\te\n",
];

const JSON_LINES: &[&str] = &[
    "{\"time\":1780272000,\"room\":\"a\",\"motor\":{\"current\":{\"l1\":3,\"l2\":[1,2,{\"x\":null}]}},\"on\":true}\n",
    "{\"a\":null,\"b\":{},\"c\":-1.5e300,\"d\":18446744073709551615,\"e\":\"\\ud83d\\ude00\\n\"}\n{\"a.b\":1,\"a\":{\"b\":2}}\n",
];

/// The version, then packets as they come: numbers in hexadecimal, texts in quotes with their length in front.
const MQTT: &[&str] = &[
    "00 10 0d 'MQTT' 04 02 003c 'c'",
    "00 10 31 'MQTT' 04 ee 003c 'c' 'w/t' 'gone' 'user' 'secret of it'",
    "00 10 0f 'MQIsdp' 03 02 003c 'c'",
    "00 10 2b 'MQTT' 05 06 003c 08 11 0000000a 21 0010 'c' 05 18 00000005 'w' 'x' ",
    "01 32 0a 'lp/x' 0001 6d 20 c0 00",
    "02 3b 11 'lp/x' 0007 6d 20 76 3d 31 20 31 30 30 62 02 0007 e0 00",
    "02 82 0e 0001 'eden/v1/#' 01 a2 08 0002 'lp/x'",
    "03 32 1b 'lp/x' 0001 0c 01 01 02 00000005 23 0001 26 'a' 'b' 6d 20 76 3d 31",
    "03 82 0c 0001 00 'a/+/b' 2d 40 04 0001 10 00 62 03 0001 92",
    "03 e0 07 04 05 11 00000000",
];

fn bytes(talk: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, part) in talk.split('\'').enumerate() {
        if number % 2 == 1 {
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part.as_bytes());
            continue;
        }
        for word in part.split_whitespace() {
            let digit = |at: usize| u8::from_str_radix(&word[at..at + 2], 16).expect("two digits");
            out.extend((0..word.len()).step_by(2).map(digit));
        }
    }
    out
}

const SETTINGS: &[&str] = &[
    "[agent]\nid = \"pi-7\"\nlog = \"info,edge_agent=debug\"\ngrace = \"5s\"\n\n[batch]\nmax_readings = 1_000\n\n[outbox]\ndir = \
     \"./o\"\nmax_bytes = \"256MiB\"\nsync_interval = \"1500ms\"\n\n[uplink]\nin_flight = 32\nstatus_interval = \"30s\"\n\n\
     [[server]]\nurl = \"mqtt://127.0.0.1:1883\"\nmqtt_version = \"5\"\n\n[[server]]\nurl = 'http://[::1]'\n\n[[sensor]]\ndriver = \
     \"simulated-bmp180\"\nname = \"s\"\ninterval = \"1h\"\ntable = \"air\"\ntags = { room = \"k\", \"a b\" = '''x''' }\nseed = 0x7\n",
    "[agnt]\nid = 5",
    "[outbox]\nmax_bytes = 1.5\n",
];

fn records() -> Vec<Vec<u8>> {
    let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        out
    };
    let table = TableId([7; 16]);
    let mut batch = BatchBuilder::new(TableName::public("air"));
    for row in 0..3_i64 {
        let series = batch.intern_series(SeriesKey::from_tags([("room", if row == 1 { "a" } else { "b" })]));
        batch.start_row(series, 1_780_272_000_000_000 + row, row as u32);
        let values = [
            ("f", Value::F64(21.5)),
            ("i", Value::I64(-row)),
            ("u", Value::U64(u64::MAX)),
            ("t", Value::Text("text")),
            ("b", Value::Bool(true)),
            ("d", Value::Decimal { units: 215, scale: 1 }),
        ];
        for (name, value) in values.into_iter().skip(row as usize) {
            let column = batch.field_column(name, value.field_type());
            batch.set(column, value);
        }
    }
    let batch = batch.finish();
    let gap = AgentGap { first_seq: 1, last_seq: 2, readings: Some(9), reason: "outbox_full".into(), time_us: 5 };
    let of_agent = AgentBatchRecord {
        agent: "pi-7".into(),
        epoch: 9,
        seq: 3,
        crc: 77,
        seen: Seen::New,
        received_us: 5,
        readings: 3,
        gaps: vec![gap],
    };
    let status = AgentStatusRecord {
        agent: "pi-7".into(),
        received_us: 5,
        online: true,
        version: Some("0.1.0".into()),
        epoch: Some(9),
        seq: None,
        backlog_batches: Some(1),
        backlog_bytes: None,
    };
    let epoch = AgentEpoch {
        epoch: 9,
        highest: 12,
        accounted: vec![(1, 9), (12, 12)],
        given_up: vec![(1, 2)],
        recent: vec![(9, 5), (12, 6)],
        gaps: vec![EpochGap { first_seq: 1, last_seq: 2, received: 0, time_us: 5, reported: true }],
    };
    let state = AgentState {
        agent: "pi-7".into(),
        as_of: 8192,
        first_seen_us: 1,
        last_seen_us: 2,
        online: Some(true),
        version: None,
        backlog_batches: None,
        backlog_bytes: Some(3),
        counters: AgentCounters { batches: 9, ..AgentCounters::default() },
        epochs: vec![epoch],
    };
    let key = SeriesKey::from_tags([("room", "a")]);
    let removal = Removal::of_rows(TableName::public("air"), [(&key, 5), (&key, 6)]);
    vec![
        encoded(&|out| record::encode_batch(table, "http 127.0.0.1:1", &batch, out)),
        encoded(&|out| record::encode_agent_batch(&of_agent, out)),
        encoded(&|out| record::encode_agent_status(&status, out)),
        encoded(&|out| record::encode_agent_state(&state, out)),
        encoded(&|out| record::encode_removal(table, "sql", &removal, out)),
    ]
}

/// NBIRTH with aliases, a template and a data set, DBIRTH, NDATA by alias, NDEATH.
fn sparkplug() -> Vec<u8> {
    let message = |topic: u8, payload: &[u8]| {
        let mut out = vec![topic];
        out.extend((payload.len() as u16).to_be_bytes());
        out.extend(payload);
        out
    };
    let bd_seq = metric(Some("bdSeq"), None, Some(8), number(11, 3));
    let speed = metric(Some("speed"), Some(1), Some(9), [vec![12 << 3 | 5], 21.5_f32.to_le_bytes().to_vec()].concat());
    let inner = field(2, &metric(Some("on"), None, Some(11), number(14, 1)));
    let template = metric(Some("motor/a"), None, Some(19), field(18, &inner));
    let text = metric(Some("note"), Some(2), Some(12), field(15, b"text"));
    let birth = payload(Some(0), &[bd_seq.clone(), speed, template, text]);
    let device = payload(Some(1), &[metric(Some("force/x"), Some(3), Some(3), number(10, 0xffff_fffb))]);
    let data = payload(Some(2), &[metric(None, Some(1), None, [vec![12 << 3 | 5], vec![0; 4]].concat())]);
    let null = payload(Some(3), &[metric(None, Some(3), None, number(7, 1))]);
    let death = payload(None, &[bd_seq]);
    [message(0, &birth), message(2, &device), message(1, &data), message(3, &null), message(5, &death)].concat()
}

fn payload(seq: Option<u64>, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut out = number(1, 1_780_272_000_000);
    metrics.iter().for_each(|metric| out.extend(field(2, metric)));
    out.extend(seq.map(|seq| number(3, seq)).unwrap_or_default());
    out
}

fn metric(name: Option<&str>, alias: Option<u64>, datatype: Option<u64>, value: Vec<u8>) -> Vec<u8> {
    let mut out = name.map(|name| field(1, name.as_bytes())).unwrap_or_default();
    out.extend(alias.map(|alias| number(2, alias)).unwrap_or_default());
    out.extend(datatype.map(|datatype| number(4, datatype)).unwrap_or_default());
    out.extend(value);
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn field(number: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// The segments of a ring after so many lives, the first of them closed in order.
fn ring(lives: u64) -> Vec<u8> {
    let disk = SimDisk::new();
    create_dir_all(&disk, Path::new(wal::DIR)).expect("a simulated disk takes folders");
    for epoch in 1..=lives {
        let (mut ring, _) = wal::open(&disk, epoch).expect("a good log opens");
        for size in [9, 1500, 5000] {
            ring.append(&vec![epoch as u8; size]).expect("a simulated disk takes records");
        }
        ring.sync().expect("a simulated disk syncs");
        ring.append(b"behind").expect("a simulated disk takes records");
        if epoch == 1 {
            ring.close().expect("a simulated disk takes the end");
        }
    }
    pack(&disk, Path::new(wal::DIR))
}

fn outbox_log(closed: bool) -> Vec<u8> {
    let disk = outbox::sim();
    let mut outbox = outbox::open(&disk).expect("an empty outbox opens");
    for time in 0..3 {
        outbox.put(&format!("m,sensor=s v=1 {time}\n").repeat(20), 20);
        outbox.sync().expect("a simulated disk syncs");
    }
    let first = outbox.next_batch().expect("it reads what it wrote").expect("there are three");
    outbox.ack(first.key());
    if closed {
        outbox.close().expect("a simulated disk takes the end");
    }
    pack(&disk, &outbox::log_dir())
}

fn pack(disk: &SimDisk, dir: &Path) -> Vec<u8> {
    let names = disk.list(dir).expect("a readable folder");
    let segments: Vec<Vec<u8>> =
        names.iter().map(|entry| read_file(disk, &dir.join(&entry.name)).expect("a readable file")).collect();
    segments::pack(&segments)
}
