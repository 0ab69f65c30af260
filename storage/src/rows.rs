//! Memtable rows as record batches: in any order for queries, sorted for shards.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, SchemaRef};

use crate::memtable::{Chunk, MemtableView};
use crate::shard::write::SeriesRun;
use crate::{Column, ColumnKind, RowsWanted, TableSchema};

/// Rows of a batch that is handed to a shard's writer.
const SORTED_BATCH_ROWS: usize = 1 << 16;

/// Rows on their way to a shard.
pub(crate) struct SortedRows {
    pub(crate) runs: Vec<SeriesRun>,
    /// The fields and the time, in the order of the schema.
    pub(crate) columns: Vec<ArrayRef>,
}

/// Keeps the later of two rows.
fn note_newer(newest: &mut Option<(i64, u32)>, time_us: i64, row: u32) {
    if newest.is_none_or(|(known_us, _)| time_us > known_us) {
        *newest = Some((time_us, row));
    }
}

/// The columns that a batch is to have.
#[derive(Debug)]
struct Projected {
    columns: Vec<Column>,
    schema: SchemaRef,
    tags: Tags,
}

impl Projected {
    fn new(view: &MemtableView, schema: &TableSchema, columns: &[usize]) -> Self {
        let arrow = schema.arrow().project(columns).expect("a column of the schema");
        let columns: Vec<Column> = columns.iter().map(|index| schema.columns()[*index].clone()).collect();
        let tags = Tags::new(view, &columns);
        Projected { columns, schema: Arc::new(arrow), tags }
    }

    /// One record batch from series, times and a way to make each field's column.
    fn assemble(
        &self,
        view: &MemtableView,
        series: &UInt32Array,
        times: Vec<i64>,
        field: impl Fn(Option<usize>, &DataType) -> ArrayRef,
    ) -> RecordBatch {
        let mut tag = 0;
        let rows = RecordBatchOptions::new().with_row_count(Some(times.len()));
        let columns = self.columns.iter().map(|column| -> ArrayRef {
            match column.kind {
                ColumnKind::Tag => {
                    tag += 1;
                    self.tags.column(tag - 1, series)
                }
                ColumnKind::Field(_) => {
                    field(view.slots.iter().position(|slot| slot.name == column.name), &column.data_type())
                }
                ColumnKind::Time => Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")),
            }
        });
        let columns = columns.collect();
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)
            .expect("columns were made for the schema")
    }
}

/// Which rows of a view are wanted, and in which columns.
#[derive(Debug)]
pub(crate) struct Selected {
    projected: Projected,
    times_us: RangeInclusive<i64>,
    /// By series; `None` for all.
    series: Option<BooleanBuffer>,
}

/// Tag columns with a value for each series, in the order of the columns.
#[derive(Debug)]
struct Tags(Vec<StringViewArray>);

impl Tags {
    fn new(view: &MemtableView, columns: &[Column]) -> Self {
        let tags = columns.iter().filter(|column| column.kind == ColumnKind::Tag);
        Tags(tags.map(|tag| view.series.iter().map(|key| key.get(&tag.name)).collect()).collect())
    }

    /// The column of tag number `tag` for rows of these series.
    fn column(&self, tag: usize, series: &UInt32Array) -> ArrayRef {
        take(&self.0[tag], series, None).expect("ids of series of the view")
    }
}

impl MemtableView {
    /// Rows that are not left out.
    pub(crate) fn rows_left(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.times_us.len()).sum::<usize>() - self.left_out.count
    }

    /// The chunks that may have rows at these times.
    pub(crate) fn chunks_at(&self, times_us: &RangeInclusive<i64>) -> Vec<usize> {
        let may_have = |chunk: &Chunk| chunk.oldest_us <= *times_us.end() && *times_us.start() <= chunk.newest_us;
        self.chunks.iter().enumerate().filter(|(_, chunk)| may_have(chunk)).map(|(at, _)| at).collect()
    }

    /// What [`MemtableView::batch`] needs to know of `wanted` rows in these columns of `schema`.
    pub(crate) fn select(&self, schema: &TableSchema, columns: &[usize], wanted: &RowsWanted) -> Selected {
        Selected {
            projected: Projected::new(self, schema, columns),
            times_us: wanted.times_us.clone(),
            series: wanted.series.as_ref().and_then(|of| of(&self.series_tags(schema))),
        }
    }

    /// The rows of a chunk that are wanted; `None` if there are none.
    pub(crate) fn batch(&self, selected: &Selected, at: usize) -> Option<RecordBatch> {
        let chunk = &self.chunks[at];
        let kept = self.kept(selected, at);
        if kept.as_ref().map_or(chunk.times_us.len(), UInt32Array::len) == 0 {
            return None;
        }
        let gather = |column: ArrayRef| -> ArrayRef {
            match &kept {
                Some(kept) => take(&column, kept, None).expect("kept rows are rows of the chunk"),
                None => column,
            }
        };
        let (series, times): (UInt32Array, Vec<i64>) = match &kept {
            Some(kept) => {
                let rows = || kept.values().iter().map(|row| *row as usize);
                (rows().map(|row| chunk.series[row]).collect(), rows().map(|row| chunk.times_us[row]).collect())
            }
            None => (chunk.series.clone().into(), chunk.times_us.clone()),
        };
        let field = |slot: Option<usize>, data_type: &DataType| match slot.and_then(|slot| chunk.columns.get(slot)) {
            Some(column) => gather(Arc::clone(column)),
            None => new_null_array(data_type, series.len()),
        };
        Some(selected.projected.assemble(self, &series, times, field))
    }

    /// The rows of a chunk that are wanted; `None` for all.
    fn kept(&self, selected: &Selected, at: usize) -> Option<UInt32Array> {
        let (chunk, first) = (&self.chunks[at], MemtableView::first_row(at));
        let is_at_all_times =
            selected.times_us.contains(&chunk.oldest_us) && selected.times_us.contains(&chunk.newest_us);
        if is_at_all_times && selected.series.is_none() && self.left_out.count == 0 {
            return None;
        }
        let of_series = |series: u32| selected.series.as_ref().is_none_or(|of| of.value(series as usize));
        let rows = (0_u32..).zip(&chunk.series).zip(&chunk.times_us);
        let kept = rows.filter(|((row, series), time_us)| {
            selected.times_us.contains(time_us) && of_series(**series) && !self.left_out.get(first + row)
        });
        let kept: Vec<u32> = kept.map(|((row, _), _)| row).collect();
        (kept.len() < chunk.times_us.len()).then(|| kept.into())
    }

    /// How many rows have no value in `column`, if it is easy to tell.
    pub(crate) fn nulls(&self, column: &Column) -> Option<usize> {
        if self.left_out.count > 0 {
            return None;
        }
        match column.kind {
            ColumnKind::Time => Some(0),
            ColumnKind::Tag => self.series.iter().all(|key| key.get(&column.name).is_some()).then_some(0),
            ColumnKind::Field(_) => {
                let slot = self.slots.iter().position(|slot| slot.name == column.name);
                let of_chunk = |chunk: &Arc<Chunk>| match slot.and_then(|slot| chunk.columns.get(slot)) {
                    Some(values) => values.null_count(),
                    None => chunk.times_us.len(),
                };
                Some(self.chunks.iter().map(of_chunk).sum())
            }
        }
    }

    /// The tags of each series, a row each.
    fn series_tags(&self, schema: &TableSchema) -> RecordBatch {
        let tags: Vec<usize> =
            (0..schema.columns().len()).filter(|index| schema.columns()[*index].kind == ColumnKind::Tag).collect();
        let series: UInt32Array = (0..self.series.len() as u32).collect();
        let no_field = |_: Option<usize>, data_type: &DataType| new_null_array(data_type, series.len());
        Projected::new(self, schema, &tags).assemble(self, &series, vec![0; series.len()], no_field)
    }

    /// These columns of few rows: for each series the newest, and for each of the columns the newest that has a value.
    pub(crate) fn newest(&self, schema: &TableSchema, columns: &[usize]) -> RecordBatch {
        let newest = self.newest_by_series();
        let mut rows: Vec<u32> = newest.iter().flatten().map(|(_, row)| *row).collect();
        for column in columns.iter().map(|index| &schema.columns()[*index]) {
            let Some(slot) = self.slots.iter().position(|slot| slot.name == column.name) else { continue };
            let is_there = |row: u32| {
                let (chunk, row) = MemtableView::locate(row);
                self.chunks[chunk].columns.get(slot).is_some_and(|column| column.is_valid(row))
            };
            let lacks: Vec<bool> = newest.iter().map(|newest| newest.is_some_and(|(_, row)| !is_there(row))).collect();
            if !lacks.contains(&true) {
                continue;
            }
            let mut valued: Vec<Option<(i64, u32)>> = vec![None; self.series.len()];
            self.each_row(|row, series, time_us| {
                if lacks[series] && is_there(row) {
                    note_newer(&mut valued[series], time_us, row);
                }
            });
            rows.extend(valued.iter().flatten().map(|(_, row)| *row));
        }
        rows.sort_unstable();
        rows.dedup();
        self.gather(&Projected::new(self, schema, columns), &rows)
    }

    /// The newest row of each series that is not left out, with its time.
    fn newest_by_series(&self) -> Vec<Option<(i64, u32)>> {
        let shown = |row: &u32| !self.left_out.get(*row);
        let timed = |row: u32| {
            let (chunk, at) = MemtableView::locate(row);
            (self.chunks[chunk].times_us[at], row)
        };
        let mut newest: Vec<Option<(i64, u32)>> = self.latest.iter().map(|row| row.filter(shown).map(timed)).collect();
        // Where the latest row was removed, or is shown by a shard, another one may be shown.
        let is_unknown: Vec<bool> =
            self.latest.iter().zip(&newest).map(|(latest, newest)| latest.is_some() && newest.is_none()).collect();
        if is_unknown.contains(&true) {
            self.each_row(|row, series, time_us| {
                if is_unknown[series] {
                    note_newer(&mut newest[series], time_us, row);
                }
            });
        }
        newest
    }

    /// Each row that is not left out, with its series and time.
    fn each_row(&self, mut note: impl FnMut(u32, usize, i64)) {
        for (i, chunk) in self.chunks.iter().enumerate() {
            for ((row, series), time_us) in (MemtableView::first_row(i)..).zip(&chunk.series).zip(&chunk.times_us) {
                if !self.left_out.get(row) {
                    note(row, *series as usize, *time_us);
                }
            }
        }
    }

    /// The columns of `schema` at `rows`, in that order.
    pub(crate) fn rows(&self, schema: &TableSchema, rows: &[u32]) -> RecordBatch {
        let columns: Vec<usize> = (0..schema.columns().len()).collect();
        self.gather(&Projected::new(self, schema, &columns), rows)
    }

    fn gather(&self, projected: &Projected, rows: &[u32]) -> RecordBatch {
        let places: Vec<(usize, usize)> = rows.iter().map(|row| MemtableView::locate(*row)).collect();
        let series: UInt32Array = places.iter().map(|(chunk, row)| self.chunks[*chunk].series[*row]).collect();
        let times = places.iter().map(|(chunk, row)| self.chunks[*chunk].times_us[*row]).collect();
        let field = |slot: Option<usize>, data_type: &DataType| self.field(slot, data_type, &places);
        projected.assemble(self, &series, times, field)
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
