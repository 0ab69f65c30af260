//! Compressed bytes from outside, unpacked within a limit.
//!
//! Invariant: the bytes decide neither how long the result may be nor how much memory unpacking takes (P14).

use std::io::Read;

/// Memory that a zstd frame may ask for, as a power of two: more than any allowed body needs.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// What a byte of snappy becomes at most: three bytes copy 64.
const SNAPPY_RATIO_MAX: usize = 22;

/// Why bytes are not unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnpackError {
    /// They are something else, or torn; what the decompressor said.
    Malformed(String),
    /// There are more than the limit.
    TooLarge,
}

/// Unpacks zstd to at most `limit` bytes. Works for as long as the bytes need: not for an async task.
///
/// # Errors
/// [`UnpackError`]: whoever sent it has to send something else.
pub fn zstd(bytes: &[u8], limit: usize) -> Result<Vec<u8>, UnpackError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(malformed)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(malformed)?;
    bounded(decoder, limit)
}

/// As [`zstd`], for gzip of one or several members.
///
/// # Errors
/// As [`zstd`].
pub fn gzip(bytes: &[u8], limit: usize) -> Result<Vec<u8>, UnpackError> {
    bounded(flate2::read::MultiGzDecoder::new(bytes), limit)
}

/// Unpacks a block of snappy, which begins with how long the result is: it is believed as far as so few bytes can make so
/// many. The format: <https://github.com/google/snappy/blob/main/format_description.txt>.
///
/// # Errors
/// As [`zstd`].
pub fn snappy(bytes: &[u8], limit: usize) -> Result<Vec<u8>, UnpackError> {
    let len = snap::raw::decompress_len(bytes).map_err(|e| UnpackError::Malformed(e.to_string()))?;
    if len > limit {
        return Err(UnpackError::TooLarge);
    }
    if len > bytes.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(UnpackError::Malformed(format!("{} bytes cannot be {len}", bytes.len())));
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(|e| UnpackError::Malformed(e.to_string()))
}

fn bounded(decoder: impl Read, limit: usize) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes).map_err(malformed)?;
    if bytes.len() > limit { Err(UnpackError::TooLarge) } else { Ok(bytes) }
}

fn malformed(error: std::io::Error) -> UnpackError {
    UnpackError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    const LIMIT: usize = 1000;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_packed(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    #[test]
    fn gzip_of_several_members_is_one_body() {
        let bytes = [gzipped(b"a v=1\n"), gzipped(b"a v=2\n")].concat();
        assert_eq!(gzip(&bytes, LIMIT).unwrap(), b"a v=1\na v=2\n");
    }

    #[test]
    fn a_bomb_is_too_large_and_stops_at_the_limit() {
        let zeros = vec![0; 50 << 20];
        assert_eq!(gzip(&gzipped(&zeros), LIMIT), Err(UnpackError::TooLarge));
        assert_eq!(zstd(&zstd_packed(&zeros), LIMIT), Err(UnpackError::TooLarge));
    }

    #[test]
    fn a_frame_that_asks_for_too_much_memory_is_malformed() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(&[b'x'; 100]).unwrap();
        let error = zstd(&encoder.finish().unwrap(), LIMIT).unwrap_err();
        assert!(matches!(&error, UnpackError::Malformed(reason) if reason.contains("memory")), "{error:?}");
    }

    #[test]
    fn a_block_of_snappy_is_bounded_by_its_limit_and_its_length() {
        let pack = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
        assert_eq!(snappy(&pack(&[7; 1000]), LIMIT).unwrap(), vec![7; 1000]);
        assert_eq!(snappy(&pack(&[7; 1001]), LIMIT), Err(UnpackError::TooLarge));
        let megabytes = 100 << 20;
        assert_eq!(snappy(&pack(&vec![0; 50 << 20]), megabytes).unwrap().len(), 50 << 20);
        // Says that it is 64 MiB, in four bytes.
        let said = snappy(&[0x80, 0x80, 0x80, 0x20, 0], megabytes);
        assert_eq!(said, Err(UnpackError::Malformed("5 bytes cannot be 67108864".into())));
        let mut torn = pack(b"a sentence of some bytes that does not repeat");
        torn.truncate(20);
        assert!(matches!(snappy(&torn, LIMIT), Err(UnpackError::Malformed(_))));
        assert!(matches!(snappy(&[], LIMIT), Err(UnpackError::Malformed(_)) | Ok(_)));
        assert!(matches!(snappy(&[0xff; 30], LIMIT), Err(UnpackError::Malformed(_))));
    }

    #[test]
    fn a_body_of_exactly_the_limit_passes() {
        let bytes = vec![b'x'; 1000];
        assert_eq!(zstd(&zstd_packed(&bytes), LIMIT).unwrap(), bytes);
        assert_eq!(gzip(&gzipped(&bytes), LIMIT).unwrap(), bytes);
    }

    #[test]
    fn garbage_and_torn_bodies_are_malformed() {
        let (mut torn_gzip, mut torn_zstd) = (gzipped(b"a v=1\n"), zstd_packed(b"a v=1\n"));
        torn_gzip.truncate(torn_gzip.len() - 3);
        torn_zstd.truncate(torn_zstd.len() - 3);
        let is_malformed = |unpacked| matches!(unpacked, Err(UnpackError::Malformed(_)));
        assert!(is_malformed(gzip(&torn_gzip, LIMIT)) && is_malformed(gzip(&[7; 30], LIMIT)));
        assert!(is_malformed(zstd(&torn_zstd, LIMIT)) && is_malformed(zstd(&[7; 30], LIMIT)));
    }
}
