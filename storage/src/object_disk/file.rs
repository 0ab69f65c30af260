//! One object, read a little at a time or written from its beginning to its end.
//!
//! Owns:     what is read ahead and kept of an object; parts of large ones on their way to the store.
//! Does not: decide what is tried again (`calls`).

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path as Location;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use wal::disk::DiskFile;

use super::{Calls, Known, unsupported};

/// Read of an object's end when it is opened: two blocks of checksums, so that a footer of 64 KiB is in it wherever the
/// last block begins.
pub(super) const TAIL_BYTES: u64 = 128 << 10;

/// Read at once by whoever asks for a few bytes.
const WINDOW_BYTES: u64 = 512 << 10;

/// Windows that are kept of an open object: as many places as columns are commonly read at.
pub(super) const WINDOWS_MAX: usize = 16;

/// Bytes of a part of a large object; a store takes 10,000 of them, and none but the last of less than 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// The end of an object.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    /// Of the whole object.
    pub(super) size: u64,
    /// Where `bytes` begin.
    pub(super) from: u64,
    pub(super) bytes: Bytes,
}

impl Tail {
    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let is_in = self.from <= range.start && range.end <= self.from + self.bytes.len() as u64;
        is_in.then(|| self.bytes.slice((range.start - self.from) as usize..(range.end - self.from) as usize))
    }
}

/// An object that is read.
#[derive(Debug)]
pub(super) struct ObjectReader {
    calls: Arc<Calls>,
    known: Arc<Known>,
    path: PathBuf,
    location: Location,
    tail: Tail,
    /// By the byte at which they begin; the one that was used last is the last.
    windows: Mutex<VecDeque<(u64, Bytes)>>,
}

impl ObjectReader {
    pub(super) fn new(
        calls: Arc<Calls>,
        known: Arc<Known>,
        path: PathBuf,
        location: Location,
        tail: Tail,
    ) -> ObjectReader {
        ObjectReader { calls, known, path, location, tail, windows: Mutex::default() }
    }

    fn get_ranges(&self, ranges: Vec<Range<u64>>) -> io::Result<Vec<Bytes>> {
        let location = self.location.clone();
        let wanted = ranges.clone();
        let found = self.calls.run(move |store| async move { store.get_ranges(&location, &wanted).await })?;
        let is_whole = |(range, bytes): (&Range<u64>, &Bytes)| bytes.len() as u64 == range.end - range.start;
        if found.len() == ranges.len() && ranges.iter().zip(&found).all(is_whole) {
            return Ok(found);
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn get(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.get_ranges(vec![range])?.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn window(&self, at: u64) -> io::Result<(u64, Bytes)> {
        let from = at / WINDOW_BYTES * WINDOW_BYTES;
        let windows = || self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut windows = windows();
            if let Some(known) = windows.iter().position(|(start, _)| *start == from)
                && let Some(window) = windows.remove(known)
            {
                windows.push_back(window.clone());
                return Ok(window);
            }
        }
        let window = (from, self.get(from..(from + WINDOW_BYTES).min(self.tail.size))?);
        let mut windows = windows();
        windows.push_back(window.clone());
        if windows.len() > WINDOWS_MAX {
            windows.pop_front();
        }
        Ok(window)
    }
}

impl DiskFile for ObjectReader {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset.saturating_add(buffer.len() as u64).min(self.tail.size);
        if offset >= end {
            return Ok(0);
        }
        let bytes = if let Some(bytes) = self.tail.get(&(offset..end)) {
            bytes
        } else if end - offset >= WINDOW_BYTES {
            self.get(offset..end)?
        } else {
            let (from, window) = self.window(offset)?;
            let end = end.min(from + window.len() as u64);
            window.slice((offset - from) as usize..(end - from) as usize)
        };
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn read_together(&self, ranges: &[Range<u64>]) -> Option<io::Result<Vec<Vec<u8>>>> {
        if ranges.iter().any(|range| range.end > self.tail.size) {
            return Some(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let known = |range: &Range<u64>| if range.is_empty() { Some(Bytes::new()) } else { self.tail.get(range) };
        let missing: Vec<Range<u64>> = ranges.iter().filter(|range| known(range).is_none()).cloned().collect();
        let read = if missing.is_empty() { Ok(Vec::new()) } else { self.get_ranges(missing) };
        Some(read.map(|read| {
            let mut read = read.into_iter();
            let of = |range: &Range<u64>| known(range).or_else(|| read.next()).unwrap_or_default().to_vec();
            ranges.iter().map(of).collect()
        }))
    }

    fn distrust(&self) {
        self.known.forget(&self.path);
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(unsupported("objects are written once"))
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(unsupported("objects are written once"))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.tail.size)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An object that is written.
#[derive(Debug)]
pub(super) struct ObjectWriter {
    calls: Arc<Calls>,
    known: Arc<Known>,
    path: PathBuf,
    location: Location,
    state: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Writing {
    /// What was not sent.
    rest: Vec<u8>,
    /// Bytes that were, as parts.
    sent: u64,
    upload: Option<Box<dyn MultipartUpload>>,
    /// The last bytes, to be remembered.
    tail: VecDeque<u8>,
    is_stored: bool,
    /// A part was not taken: there is nothing to be made whole.
    is_broken: bool,
}

impl ObjectWriter {
    pub(super) fn new(calls: Arc<Calls>, known: Arc<Known>, path: PathBuf, location: Location) -> ObjectWriter {
        ObjectWriter { calls, known, path, location, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Writing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_part(&self, state: &mut Writing, part: Vec<u8>) -> io::Result<()> {
        let upload = match state.upload.take() {
            Some(upload) => upload,
            None => {
                let location = self.location.clone();
                self.calls.run(move |store| async move { store.put_multipart(&location).await })?
            }
        };
        let len = part.len() as u64;
        // Until it is known that the part was taken: the upload comes back only with that.
        state.is_broken = true;
        let mut upload = upload;
        let (upload, put) = self.calls.wait(async move {
            let put = upload.put_part(part.into()).await;
            Ok((upload, put))
        })?;
        state.upload = Some(upload);
        put.map_err(|e| super::failure(self.calls.name(), e))?;
        state.is_broken = false;
        state.sent += len;
        Ok(())
    }

    fn put(&self, state: &mut Writing) -> io::Result<()> {
        let (location, bytes) = (self.location.clone(), Bytes::copy_from_slice(&state.rest));
        // No condition: nobody else has a file of this name, and the same bytes may be put twice.
        self.calls.run(move |store| async move { store.put(&location, bytes.into()).await }).map(drop)
    }
}

impl DiskFile for ObjectWriter {
    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(unsupported("an object is there to be read when it is synced"))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.is_stored || state.is_broken || offset != state.sent + state.rest.len() as u64 {
            return Err(unsupported("objects are written once, from the beginning to the end"));
        }
        state.rest.extend_from_slice(bytes);
        state.tail.extend(&bytes[bytes.len().saturating_sub(TAIL_BYTES as usize)..]);
        let too_many = state.tail.len().saturating_sub(TAIL_BYTES as usize);
        state.tail.drain(..too_many);
        while state.rest.len() > PART_BYTES {
            let rest = state.rest.split_off(PART_BYTES);
            let part = std::mem::replace(&mut state.rest, rest);
            self.send_part(&mut state, part)?;
        }
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(unsupported("objects are written once"))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state();
        Ok(state.sent + state.rest.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.is_stored {
            return Ok(());
        }
        if state.is_broken {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "a part of the object was not taken"));
        }
        self.known.unsent().remove(&self.path);
        let size = state.sent + state.rest.len() as u64;
        if state.upload.is_some() {
            let rest = std::mem::take(&mut state.rest);
            self.send_part(&mut state, rest)?;
            let Some(mut upload) = state.upload.take() else { return Err(io::ErrorKind::InvalidInput.into()) };
            state.is_broken = true;
            let (upload, completed) = self.calls.wait(async move {
                let completed = upload.complete().await;
                Ok((upload, completed))
            })?;
            if let Err(e) = completed {
                state.upload = Some(upload);
                return Err(super::failure(self.calls.name(), e));
            }
        } else {
            self.put(&mut state)?;
        }
        state.is_stored = true;
        let bytes = Bytes::from(Vec::from(std::mem::take(&mut state.tail)));
        self.known.remember(&self.path, &Tail { size, from: size - bytes.len() as u64, bytes });
        state.rest = Vec::new();
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        let upload = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).upload.take();
        if let Some(mut upload) = upload {
            // Parts that nobody puts together cost room. What this does not reach, a rule of the bucket does.
            self.calls.in_background(async move { drop(upload.abort().await) });
        }
    }
}
