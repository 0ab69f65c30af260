//! What is set for one table: kept in its Delta log, as `metaData.configuration`.
//!
//! Owns:     the names and forms of the keys that are ours.
//! Does not: act on them: `maintain` does.
//!
//! Keys that are not ours are kept as they are found.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::StorageError;

/// Seconds for which the table keeps its rows.
const RETENTION: &str = "eden.retention";

/// When the table was dropped, milliseconds since 1970-01-01 UTC.
const DROPPED: &str = "eden.dropped";

/// What an operator may set for one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// How long rows are kept, in whole seconds, by their own time. A day of rows goes when all of it is older.
    /// `None`: as long as [`crate::StorageConfig::retention_default`] says; [`Duration::MAX`]: for ever.
    pub retention: Option<Duration>,
}

/// What a table's `metaData` says beside its identity and schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) configuration: BTreeMap<String, String>,
    pub(crate) created_ms: Option<i64>,
}

impl TableOptions {
    /// # Errors
    /// [`StorageError::Invalid`] for a retention of less than a second.
    pub(crate) fn check(self) -> Result<(), StorageError> {
        match self.retention {
            Some(retention) if retention.as_secs() == 0 => {
                Err(StorageError::Invalid("a retention of less than a second; use DROP TABLE or DELETE".into()))
            }
            _ => Ok(()),
        }
    }
}

impl Properties {
    /// Those of a new table.
    pub(crate) fn new(options: TableOptions, created_ms: i64) -> Properties {
        Properties { created_ms: Some(created_ms), ..Properties::default() }.with(options)
    }

    pub(crate) fn options(&self) -> TableOptions {
        // A value that somebody else wrote and we cannot read keeps rows rather than deletes them.
        let seconds = |text: &String| text.parse().unwrap_or(u64::MAX);
        TableOptions { retention: self.configuration.get(RETENTION).map(seconds).map(from_seconds) }
    }

    /// With `options` in the place of those that are set.
    pub(crate) fn with(mut self, options: TableOptions) -> Properties {
        match options.retention {
            Some(retention) => self.configuration.insert(RETENTION.into(), retention.as_secs().to_string()),
            None => self.configuration.remove(RETENTION),
        };
        self
    }

    /// When the table was dropped, ms; `None` if it was not.
    pub(crate) fn dropped_ms(&self) -> Option<i64> {
        // A time that cannot be read is a drop all the same.
        self.configuration.get(DROPPED).map(|text| text.parse().unwrap_or(0))
    }

    pub(crate) fn dropped(mut self, at_ms: i64) -> Properties {
        self.configuration.insert(DROPPED.into(), at_ms.to_string());
        self
    }
}

fn from_seconds(seconds: u64) -> Duration {
    if seconds == u64::MAX { Duration::MAX } else { Duration::from_secs(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_back_and_other_keys_stay() {
        let mut properties = Properties::new(TableOptions::default(), 5);
        properties.configuration.insert("delta.appendOnly".into(), "false".into());
        for retention in [Some(Duration::from_secs(1)), Some(Duration::from_secs(86_400)), Some(Duration::MAX), None] {
            properties = properties.with(TableOptions { retention });
            assert_eq!(properties.options().retention, retention);
            assert_eq!(properties.configuration.get("delta.appendOnly").map(String::as_str), Some("false"));
        }
        assert_eq!(properties.dropped_ms(), None);
        assert_eq!(properties.dropped(7).dropped_ms(), Some(7));
    }

    #[test]
    fn a_retention_that_cannot_be_read_deletes_nothing() {
        let mut properties = Properties::default();
        properties.configuration.insert(RETENTION.into(), "90d".into());
        assert_eq!(properties.options().retention, Some(Duration::MAX));
    }
}
