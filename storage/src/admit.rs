//! What may enter the log: rows that fit their table, in the table's types.
//!
//! Owns:     judging rows against schema and time limits, growing the schema before a row that needs it is logged.
//! Does not: parse, log or store.
//!
//! Numbers are put into the types of their columns where that is exact; the caller keeps these types from changing
//! until the rows are in memory ([`crate::gate`]).
//!
//! A row is refused with its line and reason; the rows beside it are not: a column that only refused rows have is
//! neither made nor in the way of others. A new table or column is committed before any row that uses it is
//! acknowledged, and only for rows that go on to the log; one that turns out too long for it leaves its columns behind.

use std::collections::HashMap;
use std::sync::Arc;

use model::name::check_column_name;
use model::{FieldColumn, FieldType, TableBatch, TableName, Value, day_of, decimal};

use crate::catalog::Catalog;
use crate::convert::{convert, convert_values, may_hold};
use crate::evolve::{alter_statement, shown};
use crate::maintain::first_kept_day;
use crate::table::Table;
use crate::{ColumnKind, RejectedRow, StorageError, TableOptions, TableSchema, Unfit};

/// The earliest time that is stored: 1677-09-21T00:12:43.145225Z, the first whose nanoseconds an i64 holds. Functions of
/// time count in nanoseconds, in our SQL and in other readers: one row beyond would break them for its whole table.
pub(crate) const TIME_MIN_US: i64 = i64::MIN / 1000 + 1;
/// The latest: 2262-04-11T23:47:16.854774Z.
pub(crate) const TIME_MAX_US: i64 = i64::MAX / 1000 - 1;

/// Columns of a table, tags and fields, without `time` (P10).
pub(crate) const COLUMNS_MAX: usize = 1000;

/// The latest time that is stored, and how to say so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    pub(crate) max_us: i64,
    pub(crate) max_future: std::time::Duration,
}

impl TimeLimit {
    pub(crate) fn allows(self, time_us: i64) -> bool {
        (TIME_MIN_US..=self.max_us.min(TIME_MAX_US)).contains(&time_us)
    }
}

/// Fits `batch` to its table, making table and columns as needed; what is left of the batch may be empty.
pub(crate) fn admit(
    catalog: &Catalog,
    batch: TableBatch,
    limit: TimeLimit,
    rejected: &mut Vec<RejectedRow>,
) -> Result<Option<(Arc<Table>, TableBatch)>, StorageError> {
    let batch = within_time(batch, limit, rejected);
    let mut table = catalog.find(&batch.table)?;
    let first_kept_day = match &table {
        Some(table) => table.first_kept_day(),
        None => first_kept_day(catalog.context(), &batch.table, TableOptions::default()),
    };
    let batch = match first_kept_day {
        Some(first) => within_retention(batch, first, rejected),
        None => batch,
    };
    let mut schema = table.as_ref().map(|table| table.schema_for_writes()).transpose()?;
    let (mut fit, mut batch) = fit_without_refused(schema.as_deref(), batch, rejected);
    if batch.is_empty() {
        return Ok(None);
    }
    if fit.grows() {
        let table = match &table {
            Some(table) => table,
            None => table.insert(catalog.get_or_create(&batch.table, &fit.schema())?),
        };
        // Under the log's lock nobody else can grow the schema: judge again, since somebody may have before.
        let mut judged = Some(batch);
        (fit, batch) = table.until_first(|| {
            let mut log = table.log.lock().expect("no holder of this lock panics");
            let current = schema.insert(table.schema_for_writes()?);
            let batch = judged.take().expect("put back unless it is returned");
            let (fit, batch) = fit_without_refused(Some(current), batch, rejected);
            match fit.grows().then(|| table.commit_schema(&mut log, fit.schema())) {
                Some(Err(e)) => {
                    judged = Some(batch);
                    Err(e)
                }
                Some(Ok(())) | None => Ok((fit, batch)),
            }
        })?;
    }
    let table = table.expect("a batch with rows has a table by now");
    table.check_live()?;
    if batch.is_empty() {
        return Ok(None);
    }
    if fit.converts() && !fit.convert_columns(&mut batch) {
        batch = fit.convert_rows(batch);
    }
    Ok(Some((table, batch)))
}

/// Takes out the rows that do not fit, and says how the others do.
fn fit_without_refused(
    schema: Option<&TableSchema>,
    mut batch: TableBatch,
    rejected: &mut Vec<RejectedRow>,
) -> (Fit, TableBatch) {
    // First those that the schema refuses, whatever is beside them; then those that are in each other's way.
    for whom in [Refuse::ForTheSchema, Refuse::All] {
        let before = batch.len();
        let mut fit = Fit::new(schema, &batch);
        if fit.takes_all_columns() && (!fit.converts() || fit.convert_columns(&mut batch)) {
            return (fit, batch);
        }
        batch = fit.refuse(batch, whom, rejected);
        if batch.len() == before && whom == Refuse::All {
            return (fit, batch);
        }
    }
    // Without the refused rows: a column that only they had is not made.
    (Fit::new(schema, &batch), batch)
}

/// Which rows are taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refuse {
    /// Those that no other row of the batch has to do with.
    ForTheSchema,
    All,
}

fn within_time(batch: TableBatch, limit: TimeLimit, rejected: &mut Vec<RejectedRow>) -> TableBatch {
    let allowed = |time_us: i64| limit.allows(time_us);
    if batch.times_us.iter().all(|time_us| allowed(*time_us)) {
        return batch;
    }
    for (row, time_us) in batch.times_us.iter().enumerate().filter(|(_, time_us)| !allowed(**time_us)) {
        let reason = if *time_us > limit.max_us {
            let seconds = limit.max_future.as_secs();
            format!(
                "time {time_us} µs is more than {seconds} s after the server's clock ([ingest] max_future); \
                 check the precision parameter and the device's clock"
            )
        } else {
            format!("time {time_us} µs is outside the years 1678 to 2261; check the precision parameter")
        };
        rejected.push(RejectedRow { line: batch.lines[row], reason, unfit: Unfit::Time });
    }
    batch.filter(|row| allowed(batch.times_us[row]))
}

/// Takes out rows of days that retention has removed or is about to remove: they would not stay.
fn within_retention(batch: TableBatch, first_kept_day: i32, rejected: &mut Vec<RejectedRow>) -> TableBatch {
    let kept = |row: usize| day_of(batch.times_us[row]) >= first_kept_day;
    if (0..batch.len()).all(kept) {
        return batch;
    }
    for row in (0..batch.len()).filter(|row| !kept(*row)) {
        let time_us = batch.times_us[row];
        let reason = format!(
            "time {time_us} µs is older than table {} keeps its rows; raise its retention to store it",
            batch.table
        );
        rejected.push(RejectedRow { line: batch.lines[row], reason, unfit: Unfit::Retention });
    }
    batch.filter(kept)
}

/// How a batch's columns meet a table's.
struct Fit {
    tags: Vec<Arc<str>>,
    fields: Vec<(Arc<str>, FieldType)>,
    grown: bool,
    /// Why rows with this tag are refused.
    bad_tags: HashMap<String, Refusal>,
    /// By column of the batch: the type that the table wants, and why rows that have it are refused.
    columns: Vec<Result<FieldType, Refusal>>,
    convert: bool,
}

/// Why a row is refused.
#[derive(Clone, Debug)]
struct Refusal {
    reason: String,
    /// Whether it is for the name or the table's schema alone, and not for a column that the batch itself brings.
    for_the_schema: bool,
}

/// A column, and whether the table has it already.
enum Known {
    Tag(Arc<str>, bool),
    Field(Arc<str>, FieldType, bool),
}

impl Known {
    fn is_in_schema(&self) -> bool {
        match self {
            Known::Tag(_, is_in_schema) | Known::Field(_, _, is_in_schema) => *is_in_schema,
        }
    }
}

impl Fit {
    fn new(schema: Option<&TableSchema>, batch: &TableBatch) -> Fit {
        let mut fit = Fit {
            tags: Vec::new(),
            fields: Vec::new(),
            grown: schema.is_none(),
            bad_tags: HashMap::new(),
            columns: Vec::new(),
            convert: false,
        };
        // Delta's readers do not tell names apart by case, so neither may a table.
        let mut known: HashMap<String, Known> = HashMap::new();
        for column in schema.map_or(&[][..], TableSchema::columns) {
            let name = Arc::clone(&column.name);
            match column.kind {
                ColumnKind::Tag => {
                    fit.tags.push(Arc::clone(&name));
                    known.insert(name.to_lowercase(), Known::Tag(name, true));
                }
                ColumnKind::Field(field_type) => {
                    fit.fields.push((Arc::clone(&name), field_type));
                    known.insert(name.to_lowercase(), Known::Field(name, field_type, true));
                }
                ColumnKind::Time => {}
            }
        }
        let mut seen: Vec<&str> = Vec::new();
        for (tag, _) in batch.series.iter().flat_map(model::SeriesKey::tags) {
            if !seen.contains(&tag) {
                seen.push(tag);
                fit.add_tag(tag, &mut known);
            }
        }
        for column in &batch.fields {
            let field_type = column.values.field_type();
            let wanted = fit.add_field(batch, &column.name, field_type, &mut known);
            fit.convert |= wanted.as_ref().is_ok_and(|wanted| *wanted != field_type);
            fit.columns.push(wanted);
        }
        fit
    }

    fn add_tag(&mut self, tag: &str, known: &mut HashMap<String, Known>) {
        let met = known.get(&tag.to_lowercase());
        let reason = match met {
            Some(Known::Tag(name, _)) if **name == *tag => return,
            Some(Known::Field(name, ..)) if **name == *tag => {
                format!("{tag:?} is a field of this table and cannot be a tag")
            }
            Some(Known::Tag(name, _) | Known::Field(name, ..)) => {
                format!("tag {tag:?} differs only by case from column {name:?}, which exists; use that name")
            }
            None => match check_column_name("tag", tag) {
                Err(e) => e.to_string(),
                Ok(()) if self.is_full() => too_many(tag),
                Ok(()) => {
                    let name: Arc<str> = tag.into();
                    self.tags.push(Arc::clone(&name));
                    self.grown = true;
                    known.insert(tag.to_lowercase(), Known::Tag(name, false));
                    return;
                }
            },
        };
        let for_the_schema = self.is_for_the_schema(met, tag);
        self.bad_tags.insert(tag.to_owned(), Refusal { reason, for_the_schema });
    }

    fn add_field(
        &mut self,
        batch: &TableBatch,
        field: &Arc<str>,
        field_type: FieldType,
        known: &mut HashMap<String, Known>,
    ) -> Result<FieldType, Refusal> {
        let met = known.get(&field.to_lowercase());
        let reason = match met {
            Some(Known::Field(name, wanted, _)) if name == field => {
                if *wanted == field_type || may_hold(field_type, *wanted) {
                    return Ok(*wanted);
                }
                let mut reason = format!(
                    "field {field:?} is {wanted} in this table, but this line has a value of type {field_type}"
                );
                if field_type == FieldType::F64 && matches!(wanted, FieldType::I64 | FieldType::U64) {
                    reason += &format!(". To take it: {}", alter_statement(&batch.table, field, FieldType::F64));
                }
                reason
            }
            Some(Known::Tag(name, _)) if name == field => {
                format!("{field:?} is a tag of this table and cannot be a field")
            }
            Some(Known::Tag(name, _) | Known::Field(name, ..)) => {
                format!("field {field:?} differs only by case from column {name:?}, which exists; use that name")
            }
            None => match check_column_name("field", field) {
                Err(e) => e.to_string(),
                Ok(()) if self.is_full() => too_many(field),
                Ok(()) => {
                    // Whole numbers and others in one new field: a field of floats, as if the others had come first.
                    let is_float = |c: &FieldColumn| c.name == *field && c.values.field_type() == FieldType::F64;
                    let is_whole = matches!(field_type, FieldType::I64 | FieldType::U64);
                    let floats = is_whole && batch.fields.iter().any(is_float);
                    let field_type = if floats { FieldType::F64 } else { field_type };
                    self.fields.push((Arc::clone(field), field_type));
                    self.grown = true;
                    known.insert(field.to_lowercase(), Known::Field(Arc::clone(field), field_type, false));
                    return Ok(field_type);
                }
            },
        };
        Err(Refusal { reason, for_the_schema: self.is_for_the_schema(met, field) })
    }

    /// Whether a column is refused whatever else the batch brings.
    fn is_for_the_schema(&self, met: Option<&Known>, name: &str) -> bool {
        met.map_or_else(|| check_column_name("column", name).is_err(), Known::is_in_schema)
    }

    fn is_full(&self) -> bool {
        self.tags.len() + self.fields.len() >= COLUMNS_MAX
    }

    fn grows(&self) -> bool {
        self.grown
    }

    fn converts(&self) -> bool {
        self.convert
    }

    fn schema(&self) -> TableSchema {
        TableSchema::new(&self.tags, &self.fields)
    }

    /// Whether no row is refused for a column that it has, whatever the value.
    fn takes_all_columns(&self) -> bool {
        self.bad_tags.is_empty() && self.columns.iter().all(Result::is_ok)
    }

    /// Takes out rows that do not fit.
    fn refuse(&self, batch: TableBatch, whom: Refuse, rejected: &mut Vec<RejectedRow>) -> TableBatch {
        let counts = |refusal: &&Refusal| whom == Refuse::All || refusal.for_the_schema;
        let bad_series: Vec<Option<&Refusal>> = batch
            .series
            .iter()
            .map(|key| key.tags().filter_map(|(tag, _)| self.bad_tags.get(tag)).find(counts))
            .collect();
        let mut keep = vec![true; batch.len()];
        for row in 0..batch.len() {
            let mut reason = bad_series[batch.series_of[row] as usize].map(|refusal| refusal.reason.clone());
            for (column, wanted) in batch.fields.iter().zip(&self.columns).filter(|(c, _)| c.valid.get(row)) {
                if reason.is_some() {
                    break;
                }
                reason = match wanted {
                    Err(refusal) => Some(refusal).filter(counts).map(|refusal| refusal.reason.clone()),
                    Ok(wanted) => match convert(column.values.get(row), *wanted) {
                        Some(_) => None,
                        // Of a column that the batch brings with two types, one may be gone by the second look.
                        None if whom == Refuse::ForTheSchema && self.grown => None,
                        None => Some(inexact(&batch.table, &column.name, *wanted, column.values.get(row))),
                    },
                };
            }
            if let Some(reason) = reason {
                keep[row] = false;
                rejected.push(RejectedRow { line: batch.lines[row], reason, unfit: Unfit::Table });
            }
        }
        if keep.iter().all(|kept| *kept) { batch } else { batch.filter(|row| keep[row]) }
    }

    /// Puts every column into the table's type; false, and nothing done, if a value does not fit, or if two columns
    /// would become one.
    fn convert_columns(&mut self, batch: &mut TableBatch) -> bool {
        let mut converted = Vec::new();
        for (at, (column, wanted)) in batch.fields.iter().zip(&self.columns).enumerate() {
            let Ok(wanted) = wanted else { return false };
            if *wanted == column.values.field_type() {
                continue;
            }
            if batch.fields.iter().filter(|other| other.name == column.name).count() > 1 {
                return false;
            }
            let Ok(values) = convert_values(&column.values, &column.valid, *wanted) else { return false };
            converted.push((at, values));
        }
        for (at, values) in converted {
            batch.fields[at].values = values;
        }
        self.convert = false;
        true
    }

    /// As [`Fit::convert_columns`], row by row, merging columns of one name; all values are known to fit.
    fn convert_rows(&self, batch: TableBatch) -> TableBatch {
        let mut converted = TableBatch::new(batch.table.clone());
        let mut values: Vec<(usize, Value<'_>)> = Vec::new();
        for row in 0..batch.len() {
            values.clear();
            for (column, wanted) in batch.fields.iter().zip(&self.columns).filter(|(c, _)| c.valid.get(row)) {
                let wanted = *wanted.as_ref().expect("rows with other columns were refused");
                let value = convert(column.values.get(row), wanted).expect("values that do not fit were refused");
                values.push((converted.field_column(&column.name, wanted), value));
            }
            let series = converted.intern_series(batch.series[batch.series_of[row] as usize].clone());
            converted.push_row(series, batch.times_us[row], batch.lines[row], &values);
        }
        converted
    }
}

/// Why `value` is not stored in a field of type `is`, and what would help.
fn inexact(table: &TableName, field: &str, is: FieldType, value: Value<'_>) -> String {
    let FieldType::Decimal { digits, scale } = is else {
        return format!("field {field:?} is {is} in this table, and this line's value cannot be held exactly by it");
    };
    // As fine as it is, then finer.
    let wider = (scale..=decimal::SCALE_MAX).map(FieldType::decimal).find(|wider| convert(value, *wider).is_some());
    let alter = alter_statement(table, field, wider.unwrap_or(FieldType::F64));
    let value = shown(value);
    let what = match wider {
        Some(FieldType::Decimal { scale: finer, .. }) if finer > scale => "is finer; values are not rounded".to_owned(),
        _ => format!("has more than {digits} digits"),
    };
    format!("field {field:?} is {is} in this table, and {value} {what}. To take it: {alter}")
}

fn too_many(column: &str) -> String {
    format!("column {column:?} would be one too many: a table has at most {COLUMNS_MAX}; use other tables")
}
