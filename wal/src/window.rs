//! A file read front to back, a stretch at a time.

use std::io;

use crate::disk::{DiskFile, read_exact_at};

/// Read at once when less is asked for.
const WINDOW_BYTES: u64 = 256 << 10;

/// The stretch of a file that was read last. It grows to the longest stretch that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The first `len` bytes were read.
    bytes: Vec<u8>,
    len: usize,
    at: u64,
}

impl Window {
    /// Forgets what was read, for another file.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// `len` bytes of `file` at `at`, none of which lie at or behind `limit`; `None` if they would.
    /// Bytes below `limit` must not change while the window lives.
    pub(crate) fn get(&mut self, file: &dyn DiskFile, at: u64, len: u64, limit: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = at.checked_add(len).filter(|end| *end <= limit) else { return Ok(None) };
        if at < self.at || end > self.at + self.len as u64 {
            let take = len.max(WINDOW_BYTES).min(limit - at);
            let take = usize::try_from(take).map_err(|_| io::ErrorKind::OutOfMemory)?;
            if self.bytes.len() < take {
                self.bytes = vec![0; take];
            }
            self.len = 0;
            read_exact_at(file, &mut self.bytes[..take], at)?;
            self.at = at;
            self.len = take;
        }
        let from = (at - self.at) as usize;
        Ok(Some(&self.bytes[from..from + len as usize]))
    }
}
