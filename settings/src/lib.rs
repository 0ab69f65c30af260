//! How a program's configuration is declared once, read from one TOML file and the environment, and shown.
//!
//! Owns:     the form of sections, keys and values, the errors with their places, and the words for sizes and durations.
//! Does not: know any key of any program.
//!
//! Invariants
//!  1. A key that does not exist is an error that names its place and the closest key that does.
//!  2. `PREFIX<SECTION>_<KEY>` in the environment sets `[section] key`, and nothing else does. Lists are in the file only.
//!  3. What is shown reads back as the same configuration.
//!  4. A list stands at the top of the file, `[[guest]]`, or below a section, `[[kettle.cup]]`.
//!
//! ```
//! use settings::{Configuration, Others, Part, Period, Section};
//!
//! settings::section! {
//!     /// The kettle.
//!     "kettle" Kettle {
//!         /// It is off after this time.
//!         off_after: Period = Period(std::time::Duration::from_secs(300)),
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Config(Kettle);
//!
//! impl Configuration for Config {
//!     const SECTIONS: &'static [&'static str] = &[Kettle::NAME];
//!
//!     fn part(&mut self, section: &str) -> Option<Part<'_>> {
//!         (section == Kettle::NAME).then(|| Part::section(&mut self.0))
//!     }
//! }
//!
//! let mut config = Config::default();
//! let environment = [("TEA_KETTLE_OFF_AFTER".to_owned(), "90s".to_owned())];
//! settings::read(&mut config, None, environment, "TEA_", Others::Refused).unwrap();
//! assert_eq!(config.0.off_after.to_string(), "90s");
//! ```

pub mod close_names;
mod read;
mod section;
mod units;
mod value;

pub use read::{ConfigError, Configuration, Contradiction, Others, Part, read, read_text, unknown};
pub use section::{Entry, Section, show_list_item, show_section};
pub use units::{ByteSize, Period};
pub use value::{Setting, Value, quoted, text};
