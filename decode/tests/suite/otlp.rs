//! OpenTelemetry's metrics: what becomes of what, in both encodings, and hostile bytes.

mod hostile;
pub(crate) mod messages;

use decode::metrics::{Chunk, DecodeError, RefusedSample};
use decode::otlp::{Totals, decode, protobuf_of_json};
use messages::*;
use model::TableBatch;

use crate::support::{assert_sound, readings};

/// The time of points that have none.
const NOW_US: i64 = 77;

/// All portions of a body.
#[derive(Debug, Default)]
struct Decoded {
    totals: Totals,
    batches: Vec<TableBatch>,
    refused: Vec<RefusedSample>,
    portions: usize,
}

fn read(body: &[u8]) -> Result<Decoded, String> {
    let mut decoded = Decoded::default();
    let totals = decode::<()>(body, NOW_US, "public", &mut |Chunk { batches, refused }| {
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

fn check(body: &[u8], expected: &[&str], refused: &[(&str, &str)]) -> Totals {
    let decoded = read(body).unwrap();
    assert_eq!(readings(&decoded.batches), expected);
    let seen: Vec<_> = decoded.refused.iter().map(|sample| (&*sample.line, &*sample.reason)).collect();
    assert_eq!(seen, refused);
    decoded.totals
}

fn no_scope() -> Scope {
    Scope::default()
}

#[test]
fn attributes_of_resource_scope_and_point_are_tags() {
    let scope = Scope { name: "plant".into(), version: "1.2".into(), attributes: texts(&[("line", "7")]) };
    let mut sum = metric(
        "parts.made",
        Data::Sum(Numbers {
            data_points: vec![Number { start: 5_000, ..number(Value::Int(-3), 9, &[("host", "b")]) }],
            aggregation_temporality: 1,
        }),
    );
    sum.unit = "{part}".into();
    let point = number(Value::Double(21.5), 8, &[("room", "kitchen"), ("host", "b"), ("count", "x"), ("none", "")]);
    let totals = check(
        &request(&[("service.name", "s"), ("host", "a")], scope, vec![gauge("air", vec![point]), sum]),
        &[
            "air[exported_count=x,host=b,otel.scope.line=7,otel.scope.name=plant,otel.scope.version=1.2,\
             resource.host=a,room=kitchen,service.name=s] value=21.5 @8",
            "parts.made[host=b,otel.scope.line=7,otel.scope.name=plant,otel.scope.version=1.2,\
             otel.temporality=delta,otel.unit={part},resource.host=a,service.name=s] value=-3i start_us=5i @9",
        ],
        &[],
    );
    assert_eq!(totals, Totals { points: 2, exemplars: 0 });
}

#[test]
fn attributes_of_all_types_are_texts() {
    let list = Any::List(List {
        values: vec![
            any(Any::Int(1)),
            any(Any::Text("a\"\n".into())),
            AnyValue::default(),
            any(Any::List(List::default())),
        ],
    });
    let map = Any::Map(Map {
        values: vec![
            attribute("x", Any::Double(0.5)),
            attribute("y", Any::Bytes(vec![255])),
            attribute("z", list.clone()),
        ],
    });
    let mut point = number(Value::Int(1), 1, &[]);
    point.attributes = vec![
        attribute("b", Any::Bool(true)),
        attribute("i", Any::Int(-7)),
        attribute("d", Any::Double(1.5)),
        attribute("l", list),
        attribute("m", map),
        attribute("y", Any::Bytes(b"bytes".to_vec())),
        KeyValue { key: "nothing".into(), value: None },
    ];
    check(
        &request(&[], no_scope(), vec![gauge("g", vec![point])]),
        &[concat!(
            r#"g[b=true,d=1.5,i=-7,l=[1,"a\"\n",null,[]],m={"x":0.5,"y":"/w==","z":[1,"a\"\n",null,[]]},y=Ynl0ZXM=]"#,
            " value=1i @1"
        )],
        &[],
    );
}

#[test]
fn histograms_and_summaries_are_one_row_each() {
    let histogram = Histogram {
        start: 1_000,
        time: 2_000,
        count: 6,
        sum: Some(10.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.5, 1.0],
        attributes: texts(&[("a", "b")]),
        min: Some(0.25),
        max: Some(5.0),
        ..Histogram::default()
    };
    let plain = Histogram { time: 3_000, count: 6, ..Histogram::default() };
    let uneven = Histogram { bucket_counts: vec![1], ..histogram.clone() };
    let unbound = Histogram { bucket_counts: vec![], ..histogram.clone() };
    let gone = Histogram { time: 4_000, flags: 1, ..Histogram::default() };
    let exponential = Exponential {
        time: 5_000,
        count: 4,
        sum: Some(f64::INFINITY),
        scale: -1,
        zero_count: 1,
        zero_threshold: 0.5,
        positive: Some(Side { offset: -2, bucket_counts: vec![1, 0, 2] }),
        ..Exponential::default()
    };
    let quantile = |quantile, value| Quantile { quantile, value };
    let summary =
        Summary { time: 6_000, count: 2, sum: 3.0, quantile_values: vec![quantile(0.5, 1.0), quantile(1.0, f64::NAN)] };
    let histograms =
        Histograms { data_points: vec![histogram, plain, uneven, unbound, gone], aggregation_temporality: 2 };
    let refused = "h,a=b count=6i,sum=10.5,min=0.25,max=5.0,start_us=1i 2";
    check(
        &request(
            &[],
            no_scope(),
            vec![
                metric("h", Data::Histogram(histograms)),
                metric(
                    "e",
                    Data::Exponential(Exponentials { data_points: vec![exponential], aggregation_temporality: 2 }),
                ),
                metric("s", Data::Summary(Summaries { data_points: vec![summary] })),
            ],
        ),
        &[
            r#"h[a=b] count=6i sum=10.5 min=0.25 max=5.0 buckets="{\"bounds\":[0.5,1.0],\"counts\":[1,2,3]}" start_us=1i @2"#,
            "h[] count=6i @3",
            "h[] special=\"stale\" @4",
            r#"e[] count=4i special="+Inf" buckets="{\"scale\":-1,\"zero_threshold\":0.5,\"zero_count\":1,\"positive\":[[-2,1],[0,2]],\"negative\":[]}" @5"#,
            r#"s[] count=2i sum=3.0 quantiles="[[0.5,1.0],[1.0,\"NaN\"]]" @6"#,
        ],
        &[
            (refused, "the histogram has not one bucket more than bounds"),
            (refused, "the histogram has bounds but no buckets"),
        ],
    );
}

#[test]
fn points_that_cannot_be_rows_are_refused_and_their_neighbours_stay() {
    let nothing = Number { time: 1_000, ..Number::default() };
    let late = Number { time: u64::MAX, ..number(Value::Int(1), 1, &[]) };
    let twice = number(Value::Int(1), 1, &[("a", "1"), ("a", "2")]);
    let timeless = number(Value::Double(f64::NEG_INFINITY), 0, &[]);
    let mut deep = any(Any::Int(1));
    for _ in 0..40 {
        deep = any(Any::List(List { values: vec![deep] }));
    }
    let mut nested = number(Value::Int(1), 1, &[]);
    nested.attributes = vec![KeyValue { key: "deep".into(), value: Some(deep) }];
    let good = number(Value::Int(1), 1, &[]);
    let body = request(
        &[],
        no_scope(),
        vec![gauge("g", vec![nothing, late, twice, timeless, nested, good]), gauge("", vec![])],
    );
    let decoded = read(&body).unwrap();
    assert_eq!(readings(&decoded.batches), ["g[] special=\"-Inf\" @77", "g[] value=1i @1"]);
    let reasons: Vec<_> = decoded.refused.iter().map(|sample| &*sample.reason).collect();
    assert_eq!(
        reasons,
        [
            "the data point has no value",
            "the time is out of range",
            "the label \"a\" is there twice",
            "an attribute is longer, or nested deeper, than is taken"
        ]
    );
    let body = request(&[], no_scope(), vec![gauge("", vec![number(Value::Int(5), 1, &[])])]);
    check(&body, &[], &[("{}  value=5i 1", "a metric name is empty")]);
}

/// The same request in both encodings.
#[test]
fn json_means_what_protobuf_means() {
    let json = r#"{"resourceMetrics":[{
        "scopeMetrics":[{"metrics":[
            {"gauge":{"dataPoints":[
                {"asDouble":21.5,"timeUnixNano":"8000","attributes":[{"key":"room","value":{"stringValue":"k\u00fcche"}}]},
                {"asInt":"-9007199254740993","timeUnixNano":9000,"exemplars":[{"asDouble":1,"traceId":"00ff"}]},
                {"asDouble":"NaN","timeUnixNano":"10000","flags":0},
                {"asDouble":"-Infinity","timeUnixNano":"11000"},
                {"timeUnixNano":"12000","flags":1}
            ]},"name":"air","description":"ignored","unit":"Cel"},
            {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[
                {"timeUnixNano":"1000","count":"3","sum":2,"bucketCounts":["1","2"],"explicitBounds":[0.5],"min":0.1,"max":1}]}},
            {"name":"e","exponentialHistogram":{"dataPoints":[
                {"timeUnixNano":"1000","count":3,"scale":-2,"zeroCount":"1","positive":{"offset":-4,"bucketCounts":["0","2"]}}]}},
            {"name":"s","summary":{"dataPoints":[
                {"timeUnixNano":"1000","count":"1","sum":1.5,"quantileValues":[{"quantile":0.5,"value":1.5}]}]}}
        ],"scope":{"name":"plant"},"schemaUrl":"x"}],
        "resource":{"attributes":[
            {"key":"n","value":{"intValue":"12"}},{"key":"b","value":{"boolValue":true}},{"key":"y","value":{"bytesValue":"Ynl0ZXM="}},
            {"key":"l","value":{"arrayValue":{"values":[{"doubleValue":0.5},{"kvlistValue":{"values":[{"key":"x","value":null}]}}]}}}
        ],"droppedAttributesCount":0}
    }],"somethingNew":{"a":[1,2]}}"#;
    let tags = "b=true,l=[0.5,{\"x\":null}],n=12,otel.scope.name=plant";
    let totals = check(
        &protobuf_of_json(json.as_bytes()).unwrap(),
        &[
            &format!("air[{tags},otel.unit=Cel,room=küche,y=Ynl0ZXM=] value=21.5 @8"),
            &format!("air[{tags},otel.unit=Cel,y=Ynl0ZXM=] value=-9007199254740993i @9"),
            &format!("air[{tags},otel.unit=Cel,y=Ynl0ZXM=] special=\"NaN\" @10"),
            &format!("air[{tags},otel.unit=Cel,y=Ynl0ZXM=] special=\"-Inf\" @11"),
            &format!("air[{tags},otel.unit=Cel,y=Ynl0ZXM=] special=\"stale\" @12"),
            &format!(
                r#"h[{tags},otel.temporality=delta,y=Ynl0ZXM=] count=3i sum=2.0 min=0.1 max=1.0 buckets="{{\"bounds\":[0.5],\"counts\":[1,2]}}" @1"#
            ),
            &format!(
                r#"e[{tags},y=Ynl0ZXM=] count=3i buckets="{{\"scale\":-2,\"zero_threshold\":0.0,\"zero_count\":1,\"positive\":[[-3,2]],\"negative\":[]}}" @1"#
            ),
            &format!(r#"s[{tags},y=Ynl0ZXM=] count=1i sum=1.5 quantiles="[[0.5,1.5]]" @1"#),
        ],
        &[],
    );
    assert_eq!(totals, Totals { points: 8, exemplars: 1 });
    assert_eq!(protobuf_of_json(b"{}").unwrap(), b"");
}

#[test]
fn json_that_is_no_request_is_refused_with_its_place() {
    for (json, said) in [
        ("", "EOF while parsing"),
        ("[]", "expected an object at line 1 column"),
        ("{} {}", "trailing characters"),
        (r#"{"resourceMetrics":{}}"#, "\"resourceMetrics\" cannot be an object outside of a list"),
        (r#"{"resourceMetrics":[[]]}"#, "\"resourceMetrics\" cannot be a list"),
        (
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":5}]}]}]}"#,
            "\"name\" cannot be a number at line 1",
        ),
        (
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asInt":"1.5"}]}}]}]}]}"#,
            "\"asInt\" cannot be a text that is no number",
        ),
        (
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asInt":18446744073709551616}]}}]}]}]}"#,
            "\"asInt\" cannot be",
        ),
    ] {
        let error = protobuf_of_json(json.as_bytes()).unwrap_err();
        assert!(error.contains(said), "{json}: {error}");
    }
}
