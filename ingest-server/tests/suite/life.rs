//! Start, stop, restart; and starts that must be refused.

use std::net::TcpListener;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::process::{Eden, Ran, command, post, run, run_with};

fn serve(dir: &Path, environment: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = command(dir, &[&["serve"], args].concat());
    command.env("EDEN_HTTP_LISTEN", "127.0.0.1:0").envs(environment.iter().copied());
    run_with(command, "")
}

/// Exit code 2 and one line that says all of this.
fn refused(ran: &Ran, said: &[&str]) {
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    for said in said {
        assert!(ran.err.contains(said), "{said:?} is not in {}", ran.err);
    }
}

#[test]
fn sigterm_flushes_and_a_restart_finds_everything() {
    let eden = Eden::start();
    let addresses = eden.data().join("addresses.json");
    assert!(addresses.exists());
    assert_eq!(eden.write("m v=1 1780272000000000\nm v=2 1780272001000000").status, 204);
    let (code, log, dir) = eden.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("flushed=true"), "{log}");
    assert!(!dir.path().join("data/addresses.json").exists());
    let day = dir.path().join("data/tables/public/m/eden_day=2026-06-01");
    assert_eq!(std::fs::read_dir(day).unwrap().count(), 1);

    let eden = Eden::start_in(dir, &[]);
    assert_eq!(eden.rows("SELECT v FROM m ORDER BY time"), json!([[1.0], [2.0]]));
}

#[test]
fn after_a_kill_the_log_is_replayed_and_the_stale_addresses_go() {
    let eden = Eden::start();
    assert_eq!(eden.write("m v=1 1\nm v=2 2").status, 204);
    let old = eden.url.clone();
    let dir = eden.kill();
    assert!(dir.path().join("data/addresses.json").exists(), "nobody could remove it");

    let eden = Eden::start_in(dir, &[]);
    assert_ne!(eden.url, old);
    assert_eq!(eden.rows("SELECT v FROM m ORDER BY time"), json!([[1.0], [2.0]]));
}

#[test]
fn a_heavy_query_does_not_hold_up_a_stop() {
    let eden = Eden::start_with(&[("EDEN_SERVER_GRACE", "2s")]);
    let lines: String = (0..30_000).map(|i| format!("m v={i} {}\n", i + 1)).collect();
    assert_eq!(eden.write(&lines).status, 204);
    let url = eden.url.clone();
    let asking = std::thread::spawn(move || {
        let stmt = br#"{"stmt":"SELECT count(*) FROM m a, m b WHERE a.v + b.v < 0"}"#;
        // It may be answered, refused or cut off.
        let _ = std::panic::catch_unwind(|| post(&url, "/_sql", &[], stmt));
    });
    while !eden.get("/metrics").body.contains("eden_query_running 1\n") {
        assert!(!asking.is_finished(), "the query was not heavy");
        std::thread::yield_now();
    }
    let (code, log, _dir) = eden.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("flushed=true"), "{log}");
    asking.join().unwrap();
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_keeps_its_addresses() {
    let eden = Eden::start();
    let addresses = eden.data().join("addresses.json");
    let before = std::fs::read_to_string(&addresses).unwrap();
    let ran = serve(eden.dir.path(), &[], &["--data", "data"]);
    refused(&ran, &["another eden server", "--data"]);
    assert_eq!(std::fs::read_to_string(&addresses).unwrap(), before);
    assert_eq!(eden.get("/ready").status, 200);
}

#[test]
fn a_taken_port_is_refused() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let ran = serve(dir.path(), &[("EDEN_HTTP_LISTEN", &listen)], &[]);
    refused(&ran, &[&listen, "is taken", "EDEN_HTTP_LISTEN"]);
}

#[test]
fn a_data_folder_that_cannot_be_one_is_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    for data in ["file", "file/below"] {
        let ran = serve(dir.path(), &[], &["--data", data]);
        refused(&ran, &["the data folder", data, "--data"]);
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("my.toml"), "[http]\nlistne = \"127.0.0.1:0\"\n").unwrap();
    for command in [&["serve", "--config", "my.toml"][..], &["config", "check", "--config", "my.toml"]] {
        let ran = run(dir.path(), command);
        refused(&ran, &["my.toml:2:1", "unknown key \"listne\"", "did you mean \"listen\"?"]);
    }
    refused(&serve(dir.path(), &[("EDEN_QUERY_TIMEOUT", "soon")], &[]), &["EDEN_QUERY_TIMEOUT", "\"soon\""]);
    refused(&serve(dir.path(), &[("EDEN_SERVER_LOG", "a=b=c")], &[]), &["[server] log"]);
    refused(&serve(dir.path(), &[], &["--config", "absent.toml"]), &["absent.toml"]);
    refused(&serve(dir.path(), &[("EDEN_HTTP_LISTEN", "nonsense")], &[]), &["nonsense", "host:port"]);
}

#[test]
fn the_file_in_the_working_directory_is_read_and_data_on_the_command_line_wins() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("eden.toml"), "[storage]\ndata = \"elsewhere\"\n[query]\nthreads = 1\n").unwrap();
    let ran = run(dir.path(), &["config", "show"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("data = \"elsewhere\"") && ran.out.contains("threads = 1"), "{}", ran.out);
    let ran = run(dir.path(), &["config", "show", "--defaults"]);
    assert!(ran.out.contains("data = \"./eden-data\""), "{}", ran.out);
    assert_eq!(run(dir.path(), &["config", "check"]).out, "the configuration is right\n");

    std::fs::write(dir.path().join("eden.toml"), "[storage]\ndata = \"elsewhere\"\n").unwrap();
    let eden = Eden::start_in(dir, &[]);
    assert!(eden.data().join("wal").exists());
    assert!(!eden.dir.path().join("elsewhere").exists());
}
