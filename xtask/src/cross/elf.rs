//! What a built program needs from the system it runs on.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Failure;

/// Facts of a binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    /// Of the file, in bytes.
    pub(super) size: u64,
    /// The newest symbol version of glibc that it asks for, as `(2, 34)`; none if it is static.
    pub(super) glibc: Option<(u32, u32)>,
}

impl Elf {
    /// What a package of it depends on, as Debian writes it.
    pub(super) fn depends(&self) -> String {
        let glibc = self.glibc.map(|(major, minor)| format!("libc6 (>= {major}.{minor}), libgcc-s1, "));
        format!("{}systemd", glibc.unwrap_or_default())
    }
}

impl std::fmt::Display for Elf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.glibc {
            Some((major, minor)) => write!(f, "needs glibc {major}.{minor}"),
            None => f.write_str("static"),
        }
    }
}

/// Reads a binary that was stripped: the names of versions that are left in it are those that it asks for.
pub(super) fn read(path: &Path) -> Result<Elf, Failure> {
    let bytes = std::fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    Ok(Elf { size: bytes.len() as u64, glibc: versions(&bytes).last().copied() })
}

fn versions(bytes: &[u8]) -> BTreeSet<(u32, u32)> {
    const NAME: &[u8] = b"\0GLIBC_";
    let starts = bytes.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    starts
        .filter_map(|(at, _)| {
            let rest = &bytes[at + NAME.len()..];
            let end = rest.iter().take(16).position(|byte| *byte == 0)?;
            let (major, minor) = std::str::from_utf8(&rest[..end]).ok()?.split_once('.')?;
            Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_glibc_is_found_by_number() {
        let bytes = b"libc.so.6\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0";
        assert_eq!(versions(bytes).last(), Some(&(2, 34)));
        assert!(versions(b"static").is_empty());
    }
}
