//! Hostile bytes: no panic, portions of a bounded size (P14).

use decode::otlp::protobuf_of_json;
use model::{SplitMix64, TableBatch};

use super::messages::*;
use super::{Decoded, read};
use crate::support::{corpus, mutated, seeds};

fn check(bytes: &[u8]) {
    let Ok(Decoded { totals, batches, refused, .. }) = read(bytes) else { return };
    let rows: usize = batches.iter().map(TableBatch::len).sum();
    assert_eq!(rows + refused.len(), totals.points as usize, "a point is a row or refused");
}

#[test]
fn mutated_bodies_neither_panic_nor_lose_points() {
    let corpus = corpus("otlp");
    for seed in seeds(20_000) {
        let bytes = mutated(&corpus, &SplitMix64::new(seed));
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "seed {seed}: {bytes:?}");
    }
}

#[test]
fn mutated_texts_neither_panic_nor_grow() {
    let corpus = corpus("otlp_json");
    let mut read = 0;
    for seed in seeds(20_000) {
        let bytes = mutated(&corpus, &SplitMix64::new(seed));
        let outcome = std::panic::catch_unwind(|| {
            let Ok(body) = protobuf_of_json(&bytes) else { return 0 };
            assert!(body.len() <= 8 * bytes.len(), "{} bytes of {}", body.len(), bytes.len());
            check(&body);
            1
        });
        read += outcome.unwrap_or_else(|_| panic!("seed {seed}: {:?}", String::from_utf8_lossy(&bytes)));
    }
    // Else nothing was tried out.
    assert!(read > 500, "{read} texts were read");
}

#[test]
fn the_corpus_itself_is_read() {
    for bytes in corpus("otlp") {
        assert!(read(&bytes).unwrap().totals.points > 0);
    }
    for text in corpus("otlp_json") {
        assert!(read(&protobuf_of_json(&text).unwrap()).unwrap().totals.points > 0);
    }
}

#[test]
fn attributes_that_are_in_every_row_of_a_long_list_are_handed_on_in_portions() {
    let long = "x".repeat(60_000);
    let points: Vec<_> = (0..2_000).map(|n| number(Value::Int(n), 1, &[("n", &n.to_string())])).collect();
    let of =
        |points: &[Number]| read(&request(&[("long", &long)], Scope::default(), vec![gauge("g", points.to_vec())]));
    // 60 MB of keys out of 90 KB.
    let decoded = of(&points[..1_000]).unwrap();
    assert!(decoded.portions > 5, "{} portions", decoded.portions);
    assert_eq!(decoded.batches.iter().map(TableBatch::len).sum::<usize>(), 1_000);
    // There is an end to it.
    let decoded = of(&points).unwrap();
    assert!((1..1_000).contains(&decoded.refused.len()), "{} refused", decoded.refused.len());
    assert!(decoded.refused[0].reason.contains("hundreds of times as long"), "{}", decoded.refused[0].reason);
    let decoded = read(&request(&[("a", &long), ("b", &long)], Scope::default(), vec![gauge("g", points)])).unwrap();
    assert_eq!(decoded.refused.len(), 2_000);
    assert!(decoded.refused.iter().all(|point| point.line.len() < 10_000 && point.reason.contains("more attributes")));
}

#[test]
fn values_that_are_nested_or_long_without_end_are_cut() {
    let mut text = "{\"arrayValue\":{\"values\":[".repeat(30);
    text = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"a","value":{text}{}}}]}},"scopeMetrics":[{{"metrics":[
        {{"name":"g","gauge":{{"dataPoints":[{{"asInt":1}}]}}}}]}}]}}]}}"#,
        "]}}".repeat(30)
    );
    let decoded = read(&protobuf_of_json(text.as_bytes()).unwrap()).unwrap();
    assert!(decoded.refused[0].reason.contains("nested deeper"), "{decoded:?}");
    assert!(protobuf_of_json("[".repeat(100_000).as_bytes()).is_err());
    let open = "{\"resourceMetrics\":[".repeat(50_000);
    assert!(protobuf_of_json(open.as_bytes()).is_err());
    let wide = Any::List(List { values: vec![any(Any::Text("\u{1}".repeat(1_000))); 1_000] });
    let mut point = number(Value::Int(1), 1, &[]);
    point.attributes = vec![attribute("wide", wide)];
    let decoded = read(&request(&[], Scope::default(), vec![gauge("g", vec![point])])).unwrap();
    assert!(decoded.refused[0].line.len() < 10_000);
}
