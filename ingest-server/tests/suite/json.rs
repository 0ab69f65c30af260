//! `POST /api/v1/json`.

use serde_json::json;
use tempfile::TempDir;

use crate::process::{Answer, Eden};

fn write(eden: &Eden, query: &str, body: &str) -> Answer {
    eden.post(&format!("/api/v1/json?{query}"), &[], body.as_bytes())
}

#[test]
fn an_object_an_array_and_lines_become_rows_as_the_parameters_say() {
    let eden = Eden::start();
    let query = "table=press&db=plant&tag_keys=machine&json_time_key=t&json_time_format=unix&json_integer_fields=n";
    for body in [
        r#"{"t":1,"machine":"a","force":{"x":1.5},"n":7}"#,
        r#"[{"t":2,"machine":"a","force":{"x":2.5}},{"t":3,"machine":"b","state":"on"}]"#,
        "{\"t\":4,\"machine\":\"b\",\"n\":8}\n{\"t\":5,\"machine\":\"b\",\"n\":9}\n",
    ] {
        let answer = write(&eden, query, body);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{body}");
    }
    assert_eq!(
        eden.rows("SELECT machine, cast(time as bigint) AS us, \"force.x\", n, state FROM plant.press ORDER BY us"),
        json!([
            ["a", 1_000_000, 1.5, 7, null],
            ["a", 2_000_000, 2.5, null, null],
            ["b", 3_000_000, null, null, "on"],
            ["b", 4_000_000, null, 8, null],
            ["b", 5_000_000, null, 9, null]
        ])
    );
    assert_eq!(write(&eden, "table=x&json_query=/d", r#"{"d":[{"v":1},{"v":2}]}"#).status, 204);
    assert_eq!(eden.rows("SELECT count(*) FROM x"), json!([[2]]));
}

#[test]
fn what_is_refused_is_named_and_set_aside_and_the_rest_is_stored() {
    let eden = Eden::start();
    assert_eq!(write(&eden, "table=m", r#"{"v":1}"#).status, 204);
    let body = r#"[{"v":2},{"time":3},{"v":"text"}]"#;
    let nothing = write(&eden, "table=m&accept_partial=false", body);
    assert_eq!((nothing.status, nothing.header("x-eden-refused")), (400, Some("1")));
    assert_eq!(eden.rows("SELECT count(*) FROM m"), json!([[1]]));

    let partial = write(&eden, "table=m", body);
    assert_eq!((partial.status, partial.header("x-eden-refused")), (400, Some("2")), "{partial:?}");
    let said = partial.json();
    assert_eq!(said["error"], "partial write of JSON occurred");
    assert_eq!(said["data"][0]["original"], "{\"time\":3}");
    assert!(said["data"][0]["error_message"].as_str().unwrap().starts_with("element 2: "), "{said}");
    assert!(said["data"][1]["original"].as_str().unwrap().starts_with("m v=\"text\" "), "{said}");
    assert_eq!(eden.rows("SELECT v FROM m ORDER BY v"), json!([[1.0], [2.0]]));
    let aside = eden.rows("SELECT payload, precision FROM system.quarantine ORDER BY precision");
    assert_eq!(aside[0], json!(["{\"time\":3}", ""]));
    assert_eq!(aside[1][1], "microsecond");
    assert_eq!(write(&eden, "table=m", "nonsense").header("x-eden-refused"), Some("1"));
}

#[test]
fn a_rule_of_the_configuration_may_be_named() {
    let dir = TempDir::new().unwrap();
    let rule = "[[mqtt.rule]]\nname = \"press\"\ndata_format = \"json\"\nname_override = \"press\"\n\
                topics = [\"plant/+\"]\ntopic_parsing = { tags = \"_/line\" }\n";
    std::fs::write(dir.path().join("eden.toml"), rule).unwrap();
    let eden = Eden::start_in(dir, &[]);
    assert_eq!(write(&eden, "rule=press&topic=plant/a", r#"{"v":1}"#).status, 204);
    assert_eq!(eden.rows("SELECT line, v FROM press"), json!([["a", 1.0]]));
    for (query, said) in [
        ("", "the parameter table is missing"),
        ("rule=other", "there is no rule of the name \"other\""),
        ("rule=press&table=x", "table does nothing beside rule"),
        ("table=x&tags=y", "unknown parameter \"tags\""),
        ("table=x&tag_key=y", "did you mean \"tag_keys\"?"),
        ("table=x&json_time_format=unix", "json_time_format: it does nothing without json_time_key"),
        ("table=x&db=system", "db: "),
        ("table=x&accept_partial=1", "accept_partial: "),
    ] {
        let answer = write(&eden, query, "{}");
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains(&said.replace('"', "\\\"")), "{query}: {}", answer.body);
    }
}
