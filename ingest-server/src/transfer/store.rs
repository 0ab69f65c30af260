//! Files in an object store, as import and export read and write them.
//!
//! Owns:     what `s3://BUCKET/KEY` means here, and the bytes of an object as a reader and a writer.
//! Does not: make requests: the disk of objects is `storage`'s, with its patience and its parts.
//!
//! Invariant: an object appears whole when its writer is finished, or not at all.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::{Clock, SystemClock};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use storage::Tables;
use wal::disk::{DiskFile, SharedDisk, read_exact_at};

use crate::failure::Failure;

/// The disk and the path on it that `path` names; `None` if it is a file of this machine.
///
/// # Errors
/// If it names something else, or no store can be made of it.
pub(crate) fn place(path: &Path) -> Result<Option<(SharedDisk, PathBuf)>, Failure> {
    let text = path.to_string_lossy();
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
    if scheme != "s3" {
        return Err(Failure::usage(format!("{text}: there is no {scheme}://; name a file, or s3://BUCKET/KEY")));
    }
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let root = format!("s3://{bucket}");
    let bucket = Tables::in_bucket(&root, &clock).map_err(Failure::usage)?;
    Ok(Some((Arc::clone(bucket.disk()), PathBuf::from(root).join(key))))
}

/// An object that is read.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    file: Arc<dyn DiskFile>,
    len_bytes: u64,
}

impl Object {
    /// # Errors
    /// If there is none, or the store does not give it.
    pub(crate) fn open(disk: &SharedDisk, path: &Path) -> io::Result<Object> {
        let file: Arc<dyn DiskFile> = disk.open_read(path)?.into();
        let len_bytes = file.len()?;
        Ok(Object { file, len_bytes })
    }

    /// Its bytes from `at` on.
    pub(crate) fn read_from(&self, at: u64) -> ObjectBytes {
        ObjectBytes { object: self.clone(), at }
    }
}

/// See [`Object::read_from`].
#[derive(Debug)]
pub(crate) struct ObjectBytes {
    object: Object,
    at: u64,
}

impl Read for ObjectBytes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.object.file.read_at(into, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Length for Object {
    fn len(&self) -> u64 {
        self.len_bytes
    }
}

impl ChunkReader for Object {
    type T = BufReader<ObjectBytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(self.read_from(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        read_exact_at(&*self.file, &mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// An object that is written.
#[derive(Debug)]
pub(crate) struct NewObject {
    file: Box<dyn DiskFile>,
    len_bytes: u64,
}

impl NewObject {
    /// # Errors
    /// If there can be no such object.
    pub(crate) fn create(disk: &SharedDisk, path: &Path) -> io::Result<NewObject> {
        Ok(NewObject { file: disk.create_new(path)?, len_bytes: 0 })
    }

    /// Makes it the object of its name.
    ///
    /// # Errors
    /// Then there is none, or the one that was there before.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Write for NewObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.len_bytes)?;
        self.len_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
