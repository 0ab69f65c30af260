//! The parameters of a session: `SET`, `SHOW`, `RESET`, and what a client says when it connects.
//!
//! Owns:     which there are, and which values they take.
//! Does not: parse statements (`command`).
//!
//! A parameter takes the values that describe how Eden does it. Another value is refused, not noted and passed over; so is
//! a parameter that does not exist.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::Failed;

/// What of PostgreSQL's is spoken: its version, for clients that ask.
pub const SERVER_VERSION: &str = concat!("16.6 (Eden ", env!("CARGO_PKG_VERSION"), ")");
/// The same as a number.
pub const SERVER_VERSION_NUM: &str = "160006";

/// Names of things are not longer than this.
const NAME_BYTES_MAX: usize = 63;

/// What becomes of a value.
type Check = fn(&str) -> Result<String, Wrong>;

/// Why a value is not taken.
enum Wrong {
    /// There is no such value, or Eden does not do it. Says which there are.
    Value(&'static str),
    /// Only the server sets it.
    ReadOnly,
}

struct Known {
    name: &'static str,
    default: &'static str,
    check: Check,
    /// Whether the client is told of each change.
    reported: bool,
}

const fn known(name: &'static str, default: &'static str, check: Check) -> Known {
    Known { name, default, check, reported: false }
}

const fn reported(name: &'static str, default: &'static str, check: Check) -> Known {
    Known { name, default, check, reported: true }
}

const KNOWN: [Known; 37] = [
    reported("application_name", "", text),
    known("backslash_quote", "safe_encoding", |value| only(value, "safe_encoding")),
    known("bytea_output", "hex", |value| only(value, "hex")),
    reported("client_encoding", "UTF8", encoding),
    known("client_min_messages", "notice", level),
    reported("DateStyle", "ISO, MDY", date_style),
    known("default_transaction_isolation", "read committed", isolation),
    reported("default_transaction_read_only", "off", truth),
    known("escape_string_warning", "on", truth),
    known("extra_float_digits", "1", float_digits),
    known("idle_in_transaction_session_timeout", "0", zero),
    known("idle_session_timeout", "0", zero),
    reported("in_hot_standby", "off", fixed),
    reported("integer_datetimes", "on", fixed),
    reported("IntervalStyle", "postgres", |value| only(value, "postgres")),
    known("is_superuser", "off", fixed),
    known("jit", "off", truth),
    known("lc_collate", "C", fixed),
    known("lc_ctype", "C", fixed),
    known("lc_messages", "C", |value| only(value, "C")),
    known("lc_monetary", "C", |value| only(value, "C")),
    known("lock_timeout", "0", period),
    known("max_identifier_length", "63", fixed),
    known("max_index_keys", "32", fixed),
    known("row_security", "on", truth),
    known("search_path", "\"$user\", public", text),
    reported("server_encoding", "UTF8", fixed),
    reported("server_version", SERVER_VERSION, fixed),
    known("server_version_num", SERVER_VERSION_NUM, fixed),
    reported("session_authorization", "", fixed),
    reported("standard_conforming_strings", "on", on),
    known("statement_timeout", "0", period),
    known("synchronous_commit", "on", on),
    reported("TimeZone", "UTC", zone),
    known("transaction_isolation", "read committed", isolation),
    known("transaction_read_only", "off", truth),
    known("wal_level", "replica", fixed),
];

fn text(value: &str) -> Result<String, Wrong> {
    if value.len() > 1_000 { Err(Wrong::Value("at most 1000 bytes")) } else { Ok(value.to_owned()) }
}

fn fixed(_value: &str) -> Result<String, Wrong> {
    Err(Wrong::ReadOnly)
}

fn only(value: &str, word: &'static str) -> Result<String, Wrong> {
    if value.eq_ignore_ascii_case(word) { Ok(word.to_owned()) } else { Err(Wrong::Value(word)) }
}

fn on(value: &str) -> Result<String, Wrong> {
    match truth(value)?.as_str() {
        "on" => Ok("on".to_owned()),
        _ => Err(Wrong::Value("on")),
    }
}

fn truth(value: &str) -> Result<String, Wrong> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Ok("on".to_owned()),
        "off" | "false" | "no" | "0" | "f" | "n" => Ok("off".to_owned()),
        _ => Err(Wrong::Value("on or off")),
    }
}

fn encoding(value: &str) -> Result<String, Wrong> {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => Ok("UTF8".to_owned()),
        _ => Err(Wrong::Value("UTF8")),
    }
}

fn level(value: &str) -> Result<String, Wrong> {
    let value = value.to_ascii_lowercase();
    let levels = ["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"];
    if levels.contains(&value.as_str()) { Ok(value) } else { Err(Wrong::Value("notice, warning or error")) }
}

fn date_style(value: &str) -> Result<String, Wrong> {
    let mut order = "MDY";
    for part in value.split(',').map(|part| part.trim().to_ascii_uppercase()) {
        match part.as_str() {
            "ISO" => {}
            "MDY" | "US" => order = "MDY",
            "DMY" | "EUROPEAN" => order = "DMY",
            "YMD" => order = "YMD",
            _ => return Err(Wrong::Value("ISO, and MDY, DMY or YMD beside it")),
        }
    }
    Ok(format!("ISO, {order}"))
}

fn isolation(value: &str) -> Result<String, Wrong> {
    let value = value.to_ascii_lowercase();
    let levels = ["read uncommitted", "read committed", "repeatable read", "serializable"];
    // Each statement has a view of its own, whatever is asked for: `docs/postgres.md` says so.
    if levels.contains(&value.as_str()) { Ok(value) } else { Err(Wrong::Value("one of the four levels")) }
}

fn float_digits(value: &str) -> Result<String, Wrong> {
    match value.parse::<i32>() {
        // Floats are always sent with the shortest digits that read back the same.
        Ok(digits @ 1..=3) => Ok(digits.to_string()),
        _ => Err(Wrong::Value("1 to 3")),
    }
}

fn zero(value: &str) -> Result<String, Wrong> {
    match milliseconds(value) {
        Some(0) => Ok("0".to_owned()),
        _ => Err(Wrong::Value("0")),
    }
}

fn period(value: &str) -> Result<String, Wrong> {
    match milliseconds(value) {
        Some(ms) if ms <= i32::MAX as u64 => Ok(if ms == 0 { "0".to_owned() } else { format!("{ms}ms") }),
        _ => Err(Wrong::Value("milliseconds, or a number with ms, s, min, h or d")),
    }
}

fn milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = value[..digits].parse().ok()?;
    let factor = match value[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn zone(value: &str) -> Result<String, Wrong> {
    let is_utc =
        ["utc", "gmt", "etc/utc", "etc/gmt", "z", "zulu", "universal", "0", "+00", "+00:00", "default", "local"];
    let is_name = !value.is_empty()
        && value.len() <= 64
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-:<>".contains(&byte));
    match value.to_ascii_lowercase() {
        lower if is_utc.contains(&lower.as_str()) => Ok("UTC".to_owned()),
        // Many drivers send their machine's zone: they get times in UTC, with the offset that says so.
        _ if is_name => Ok("UTC".to_owned()),
        _ => Err(Wrong::Value("UTC")),
    }
}

/// The parameters of one session.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
    /// What `RESET` goes back to: what the client said when it connected.
    initial: BTreeMap<&'static str, String>,
}

fn find(name: &str) -> Result<&'static Known, Failed> {
    let name = if name.eq_ignore_ascii_case("time zone") { "TimeZone" } else { name };
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
        Failed::new("42704", format!("unrecognized configuration parameter \"{shown}\""))
            .hint("SHOW ALL lists those that there are.")
    })
}

impl Settings {
    /// The defaults, for `user`.
    pub fn new(user: &str) -> Self {
        let mut values: BTreeMap<_, _> = KNOWN.iter().map(|known| (known.name, known.default.to_owned())).collect();
        values.insert("session_authorization", user.to_owned());
        Settings { initial: values.clone(), values }
    }

    /// What holds from the connection on.
    pub fn begin(&mut self) {
        self.initial = self.values.clone();
    }

    /// Whether there is such a parameter.
    pub fn exists(name: &str) -> bool {
        find(name).is_ok()
    }

    /// Sets a parameter; gives its name and value if the client is to be told.
    ///
    /// # Errors
    /// `42704`, `22023`, `55P02`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Option<(&'static str, String)>, Failed> {
        let known = find(name)?;
        let value = match (known.check)(value) {
            Ok(value) => value,
            // As it is anyway.
            Err(Wrong::ReadOnly) if self.values.get(known.name).is_some_and(|now| now == value) => value.to_owned(),
            Err(Wrong::ReadOnly) => {
                return Err(Failed::new("55P02", format!("parameter \"{}\" cannot be changed", known.name)));
            }
            Err(Wrong::Value(allowed)) => {
                let shown: String = value.chars().take(NAME_BYTES_MAX).collect();
                let message = format!("invalid value for parameter \"{}\": \"{shown}\"", known.name);
                return Err(Failed::new("22023", message).hint(format!("Here it takes {allowed}.")));
            }
        };
        Ok(self.put(known, value))
    }

    fn put(&mut self, known: &'static Known, value: String) -> Option<(&'static str, String)> {
        let before = self.values.insert(known.name, value.clone());
        (known.reported && before.as_ref() != Some(&value)).then_some((known.name, value))
    }

    /// Sets a parameter back to what it was when the connection began.
    ///
    /// # Errors
    /// `42704`.
    pub fn reset(&mut self, name: &str) -> Result<Option<(&'static str, String)>, Failed> {
        let known = find(name)?;
        let value = self.initial.get(known.name).cloned().unwrap_or_default();
        Ok(self.put(known, value))
    }

    /// Sets all back; gives what the client is to be told.
    pub fn reset_all(&mut self) -> Vec<(&'static str, String)> {
        KNOWN.iter().filter_map(|known| self.put(known, self.initial.get(known.name).cloned()?)).collect()
    }

    /// A parameter's name in its own spelling, and its value.
    ///
    /// # Errors
    /// `42704`.
    pub fn show(&self, name: &str) -> Result<(&'static str, &str), Failed> {
        let known = find(name)?;
        Ok((known.name, self.get(known.name)))
    }

    fn get(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// All parameters and their values.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        KNOWN.iter().map(|known| (known.name, self.get(known.name)))
    }

    /// Those that a client is told of when it connects.
    pub fn reported(&self) -> impl Iterator<Item = (&'static str, &str)> {
        KNOWN.iter().filter(|known| known.reported).map(|known| (known.name, self.get(known.name)))
    }

    /// How long a statement may take; `None` without a limit of the session.
    pub fn statement_timeout(&self) -> Option<Duration> {
        let ms = self.get("statement_timeout").trim_end_matches("ms").parse().unwrap_or(0);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Whether transactions only read unless they say otherwise.
    pub fn is_read_only(&self) -> bool {
        self.get("default_transaction_read_only") == "on"
    }

    /// Whether warnings are wanted.
    pub fn wants_warnings(&self) -> bool {
        self.get("client_min_messages") != "error"
    }

    /// The schema of names without one: the first of `search_path` that is not the user's.
    pub fn schema(&self) -> String {
        let mut names = self.get("search_path").split(',').map(|name| name.trim().trim_matches(['"', '\'']));
        names.find(|name| !name.is_empty() && *name != "$user" && *name != "pg_catalog").unwrap_or("public").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_eden_does_or_refused() {
        let mut settings = Settings::new("me");
        for (name, value, shown) in [
            ("timezone", "Europe/Berlin", "UTC"),
            ("TIME ZONE", "utc", "UTC"),
            ("DateStyle", "ISO", "ISO, MDY"),
            ("client_encoding", "utf-8", "UTF8"),
            ("statement_timeout", "2 min", "120000ms"),
            ("extra_float_digits", "3", "3"),
            ("search_path", "plant, public", "plant, public"),
            ("server_version_num", SERVER_VERSION_NUM, SERVER_VERSION_NUM),
            ("application_name", "ü", "ü"),
        ] {
            settings.set(name, value).unwrap_or_else(|failed| panic!("{name}: {failed:?}"));
            assert_eq!(settings.show(name).unwrap().1, shown, "{name}");
        }
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(120)));
        assert_eq!(settings.schema(), "plant");
        for (name, value, code) in [
            ("client_encoding", "LATIN1", "22023"),
            ("DateStyle", "German", "22023"),
            ("extra_float_digits", "0", "22023"),
            ("statement_timeout", "soon", "22023"),
            ("standard_conforming_strings", "off", "22023"),
            ("server_version", "9.0", "55P02"),
            ("work_mem", "1GB", "42704"),
        ] {
            assert_eq!(settings.set(name, value).unwrap_err().code(), code, "{name}");
        }
    }

    #[test]
    fn changes_of_what_drivers_follow_are_told_once_and_reset_goes_back_to_the_connection() {
        let mut settings = Settings::new("me");
        settings.set("application_name", "a").unwrap();
        settings.begin();
        assert_eq!(settings.set("application_name", "b").unwrap(), Some(("application_name", "b".into())));
        assert_eq!(settings.set("application_name", "b").unwrap(), None);
        assert_eq!(settings.set("statement_timeout", "5").unwrap(), None);
        assert_eq!(settings.reset_all(), [("application_name", "a".to_owned())]);
        assert_eq!(settings.statement_timeout(), None);
    }
}
