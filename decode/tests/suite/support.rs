//! What the tests of all formats share: readable batches, soundness, and seeds.

use model::{FieldValues, Rng, SplitMix64, TableBatch, Value};

/// The readings of `batches`, each as `table[tags] field=value … @time`, fields in the order of their columns.
pub(crate) fn readings(batches: &[TableBatch]) -> Vec<String> {
    batches.iter().flat_map(|batch| (0..batch.len()).map(|row| reading(batch, row))).collect()
}

fn reading(batch: &TableBatch, row: usize) -> String {
    let fields: String = fields(batch, row).map(|field| format!(" {field}")).collect();
    format!("{}{fields} @{}", series(batch, row), batch.times_us[row])
}

/// Series, time and fields of each reading.
pub(crate) type Meaning = Vec<(String, i64, Vec<String>)>;

/// The readings of `batches`, sorted, each with its fields sorted: equal if they mean the same.
pub(crate) fn meaning(batches: &[TableBatch]) -> Meaning {
    let mut readings = Vec::new();
    for batch in batches {
        for row in 0..batch.len() {
            let mut fields: Vec<String> = fields(batch, row).collect();
            fields.sort();
            readings.push((series(batch, row), batch.times_us[row], fields));
        }
    }
    readings.sort();
    readings
}

fn series(batch: &TableBatch, row: usize) -> String {
    format!("{}[{}]", batch.table, batch.series[batch.series_of[row] as usize])
}

fn fields(batch: &TableBatch, row: usize) -> impl Iterator<Item = String> {
    let present = batch.fields.iter().filter(move |field| field.valid.get(row));
    present.map(move |field| format!("{}={}", field.name, value(field.values.get(row))))
}

/// As in line protocol, but that floats always have a point or an exponent.
pub(crate) fn value(value: Value<'_>) -> String {
    match value {
        Value::F64(value) => format!("{value:?}"),
        Value::I64(value) => format!("{value}i"),
        Value::U64(value) => format!("{value}u"),
        Value::Bool(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Decimal { units, scale } => format!("{}d", model::decimal::Decimal { units, scale }),
    }
}

/// Checks the invariants of a batch as its readers rely on them.
pub(crate) fn assert_sound(batch: &TableBatch) {
    let rows = batch.len();
    assert!(rows > 0, "a batch without rows");
    assert_eq!((batch.series_of.len(), batch.lines.len()), (rows, rows));
    assert!(batch.series_of.iter().all(|id| (*id as usize) < batch.series.len()));
    for field in &batch.fields {
        assert_eq!((field.values.len(), field.valid.len()), (rows, rows), "{}", field.name);
        assert!(field.valid.absent_count() < rows, "the column {} has no value", field.name);
        if let FieldValues::Text(texts) = &field.values {
            texts.check().unwrap();
        }
    }
}

/// `default` seeds, or as many as the environment's `EDEN_SEEDS` says if that is more.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file")]
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("EDEN_SEEDS").ok().and_then(|text| text.parse().ok());
    0..asked.map_or(default, |asked: u64| asked.max(default))
}

/// One of `of`.
pub(crate) fn pick<'a, T: ?Sized>(rng: &SplitMix64, of: &[&'a T]) -> &'a T {
    of[rng.below(of.len() as u64) as usize]
}

/// The committed bodies of a format, in order of their names.
pub(crate) fn corpus(format: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/corpus/{format}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One of `corpus`, changed in up to nine places.
pub(crate) fn mutated(corpus: &[Vec<u8>], rng: &SplitMix64) -> Vec<u8> {
    let pick = |below: usize| rng.below(below.max(1) as u64) as usize;
    let mut body = corpus[pick(corpus.len())].clone();
    for _ in 0..=pick(8) {
        if body.is_empty() {
            break;
        }
        let at = pick(body.len());
        match pick(7) {
            0 => body[at] ^= 1 << pick(8),
            1 => body[at] = rng.next_u64() as u8,
            2 => body.insert(at, rng.next_u64() as u8),
            3 => drop(body.remove(at)),
            // Bytes that lengths and numbers are made of.
            4 => body[at] = [0, 1, 0x7f, 0x80, 0xff][pick(5)],
            5 => {
                let end = (at + pick(60)).min(body.len());
                let piece = body[at..end].to_vec();
                let to = pick(body.len());
                body.splice(to..to, piece);
            }
            _ => body.truncate(at + 1),
        }
    }
    body
}
