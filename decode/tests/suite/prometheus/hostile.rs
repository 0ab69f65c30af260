//! Hostile bytes: no panic, portions of a bounded size (P14).

use decode::prometheus::Version;
use model::SplitMix64;

use super::messages::{body, body2, series};
use super::{Decoded, read};
use crate::support::{corpus, mutated, seeds};

/// What one portion may hold, in rows of the smallest kind: a multiple of what is handed on at a time.
const PORTION_ROWS_MAX: usize = 400_000;

fn check(bytes: &[u8], version: Version) {
    let Ok(Decoded { totals, batches, refused, .. }) = read(bytes, version) else { return };
    let rows: usize = batches.iter().map(model::TableBatch::len).sum();
    assert_eq!(rows + refused.len(), (totals.samples + totals.histograms) as usize, "a sample is a row or refused");
}

#[test]
fn mutated_bodies_neither_panic_nor_lose_samples() {
    let corpus = corpus("prometheus");
    for seed in seeds(20_000) {
        let rng = SplitMix64::new(seed);
        let bytes = mutated(&corpus, &rng);
        for version in [Version::One, Version::Two] {
            let outcome = std::panic::catch_unwind(|| check(&bytes, version));
            assert!(outcome.is_ok(), "seed {seed} {version:?}: {bytes:?}");
        }
    }
}

#[test]
fn the_corpus_itself_is_read() {
    for bytes in corpus("prometheus") {
        let rows = [Version::One, Version::Two].map(|version| read(&bytes, version).map_or(0, |d| d.totals.samples));
        assert!(rows.iter().sum::<u32>() > 0);
    }
}

#[test]
fn labels_that_are_in_every_row_of_a_long_list_are_handed_on_in_portions() {
    // 60 KB of labels, refused with each of 20,000 samples: more than a gigabyte if it were kept.
    let long = "x".repeat(60_000);
    let samples: Vec<_> = (0..20_000).map(|n| (1.0, n)).collect();
    for labels in [&[("__name__", "m"), ("a", &*long), ("a", "twice")][..], &[("__name__", "m"), ("a", &*long)]] {
        let one = series(labels, &samples);
        for (version, bytes) in [(Version::One, body(vec![one.clone()])), (Version::Two, body2(&[one]))] {
            let decoded = read(&bytes, version).unwrap();
            let rows = decoded.batches.iter().map(model::TableBatch::len).max().unwrap_or_default();
            assert!(rows <= PORTION_ROWS_MAX);
            assert!(decoded.refused.iter().all(|sample| sample.line.len() < 10_000));
            assert_eq!(decoded.totals.samples, 20_000);
        }
    }
    // The same name for a thousand series that differ: each has its labels once.
    let many: Vec<_> =
        (0..1_000).map(|n| series(&[("__name__", "m"), ("a", &long), ("n", &n.to_string())], &[(1.0, n)])).collect();
    let decoded = read(&body2(&many), Version::Two).unwrap();
    assert!(decoded.portions > 5, "{} portions", decoded.portions);
    assert_eq!(decoded.batches.iter().map(model::TableBatch::len).sum::<usize>(), 1_000);
}

#[test]
fn more_metrics_than_a_body_may_have_are_refused() {
    let many: Vec<_> = (0..10_003).map(|n| series(&[("__name__", &format!("m{n}"))], &[(1.0, 1)])).collect();
    let decoded = read(&body(many), Version::One).unwrap();
    assert_eq!((decoded.refused.len(), decoded.totals.samples), (3, 10_003));
    assert!(decoded.refused[0].reason.contains("more than 10000 metrics") && decoded.refused[0].is_whole);
}
