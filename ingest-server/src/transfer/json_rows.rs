//! Rows of a file with a JSON object a line.

use std::io::{self, BufRead};

use decode::json_lines::{Scalar, flatten};

use super::columns::{Kind, Layout, Naming};
use super::csv_rows::Lines;
use super::import::Item;
use super::record::{Cell, Record};
use decode::time::TimeFormat;

pub(crate) struct JsonRows {
    lines: Lines,
    time: TimeFormat,
}

impl JsonRows {
    pub(crate) fn open(input: Box<dyn BufRead>, time: TimeFormat) -> JsonRows {
        JsonRows { lines: Lines::new(input), time }
    }

    /// The next row.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn next(&mut self, layout: &mut Layout) -> io::Result<Option<Item>> {
        loop {
            let Some((place, line)) = self.lines.next()? else { return Ok(None) };
            if !line.trim_ascii().is_empty() {
                return Ok(Some(match self.record(place, &line, layout) {
                    Ok(record) => Item::Row(record),
                    Err(reason) => Item::Refused { place, reason },
                }));
            }
        }
    }

    fn record(&self, place: u64, line: &[u8], layout: &mut Layout) -> Result<Record, String> {
        let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
        let values = flatten(text)?;
        let mut time = None;
        for (path, value) in &values {
            layout.check(path, Naming::Path)?;
            if layout.is_time(path) {
                time = Some(Cell::Time(self.time(value)?));
            }
        }
        let Some(time) = time else { return Err(format!("there is no time: it has no {:?}", layout.time_name())) };
        // All that can be wrong with the line's names is known by now: a refused line brings no columns.
        let mut record = Record { place, cells: Vec::with_capacity(values.len()) };
        for (path, value) in values {
            let column = layout.column(&path, None);
            let cell = match layout.columns[column].kind {
                Some(Kind::LeftOut) => continue,
                Some(Kind::Time) => time.clone(),
                _ => match value {
                    Scalar::Text(text) => Cell::Text(text),
                    Scalar::I64(number) => Cell::I64(number),
                    Scalar::U64(number) => Cell::U64(number),
                    Scalar::F64(number) => Cell::F64(number),
                    Scalar::Bool(truth) => Cell::Bool(truth),
                },
            };
            if record.cells.iter().any(|(other, _)| *other == column) {
                return Err(format!("{path:?} is there twice: names do not differ by case only"));
            }
            record.cells.push((column, cell));
        }
        Ok(record)
    }

    fn time(&self, value: &Scalar) -> Result<i64, String> {
        match value {
            Scalar::Text(text) => self.time.text(text),
            Scalar::I64(number) => self.time.whole(*number),
            Scalar::U64(number) => self.time.text(&number.to_string()),
            // The digits that stand in the file, as far as a double keeps them.
            Scalar::F64(number) => self.time.text(&number.to_string()),
            Scalar::Bool(truth) => Err(format!("{truth} is not a time")),
        }
    }
}
