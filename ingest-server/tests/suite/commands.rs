//! `eden sql`, `eden write`, `eden demo` and what the command line says.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use tempfile::TempDir;

use crate::process::{Eden, Ran, command, run, run_with};

fn piped(eden: &Eden, args: &[&str], input: &str) -> Ran {
    run_with(command(eden.dir.path(), args), input)
}

#[test]
fn write_names_refused_lines_by_their_number_in_the_file_and_stores_the_others() {
    let eden = Eden::start();
    let mut lines: Vec<String> = (1..=12_000).map(|i| format!("m,d=d{} v={i} {i}", i % 7)).collect();
    lines[6_999] = "broken".into();
    let ran = piped(&eden, &["write", "--data", "data", "--precision", "us"], &lines.join("\n"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.starts_with("11999 lines stored, 1 refused, in "), "{}", ran.out);
    assert!(ran.err.starts_with("line 7000 refused: "), "{}", ran.err);
    assert_eq!(eden.rows("SELECT count(*), sum(v) FROM m"), serde_json::json!([[11_999, 71_999_000.0]]));

    std::fs::write(eden.dir.path().join("more.lp"), "m v=1 1\n").unwrap();
    let ran = run(eden.dir.path(), &["write", "--url", &eden.url, "--db", "plant", "more.lp"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "1 lines stored, 0 refused, in 1 batches\n"));
    assert_eq!(eden.rows("SELECT v FROM plant.m"), serde_json::json!([[1.0]]));
}

#[test]
fn write_takes_several_files_in_order_and_names_them() {
    let eden = Eden::start();
    for (name, lines) in [("a.lp", "n v=1 1\nbroken\n"), ("b.lp", "n v=2 1\nn v=3 2")] {
        std::fs::write(eden.dir.path().join(name), lines).unwrap();
    }
    let args = ["write", "--data", "data", "--precision", "us", "a.lp", "-", "b.lp"];
    let ran = piped(&eden, &args, "n v=9 1\nn v=9 3\n");
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.starts_with("5 lines stored, 1 refused, in "), "{} {}", ran.out, ran.err);
    assert!(ran.err.starts_with("a.lp: line 2 refused: "), "{}", ran.err);
    assert_eq!(eden.rows("SELECT v FROM n ORDER BY time"), serde_json::json!([[2.0], [3.0], [9.0]]));
    // Nothing is written if one of them is not there.
    let ran = run(eden.dir.path(), &["write", "--data", "data", "a.lp", "missing.lp"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("open missing.lp: "), "{}", ran.err);
}

/// Each key is there a hundred times, each time with another number, in the lines of all requests.
#[test]
fn of_lines_with_one_key_the_last_one_holds_with_many_requests_on_their_way() {
    let eden = Eden::start();
    let lines: String = (0..60_000).map(|n| format!("k,d=d{},e=x v={n} {}\n", n % 20, n % 600)).collect();
    for in_flight in ["1", "4", "64"] {
        let ran = piped(&eden, &["write", "--data", "data", "--precision", "us", "--in-flight", in_flight], &lines);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.starts_with("60000 lines stored, 0 refused, in "), "{}", ran.out);
        let wrong = "SELECT count(*), count(*) FILTER (WHERE v < 59400) FROM k";
        assert_eq!(eden.rows(wrong), serde_json::json!([[600, 0]]), "{in_flight} in flight");
    }
}

#[test]
fn write_says_from_which_line_on_to_write_again() {
    let eden = Eden::start();
    // What is no schema is refused for each request.
    let lines: String = (0..20_000).map(|n| format!("k,d=d{} v={n} {n}\n", n % 20)).collect();
    let ran = piped(&eden, &["write", "--data", "data", "--db", "a b\n", "--precision", "us"], &lines);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("lines from 1 on were not all stored (0 lines were)"), "{}", ran.err);
}

#[test]
fn write_says_how_far_it_is_when_it_takes_long() {
    let eden = Eden::start();
    let mut child = command(eden.dir.path(), &["write", "--data", "data"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // Until it has said something and is gone.
        let batch = "m v=1 1\n".repeat(5_000);
        while input.write_all(batch.as_bytes()).is_ok() {}
    });
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    writer.join().unwrap();
    let parts: Vec<&str> = line.trim_end().split(", ").collect();
    let [size, lines, rate] = parts[..] else { panic!("{line}") };
    assert!(size.ends_with('B') && lines.ends_with(" lines") && rate.ends_with(" lines/s"), "{line}");
    let lines: u64 = lines.split(' ').next().unwrap().parse().unwrap();
    assert!(lines > 0 && lines.is_multiple_of(5_000), "{line}");
}

#[test]
fn sql_shows_tables_and_other_formats() {
    let eden = Eden::start();
    assert_eq!(eden.write("m,d=a v=1.5 1780272000000000\nm,d=b v=10 1780272001500000").status, 204);
    let sql = |args: &[&str]| run(eden.dir.path(), &[&["sql", "--data", "data"], args].concat());
    let table = sql(&["SELECT d, v, time FROM m ORDER BY d"]);
    assert_eq!(table.code, Some(0), "{}", table.err);
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(
        lines[..4],
        [
            " d |    v | time",
            "---+------+------------------------",
            " a |  1.5 | 2026-06-01T00:00:00Z",
            " b | 10.0 | 2026-06-01T00:00:01.5Z"
        ]
    );
    assert!(lines[4].starts_with("(2 rows, ") && lines[4].ends_with(" ms)"), "{}", lines[4]);

    let csv = sql(&["--format", "csv", "SELECT d, v FROM m ORDER BY d;"]);
    assert_eq!(csv.out, "d,v\na,1.5\nb,10.0\n");
    let json = sql(&["--format", "json", "SELECT d FROM m ORDER BY d"]);
    assert_eq!(json.out, "[{\"d\":\"a\"},{\"d\":\"b\"}]\n");
    let jsonl = sql(&["--format", "jsonl", "SELECT d FROM m ORDER BY d; SELECT 1 AS one"]);
    assert_eq!(jsonl.out, "{\"d\":\"a\"}\n{\"d\":\"b\"}\n{\"one\":1}\n");

    let script = piped(&eden, &["sql", "--url", &eden.url], "REFRESH TABLE m;\nSELECT count(*)\nFROM m;\n");
    assert_eq!(script.code, Some(0), "{}", script.err);
    assert!(script.out.starts_with("REFRESH TABLE (") && script.out.contains(" 2\n"), "{}", script.out);
    for format in ["table", "csv"] {
        let wrong = sql(&["--format", format, "SELECT x FROM m"]);
        assert_eq!(wrong.code, Some(1));
        assert!(wrong.err.contains("column x unknown"), "{}", wrong.err);
    }
}

#[test]
fn clients_without_a_server_say_which_command_starts_one() {
    let dir = TempDir::new().unwrap();
    for args in [&["sql", "--data", "nothing", "SELECT 1"][..], &["write", "--data", "nothing"]] {
        let ran = run(dir.path(), args);
        assert_eq!(ran.code, Some(1));
        assert_eq!(ran.err, "eden: no server is running on nothing; start one with: eden serve --data nothing\n");
    }
    let ran = run(dir.path(), &["sql", "--url", "http://127.0.0.1:9", "SELECT 1"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("127.0.0.1:9") && ran.err.contains("eden serve"), "{}", ran.err);
}

#[test]
fn the_demo_stores_ten_sensors_and_continues_when_run_again() {
    let dir = TempDir::new().unwrap();
    let demo = || {
        let mut command = command(dir.path(), &["demo", "--for", "2s"]);
        command
            .env("EDEN_HTTP_LISTEN", "127.0.0.1:0")
            .env("EDEN_POSTGRES_LISTEN", "127.0.0.1:0")
            .env("EDEN_GRPC_LISTEN", "127.0.0.1:0");
        run_with(command, "")
    };
    let first = demo();
    assert_eq!(first.code, Some(0), "{}{}", first.out, first.err);
    assert!(first.out.contains("  sensors        10\n"), "{}", first.out);
    assert!(first.out.contains("data folder: ./eden-demo (new)"), "{}", first.out);
    for pasted in
        ["curl -d 'room,site=here temperature=21.5'", "sql --data ./eden-demo", "REFRESH TABLE bmp180", "duckdb"]
    {
        assert!(first.out.contains(pasted), "{pasted} is not in {}", first.out);
    }
    let stored = |out: &str| -> u64 {
        let line = out.lines().find(|line| line.contains("rows stored    ")).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    let rows = stored(&first.out);
    assert!(rows >= 40, "{}", first.out);

    let second = demo();
    assert_eq!(second.code, Some(0), "{}{}", second.out, second.err);
    assert!(second.out.contains(&format!("({rows} rows were there from earlier runs)")), "{}", second.out);
    assert!(stored(&second.out) > rows, "{}", second.out);
    assert!(!dir.path().join("eden-demo/addresses.json").exists());
}

#[test]
fn help_and_version_teach() {
    let dir = TempDir::new().unwrap();
    let version = run(dir.path(), &["--version"]);
    assert_eq!((version.code, version.out.as_str()), (Some(0), concat!("eden ", env!("CARGO_PKG_VERSION"), "\n")));
    for (args, said) in [
        (&["--help"][..], "eden demo --for 20s"),
        (&["serve", "--help"], "EDEN_HTTP_LISTEN"),
        (&["sql", "--help"], "SHOW TABLES"),
        (&["write", "--help"], "eden write"),
        (&["import", "--help"], "Importing a file again changes nothing"),
        (&["export", "--help"], "eden export --table press --output press.parquet"),
        (&["demo", "--help"], "--for"),
        (
            &["mqtt", "test", "--help"],
            "eden mqtt test --config eden.toml --topic tele/kitchen/SENSOR --file sensor.json",
        ),
    ] {
        let help = run(dir.path(), args);
        assert_eq!(help.code, Some(0));
        assert!(help.out.contains(said), "{said:?} is not in {}", help.out);
    }
    for wrong in [&["serv"][..], &["demo", "--for", "soon"], &["sql", "--format", "xml", "SELECT 1"]] {
        assert_eq!(run(dir.path(), wrong).code, Some(2));
    }
}

#[test]
fn a_place_for_tables_that_cannot_be_one_is_a_line_that_says_why_and_exit_code_2() {
    let dir = TempDir::new().unwrap();
    let check = |tables: &str, environment: &[(&str, &str)], why: &str| {
        for arguments in [&["serve", "--data", "data"][..], &["check", "--data", "data"]] {
            let mut command = command(dir.path(), arguments);
            command
                .env("EDEN_HTTP_LISTEN", "127.0.0.1:0")
                .env("EDEN_POSTGRES_LISTEN", "127.0.0.1:0")
                .env("EDEN_GRPC_LISTEN", "127.0.0.1:0");
            command.env("EDEN_STORAGE_TABLES", tables);
            command.envs(environment.iter().copied());
            let ran = run_with(command, "");
            assert_eq!(ran.code, Some(2), "{tables}: {}", ran.err);
            let line = ran.err.lines().last().unwrap_or_default();
            assert!(line.starts_with("eden: [storage] tables") && line.contains(why), "{tables}: {}", ran.err);
        }
    };
    check("tables", &[], "relative URL");
    check("ftp://host/tables", &[], "there is no ftp://");
    check("s3://", &[], "it names no bucket");
    let without_tls = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ALLOW_HTTP", "false")];
    check("s3://bucket/eden", &without_tls, "AWS_ALLOW_HTTP=true");
}
