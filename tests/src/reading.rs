//! Readings as a test writes them, and their line protocol.

use std::fmt::Write;

use serde_json::Value;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// `1.5`
    F64(f64),
    /// `1i`
    I64(i64),
    /// `1u`; JSON carries it as a number or, being a decimal on disk, as text.
    U64(u64),
    /// `t`
    Bool(bool),
    /// `"text"`
    Text(String),
}

impl Field {
    /// Whether a cell of an answer of `/_sql` holds this value.
    pub fn is(&self, cell: &Value) -> bool {
        match self {
            Field::F64(value) => cell.as_f64() == Some(*value),
            Field::I64(value) => cell.as_i64() == Some(*value),
            Field::U64(value) => cell.as_u64().or_else(|| cell.as_str()?.parse().ok()) == Some(*value),
            Field::Bool(value) => cell.as_bool() == Some(*value),
            Field::Text(value) => cell.as_str() == Some(value),
        }
    }
}

impl From<f64> for Field {
    fn from(value: f64) -> Self {
        Field::F64(value)
    }
}

impl From<i64> for Field {
    fn from(value: i64) -> Self {
        Field::I64(value)
    }
}

impl From<u64> for Field {
    fn from(value: u64) -> Self {
        Field::U64(value)
    }
}

impl From<bool> for Field {
    fn from(value: bool) -> Self {
        Field::Bool(value)
    }
}

impl From<&str> for Field {
    fn from(value: &str) -> Self {
        Field::Text(value.to_string())
    }
}

/// One reading to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The table.
    pub table: String,
    /// Tags, in the order they are written.
    pub tags: Vec<(String, String)>,
    /// Microseconds since 1970-01-01 UTC.
    pub time_us: i64,
    /// Fields, in the order they are written.
    pub fields: Vec<(String, Field)>,
}

impl Reading {
    /// A reading without tags and fields yet.
    pub fn at(table: &str, time_us: i64) -> Self {
        Reading { table: table.to_string(), tags: Vec::new(), time_us, fields: Vec::new() }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.push((name.to_string(), value.to_string()));
        self
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Field>) -> Self {
        self.fields.push((name.to_string(), value.into()));
        self
    }

    /// Appends the line, time in ns, without a line feed.
    pub fn append_line(&self, line: &mut String) {
        escape(&self.table, &[',', ' '], line);
        for (name, value) in &self.tags {
            line.push(',');
            escape(name, &[',', ' ', '='], line);
            line.push('=');
            escape(value, &[',', ' ', '='], line);
        }
        let mut before = ' ';
        for (name, value) in &self.fields {
            line.push(before);
            before = ',';
            escape(name, &[',', ' ', '='], line);
            line.push('=');
            match value {
                Field::F64(value) => write!(line, "{value}"),
                Field::I64(value) => write!(line, "{value}i"),
                Field::U64(value) => write!(line, "{value}u"),
                Field::Bool(value) => write!(line, "{value}"),
                Field::Text(value) => {
                    line.push('"');
                    escape(value, &['"', '\\'], line);
                    write!(line, "\"")
                }
            }
            .expect("writing to a String");
        }
        write!(line, " {}000", self.time_us).expect("writing to a String");
    }
}

fn escape(text: &str, special: &[char], line: &mut String) {
    for c in text.chars() {
        if special.contains(&c) {
            line.push('\\');
        }
        line.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_escapes_what_line_protocol_reserves() {
        let reading = Reading::at("air", 7)
            .tag("room", "living room, left")
            .field("note", "say \"hi\" \\ o")
            .field("t", 21.5)
            .field("n", -3_i64)
            .field("u", u64::MAX)
            .field("on", true);
        let mut line = String::new();
        reading.append_line(&mut line);
        let expected =
            r#"air,room=living\ room\,\ left note="say \"hi\" \\ o",t=21.5,n=-3i,u=18446744073709551615u,on=true 7000"#;
        assert_eq!(line, expected);
    }
}
