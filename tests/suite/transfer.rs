//! `eden import`, `eden export` and `COPY` on the real binary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::{Eden, Fault, Proxy, Way, wait};

/// 2026-06-01T00:00:00Z.
const START_MS: i64 = 1_780_272_000_000;
/// Generous: other tests build and run beside this one.
const WITHIN: Duration = Duration::from_secs(120);

/// All types, with the values at their ends.
const COLUMNS: &str = "site TEXT, machine TEXT, f DOUBLE, i BIGINT, u NUMERIC(20,0), d DECIMAL(18,3), b BOOLEAN, \
                       s TEXT, time TIMESTAMP, PRIMARY KEY (site, machine, time)";
const LINES: &str = "all,site=a,machine=m\\ 1 f=-0.0,i=-9223372036854775808i,u=18446744073709551615u,d=123456789012345.678d,b=true,s=\"a,b\" 0\n\
    all,site=a,machine=m\\ 1 f=5e-324,i=9223372036854775807i,u=0u,d=-0.001d,b=false,s=\"\" -1\n\
    all,site=b f=1.7976931348623157e308,d=999999999999999.999d,s=\"line one\nline \\\"two\\\" \\\\\" -86400000001\n\
    all,machine=ü\\,\\=x f=0.1,i=1i,s=\"'; DROP — ☃\ttab\r\" 1780272000000001\n\
    all f=10000000000000000,b=true 1780272000000002\n\
    all,site=c i=7i 1780272000000003\n\
    all,site=c s=\"true\" 1780272000000004\n\
    all,site=d s=\"5\" 1780272000000005\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command printed, both ways.
fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

struct Cli<'a> {
    eden: &'a Eden,
    url: String,
}

impl<'a> Cli<'a> {
    fn of(eden: &'a Eden) -> Self {
        Cli { eden, url: format!("http://{}", eden.address()) }
    }

    /// Runs `eden` against the server.
    fn run(&self, arguments: &[&str]) -> Output {
        self.eden
            .command()
            .args(arguments)
            .args(["--url", &self.url])
            .current_dir(self.eden.home())
            .output()
            .expect("run")
    }

    /// As [`Cli::run`], and it must end well.
    fn well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    /// All rows in an order, each value as it is: texts compare floats to the last bit, and zeros with their sign.
    fn rows(&self, table: &str) -> String {
        self.rows_of(&format!("SELECT * FROM {table} ORDER BY time, site, machine"))
    }

    fn rows_of(&self, query: &str) -> String {
        self.well(&["sql", "--format", "csv", query])
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.eden.command();
        command.args(arguments).args(["--url", &self.url]).current_dir(self.eden.home());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start eden")
    }
}

fn with_all_types(eden: &Eden) -> String {
    eden.sql(&format!("CREATE TABLE \"all\" ({COLUMNS})"));
    let response = eden.client().request("POST", "/api/v3/write_lp?db=public&precision=us", &[], LINES.as_bytes());
    let response = response.expect("write");
    assert_eq!(response.status, 204, "{}", text(&response.body));
    let rows = Cli::of(eden).rows("\"all\"");
    assert_eq!(rows.matches("123456789012345.678").count(), 1, "{rows}");
    assert_eq!(rows.matches("-0.0,").count(), 1, "{rows}");
    rows
}

#[test]
fn what_is_exported_and_imported_again_is_the_identical_table_in_every_format() {
    let eden = Eden::start("transfer-round-trip");
    let cli = Cli::of(&eden);
    let rows = with_all_types(&eden);
    for file in ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson.zst", "a.parquet"] {
        let schema = file.replace('.', "_");
        eden.sql(&format!("CREATE TABLE {schema}.\"all\" ({COLUMNS})"));
        cli.well(&["export", "--table", "all", "--output", file]);
        let import = ["import", "--table", &format!("{schema}.all"), file];
        assert!(cli.well(&import).contains("8 rows stored, 0 refused"), "{file}");
        assert_eq!(cli.rows(&format!("{schema}.\"all\"")), rows, "{file}");
        cli.well(&import);
        assert_eq!(cli.rows(&format!("{schema}.\"all\"")), rows, "{file}: again, nothing changes");
    }
    for file in ["a.lp", "a.lp.gz"] {
        let schema = file.replace('.', "_");
        eden.sql(&format!("CREATE TABLE {schema}.\"all\" ({COLUMNS})"));
        cli.well(&["export", "--table", "all", "--output", file]);
        assert!(cli.well(&["import", "--db", &schema, file]).contains("8 rows stored, 0 refused"), "{file}");
        assert_eq!(cli.rows(&format!("{schema}.\"all\"")), rows, "{file}");
    }
}

#[test]
fn a_table_that_is_not_there_gets_the_types_of_the_file() {
    let eden = Eden::start("transfer-new-table");
    let cli = Cli::of(&eden);
    let rows = with_all_types(&eden);
    let types = |table: &str| {
        let query = format!(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = '{table}' ORDER BY 1"
        );
        cli.rows_of(&query)
    };
    cli.well(&["export", "--table", "all", "--output", "a.parquet"]);
    let output = cli.run(&["import", "--table", "new.all", "a.parquet"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--tags"), "{}", said(&output));
    cli.well(&["import", "--table", "new.all", "--tags", "site,machine", "a.parquet"]);
    assert_eq!(cli.rows("new.\"all\""), rows);
    assert_eq!(types("new"), types("public"));

    // CSV and JSON say less: what looks like a whole number is one, and a declared decimal is a float.
    std::fs::write(eden.home().join("b.csv"), "time,site,f,i,b,s,none\n1,007,1.5,1,true,x,\n2,8,2,-1,false,,\n")
        .unwrap();
    cli.well(&["import", "--table", "b.t", "--tags", "site", "b.csv"]);
    assert_eq!(
        types("b"),
        "column_name,data_type\nb,Boolean\nf,Float64\ni,Int64\ns,Utf8View\nsite,Utf8View\ntime,\"Timestamp(µs, \"\"UTC\"\")\"\n"
    );
}

/// Rows of `count` milliseconds.
fn csv_of(path: &Path, count: i64) {
    let mut rows = "time,site,v\n".to_owned();
    for n in 0..count {
        writeln!(rows, "{},s{},{}.5", START_MS + n, n % 7, n).expect("write to memory");
    }
    std::fs::write(path, rows).expect("write a file");
}

/// Waits until some of the rows of an import are there.
fn wait_for_rows(eden: &Eden, more_than: i64) {
    let count = || eden.client().sql("SELECT count(*) FROM t").ok()?["rows"][0][0].as_i64();
    let found = wait::until(WITHIN, || count().filter(|count| *count > more_than));
    found.expect("rows of the import become visible");
}

/// A way to the server on which an import of 40,000 rows comes no further than a third, however fast it is.
fn held_in_the_middle(eden: &Eden) -> Proxy {
    let proxy = Proxy::start(eden.address());
    proxy.fault_next(Fault::HoldAfter(Way::Up, 400_000));
    proxy
}

fn end(child: Child) -> Output {
    child.wait_with_output().expect("wait for the import")
}

#[test]
fn an_import_that_a_kill_of_the_server_ended_is_right_when_it_is_run_again() {
    let mut eden = Eden::start("transfer-kill");
    let file = eden.home().join("rows.csv");
    csv_of(&file, 40_000);
    eden.sql("CREATE TABLE t (site TEXT, v DOUBLE, PRIMARY KEY (site, time))");
    let arguments = ["import", "--table", "t", "--batch", "50", "--resume-file", "note", "rows.csv"];
    let proxy = held_in_the_middle(&eden);
    let import = Cli { eden: &eden, url: format!("http://{}", proxy.address()) }.start(&arguments);
    wait_for_rows(&eden, 200);
    eden.kill();
    let output = end(import);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the same command goes on from there"), "{}", said(&output));

    eden.restart();
    let partly = eden.sql("SELECT count(*) FROM t").single().as_i64().unwrap();
    let note = std::fs::read_to_string(eden.home().join("note")).expect("a note");
    let note: serde_json::Value = serde_json::from_str(&note).expect("JSON");
    let done = note["files"][0]["done"].as_i64().unwrap();
    assert!(0 < done && done <= partly && partly < 40_000, "noted {done}, stored {partly}: what is noted is durable");

    let said = Cli::of(&eden).well(&arguments);
    assert!(said.contains(&format!("{} rows stored", 40_000 - done)), "it went on at row {done}: {said}");
    assert!(!eden.home().join("note").exists(), "all is imported: no note is needed");
    let clean = Eden::start("transfer-kill-clean");
    clean.sql("CREATE TABLE t (site TEXT, v DOUBLE, PRIMARY KEY (site, time))");
    Cli::of(&clean).well(&["import", "--table", "t", file.to_str().unwrap()]);
    let all = "SELECT * FROM t ORDER BY time";
    assert_eq!(Cli::of(&eden).rows_of(all), Cli::of(&clean).rows_of(all));
}

#[test]
fn an_interrupted_import_says_how_far_it_is_and_does_not_go_on_in_a_changed_file() {
    let eden = Eden::start("transfer-interrupt");
    let cli = Cli::of(&eden);
    let file = eden.home().join("rows.csv");
    csv_of(&file, 40_000);
    let import = ["import", "--table", "t", "--tags", "site", "--batch", "50", "rows.csv"];
    let arguments = [&import[..], &["--resume-file", "note"]].concat();
    let proxy = held_in_the_middle(&eden);
    let child = Cli { eden: &eden, url: format!("http://{}", proxy.address()) }.start(&arguments);
    wait_for_rows(&eden, 200);
    kill_process(Pid::from_child(&child), Signal::INT).expect("send SIGINT");
    proxy.heal();
    let output = end(child);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let stored = eden.sql("SELECT count(*) FROM t").single().as_i64().unwrap();
    assert!(said(&output).contains(&format!("{stored} rows are stored in all")), "{stored}: {}", said(&output));

    csv_of(&file, 40_001);
    let output = cli.run(&arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("has changed since row"), "{}", said(&output));
    assert!(cli.well(&import).contains("40001 rows stored, 0 refused"));
    assert_eq!(*eden.sql("SELECT count(*) FROM t").single(), 40_001);
}

#[test]
fn an_import_whose_connection_breaks_goes_on_where_it_was_in_every_format() {
    let eden = Eden::start("transfer-resume");
    let cli = Cli::of(&eden);
    csv_of(&eden.home().join("rows.csv"), 4_000);
    cli.well(&["import", "--table", "base", "--tags", "site", "rows.csv"]);
    cli.well(&["export", "--table", "base", "--output", "rows.parquet"]);
    cli.well(&["export", "--table", "base", "--output", "rows.jsonl.gz"]);
    // Line protocol goes in batches of a size of its own.
    let lines: String = (0..30_000).map(|n| format!("lines,site=s{} v={n} {}\n", n % 7, START_MS + n)).collect();
    std::fs::write(eden.home().join("rows.lp"), lines).expect("write a file");
    let typed = |table: &'static str, file: &'static str| {
        (
            table,
            vec!["import", "--table", table, "--tags", "site", "--batch", "100", "--resume-file", "note", file],
            4_000,
        )
    };
    let lp = ("lines", vec!["import", "--resume-file", "note", "rows.lp"], 30_000);
    for (table, arguments, rows) in [typed("p", "rows.parquet"), typed("j", "rows.jsonl.gz"), lp] {
        // About half of what it has to send.
        let proxy = Proxy::start(eden.address());
        proxy.fault_next(Fault::CutAfter(Way::Up, if table == "lines" { 500_000 } else { 60_000 }));
        let broken = Cli { eden: &eden, url: format!("http://{}", proxy.address()) };
        let output = broken.run(&arguments);
        assert_eq!(output.status.code(), Some(1), "{table}: {}", said(&output));
        assert!(said(&output).contains("the same command goes on from there"), "{table}: {}", said(&output));
        let done = eden.sql(&format!("SELECT count(*) FROM {table}")).single().as_i64().unwrap();
        assert!(0 < done && done < rows, "{table}: {done}");
        let said = cli.well(&arguments);
        assert!(said.contains(&format!("{} rows stored", rows - done)), "{table} went on at {done}: {said}");
        assert_eq!(*eden.sql(&format!("SELECT count(*) FROM {table}")).single(), rows, "{table}");
    }
}

#[test]
fn rows_that_are_refused_are_named_and_the_others_are_stored() {
    let eden = Eden::start("transfer-refused");
    let cli = Cli::of(&eden);
    let write = |name: &str, text: &str| -> PathBuf {
        let path = eden.home().join(name);
        std::fs::write(&path, text).expect("write a file");
        path
    };
    eden.sql("CREATE TABLE t (site TEXT, v DOUBLE, d DECIMAL(18,1), PRIMARY KEY (site, time))");
    write(
        "a.csv",
        "time,site,v,d\n1,a,1.5,1.5\n,b,1,\n3,c,x,\n4,\"two\nlines\",1,\n6,d,,\n7,e,1,1.55\nsoon,f,1,\n8,g,nan,\n9,h,1\n10,i,2,2.5\n",
    );
    let output = cli.run(&["import", "--table", "t", "a.csv"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("2 rows stored, 8 refused"), "{text}");
    for (line, reason) in [
        (3, "there is no time"),
        (4, "v: \"x\" is not a number"),
        (5, "site: \"two\\nlines\" cannot be a tag"),
        (7, "none of its fields has a value"),
        (8, "field \"d\" is decimal of 18 digits with resolution 0.1"),
        (9, "\"soon\" is not a time"),
        (10, "v: NaN cannot be stored"),
        (11, "3 fields, where there are 4 columns"),
    ] {
        let place = format!("a.csv:{line} refused: {reason}");
        assert!(text.contains(&place), "{place}: {text}");
    }
    assert_eq!(*eden.sql("SELECT count(*) FROM t").single(), 2);

    let output = cli.run(&["import", "--table", "t", "--strict", "a.csv"]);
    assert!(said(&output).contains("a.csv:3: ") && !said(&output).contains("a.csv:4"), "{}", said(&output));

    write("b.lp", "m v=1 1\nm v=2\nm v=\"x\ny\" 3\nm v=3 5\n");
    let output = cli.run(&["import", "b.lp"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("b.lp:2 refused: it has no time"), "{}", said(&output));
    assert!(said(&output).contains("b.lp:3 refused: field \"v\""), "{}", said(&output));
    assert_eq!(*eden.sql("SELECT count(*) FROM m").single(), 2);

    let output = cli.run(&["import", "--table", "t", "--time", "when", "a.csv"]);
    assert!(said(&output).contains("there is no column \"when\""), "{}", said(&output));
}

#[test]
fn nested_objects_are_columns_by_path() {
    let eden = Eden::start("transfer-nested");
    let cli = Cli::of(&eden);
    let lines = "{\"time\":\"2026-06-01T00:00:00Z\",\"line\":\"a\",\"motor\":{\"current\":{\"l1\":3.5,\"l2\":null}},\"list\":[1,\"x\"]}\n\
                 {\"time\":1780272001,\"line\":\"a\",\"motor\":5}\n\
                 {\"time\":1780272002,\"line\":\"b\",\"motor\":{\"current\":{\"l1\":4}}}\n";
    std::fs::write(eden.home().join("a.jsonl"), lines).expect("write a file");
    let output = cli.run(&["import", "--table", "j", "--tags", "line", "a.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("a.jsonl:2 refused: \"motor\" is an object"), "{}", said(&output));
    let rows = cli.rows_of("SELECT line, \"motor.current.l1\" AS l1, list FROM j ORDER BY time");
    assert_eq!(rows, "line,l1,list\na,3.5,\"[1,\"\"x\"\"]\"\nb,4.0,\n");
    let rows = cli.rows_of("SELECT line, motor['current']['l1'] AS l1 FROM j WHERE motor['current']['l1'] > 3.6");
    assert_eq!(rows, "line,l1\nb,4.0\n");
    // Structs of Parquet are the same.
    let query = "SELECT line, time, named_struct('current', named_struct('l1', \"motor.current.l1\")) AS motor FROM j";
    cli.well(&["export", "--query", query, "--output", "a.parquet"]);
    cli.well(&["import", "--table", "p", "--tags", "line", "a.parquet"]);
    let rows = cli.rows_of("SELECT line, \"motor.current.l1\" AS l1 FROM p ORDER BY time");
    assert_eq!(rows, "line,l1\na,3.5\nb,4.0\n");
}

#[test]
fn copy_is_done_where_the_shell_runs_and_refused_by_the_server() {
    let eden = Eden::start("transfer-copy");
    let cli = Cli::of(&eden);
    csv_of(&eden.home().join("a.csv"), 100);
    assert!(cli.well(&["sql", "COPY t FROM 'a.csv' WITH (TAGS 'site')"]).contains("COPY 100"));
    let copy = "COPY (SELECT site, v FROM t WHERE v < 2 ORDER BY v) TO STDOUT WITH (HEADER false, DELIMITER ';')";
    let output = cli.run(&["sql", copy]);
    assert_eq!(text(&output.stdout), "s0;0.5\ns1;1.5\n", "{}", said(&output));
    cli.well(&["sql", "COPY t TO 't.parquet'; COPY t2 FROM 't.parquet' (TAGS 'site')"]);
    assert_eq!(*eden.sql("SELECT count(*) FROM t2").single(), 100);

    // Statements of a script are in standard input: nothing else can be.
    let mut child = cli.start(&["sql"]);
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"COPY t FROM STDIN;\n1,2\n").expect("write");
    drop(input);
    assert!(said(&end(child)).contains("standard input holds the statements"));

    for statement in ["COPY t TO '/tmp/x.csv'", "COPY t FROM '/etc/passwd'"] {
        let refused = eden.client().sql(statement).unwrap_err();
        assert!(refused.contains("eden import"), "{refused}");
    }
}

#[test]
fn an_export_that_fails_leaves_no_file_and_the_one_that_was_there() {
    let eden = Eden::start("transfer-export");
    let cli = Cli::of(&eden);
    csv_of(&eden.home().join("a.csv"), 10);
    cli.well(&["import", "--table", "t", "--tags", "site", "a.csv"]);
    std::fs::write(eden.home().join("out.csv"), "before").expect("write a file");
    // It fails in the middle, after rows have left.
    let query = "SELECT 1 / (500000 - value) AS x FROM generate_series(1, 1000000)";
    let output = cli.run(&["export", "--query", query, "--output", "out.csv"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let len = std::fs::metadata(eden.home().join("out.csv")).unwrap().len();
    assert_eq!(len, 6, "what was there before is untouched");
    let names = std::fs::read_dir(eden.home()).unwrap().map(|entry| entry.unwrap().file_name());
    let parts: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".part")).collect();
    assert!(parts.is_empty(), "{parts:?}");

    cli.well(&[
        "export",
        "--table",
        "t",
        "--from",
        "2026-06-01T00:00:00.002Z",
        "--to",
        "1780272000005",
        "--output",
        "out.csv",
    ]);
    let exported = std::fs::read_to_string(eden.home().join("out.csv")).unwrap();
    let mut values: Vec<&str> = exported.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
    values.sort_unstable();
    assert_eq!(values, ["2.5", "3.5", "4.5"]);
}
