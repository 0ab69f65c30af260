//! A note of how far an import has come, so that the next attempt need not begin again.
//!
//! Owns:     the file of `--resume-file`, JSON, replaced whole after each batch that is durable.
//! Does not: make an import right: beginning again is right too, for it changes nothing twice.
//!
//! Invariant: what the note calls done was durable before the note was written, and is skipped only in the same file:
//! length, time of change and the checksum of its beginning must be those that were noted.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::{Fingerprint, Source};
use crate::failure::Failure;

const VERSION: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    /// What was asked for, so that another import does not go on from it.
    import: String,
    files: Vec<File>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    len_bytes: u64,
    modified_us: i64,
    start_crc: u32,
    /// Rows or lines from the beginning that are dealt with: durable, or refused.
    done: u64,
    refused: u64,
    is_whole: bool,
}

/// How far one file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) rows: u64,
    pub(crate) refused: u64,
    pub(crate) is_whole: bool,
}

/// The note, if one is kept.
pub(crate) struct Resume {
    path: Option<PathBuf>,
    note: Note,
}

impl Resume {
    /// Reads the note at `path`, if there is one.
    ///
    /// # Errors
    /// If it is of another import, or cannot be read.
    pub(crate) fn open(path: Option<&Path>, import: String, sources: &[Source]) -> Result<Resume, Failure> {
        let note = Note { version: VERSION, import, files: Vec::new() };
        let Some(path) = path else { return Ok(Resume { path: None, note }) };
        if sources.iter().any(Source::is_stdin) {
            return Err(Failure::usage("--resume-file: standard input cannot be resumed, only files can"));
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Resume { path: Some(path.into()), note }),
            Err(e) => return Err(Failure::usage(format!("--resume-file {}: {e}", path.display()))),
        };
        let refuse = |what: &str| {
            let path = path.display();
            Failure::usage(format!(
                "--resume-file {path}: {what}; delete it to begin again, which changes nothing twice"
            ))
        };
        let found: Note = serde_json::from_str(&text).map_err(|e| refuse(&format!("it is no such note: {e}")))?;
        if found.version != VERSION || found.import != note.import {
            return Err(refuse(&format!("it is of another import ({})", found.import)));
        }
        Ok(Resume { path: Some(path.into()), note: found })
    }

    /// How far a file is.
    ///
    /// # Errors
    /// If it is not the file that it was.
    pub(crate) fn done(&self, source: &Source) -> Result<Done, Failure> {
        let Some(path) = &self.path else { return Ok(Done::default()) };
        let name = source.path.to_string_lossy();
        let Some(file) = self.note.files.iter().find(|file| file.path == name) else { return Ok(Done::default()) };
        let known = Fingerprint { len_bytes: file.len_bytes, modified_us: file.modified_us, start_crc: file.start_crc };
        if source.fingerprint()? != known {
            return Err(Failure::usage(format!(
                "{name} has changed since row {} of it was imported; delete {} to begin again, which changes nothing twice",
                file.done,
                path.display()
            )));
        }
        Ok(Done { rows: file.done, refused: file.refused, is_whole: file.is_whole })
    }

    /// Notes how far a file is.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub(crate) fn note(&mut self, source: &Source, done: Done) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let name = source.path.to_string_lossy().into_owned();
        let at = match self.note.files.iter().position(|file| file.path == name) {
            Some(at) => at,
            None => {
                let Fingerprint { len_bytes, modified_us, start_crc } = source.fingerprint()?;
                let (done, refused, is_whole) = (0, 0, false);
                self.note.files.push(File { path: name, len_bytes, modified_us, start_crc, done, refused, is_whole });
                self.note.files.len() - 1
            }
        };
        let file = &mut self.note.files[at];
        (file.done, file.refused, file.is_whole) = (done.rows, done.refused, done.is_whole);
        let text = serde_json::to_vec_pretty(&self.note).map_err(|e| Failure::work(format!("write a note: {e}")))?;
        replace(path, &text).map_err(|e| Failure::work(format!("--resume-file {}: {e}", path.display())))
    }

    /// Deletes the note: all is imported.
    pub(crate) fn finish(&self) {
        if let Some(path) = &self.path {
            // One that stays says that all is done, which is true.
            let _ = fs::remove_file(path);
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text)?;
    // Only the order matters: a note that is lost costs time, a torn one would have to be deleted by hand.
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn a_note_is_of_one_import_and_of_files_that_did_not_change() {
        let folder = tempfile::tempdir().unwrap();
        let (file, note) = (folder.path().join("a.csv"), folder.path().join("note"));
        fs::write(&file, "time,v\n1,2\n").unwrap();
        let sources = Source::list(std::slice::from_ref(&file), Some(Format::Csv)).unwrap();
        let open = |import: &str| Resume::open(Some(&note), import.into(), &sources);
        let mut resume = open("csv to t").unwrap();
        assert_eq!(resume.done(&sources[0]).unwrap(), Done::default());
        let done = Done { rows: 1, refused: 1, is_whole: false };
        resume.note(&sources[0], done).unwrap();
        assert_eq!(open("csv to t").unwrap().done(&sources[0]).unwrap(), done);
        assert!(open("csv to u").err().unwrap().to_string().contains("of another import (csv to t)"));

        fs::write(&file, "time,v\n1,3\n").unwrap();
        let error = open("csv to t").unwrap().done(&sources[0]).unwrap_err();
        assert!(error.to_string().contains("has changed since row 1"), "{error}");
        fs::write(&note, "{").unwrap();
        assert!(open("csv to t").err().unwrap().to_string().contains("no such note"));
        resume.finish();
        assert!(open("csv to u").is_ok());
    }
}
