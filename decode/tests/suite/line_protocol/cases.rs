//! Each case: a body, and what it means. Times are microseconds unless a test says otherwise.

use decode::line_protocol::{AgentHeader, ORIGINAL_BYTES_MAX, Options, Precision, lines_at, parse};
use model::record::AgentGap;

use super::{NOW_US, parse_as, shown};

fn check(body: &str, expected: &[&str]) {
    assert_eq!(shown(&parse_as(Precision::Microsecond, body.as_bytes())), expected, "{body:?}");
}

/// The one line `body` is refused with `message`.
fn refused(body: &str, message: &str) {
    check(body, &[&format!("!1 {message}")]);
}

#[test]
fn a_line_is_measurement_tags_fields_and_time() {
    check("m f=1 5", &["m[] f=1.0 @5"]);
    check("m,b=2,a=1 g=1,f=2 5", &["m[a=1,b=2] g=1.0 f=2.0 @5"]);
    check("m f=1", &[&format!("m[] f=1.0 @{NOW_US}")]);
    check("m f=1 -5", &["m[] f=1.0 @-5"]);
}

#[test]
fn spaces_around_the_parts_and_line_ends_of_windows_do_not_matter() {
    check("  \t m,a=1   f=1   5  ", &["m[a=1] f=1.0 @5"]);
    check("m f=1 5\r\nm f=2 6\r\n", &["m[] f=1.0 @5", "m[] f=2.0 @6"]);
    check("\u{feff}m f=1 5", &["m[] f=1.0 @5"]);
    check("m f=t \r\n", &[&format!("m[] f=true @{NOW_US}")]);
}

#[test]
fn blank_lines_and_comments_count_only_for_line_numbers() {
    let decoded = parse_as(Precision::Microsecond, b"# x \\\n\n  \r\n\t# \"y=\"\nm f=1 5\n#\nbad\n");
    assert_eq!(decoded.lines, 2);
    assert_eq!(decoded.batches[0].lines, [5]);
    assert_eq!(decoded.errors[0].line, 7);
    check("", &[]);
    check("\n\n", &[]);
    check("# only a comment", &[]);
}

#[test]
fn values_have_the_type_they_are_written_in() {
    check("m a=1,b=-0.5,c=1e5,d=1E-2,e=1.5e+3,z=-0 5", &["m[] a=1.0 b=-0.5 c=100000.0 d=0.01 e=1500.0 z=-0.0 @5"]);
    check("m a=1i,b=-1i,c=007i,d=0u 5", &["m[] a=1i b=-1i c=7i d=0u @5"]);
    check(
        "m a=9223372036854775807i,b=-9223372036854775808i,c=18446744073709551615u 5",
        &["m[] a=9223372036854775807i b=-9223372036854775808i c=18446744073709551615u @5"],
    );
    check("m a=t,b=T,c=true,d=True,e=TRUE 5", &["m[] a=true b=true c=true d=true e=true @5"]);
    check("m a=f,b=F,c=false,d=False,e=FALSE 5", &["m[] a=false b=false c=false d=false e=false @5"]);
    check(r##"m a="",b="x y,z=1",c="#" 5"##, &[r##"m[] a="" b="x y,z=1" c="#" @5"##]);
    check("m f=9007199254740993,g=0.1,h=5e-324 5", &["m[] f=9007199254740992.0 g=0.1 h=5e-324 @5"]);
}

#[test]
fn decimals_of_other_scales_are_columns_of_their_own() {
    check(
        "m a=21.5d,b=-0.05d 1\nm a=21.55d 2\nm a=7d,b=1 3\nm a=22.5d 4",
        &["m[] a=21.5d b=-0.05d @1", "m[] a=21.55d @2", "m[] a=7d b=1.0 @3", "m[] a=22.5d @4"],
    );
    refused("m a=1234567890123456789d 1", "byte 5: the decimal \"1234567890123456789d\" has more than 18 digits");
}

#[test]
fn texts_know_two_escapes_and_may_have_line_breaks() {
    check(r#"m a="\"",b="\\",c="\n\,\ ",d="\\\"" 5"#, &[r#"m[] a="\"" b="\\" c="\\n\\,\\ " d="\\\"" @5"#]);
    check(
        "m a=\"1\n2\r\n3\" 5\nm a=\"4\" 6\nbad",
        &[
            r#"m[] a="1\n2\r\n3" @5"#,
            r#"m[] a="4" @6"#,
            "!5 byte 4: the line has no fields; right is `measurement,tag=value field=1.0 time`",
        ],
    );
}

#[test]
fn names_and_tag_values_have_escapes() {
    check(r"a\ b\,c\=d\\e,k\ 1\,\==v\ 2\,\= f\ 3\,\==1 5", &[r"a b,c\=d\e[k 1,==v 2,=] f 3,==1.0 @5"]);
    check(r"m,p=C:\dir\n f=1 5", &[r"m[p=C:\dir\n] f=1.0 @5"]);
    check("m,a=b=c f=1 5", &["m[a=b=c] f=1.0 @5"]);
    check("m=n,q=\"x\" f\"=1 5", &["m=n[q=\"x\"] f\"=1.0 @5"]);
    check("größe,straße=weiß länge=1 5", &["größe[straße=weiß] länge=1.0 @5"]);
}

#[test]
fn a_table_is_one_batch_in_order_of_first_appearance() {
    check("b f=1 5\na f=2 5\nb f=3 5", &["b[] f=1.0 @5", "b[] f=3.0 @5", "a[] f=2.0 @5"]);
    check(
        "b x=\na f=2 5\nb f=3 5",
        &[
            "a[] f=2.0 @5",
            "b[] f=3.0 @5",
            "!1 byte 5: the field has no value; leave the field out, or write \"\" for an empty text",
        ],
    );
}

#[test]
fn one_series_is_one_series_however_it_is_written() {
    let decoded = parse_as(Precision::Microsecond, b"m,a=1,b=2 f=1 5\nm,b=2,a=1 f=2 6\nm,a=\\1,b=2 f=3 7");
    assert_eq!(decoded.batches[0].series_of, [0, 0, 1]);
}

#[test]
fn a_series_that_another_one_begins_like_is_not_taken_for_it() {
    check(
        "m,a=1 f=1 1\nm,a=1 f=2 2\nm,a=1\\ 2 f=3 3\nm,a=12 f=4 4\nm,a=1  f=5 5\nm,a=1\\ 2 f=6 6\nm,a=1\nm,a=1 f=8 8\nm,a=12",
        &[
            "m[a=1] f=1.0 @1",
            "m[a=1] f=2.0 @2",
            "m[a=1 2] f=3.0 @3",
            "m[a=12] f=4.0 @4",
            "m[a=1] f=5.0 @5",
            "m[a=1 2] f=6.0 @6",
            "m[a=1] f=8.0 @8",
            "!7 byte 6: the line has no fields; right is `measurement,tag=value field=1.0 time`",
            "!9 byte 7: the line has no fields; right is `measurement,tag=value field=1.0 time`",
        ],
    );
}

#[test]
fn of_a_field_written_twice_the_later_counts_whatever_its_type() {
    check("m f=1,g=2,f=3 5", &["m[] f=3.0 g=2.0 @5"]);
    check("m f=1,g=2,f=3i 5", &["m[] f=3i g=2.0 @5"]);
    check("m f=1,g=2 5\nm f=3,f=4 6", &["m[] f=1.0 g=2.0 @5", "m[] f=4.0 @6"]);
    let twice = "m f=1,f=2,g=3 5\nm f=4,f=5,g=6 6\nm f=7,f=8 7\nm f=9,g=10 8";
    check(twice, &["m[] f=2.0 g=3.0 @5", "m[] f=5.0 g=6.0 @6", "m[] f=8.0 @7", "m[] f=9.0 g=10.0 @8"]);
}

#[test]
fn fields_of_other_lines_are_absent_and_may_have_other_types() {
    check("m f=1 5\nm g=2i 6\nm g=3,f=4 7", &["m[] f=1.0 @5", "m[] g=2i @6", "m[] f=4.0 g=3.0 @7"]);
}

#[test]
fn times_are_floored_to_microseconds() {
    let check = |precision: &str, time: &str, expected: Result<i64, &str>| {
        let decoded = parse_as(precision.parse().unwrap(), format!("m f=1 {time}").as_bytes());
        match expected {
            Ok(time_us) => assert_eq!(decoded.batches[0].times_us, [time_us], "{precision} {time}"),
            Err(message) => assert_eq!(decoded.errors[0].message, message, "{precision} {time}"),
        }
    };
    check("ns", "1999", Ok(1));
    check("ns", "-1", Ok(-1));
    check("ns", "-1000", Ok(-1));
    check("ns", "-1001", Ok(-2));
    check("ns", "-9223372036854775808", Ok(-9_223_372_036_854_776));
    check("us", "9223372036854775807", Ok(i64::MAX));
    check("ms", "-7", Ok(-7_000));
    check("s", "1780272000", Ok(1_780_272_000_000_000));
    check("m", "2", Ok(120_000_000));
    check("h", "-1", Ok(-3_600_000_000));
    let overflow = "byte 7: the time 9223372036854775 in the unit second is out of range";
    check("s", "9223372036854775", Err(overflow));
    check("ns", "9223372036854775808", Err("byte 7: the time \"9223372036854775808\" is out of range of 64 bits"));
    check(
        "us",
        "1.5",
        Err("byte 8: the line should end after its time, not go on with \".5\"; spaces in names need a backslash"),
    );
    check("us", "-", Err("byte 7: \"-\" is not a time; right is an integer, or nothing"));
}

#[test]
fn auto_precision_is_decided_by_magnitude_line_by_line() {
    let body = "m f=1 4999999999\nm f=1 5000000000\nm f=1 4999999999999\nm f=1 5000000000000\n\
                m f=1 4999999999999999\nm f=1 5000000000000000\nm f=1 -4999999999\nm f=1 -5000000000000001";
    assert_eq!(
        parse_as(Precision::Auto, body.as_bytes()).batches[0].times_us,
        [
            4_999_999_999_000_000,
            5_000_000_000_000,
            4_999_999_999_999_000,
            5_000_000_000_000,
            4_999_999_999_999_999,
            5_000_000_000_000,
            -4_999_999_999_000_000,
            -5_000_000_000_001,
        ]
    );
}

#[test]
fn precisions_have_the_words_of_all_endpoint_versions() {
    for (words, precision) in [
        ("auto", Precision::Auto),
        ("ns n nanosecond", Precision::Nanosecond),
        ("us u \u{b5} \u{3bc} microsecond", Precision::Microsecond),
        ("ms millisecond", Precision::Millisecond),
        ("s second", Precision::Second),
        ("m minute", Precision::Minute),
        ("h hour", Precision::Hour),
    ] {
        for word in words.split(' ') {
            assert_eq!(word.parse(), Ok(precision), "{word}");
        }
    }
    let error = "day".parse::<Precision>().unwrap_err().to_string();
    assert_eq!(error, "\"day\" is not a precision; use auto, ns, us, ms, s, m or h");
}

#[test]
fn a_bad_line_is_refused_with_what_is_wrong_and_where() {
    let no_fields = "the line has no fields; right is `measurement,tag=value field=1.0 time`";
    refused("m", &format!("byte 2: {no_fields}"));
    refused("m,t=v", &format!("byte 6: {no_fields}"));
    refused(r"m\ f=1", &format!("byte 7: {no_fields}"));
    refused("m ", "byte 3: a field is expected here; right is `name=value`");
    refused("m f=1, 5", "byte 7: a field is expected here; right is `name=value`");
    refused("m f", "byte 3: the field \"f\" has no value; right is `name=value`");
    refused("m f,g=1", "byte 3: the field \"f\" has no value; right is `name=value`");
    refused("m =1", "byte 3: a field has no name before its `=`");
    refused(r"m f\\=1", r#"byte 3: the field name "f\\" ends with a backslash"#);

    refused(",t=v f=1", "byte 1: a measurement name is empty");
    refused(r"m\\ f=1", r#"byte 1: the measurement name "m\\" ends with a backslash"#);
    refused("m, f=1", "byte 3: a tag is expected after the comma; right is `name=value`");
    refused("m,t f=1", "byte 3: the tag \"t\" has no value; right is `name=value`");
    refused("m,a=1,t,b=2 f=1", "byte 7: the tag \"t\" has no value; right is `name=value`");
    refused("m,=v f=1", "byte 3: a tag name is empty");
    refused("m,t= f=1", "byte 3: the tag \"t\" has an empty value; leave the tag out");
    refused("m,t=1,u=2,t=3 f=1", "byte 11: the tag \"t\" stands there twice");
    refused("m,t=a\tb f=1", "byte 3: the tag \"t\" has a control character in its value");
    refused(r"m,t=a\\ f=1", "byte 3: the tag \"t\" ends with a backslash, in its name or its value");
    refused("m,t=1 f=1,t=2", "byte 11: \"t\" is a tag of this line and cannot be a field too");

    refused("m f=", "byte 5: the field has no value; leave the field out, or write \"\" for an empty text");
    refused("m f= 5", "byte 5: the field has no value; leave the field out, or write \"\" for an empty text");
    refused("m f=NaN", "byte 5: \"NaN\" cannot be stored; leave the field out");
    refused("m f=-inf,g=1", "byte 5: \"-inf\" cannot be stored; leave the field out");
    refused("m f=+1", "byte 5: the number \"+1\" has a plus sign; leave it out");
    let number = "is not a number; right are 1.0, -0.5, 1e5, 1i (integer), 1u (unsigned)";
    refused("m f=.5", &format!("byte 5: \".5\" {number}"));
    refused("m f=1.", &format!("byte 5: \"1.\" {number}"));
    refused("m f=1e", &format!("byte 5: \"1e\" {number}"));
    refused("m f=-", &format!("byte 5: \"-\" {number}"));
    refused("m f=yes", "byte 5: \"yes\" is neither number nor boolean; text stands in double quotes");
    refused("m f='x'", "byte 5: \"'x'\" is neither number nor boolean; text stands in double quotes");
    refused("m f=1x 5", "byte 6: a comma, a space or the line's end is expected here, not \"x\"");
    refused("m f=1.5i", "byte 8: a comma, a space or the line's end is expected here, not \"i\"");
    refused("m f=1ii", "byte 7: a comma, a space or the line's end is expected here, not \"i\"");
    refused("m f=\"a\"b 5", "byte 8: a comma, a space or the line's end is expected here, not \"b\"");
    refused("m f=\"a", "byte 5: the text that begins here has no closing quote");
    refused("m f=1e400", "byte 5: the number \"1e400\" is out of range; a float reaches 1.7976931348623157e308");
    let integer = "is out of range; right is -9223372036854775808 to 9223372036854775807";
    refused("m f=9223372036854775808i", &format!("byte 5: the integer \"9223372036854775808i\" {integer}"));
    let unsigned = "is out of range; right is 0 to 18446744073709551615";
    refused("m f=18446744073709551616u", &format!("byte 5: the unsigned \"18446744073709551616u\" {unsigned}"));
    refused("m f=-1u", &format!("byte 5: the unsigned \"-1u\" {unsigned}"));

    let after = "the line should end after its time, not go on with";
    refused("m f=1 5 6", &format!("byte 9: {after} \"6\"; spaces in names need a backslash"));
    refused("m f=1 x", "byte 7: \"x\" is not a time; right is an integer, or nothing");
}

#[test]
fn names_obey_the_model() {
    refused("m time=1", "byte 3: the field name \"time\" is reserved");
    refused("m,TIME=1 f=1", "byte 3: the tag name \"TIME\" is reserved");
    refused("m Eden_Day=1", "byte 3: the field name \"Eden_Day\" is reserved");
    refused("m\0 f=1", "byte 1: the measurement name \"m\\0\" has a control character");
    refused("m f\t=1", "byte 3: the field name \"f\\t\" has a control character");
    let long = "x".repeat(81);
    let start = "x".repeat(20);
    refused(&format!("m {long}=1"), &format!("byte 3: the field name {start:?}… has 81 bytes; at most 80 are allowed"));
    check(&format!("m {}=1 5", &long[1..]), &[&format!("m[] {}=1.0 @5", &long[1..])]);
}

#[test]
fn a_bad_line_does_not_change_what_its_neighbours_mean() {
    // A text that is not closed ends with its line ..
    check("m f=\"a 1\nm f=2 5", &["m[] f=2.0 @5", "!1 byte 5: the text that begins here has no closing quote"]);
    // .. and lines inside a text stay text, though something else in their line is wrong.
    check(
        "m,t= f=\"x\nm f=1 5\"\nm f=2 5",
        &["m[] f=2.0 @5", "!1 byte 3: the tag \"t\" has an empty value; leave the tag out"],
    );
    check(
        "m f=bad,g=\"x\nm f=1 5\"\nm f=2 5\nbad",
        &[
            "m[] f=2.0 @5",
            "!1 byte 5: \"bad\" is neither number nor boolean; text stands in double quotes",
            "!4 byte 4: the line has no fields; right is `measurement,tag=value field=1.0 time`",
        ],
    );
    // An escaped line break is no end of line, only a bad character.
    check(
        "m,t=a\\\nb f=1 5\nm f=2 5",
        &["m[] f=2.0 @5", "!1 byte 3: the tag \"t\" has a control character in its value"],
    );
}

#[test]
fn a_line_that_is_not_utf8_is_refused_and_its_neighbours_are_kept() {
    let body = b"m f=1 5\nm,t=\xff f=1 5\r\n# \xff\nm f=\"1\n2\" 6\nbad\nm f=3 7";
    let decoded = parse_as(Precision::Microsecond, body);
    assert_eq!(
        shown(&decoded),
        [
            "m[] f=1.0 @5",
            "m[] f=\"1\\n2\" @6",
            "m[] f=3.0 @7",
            "!2 byte 5: the line is not UTF-8; send text in that encoding",
            "!6 byte 4: the line has no fields; right is `measurement,tag=value field=1.0 time`",
        ]
    );
    assert_eq!(decoded.errors[0].original, "m,t=\u{fffd} f=1 5");
    assert_eq!(decoded.batches[0].lines, [1, 4, 7]);
    assert_eq!(decoded.lines, 5);
}

#[test]
fn the_original_line_is_cut_at_a_character() {
    let body = format!("{}é{}", "x".repeat(ORIGINAL_BYTES_MAX - 1), "y".repeat(100));
    let decoded = parse_as(Precision::Microsecond, body.as_bytes());
    assert_eq!(decoded.errors[0].original, "x".repeat(ORIGINAL_BYTES_MAX - 1));
    assert!(decoded.errors[0].message.len() < 200);
}

#[test]
fn errors_beyond_the_limit_are_counted() {
    let options = Options { schema: "plant", precision: Precision::Auto, now_us: 0, errors_max: 2 };
    let decoded = parse(b"a\nb\nc\nd\nm f=1", &options);
    assert_eq!((decoded.errors.len(), decoded.errors_total, decoded.lines), (2, 4, 5));
    assert_eq!(decoded.batches[0].table.to_string(), "plant.m");
}

#[test]
fn the_first_line_may_be_an_agents_header() {
    let header = "# eden agent=pi-7 epoch=18446744073709551615 seq=3 precision=ms";
    let agent = || {
        Some(AgentHeader {
            agent: "pi-7".into(),
            epoch: u64::MAX,
            seq: 3,
            precision: Precision::Millisecond,
            gaps: Vec::new(),
        })
    };
    let check = |body: &str, expected: Option<AgentHeader>, time_us: i64| {
        let decoded = parse_as(Precision::Nanosecond, body.as_bytes());
        assert_eq!(decoded.agent, expected, "{body}");
        assert_eq!(decoded.batches[0].times_us, [time_us], "{body}");
    };
    check(&format!("{header}\nm f=1 5000"), agent(), 5_000_000);
    check(&format!("{header} later=x\r\nm f=1 5000"), agent(), 5_000_000);
    check(&format!("\n{header}\nm f=1 5000"), None, 5);
    check(&format!("m f=1 5000\n{header}"), None, 5);
    check("# eden is a garden\nm f=1 5000", None, 5);
}

#[test]
fn a_malformed_agents_header_is_refused_and_the_lines_are_kept() {
    let check = |header: &str, what: &str| {
        let decoded = parse_as(Precision::Microsecond, format!("{header}\nm f=1 5").as_bytes());
        assert_eq!(decoded.agent, None);
        let right = "right is `# eden agent=<id> epoch=<n> seq=<n> precision=us`";
        let expected = format!("!1 byte 1: the agent's header is malformed: {what}; {right}");
        assert_eq!(shown(&decoded), ["m[] f=1.0 @5", &expected]);
        assert_eq!((decoded.lines, decoded.errors_total), (1, 1));
    };
    check("# eden agent=a epoch=1 seq=1", "agent, epoch, seq or precision is missing");
    check("# eden agent=a epoch=1 seq=0 precision=us", "seq counts from 1");
    check("# eden agent=a epoch=x seq=1 precision=us", "\"epoch=x\" is not a number below 2^64");
    check("# eden agent=a epoch=1 epoch=1 seq=1 precision=us", "epoch stands there twice");
    check("# eden agent= epoch=1 seq=1 precision=us", "the agent's id is empty");
    check("# eden agent=a b epoch=1 seq=1 precision=us", "\"b\" is not key=value");
}

const HEADER: &str = "# eden agent=pi-7 epoch=1 seq=30 precision=us";

#[test]
fn lines_behind_the_header_may_report_gaps() {
    let check = |body: &str, expected: &[AgentGap]| {
        let decoded = parse_as(Precision::Nanosecond, body.as_bytes());
        assert_eq!(decoded.agent.as_ref().map(|header| &*header.gaps), Some(expected), "{body}");
        assert_eq!((decoded.errors_total, decoded.batches.len()), (0, 1), "{body}");
    };
    let full = "# eden gap first_seq=11 last_seq=19 readings=540 reason=outbox_full time=1780272000000000";
    let unknown = "# eden gap time=-5 reason=damaged last_seq=20 first_seq=20 later=x";
    let gap = |first_seq, last_seq, readings, reason: &str, time_us| AgentGap {
        first_seq,
        last_seq,
        readings,
        reason: reason.into(),
        time_us,
    };
    let gaps = [gap(11, 19, Some(540), "outbox_full", 1_780_272_000_000_000), gap(20, 20, None, "damaged", -5)];
    check(&format!("{HEADER}\n{full}\nm f=1 5"), &gaps[..1]);
    check(&format!("{HEADER}\r\n{full}\r\n{unknown}\r\nm f=1 5"), &gaps);
    // Anywhere else they are comments, and so is what only begins like one.
    check(&format!("{HEADER}\nm f=1 5\n{full}\n# eden gap x"), &[]);
    check(&format!("{HEADER}\n# another comment\n{full}\nm f=1 5"), &[]);
    check(&format!("{HEADER}\n# eden gaps are small\n{full}\nm f=1 5"), &[]);
    let without_readings = parse_as(Precision::Auto, format!("{HEADER}\n{full}").as_bytes());
    assert_eq!((without_readings.agent.unwrap().gaps.len(), without_readings.batches.len()), (1, 0));
    let without_header = parse_as(Precision::Auto, format!("{full}\nm f=1 5").as_bytes());
    assert_eq!((without_header.agent, without_header.errors_total), (None, 0));
}

#[test]
fn a_malformed_gap_is_refused_and_its_neighbours_are_kept() {
    let good = "# eden gap first_seq=1 last_seq=1 reason=r time=0";
    let check = |line: &str, what: &str| {
        let body = format!("{HEADER}\n{good}\n{line}\n{good}\nm f=1 5");
        let decoded = parse_as(Precision::Auto, body.as_bytes());
        assert_eq!(decoded.agent.as_ref().unwrap().gaps.len(), 2, "{line}");
        let [error] = &decoded.errors[..] else { panic!("{:?}", decoded.errors) };
        assert_eq!((error.line, &*error.original), (3, line));
        assert!(error.message.starts_with(&format!("byte 1: the gap is malformed: {what}; right is")), "{error:?}");
        assert_eq!((decoded.lines, decoded.errors_total, decoded.batches[0].lines[0]), (1, 1, 5));
    };
    check("# eden gap", "first_seq, last_seq, reason or time is missing");
    check("# eden gap first_seq=1 last_seq=2 reason=r", "first_seq, last_seq, reason or time is missing");
    check("# eden gap first_seq=0 last_seq=2 reason=r time=0", "first_seq counts from 1");
    check("# eden gap first_seq=3 last_seq=2 reason=r time=0", "first_seq is greater than last_seq");
    check("# eden gap first_seq=-1 last_seq=2 reason=r time=0", "\"first_seq=-1\" is not a number below 2^64");
    check("# eden gap first_seq=1 last_seq=2 reason=r time=x", "\"time=x\" is no time in microseconds");
    check("# eden gap first_seq=1 last_seq=2 reason= time=0", "a reason name is empty");
    check("# eden gap first_seq=1 first_seq=1 last_seq=2 reason=r time=0", "first_seq stands there twice");
    check("# eden gap eleven", "\"eleven\" is not key=value");
}

#[test]
fn a_thousand_gaps_are_read_and_the_others_refused() {
    let gap = "\n# eden gap first_seq=1 last_seq=1 reason=r time=0".repeat(1003);
    let decoded = parse_as(Precision::Auto, format!("{HEADER}{gap}").as_bytes());
    assert_eq!((decoded.agent.unwrap().gaps.len(), decoded.errors_total), (1000, 3));
    assert_eq!(decoded.errors[0].line, 1002);
    assert!(decoded.errors[0].message.contains("it is one too many"), "{:?}", decoded.errors[0]);
}

/// What was refused must be found again as it came, by the number that its error has.
#[test]
fn lines_are_found_by_the_numbers_of_their_errors() {
    let body = b"\xef\xbb\xbfa v=1\n\nb v=\"x\ny\" 5\r\n# c v\nc v=\"open\nd v=\xff\n  e v";
    let found = lines_at(body, [1, 3, 6, 7, 8, 9, 100]);
    let wanted: [&[u8]; 7] =
        [b"\xef\xbb\xbfa v=1", b"b v=\"x\ny\" 5\r", b"c v=\"open", b"d v=\xff", b"  e v", b"", b""];
    assert_eq!(found, wanted);
    let options = Options { schema: "public", precision: Precision::Auto, now_us: 0, errors_max: 9 };
    let numbers: Vec<u32> = parse(body, &options).errors.iter().map(|error| error.line).collect();
    assert_eq!(numbers, [6, 7, 8]);
}
