//! What stock Telegraf sends by its three outputs, sent again byte by byte, through deaths of the server and lost answers: each
//! metric is stored once.
//!
//! `tests/interop/telegraf.jsonl` was recorded by `record_requests.py`, which answered 503 to some and cut off others, so how
//! Telegraf tries again is in it. `cargo xtask soak telegraf` runs Telegraf itself, which takes Go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Eden, Rng, Rows, settings, wait};
use serde_json::{Value, json};

use super::{free_port, run_sql};
use crate::command::root;
use crate::{Failure, Outcome};

const RECORD: &str = "tests/interop/telegraf.jsonl";
/// A server that replays its log is ready by then.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Of so many requests about one finds the server dead, and the answer to another is lost.
const TROUBLE: u64 = 8;

pub(super) fn what_telegraf_sends_is_stored_once() -> Outcome {
    let record = root().join(RECORD);
    let text = std::fs::read_to_string(&record).map_err(|error| format!("read {}: {error}", record.display()))?;
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).map_err(|e| format!("{RECORD}: {e}")));
    let about = lines.next().ok_or("nothing was recorded")??;
    let requests = lines.collect::<Result<Vec<_>, _>>()?;

    let address = format!("127.0.0.1:{}", free_port()?);
    let options = Eden::options("telegraf-interop").setting("EDEN_HTTP_LISTEN", &address);
    // Its times are those of the record, whatever this machine's are.
    let mut eden = options.setting("EDEN_INGEST_MAX_FUTURE", "36500d").start();
    eden.note(format!("seed {}", settings::seed()));
    let mut rng = Rng::new(settings::seed());
    let (mut kills, mut lost) = (0, 0);
    for request in &requests {
        let bytes = as_sent(request, &address)?;
        match rng.below(TROUBLE) {
            0 => {
                eden.kill();
                if exchange(&address, &bytes).is_ok() {
                    return Err("a dead server answered".into());
                }
                eden.restart_unready();
                kills += 1;
            }
            // It is stored or not, and nobody knows.
            1 => {
                let mut connection = TcpStream::connect(&address).map_err(|error| format!("connect: {error}"))?;
                connection.write_all(&bytes).map_err(|error| format!("send: {error}"))?;
                lost += 1;
            }
            _ => {}
        }
        taken(&address, &bytes).map_err(|error| format!("{}: {error}\n{}", request["path"], eden.log()))?;
    }
    eden.wait_until_ready();
    eden.kill();
    eden.restart();

    let mut all = 0;
    for (database, path) in [("one", "/write?"), ("two", "/api/v2/write?"), ("three", "/api/v3/write_lp?")] {
        let sent = requests.iter().filter(|request| text_of(request, "path").starts_with(path));
        let mut keys: BTreeMap<&str, BTreeSet<(&str, i64)>> = BTreeMap::new();
        let mut mock = BTreeSet::new();
        for line in sent.flat_map(|request| text_of(request, "text").lines()) {
            let (series, fields, time_us) = parts(line).ok_or_else(|| format!("{RECORD}: {line:?} is no line"))?;
            let measurement = series.split(',').next().unwrap_or_default();
            keys.entry(measurement).or_default().insert((series, time_us));
            if let Some(source) = series.strip_prefix("mock,source=") {
                mock.insert(json!([source.replace('\\', ""), number(fields)?, time_us]).to_string());
            }
        }
        for (measurement, keys) in &keys {
            let rows = Rows::new(run_sql(&eden, &format!("SELECT count(*) FROM {database}.{measurement}"))?);
            if rows.single().as_u64() != Some(keys.len() as u64) {
                return Err(format!("{database}.{measurement}: {} rows, expected {}", rows.single(), keys.len()));
            }
            all += keys.len();
        }
        let rows = format!("SELECT source, value, cast(time AS bigint) FROM {database}.mock");
        let rows = Rows::new(run_sql(&eden, &rows)?);
        let stored: BTreeSet<String> = (0..rows.len()).map(|row| json!(rows.row(row)).to_string()).collect();
        if stored != mock || mock.is_empty() {
            let first = mock.symmetric_difference(&stored).next();
            return Err(format!("{database}: what is stored is not what was sent; the first that differs: {first:?}"));
        }
    }
    println!(
        "telegraf {}: {} requests of three outputs, {kills} of them to a dead server, the answers to {lost} lost; {all} metrics are \
         stored, each once",
        text_of(&about, "telegraf"),
        requests.len()
    );
    eden.stop();
    Ok(())
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Series, fields, and time in µs. Neither has a space here that is not escaped.
fn parts(line: &str) -> Option<(&str, &str, i64)> {
    let (rest, time) = line.rsplit_once(' ')?;
    let (series, fields) = rest.rsplit_once(' ')?;
    Some((series, fields, time.parse::<i64>().ok()?.div_euclid(1_000)))
}

fn number(fields: &str) -> Result<f64, Failure> {
    let value = fields.strip_prefix("value=").and_then(|value| value.parse().ok());
    value.ok_or_else(|| format!("{RECORD}: {fields:?} is no value"))
}

/// The request as Telegraf sent it, but for the host.
fn as_sent(request: &Value, address: &str) -> Result<Vec<u8>, Failure> {
    let digits = text_of(request, "body").as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap_or_default(), 16);
    let body = digits.chunks(2).map(byte).collect::<Result<Vec<u8>, _>>().map_err(|e| format!("{RECORD}: {e}"))?;
    let mut bytes = format!("POST {} HTTP/1.1\r\nHost: {address}\r\n", text_of(request, "path")).into_bytes();
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        bytes.extend(format!("{name}: {}\r\n", value.as_str().unwrap_or_default()).into_bytes());
    }
    if request["chunked"] == true {
        bytes.extend(format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes());
        bytes.extend(body);
        bytes.extend(b"\r\n0\r\n\r\n");
    } else {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
        bytes.extend(body);
    }
    Ok(bytes)
}

/// Sends until it is taken, as Telegraf does: after 503, and after a connection that broke.
fn taken(address: &str, bytes: &[u8]) -> Outcome {
    let mut last = String::new();
    let answered = wait::until(TAKEN_WITHIN, || match exchange(address, bytes) {
        Ok((200 | 204, _)) => Some(Ok(())),
        Ok((503, body)) => {
            last = format!("503 {body}");
            None
        }
        Ok((status, body)) => Some(Err(format!("answered {status} {body}"))),
        Err(error) => {
            last = error.to_string();
            None
        }
    });
    answered.unwrap_or_else(|| Err(format!("was not taken: {last}")))
}

fn exchange(address: &str, bytes: &[u8]) -> std::io::Result<(u16, String)> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(TAKEN_WITHIN))?;
    connection.write_all(bytes)?;
    let mut answer = BufReader::new(connection);
    let (mut line, mut length) = (String::new(), 0);
    answer.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("{line:?} is no answer")))?;
    while line.trim_end() != "" {
        line.clear();
        answer.read_line(&mut line)?;
        let header = line.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
