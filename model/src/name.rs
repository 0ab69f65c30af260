//! Names of tables and columns, and the identity a table keeps when names come and go.

use std::fmt;
use std::sync::Arc;

/// The schema of a table that names none.
pub const PUBLIC: &str = "public";

/// Names that no user column may take: the time of a reading, and the partition column on disk.
pub const RESERVED_COLUMNS: [&str; 2] = ["time", "eden_day"];

/// Longest name, in bytes, of a schema, table, tag or field. Percent-encoded (3 bytes for one) and with the
/// suffix of a dropped table it still fits the 255 bytes that file systems give a name.
pub const NAME_BYTES_MAX: usize = 80;

/// A table's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Schema; `db` and `bucket` of the write endpoints mean this.
    pub schema: Arc<str>,
    /// The measurement.
    pub table: Arc<str>,
}

impl TableName {
    /// `schema.table`; see [`check_name`] for what may be in a name.
    pub fn new(schema: &str, table: &str) -> Self {
        TableName { schema: schema.into(), table: table.into() }
    }

    /// `public.table`.
    pub fn public(table: &str) -> Self {
        TableName::new(PUBLIC, table)
    }
}

/// `table` in schema `public`, else `schema.table`.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.schema == PUBLIC { write!(f, "{}", self.table) } else { write!(f, "{}.{}", self.schema, self.table) }
    }
}

/// A table's identity, equal to the `id` of its Delta `metaData`: a UUID in network byte order. A table that
/// was dropped and made again has another one, so old log records cannot reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub [u8; 16]);

/// What is wrong with a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing there.
    #[error("a {what} name is empty")]
    Empty {
        /// "table", "tag", …
        what: &'static str,
    },
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("the {what} name {start:?}… has {len} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// "table", "tag", …
        what: &'static str,
        /// Its first characters.
        start: String,
        /// Its length in bytes.
        len: usize,
    },
    /// Has a control character.
    #[error("the {what} name {name:?} has a control character")]
    Control {
        /// "table", "tag", …
        what: &'static str,
        /// The name.
        name: String,
    },
    /// `time` or `eden_day`.
    #[error("the {what} name {name:?} is reserved")]
    Reserved {
        /// "tag" or "field".
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// Checks the name of a `what` ("schema", "table"): 1 to 80 bytes, no control characters.
///
/// # Errors
/// Says which rule the name breaks.
pub fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { what, start: name.chars().take(20).collect(), len: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control { what, name: name.into() });
    }
    Ok(())
}

/// Checks the name of a tag or field: as [`check_name`], and not reserved in any case of its letters.
///
/// # Errors
/// Says which rule the name breaks.
pub fn check_column_name(what: &'static str, name: &str) -> Result<(), NameError> {
    check_name(what, name)?;
    if RESERVED_COLUMNS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        return Err(NameError::Reserved { what, name: name.into() });
    }
    Ok(())
}
