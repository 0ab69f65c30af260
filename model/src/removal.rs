//! Rows, or fields of rows, that are to be taken away from one table.
//!
//! Invariants (of a sound one, [`Removal::check`])
//!  1. `series_of` and `times_us` have one entry a row; `series_of[row]` is an index into `series`.
//!  2. Each [`SeriesKey`] stands in `series` once, each name in `fields` once, and `fields` is not empty.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::{SeriesKey, TableName};

/// What is to be removed: rows by their keys, as a whole or only some of their fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The table all rows are in.
    pub table: TableName,
    /// The series that rows refer to.
    pub series: Vec<SeriesKey>,
    /// Per row: index into `series`.
    pub series_of: Vec<u32>,
    /// Per row: event time, microseconds since 1970-01-01 UTC.
    pub times_us: Vec<i64>,
    /// `None`: the rows themselves. Else the fields that lose their values; the rows stay, even without any value.
    pub fields: Option<Vec<Arc<str>>>,
}

impl Removal {
    /// A sound removal of the rows with these keys, in this order.
    pub fn of_rows<'a>(table: TableName, rows: impl IntoIterator<Item = (&'a SeriesKey, i64)>) -> Removal {
        let mut removal =
            Removal { table, series: Vec::new(), series_of: Vec::new(), times_us: Vec::new(), fields: None };
        let mut ids: HashMap<&SeriesKey, u32> = HashMap::new();
        for (key, time_us) in rows {
            let id = *ids.entry(key).or_insert_with(|| {
                removal.series.push(key.clone());
                u32::try_from(removal.series.len() - 1).expect("a removal has fewer than 2^32 series")
            });
            removal.series_of.push(id);
            removal.times_us.push(time_us);
        }
        removal
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.times_us.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.times_us.is_empty()
    }

    /// The series and the time of each row.
    pub fn rows(&self) -> impl Iterator<Item = (&SeriesKey, i64)> {
        self.series_of.iter().zip(&self.times_us).map(|(of, time_us)| (&self.series[*of as usize], *time_us))
    }

    /// A removal of the rows for which `keep` holds, in the same order.
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Removal {
        let rows = self.rows().enumerate().filter(|(row, _)| keep(*row)).map(|(_, key)| key);
        Removal { fields: self.fields.clone(), ..Removal::of_rows(self.table.clone(), rows) }
    }

    /// Checks what a caller or a log brought.
    ///
    /// # Errors
    /// Names the invariant that is broken.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.series_of.len() != self.times_us.len() {
            return Err("rows differ in their number of series and of times");
        }
        if self.series_of.iter().max().is_some_and(|max| *max as usize >= self.series.len()) {
            return Err("a row names a series that is not there");
        }
        if self.series.iter().collect::<HashSet<_>>().len() != self.series.len() {
            return Err("a series stands there twice");
        }
        let Some(fields) = &self.fields else { return Ok(()) };
        if fields.is_empty() {
            return Err("a removal of no fields");
        }
        if fields.iter().collect::<HashSet<_>>().len() != fields.len() {
            return Err("a field stands there twice");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_keeps_its_rows_through_a_filter_and_names_what_is_wrong() {
        let (a, b) = (SeriesKey::from_tags([("s", "a")]), SeriesKey::from_tags([("s", "b")]));
        let all = Removal::of_rows(TableName::public("t"), [(&a, 1), (&b, 1), (&a, 2)]);
        assert_eq!((all.series.len(), &all.series_of[..], all.check()), (2, &[0, 1, 0][..], Ok(())));
        let kept = all.filter(|row| row > 0);
        assert_eq!(kept.rows().collect::<Vec<_>>(), [(&b, 1), (&a, 2)]);
        let check = |change: fn(&mut Removal), expected: &str| {
            let mut removal = all.clone();
            change(&mut removal);
            assert_eq!(removal.check(), Err(expected));
        };
        check(|r| r.times_us.truncate(2), "rows differ in their number of series and of times");
        check(|r| r.series_of[0] = 2, "a row names a series that is not there");
        check(|r| r.series[1] = r.series[0].clone(), "a series stands there twice");
        check(|r| r.fields = Some(vec![]), "a removal of no fields");
        check(|r| r.fields = Some(vec!["x".into(), "x".into()]), "a field stands there twice");
    }
}
