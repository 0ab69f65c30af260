//! Tables in a real S3 server, SeaweedFS from the registry of Python: `eden serve` there and away from it, killed and
//! started again, read by others.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Eden, Reading, wait};
use serde_json::{Value, json};

use super::clients::{Clients, cache};
use super::{START_US, nothing_is_damaged, piped};
use crate::command::run as run_command;
use crate::{Failure, Outcome};

const BUCKET: &str = "plant";
const KEY: &str = "eden";
/// Of a server that lives for this check, on this machine.
const SECRET: &str = "known-to-everybody";
const DEVICES: i64 = 5;
const STARTED_WITHIN: Duration = Duration::from_secs(120);
const START_TRIES: usize = 3;
const FLUSHED_WITHIN: Duration = Duration::from_secs(240);

/// A running `weed server` with its folder; killed when dropped.
struct Store {
    weed: PathBuf,
    folder: PathBuf,
    /// Master, volume, filer and S3, each with a second one.
    ports: [u16; 8],
    process: Option<Child>,
}

impl Store {
    fn start(weed: &Path, folder: &Path) -> Result<Store, Failure> {
        std::fs::create_dir_all(folder.join("data")).map_err(|e| format!("make {}: {e}", folder.display()))?;
        let actions = ["Admin", "Read", "Write", "List", "Tagging"];
        let credentials = json!([{ "accessKey": KEY, "secretKey": SECRET }]);
        let access = json!({ "identities": [{ "name": "eden", "credentials": credentials, "actions": actions }] });
        std::fs::write(folder.join("s3.json"), access.to_string()).map_err(|e| format!("write s3.json: {e}"))?;
        for _ in 0..START_TRIES {
            let (weed, folder) = (weed.to_owned(), folder.to_owned());
            let mut store = Store { weed, folder, ports: free_ports()?, process: None };
            // A port may have been taken since it was free.
            if store.run().is_ok() {
                return Ok(store);
            }
        }
        let log = std::fs::read_to_string(folder.join("weed.log")).unwrap_or_default();
        Err(format!("weed server does not start:\n{log}"))
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[6])
    }

    /// Starts it on the data that there are, and waits until it takes requests.
    fn run(&mut self) -> Outcome {
        let path = |name: &str| self.folder.join(name);
        let log = std::fs::File::options().create(true).append(true).open(path("weed.log"));
        let log = log.map_err(|e| format!("open weed.log: {e}"))?;
        let mut command = Command::new(&self.weed);
        command.arg("server").arg(format!("-dir={}", path("data").display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3", "-s3.iam=false"]);
        command.args(["-master.volumeSizeLimitMB=64", "-volume.max=30"]);
        command.arg(format!("-s3.config={}", path("s3.json").display()));
        command.arg(format!("-filer.localSocket={}", path("filer.sock").display()));
        let names = ["master", "volume", "filer", "s3"]
            .into_iter()
            .flat_map(|part| [format!("-{part}.port"), format!("-{part}.port.grpc")]);
        command.args(names.zip(self.ports).map(|(name, port)| format!("{name}={port}")));
        let said = log.try_clone().map_err(|e| format!("share weed.log: {e}"))?;
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(said).stderr(log);
        let mut process = command.spawn().map_err(|e| format!("run {}: {e}", self.weed.display()))?;
        let started = wait::until(STARTED_WITHIN, || match process.try_wait() {
            Ok(None) => self.has_bucket().then_some(true),
            _ => Some(false),
        });
        self.process = Some(process);
        if started == Some(true) { Ok(()) } else { Err("weed server does not start".into()) }
    }

    /// Makes the bucket, if it is not there.
    fn has_bucket(&self) -> bool {
        let url = format!("{}/{BUCKET}", self.url());
        let user = format!("{KEY}:{SECRET}");
        let signed = ["--silent", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user];
        let ask = ["--output", "/dev/null", "--write-out", "%{http_code}", "--request", "PUT", &url];
        piped("curl", &[&signed[..], &ask[..]].concat(), b"").is_ok_and(|status| status == b"200" || status == b"409")
    }

    /// Lets it take requests and not answer, until it is woken.
    fn signal(&self, signal: &str) -> Outcome {
        let id = self.process.as_ref().map_or(0, Child::id).to_string();
        run_command(Command::new("kill").args([signal, &id]))
    }

    /// Ends it as a power cut would end the process.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_ports() -> Result<[u16; 8], Failure> {
    let mut taken = Vec::new();
    let mut ports = [0; 8];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("find a free port: {e}"))?;
        *port = listener.local_addr().map_err(|e| format!("find a free port: {e}"))?.port();
        taken.push(listener);
    }
    Ok(ports)
}

/// See the module.
pub(super) fn tables_in_s3(clients: &Clients) -> Outcome {
    let weed = clients.python.with_file_name("weed");
    let folder = cache()?.join(format!("s3-{}", std::process::id()));
    let result = Store::start(&weed, &folder).and_then(|mut store| life(clients, &mut store));
    match &result {
        Ok(()) => drop(std::fs::remove_dir_all(&folder)),
        Err(_) => println!("data and log of the store are kept in {}", folder.display()),
    }
    result
}

fn life(clients: &Clients, store: &mut Store) -> Outcome {
    let place = format!("s3://{BUCKET}/line-7/eden");
    let environment = [
        ("AWS_ENDPOINT_URL", &*store.url()),
        ("AWS_ALLOW_HTTP", "true"),
        // So that a store that hangs is found out soon.
        ("AWS_TIMEOUT", "5 seconds"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let set = |options: harness::eden::Options, (name, value): &(&str, String)| options.setting(name, value);
    let options = environment.iter().fold(Eden::options("s3"), set);
    let mut eden = options.setting("EDEN_STORAGE_TABLES", &place).start();
    let mut rows = Written { next: 0 };
    let options: Value = environment.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let agree = |eden: &Eden, expected: i64, step: &str| -> Outcome {
        let seen = eden.sql("SELECT * FROM air");
        if seen.len() as i64 != expected {
            return Err(format!("{step}: {} rows, {expected} were written", seen.len()));
        }
        clients.agree_in_store(&format!("{place}/public/air"), &options, &seen, step)
    };

    for _ in 0..6 {
        rows.write(&eden, 200);
        eden.refresh("air");
    }
    agree(&eden, rows.next, "six flushes in S3")?;
    // Corrections and retries rewrite shards there.
    eden.write(&(0..50).map(|n| reading(n * 7, 2.0)).collect::<Vec<_>>());
    eden.refresh("air");
    agree(&eden, rows.next, "corrections in S3")?;
    eden.sql("OPTIMIZE TABLE air");
    eden.sql("DELETE FROM air WHERE device = 'd 4'");
    eden.refresh("air");
    rows.write(&eden, 200);
    let left = |all: i64| all - 1200 / DEVICES;
    eden.refresh("air");
    agree(&eden, left(rows.next), "merged and deleted from in S3")?;

    rows.write(&eden, 100);
    eden.kill();
    eden.restart();
    eden.refresh("air");
    agree(&eden, left(rows.next), "after kill -9 of the server")?;

    // Away: acknowledged from the log, and told of queries that need the store.
    store.kill();
    rows.write(&eden, 300);
    let away = eden.client().sql("REFRESH TABLE air");
    if !away.as_ref().is_err_and(|error| error.contains("does not answer") && error.contains(BUCKET)) {
        return Err(format!("REFRESH while the store is away: {away:?}"));
    }
    rows.write(&eden, 100);
    eden.kill();
    eden.restart_unready();
    let is_told = || eden.log().contains("the tables cannot be reached; trying again until they can").then_some(());
    wait::until(STARTED_WITHIN, is_told).ok_or("a start without the store does not say that it waits")?;
    store.run()?;
    eden.wait_until_ready();
    rows.write(&eden, 100);
    let flushed = || eden.client().sql("REFRESH TABLE air").is_ok().then_some(());
    wait::until(FLUSHED_WITHIN, flushed).ok_or("the table is not flushed although the store is back")?;
    agree(&eden, left(rows.next), "after the store was away, and the server killed meanwhile")?;

    // The store goes and comes back under a server that stays.
    store.kill();
    rows.write(&eden, 200);
    let _ = eden.client().sql("REFRESH TABLE air");
    store.run()?;
    wait::until(FLUSHED_WITHIN, || eden.client().sql("REFRESH TABLE air").is_ok().then_some(()))
        .ok_or("the table is not flushed although the store is back")?;
    agree(&eden, left(rows.next), "after the store was started anew under a running server")?;

    // It hangs: what it was asked meanwhile may be done when it goes on, or not.
    store.signal("-STOP")?;
    rows.write(&eden, 150);
    let hung = eden.client().sql("REFRESH TABLE air");
    store.signal("-CONT")?;
    if !hung.as_ref().is_err_and(|error| error.contains("does not answer")) {
        return Err(format!("REFRESH while the store hangs: {hung:?}"));
    }
    wait::until(FLUSHED_WITHIN, || eden.client().sql("REFRESH TABLE air").is_ok().then_some(()))
        .ok_or("the table is not flushed although the store goes on")?;
    agree(&eden, left(rows.next), "after the store hung")?;

    files_in_s3(&eden)?;
    eden.sql("DROP TABLE air");
    let mut again = Written { next: 0 };
    again.write(&eden, 40);
    let seen = eden.sql("SELECT count(*) FROM air");
    if seen.single() != &Value::from(40) {
        return Err(format!("a table made anew after DROP has {:?} rows, expected 40", seen.single()));
    }

    second_server_is_refused(&eden)?;
    eden.stop();
    if eden.data().join("tables").exists() {
        return Err("tables are in the data folder, too".into());
    }
    if eden.log().contains(SECRET) {
        return Err("the secret is in the log".into());
    }
    nothing_is_damaged(&eden)
}

/// A table goes out into objects of each format and comes back from them, one by one and all below a prefix.
fn files_in_s3(eden: &Eden) -> Outcome {
    let run = |arguments: &[&str]| -> Outcome {
        let url = format!("http://{}", eden.address());
        let output = eden.cli(&[arguments, &["--url", &url]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("eden {arguments:?}: {}\n{said}", output.status)) }
    };
    let folder = format!("s3://{BUCKET}/files");
    let select = "SELECT device, time, temperature FROM";
    let expected = eden.sql(&format!("{select} air ORDER BY device, time"));
    for ending in ["csv", "csv.gz", "jsonl.zst", "parquet"] {
        let (file, table) = (format!("{folder}/{ending}/air.{ending}"), format!("from_{}", ending.replace('.', "_")));
        run(&["export", "--table", "air", "--output", &file])?;
        run(&["import", "--table", &table, "--tags", "device", &file])?;
        if eden.sql(&format!("{select} {table} ORDER BY device, time")) != expected {
            return Err(format!("{file} gave another table"));
        }
    }
    run(&["import", "--table", "from_all", "--tags", "device", &folder])?;
    if eden.sql(&format!("{select} from_all ORDER BY device, time")) != expected {
        return Err(format!("all of {folder} gave another table"));
    }
    let missing = run(&["import", "--table", "air", &format!("{folder}/none.csv")]);
    match missing {
        Err(said) if said.contains("none.csv") => Ok(()),
        other => Err(format!("an object that is not there: {other:?}")),
    }
}

/// Another data folder on the same prefix is a mistake of the operator.
fn second_server_is_refused(eden: &Eden) -> Outcome {
    let other = eden.home().join("other");
    let output = eden.cli(&["serve", "--data", &other.to_string_lossy()]);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && said.contains("belong to another eden server") {
        return Ok(());
    }
    Err(format!("a second server on the same tables: {}\n{said}", output.status))
}

/// Readings that were acknowledged; each has a key of its own.
struct Written {
    next: i64,
}

impl Written {
    fn write(&mut self, eden: &Eden, count: i64) {
        let readings: Vec<Reading> = (self.next..self.next + count).map(|n| reading(n, 0.5)).collect();
        eden.write(&readings);
        self.next += count;
    }
}

fn reading(n: i64, add: f64) -> Reading {
    let device = format!("d {}", n % DEVICES);
    // 313 s apart: a week of days.
    Reading::at("air", START_US + n * 313_000_000).tag("device", &device).field("temperature", n as f64 + add)
}
