//! Errors as people read them.

use std::error::Error;
use std::fmt::Write as _;

/// An error with its causes, in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some errors already end with what their cause says.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("open the outbox")]
        Silent(#[source] Box<Failed>),
        #[error("read the log: {0}")]
        Telling(#[source] io::Error),
    }

    #[test]
    fn each_cause_is_named_once() {
        let error = Failed::Silent(Box::new(Failed::Telling(io::Error::other("the disk is gone"))));
        assert_eq!(with_causes(&error), "open the outbox: read the log: the disk is gone");
    }
}
