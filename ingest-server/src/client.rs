//! The commands' side of HTTP: which server is meant, and how to ask it.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use arrow::ipc::reader::StreamReader;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Response};

use crate::addresses::Addresses;
use crate::cli::Target;
use crate::failure::Failure;
use crate::http::intake::REFUSED_HEADER;
use crate::http::left_out::{NAMES_HEADER, ROWS_HEADER, SHARDS_HEADER, SKIP_DAMAGED_HEADER};

/// Where a server listens unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:4200";
/// Where the demo keeps its data unless told otherwise.
const DEMO_DATA: &str = "./eden-demo";
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const PING_TIME_MAX: Duration = Duration::from_secs(5);

/// A server that answered.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    url: String,
    /// Queries go on without damaged shards.
    skip_damaged: bool,
}

/// An answer's status and body.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u64>,
    /// Lines that a write refused.
    pub refused: Option<u64>,
    /// What a query went on without, in a sentence.
    pub left_out: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// What the server says went wrong, in any of its shapes.
    pub fn error(&self) -> String {
        let json = self.json();
        let message = json["error"]["message"].as_str().or(json["error"].as_str()).map(str::to_owned);
        message.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&self.body);
            format!("HTTP {}: {}", self.status, text.trim().chars().take(500).collect::<String>())
        })
    }
}

impl Client {
    /// A client of the server at `url`, asked or not.
    pub fn new(url: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .user_agent(concat!("eden/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Client { agent, url: url.trim_end_matches('/').to_owned(), skip_damaged: false }
    }

    /// With queries that go on without damaged shards, if `skip_damaged`, and warn of it.
    pub fn skipping_damaged(self, skip_damaged: bool) -> Self {
        Client { skip_damaged, ..self }
    }

    /// Finds the server that `target` means and makes sure that it is one of ours.
    ///
    /// # Errors
    /// Says which command starts one.
    pub fn find(target: &Target) -> Result<Self, Failure> {
        if let Some(url) = &target.url {
            let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            let client = Client::new(&url);
            return client.ping().map(|()| client).map_err(|reason| {
                Failure::work(format!("no eden server answers at {url} ({reason}); start one with: eden serve"))
            });
        }
        if let Some(data) = &target.data {
            return Client::of_folder(data).ok_or_else(|| {
                let data = data.display();
                Failure::work(format!("no server is running on {data}; start one with: eden serve --data {data}"))
            });
        }
        let default = Client::new(DEFAULT_URL);
        if default.ping().is_ok() {
            return Ok(default);
        }
        Client::of_folder(Path::new(DEMO_DATA)).ok_or_else(|| {
            Failure::work(format!(
                "no eden server answers at {DEFAULT_URL}, and no demo is running here; start one with: eden serve, or: eden demo"
            ))
        })
    }

    fn of_folder(data: &Path) -> Option<Self> {
        let address: SocketAddr = Addresses::read(data)?.http.parse().ok()?;
        // A server that listens on all addresses is found on this one too.
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let client = Client::new(&format!("http://{}", SocketAddr::new(host, address.port())));
        client.ping().ok().map(|()| client)
    }

    /// The server's URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn ping(&self) -> Result<(), String> {
        let request = self.agent.get(format!("{}/ping", self.url));
        let answer = request.config().timeout_global(Some(PING_TIME_MAX)).build().call();
        let answer = read(answer.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        match answer.json()["product_name"].as_str() {
            Some("Eden") => Ok(()),
            _ => Err("it is another program".into()),
        }
    }

    /// Posts `body` to `path`, which begins with a slash.
    ///
    /// # Errors
    /// If the server cannot be reached or goes away while answering.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
        self.send(path, &[("content-type", content_type)], body)
    }

    fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if self.skip_damaged {
            request = request.header(SKIP_DAMAGED_HEADER, "true");
        }
        read(request.send(body)?)
    }

    /// Gets `path`, which begins with a slash.
    ///
    /// # Errors
    /// If the server cannot be reached or goes away while answering.
    pub fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        read(self.agent.get(format!("{}{path}", self.url)).call()?)
    }

    /// Asks `/_sql`; the answer has the types of its columns. What it went on without is told on standard error.
    ///
    /// # Errors
    /// What the server says is wrong, or that it went away.
    pub fn sql(&self, statement: &str) -> Result<Value, Failure> {
        let body = serde_json::json!({ "stmt": statement }).to_string();
        let headers = [("content-type", "application/json"), ("default-schema", "public")];
        let answer = self.send("/_sql?types=true", &headers, body.as_bytes()).map_err(|e| self.lost(&e))?;
        warn(answer.left_out.as_deref());
        if answer.status == 200 { Ok(answer.json()) } else { Err(Failure::work(answer.error())) }
    }

    /// Asks `/api/v3/query_sql` and copies the answer to `out` while it comes. What it went on without is told on
    /// standard error.
    ///
    /// # Errors
    /// What the server says is wrong, that it went away, or that `out` failed.
    pub fn copy_rows(&self, statement: &str, format: &str, out: &mut impl io::Write) -> Result<(), Failure> {
        let body = serde_json::json!({ "db": "public", "q": statement, "format": format }).to_string();
        let mut request = self.agent.post(format!("{}/api/v3/query_sql", self.url));
        if self.skip_damaged {
            request = request.header(SKIP_DAMAGED_HEADER, "true");
        }
        let response = request.header("content-type", "application/json").send(body.as_bytes());
        let response = response.map_err(|e| self.lost(&e))?;
        if response.status() != 200 {
            return Err(Failure::work(read(response).map_err(|e| self.lost(&e))?.error()));
        }
        warn(left_out(response.headers()).as_deref());
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let copied = io::copy(&mut body, out).and_then(|_| out.flush());
        copied.map_err(|e| Failure::work(format!("the rows are not complete: {e}")))
    }

    /// Asks `/api/v3/query_sql` for rows as Arrow, which are read while they come.
    ///
    /// # Errors
    /// What the server says is wrong, or that it went away.
    pub fn arrow_rows(&self, statement: &str) -> Result<StreamReader<Box<dyn Read>>, Failure> {
        let body = serde_json::json!({ "db": "public", "q": statement, "format": "arrow" }).to_string();
        let request = self.agent.post(format!("{}/api/v3/query_sql", self.url));
        let response = request.header("content-type", "application/json").send(body.as_bytes());
        let response = response.map_err(|e| self.lost(&e))?;
        if response.status() != 200 {
            return Err(Failure::work(read(response).map_err(|e| self.lost(&e))?.error()));
        }
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let body: Box<dyn Read> = Box::new(WholeStream { inner: body, last: [0; 8] });
        StreamReader::try_new(body, None).map_err(|e| Failure::work(format!("the answer is not Arrow: {e}")))
    }

    fn lost(&self, error: &ureq::Error) -> Failure {
        Failure::work(format!("the server at {} went away: {error}", self.url))
    }
}

fn warn(left_out: Option<&str>) {
    if let Some(left_out) = left_out {
        eprintln!("warning: {left_out}");
    }
}

/// What an answer is without, as its headers say.
fn left_out(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let count: u64 = text(SHARDS_HEADER)?.parse().ok().filter(|count| *count > 0)?;
    let shards = if count == 1 { "shard" } else { "shards" };
    let (rows, names) = (text(ROWS_HEADER)?, text(NAMES_HEADER).unwrap_or_default());
    let more = if names.split(' ').count() as u64 == count { "" } else { " …" };
    Some(format!("{count} damaged {shards} with {rows} rows left out: {names}{more}"))
}

/// A stream of Arrow that must not end before its end: its reader takes any end for the stream's.
struct WholeStream<R> {
    inner: R,
    last: [u8; 8],
}

impl<R: Read> Read for WholeStream<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let len = self.inner.read(into).map_err(io::Error::other)?;
        if len == 0 && !into.is_empty() && self.last != END {
            return Err(io::Error::other("the server's answer ended in the middle"));
        }
        for byte in &into[len.saturating_sub(8)..len] {
            self.last.rotate_left(1);
            self.last[7] = *byte;
        }
        Ok(len)
    }
}

fn read(response: Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let number = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    let (retry_after, refused) = (number("retry-after"), number(REFUSED_HEADER));
    let left_out = left_out(response.headers());
    let mut body = Vec::new();
    response.into_body().into_with_config().limit(u64::MAX).reader().read_to_end(&mut body)?;
    Ok(Answer { status, retry_after, refused, left_out, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_in_the_middle_is_an_error() {
        let end = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let whole = [&b"rows"[..], &end].concat();
        for len in 0..=whole.len() {
            let mut text = Vec::new();
            let read = WholeStream { inner: &whole[..len], last: [0; 8] }.read_to_end(&mut text);
            assert_eq!(read.is_ok(), len == whole.len(), "{len} bytes");
        }
    }
}
