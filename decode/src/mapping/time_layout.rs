//! Times in payloads: `json_time_format` and `json_timezone`.

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeZone as _};

use super::options::{WrongOption, wrong};
use crate::json_lines::Scalar;
use crate::line_protocol::quote;
use crate::time::{Read, TimeFormat, zone_minutes};

/// How a time is written.
#[derive(Clone, Debug)]
pub(super) struct TimeLayout {
    form: Form,
    /// Of times whose text says no zone, if that is known.
    zone_minutes: Option<i64>,
}

#[derive(Clone, Debug)]
enum Form {
    Plain(TimeFormat),
    /// A layout in the manner of `strptime`, and whether it has a zone.
    Layout(String, bool),
}

impl TimeLayout {
    /// Reads both options; `default` is what an empty `json_time_format` means.
    pub(super) fn compile(format: &str, timezone: &str, default: TimeFormat) -> Result<TimeLayout, WrongOption> {
        let form = match format.to_ascii_lowercase().as_str() {
            "" => Form::Plain(default),
            "auto" => Form::Plain(TimeFormat::Auto),
            "unix" => Form::Plain(TimeFormat::S),
            "unix_ms" => Form::Plain(TimeFormat::Ms),
            "unix_us" => Form::Plain(TimeFormat::Us),
            "unix_ns" => Form::Plain(TimeFormat::Ns),
            "rfc3339" | "rfc3339nano" => Form::Plain(TimeFormat::Rfc3339),
            _ => {
                let has_zone = has_zone(format).map_err(|reason| wrong("json_time_format", reason))?;
                Form::Layout(format.to_owned(), has_zone)
            }
        };
        let zone_minutes = match timezone {
            "" => None,
            "UTC" | "utc" => Some(0),
            zone => Some(zone_minutes(zone).ok_or_else(|| {
                let reason =
                    format!("{} is not a zone; right is \"UTC\" or a distance such as \"+02:00\"", quote(zone));
                wrong("json_timezone", reason)
            })?),
        };
        Ok(TimeLayout { form, zone_minutes })
    }

    /// Microseconds; a time whose zone nobody says is UTC.
    pub(super) fn read(&self, value: &Scalar) -> Result<i64, String> {
        self.read_or_local(value).map(|read| match read {
            Read::Utc(us) | Read::Local(us) => us,
        })
    }

    /// Microseconds; [`Read::Local`] if neither text nor rule says the zone.
    pub(super) fn read_or_local(&self, value: &Scalar) -> Result<Read, String> {
        let read = match (&self.form, value) {
            (Form::Plain(format), Scalar::I64(number)) => Read::Utc(format.whole(*number)?),
            (Form::Plain(format), Scalar::U64(number)) => Read::Utc(format.text(&number.to_string())?),
            (Form::Plain(format), Scalar::F64(number)) => Read::Utc(format.text(&number.to_string())?),
            (Form::Plain(format), Scalar::Text(text)) => format.text_or_local(text)?,
            (Form::Layout(layout, has_zone), Scalar::Text(text)) => read_layout(text.trim(), layout, *has_zone)
                .ok_or_else(|| format!("{} is not a time of the form {layout:?}", quote(text)))?,
            (_, other) => return Err(format!("{other:?} is not a time")),
        };
        match (read, self.zone_minutes) {
            (Read::Local(us), Some(minutes)) => {
                us.checked_sub(minutes * 60_000_000).map(Read::Utc).ok_or_else(|| "the time is out of range".into())
            }
            (read, _) => Ok(read),
        }
    }
}

fn read_layout(text: &str, layout: &str, has_zone: bool) -> Option<Read> {
    if has_zone {
        return DateTime::parse_from_str(text, layout).ok().map(|time| Read::Utc(time.timestamp_micros()));
    }
    NaiveDateTime::parse_from_str(text, layout).ok().map(|time| Read::Local(time.and_utc().timestamp_micros()))
}

/// Checks a layout: what it writes of a time it must read back.
fn has_zone(layout: &str) -> Result<bool, String> {
    let right = "right is unix, unix_ms, unix_us, unix_ns, RFC3339, or a layout such as \"%Y-%m-%d %H:%M:%S\"";
    if layout.contains("2006") {
        return Err(format!("{} is a layout of Go; {right}", quote(layout)));
    }
    if !layout.contains('%') || StrftimeItems::new(layout).any(|item| item == Item::Error) {
        return Err(format!("{} is no format of times; {right}", quote(layout)));
    }
    let east = FixedOffset::east_opt(7200).expect("two hours are less than a day");
    let sample = east.with_ymd_and_hms(2026, 6, 1, 8, 30, 15).single().expect("there is that second");
    let shown = sample.format(layout).to_string();
    let is_read = |has_zone| read_layout(&shown, layout, has_zone).is_some();
    match (is_read(true), is_read(false)) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(format!("{} does not say both a day and a time of day; {right}", quote(layout))),
    }
}
