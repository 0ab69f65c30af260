//! What a host application says of itself (Eclipse Sparkplug specification 3.0, 6.4.28 "STATE"): `spBv1.0/STATE/<host>`,
//! JSON with `online` and `timestamp`, retained, QoS 1.

use serde::{Deserialize, Serialize};

/// The topic of the host `id`.
pub fn state_topic(id: &str) -> String {
    format!("{}/STATE/{id}", super::NAMESPACE)
}

/// What a host says; `timestamp` is that of its connection, in ms since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Whether it takes what edge nodes say.
    pub online: bool,
    /// Of two messages the one with the lower number is the older one.
    pub timestamp: i64,
}

impl HostState {
    /// As it is sent.
    pub fn payload(self) -> Vec<u8> {
        serde_json::to_vec(&self).expect("a truth value and a number are JSON")
    }

    /// `None` if it is something else.
    pub fn read(payload: &[u8]) -> Option<HostState> {
        serde_json::from_slice(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_the_specification_says() {
        assert_eq!(state_topic("eden"), "spBv1.0/STATE/eden");
        let state = HostState { online: true, timestamp: 1_780_272_000_000 };
        assert_eq!(state.payload(), br#"{"online":true,"timestamp":1780272000000}"#);
        let offline = HostState { online: false, timestamp: 7 };
        assert_eq!(HostState::read(br#" {"timestamp":7, "online":false, "more":[]}"#), Some(offline));
        for other in ["", "OFFLINE", "{}", "{\"online\":1,\"timestamp\":7}", "[false,7"] {
            assert_eq!(HostState::read(other.as_bytes()), None, "{other}");
        }
    }
}
