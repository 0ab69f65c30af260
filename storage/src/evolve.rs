//! Changes of a table's columns that somebody asks for, or that a float among whole numbers needs.
//!
//! Owns:     making tables before their first row, adding columns, changing a column's type in all that is stored.
//! Does not: say which number is which in another type (`convert`), or add the columns that rows bring (`admit`).
//!
//! A type changes by rewriting every shard that has the column, in the commit that changes the schema: readers differ
//! in what they widen. First rows in memory are flushed and the shards there are rewritten, while the table is written
//! and read as ever. Then the table is closed ([`Gate`](crate::gate::Gate)): who is inside finishes, the rest is
//! flushed and rewritten, which is little; one commit; the swap in memory; and the table is open again.
//!
//! Invariants
//!  1. No number is changed: a value that the new type does not hold exactly ends the change, before the commit.
//!  2. When the commit is made, no row of the table is in memory, and the commit's watermark covers all of the log that
//!     has rows of it. So nothing of the old type is ever read beside the new one.
//!  3. A rewrite keeps the order, the number and the positions of rows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::RecordBatch;
use model::name::check_column_name;
use model::{FieldType, TableBatch, TableName, decimal};
use uuid::Uuid;

use crate::admit::{COLUMNS_MAX, TimeLimit};
use crate::catalog::{SYSTEM, commit_info, metadata};
use crate::convert::{convert_array, convert_values};
use crate::delta::{Action, Add, Remove, Txn, shard_from_add};
use crate::flush::{Flushed, Settling};
use crate::schema::sql_type;
use crate::shard::index::ShardIndex;
use crate::shard::read::{STREAM_ROWS, ShardReader, time_column};
use crate::shard::write::ShardWriter;
use crate::table::Table;
use crate::{ColumnKind, Shard, Storage, StorageError, TableOptions, TableSchema};

/// How long a change waits for requests that are inside the table: as long as they wait for room.
const CLOSE_WAIT: Duration = Duration::from_secs(20);

/// How long a change that somebody asks for waits for another one of its table.
const ALTER_WAIT: Duration = Duration::from_secs(60);

/// How long a writer waits for it: it holds one of few places.
const WIDEN_WAIT: Duration = Duration::from_secs(2);

/// Rounds of rewriting before the table is closed: the second has what came during the first.
const OPEN_ROUNDS: usize = 2;

/// Lets the columns of one table change their types one at a time.
#[derive(Debug, Default)]
pub(crate) struct Altering {
    state: Mutex<AlteringState>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct AlteringState {
    is_taken: bool,
    /// Columns that a float cannot widen, because of a value that is stored or of how much is. Looked for once in a
    /// life and not at each row.
    not_widened: HashSet<Arc<str>>,
}

/// Leave to change a column of a table, given back when dropped.
struct Turn<'a>(&'a Altering);

impl Altering {
    fn state(&self) -> MutexGuard<'_, AlteringState> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Waits for its turn.
    fn turn(&self, limit: Duration) -> Result<Turn<'_>, StorageError> {
        let waited = self.free.wait_timeout_while(self.state(), limit, |state| state.is_taken);
        let (mut state, waited) = waited.expect("no holder of this lock panics");
        if waited.timed_out() {
            let reason = "the type of a column of the table is being changed";
            return Err(StorageError::Busy { reason: reason.into(), retry_after: Duration::from_secs(1) });
        }
        state.is_taken = true;
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().is_taken = false;
        self.0.free.notify_one();
    }
}

/// How much a change may rewrite.
#[derive(Clone, Copy, Debug)]
struct Budget {
    bytes_max: u64,
    /// The configuration's name for it.
    option: &'static str,
}

impl Storage {
    /// Makes the table `name` with these columns; false, and nothing changed, if there is one. Durable when it returns.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if a name breaks a rule, there are too many columns, or too many tables.
    pub fn create_table(
        &self,
        name: &TableName,
        schema: &TableSchema,
        options: TableOptions,
    ) -> Result<bool, StorageError> {
        self.shared.check_open()?;
        check_not_system(name)?;
        let tags: Vec<Arc<str>> = schema.tags().cloned().collect();
        let fields: Vec<(Arc<str>, FieldType)> = schema.fields().map(|(name, t)| (Arc::clone(name), t)).collect();
        options.check()?;
        let schema = grown(&TableSchema::new(&[], &[]), &tags, &fields)?;
        let empty = TableSchema::new(&[], &[]);
        let schema = schema.unwrap_or(empty);
        Ok(self.shared.catalog.create(name, &schema, options)?.1)
    }

    /// Adds columns to a table; false if it has them all. Durable when it returns.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if there is no such table, a column exists as something else, a name breaks a rule, or
    /// there would be too many columns; then none is added.
    pub fn add_columns(
        &self,
        name: &TableName,
        tags: &[Arc<str>],
        fields: &[(Arc<str>, FieldType)],
    ) -> Result<bool, StorageError> {
        self.shared.check_open()?;
        let table = self.alterable(name)?;
        table.until_first(|| {
            let mut log = table.log.lock().expect("no holder of this lock panics");
            let Some(schema) = grown(&table.schema(), tags, fields)? else { return Ok(false) };
            table.commit_schema(&mut log, schema)?;
            Ok(true)
        })
    }

    /// Gives the field `column` the type `to`, in every shard that has it; false if it has that type already. Blocks
    /// while shards are rewritten; the table is written and read meanwhile, but for a short time at the end.
    ///
    /// # Errors
    /// Nothing is changed after any. [`StorageError::Invalid`] if there is no such column, the types have nothing to do
    /// with each other, a stored value is no number of the new type (it names the row's time), or more shards than
    /// `alter_bytes_max` would be rewritten.
    pub fn alter_column(&self, name: &TableName, column: &str, to: FieldType) -> Result<bool, StorageError> {
        self.shared.check_open()?;
        let table = self.alterable(name)?;
        if table.context.is_common() {
            let message = format!(
                "the type of a column of {name} cannot be changed while several nodes share its folder; add a column"
            );
            return Err(StorageError::Invalid(message));
        }
        let _turn = table.altering.turn(ALTER_WAIT)?;
        let budget = Budget { bytes_max: self.config.alter_bytes_max, option: "alter_bytes_max" };
        self.change_type(&table, column, to, budget)
    }

    /// Widens columns of whole numbers for which `batches` bring floats, where the budget allows.
    pub(crate) fn widen_for(&self, batches: &[TableBatch], limit: TimeLimit) -> Result<(), StorageError> {
        for batch in batches {
            let Some(table) = self.shared.catalog.get(&batch.table) else { continue };
            if table.context.is_common() {
                // Types do not change among several nodes: the rows with floats are refused.
                continue;
            }
            for column in columns_to_widen(&table.schema(), batch, limit) {
                self.widen(&table, column)?;
            }
        }
        Ok(())
    }

    fn widen(&self, table: &Arc<Table>, column: &str) -> Result<(), StorageError> {
        let is_given_up = || table.altering.state().not_widened.contains(column);
        if is_given_up() {
            return Ok(());
        }
        let _turn = table.altering.turn(WIDEN_WAIT)?;
        let is_wide = || !table.schema().column(column).is_some_and(|c| is_whole(c.kind));
        // Somebody else may have done it, or found that it cannot be.
        if is_given_up() || is_wide() {
            return Ok(());
        }
        let budget = Budget { bytes_max: self.config.widen_bytes_max, option: "widen_bytes_max" };
        match self.change_type(table, column, FieldType::F64, budget) {
            Ok(_) => {
                tracing::info!(table = %table.name, column, "a float came: the column of whole numbers is one of floats now");
                Ok(())
            }
            Err(StorageError::Invalid(reason)) => {
                tracing::warn!(table = %table.name, column, reason, "a float came for a column of whole numbers; it is refused");
                table.altering.state().not_widened.insert(column.into());
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// A table whose columns may be changed.
    fn alterable(&self, name: &TableName) -> Result<Arc<Table>, StorageError> {
        check_not_system(name)?;
        let table = self.shared.catalog.find(name)?;
        table.ok_or_else(|| StorageError::Invalid(format!("there is no table {name}")))
    }

    /// See the module. The caller has its turn.
    fn change_type(
        &self,
        table: &Arc<Table>,
        column: &str,
        to: FieldType,
        budget: Budget,
    ) -> Result<bool, StorageError> {
        let Some(from) = field_type(&*table.schema_for_writes()?, column)? else {
            return Err(StorageError::Invalid(format!("table {} has no column {column:?}", table.name)));
        };
        if from == to {
            return Ok(false);
        }
        if !may_become(from, to) {
            let message = format!("column {column:?} is {from} and cannot become {to}");
            return Err(StorageError::Invalid(message));
        }
        // While new shards are in no version yet, vacuum must not look for what no version names: a disk's or a store's clock
        // may be behind ours.
        let _compacting = table.compacting.lock().expect("no holder of this lock panics");
        let change = Change { table, column, from, to, budget };
        // Files that no commit names are removed when this goes.
        let mut rewritten = Rewritten { change: &change, shards: HashMap::new(), is_committed: false };
        change.check_budget(&change.shards())?;
        for _ in 0..OPEN_ROUNDS {
            // First: what was corrected in memory must not be in the way because of what it was.
            self.shared.flush(table, Settling::Everything)?;
            rewritten.catch_up()?;
        }

        let _flushing = table.flushing.lock().expect("no holder of this lock panics");
        let closed = self.shared.gate.close(&table.name, CLOSE_WAIT).ok_or(StorageError::Busy {
            reason: "requests for the table do not end, so the type of its column cannot be changed".into(),
            retry_after: Duration::from_secs(5),
        })?;
        // A record that failed may be found in the log at the next start.
        self.shared.check_open()?;
        let applied = || self.shared.applied.load(Ordering::SeqCst);
        table.flush_now(&applied, Settling::Everything)?;
        rewritten.catch_up()?;
        let to = applied();
        rewritten.commit(to)?;
        rewritten.swap(to);
        table.altering.state().not_widened.remove(column);
        drop(closed);
        Ok(true)
    }
}

/// One change of one column.
struct Change<'a> {
    table: &'a Arc<Table>,
    column: &'a str,
    from: FieldType,
    to: FieldType,
    budget: Budget,
}

/// Shards in the new type.
struct Rewritten<'a> {
    change: &'a Change<'a>,
    /// By path: the old one, and the new one in its place.
    shards: HashMap<String, (Arc<Shard>, Add, Arc<ShardIndex>, u64)>,
    is_committed: bool,
}

impl Rewritten<'_> {
    /// Rewrites the shards that are there and were not before; forgets those that are there no longer.
    fn catch_up(&mut self) -> Result<(), StorageError> {
        let present = self.change.shards();
        self.change.check_budget(&present)?;
        let paths: HashSet<&str> = present.iter().map(|shard| shard.path.as_str()).collect();
        let gone: Vec<String> = self.shards.keys().filter(|path| !paths.contains(path.as_str())).cloned().collect();
        for path in gone {
            if let Some((_, add, ..)) = self.shards.remove(&path) {
                self.discard(&add);
            }
        }
        for shard in present {
            if !self.shards.contains_key(&shard.path) {
                let (add, index, rows) = self.change.rewrite(&shard)?;
                self.shards.insert(shard.path.clone(), (shard, add, index, rows));
            }
        }
        Ok(())
    }

    /// The schema and the shards in one version, which says that nothing below `applied` is needed from the log.
    fn commit(&mut self, applied: u64) -> Result<i64, StorageError> {
        let Change { table, column, to, .. } = *self.change;
        let context = &table.context;
        let now_ms = context.now_ms();
        let mut log = table.log.lock().expect("no holder of this lock panics");
        if log.is_uncertain() {
            return Err(StorageError::Poisoned);
        }
        table.check_live()?;
        let schema = {
            let state = table.state();
            if state.partitions.values().any(|p| p.live.is_some() || p.sealed.is_some()) {
                let reason = "rows of the table still wait to be flushed, so the type of its column cannot be changed";
                return Err(StorageError::Busy { reason: reason.into(), retry_after: Duration::from_secs(5) });
            }
            with_type(&state.schema, column, to)
        };
        let id = Uuid::from_bytes(table.id.0);
        let mut actions = vec![
            commit_info(context, "CHANGE COLUMN"),
            Action::MetaData(metadata(id, &table.name, &schema, &table.properties())),
            Action::Txn(Txn {
                app_id: context.app_id(),
                version: i64::try_from(applied).expect("a log is shorter than 8 EiB"),
                last_updated: Some(now_ms),
            }),
        ];
        let prefix = format!("{}/", table.prefix);
        for (old, new, ..) in self.shards.values() {
            actions.push(Action::Remove(Remove {
                path: old.path.strip_prefix(&prefix).expect("a shard of this table").to_owned(),
                deletion_timestamp: Some(now_ms),
                data_change: true,
                extended_file_metadata: Some(true),
                partition_values: Some(new.partition_values.clone()),
                size: i64::try_from(old.bytes).ok(),
            }));
        }
        actions.extend(self.shards.values().map(|(_, add, ..)| Action::Add(add.clone())));
        let committed = log.commit(&actions);
        if log.is_uncertain() && !matches!(committed, Err(StorageError::Busy { .. })) {
            // It may stand and name these files. Rows of either type may be wrong until a restart tells which is right.
            self.is_committed = true;
            table.state().is_in_doubt = true;
        }
        committed
    }

    /// Shows what was committed to queries.
    fn swap(&mut self, applied: u64) {
        self.is_committed = true;
        let Change { table, column, to, .. } = *self.change;
        let _resolving = table.resolving.lock().expect("no holder of this lock panics");
        let mut state = table.state();
        state.schema = Arc::new(with_type(&state.schema, column, to));
        state.flushed = applied;
        let mut days = BTreeSet::new();
        for (old, add, index, _) in self.shards.values() {
            let shard = shard_from_add(&table.context.shards, &table.prefix, add)
                .expect("an add that was just made reads back");
            table.context.indexes.put(&shard.path, Arc::clone(index));
            table.context.indexes.forget(&old.path);
            let partition = state.partitions.get_mut(&old.day).expect("the table is closed, so the shard is there");
            let place = partition.shards.iter().position(|s| s.path == old.path);
            partition.shards[place.expect("the table is closed, so the shard is there")] = Arc::new(shard);
            days.insert(old.day);
        }
        for day in days {
            state.partitions.get_mut(&day).expect("seen above").below_version += 1;
        }
    }

    /// Best effort: nothing refers to it.
    fn discard(&self, add: &Add) {
        let table = self.change.table;
        let _ = table.context.disk.remove_file(&table.dir.join(&add.path));
    }
}

impl Drop for Rewritten<'_> {
    fn drop(&mut self) {
        if !self.is_committed {
            self.shards.values().for_each(|(_, add, ..)| self.discard(add));
        }
    }
}

impl Change<'_> {
    /// Those that have the column, if only without a value.
    fn shards(&self) -> Vec<Arc<Shard>> {
        let state = self.table.state();
        let has_column = |shard: &&Arc<Shard>| shard.columns.iter().any(|(name, _)| **name == *self.column);
        state.partitions.values().flat_map(|p| &p.shards).filter(has_column).cloned().collect()
    }

    fn check_budget(&self, shards: &[Arc<Shard>]) -> Result<(), StorageError> {
        let Change { table, column, to, budget: Budget { bytes_max, option }, .. } = self;
        let bytes: u64 = shards.iter().map(|shard| shard.bytes).sum();
        if bytes <= *bytes_max {
            return Ok(());
        }
        Err(StorageError::Invalid(format!(
            "to make column {column:?} of table {} {to} would rewrite {bytes} bytes of shards, and at most {bytes_max} \
             may be ([storage] {option})",
            table.name
        )))
    }

    /// Copies a shard, the column in its new type.
    fn rewrite(&self, shard: &Arc<Shard>) -> Result<(Add, Arc<ShardIndex>, u64), StorageError> {
        let table = self.table;
        let old = Arc::clone(&table.state().schema);
        let new = Arc::new(with_type(&old, self.column, self.to));
        let (path, mut writer) = table.start_shard(shard.day, &new, shard.rows)?;
        let written = self.copy(shard, &old, &new, &mut writer);
        let range = (shard.position_min.to_string(), shard.position_max.to_string());
        let finished =
            written.and_then(|()| table.finish_shard(shard.day, &path, writer, range, &mut Flushed::default()));
        match finished {
            Ok((add, index)) => Ok((add, index, shard.rows)),
            Err(e) => {
                let _ = table.context.disk.remove_file(&table.dir.join(&path));
                Err(e)
            }
        }
    }

    /// Writes the rows of a shard, the column in its new type.
    fn copy(
        &self,
        shard: &Arc<Shard>,
        old: &Arc<TableSchema>,
        new: &Arc<TableSchema>,
        writer: &mut ShardWriter,
    ) -> Result<(), StorageError> {
        let context = &self.table.context;
        let place = old.columns().iter().position(|c| *c.name == *self.column).expect("columns do not go");
        let reader = ShardReader { disk: &*context.disk, root: &context.tables_dir };
        for batch in reader.stream(Arc::clone(shard), Arc::clone(old), STREAM_ROWS)? {
            let batch = batch?;
            let mut columns = batch.columns().to_vec();
            columns[place] = convert_array(&batch.column(place), self.from, self.to).map_err(|row| {
                let times = time_column(&batch).expect("every table has a time");
                let value = crate::columns::value_at(&**batch.column(place), self.from, row);
                StorageError::Invalid(format!(
                    "column {:?} of table {} cannot become {}: its value {} at time {} µs would be another number; \
                     correct or delete it first",
                    self.column,
                    self.table.name,
                    self.to,
                    value.map_or_else(String::new, shown),
                    times.value(row),
                ))
            })?;
            writer.write(&RecordBatch::try_new(Arc::clone(new.arrow()), columns).expect("columns of that schema"))?;
        }
        Ok(())
    }
}

/// The fields of `batch` that bring floats, in rows whose time is stored, for columns of whole numbers.
fn columns_to_widen<'a>(schema: &TableSchema, batch: &'a TableBatch, limit: TimeLimit) -> Vec<&'a str> {
    let brings = |field: &&model::FieldColumn| {
        field.values.field_type() == FieldType::F64
            && schema.column(&field.name).is_some_and(|column| is_whole(column.kind))
            && (0..batch.len()).any(|row| field.valid.get(row) && limit.allows(batch.times_us[row]))
    };
    batch.fields.iter().filter(brings).map(|field| &*field.name).collect()
}

fn is_whole(kind: ColumnKind) -> bool {
    matches!(kind, ColumnKind::Field(FieldType::I64 | FieldType::U64))
}

/// Which types a column may be given. That each value is held exactly is looked at when it is rewritten.
fn may_become(from: FieldType, to: FieldType) -> bool {
    use FieldType::{Decimal, F64, I64, U64};
    match (from, to) {
        (I64 | U64 | Decimal { .. }, F64) | (I64 | U64 | F64, Decimal { .. }) => true,
        (Decimal { scale: from, .. }, Decimal { scale: to, .. }) => to >= from,
        _ => false,
    }
}

fn field_type(schema: &TableSchema, column: &str) -> Result<Option<FieldType>, StorageError> {
    match schema.column(column).map(|column| column.kind) {
        None => Ok(None),
        Some(ColumnKind::Field(field_type)) => Ok(Some(field_type)),
        Some(ColumnKind::Tag | ColumnKind::Time) => {
            Err(StorageError::Invalid(format!("column {column:?} is no field; only fields can change their type")))
        }
    }
}

/// `schema` with another type for a field.
fn with_type(schema: &TableSchema, column: &str, to: FieldType) -> TableSchema {
    let tags: Vec<Arc<str>> = schema.tags().cloned().collect();
    let changed = |name: &str, field_type| if name == column { to } else { field_type };
    let fields: Vec<(Arc<str>, FieldType)> =
        schema.fields().map(|(name, t)| (Arc::clone(name), changed(name, t))).collect();
    TableSchema::new(&tags, &fields)
}

/// `schema` with these columns as well; `None` if it has them.
fn grown(
    schema: &TableSchema,
    new_tags: &[Arc<str>],
    new_fields: &[(Arc<str>, FieldType)],
) -> Result<Option<TableSchema>, StorageError> {
    let mut tags: Vec<Arc<str>> = schema.tags().cloned().collect();
    let mut fields: Vec<(Arc<str>, FieldType)> = schema.fields().map(|(name, t)| (Arc::clone(name), t)).collect();
    let before = tags.len() + fields.len();
    // Delta's readers do not tell names apart by case, so neither may a table.
    let mut known: HashMap<String, (Arc<str>, ColumnKind)> =
        schema.columns().iter().map(|c| (c.name.to_lowercase(), (Arc::clone(&c.name), c.kind))).collect();
    // Reserved, which is said below.
    known.remove("time");
    let invalid = |message: String| Err(StorageError::Invalid(message));
    let wanted = new_tags.iter().map(|name| (name, ColumnKind::Tag));
    let wanted = wanted.chain(new_fields.iter().map(|(name, t)| (name, ColumnKind::Field(*t))));
    for (name, kind) in wanted {
        if let ColumnKind::Field(FieldType::Decimal { digits, scale }) = kind
            && (scale > digits || !(1..=decimal::DIGITS_MAX).contains(&digits))
        {
            let most = decimal::DIGITS_MAX;
            return invalid(format!(
                "column {name:?}: a decimal has 1 to {most} digits, and at most as many behind the point"
            ));
        }
        match known.insert(name.to_lowercase(), (Arc::clone(name), kind)) {
            Some((other, as_kind)) if other == *name && as_kind == kind => continue,
            Some((other, _)) if other == *name => {
                return invalid(format!("column {name:?} exists as something else, or is named twice"));
            }
            Some((other, _)) => {
                return invalid(format!("column {name:?} differs only by case from {other:?}; use that name"));
            }
            None => {}
        }
        let what = if kind == ColumnKind::Tag { "tag" } else { "field" };
        check_column_name(what, name).map_err(|e| StorageError::Invalid(e.to_string()))?;
        match kind {
            ColumnKind::Tag => tags.push(Arc::clone(name)),
            ColumnKind::Field(field_type) => fields.push((Arc::clone(name), field_type)),
            ColumnKind::Time => unreachable!("a new column is a tag or a field"),
        }
        if tags.len() + fields.len() > COLUMNS_MAX {
            return invalid(format!("column {name:?} would be one too many: a table has at most {COLUMNS_MAX}"));
        }
    }
    Ok((tags.len() + fields.len() > before).then(|| TableSchema::new(&tags, &fields)))
}

fn check_not_system(name: &TableName) -> Result<(), StorageError> {
    if *name.schema == *SYSTEM {
        return Err(StorageError::Invalid(format!(
            "the tables of schema {SYSTEM:?} are the server's own; leave {name}"
        )));
    }
    Ok(())
}

pub(crate) fn shown(value: model::Value<'_>) -> String {
    use model::Value;
    match value {
        Value::F64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::Text(v) => format!("{v:?}"),
        Value::Decimal { units, scale } => decimal::Decimal { units, scale }.to_string(),
    }
}

/// A batch from the log in the types that the table has: rows of another type than the table's are there only if
/// somebody else changed its Delta log.
///
/// # Errors
/// Says which value the table's type does not hold.
pub(crate) fn in_types_of(schema: &TableSchema, mut batch: TableBatch) -> Result<TableBatch, String> {
    for field in &mut batch.fields {
        let Some(ColumnKind::Field(wanted)) = schema.column(&field.name).map(|column| column.kind) else { continue };
        if field.values.field_type() == wanted {
            continue;
        }
        field.values = convert_values(&field.values, &field.valid, wanted).map_err(|row| {
            format!(
                "a row of table {} at time {} µs has {} for column {:?}, which its Delta log says is {wanted}",
                batch.table,
                batch.times_us[row],
                shown(field.values.get(row)),
                field.name,
            )
        })?;
    }
    Ok(batch)
}

/// The statement that gives a column another type.
pub(crate) fn alter_statement(table: &TableName, column: &str, to: FieldType) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let schema = if *table.schema == *model::name::PUBLIC { String::new() } else { quoted(&table.schema) + "." };
    format!("ALTER TABLE {schema}{} ALTER COLUMN {} TYPE {}", quoted(&table.table), quoted(column), sql_type(to))
}
