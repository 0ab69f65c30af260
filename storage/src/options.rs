//! What may be set for one table.

use std::collections::BTreeMap;
use std::time::Duration;

/// What an operator may set for one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// How long rows are kept, in whole seconds, by their own time.
    pub retention: Option<Duration>,
}

impl TableOptions {
    /// As Delta's `metaData.configuration`.
    pub(crate) fn configuration(self) -> BTreeMap<String, String> {
        self.retention.map(|kept| ("eden.retention".to_owned(), kept.as_secs().to_string())).into_iter().collect()
    }
}
