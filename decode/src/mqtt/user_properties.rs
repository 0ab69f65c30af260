//! User properties of a PUBLISH: what its sender added, names and values, as they stand in a packet (MQTT 5, 2.2.2.2).

/// Reads them from `properties`, which `read` has checked; the rest of what is no such property is left out.
pub fn read(properties: &[u8]) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = properties;
    while let Some((id, behind)) = rest.split_first() {
        let next = match id {
            // Flags, numbers of two and four bytes: MQTT 5, 2.2.2.2.
            0x01 => behind.get(1..),
            0x23 => behind.get(2..),
            0x02 => behind.get(4..),
            0x03 | 0x08 | 0x09 => text(behind).map(|(_, behind)| behind),
            0x26 => pair(behind).map(|(name, value, behind)| {
                found.push((name, value));
                behind
            }),
            _ => None,
        };
        let Some(next) = next else { break };
        rest = next;
    }
    found
}

/// As [`read`] reads them; texts that are too long for a packet are left out.
pub fn write(pairs: &[(String, String)]) -> Vec<u8> {
    let mut properties = Vec::new();
    for (name, value) in pairs {
        if let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u16::try_from(value.len())) {
            properties.push(0x26);
            properties.extend_from_slice(&name_len.to_be_bytes());
            properties.extend_from_slice(name.as_bytes());
            properties.extend_from_slice(&value_len.to_be_bytes());
            properties.extend_from_slice(value.as_bytes());
        }
    }
    properties
}

fn pair(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (name, behind) = text(bytes)?;
    let (value, behind) = text(behind)?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?, behind))
}

/// Bytes with their length in front, and what is behind them.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, behind) = bytes.split_first_chunk::<2>()?;
    behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_properties_are_found_among_others() {
        let properties =
            b"\x01\x01\x02\0\0\0\x05\x26\0\x01a\0\x02bc\x03\0\x01x\x08\0\x01t\x09\0\x02\xff\xff\x26\0\x01a\0\0";
        assert_eq!(read(properties), [("a", "bc"), ("a", "")]);
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\x26\0\x09a"), []);
        let pairs = [("a".to_owned(), "bc".to_owned()), (String::new(), "d".to_owned())];
        assert_eq!(read(&write(&pairs)), [("a", "bc"), ("", "d")]);
    }
}
