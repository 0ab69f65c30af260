//! The [`Disk`] as an `object_store`, so that queries and deltalake's checkpoints go through the same one.
//!
//! Owns:     mapping locations to files below one folder; verifying what is read of shards (P11); making each put whole
//!           and durable (P5).
//! Does not: write shards or commits: those are written directly on the disk by `shard::write` and `delta`.
//!
//! A put is written beside its name, synced, renamed and its directory synced before it returns, which
//! object_store's own local store never does.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use wal::disk::{self, EntryKind, FileInfo, Replace, SharedDisk};

use crate::delta::checkpoint_sum;
use crate::shard::{KnownShards, ReadError, ShardFile};

/// Ranges of up to this many bytes together are read where they are asked for.
const INLINE_READ_BYTES_MAX: u64 = 1 << 20;

/// Objects are the files below `root`.
#[derive(Clone, Debug)]
pub(crate) struct DiskStore {
    disk: SharedDisk,
    root: Arc<PathBuf>,
    shards: Arc<KnownShards>,
}

impl DiskStore {
    pub(crate) fn new(disk: SharedDisk, root: PathBuf, shards: Arc<KnownShards>) -> Self {
        DiskStore { disk, root: Arc::new(root), shards }
    }

    fn path(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }

    /// Runs disk work where it may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let store = self.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(move || work(&store)).await?,
            Err(_) => work(&store),
        }
    }

    fn meta(&self, location: &Path) -> Result<ObjectMeta> {
        let info = self.disk.info(&self.path(location)).map_err(|e| error(location, e))?;
        if info.kind == EntryKind::Directory {
            return Err(error(location, io::ErrorKind::NotFound.into()));
        }
        Ok(object_meta(location.clone(), info))
    }

    fn read(&self, location: &Path, range: Range<u64>) -> Result<Bytes> {
        Ok(self.read_ranges(location, std::slice::from_ref(&range))?.into_iter().next().unwrap_or_default())
    }

    /// The bytes of each range; those of a shard are verified (P11).
    fn read_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let checksums = self.shards.checksums(location.as_ref());
        let read = ShardFile::open(&*self.disk, &self.path(location), location.as_ref(), checksums)
            .and_then(|file| file.read_ranges(ranges));
        read.map_err(|e| match e {
            ReadError::Io(e) => error(location, e),
            ReadError::Damaged(damage) => {
                self.shards.note(&damage);
                generic(Box::new(damage))
            }
        })
    }

    fn put(&self, location: &Path, bytes: &[u8], replace: Replace) -> Result<PutResult> {
        let path = self.path(location);
        let parent = path.parent().ok_or_else(|| error(location, io::ErrorKind::InvalidInput.into()))?;
        disk::create_dir_all(&*self.disk, parent).map_err(|e| error(location, e))?;
        let beside = checkpoint_sum::beside(&path);
        if let Some(beside) = &beside {
            // In the place of an older one: until the new checksum is there the checkpoint has none, never a wrong one.
            match self.disk.remove_file(beside) {
                Ok(()) => self.disk.sync_dir(parent).map_err(|e| error(location, e))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(error(location, e)),
            }
        }
        disk::write_whole(&*self.disk, &path, bytes, replace).map_err(|e| error(location, e))?;
        if let Some(beside) = &beside {
            let content = checkpoint_sum::content(bytes);
            disk::write_whole(&*self.disk, beside, &content, Replace::Yes).map_err(|e| error(location, e))?;
        }
        Ok(PutResult { e_tag: None, version: None })
    }

    fn list_below(&self, prefix: &Path, deep: bool) -> Result<ListResult> {
        let mut found = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        let mut folders = vec![prefix.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match self.disk.list_with_info(&self.path(&folder)) {
                Ok(entries) => entries,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(e) => return Err(error(&folder, e)),
            };
            for (entry, info) in entries {
                // Names that begin with a dot are files on their way to their names.
                if entry.name.starts_with('.') {
                    continue;
                }
                let text = if folder.as_ref().is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
                let location = Path::parse(text)?;
                match entry.kind {
                    EntryKind::Directory if deep => folders.push(location),
                    EntryKind::Directory => found.common_prefixes.push(location),
                    EntryKind::File => found.objects.push(object_meta(location, info)),
                }
            }
        }
        found.objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }
}

fn object_meta(location: Path, info: FileInfo) -> ObjectMeta {
    ObjectMeta { location, last_modified: chrono_utc(info.modified_us), size: info.len, e_tag: None, version: None }
}

/// `object_store` speaks chrono; its `DateTime<Utc>` comes from there.
fn chrono_utc(us: i64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(us).unwrap_or_default()
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: "eden disk", source }
}

fn error(location: &Path, source: io::Error) -> Error {
    let path = location.to_string();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { path, source: source.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => generic(format!("{path}: {source}").into()),
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdenDisk({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DiskStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let replace = match opts.mode {
            PutMode::Overwrite => Replace::Yes,
            PutMode::Create => Replace::No,
            PutMode::Update(_) => {
                return Err(Error::NotSupported { source: "a disk has no conditional update".into() });
            }
        };
        let location = location.clone();
        self.blocking(move |store| store.put(&location, &Bytes::from(payload), replace)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let location = location.clone();
        self.blocking(move |store| {
            let meta = store.meta(&location)?;
            options.check_preconditions(&meta)?;
            let range = match &options.range {
                Some(range) => range.as_range(meta.size).map_err(|e| generic(e.into()))?,
                None => 0..meta.size,
            };
            let bytes = if options.head { Bytes::new() } else { store.read(&location, range.clone())? };
            let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
            Ok(GetResult { payload, meta, range, attributes: Attributes::new() })
        })
        .await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // A page-cached read takes less than handing it to another thread and back. Queries have threads of their own,
        // so a disk that has to seek makes only queries wait.
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if bytes <= INLINE_READ_BYTES_MAX && !self.disk.is_remote() {
            return self.read_ranges(location, ranges);
        }
        let (location, ranges) = (location.clone(), ranges.to_vec());
        self.blocking(move |store| store.read_ranges(&location, &ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let gone = location.clone();
                    let remove = move |store: &DiskStore| {
                        let path = store.path(&gone);
                        store.disk.remove_file(&path).map_err(|e| error(&gone, e))?;
                        store.shards.forget(gone.as_ref());
                        path.parent().map_or(Ok(()), |dir| store.disk.sync_dir(dir)).map_err(|e| error(&gone, e))
                    };
                    store.blocking(remove).await.map(|()| location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move { store.blocking(move |store| store.list_below(&prefix, true)).await };
        stream::once(listed)
            .flat_map(|listed| match listed {
                Ok(found) => stream::iter(found.objects.into_iter().map(Ok)).boxed(),
                Err(e) => stream::once(async { Err(e) }).boxed(),
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.blocking(move |store| store.list_below(&prefix, false)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let replace = match options.mode {
            CopyMode::Overwrite => Replace::Yes,
            CopyMode::Create => Replace::No,
        };
        let (from, to) = (from.clone(), to.clone());
        self.blocking(move |store| {
            let meta = store.meta(&from)?;
            let bytes = store.read(&from, 0..meta.size)?;
            store.put(&to, &bytes, replace).map(|_| ())
        })
        .await
    }
}

/// Parts are kept until the upload is complete, then put whole: only checkpoints come this way.
#[derive(Debug)]
struct Upload {
    store: DiskStore,
    location: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        Box::pin(async { Ok(()) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let bytes: Vec<u8> = self.parts.iter().flat_map(|part| part.iter()).flatten().copied().collect();
        let location = self.location.clone();
        self.store.blocking(move |store| store.put(&location, &bytes, Replace::Yes)).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
