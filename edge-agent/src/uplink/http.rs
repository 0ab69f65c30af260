//! Batches over HTTP: one request after the other, on one kept connection.

use std::time::Duration;

use ureq::http::StatusCode;

use super::tls::{self, Trusted};
use super::{CONNECT_TIME_MAX, End, Ended, Line, STALL_TIME_MAX, is_any_there};
use crate::exchange::Outcome;
use crate::outbox::{Batch, Encoding};

/// What an answer says, read to its end at most so far.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// A connection without batches is looked after this often.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// With it, a server says that it has read the batch and keeps what it refused of it. Without, a 400 may be anybody's, and
/// the batch stays here.
const REFUSED_HEADER: &str = "x-eden-refused";

/// What a server's answer means for a batch.
enum Answer {
    Outcome(Outcome),
    Later(String),
}

pub(super) fn run(line: &Line<'_>, base: &str, trusted: Option<Trusted>) -> Ended {
    let agent = client(trusted);
    let url = format!("{base}/api/v3/write_lp?db=public");
    let mut was_useful = false;
    let mut look_at = line.look_at();
    loop {
        if line.is_over() {
            return Ended { end: End::Stopped, was_useful };
        }
        if look_at.is_some_and(|at| line.clock.monotonic() >= at) {
            if is_any_there(line.preferred) {
                return Ended { end: End::Preferred, was_useful };
            }
            look_at = line.look_at();
        }
        let Some(batch) = line.exchange.take() else {
            line.exchange.wait_for_batches(IDLE_TIME.min(line.grace().unwrap_or(IDLE_TIME)));
            // While it stops, the outbox may still have something to hand out.
            if line.grace().is_some() && !line.is_over() && !line.exchange.lock().has_waiting() {
                line.exchange.wait_for_last();
            }
            continue;
        };
        let started = line.clock.monotonic();
        match post(line, &agent, &url, &batch) {
            Answer::Outcome(outcome) => {
                if !was_useful {
                    line.connected();
                }
                was_useful = true;
                let took = line.clock.monotonic().saturating_sub(started);
                line.exchange.done(batch.key(), outcome, took);
            }
            Answer::Later(reason) => {
                line.exchange.put_back(batch.key());
                return Ended { end: End::Failed(reason), was_useful };
            }
        }
    }
}

/// A client that gives answers of every status back; over TLS if there is something to trust.
pub(super) fn client(trusted: Option<Trusted>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIME_MAX))
        .user_agent(concat!("eden-agent/", env!("CARGO_PKG_VERSION")))
        .build();
    match trusted {
        Some(trusted) => tls::http_agent(config, trusted),
        None => config.into(),
    }
}

/// Whether the server says that it is well.
pub(super) fn probe(base: &str, trusted: Option<Trusted>) -> Result<(), String> {
    let request = client(trusted).get(format!("{base}/health"));
    let answer = request.config().timeout_global(Some(CONNECT_TIME_MAX)).build().call();
    match answer {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("/health answers {}", answer.status())),
        Err(e) => Err(e.to_string()),
    }
}

fn post(line: &Line<'_>, agent: &ureq::Agent, url: &str, batch: &Batch) -> Answer {
    let timeout = line.grace().unwrap_or(STALL_TIME_MAX).clamp(Duration::from_millis(100), STALL_TIME_MAX);
    let mut request = agent.post(url).header("content-type", "text/plain; charset=utf-8");
    if batch.encoding == Encoding::Zstd {
        request = request.header("content-encoding", "zstd");
    }
    let answer = request.config().timeout_global(Some(timeout)).build().send(&batch.body[..]);
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(e) => return Answer::Later(e.to_string()),
    };
    let is_set_aside = answer.headers().contains_key(REFUSED_HEADER);
    // To its end, so that the connection can be used again.
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
    let said = || text.trim().chars().take(300).collect::<String>();
    match answer.status() {
        status if status.is_success() => Answer::Outcome(Outcome::Acked),
        status @ (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) if is_set_aside => {
            tracing::warn!(server = line.url, seq = batch.seq, %status, said = said(), "the server set a batch aside");
            Answer::Outcome(Outcome::Refused)
        }
        status => Answer::Later(format!("HTTP {status}: {}", said())),
    }
}
