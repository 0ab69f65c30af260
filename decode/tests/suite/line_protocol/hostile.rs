//! Hostile bytes: no panic, output bounded by the body, time linear in it (P14).

use decode::line_protocol::{NAMES_MAX, Precision, TABLES_MAX};
use model::{Rng, SplitMix64, TableBatch};

use super::parse_as;
use super::sound::check;
use crate::support::seeds;

/// The committed bodies, in order of their names.
fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/line_protocol");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn mutated_bodies_neither_panic_nor_grow() {
    let corpus = corpus();
    let special = b",= \\\"#\n\r\t\0.-+deiutf0195\xc3\xa9\xff";
    for seed in seeds(50_000) {
        let rng = SplitMix64::new(seed);
        let pick = |below: usize| rng.below(below.max(1) as u64) as usize;
        let mut body = corpus[pick(corpus.len())].clone();
        for _ in 0..=pick(8) {
            let at = pick(body.len());
            match pick(6) {
                0 => body[at] ^= 1 << pick(8),
                1 => body[at] = special[pick(special.len())],
                2 => body.insert(at, special[pick(special.len())]),
                3 => drop(body.remove(at)),
                4 => {
                    let end = (at + pick(40)).min(body.len());
                    let piece = body[at..end].to_vec();
                    let to = pick(body.len());
                    body.splice(to..to, piece);
                }
                _ => body.truncate(at + 1),
            }
            if body.is_empty() {
                break;
            }
        }
        let outcome = std::panic::catch_unwind(|| check(&body));
        assert!(outcome.is_ok(), "seed {seed}: {:?}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn the_corpus_itself_is_read_as_intended() {
    let lines: Vec<_> = corpus().iter().map(|body| check(body)).map(|d| (d.lines, d.errors_total)).collect();
    assert_eq!(lines, [(3, 0), (1, 1), (28, 28), (6, 4), (3, 0), (5, 0), (7, 0), (5, 0)]);
}

#[test]
fn fields_that_differ_in_every_line_do_not_make_a_square() {
    let body: String = (0..30_000).map(|i| format!("m f{i}=1 {i}\n")).collect();
    let decoded = check(body.as_bytes());
    assert_eq!(decoded.errors_total, 0);
    // The rows keep the order of the lines, over all batches.
    assert!(decoded.batches.iter().flat_map(|batch| &batch.times_us).is_sorted());
    assert_eq!(decoded.batches.iter().map(TableBatch::len).sum::<usize>(), 30_000);
}

#[test]
fn series_keep_their_tags_when_a_table_goes_on_in_a_new_batch() {
    let body: String = (0..20_000).map(|i| format!("m,s={} f{}=1 {i}\n", i % 7, i % 3_000)).collect();
    let decoded = check(body.as_bytes());
    assert!(decoded.batches.len() > 1);
    for batch in &decoded.batches {
        for row in 0..batch.len() {
            let time = batch.times_us[row] / 1_000_000;
            assert_eq!(batch.series[batch.series_of[row] as usize].get("s"), Some(&*(time % 7).to_string()));
            let set: Vec<_> = batch.fields.iter().filter(|f| f.valid.get(row)).map(|f| &*f.name).collect();
            assert_eq!(set, [format!("f{}", time % 3_000)]);
        }
    }
}

#[test]
fn sparse_fields_within_reason_stay_in_one_batch() {
    let body: String = (0..10_000).map(|i| format!("plc,line=a tag{}=1.5 {i}\n", i % 40)).collect();
    assert_eq!(check(body.as_bytes()).batches.len(), 1);
}

#[test]
fn tables_and_names_without_end_are_refused() {
    let body: String = (0..TABLES_MAX + 5).map(|i| format!("m{i} f=1\n")).collect();
    let decoded = check(body.as_bytes());
    assert_eq!((decoded.batches.len(), decoded.errors_total), (TABLES_MAX, 5));
    assert_eq!(decoded.errors[0].message, "byte 1: the body names more than 10000 tables; send it in several requests");
    let body: String = (0..NAMES_MAX / 100 + 1)
        .map(|i| (0..100).map(|j| format!("f{i}_{j}=1")).collect::<Vec<_>>().join(","))
        .map(|fields| format!("m {fields}\n"))
        .collect();
    let decoded = check(body.as_bytes());
    assert_eq!(decoded.errors_total, 1);
    assert!(decoded.errors[0].message.contains("more than 100000 different tags and fields"));
}

#[test]
fn lines_made_to_be_read_again_and_again_are_not() {
    let million = 1_000_000;
    for pattern in
        ["m f=\"\\\"\n", "m f=\"", "=\"", "\\", "\"", "m f=\"\n\\", "m,", "m,a=1", "# \"\n", "m f=1,", "m f=x,g=\"\n"]
    {
        check(pattern.repeat(million / pattern.len()).as_bytes());
        check(format!("m {}", pattern.repeat(million / pattern.len())).as_bytes());
    }
    let fields: Vec<_> = (0..50_000).map(|i| format!("f{i}=1")).collect();
    assert_eq!(check(format!("m {}", fields.join(",")).as_bytes()).batches[0].fields.len(), 50_000);
    let tags: Vec<_> = (0..50_000).map(|i| format!("t{i}=1")).collect();
    assert_eq!(check(format!("m,{} f=1", tags.join(",")).as_bytes()).errors_total, 0);
    assert_eq!(parse_as(Precision::Auto, "\n".repeat(million).as_bytes()).lines, 0);
}
