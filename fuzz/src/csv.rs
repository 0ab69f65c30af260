//! CSV: records of lines, fields of records. The first byte is the delimiter.

use decode::csv::{RecordState, fields};

use crate::memory::within;

/// Each line alone, and all records.
pub fn check(bytes: &[u8]) {
    let Some((&delimiter, text)) = bytes.split_first() else { return };
    // Who reads files allows no other.
    if !delimiter.is_ascii() || matches!(delimiter, b'"' | b'\n' | b'\r') {
        return;
    }
    let (mut state, mut record, mut records) = (RecordState::default(), Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        record.extend_from_slice(line);
        if state.read_line(line, delimiter) {
            check_record(&record, delimiter);
            records += record.len();
            record.clear();
        }
    }
    check_record(&record, delimiter);
    assert_eq!(records + record.len(), text.len(), "no byte is in two records or in none");
}

fn check_record(record: &[u8], delimiter: u8) {
    let Ok(record) = str::from_utf8(record) else { return };
    let bound = 512 + 128 * record.len();
    let Ok(found) = within(bound, || fields(record, delimiter)) else { return };
    assert!(!found.is_empty(), "a record without a field");
    let texts: usize = found.iter().map(|field| field.text.len()).sum();
    assert!(texts + found.len() - 1 <= record.len(), "{found:?} of {record:?}");
    // What was read, written with quotes wherever they are allowed, is read as the same.
    let quoted: Vec<String> = found.iter().map(|field| format!("\"{}\"", field.text.replace('"', "\"\""))).collect();
    let written = quoted.join(char::from(delimiter).encode_utf8(&mut [0; 4]));
    let again = fields(&written, delimiter).expect("quoted fields are well formed");
    assert!(again.iter().map(|field| &field.text).eq(found.iter().map(|field| &field.text)), "{found:?} {again:?}");
}
