//! A small HTTP client that knows whether a request may have reached the server.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::reading::Reading;

/// A server that is alive answers sooner, also on a loaded machine.
const REPLY_WITHIN: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decoded from chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Why no answer came.
#[derive(Debug)]
pub enum HttpError {
    /// Nothing was sent: the server cannot have seen the request.
    NotSent(std::io::Error),
    /// The connection broke after bytes were sent: the request may have taken effect.
    NoReply(std::io::Error),
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx: durable (P1).
    Acked,
    /// Not even sent.
    NotSent,
    /// No answer: stored or not.
    Unknown,
    /// An answer other than 2xx: status and body.
    Refused(u16, String),
}

/// One connection, opened when first used and again after an error.
#[derive(Debug)]
pub struct Client {
    address: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of the server at `address` (`host:port`).
    pub fn new(address: &str) -> Self {
        Client { address: address.to_string(), connection: None }
    }

    /// Writes readings in one request.
    pub fn write(&mut self, readings: &[Reading]) -> Outcome {
        let mut body = String::new();
        for reading in readings {
            reading.append_line(&mut body);
            body.push('\n');
        }
        self.write_lp(body.as_bytes())
    }

    /// Writes line protocol with times in ns.
    pub fn write_lp(&mut self, lines: &[u8]) -> Outcome {
        match self.request("POST", "/api/v3/write_lp?db=public&precision=nanosecond", &[], lines) {
            Ok(response) if (200..300).contains(&response.status) => Outcome::Acked,
            Ok(response) => Outcome::Refused(response.status, response.text()),
            Err(HttpError::NotSent(_)) => Outcome::NotSent,
            Err(HttpError::NoReply(_)) => Outcome::Unknown,
        }
    }

    /// Runs one SQL statement; the answer's JSON, or what went wrong.
    ///
    /// # Errors
    /// The connection's error or the server's message, with its status.
    pub fn sql(&mut self, statement: &str) -> Result<Value, String> {
        let body = json!({ "stmt": statement }).to_string();
        let response = self
            .request("POST", "/_sql", &[("Content-Type", "application/json")], body.as_bytes())
            .map_err(|error| format!("{statement}: {error:?}"))?;
        if response.status != 200 {
            return Err(format!("{statement}: {} {}", response.status, response.text()));
        }
        serde_json::from_slice(&response.body).map_err(|error| format!("{statement}: not JSON: {error}"))
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// [`HttpError`] tells whether the server may have seen it.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, HttpError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(HttpError::NotSent)?,
        };
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.address, body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let response = connection
            .get_mut()
            .write_all(&[head.as_bytes(), body].concat())
            .and_then(|()| read_response(&mut connection))
            .map_err(HttpError::NoReply)?;
        if response.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn connect(&self) -> std::io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        Ok(BufReader::new(stream))
    }
}

fn read_response(from: &mut BufReader<TcpStream>) -> std::io::Result<Response> {
    let status_line = read_line(from)?;
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| std::io::Error::new(ErrorKind::InvalidData, status_line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(from)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = usize::from_str_radix(read_line(from)?.trim(), 16).map_err(std::io::Error::other)?;
            from.take(size as u64).read_to_end(&mut response.body)?;
            read_line(from)?;
            if size == 0 {
                return Ok(response);
            }
        }
    }
    let length = response.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    response.body.resize(length, 0);
    from.read_exact(&mut response.body)?;
    Ok(response)
}

fn read_line(from: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}
