//! Remote write: what becomes of what, and hostile bytes.

mod hostile;
pub(crate) mod messages;

use decode::metrics::{Chunk, DecodeError, LABELS_MAX, RefusedSample};
use decode::prometheus::{Totals, Version, decode};
use messages::{Count, Exemplar, Histogram, Label, Span, TimeSeries, body, body2, series};
use model::TableBatch;

use crate::support::{assert_sound, readings};

const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// All portions of a body.
#[derive(Debug, Default)]
struct Decoded {
    totals: Totals,
    batches: Vec<TableBatch>,
    refused: Vec<RefusedSample>,
    portions: usize,
}

fn read(body: &[u8], version: Version) -> Result<Decoded, String> {
    let mut decoded = Decoded::default();
    let totals = decode::<()>(body, version, "public", &mut |Chunk { batches, refused }| {
        batches.iter().for_each(assert_sound);
        decoded.batches.extend(batches);
        decoded.refused.extend(refused);
        decoded.portions += 1;
        Ok(())
    });
    match totals {
        Ok(totals) => Ok(Decoded { totals, ..decoded }),
        Err(DecodeError::Malformed(what)) => Err(what),
        Err(DecodeError::Taker(())) => unreachable!("it takes everything"),
    }
}

/// Rows in the order of their samples, and what was refused: the same for both versions.
fn check(series: Vec<TimeSeries>, expected: &[&str], refused: &[(&str, &str)]) -> Totals {
    let mut totals = Totals::default();
    for (version, bytes) in [(Version::One, body(series.clone())), (Version::Two, body2(&series))] {
        let decoded = read(&bytes, version).unwrap();
        assert_eq!(readings(&decoded.batches), expected, "{version:?}");
        let seen: Vec<_> = decoded.refused.iter().map(|sample| (&*sample.line, &*sample.reason)).collect();
        assert_eq!(seen, refused, "{version:?}");
        totals = decoded.totals;
    }
    totals
}

#[test]
fn a_metric_is_a_table_a_label_a_tag_and_a_sample_a_row() {
    let up = series(&[("__name__", "up"), ("instance", "a:9090"), ("job", "eden")], &[(1.0, 1_000), (0.0, 2_500)]);
    let other = series(&[("job", "eden"), ("__name__", "up"), ("empty", "")], &[(1.0, -1)]);
    let load = series(&[("__name__", "node:load"), ("path", "C:\\"), ("text", "a\nb")], &[(0.5, 1_000)]);
    let totals = check(
        vec![up, load, other],
        &[
            "up[instance=a:9090,job=eden] value=1.0 @1000000",
            "up[instance=a:9090,job=eden] value=0.0 @2500000",
            "up[job=eden] value=1.0 @-1000",
            "node:load[path=C:\\,text=a\nb] value=0.5 @1000000",
        ],
        &[],
    );
    assert_eq!(totals, Totals { samples: 4, histograms: 0, exemplars: 0 });
}

#[test]
fn what_is_no_number_is_kept_as_a_word() {
    let values = [(f64::NAN, 1), (f64::INFINITY, 2), (f64::NEG_INFINITY, 3), (STALE, 4), (5e-324, 5)];
    check(
        vec![series(&[("__name__", "m")], &values)],
        &[
            "m[] special=\"NaN\" @1000",
            "m[] special=\"+Inf\" @2000",
            "m[] special=\"-Inf\" @3000",
            "m[] special=\"stale\" @4000",
            "m[] value=5e-324 @5000",
        ],
        &[],
    );
}

#[test]
fn labels_that_would_be_in_the_way_get_another_name() {
    let labels = [("__name__", "m"), ("Time", "a"), ("value", "b"), ("eden_day", "c"), ("count", "d")];
    check(
        vec![series(&labels, &[(1.0, 1)])],
        &["m[exported_Time=a,exported_count=d,exported_eden_day=c,exported_value=b] value=1.0 @1000"],
        &[],
    );
}

#[test]
fn what_cannot_be_a_row_is_refused_with_its_reason_and_its_neighbours_stay() {
    let long = "x".repeat(81);
    let good = || series(&[("__name__", "good")], &[(1.0, 1)]);
    check(
        vec![
            series(&[("job", "a b")], &[(1.0, 1)]),
            good(),
            series(&[("__name__", &long), ("a", "b")], &[(2.0, 2)]),
            series(&[("__name__", "m"), ("a", "1"), ("a", "2")], &[(3.0, 3)]),
            series(&[("__name__", "m"), (&long, "1")], &[(4.0, 4)]),
            series(&[("__name__", "m"), ("a", "1")], &[(5.0, i64::MAX), (6.0, 6)]),
            good(),
        ],
        &["good[] value=1.0 @1000", "good[] value=1.0 @1000", "m[a=1] value=6.0 @6000"],
        &[
            ("{job=a\\ b}  value=1.0 1000", "the series has no label \"__name__\""),
            (
                &format!("{{a=b}} {long} value=2.0 2000"),
                "the metric name \"xxxxxxxxxxxxxxxxxxxx\"… has 81 bytes; at most 80 are allowed",
            ),
            ("{a=1,a=2} m value=3.0 3000", "the label \"a\" is there twice"),
            (
                &format!("{{{long}=1}} m value=4.0 4000"),
                "the label name \"xxxxxxxxxxxxxxxxxxxx\"… has 81 bytes; at most 80 are allowed",
            ),
            ("m,a=1 value=5.0 0", "the time is out of range"),
        ],
    );
    let mut bytes = series(&[("__name__", "m")], &[(1.0, 1)]);
    bytes.labels.push(Label { name: b"a".to_vec(), value: vec![0xff] });
    let decoded = read(&body(vec![bytes]), Version::One).unwrap();
    assert_eq!((decoded.batches.len(), &*decoded.refused[0].reason), (0, "a label is not UTF-8"));
    assert!(!decoded.refused[0].is_whole);
    let names: Vec<_> = (0..=LABELS_MAX).map(|n| format!("l{n}")).collect();
    let mut labels: Vec<_> = names.iter().map(|name| (&**name, "x")).collect();
    labels.push(("__name__", "m"));
    let decoded = read(&body(vec![series(&labels, &[(1.0, 1)])]), Version::One).unwrap();
    assert_eq!(decoded.refused[0].reason, "the series has more labels than are taken");
}

#[test]
fn a_native_histogram_is_a_row_with_its_buckets_as_text() {
    let labels = [("__name__", "h"), ("job", "a")];
    let span = |offset, length| Span { offset, length };
    let histogram = Histogram {
        count: Some(Count::Whole(9)),
        sum: 18.5,
        schema: 3,
        zero_threshold: 0.001,
        zero_count: 1,
        negative_spans: vec![span(2, 1)],
        negative_deltas: vec![2],
        positive_spans: vec![span(-3, 2), span(4, 1)],
        positive_deltas: vec![1, 2, 0],
        timestamp: 7,
        ..Histogram::default()
    };
    let custom = Histogram {
        count: Some(Count::Float(2.5)),
        sum: f64::NAN,
        schema: -53,
        positive_spans: vec![span(1, 2)],
        positive_counts: vec![0.5, 2.0],
        custom_values: vec![0.1, 1.0],
        timestamp: 8,
        ..Histogram::default()
    };
    let stale = Histogram { sum: STALE, timestamp: 9, ..Histogram::default() };
    let short = Histogram { positive_spans: vec![span(0, 4_000_000_000)], ..histogram.clone() };
    let long = Histogram { positive_spans: vec![span(0, 1)], ..histogram.clone() };
    let negative = Histogram { positive_deltas: vec![1, -2, 3], ..histogram.clone() };
    let unknown = Histogram { schema: 9, ..histogram.clone() };
    let mut of_all = series(&labels, &[]);
    of_all.histograms = vec![histogram, custom, stale, short, long, negative, unknown];
    of_all.exemplars = vec![Exemplar { value: 1.0 }; 2];
    let buckets = r#"{\"scale\":3,\"zero_threshold\":0.001,\"zero_count\":1,\"positive\":[[-4,1],[-3,3],[2,3]],\"negative\":[[1,2]]}"#;
    let refused = "h,job=a count=9i,sum=18.5 7000";
    let totals = check(
        vec![of_all],
        &[
            &format!("h[job=a] count=9i sum=18.5 buckets=\"{buckets}\" @7000"),
            r#"h[job=a] buckets="{\"bounds\":[0.1,1.0],\"counts\":[0,0.5,2.0]}" count=2.5 special="NaN" @8000"#,
            r#"h[job=a] special="stale" @9000"#,
        ],
        &[
            (refused, "the histogram has fewer buckets than its spans say"),
            (refused, "the histogram has more buckets than its spans say"),
            (refused, "a bucket of the histogram has less than nothing"),
            (refused, "the histogram has a schema that is not known"),
        ],
    );
    assert_eq!(totals, Totals { samples: 0, histograms: 7, exemplars: 2 });
}

#[test]
fn symbols_that_are_not_there_refuse_their_series_only() {
    use messages::{Request2, Sample, TimeSeries2};
    use prost::Message as _;
    let of = |labels_refs: Vec<u32>| TimeSeries2 {
        labels_refs,
        samples: vec![Sample { value: 1.0, timestamp: 1 }],
        ..TimeSeries2::default()
    };
    let symbols = ["", "__name__", "m", "a", "b"].map(str::to_owned).to_vec();
    let timeseries = vec![of(vec![1, 2, 3, 4]), of(vec![1, 2, 3, 5]), of(vec![1, 2, 3]), of(vec![1, 2])];
    let decoded = read(&Request2 { symbols, timeseries }.encode_to_vec(), Version::Two).unwrap();
    assert_eq!(readings(&decoded.batches), ["m[a=b] value=1.0 @1000", "m[] value=1.0 @1000"]);
    let reasons: Vec<_> = decoded.refused.iter().map(|sample| &*sample.reason).collect();
    assert_eq!(reasons, ["a label is a number that no symbol has", "a label has a name and no value"]);
}

#[test]
fn the_wrong_message_has_nothing_in_it() {
    let of_one = body(vec![series(&[("__name__", "m")], &[(1.0, 1)])]);
    assert_eq!(read(&of_one, Version::Two).unwrap().totals, Totals::default());
    assert_eq!(read(&body2(&[series(&[("__name__", "m")], &[(1.0, 1)])]), Version::One).unwrap().portions, 0);
    assert!(read(b"hello", Version::One).unwrap_err().starts_with("byte "));
}
