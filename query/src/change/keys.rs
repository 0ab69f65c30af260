//! Rows of a query as the keys that storage removes.
//!
//! Owns:     the size of one removal.
//! Does not: send it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use model::Removal;
use model::{SeriesKey, TableName};

/// Keys of one removal. A statement waits for each to be durable, so fewer would be slower, and more would hold
/// the others' writes up.
pub(super) const KEYS_MAX: usize = 65_536;

/// Bytes of the tags in one removal, at about which it is full too.
const TAG_BYTES_MAX: usize = 8 << 20;

/// Keys on their way into removals.
pub(super) struct Keys {
    tags: Vec<Arc<str>>,
    removal: Removal,
    /// Places in `removal.series`.
    places: HashMap<SeriesKey, u32>,
    tag_bytes: usize,
}

impl Keys {
    /// For rows whose columns are `tags` and the time, in that order.
    pub(super) fn new(table: TableName, tags: Vec<Arc<str>>, fields: Option<Vec<Arc<str>>>) -> Keys {
        let removal = Removal { table, series: Vec::new(), series_of: Vec::new(), times_us: Vec::new(), fields };
        Keys { tags, removal, places: HashMap::new(), tag_bytes: 0 }
    }

    /// Adds the rows of `batch`; gives the removals that are full.
    ///
    /// # Errors
    /// If the columns are of other types.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<Vec<Removal>, ArrowError> {
        let wrong = |what: &str| ArrowError::SchemaError(format!("the query for keys gave another {what}"));
        let (time, tags) = batch.columns().split_last().ok_or_else(|| wrong("number of columns"))?;
        let times = time.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong("time"))?;
        if times.null_count() > 0 || tags.len() != self.tags.len() {
            return Err(wrong("number of columns"));
        }
        let texts =
            tags.iter().map(|tag| arrow::compute::cast(tag, &DataType::Utf8View)).collect::<Result<Vec<_>, _>>()?;
        let texts: Vec<&StringViewArray> = texts.iter().map(AsArray::as_string_view).collect();
        let value = |column: &StringViewArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
        let is_same = |a: usize, b: usize| {
            texts.iter().all(|column| column.is_valid(a) == column.is_valid(b) && column.value(a) == column.value(b))
        };
        let mut full = Vec::new();
        let mut last = None;
        for (row, time_us) in times.values().iter().enumerate() {
            let place = match last {
                // Rows come series by series, mostly.
                Some(place) if row > 0 && is_same(row - 1, row) => place,
                _ => {
                    let tags =
                        self.tags.iter().zip(&texts).filter_map(|(tag, column)| Some((tag, value(column, row)?)));
                    let key = SeriesKey::from_tags(tags);
                    self.place(key)
                }
            };
            last = Some(place);
            self.removal.series_of.push(place);
            self.removal.times_us.push(*time_us);
            if self.removal.times_us.len() == KEYS_MAX || self.tag_bytes >= TAG_BYTES_MAX {
                full.extend(self.take());
                last = None;
            }
        }
        Ok(full)
    }

    fn place(&mut self, key: SeriesKey) -> u32 {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let place = u32::try_from(self.removal.series.len()).expect("a removal has few keys");
        self.tag_bytes += key.as_bytes().len();
        self.removal.series.push(key.clone());
        self.places.insert(key, place);
        place
    }

    /// What is left, if anything.
    pub(super) fn take(&mut self) -> Option<Removal> {
        self.places.clear();
        self.tag_bytes = 0;
        let Removal { table, fields, .. } = &self.removal;
        let empty = Removal {
            table: table.clone(),
            series: Vec::new(),
            series_of: Vec::new(),
            times_us: Vec::new(),
            fields: fields.clone(),
        };
        let full = std::mem::replace(&mut self.removal, empty);
        (!full.times_us.is_empty()).then_some(full)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn batch(a: Vec<Option<&str>>, b: Vec<Option<&str>>, times: Vec<i64>) -> RecordBatch {
        let columns: [(&str, ArrayRef); 3] = [
            ("a", Arc::new(StringViewArray::from(a))),
            // As a dictionary or another kind of text would come.
            ("b", Arc::new(StringArray::from(b))),
            ("time", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn keys() -> Keys {
        Keys::new(TableName::public("t"), vec!["a".into(), "b".into()], None)
    }

    #[test]
    fn rows_become_keys_and_absent_tags_are_left_out() {
        let mut keys = keys();
        let (x, y) = (Some("x"), Some("y"));
        let rows = batch(vec![x, x, None, x, None], vec![y, y, y, y, None], vec![1, 2, 3, 4, 5]);
        assert_eq!(keys.add(&rows).unwrap(), []);
        let removal = keys.take().unwrap();
        let series: Vec<String> = removal.series.iter().map(ToString::to_string).collect();
        assert_eq!(series, ["a=x,b=y", "b=y", ""]);
        assert_eq!((&removal.series_of[..], &removal.times_us[..]), (&[0, 0, 1, 0, 2][..], &[1, 2, 3, 4, 5][..]));
        assert_eq!(removal.fields, None);
        assert_eq!(keys.take(), None);
    }

    #[test]
    fn a_removal_is_full_in_the_middle_of_a_batch_and_loses_no_key() {
        let mut keys = keys();
        let names: Vec<String> = (0..7).map(|i| format!("d{i}")).collect();
        let mut removals = Vec::new();
        let rows = 5_000_i64;
        let batches = 30_i64;
        for number in 0..batches {
            let device = |row: i64| Some(names[(row / 700) as usize % 7].as_str());
            let devices: Vec<_> = (0..rows).map(device).collect();
            let times = (0..rows).map(|row| number * rows + row).collect();
            removals.extend(keys.add(&batch(devices.clone(), vec![None; devices.len()], times)).unwrap());
        }
        removals.extend(keys.take());
        let lengths: Vec<usize> = removals.iter().map(|removal| removal.times_us.len()).collect();
        assert_eq!(lengths, [KEYS_MAX, KEYS_MAX, (rows * batches) as usize - 2 * KEYS_MAX]);
        let mut next = 0;
        for removal in &removals {
            for (place, time) in removal.series_of.iter().zip(&removal.times_us) {
                assert_eq!(*time, next);
                let expected = &names[((next % rows) / 700) as usize % 7];
                assert_eq!(removal.series[*place as usize].get("a"), Some(expected.as_str()));
                next += 1;
            }
        }
        assert_eq!(next, rows * batches);
    }

    #[test]
    fn long_tags_fill_a_removal_too() {
        let mut keys = keys();
        let long: Vec<String> = (0..20).map(|i| i.to_string().repeat(1 << 19)).collect();
        let devices = long.iter().map(|name| Some(name.as_str())).collect();
        let full = keys.add(&batch(devices, vec![None; 20], (0..20).collect())).unwrap();
        assert!(!full.is_empty());
        assert!(full[0].times_us.len() < 20);
    }
}
