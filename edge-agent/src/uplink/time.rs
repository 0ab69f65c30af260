//! Asks a web server what time it is, for boards whose clock nobody keeps right.
//!
//! Owns:     the thread that asks, and what the header `Date` of an answer means.
//! Does not: decide whether it is believed (`wall`).
//!
//! Format: RFC 9110, section 5.6.7 (`IMF-fixdate`). It tells whole seconds: the middle of the second is taken.

use std::sync::Arc;
use std::time::Duration;

use crate::exchange::Exchange;
use crate::timepiece::Timepiece;
use crate::wall::{Certainty, Told};

/// While the time is not known for certain, it is asked for this often.
const ASK_INTERVAL: Duration = Duration::from_secs(30);
/// The board's own clock is looked at first.
const FIRST_WAIT: Duration = Duration::from_secs(3);
/// An answer that takes longer says too little about now.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Asks `urls` in turn until the agent stops, as long as the time is not known for certain.
pub(crate) fn ask(urls: &[String], exchange: &Exchange, timepiece: &Arc<dyn Timepiece>) {
    let agent = super::http::client(None);
    exchange.wait_for_stop(FIRST_WAIT);
    while exchange.lock().stop_at.is_none() {
        let is_known = exchange.lock().stats.clock == Some(Certainty::Known);
        if !is_known && let Some(told) = urls.iter().find_map(|url| ask_one(&agent, url, &**timepiece)) {
            exchange.lock().told = Some(told);
            exchange.ring();
        }
        exchange.wait_for_stop(ASK_INTERVAL);
    }
}

fn ask_one(agent: &ureq::Agent, url: &str, timepiece: &dyn Timepiece) -> Option<Told> {
    let before_us = timepiece.boot_us();
    // Where a server sends us elsewhere, often to HTTPS, it has said what time it is.
    let request = agent.get(url).config().timeout_global(Some(ANSWER_TIME_MAX)).max_redirects(0).build();
    let answer = request.call();
    let after_us = timepiece.boot_us();
    let date = match &answer {
        Ok(answer) => answer.headers().get("date").and_then(|date| date.to_str().ok()).and_then(parse),
        Err(e) => {
            tracing::debug!(url, error = %e, "nobody says what time it is");
            return None;
        }
    };
    if date.is_none() {
        tracing::debug!(url, "the answer has no date");
    }
    let boot_us = before_us + (after_us - before_us) / 2;
    date.map(|date_us| Told { wall_us: date_us + 500_000, boot_us })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, in microseconds since 1970-01-01 UTC.
fn parse(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let (day, month, year) = (number(words.next()?, 2)?, words.next()?, number(words.next()?, 4)?);
    let mut clock = words.next()?.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next() != Some("GMT") || words.next().is_some() || clock.next().is_some() {
        return None;
    }
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as u32 + 1;
    // A second of 60 is a leap second, and the next minute's first.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days are counted by asking which one it is: dates are few, and the rule of leap years has one home.
    let guess = (year - 1970) * 365 + (year - 1969) / 4;
    let days = (guess - 40..guess + 400).find(|at| {
        let (y, m, d) = model::time_text::civil(*at);
        (y, m, i64::from(d)) == (year, month, day)
    })?;
    Some(((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_sends_elsewhere_has_said_the_time() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            let answer = "HTTP/1.1 301 Moved Permanently\r\nDate: Mon, 01 Jun 2026 00:00:00 GMT\r\n\
                          Location: https://example.invalid/\r\nContent-Length: 0\r\n\r\n";
            socket.write_all(answer.as_bytes()).unwrap();
        });
        let told = ask_one(&ureq::agent(), &url, &crate::timepiece::SystemTimepiece::new());
        assert_eq!(told.map(|told| told.wall_us), Some(1_780_272_000_500_000));
        server.join().unwrap();
    }

    #[test]
    fn dates_are_read_as_web_servers_write_them() {
        for (text, us) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777_000_000),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Mon, 01 Jun 2026 00:00:00 GMT", 1_780_272_000_000_000),
            ("Tue, 29 Feb 2028 23:59:60 GMT", 1_835_481_600_000_000),
            ("Thu, 31 Dec 2099 12:00:00 GMT", 4_102_401_600_000_000),
        ] {
            assert_eq!(parse(text), Some(us), "{text}");
        }
        for wrong in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nox 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 9999 08:49 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
