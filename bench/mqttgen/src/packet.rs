//! The few packets of MQTT 3.1.1 that a publisher needs, written by hand.
//!
//! Does not: check more than a generator must: the server under test is checked elsewhere.

use std::io::{Error, ErrorKind, Result};

/// What a server sends to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The connection is accepted.
    ConnAck,
    /// QoS 1: done.
    PubAck(u16),
    /// QoS 2: the server has it.
    PubRec(u16),
    /// QoS 2: the id is free again.
    PubComp(u16),
    /// An answer to a ping.
    PingResp,
}

/// CONNECT with a clean session.
pub(crate) fn connect(client_id: &str, keep_alive_s: u16, out: &mut Vec<u8>) {
    out.push(0x10);
    remaining_length(10 + 2 + client_id.len(), out);
    text("MQTT", out);
    out.extend_from_slice(&[4, 0b0000_0010]);
    out.extend_from_slice(&keep_alive_s.to_be_bytes());
    text(client_id, out);
}

/// PUBLISH; `id` is left out at QoS 0.
pub(crate) fn publish(topic: &str, qos: u8, id: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x30 | qos << 1);
    let id_len = if qos > 0 { 2 } else { 0 };
    remaining_length(2 + topic.len() + id_len + payload.len(), out);
    text(topic, out);
    if qos > 0 {
        out.extend_from_slice(&id.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// PUBREL.
pub(crate) fn release(id: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x62, 2]);
    out.extend_from_slice(&id.to_be_bytes());
}

/// PINGREQ.
pub(crate) const PING: [u8; 2] = [0xC0, 0];
/// DISCONNECT.
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// The first packet of `bytes` and its length; `None` when it is not all there.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
    // All replies have a remaining length below 128.
    let [kind, len, rest @ ..] = bytes else { return Ok(None) };
    let len = usize::from(*len);
    if len >= 128 {
        return Err(invalid(format!("packet {kind:#04x} is too long for a reply")));
    }
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let reply = match (kind >> 4, body) {
        (2, [_, 0]) => Reply::ConnAck,
        (2, [_, code]) => return Err(Error::new(ErrorKind::ConnectionRefused, format!("CONNACK says {code}"))),
        (4, [high, low]) => Reply::PubAck(u16::from_be_bytes([*high, *low])),
        (5, [high, low]) => Reply::PubRec(u16::from_be_bytes([*high, *low])),
        (7, [high, low]) => Reply::PubComp(u16::from_be_bytes([*high, *low])),
        (13, []) => Reply::PingResp,
        _ => return Err(invalid(format!("packet {kind:#04x} with {len} bytes is no reply"))),
    };
    Ok(Some((reply, 2 + len)))
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn remaining_length(mut len: usize, out: &mut Vec<u8>) {
    while len >= 128 {
        out.push((len % 128) as u8 | 0x80);
        len /= 128;
    }
    out.push(len as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_standard_writes_them() {
        let mut out = Vec::new();
        connect("ab", 60, &mut out);
        assert_eq!(out, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab");
        out.clear();
        publish("a/b", 1, 10, b"xy", &mut out);
        assert_eq!(out, b"\x32\x09\x00\x03a/b\x00\x0axy");
        out.clear();
        publish("a/b", 0, 0, &[b'x'; 200], &mut out);
        assert_eq!(out[..3], [0x30, 205 % 128 + 128, 1]);
        assert_eq!(out.len(), 3 + 205);
    }

    #[test]
    fn replies_are_read_one_by_one_and_a_part_of_one_waits() {
        assert_eq!(read(&[0x40, 2, 1, 2, 0xD0]).unwrap(), Some((Reply::PubAck(258), 4)));
        assert_eq!(read(&[0x40, 2, 1]).unwrap(), None);
        assert_eq!(read(&[0xD0, 0]).unwrap(), Some((Reply::PingResp, 2)));
        assert_eq!(read(&[0x20, 2, 0, 0]).unwrap(), Some((Reply::ConnAck, 4)));
        assert_eq!(read(&[0x20, 2, 0, 5]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        read(&[0x90, 3, 0, 1, 0]).unwrap_err();
    }
}
