//! The file or object that an export makes, or standard output.
//!
//! Owns:     the name under which a file is written until it is whole, and packing. Paths are opened here and nowhere
//!           else in an export.
//! Does not: know what is in it.
//!
//! Invariant: a file has its name only when all of it is written and synced; one that was there before is untouched
//! until then.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Packing;
use super::store::{self, NewObject};
use crate::failure::Failure;

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// Where the bytes go.
pub(crate) struct Sink {
    packer: Packer,
    /// The file's final name and the one until then; `None` for standard output and objects.
    names: Option<(PathBuf, PathBuf)>,
    written: u64,
}

enum Packer {
    Plain(Raw),
    Gzip(GzEncoder<Raw>),
    Zstd(zstd::stream::write::Encoder<'static, Raw>),
    /// Between the end of packing and the end of the file.
    None,
}

enum Raw {
    File(BufWriter<File>),
    Object(NewObject),
    Stdout(io::Stdout),
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Raw::File(file) => file.write(bytes),
            Raw::Object(object) => object.write(bytes),
            Raw::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Raw::File(file) => file.flush(),
            Raw::Object(object) => object.flush(),
            Raw::Stdout(out) => out.flush(),
        }
    }
}

impl Sink {
    /// Opens `path`; `-` is standard output.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn open(path: &Path, packing: Packing) -> Result<Sink, Failure> {
        let (raw, names) = if path == Path::new("-") {
            (Raw::Stdout(io::stdout()), None)
        } else if let Some((disk, path)) = store::place(path)? {
            let object = NewObject::create(&disk, &path);
            (Raw::Object(object.map_err(|e| Failure::usage(format!("write {}: {e}", path.display())))?), None)
        } else {
            if path.is_dir() {
                return Err(Failure::usage(format!("{} is a folder; name a file in it", path.display())));
            }
            let mut name = std::ffi::OsString::from(".");
            name.push(path.file_name().unwrap_or_default());
            name.push(format!(".{}.part", std::process::id()));
            let part = path.with_file_name(name);
            let file = File::create(&part).map_err(|e| Failure::usage(format!("write {}: {e}", path.display())))?;
            (Raw::File(BufWriter::new(file)), Some((path.to_path_buf(), part)))
        };
        let packer = match packing {
            Packing::Plain => Packer::Plain(raw),
            Packing::Gzip => Packer::Gzip(GzEncoder::new(raw, Compression::default())),
            Packing::Zstd => Packer::Zstd(
                zstd::stream::write::Encoder::new(raw, ZSTD_LEVEL)
                    .map_err(|e| Failure::work(format!("pack {}: {e}", path.display())))?,
            ),
        };
        Ok(Sink { packer, names, written: 0 })
    }

    /// Bytes before packing.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Ends the packing, syncs, and gives the file its name.
    ///
    /// # Errors
    /// Then there is no such file, or the one that was there before.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let raw = match std::mem::replace(&mut self.packer, Packer::None) {
            Packer::Plain(raw) => raw,
            Packer::Gzip(packer) => packer.finish()?,
            Packer::Zstd(packer) => packer.finish()?,
            Packer::None => return Ok(()),
        };
        match raw {
            Raw::Stdout(mut out) => out.flush(),
            Raw::Object(object) => object.finish(),
            Raw::File(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                if let Some((path, part)) = self.names.take() {
                    fs::rename(part, path)?;
                }
                Ok(())
            }
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = match &mut self.packer {
            Packer::Plain(raw) => raw.write(bytes)?,
            Packer::Gzip(packer) => packer.write(bytes)?,
            Packer::Zstd(packer) => packer.write(bytes)?,
            Packer::None => 0,
        };
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.packer {
            Packer::Plain(raw) => raw.flush(),
            Packer::Gzip(packer) => packer.flush(),
            Packer::Zstd(packer) => packer.flush(),
            Packer::None => Ok(()),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some((_, part)) = &self.names {
            // What was begun is of no use to anybody.
            let _ = fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        fs::write(&path, "before").unwrap();
        let mut sink = Sink::open(&path, Packing::Plain).unwrap();
        sink.write_all(b"half").unwrap();
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let mut sink = Sink::open(&path, Packing::Gzip).unwrap();
        sink.write_all(b"whole").unwrap();
        sink.finish().unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(File::open(&path).unwrap()), &mut text).unwrap();
        assert_eq!(text, "whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
