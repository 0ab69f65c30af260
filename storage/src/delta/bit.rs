//! Turning one wrong bit of a sealed text back.
//!
//! Owns:     finding that bit, if there is just one that explains the checksum.
//! Does not: guess: CRC32C tells every two texts of a commit's length apart that differ by three bits or fewer, so a text
//!           that is whole again after one bit was turned is the one that was written, or damaged in more than two more.

use super::sealed;

/// The polynomial of CRC32C, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bytes of digits and closing at the end of a sealed text.
const END_BYTES: usize = 12;

/// `bytes` with one bit turned, so that they are whole; `None` if there is no such bit.
pub(crate) fn with_one_bit_turned(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = bytes.to_vec();
    let before = bytes.len().checked_sub(END_BYTES)?;
    // In the checksum itself, or behind it.
    for at in before..bytes.len() {
        for bit in 0..8 {
            text[at] ^= 1 << bit;
            if sealed::is_whole(&text) == Some(true) {
                return Some(text);
            }
            text[at] ^= 1 << bit;
        }
    }
    // A turned bit changes the checksum by what depends on nothing but its distance from the end.
    let written = std::str::from_utf8(&bytes[before..before + 8]).ok();
    let written = u32::from_str_radix(written?, 16).ok()?;
    let difference = written ^ crc32c::crc32c(&bytes[..before]);
    let mut changes: [u32; 8] = std::array::from_fn(|bit| behind_a_byte(1 << bit));
    for at in (0..before).rev() {
        if let Some(bit) = changes.iter().position(|change| *change == difference) {
            text[at] ^= 1 << bit;
            // The key may be what was damaged, or what is found may only look right.
            return (sealed::is_whole(&text) == Some(true)).then_some(text);
        }
        changes = changes.map(behind_a_byte);
    }
    None
}

fn behind_a_byte(register: u32) -> u32 {
    (0..8).fold(register, |register, _| if register & 1 == 1 { (register >> 1) ^ POLYNOMIAL } else { register >> 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_bit_is_found_and_two_are_not() {
        let mut sealed = b"{\"add\":{\"path\":\"eden_day=2026-06-01/x.parquet\"}}\n".to_vec();
        sealed::seal(&mut sealed, r#"{"commitInfo":{"timestamp":1}}"#);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(with_one_bit_turned(&damaged).as_ref(), Some(&sealed), "bit {bit} of {at}");
                damaged[(at + 7) % sealed.len()] ^= 2;
                assert_ne!(with_one_bit_turned(&damaged).as_ref(), Some(&damaged));
            }
        }
        assert_eq!(with_one_bit_turned(&sealed[..20]), None);
        assert_eq!(with_one_bit_turned(b""), None);
    }
}
