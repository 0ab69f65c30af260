//! The files that an import reads.
//!
//! Owns:     which files a folder stands for, opening and unpacking them, how much of them is read, and whether a file
//!           is the one that it was. Paths are opened here and nowhere else in an import.
//! Does not: know what is in them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use wal::disk::{EntryKind, SharedDisk};

use super::store::{self, Object};
use super::{Format, Packing, of_name};
use crate::failure::Failure;

/// Bytes at the beginning of a file by which it is known again.
const FINGERPRINT_BYTES: u64 = 64 << 10;
/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 18;

/// A file, or standard input.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `-` is standard input.
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    packing: Packing,
    /// As it lies there; 0 of standard input.
    pub(crate) len_bytes: u64,
    /// Where it lies; `None` on this machine.
    store: Option<SharedDisk>,
}

/// What a file is known by again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) len_bytes: u64,
    pub(crate) modified_us: i64,
    /// CRC32C of its first 64 KiB.
    pub(crate) start_crc: u32,
}

impl Source {
    /// The files that `paths` mean, in order; folders with all that is in them, sorted by name.
    ///
    /// # Errors
    /// If one is missing, or nobody says what format it has.
    pub(crate) fn list(paths: &[PathBuf], format: Option<Format>) -> Result<Vec<Source>, Failure> {
        let mut sources = Vec::new();
        for path in paths {
            if is_stdin(path) {
                let format = format
                    .ok_or_else(|| Failure::usage("say with --format what standard input has: csv, jsonl or lp"))?;
                sources.push(Source { path: path.clone(), format, packing: Packing::Plain, len_bytes: 0, store: None });
            } else if let Some((disk, path)) = store::place(path)? {
                let info = disk.info(&path).map_err(|e| Failure::usage(format!("open {}: {e}", path.display())))?;
                if info.kind == EntryKind::File {
                    sources.push(Source::new(path, format, info.len, Some(disk))?);
                } else {
                    let before = sources.len();
                    list_store(&disk, &path, format, &mut sources)?;
                    check_any(&path, sources.len() > before)?;
                }
            } else if path.is_dir() {
                let before = sources.len();
                list_folder(path, format, &mut sources)?;
                check_any(path, sources.len() > before)?;
            } else {
                sources.push(Source::of_file(path.clone(), format)?);
            }
        }
        if let Some(source) = sources.iter().find(|s| s.format == Format::Parquet && s.packing != Packing::Plain) {
            return Err(Failure::usage(format!(
                "{}: Parquet is read from its end; unpack the file first",
                source.path.display()
            )));
        }
        Ok(sources)
    }

    fn of_file(path: PathBuf, format: Option<Format>) -> Result<Source, Failure> {
        let metadata = path.metadata().map_err(|e| Failure::usage(format!("open {}: {e}", path.display())))?;
        Source::new(path, format, metadata.len(), None)
    }

    fn new(
        path: PathBuf,
        format: Option<Format>,
        len_bytes: u64,
        store: Option<SharedDisk>,
    ) -> Result<Source, Failure> {
        let (named, packing) = of_name(&path);
        let Some(format) = format.or(named) else {
            return Err(Failure::usage(format!(
                "{}: its name does not say what is in it; say it with --format csv, jsonl, lp or parquet",
                path.display()
            )));
        };
        Ok(Source { path, format, packing, len_bytes, store })
    }

    pub(crate) fn is_stdin(&self) -> bool {
        is_stdin(&self.path)
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        if self.is_stdin() { "standard input".into() } else { self.path.display().to_string() }
    }

    /// Its bytes, unpacked. `done` counts those that are read of the file as it lies there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(&self, done: &Arc<AtomicU64>) -> Result<Box<dyn BufRead>, Failure> {
        if self.is_stdin() {
            return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, Counted::new(io::stdin(), done))));
        }
        let file: Box<dyn Read> = match self.object()? {
            Some(object) => Box::new(object.read_from(0)),
            None => Box::new(self.open_file()?),
        };
        let file = Counted::new(file, done);
        let cannot = |e| Failure::work(format!("unpack {}: {e}", self.path.display()));
        let reader: Box<dyn Read> = match self.packing {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(file).map_err(cannot)?),
        };
        Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, reader)))
    }

    /// The object, if it is one.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn object(&self) -> Result<Option<Object>, Failure> {
        let Some(disk) = &self.store else { return Ok(None) };
        let object = Object::open(disk, &self.path);
        object.map(Some).map_err(|e| Failure::work(format!("open {}: {e}", self.path.display())))
    }

    /// The file itself, which is no object.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open_file(&self) -> Result<File, Failure> {
        File::open(&self.path).map_err(|e| Failure::usage(format!("open {}: {e}", self.path.display())))
    }

    /// What it is known by again.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn fingerprint(&self) -> Result<Fingerprint, Failure> {
        let cannot = |e: io::Error| Failure::work(format!("read {}: {e}", self.path.display()));
        let mut start = Vec::new();
        let (len_bytes, modified_us) = match (&self.store, self.object()?) {
            (Some(disk), Some(object)) => {
                object.read_from(0).take(FINGERPRINT_BYTES).read_to_end(&mut start).map_err(cannot)?;
                let info = disk.info(&self.path).map_err(cannot)?;
                (info.len, info.modified_us)
            }
            _ => {
                let file = self.open_file()?;
                let metadata = file.metadata().map_err(cannot)?;
                let modified = metadata.modified().map_err(cannot)?.duration_since(UNIX_EPOCH).unwrap_or_default();
                file.take(FINGERPRINT_BYTES).read_to_end(&mut start).map_err(cannot)?;
                (metadata.len(), i64::try_from(modified.as_micros()).unwrap_or(i64::MAX))
            }
        };
        Ok(Fingerprint { len_bytes, modified_us, start_crc: crc32c::crc32c(&start) })
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn check_any(folder: &Path, is_any: bool) -> Result<(), Failure> {
    if is_any {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{}: no file in this folder ends with .csv, .jsonl, .ndjson, .lp or .parquet (or those with .gz or .zst); say what \
         its files are with --format",
        folder.display()
    )))
}

fn is_delta_table(folder: &Path) -> Failure {
    Failure::usage(format!(
        "{}: this is a Delta table, whose folder holds files of older versions too; let a reader of Delta write what is in \
         it now to a file of its own",
        folder.display()
    ))
}

/// What programs hide or are still writing.
fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Whether a file of a folder is meant.
fn is_meant(path: &Path, format: Option<Format>) -> bool {
    let named = of_name(path).0;
    named.or(format).is_some() && (format.is_none() || named.is_none() || named == format)
}

fn list_store(
    disk: &SharedDisk,
    folder: &Path,
    format: Option<Format>,
    sources: &mut Vec<Source>,
) -> Result<(), Failure> {
    let listed = disk.list_with_info(folder).map_err(|e| Failure::usage(format!("list {}: {e}", folder.display())))?;
    if listed.iter().any(|(entry, _)| entry.name == "_delta_log") {
        return Err(is_delta_table(folder));
    }
    for (entry, info) in listed.into_iter().filter(|(entry, _)| !is_hidden(&entry.name)) {
        let path = folder.join(&entry.name);
        if entry.kind == EntryKind::Directory {
            list_store(disk, &path, format, sources)?;
        } else if is_meant(&path, format) {
            sources.push(Source::new(path, format, info.len, Some(Arc::clone(disk)))?);
        }
    }
    Ok(())
}

fn list_folder(folder: &Path, format: Option<Format>, sources: &mut Vec<Source>) -> Result<(), Failure> {
    if folder.join("_delta_log").is_dir() {
        return Err(is_delta_table(folder));
    }
    let cannot = |e: io::Error| Failure::usage(format!("list {}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = folder
        .read_dir()
        .map_err(cannot)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(cannot)?;
    paths.sort();
    for path in paths {
        if path.file_name().is_some_and(|name| is_hidden(&name.to_string_lossy())) {
            continue;
        }
        if path.is_dir() {
            list_folder(&path, format, sources)?;
        } else if is_meant(&path, format) {
            sources.push(Source::of_file(path, format)?);
        }
    }
    Ok(())
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R> Counted<R> {
    fn new(inner: R, done: &Arc<AtomicU64>) -> Self {
        Counted { inner, done: Arc::clone(done) }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(into)?;
        self.done.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_its_files_of_known_endings_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.jsonl.gz", "note.txt", ".c.csv", "sub/d.parquet"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let list = |format| {
            let sources = Source::list(&[folder.path().to_path_buf()], format).unwrap();
            sources
                .iter()
                .map(|s| s.path.strip_prefix(folder.path()).unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(list(None), ["a.jsonl.gz", "b.csv", "sub/d.parquet"]);
        fs::create_dir(folder.path().join("sub/_delta_log")).unwrap();
        let error = Source::list(&[folder.path().to_path_buf()], None).unwrap_err();
        assert!(error.to_string().contains("this is a Delta table"), "{error}");
        let error = Source::list(&[folder.path().join("note.txt")], None).unwrap_err();
        assert!(error.to_string().contains("--format"), "{error}");
        assert!(Source::list(&["-".into()], None).is_err());
        assert!(Source::list(&["ftp://a/b.csv".into()], None).unwrap_err().to_string().contains("no ftp://"));
    }
}
