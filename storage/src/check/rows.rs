//! Rows of a shard as bytes that compare like their series, so that order and keys can be examined.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};

use crate::shard::read::time_column;
use crate::{ColumnKind, TableSchema};

/// Makes series comparable: tags in schema order, nulls first, texts by their bytes.
pub(super) struct SeriesConverter {
    tags: Vec<Arc<str>>,
    /// `None` without tags: then there is one series.
    converter: Option<RowConverter>,
}

/// Series and times of some rows.
pub(super) struct Keys {
    series: Option<Rows>,
    pub(super) times: TimestampMicrosecondArray,
}

impl SeriesConverter {
    pub(super) fn new(schema: &TableSchema) -> Result<SeriesConverter, String> {
        let tags = schema.columns().iter().filter(|column| column.kind == ColumnKind::Tag);
        let tags: Vec<Arc<str>> = tags.map(|column| Arc::clone(&column.name)).collect();
        let fields = tags.iter().map(|_| SortField::new(DataType::Utf8)).collect();
        let converter = (!tags.is_empty()).then(|| RowConverter::new(fields)).transpose();
        Ok(SeriesConverter { tags, converter: converter.map_err(|e| e.to_string())? })
    }

    /// The keys of `batch`.
    ///
    /// # Errors
    /// Says which column is not what it must be.
    pub(super) fn keys(&self, batch: &RecordBatch) -> Result<Keys, String> {
        let times = time_column(batch).ok_or("it has no column time")?.clone();
        if times.null_count() > 0 {
            return Err("a row has no time".into());
        }
        let tag = |name: &Arc<str>| -> Result<ArrayRef, String> {
            match batch.column_by_name(name) {
                Some(column) => cast(column, &DataType::Utf8).map_err(|e| format!("column {name:?}: {e}")),
                // The tag is younger than the shard.
                None => Ok(new_null_array(&DataType::Utf8, batch.num_rows())),
            }
        };
        let columns = self.tags.iter().map(tag).collect::<Result<Vec<_>, _>>()?;
        let series = self.converter.as_ref().map(|converter| converter.convert_columns(&columns)).transpose();
        Ok(Keys { series: series.map_err(|e| e.to_string())?, times })
    }
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn series(&self, row: usize) -> &[u8] {
        self.series.as_ref().map_or(&[], |series| series.row(row).data())
    }

    /// Behind the last row of the series that `row` has.
    pub(super) fn run_end(&self, row: usize) -> usize {
        let series = self.series(row);
        (row + 1..self.len()).find(|other| self.series(*other) != series).unwrap_or(self.len())
    }
}
