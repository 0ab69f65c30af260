//! `eden mqtt test`, and what `eden config` says about rules.

use tempfile::TempDir;

use crate::process::{Ran, command, run, run_with};

const RULES: &str = r#"
[[mqtt.rule]]
name = "climate"
topics = ["sensors/+/+"]
data_format = "json"
name_override = "air"
topic_parsing = { tags = "_/site/device" }
user_property_tags = ["operator"]
json_time_key = "t"
json_time_format = "unix"

[[mqtt.rule]]
topics = ["noise/#"]
data_format = "ignore"
"#;

fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("rules.toml"), RULES).unwrap();
    dir
}

fn test(dir: &TempDir, args: &[&str], input: &str) -> Ran {
    run_with(command(dir.path(), &[&["mqtt", "test", "--config", "rules.toml"], args].concat()), input)
}

#[test]
fn a_trial_shows_the_rule_and_the_rows_and_touches_no_data() {
    let dir = folder();
    let shown = "[[mqtt.rule]] number 1 \"climate\" takes sensors/a/d7, by the filter sensors/+/+\n\
                 1 row would be stored:\n  air,device=d7,site=a v=21.5 1780272000000000\n";
    let payload = r#"{"t":1780272000,"v":21.5}"#;
    std::fs::write(dir.path().join("p.json"), payload).unwrap();
    for (args, input) in [(&["--payload", payload][..], ""), (&["--file", "p.json"], "unread"), (&[], payload)] {
        let ran = test(&dir, &[&["--topic", "sensors/a/d7"], args].concat(), input);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), shown), "{}", ran.err);
    }
    let ran = test(&dir, &["--topic", "sensors/a/d7", "--user-property", "operator=ada=1"], payload);
    assert!(ran.out.contains("air,device=d7,operator=ada\\=1,site=a v=21.5"), "{}", ran.out);
    let ran = test(&dir, &["--topic", "noise/x"], "?");
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.ends_with("the rule stores nothing of it\n"), "{}", ran.out);
    let ran = test(&dir, &["--topic", "lp/x"], "m v=1i 5000");
    assert_eq!(ran.out, "lp/x is taken by [mqtt] line_protocol: line protocol\n1 row would be stored:\n  m v=1i 5\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "a trial made a file");
}

#[test]
fn what_would_be_refused_is_shown_with_its_reason_and_exit_code_1() {
    let dir = folder();
    let ran = test(&dir, &["--topic", "sensors/a/d7"], r#"[{"t":1,"v":2},{"v":3}]"#);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.out,
        "[[mqtt.rule]] number 1 \"climate\" takes sensors/a/d7, by the filter sensors/+/+\n\
         1 row would be stored:\n  air,device=d7,site=a v=2.0 1000000\n\
         refused: {\"v\":3}\n  element 2: there is no time at \"t\"\n"
    );
    assert_eq!(ran.err, "eden: 1 part is refused; a server would set it aside in system.quarantine\n");
    for (args, code, said) in [
        (&["--topic", "elsewhere"][..], 1, "no rule takes elsewhere: a server would set the message aside"),
        (&["--topic", "$SYS/x"], 1, "one of the server's own topics"),
        (&["--topic", "eden/v1/a/cmd/x"], 1, "a command for an agent"),
        (&["--topic", "eden/v1/a/lp.zst"], 1, "the payload is not zstd"),
        (&["--topic", "lp/x"], 1, "1 part is refused"),
        (&["--topic", "sensors/+/x"], 2, "no topic of a message"),
        (&["--topic", "x", "--user-property", "x"], 2, "right is NAME=VALUE"),
        (&["--topic", "x", "--file", "nowhere"], 2, "read nowhere"),
    ] {
        let ran = test(&dir, args, "bad");
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_rule_that_is_wrong_has_its_place_at_check_and_start() {
    let dir = folder();
    let good = run(dir.path(), &["config", "check", "--config", "rules.toml"]);
    assert_eq!(good.code, Some(0), "{}", good.err);
    let shown = run(dir.path(), &["config", "show", "--config", "rules.toml"]);
    assert!(shown.out.contains("[[mqtt.rule]]\n") && shown.out.contains("name_override = \"air\""), "{}", shown.out);
    std::fs::write(dir.path().join("shown.toml"), &shown.out).unwrap();
    assert_eq!(run(dir.path(), &["config", "show", "--config", "shown.toml"]).out, shown.out);

    std::fs::write(dir.path().join("rules.toml"), RULES.replace("_/site/device", "_/site")).unwrap();
    for args in [&["config", "check", "--config", "rules.toml"][..], &["serve", "--config", "rules.toml"]] {
        let ran = run(dir.path(), args);
        assert_eq!(ran.code, Some(2));
        let said = "eden: rules.toml:7:17: topic_parsing: tags: it has 2 levels and the topic filter \"sensors/+/+\" 3";
        assert!(ran.err.starts_with(said), "{}", ran.err);
    }
}
