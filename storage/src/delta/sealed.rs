//! Text that ends in a checksum of itself: commits, and what stands beside a checkpoint.
//!
//! Owns:     the bytes of the seal (`docs/formats/data-folder.md`).
//! Does not: know what is sealed.
//!
//! The last line is an object in an object, and its last key is the seal. So a reader of the Delta log sees one more key
//! in a `commitInfo`, which may hold any.

use crate::shard::parse_hex;

const KEY: &[u8] = b",\"crc32c\":\"";
const CLOSING: &[u8] = b"\"}}\n";
const DIGITS: usize = 8;

/// Appends `line`, an object in an object, and the checksum of all that stands before it.
pub(crate) fn seal(bytes: &mut Vec<u8>, line: &str) {
    let open = line.strip_suffix("}}").expect("the last line is an object in an object");
    bytes.extend_from_slice(open.as_bytes());
    bytes.extend_from_slice(KEY);
    let checksum = crc32c::crc32c(bytes);
    bytes.extend_from_slice(format!("{checksum:08x}").as_bytes());
    bytes.extend_from_slice(CLOSING);
}

/// Whether `bytes` are those that were sealed; `None` if they do not end in a seal.
pub(crate) fn is_whole(bytes: &[u8]) -> Option<bool> {
    let rest = bytes.strip_suffix(CLOSING)?;
    let (before, digits) = rest.split_at(rest.len().checked_sub(DIGITS)?);
    let written = before.ends_with(KEY).then(|| parse_hex(digits))??;
    Some(written == crc32c::crc32c(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_what_was_sealed_is_told() {
        let mut sealed = b"{\"add\":{}}\n".to_vec();
        seal(&mut sealed, r#"{"commitInfo":{"timestamp":1}}"#);
        assert_eq!(is_whole(&sealed), Some(true));
        let text = String::from_utf8(sealed.clone()).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
        for at in 0..sealed.len() {
            assert_ne!(is_whole(&sealed[..at]), Some(true), "cut at {at}");
            for bit in 0..8 {
                let mut other = sealed.clone();
                other[at] ^= 1 << bit;
                assert_ne!(is_whole(&other), Some(true), "bit {bit} of {at}");
            }
        }
        assert_eq!(is_whole(b""), None);
        assert_eq!(is_whole(b"{\"add\":{}}\n"), None);
    }
}
