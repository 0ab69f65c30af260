//! Statements that run: who sees them, who ends them, and what is left of them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::postgres::{Client, LONG, field, message};
use crate::process::{Eden, get, post};

/// How long a statement may still be shown as running after it was ended, or its client went. On a machine that does
/// nothing else it is well under a second; here all tests run at once, without optimisation.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How long a statement may take to begin, on the same machine.
const BEGUN_WITHIN: Duration = Duration::from_secs(30);

const PROTOCOLS: [&str; 4] = ["sql", "query_sql", "postgres", "flight"];

/// One that is told from all others by `mark`.
fn long(mark: &str) -> String {
    format!("{LONG} AND '{mark}' <> ''")
}

/// What `system.queries` says of the statement with `mark`.
fn shown(eden: &Eden, mark: &str) -> Option<Value> {
    let columns = "id, state, protocol, peer, username, memory_bytes, memory_peak_bytes, elapsed_ms, error";
    let sql = format!(
        "SELECT {columns} FROM system.queries WHERE statement LIKE '%{mark}%' AND statement NOT LIKE '%system.%'"
    );
    let rows = eden.rows(&sql);
    rows.as_array().unwrap().last().cloned()
}

/// Waits until a statement is shown as `is_wanted` says; gives the row, and how long that took.
#[expect(clippy::disallowed_methods, reason = "the server runs in real time")]
fn wait_for(eden: &Eden, mark: &str, within: Duration, is_wanted: impl Fn(&Value) -> bool) -> (Value, Duration) {
    let began = Instant::now();
    loop {
        let row = shown(eden, mark);
        if let Some(row) = row.clone().filter(&is_wanted) {
            return (row, began.elapsed());
        }
        assert!(began.elapsed() < within, "{mark}: still so after {within:?} on this machine: {row:?}");
    }
}

/// Waits until a statement runs.
fn wait_until_it_runs(eden: &Eden, mark: &str) -> Value {
    wait_for(eden, mark, BEGUN_WITHIN, |row| row[1] == "running").0
}

/// Waits until a statement has ended so, and has given back its memory.
fn wait_until_it_is_gone(eden: &Eden, mark: &str, state: &str) -> (Value, Duration) {
    wait_for(eden, mark, GONE_WITHIN, |row| row[1] == state && row[5] == 0)
}

async fn flight(address: SocketAddr) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
}

/// How an answer ends.
async fn end_of(mut rows: Streaming<FlightData>) -> Option<Status> {
    loop {
        match rows.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

/// Runs `sql` over `protocol`; gives the error that it ends with, its code before it.
fn run(eden: &Eden, protocol: &str, sql: String) -> JoinHandle<String> {
    let url = eden.url.clone();
    let address = match protocol {
        "postgres" => Some(eden.address("postgres")),
        "flight" => Some(eden.address("grpc")),
        _ => None,
    };
    let protocol = protocol.to_owned();
    std::thread::spawn(move || match (&*protocol, address) {
        ("postgres", Some(address)) => {
            let mut client = Client::connect(address, &[("user", "me"), ("application_name", "test")]);
            client.send(&[message(b'Q', format!("{sql}\0").as_bytes())]);
            loop {
                let (kind, body) = client.receive().unwrap();
                match kind {
                    b'E' => return format!("{} {}", field(&body, b'C'), field(&body, b'M')),
                    b'Z' => panic!("{sql} ended without an error"),
                    _ => {}
                }
            }
        }
        ("flight", Some(address)) => Runtime::new().unwrap().block_on(async {
            let mut client = flight(address).await;
            let ticket = json!({ "sql_query": sql }).to_string();
            let status = match client.do_get(Ticket::new(ticket)).await {
                Ok(answer) => end_of(answer.into_inner()).await,
                Err(status) => Some(status),
            };
            let status = status.unwrap_or_else(|| panic!("{sql} began to answer"));
            format!("{:?} {}", status.code(), status.message())
        }),
        (path, _) => {
            let (path, body) = match path {
                "sql" => ("/_sql", json!({ "stmt": sql })),
                _ => ("/api/v3/query_sql", json!({ "q": sql })),
            };
            let answer = post(&url, path, &[], body.to_string().as_bytes());
            let body = answer.json();
            match path {
                "/_sql" => format!("{} {}", body["error"]["code"], body["error"]["message"].as_str().unwrap()),
                _ => format!("{} {}", answer.status, body["error"].as_str().unwrap()),
            }
        }
    })
}

#[test]
fn a_statement_of_any_protocol_is_seen_and_ended_by_kill_and_its_client_is_told_by_whom() {
    let eden = Eden::start();
    for protocol in PROTOCOLS {
        let mark = format!("killed-{protocol}");
        let running = run(&eden, protocol, long(&mark));
        let row = wait_until_it_runs(&eden, &mark);
        assert_eq!(row[2], protocol, "{row}");
        assert!(row[3].as_str().unwrap().starts_with("127.0.0.1:"), "{row}");
        assert_eq!(row[4], if protocol == "postgres" { json!("me") } else { Value::Null }, "{row}");
        assert!(row[7].as_f64().unwrap() > 0.0, "{row}");
        let answer = eden.sql(&format!("KILL '{}'", row[0].as_str().unwrap()));
        assert_eq!((answer.status, &answer.json()["rowcount"]), (200, &json!(1)), "{answer:?}");
        let said = running.join().unwrap();
        let code = match protocol {
            "sql" => "5005 JobKilledException[",
            "query_sql" => "500 ",
            "postgres" => "57014 ",
            _ => "Cancelled ",
        };
        let by = format!("the statement was ended by KILL {} from 127.0.0.1:", row[0].as_str().unwrap());
        assert!(said.starts_with(code) && said.contains(&by) && said.contains(" over sql"), "{said}");
        let (row, took) = wait_until_it_is_gone(&eden, &mark, "killed");
        println!("{protocol}: killed and gone after {took:?}");
        assert!(row[8].as_str().unwrap().contains(&by), "{row}");
    }
    let answer = eden.sql("KILL 1000000");
    assert_eq!(answer.json()["rowcount"], 0, "nobody has that number: {answer:?}");
    let answer = eden.get("/api/v3/query_sql?q=KILL+ALL");
    assert!(answer.status == 400 && answer.body.contains("KILL changes something"), "{answer:?}");
}

#[test]
fn a_client_that_goes_away_takes_its_statement_with_it() {
    let eden = Eden::start();
    for protocol in PROTOCOLS {
        let mark = format!("left-{protocol}");
        let sql = long(&mark);
        let runtime = Runtime::new().unwrap();
        // Something that is open until it is dropped.
        let connection: Box<dyn std::any::Any> = match protocol {
            "postgres" => {
                let mut client = Client::connect(eden.address("postgres"), &[("user", "me")]);
                client.send(&[message(b'Q', format!("{sql}\0").as_bytes())]);
                Box::new(client)
            }
            "flight" => {
                let address = eden.address("grpc");
                let call = runtime.spawn(async move {
                    let mut client = flight(address).await;
                    let ticket = json!({ "sql_query": sql }).to_string();
                    let rows = client.do_get(Ticket::new(ticket)).await.unwrap().into_inner();
                    drop(end_of(rows).await);
                });
                Box::new(call)
            }
            path => {
                let (path, body) = match path {
                    "sql" => ("/_sql", json!({ "stmt": sql }).to_string()),
                    _ => ("/api/v3/query_sql", json!({ "q": sql }).to_string()),
                };
                let mut stream = TcpStream::connect(eden.address("http")).unwrap();
                let length = body.len();
                write!(stream, "POST {path} HTTP/1.1\r\nhost: eden\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
                Box::new(stream)
            }
        };
        wait_until_it_runs(&eden, &mark);
        drop(connection);
        drop(runtime);
        let (_, took) = wait_until_it_is_gone(&eden, &mark, "cancelled");
        println!("{protocol}: gone {took:?} after its client");
    }
    // What runs now is only who asks.
    assert_eq!(
        eden.rows("SELECT count(*) FROM system.queries WHERE state NOT IN ('cancelled', 'finished')"),
        json!([[1]])
    );
}

#[test]
fn who_looks_at_the_server_or_ends_a_statement_needs_no_place_among_the_others() {
    let eden = Eden::start_with(&[("EDEN_QUERY_CONCURRENT_MAX", "1")]);
    let first = run(&eden, "sql", long("first"));
    wait_until_it_runs(&eden, "first");
    let second = run(&eden, "postgres", long("second"));
    wait_for(&eden, "second", BEGUN_WITHIN, |row| row[1] == "waiting");
    let answer = eden.sql("KILL ALL");
    assert_eq!(answer.json()["rowcount"], 2, "{answer:?}");
    assert!(first.join().unwrap().starts_with("5005 "));
    assert!(second.join().unwrap().starts_with("57014 "));
    assert_eq!(eden.rows("SELECT 1"), json!([[1]]));
}

#[test]
fn what_ran_lately_is_shown_with_how_it_ended() {
    let eden = Eden::start();
    eden.sql("SELECT value FROM generate_series(1, 1000) WHERE 'ended' <> ''");
    eden.sql("SELECT nothing FROM generate_series(1, 3) WHERE 'wrong' <> ''");
    let sql = "SELECT state, rows, memory_bytes, spill_bytes, application IS NOT NULL, error, planning_ms > 0, \
               planning_ms <= elapsed_ms FROM system.queries \
               WHERE statement NOT LIKE '%system.%' ORDER BY time, id";
    let rows = eden.rows(sql);
    assert_eq!(rows[0], json!(["finished", 1000, 0, 0, true, null, true, true]), "{rows}");
    assert_eq!((&rows[1][0], &rows[1][1]), (&json!("failed"), &json!(0)), "{rows}");
    assert_eq!(rows[1][6], json!(null), "it was never planned: {rows}");
    assert!(rows[1][5].as_str().unwrap().contains("nothing"), "{rows}");
    let own = "/* this one */ SELECT state, protocol FROM system.queries WHERE statement LIKE '%this ' || 'one%'";
    assert_eq!(eden.rows(own), json!([["planning", "sql"]]), "a statement sees itself, as it looks");
}

#[test]
fn the_server_shows_its_tables_shards_settings_and_its_log() {
    let eden = Eden::start_with(&[("EDEN_QUERY_TIMEOUT", "60s"), ("EDEN_STORAGE_RETENTION", "36500d")]);
    eden.write(
        "air,room=a t=1 1780272000000000000\nair,room=b t=2 1780358400000000000\nsoil n=1i 1780272000000000000\n",
    );
    eden.sql("REFRESH TABLE air");
    eden.write("air,room=a t=1.5 1780444800000000000\n");
    eden.sql("ALTER TABLE soil SET (retention = '36000d')");
    let columns = "table_schema, table_name, rows, memory_rows, shards, columns, first_day, last_day, retention, retention_is_set";
    let rows =
        eden.rows(&format!("SELECT {columns} FROM system.tables WHERE table_schema = 'public' ORDER BY table_name"));
    assert_eq!(
        rows,
        json!([
            ["public", "air", 3, 1, 2, 3, "2026-06-01", "2026-06-03", "36500d", false],
            ["public", "soil", 1, 1, 0, 2, "2026-06-01", "2026-06-01", "36000d", true],
        ])
    );
    let rows = eden.rows(
        "SELECT table_name, day, rows, CAST(time AS TEXT), time_to, has_checksums, damage, path LIKE 'public/air/eden_day=%' \
         FROM system.shards ORDER BY path",
    );
    assert_eq!(
        rows,
        json!([
            ["air", "2026-06-01", 1, "2026-06-01T00:00:00Z", "2026-06-01T00:00:00Z", true, null, true],
            ["air", "2026-06-02", 1, "2026-06-02T00:00:00Z", "2026-06-02T00:00:00Z", true, null, true],
        ])
    );
    let bytes = "SELECT (SELECT sum(bytes) FROM system.shards) = (SELECT sum(bytes) FROM system.tables)";
    assert_eq!(eden.rows(bytes), json!([[true]]));
    let rows = eden.rows(
        "SELECT value, default_value, is_default FROM system.settings WHERE section = 'query' AND key IN ('timeout', 'threads') \
         ORDER BY key",
    );
    assert_eq!(rows, json!([["0", "0", true], ["\"1m\"", "\"5m\"", false]]));
    let rows = eden.rows(
        "SELECT log_bytes > 0, log_segments > 0, log_durable = log_appended, log_is_poisoned, memory_rows, tables, shards, \
         disk_free_bytes > 0, takes_rows FROM system.storage",
    );
    let row = rows[0].as_array().unwrap();
    assert_eq!(row[..5], [json!(true), json!(true), json!(true), json!(false), json!(2)], "{rows}");
    assert_eq!(row[6..], [json!(2), json!(true), json!(true)], "{rows}");
    let answer = eden.sql("DELETE FROM system.settings");
    assert!(answer.body.contains("can only be read"), "{answer:?}");
}

/// The nice value is the 19th field of `/proc/<pid>/task/<tid>/stat` (proc_pid_stat(5)).
#[cfg(target_os = "linux")]
#[test]
fn threads_that_query_and_tidy_up_yield_to_those_that_take_readings_in() {
    let eden = Eden::start();
    eden.write("air t=1 1780272000000000000\n");
    eden.rows("SELECT * FROM air");
    let mut threads: Vec<(String, i32)> = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", eden.pid())).unwrap() {
        // A thread may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (head, fields) = stat.rsplit_once(") ").unwrap();
        let name = head.split_once('(').unwrap().1.to_owned();
        threads.push((name, fields.split(' ').nth(16).unwrap().parse().unwrap()));
    }
    let nice =
        |name: &str| -> Vec<i32> { threads.iter().filter(|thread| thread.0 == name).map(|thread| thread.1).collect() };
    let own = nice("flush")[0];
    assert!(!nice("query").is_empty() && nice("query").iter().all(|of| *of == own + 5), "{threads:?}");
    assert_eq!((nice("maintain"), nice("scrub")), (vec![own + 10], vec![own + 10]), "{threads:?}");
    let others = threads.iter().filter(|(name, _)| !["query", "maintain", "scrub"].contains(&&**name));
    assert!(others.clone().count() > 3 && others.clone().all(|(_, of)| *of == own), "{threads:?}");
    let answer = get(&eden.url, "/ping", &[]);
    assert!(answer.status < 300);
}
