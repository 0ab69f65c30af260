//! Packets to clients, by `rmqtt-codec`; the small and frequent ones by hand.

use std::num::NonZeroU16;

use bytes::{BufMut as _, BytesMut};
use rmqtt_codec::v5;
use tokio_util::codec::Encoder as _;

use super::read::{Version, code};
use super::sessions::Next;

/// What a client must know to write to it.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Of the protocol.
    pub version: Version,
    /// The largest packet that it takes.
    pub packet_max: u32,
    /// It wants reason strings.
    pub problem_info: bool,
}

/// What MQTT 5 clients are told when they are accepted.
#[derive(Clone, Debug, Default)]
pub struct Welcome {
    /// Messages with QoS above 0 that may be in flight.
    pub receive_max: u16,
    /// The largest packet taken.
    pub packet_max: u32,
    /// The id of a client that has sent none.
    pub assigned_id: Option<String>,
    /// There was a session, and it goes on.
    pub session_present: bool,
    /// Seconds for which the session outlives the connection, if they are not those that were asked for.
    pub session_expiry: Option<u32>,
    /// The largest topic alias taken.
    pub alias_max: u16,
}

impl Form {
    fn v5(&self, out: &mut BytesMut, packet: v5::Packet) {
        let before = out.len();
        let result = v5::Codec::new(0, 0).encode(packet, out);
        if result.is_err() || out.len() - before > self.packet_max as usize {
            // [MQTT-3.1.2-24] (5): not sent, and all goes on as if it had been.
            out.truncate(before);
        }
    }

    /// CONNACK of a connection that is accepted. Nothing is written if the client does not take so large a packet.
    pub fn welcome(&self, out: &mut BytesMut, welcome: Welcome) {
        if self.version != Version::V5 {
            // 3.1 has no such flag, and its clients need not look.
            let is_present = welcome.session_present && self.version == Version::V311;
            return out.put_slice(&[0x20, 2, u8::from(is_present), 0]);
        }
        let ack = v5::ConnectAck {
            session_present: welcome.session_present,
            session_expiry_interval_secs: welcome.session_expiry,
            topic_alias_max: welcome.alias_max,
            receive_max: NonZeroU16::new(welcome.receive_max).unwrap_or(NonZeroU16::MAX),
            max_packet_size: Some(welcome.packet_max),
            assigned_client_id: welcome.assigned_id.map(Into::into),
            subscription_identifiers_available: false,
            shared_subscription_available: false,
            ..v5::ConnectAck::default()
        };
        self.v5(out, ack.into());
    }

    /// PUBACK (QoS 1) or PUBREC (QoS 2).
    pub fn received(&self, out: &mut BytesMut, qos: u8, id: u16, code: u8, reason: Option<&str>) {
        let first = if qos == 1 { 0x40 } else { 0x50 };
        self.ack(out, first, id, code, reason);
    }

    /// PUBCOMP.
    pub fn complete(&self, out: &mut BytesMut, id: u16, code: u8) {
        self.ack(out, 0x70, id, code, None);
    }

    fn ack(&self, out: &mut BytesMut, first: u8, id: u16, code: u8, reason: Option<&str>) {
        let [high, low] = id.to_be_bytes();
        let reason = reason.filter(|_| self.version == Version::V5 && self.problem_info).map(|text| cut(text, 120));
        if let Some(text) = reason.filter(|text| text.len() + 16 <= self.packet_max as usize) {
            // At most 120 bytes of text: the properties' length fits one byte.
            let properties = 3 + text.len();
            out.put_u8(first);
            put_length(out, 4 + properties);
            out.put_slice(&[high, low, code, properties as u8, 0x1f]);
            out.put_u16(text.len() as u16);
            out.put_slice(text.as_bytes());
        } else if self.version == Version::V5 && code != code::SUCCESS {
            out.put_slice(&[first, 3, high, low, code]);
        } else {
            out.put_slice(&[first, 2, high, low]);
        }
    }

    /// SUBACK; `codes` are those of MQTT 5.
    pub fn subscribed(&self, out: &mut BytesMut, id: u16, codes: &[u8]) {
        let [high, low] = id.to_be_bytes();
        out.put_u8(0x90);
        put_length(out, 2 + usize::from(self.version == Version::V5) + codes.len());
        out.put_slice(&[high, low]);
        match self.version {
            Version::V5 => {
                out.put_u8(0);
                out.put_slice(codes);
            }
            Version::V311 => out.extend(codes.iter().map(|&code| code.min(0x80))),
            // It has no code for a refusal: granted, and nothing ever comes.
            Version::V31 => out.extend(codes.iter().map(|&code| if code >= 0x80 { 0 } else { code })),
        }
    }

    /// UNSUBACK.
    pub fn unsubscribed(&self, out: &mut BytesMut, id: u16, codes: &[u8]) {
        let [high, low] = id.to_be_bytes();
        out.put_u8(0xb0);
        if self.version == Version::V5 {
            put_length(out, 3 + codes.len());
            out.put_slice(&[high, low, 0]);
            out.put_slice(codes);
        } else {
            out.put_slice(&[2, high, low]);
        }
    }

    /// PINGRESP.
    pub fn pong(&self, out: &mut BytesMut) {
        out.put_slice(&[0xd0, 0]);
    }

    /// DISCONNECT, which servers have in MQTT 5 only.
    pub fn disconnect(&self, out: &mut BytesMut, code: u8, reason: &str) {
        if self.version != Version::V5 {
            return;
        }
        let Ok(reason_code) = v5::DisconnectReasonCode::try_from(code) else { return };
        let mut packet = v5::Disconnect::new(reason_code);
        if self.problem_info && !reason.is_empty() {
            packet.reason_string = Some(cut(reason, 200).into());
        }
        let before = out.len();
        self.v5(out, v5::Packet::Disconnect(packet));
        if out.len() == before {
            out.put_slice(&[0xe0, 1, code]);
        }
    }

    /// A message for the client. False if the client does not take so large a packet: it is then not written.
    pub fn publish(&self, out: &mut BytesMut, next: &Next) -> bool {
        let Next { order, id, dup, seconds_left } = next;
        let v5 = self.version == Version::V5;
        let mut len = 2 + order.topic.len() + if *id > 0 { 2 } else { 0 } + order.payload.len();
        if v5 {
            len += length_len(order.properties.len()) + order.properties.len();
        }
        if 1 + length_len(len) + len > self.packet_max as usize {
            // [MQTT-3.1.2-24], [MQTT-3.1.2-25] (5): not sent, and all goes on as if it had been.
            return false;
        }
        out.put_u8(0x30 | u8::from(*dup) << 3 | u8::from(*id > 0) << 1 | u8::from(order.retain));
        put_length(out, len);
        out.put_u16(order.topic.len() as u16);
        out.put_slice(order.topic.as_bytes());
        if *id > 0 {
            out.put_u16(*id);
        }
        if v5 {
            put_length(out, order.properties.len());
            let start = out.len();
            out.put_slice(&order.properties);
            if let Some(((_, place), seconds)) = order.expires.zip(*seconds_left) {
                let at = start + place as usize;
                out[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
            }
        }
        out.put_slice(&order.payload);
        true
    }
}

/// CONNACK of a refusal in the manner of 3.1 and 3.1.1.
pub fn refuse_v3(out: &mut BytesMut, code: u8) {
    out.put_slice(&[0x20, 2, 0, code]);
}

/// CONNACK of a refusal in the manner of 5.
pub fn refuse_v5(out: &mut BytesMut, code: u8, reason: &str) {
    let Ok(reason_code) = v5::ConnectAckReason::try_from(code) else {
        return out.put_slice(&[0x20, 3, 0, code, 0]);
    };
    let reason_string = Some(cut(reason, 200).into());
    let ack = v5::ConnectAck { reason_code, reason_string, ..v5::ConnectAck::default() };
    let form = Form { version: Version::V5, packet_max: u32::MAX, problem_info: true };
    form.v5(out, ack.into());
}

/// As much of `text` as fits.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn length_len(len: usize) -> usize {
    match len {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn put_length(out: &mut BytesMut, mut len: usize) {
    loop {
        let byte = (len & 0x7f) as u8;
        len >>= 7;
        if len == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}
