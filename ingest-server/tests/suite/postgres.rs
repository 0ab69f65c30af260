//! PostgreSQL's protocol, byte for byte: what drivers send, and what they must get.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ingest_server::config::Config;
use ingest_server::serve::Server;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Takes minutes unless something ends it.
pub(crate) const LONG: &str = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b \
                    WHERE a.value % 7 = b.value % 3";

struct Setup {
    runtime: Runtime,
    server: Option<Server>,
    address: SocketAddr,
    _folder: TempDir,
}

impl Setup {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.http.listen = "127.0.0.1:0".into();
        config.mqtt.listen = String::new();
        config.grpc.listen = "127.0.0.1:0".into();
        config.postgres.listen = "127.0.0.1:0".into();
        config.postgres.max_message_bytes = ingest_server::config::ByteSize(1 << 20);
        config.storage.data = folder.path().join("data");
        let runtime = Runtime::new().unwrap();
        let mut server = runtime.block_on(Server::bind(config)).unwrap();
        runtime.block_on(server.open()).unwrap();
        let address = server.postgres_addr().unwrap();
        Setup { runtime, server: Some(server), address, _folder: folder }
    }

    fn connect(&self) -> Client {
        Client::connect(self.address, &[("user", "me"), ("database", "eden")])
    }

    fn running(&self) -> u64 {
        let app = self.server.as_ref().unwrap().app();
        app.for_queries().unwrap().engine.stats().running
    }

    #[expect(clippy::disallowed_methods, reason = "the engine runs in real time")]
    fn wait_until_idle(&self) {
        let began = Instant::now();
        while self.running() > 0 {
            // A second on a machine that does nothing else; here all tests run at once, without optimisation.
            assert!(began.elapsed() < Duration::from_secs(10), "the statement goes on");
            std::thread::yield_now();
        }
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.server.take().unwrap().stop());
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    process: u32,
    secret: Vec<u8>,
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    message(0, &body)[1..].to_vec()
}

impl Client {
    fn open(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub(crate) fn connect(address: SocketAddr, parameters: &[(&str, &str)]) -> Self {
        let mut client = Client { stream: Client::open(address), process: 0, secret: Vec::new() };
        client.stream.write_all(&startup(parameters)).unwrap();
        loop {
            let (kind, body) = client.receive().unwrap();
            match kind {
                b'K' => {
                    client.process = u32::from_be_bytes(body[..4].try_into().unwrap());
                    client.secret = body[4..].to_vec();
                }
                b'Z' => return client,
                b'R' | b'S' => {}
                other => panic!("{} {}", other as char, String::from_utf8_lossy(&body)),
            }
        }
    }

    pub(crate) fn send(&mut self, messages: &[Vec<u8>]) {
        self.stream.write_all(&messages.concat()).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
        self.stream.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    /// The answers up to the server's being ready again, each as a line.
    fn answers(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            let (kind, body) = self.receive().expect("the server goes on");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
            lines.push(match kind {
                b'Z' => {
                    lines.push(format!("ready {}", body[0] as char));
                    return lines;
                }
                b'D' => format!("row {}", row(&body)),
                b'C' => text(&body),
                b'T' => "columns".to_owned(),
                b'E' => format!("error {}", field(&body, b'C')),
                b'N' => format!("warning {}", field(&body, b'C')),
                b'I' => "empty".to_owned(),
                b'S' => format!("parameter {}", text(&body).replace('\0', "=")),
                b's' => "suspended".to_owned(),
                b'd' => format!("data {}", text(&body).trim_end()),
                other => (other as char).to_string(),
            });
        }
    }

    fn query(&mut self, sql: &str) -> Vec<String> {
        self.send(&[message(b'Q', format!("{sql}\0").as_bytes())]);
        self.answers()
    }
}

/// A statement that is ended may have announced its columns before, or not.
fn without_columns(mut answers: Vec<String>) -> Vec<String> {
    answers.retain(|answer| answer != "columns");
    answers
}

pub(crate) fn field(body: &[u8], wanted: u8) -> String {
    let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&wanted));
    String::from_utf8_lossy(&found.unwrap_or_default()[1..]).into_owned()
}

fn row(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_at_checked(4) {
        match usize::try_from(i32::from_be_bytes(length.try_into().unwrap())) {
            Ok(length) => {
                values.push(String::from_utf8_lossy(&after[..length]).into_owned());
                rest = &after[length..];
            }
            Err(_) => {
                values.push("null".to_owned());
                rest = after;
            }
        }
    }
    values.join(",")
}

fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    body.extend_from_slice(&(types.len() as u16).to_be_bytes());
    types.iter().for_each(|of| body.extend_from_slice(&of.to_be_bytes()));
    message(b'P', &body)
}

fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

const TABLE: &str = "CREATE TABLE air (device TEXT, temp DOUBLE, n BIGINT, time TIMESTAMP, PRIMARY KEY (device, time))";

#[test]
fn statements_are_answered_one_after_the_other_until_one_fails() {
    let setup = Setup::start();
    let mut client = setup.connect();
    for (sql, expected) in [
        ("", &["empty", "ready I"][..]),
        ("-- ping", &["empty", "ready I"]),
        ("SELECT 1 AS a, NULL, 'ü'", &["columns", "row 1,null,ü", "SELECT 1", "ready I"]),
        ("SET timezone = 'UTC'; SELECT true; ;", &["SET", "columns", "row t", "SELECT 1", "ready I"]),
        ("SELECT 1; SELEC 2; SELECT 3", &["columns", "row 1", "SELECT 1", "error 42601", "ready I"]),
        (TABLE, &["CREATE TABLE", "ready I"]),
        ("SELECT * FROM air", &["columns", "SELECT 0", "ready I"]),
        ("SELECT nothing FROM air", &["error 42703", "ready I"]),
        ("SELECT 1 FROM nowhere", &["error 42P01", "ready I"]),
        ("SELECT 1 / 0", &["columns", "error 22012", "ready I"]),
        ("SET application_name = 'x'", &["parameter application_name=x", "SET", "ready I"]),
        ("SET work_mem = '1GB'", &["error 42704", "ready I"]),
        ("SHOW search_path", &["columns", "row \"$user\", public", "SHOW", "ready I"]),
        ("SELECT current_user, current_setting('application_name')", &["columns", "row me,x", "SELECT 1", "ready I"]),
        ("BEGIN", &["BEGIN", "ready T"]),
        ("DELETE FROM air WHERE n = 1", &["DELETE 0", "ready T"]),
        ("SELEC", &["error 42601", "ready E"]),
        ("SELECT 1", &["error 25P02", "ready E"]),
        ("ROLLBACK", &["warning 01000", "ROLLBACK", "ready I"]),
        ("BEGIN READ ONLY; DROP TABLE air", &["BEGIN", "error 25006", "ready E"]),
        ("COMMIT", &["ROLLBACK", "ready I"]),
        ("COPY air TO '/tmp/x'", &["error 0A000", "ready I"]),
        ("SELECT pg_backend_pid() > 0, current_database()", &["columns", "row t,eden", "SELECT 1", "ready I"]),
    ] {
        let found = client.query(sql);
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn portals_are_read_in_portions_and_an_error_skips_to_sync() {
    let setup = Setup::start();
    let mut client = setup.connect();
    let numbers = "SELECT value FROM generate_series(1, 5) WHERE value > $1";
    client.send(&[message(b'Q', b"BEGIN\0")]);
    client.answers();
    client.send(&[parse("s", numbers, &[20]), bind("p", "s", &["2"]), execute("p", 2), execute("p", 2), sync()]);
    assert_eq!(client.answers(), ["1", "2", "row 3", "row 4", "suspended", "row 5", "SELECT 1", "ready T"]);
    client.query("COMMIT");
    client.send(&[bind("", "s", &["4"]), execute("", 0), sync()]);
    assert_eq!(client.answers(), ["2", "row 5", "SELECT 1", "ready I"]);
    client.send(&[bind("", "s", &["four"]), execute("", 0), parse("t", "SELECT 1", &[]), sync()]);
    assert_eq!(client.answers(), ["error 22P02", "ready I"]);
    for (messages, code) in [
        (vec![bind("", "t", &[])], "26000"),
        (vec![bind("", "s", &[])], "08P01"),
        (vec![execute("p", 0)], "34000"),
        (vec![parse("s", "SELECT 1", &[])], "42P05"),
        (vec![parse("u", "SELECT 1; SELECT 2", &[])], "42601"),
        (vec![parse("u", "SELECT $1", &[600])], "0A000"),
    ] {
        client.send(&[messages.concat(), sync()]);
        assert_eq!(client.answers(), [format!("error {code}"), "ready I".to_owned()]);
    }
    client.send(&[message(b'D', b"Ss\0"), sync()]);
    assert_eq!(client.answers(), ["t", "columns", "ready I"]);
}

#[test]
fn copied_rows_are_there_for_others_and_bad_lines_are_named() {
    let setup = Setup::start();
    let mut client = setup.connect();
    client.query(TABLE);
    let data = |text: &str| message(b'd', text.as_bytes());
    client.send(&[message(b'Q', b"COPY air (device, temp, time) FROM STDIN\0")]);
    client.send(&[
        data("a\t1.5\t2026-06-01 00:00:00+00\nb\\tc\t\\N\t2026-06-01 00:0"),
        data("0:01+00\n"),
        message(b'c', b""),
    ]);
    assert_eq!(client.answers(), ["G", "COPY 2", "ready I"]);
    client.send(&[message(b'Q', b"COPY air (device, n, time) FROM STDIN CSV\0")]);
    client.send(&[data("\"a\",7,2026-06-01T00:00:00Z\na,seven,2026-06-01\n"), message(b'c', b"")]);
    let answers = client.answers();
    assert_eq!(answers, ["G", "error 22P04", "ready I"]);
    client.send(&[message(b'Q', b"COPY air FROM STDIN\0"), message(b'f', b"no more\0")]);
    assert_eq!(client.answers(), ["G", "error 57014", "ready I"]);
    client.send(&[message(b'Q', b"COPY (SELECT device, temp FROM air ORDER BY device) TO STDOUT\0")]);
    assert_eq!(client.answers(), ["H", "data a\t1.5", "data b\\tc\t\\N", "c", "COPY 2", "ready I"]);
    let mut other = setup.connect();
    assert_eq!(other.query("SELECT count(*) FROM air")[1], "row 2");
    assert_eq!(other.query("SET default_transaction_read_only = on; COPY air FROM STDIN")[2], "error 25006");
}

#[test]
fn statements_end_when_they_are_cancelled_late_or_nobody_waits() {
    let setup = Setup::start();
    let mut client = setup.connect();
    client.send(&[message(b'Q', format!("{LONG}\0").as_bytes())]);
    while setup.running() == 0 {
        std::thread::yield_now();
    }
    let cancel = |secret: &[u8]| {
        let body = [&80_877_102_u32.to_be_bytes()[..], &client.process.to_be_bytes(), secret].concat();
        let mut stream = Client::open(setup.address);
        stream.write_all(&message(0, &body)[1..]).unwrap();
        // The server closes it when it is done.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    };
    let wrong: Vec<u8> = client.secret.iter().map(|byte| !byte).collect();
    cancel(&wrong);
    assert_eq!(setup.running(), 1, "only its own client cancels a statement");
    cancel(&client.secret.clone());
    assert_eq!(without_columns(client.answers()), ["error 57014", "ready I"]);
    setup.wait_until_idle();

    let answers = client.query(&format!("SET statement_timeout = 200; {LONG}"));
    assert_eq!(without_columns(answers), ["SET", "error 57014", "ready I"]);
    setup.wait_until_idle();

    client.send(&[message(b'Q', format!("SET statement_timeout = 0; {LONG}\0").as_bytes())]);
    while setup.running() == 0 {
        std::thread::yield_now();
    }
    drop(client);
    setup.wait_until_idle();
}

#[test]
fn what_is_no_startup_or_no_message_ends_the_connection_and_nothing_else() {
    let setup = Setup::start();
    let mut ssl = Client::open(setup.address);
    for code in [80_877_103_u32, 80_877_104] {
        ssl.write_all(&message(0, &code.to_be_bytes())[1..]).unwrap();
        let mut answer = [0];
        ssl.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"N");
    }
    ssl.write_all(&startup(&[("user", "me")])).unwrap();
    let mut kind = [0];
    ssl.read_exact(&mut kind).unwrap();
    assert_eq!(&kind, b"R");

    for hostile in [
        startup(&[("database", "eden")]),
        startup(&[("user", "me"), ("client_encoding", "LATIN1")]),
        startup(&[("user", "me"), ("replication", "true")]),
        [&[0, 0, 0, 8][..], &[0, 2, 0, 0]].concat(),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1],
        vec![0xff; 100],
    ] {
        let mut stream = Client::open(setup.address);
        stream.write_all(&hostile).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer.first(), Some(&b'E'), "{hostile:?}");
    }
    for hostile in [
        message(b'z', b""),
        message(b'B', b"\0\0\xff\xff"),
        message(b'Q', b"no end"),
        vec![b'Q', 0x7f, 0xff, 0xff, 0xff],
    ] {
        let mut client = setup.connect();
        client.send(&[hostile]);
        assert_eq!(client.receive().map(|(kind, _)| kind), Some(b'E'));
        assert_eq!(client.receive(), None);
    }
    assert_eq!(setup.connect().query("SELECT 1")[1], "row 1");
}
