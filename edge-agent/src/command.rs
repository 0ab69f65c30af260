//! What a server tells the agent to do.
//!
//! Owns:     the words of commands.
//! Does not: carry them (`uplink`) or out (`collector`, `cli`).

use std::time::Duration;

use settings::Period;

/// No command is longer.
const PAYLOAD_BYTES_MAX: usize = 4 << 10;
/// Waiting to be carried out at most.
pub(crate) const WAITING_MAX: usize = 16;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// This sensor measures in this interval, until the agent starts again.
    Interval { sensor: String, interval: Duration },
    /// The newest lines of the log are sent.
    Logs,
    /// The agent ends in order, to be started again by whatever started it.
    Restart,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Interval {
    sensor: String,
    interval: String,
}

impl Command {
    /// The command `name`, with `payload`.
    ///
    /// # Errors
    /// Says in one line what is wrong with it.
    pub(crate) fn parse(name: &str, payload: &[u8]) -> Result<Command, String> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!("it is longer than {PAYLOAD_BYTES_MAX} bytes"));
        }
        match name {
            "interval" => {
                let right = r#"right is {"sensor": "s1", "interval": "5s"}"#;
                let Interval { sensor, interval } =
                    serde_json::from_slice(payload).map_err(|e| format!("{e}; {right}"))?;
                let Period(interval) = Period::parse(&interval)?;
                if interval < Duration::from_millis(1) {
                    return Err("an interval is at least 1ms".to_owned());
                }
                Ok(Command::Interval { sensor, interval })
            }
            "logs" => Ok(Command::Logs),
            "restart" => Ok(Command::Restart),
            _ => Err("there are interval, logs and restart".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Rng, SplitMix64};

    use super::*;

    #[test]
    fn commands_are_read_and_mistakes_named() {
        let parse = |name: &str, payload: &str| Command::parse(name, payload.as_bytes());
        let interval = Command::Interval { sensor: "s1".to_owned(), interval: Duration::from_secs(5) };
        assert_eq!(parse("interval", r#"{"sensor": "s1", "interval": "5s"}"#), Ok(interval));
        assert_eq!(parse("restart", ""), Ok(Command::Restart));
        assert_eq!(parse("logs", ""), Ok(Command::Logs));
        for (name, payload, said) in [
            ("interval", "5s", "right is"),
            ("interval", r#"{"sensor": "s1"}"#, "missing field `interval`"),
            ("interval", r#"{"sensor": "s1", "interval": "5"}"#, "is not a duration"),
            ("interval", r#"{"sensor": "s1", "interval": "0s"}"#, "at least 1ms"),
            ("format", "", "there are interval, logs and restart"),
            ("restart", &" ".repeat(5_000), "longer than 4096 bytes"),
        ] {
            let wrong = parse(name, payload).unwrap_err();
            assert!(wrong.contains(said), "{wrong}");
        }
    }

    #[test]
    fn hostile_payloads_do_not_panic() {
        let rng = SplitMix64::new(7);
        for _ in 0..20_000 {
            let mut payload = br#"{"sensor": "s1", "interval": "5s"}"#.to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(payload.len() as u64) as usize;
                payload[at] = rng.next_u64() as u8;
            }
            let _ = Command::parse("interval", &payload);
        }
    }
}
