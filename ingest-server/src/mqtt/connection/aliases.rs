//! Topic aliases of MQTT 5: short names that a client gives to topics, for as long as its connection.
//!
//! Invariant: they take no more than [`BYTES_MAX`], and nothing before the first one is given.

use crate::mqtt::read::{self, Bad, code};

/// Bytes of all topics that have an alias in one connection.
const BYTES_MAX: usize = 16 << 10;

/// The aliases of one connection.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// By alias, from 1.
    topics: Vec<Box<str>>,
    bytes: usize,
}

impl Aliases {
    /// The topic that is meant by `alias`, no more than `alias_max`: `topic`, which has it from now on, or if that is empty
    /// the one that has it.
    ///
    /// # Errors
    /// If there is no such alias, or no room for it.
    pub(super) fn resolve(&mut self, alias: u16, topic: &str, alias_max: u16) -> Result<&str, Bad> {
        if alias == 0 || alias > alias_max {
            let what = "a topic alias that is 0 or above Topic Alias Maximum";
            return Err(Bad { code: code::TOPIC_ALIAS_INVALID, what });
        }
        let index = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = self.topics.get(index).filter(|known| !known.is_empty());
            return known.map(|known| &**known).ok_or(read::protocol("a topic alias that no topic has"));
        }
        let before = self.topics.get(index).map_or(0, |before| before.len());
        let bytes = self.bytes - before + topic.len();
        if bytes > BYTES_MAX {
            return Err(Bad { code: code::QUOTA_EXCEEDED, what: "the topics with an alias are too long together" });
        }
        if self.topics.len() <= index {
            self.topics.resize_with(index + 1, Box::default);
        }
        if *self.topics[index] != *topic {
            self.topics[index] = topic.into();
        }
        self.bytes = bytes;
        Ok(&self.topics[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_the_topic_that_had_it_last() {
        let mut aliases = Aliases::default();
        let code = |result: Result<&str, Bad>| result.map(str::to_owned).map_err(|bad| bad.code);
        assert_eq!(code(aliases.resolve(1, "", 2)), Err(code::PROTOCOL_ERROR));
        assert_eq!(code(aliases.resolve(2, "b", 2)), Ok("b".into()));
        assert_eq!(code(aliases.resolve(1, "", 2)), Err(code::PROTOCOL_ERROR));
        assert_eq!(code(aliases.resolve(2, "", 2)), Ok("b".into()));
        assert_eq!(code(aliases.resolve(2, "c", 2)), Ok("c".into()));
        assert_eq!(code(aliases.resolve(2, "", 2)), Ok("c".into()));
        for alias in [0, 3, u16::MAX] {
            assert_eq!(code(aliases.resolve(alias, "a", 2)), Err(code::TOPIC_ALIAS_INVALID));
        }
    }

    #[test]
    fn their_topics_are_bounded_together() {
        let mut aliases = Aliases::default();
        let (half, more) = ("x".repeat(BYTES_MAX / 2), "y".repeat(BYTES_MAX / 2 + 1));
        assert!(aliases.resolve(1, &half, 9).is_ok());
        assert!(aliases.resolve(2, &half, 9).is_ok());
        assert_eq!(aliases.resolve(3, "z", 9).unwrap_err().code, code::QUOTA_EXCEEDED);
        assert_eq!(aliases.resolve(1, &more, 9).unwrap_err().code, code::QUOTA_EXCEEDED);
        assert!(aliases.resolve(1, "z", 9).is_ok());
        assert!(aliases.resolve(3, "z", 9).is_ok());
    }
}
