//! Opens storages, writes readings in a line or two, and reads tables back the way any Parquet reader would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use model::{Clock, SeriesKey, SplitMix64, SystemClock, TableBatch, TableName, Value};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use storage::{ColumnKind, Disks, Storage, StorageConfig, StorageError, TableSnapshot, Tables};
use wal::disk::{LocalDisk, SharedDisk};

use crate::fault_store::FaultStore;

/// 2026-06-01T00:00:00Z.
pub(crate) const START_US: i64 = 1_780_272_000_000_000;

/// Rows by (series, time): field → value as text.
pub(crate) type Rows = BTreeMap<(String, i64), BTreeMap<String, String>>;

/// A data folder with a storage in it.
pub(crate) struct World {
    pub(crate) disk: SharedDisk,
    pub(crate) config: StorageConfig,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where the tables are; `None` for the data folder.
    pub(crate) tables: Option<Tables>,
    seed: u64,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    /// On a real disk.
    pub(crate) fn local() -> World {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        World { _folder: Some(folder), ..World::on(Arc::new(LocalDisk::new()), data) }
    }

    /// On any disk.
    pub(crate) fn on(disk: SharedDisk, data: PathBuf) -> World {
        let mut config = StorageConfig::new(data);
        config.log_segment_bytes = 256 << 10;
        // Tests that look at it turn it on: it reads at moments of its own.
        config.scrub_bytes_per_second = 0;
        World { disk, config, clock: Arc::new(SystemClock::new()), tables: None, seed: 1, _folder: None }
    }

    /// The seed of everything the storage draws; no two lives of one folder may share it.
    pub(crate) fn with_seed(mut self, seed: u64) -> World {
        self.seed = seed;
        self
    }

    /// With the tables in an object store.
    pub(crate) fn with_tables_in(self, store: &FaultStore) -> World {
        World { tables: Some(store.tables()), ..self }
    }

    /// With a clock that stands still, at `now_us` after [`START_US`], until it is told otherwise.
    pub(crate) fn with_test_clock(mut self, now_us: i64) -> (World, Arc<TestClock>) {
        let clock = Arc::new(TestClock { wall_us: AtomicI64::new(START_US + now_us), passed_us: AtomicI64::new(0) });
        self.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        (self, clock)
    }

    pub(crate) fn open(&self) -> Arc<Storage> {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Arc<Storage>, StorageError> {
        let rng = Arc::new(SplitMix64::new(self.seed));
        let disks = Disks { data: Arc::clone(&self.disk), tables: self.tables.clone() };
        Storage::open(self.config.clone(), disks, Arc::clone(&self.clock), rng, &|_| {})
    }

    /// As the next process would open it.
    pub(crate) fn reopen(&mut self) -> Arc<Storage> {
        self.seed += 1;
        self.open()
    }

    pub(crate) fn table_dir(&self, table: &str) -> PathBuf {
        self.config.data.join("tables/public").join(table)
    }
}

/// A clock that tests move.
#[derive(Debug)]
pub(crate) struct TestClock {
    wall_us: AtomicI64,
    passed_us: AtomicI64,
}

impl TestClock {
    /// Time passes.
    pub(crate) fn pass(&self, time: Duration) {
        self.jump(time.as_micros() as i64);
        self.passed_us.fetch_add(time.as_micros() as i64, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock.
    pub(crate) fn jump(&self, by_us: i64) {
        self.wall_us.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.wall_us.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.passed_us.load(Ordering::SeqCst) as u64)
    }
}

/// One reading of table `t` with tag `s`: `(series, time µs after START, [(field, value)])`.
pub(crate) type Reading<'a> = (&'a str, i64, &'a [(&'a str, Value<'a>)]);

/// A batch of readings.
pub(crate) fn batch(table: &str, readings: &[Reading<'_>]) -> TableBatch {
    let mut batch = TableBatch::new(TableName::public(table));
    for (line, (series, time_us, fields)) in (1..).zip(readings) {
        let columns: Vec<(usize, Value<'_>)> =
            fields.iter().map(|(name, value)| (batch.field_column(name, value.field_type()), *value)).collect();
        let series = batch.intern_series(SeriesKey::from_tags([("s", *series)]));
        batch.push_row(series, START_US + time_us, line, &columns);
    }
    batch
}

/// Writes readings and waits until they are durable.
pub(crate) fn write(storage: &Storage, table: &str, readings: &[Reading<'_>]) {
    let pending = storage.write(vec![batch(table, readings)], "test").unwrap();
    assert_eq!(pending.rejected, []);
    pending.wait().unwrap();
}

/// Everything a query would see of a table, read from shards without our own reader. Panics if a key is there twice.
pub(crate) fn read(storage: &Storage, table: &str) -> Rows {
    let snapshot = storage.snapshot(&TableName::public(table)).unwrap().unwrap();
    read_snapshot(storage, &snapshot)
}

pub(crate) fn read_snapshot(storage: &Storage, snapshot: &TableSnapshot) -> Rows {
    try_read_snapshot(storage, snapshot).unwrap()
}

/// As [`read_snapshot`], where a shard may be damaged.
pub(crate) fn try_read_snapshot(storage: &Storage, snapshot: &TableSnapshot) -> Result<Rows, String> {
    let mut rows = Rows::new();
    let store = storage.object_store();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for view in &snapshot.shards {
        let location = object_store::path::Path::parse(&view.shard.path).unwrap();
        let bytes = runtime.block_on(async {
            let got = store.get(&location).await.map_err(|e| e.to_string())?;
            got.bytes().await.map_err(|e| e.to_string())
        })?;
        let failed = |e: &dyn std::fmt::Display| format!("{location}: {e}");
        let mut ordinal = 0_u32;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(ParquetRecordBatchReaderBuilder::build);
        for batch in reader.map_err(|e| failed(&e))? {
            let batch = batch.map_err(|e| failed(&e))?;
            let keep = |row: usize| view.masked.binary_search(&(ordinal + row as u32)).is_err();
            add_rows(&mut rows, &batch, snapshot, keep);
            ordinal += batch.num_rows() as u32;
        }
        assert_eq!(u64::from(ordinal), view.shard.rows);
    }
    for batch in &snapshot.rows.batches() {
        add_rows(&mut rows, batch, snapshot, |_| true);
    }
    Ok(rows)
}

/// The keys of a table's only shard in the order of its rows.
pub(crate) fn in_file_order(storage: &Storage, table: &str) -> Vec<(String, i64)> {
    let snapshot = storage.snapshot(&TableName::public(table)).unwrap().unwrap();
    let [view] = &snapshot.shards[..] else { panic!("{} shards", snapshot.shards.len()) };
    let rows = view.shard.rows as u32;
    let only = |row: u32| (0..rows).filter(|other| *other != row).collect::<Vec<u32>>();
    let mut keys = Vec::new();
    for row in 0..rows {
        let mut one = snapshot.clone();
        one.shards[0].masked = only(row).into();
        keys.extend(read_snapshot(storage, &one).into_keys());
    }
    keys
}

fn add_rows(rows: &mut Rows, batch: &RecordBatch, snapshot: &TableSnapshot, keep: impl Fn(usize) -> bool) {
    let times = batch.column_by_name("time").unwrap().as_primitive::<TimestampMicrosecondType>();
    for row in (0..batch.num_rows()).filter(|row| keep(*row)) {
        let (mut series, mut fields) = (String::new(), BTreeMap::new());
        for column in snapshot.schema.columns() {
            let Some(array) = batch.column_by_name(&column.name).filter(|array| array.is_valid(row)) else { continue };
            match column.kind {
                ColumnKind::Tag => series += &format!("{}={},", column.name, text(array, row)),
                ColumnKind::Field(_) => {
                    fields.insert(column.name.to_string(), text(array, row));
                }
                ColumnKind::Time => {}
            }
        }
        let key = (series.trim_end_matches(',').to_owned(), times.value(row) - START_US);
        let twice = rows.insert(key.clone(), fields);
        assert!(twice.is_none(), "key {key:?} is there twice");
    }
}

fn text(array: &dyn Array, row: usize) -> String {
    match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        _ => array_value_to_string(array, row).unwrap(),
    }
}

/// Lists files below `dir` that end in `suffix`, on a real disk.
pub(crate) fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
