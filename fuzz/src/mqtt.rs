//! Packets of MQTT. The first byte is the version; then what a client sends.

use decode::mqtt::{self, Packet, Version, user_properties};

use crate::memory::within;

const PACKET_BYTES_MAX: usize = 1 << 20;

/// Packet by packet, until one is not good.
pub fn check(bytes: &[u8]) {
    let Some((&which, mut rest)) = bytes.split_first() else { return };
    let version = [None, Some(Version::V31), Some(Version::V311), Some(Version::V5)][usize::from(which % 4)];
    while let Ok(Some(head)) = mqtt::head(rest, PACKET_BYTES_MAX, version) {
        assert!(head.total() <= PACKET_BYTES_MAX && head.len <= mqtt::HEAD_BYTES_MAX);
        let Some(body) = rest.get(head.len..head.total()) else { break };
        // A filter of one character takes four bytes there and a reference and its options here.
        let bound = 512 + 64 * body.len();
        let Some(version) = version else {
            let _ = within(bound, || mqtt::connect(body).map(drop));
            break;
        };
        let Ok(packet) = within(bound, || mqtt::packet(&head, body, version)) else { break };
        if let Packet::Publish(publish) = packet {
            assert!(!(publish.topic.contains('\0') || publish.topic.contains(['+', '#'])), "{:?}", publish.topic);
            assert!(publish.topic.len() + publish.properties.len() + publish.payload.len() <= body.len());
            let pairs = within(bound, || user_properties::read(publish.properties));
            assert!(pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= body.len());
        }
        rest = &rest[head.total()..];
    }
}
