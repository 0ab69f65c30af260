//! Memtable rows as record batches: in any order for queries, sorted for shards.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::array::builder::make_view;
use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray, TimestampMicrosecondArray, new_null_array};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::{interleave, take};
use arrow::datatypes::DataType;

use crate::memtable::{Chunk, MemtableView};
use crate::shard::write::SeriesRun;
use crate::{ColumnKind, TableSchema};

/// Rows of a batch that is handed to a shard's writer.
const SORTED_BATCH_ROWS: usize = 1 << 16;

/// Rows on their way to a shard.
pub(crate) struct SortedRows {
    pub(crate) runs: Vec<SeriesRun>,
    /// The fields and the time, in the order of the schema.
    pub(crate) columns: Vec<ArrayRef>,
}

/// The tag columns of a view: for each tag of the schema one view per series, all in one buffer.
struct Tags {
    /// By tag in schema order, then by series id.
    views: Vec<Vec<Option<u128>>>,
    buffers: Vec<Buffer>,
}

impl Tags {
    fn new(view: &MemtableView, schema: &TableSchema) -> Self {
        let names = schema.columns().iter().filter(|column| column.kind == ColumnKind::Tag);
        let (views, buffers) = names
            .map(|tag| {
                let mut bytes: Vec<u8> = Vec::new();
                let views = view.series.iter().map(|key| {
                    let value = key.get(&tag.name)?;
                    let offset = u32::try_from(bytes.len()).expect("tags of a memtable take less than 4 GiB");
                    let view = make_view(value.as_bytes(), 0, offset);
                    // Texts of up to 12 bytes stand in the view itself.
                    if value.len() > 12 {
                        bytes.extend_from_slice(value.as_bytes());
                    }
                    Some(view)
                });
                (views.collect::<Vec<_>>(), Buffer::from(bytes))
            })
            .unzip();
        Tags { views, buffers }
    }

    /// The column of tag number `tag` for rows of these series.
    fn column(&self, tag: usize, series: impl ExactSizeIterator<Item = u32> + Clone) -> ArrayRef {
        let of_series = &self.views[tag];
        let nulls: Option<NullBuffer> = of_series
            .iter()
            .any(Option::is_none)
            .then(|| series.clone().map(|id| of_series[id as usize].is_some()).collect::<Vec<bool>>().into());
        let views: Vec<u128> = series.map(|id| of_series[id as usize].unwrap_or_default()).collect();
        let buffers = vec![self.buffers[tag].clone()];
        Arc::new(StringViewArray::try_new(ScalarBuffer::from(views), buffers, nulls).expect("views of whole texts"))
    }
}

impl MemtableView {
    /// All rows, in no order, in the columns of `schema`.
    pub(crate) fn batches(&self, schema: &TableSchema) -> Vec<RecordBatch> {
        let tags = Tags::new(self, schema);
        let mut batches = Vec::with_capacity(self.chunks.len());
        for (i, chunk) in self.chunks.iter().enumerate() {
            let first = MemtableView::first_row(i);
            let rows = chunk.times_us.len() as u32;
            let kept: Vec<u32> = (0..rows).filter(|row| !self.left_out.get(first + row)).collect();
            if kept.is_empty() {
                continue;
            }
            let all = kept.len() == chunk.times_us.len();
            let kept = UInt32Array::from(kept);
            let gather = |column: ArrayRef| -> ArrayRef {
                if all { column } else { take(&column, &kept, None).expect("kept rows are rows of the chunk") }
            };
            let series = kept.values().iter().map(|row| chunk.series[*row as usize]);
            let times = kept.values().iter().map(|row| chunk.times_us[*row as usize]).collect();
            let field = |slot: Option<usize>, data_type: &DataType| match slot.and_then(|slot| chunk.columns.get(slot))
            {
                Some(column) => gather(Arc::clone(column)),
                None => new_null_array(data_type, kept.len()),
            };
            batches.push(self.assemble(schema, &tags, series, times, field));
        }
        batches
    }

    /// One record batch from series, times and a way to make each field's column.
    fn assemble(
        &self,
        schema: &TableSchema,
        tags: &Tags,
        series: impl ExactSizeIterator<Item = u32> + Clone,
        times: Vec<i64>,
        field: impl Fn(Option<usize>, &DataType) -> ArrayRef,
    ) -> RecordBatch {
        let mut tag = 0;
        let columns = schema.columns().iter().map(|column| -> ArrayRef {
            match column.kind {
                ColumnKind::Tag => {
                    tag += 1;
                    tags.column(tag - 1, series.clone())
                }
                ColumnKind::Field(_) => {
                    field(self.slots.iter().position(|slot| slot.name == column.name), &column.data_type())
                }
                ColumnKind::Time => Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")),
            }
        });
        let columns = columns.collect();
        RecordBatch::try_new(Arc::clone(schema.arrow()), columns).expect("columns were made for the schema")
    }

    /// The columns of `schema` at `rows`, in that order.
    pub(crate) fn rows(&self, schema: &TableSchema, rows: &[u32]) -> RecordBatch {
        let tags = Tags::new(self, schema);
        self.gather(schema, &tags, rows)
    }

    fn gather(&self, schema: &TableSchema, tags: &Tags, rows: &[u32]) -> RecordBatch {
        let places: Vec<(usize, usize)> = rows.iter().map(|row| MemtableView::locate(*row)).collect();
        let series = places.iter().map(|(chunk, row)| self.chunks[*chunk].series[*row]);
        let times = places.iter().map(|(chunk, row)| self.chunks[*chunk].times_us[*row]).collect();
        let field = |slot: Option<usize>, data_type: &DataType| self.field(slot, data_type, &places);
        self.assemble(schema, tags, series, times, field)
    }

    /// Rows in the order of a shard, (tags in schema order with nulls first, time), but for those of `without`,
    /// in batches.
    pub(crate) fn sorted<'a>(
        &'a self,
        schema: &'a TableSchema,
        by_series: &[Vec<u32>],
        without: &HashSet<u32>,
    ) -> impl Iterator<Item = SortedRows> + 'a {
        let mut series: Vec<(Vec<Option<&str>>, usize)> = self
            .series
            .iter()
            .enumerate()
            .map(|(id, key)| (schema.tags().map(|tag| key.get(tag)).collect(), id))
            .collect();
        // `None` sorts before `Some`: nulls first.
        series.sort_unstable();
        let rows = series.iter().flat_map(|(_, id)| &by_series[*id]);
        let order: Vec<u32> = rows.filter(|row| !self.left_out.get(**row) && !without.contains(row)).copied().collect();
        let slots: Vec<Option<usize>> =
            schema.columns().iter().map(|column| self.slots.iter().position(|slot| slot.name == column.name)).collect();
        let mut start = 0;
        std::iter::from_fn(move || {
            let end = order.len().min(start + SORTED_BATCH_ROWS);
            let batch = (start < end).then(|| self.sorted_rows(schema, &slots, &order[start..end]));
            start = end;
            batch
        })
    }

    fn sorted_rows(&self, schema: &TableSchema, slots: &[Option<usize>], rows: &[u32]) -> SortedRows {
        let places: Vec<(usize, usize)> = rows.iter().map(|row| MemtableView::locate(*row)).collect();
        let mut runs: Vec<(u32, usize)> = Vec::new();
        for (chunk, row) in &places {
            let id = self.chunks[*chunk].series[*row];
            match runs.last_mut() {
                Some((last, rows)) if *last == id => *rows += 1,
                _ => runs.push((id, 1)),
            }
        }
        let columns = schema.columns().iter().zip(slots).filter(|(column, _)| column.kind != ColumnKind::Tag);
        let columns = columns.map(|(column, slot)| match column.kind {
            ColumnKind::Time => {
                let times = places.iter().map(|(chunk, row)| self.chunks[*chunk].times_us[*row]);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            _ => self.field(*slot, &column.data_type(), &places),
        });
        SortedRows {
            columns: columns.collect(),
            runs: runs
                .into_iter()
                .map(|(id, rows)| SeriesRun { key: Arc::clone(&self.series[id as usize]), rows })
                .collect(),
        }
    }

    /// The values of a field at `places`.
    fn field(&self, slot: Option<usize>, data_type: &DataType, places: &[(usize, usize)]) -> ArrayRef {
        let Some(slot) = slot else { return new_null_array(data_type, places.len()) };
        let column = |chunk: &Arc<Chunk>| match chunk.columns.get(slot) {
            Some(column) => Arc::clone(column),
            None => new_null_array(data_type, chunk.times_us.len()),
        };
        let columns: Vec<ArrayRef> = self.chunks.iter().map(column).collect();
        let columns: Vec<&dyn Array> = columns.iter().map(|column| &**column).collect();
        interleave(&columns, places).expect("places are rows of the chunks")
    }
}
