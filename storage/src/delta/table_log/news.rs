//! What other nodes have committed.

use std::io;

use wal::disk;

use super::{TableLog, commit_path, parse_commit, verify_commit};
use crate::StorageError;
use crate::delta::Action;

impl TableLog {
    /// Whether there is a version that this process does not know; only where others commit as well.
    pub(crate) fn is_behind(&self) -> bool {
        self.disk.is_common() && self.disk.info(&commit_path(&self.dir, self.version + 1)).is_ok()
    }

    /// The commits of others behind the last version that is known, in order, each with its bytes. To be taken note of by
    /// [`TableLog::committed_by_another`].
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] if the next one may be ours; [`StorageError::Corrupt`] names one that is damaged.
    pub(crate) fn news(&self) -> Result<Vec<(Vec<Action>, usize)>, StorageError> {
        let mut news = Vec::new();
        if !self.is_behind() {
            return Ok(news);
        }
        if self.is_uncertain() {
            return Err(StorageError::Poisoned);
        }
        // Whoever commits behind a version makes it durable with his own: so must whoever only builds on it.
        self.disk.sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))?;
        loop {
            let path = commit_path(&self.dir, self.version + 1 + news.len() as i64);
            let bytes = match disk::read_file(&*self.disk, &path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(news),
                Err(e) => return Err(StorageError::io("read", &path)(e)),
            };
            let actions = verify_commit(&bytes).and_then(|_| parse_commit(&bytes));
            news.push((actions.map_err(|reason| StorageError::Corrupt { path, reason })?, bytes.len()));
        }
    }

    /// Takes note of the next version, which another node has committed.
    pub(crate) fn committed_by_another(&mut self, actions: &[Action], bytes: usize) {
        self.committed(self.version + 1, actions, bytes);
    }
}
