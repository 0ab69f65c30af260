//! A row as the line of line protocol that means it.
//!
//! Owns:     escapes, and what no line can say.
//! Does not: read lines (`line_protocol`).

use model::{TableBatch, Value, decimal};

/// Appends a name or a tag's value.
pub fn write_name(name: &str, out: &mut Vec<u8>) {
    for byte in name.bytes() {
        if matches!(byte, b',' | b'=' | b' ' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// Appends a measurement, in which `=` is a character like others.
pub fn write_measurement(name: &str, out: &mut Vec<u8>) {
    for byte in name.bytes() {
        if matches!(byte, b',' | b' ' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// Appends a text value with its quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Whether a line can have this for the value of a tag.
pub fn is_tag_of_lines(value: &str) -> bool {
    !value.is_empty() && is_name_of_lines(value)
}

fn is_name_of_lines(name: &str) -> bool {
    !name.ends_with('\\') && !name.chars().any(char::is_control)
}

/// Appends a line without its line break: table, tags in any order, fields, and the time in microseconds. False if no
/// line says it; what is appended then shows it as well as may be.
pub fn write_line<'a>(
    table: &str,
    tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    fields: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    time_us: i64,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    // A measurement that begins so would make a comment.
    let mut is_line = is_name_of_lines(table) && !table.is_empty() && !table.starts_with('#');
    write_measurement(table, out);
    for (name, value) in tags {
        is_line &= is_name_of_lines(name) && !name.is_empty() && is_tag_of_lines(value);
        out.push(b',');
        write_name(name, out);
        out.push(b'=');
        write_name(value, out);
    }
    let mut separator = b' ';
    for (name, value) in fields {
        out.push(separator);
        separator = b',';
        is_line &= is_name_of_lines(name);
        write_name(name, out);
        out.push(b'=');
        match value {
            Value::F64(value) => {
                is_line &= value.is_finite();
                out.extend_from_slice(format!("{value:?}").as_bytes());
            }
            Value::I64(value) => out.extend_from_slice(format!("{value}i").as_bytes()),
            Value::U64(value) => out.extend_from_slice(format!("{value}u").as_bytes()),
            Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Value::Text(text) => write_text(text, out),
            Value::Decimal { units, scale } => {
                out.extend_from_slice(format!("{}d", decimal::Decimal { units, scale }).as_bytes());
            }
        }
    }
    is_line &= separator == b',';
    out.extend_from_slice(format!(" {time_us}").as_bytes());
    // What has a line break outside of a text is two lines.
    if !is_line {
        out[start..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    }
    is_line
}

/// As [`write_line`], of the row at `row`.
///
/// # Panics
/// If there is no such row.
pub fn write_row(batch: &TableBatch, row: usize, out: &mut Vec<u8>) -> bool {
    let fields = batch.fields.iter().filter(|field| field.valid.get(row));
    let fields = fields.map(|field| (&*field.name, field.values.get(row)));
    let key = &batch.series[batch.series_of[row] as usize];
    write_line(&batch.table.table, key.tags(), fields, batch.times_us[row], out)
}

/// The row at `row` as such a line; `None` if no line says it.
///
/// # Panics
/// If there is no such row.
pub fn row_line(batch: &TableBatch, row: usize) -> Option<String> {
    let mut line = Vec::new();
    write_row(batch, row, &mut line).then(|| String::from_utf8(line).expect("texts and what escapes them are UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line_protocol::{Options, Precision, parse};

    #[test]
    fn a_line_that_is_written_is_read_as_the_same_row() {
        let tags = [("a b", "c,d=e\\f"), ("z", "ü")];
        let fields = [
            ("v", Value::F64(-0.0)),
            ("w", Value::F64(1e300)),
            ("i", Value::I64(i64::MIN)),
            ("u", Value::U64(u64::MAX)),
            ("t", Value::Text("\"\\\n,")),
            ("b", Value::Bool(true)),
            ("d", Value::Decimal { units: -105, scale: 2 }),
        ];
        let mut line = Vec::new();
        assert!(write_line("m, \\n", tags, fields, -7, &mut line));
        let options = Options { schema: "public", precision: Precision::Microsecond, now_us: 0, errors_max: 1 };
        let decoded = parse(&line, &options);
        assert_eq!(decoded.errors, []);
        let batch = &decoded.batches[0];
        assert_eq!((&*batch.table.table, batch.times_us[0]), ("m, \\n", -7));
        assert!(batch.series[0].tags().eq(tags));
        let read: Vec<_> = batch.fields.iter().map(|field| (&*field.name, field.values.get(0))).collect();
        assert_eq!(read, fields);
        assert_eq!(row_line(batch, 0).map(String::into_bytes), Some(line));
    }

    #[test]
    fn what_no_line_can_say_is_told() {
        let one = [("v", Value::F64(1.0))];
        for (table, tag, fields) in [
            ("#m", "x", &one[..]),
            ("", "x", &one),
            ("m\\", "x", &one),
            ("m", "x\ny v=1 1", &one),
            ("m", "C:\\", &one),
            ("m", "x", &[("v", Value::F64(f64::NAN))]),
            ("m", "x", &[]),
        ] {
            let mut line = Vec::new();
            assert!(!write_line(table, [("t", tag)], fields.iter().copied(), 1, &mut line), "{table} {tag}");
            assert!(!line.contains(&b'\n'));
        }
    }
}
