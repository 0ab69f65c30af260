//! A reading as a line.
//!
//! Invariant: what is written is read back as the same reading, or nothing is written.

use std::fmt::Write as _;

use model::decimal::Decimal;
use model::{TableBatch, Value};

/// The reading in `row` as a line without its line break, its time in microseconds. `None` if line protocol cannot say
/// it: a name or a tag's value that ends with a backslash.
///
/// # Panics
/// If `row` is out of range.
pub fn write_row(batch: &TableBatch, row: usize) -> Option<String> {
    let mut line = String::new();
    write_name(&batch.table.table, "\\, ", &mut line)?;
    for (name, value) in batch.series[batch.series_of[row] as usize].tags() {
        line.push(',');
        write_name(name, "\\,= ", &mut line)?;
        line.push('=');
        write_name(value, "\\,= ", &mut line)?;
    }
    let mut separator = ' ';
    for field in batch.fields.iter().filter(|field| field.valid.get(row)) {
        line.push(separator);
        separator = ',';
        write_name(&field.name, "\\,= ", &mut line)?;
        line.push('=');
        // A String takes whatever is written to it.
        let _ = match field.values.get(row) {
            Value::F64(value) => write!(line, "{value:?}"),
            Value::I64(value) => write!(line, "{value}i"),
            Value::U64(value) => write!(line, "{value}u"),
            Value::Bool(value) => write!(line, "{value}"),
            Value::Decimal { units, scale } => write!(line, "{}d", Decimal { units, scale }),
            Value::Text(text) => {
                line.push('"');
                push_escaped(text, "\\\"", &mut line);
                line.write_char('"')
            }
        };
    }
    let _ = write!(line, " {}", batch.times_us[row]);
    Some(line)
}

fn write_name(name: &str, special: &str, line: &mut String) -> Option<()> {
    push_escaped(name, special, line);
    (!name.ends_with('\\')).then_some(())
}

fn push_escaped(text: &str, special: &str, line: &mut String) {
    for character in text.chars() {
        if special.contains(character) {
            line.push('\\');
        }
        line.push(character);
    }
}
