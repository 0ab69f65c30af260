//! The word for a format of times on the command line and in `COPY`; [`decode::time`] reads them.

use clap::ValueEnum;
use decode::time;

/// How times are written in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TimeFormat {
    /// Numbers by their magnitude, texts as RFC 3339.
    #[default]
    Auto,
    /// Such as 2026-06-01T08:30:00.25Z; without a zone it is UTC.
    Rfc3339,
    /// Seconds since 1970.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl From<TimeFormat> for time::TimeFormat {
    fn from(format: TimeFormat) -> Self {
        match format {
            TimeFormat::Auto => time::TimeFormat::Auto,
            TimeFormat::Rfc3339 => time::TimeFormat::Rfc3339,
            TimeFormat::S => time::TimeFormat::S,
            TimeFormat::Ms => time::TimeFormat::Ms,
            TimeFormat::Us => time::TimeFormat::Us,
            TimeFormat::Ns => time::TimeFormat::Ns,
        }
    }
}

impl TimeFormat {
    /// The word on the command line, which is also a precision of line protocol but for `rfc3339`.
    pub(crate) fn word(self) -> &'static str {
        time::TimeFormat::from(self).word()
    }

    /// The format of that word.
    pub(crate) fn of_word(word: &str) -> Option<TimeFormat> {
        let all = [Self::Auto, Self::Rfc3339, Self::S, Self::Ms, Self::Us, Self::Ns];
        all.into_iter().find(|format| format.word() == word.to_ascii_lowercase())
    }

    /// Microseconds of a whole number.
    ///
    /// # Errors
    /// If it is none, or out of range.
    pub(crate) fn whole(self, number: i64) -> Result<i64, String> {
        time::TimeFormat::from(self).whole(number)
    }

    /// Microseconds of a text.
    ///
    /// # Errors
    /// Says what would be right.
    pub(crate) fn text(self, text: &str) -> Result<i64, String> {
        time::TimeFormat::from(self).text(text)
    }
}
