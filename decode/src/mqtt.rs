//! Packets from clients: bytes in, a checked packet out. MQTT 3.1, 3.1.1 and 5.
//!
//! Owns:     every rule about the form of one packet: header, flags, lengths, texts, properties.
//! Does not: know what came before in a connection, or write packets: the listener does (`ingest-server`).
//!
//! What the crate `rmqtt-codec` leaves unchecked is checked here, and each packet is read once: see
//! `docs/adr/0010-mqtt.md`.
//!
//! Invariants
//!  1. Nothing is allocated before a packet is there in full, and then nothing larger than it (P14).
//!  2. A packet is read to its last byte, or refused.

pub mod user_properties;

use std::str;

/// The longest fixed header: type, and a length of four bytes.
pub const HEAD_BYTES_MAX: usize = 5;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1, protocol level 3.
    V31,
    /// 3.1.1, protocol level 4.
    V311,
    /// 5.
    V5,
}

/// Reason codes of MQTT 5 that this server sends.
pub mod code {
    #![allow(missing_docs, reason = "the names are those of the standard")]
    pub const SUCCESS: u8 = 0x00;
    pub const WITH_WILL: u8 = 0x04;
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const IMPLEMENTATION: u8 = 0x83;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const BAD_CLIENT_ID: u8 = 0x85;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    pub const SHUTTING_DOWN: u8 = 0x8B;
    pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub const TAKEN_OVER: u8 = 0x8E;
    pub const TOPIC_FILTER_INVALID: u8 = 0x8F;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAX_EXCEEDED: u8 = 0x93;
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const SHARED_NOT_SUPPORTED: u8 = 0x9E;
    pub const SUBSCRIPTION_IDS_NOT_SUPPORTED: u8 = 0xA1;
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// What MQTT 5 calls it: see [`code`].
    pub code: u8,
    /// What is wrong, for people.
    pub what: &'static str,
}

const fn malformed(what: &'static str) -> Bad {
    Bad { code: code::MALFORMED, what }
}

/// An error of protocol rather than of form.
pub const fn protocol(what: &'static str) -> Bad {
    Bad { code: code::PROTOCOL_ERROR, what }
}

/// The fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Type and flags.
    pub first: u8,
    /// Bytes of the header itself.
    pub len: usize,
    /// Bytes behind it.
    pub body: usize,
}

impl Head {
    /// Bytes of the whole packet.
    pub fn total(&self) -> usize {
        self.len + self.body
    }
}

/// Reads the fixed header at the start of `bytes`; `None` if there is more to come.
///
/// # Errors
/// If no packet begins so, or it is larger than `packet_max` bytes.
pub fn head(bytes: &[u8], packet_max: usize, version: Option<Version>) -> Result<Option<Head>, Bad> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    check_flags(first, version)?;
    let mut body = 0_usize;
    for (i, &byte) in rest.iter().take(4).enumerate() {
        body |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            // Only MQTT 5 demands the shortest form, and CONNECT is refused for it by nobody.
            if version == Some(Version::V5) && i > 0 && byte == 0 {
                return Err(malformed("the remaining length is not in its shortest form"));
            }
            let head = Head { first, len: i + 2, body };
            if head.total() > packet_max {
                return Err(Bad { code: code::TOO_LARGE, what: "the packet is larger than allowed" });
            }
            return Ok(Some(head));
        }
    }
    if rest.len() >= 4 { Err(malformed("the remaining length has more than four bytes")) } else { Ok(None) }
}

/// Types of packets, the high half of the first byte.
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREC: u8 = 5;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const PUBCOMP: u8 = 7;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const DISCONNECT: u8 = 14;
    pub(super) const AUTH: u8 = 15;
}

fn check_flags(first: u8, version: Option<Version>) -> Result<(), Bad> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let Some(version) = version else {
        return match (kind, flags) {
            (kind::CONNECT, 0) => Ok(()),
            (kind::CONNECT, _) => Err(malformed("reserved flags of the header are set")),
            _ => Err(protocol("the first packet is not CONNECT")),
        };
    };
    let right = match kind {
        kind::PUBLISH => return Ok(()),
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
        kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::PINGREQ | kind::DISCONNECT => 0,
        kind::CONNECT => return Err(protocol("a second CONNECT")),
        kind::AUTH if version == Version::V5 => return Err(protocol("AUTH, and no authentication is going on")),
        0 | kind::AUTH => return Err(malformed("there is no such type of packet")),
        _ => return Err(protocol("a packet that only servers send")),
    };
    // MQTT 3.1 has a DUP flag there, and says nothing about the others.
    if flags == right || version == Version::V31 && flags & !0x08 == right {
        Ok(())
    } else {
        Err(malformed("reserved flags of the header are set"))
    }
}

/// A packet of a connected client.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A message.
    Publish(Publish<'a>),
    /// The client has a message of ours, QoS 1.
    PubAck(u16),
    /// The client has a message of ours, QoS 2: we never send those.
    PubRec(u16),
    /// The client has our PUBREC.
    PubRel(u16),
    /// The end of a QoS 2 message of ours.
    PubComp(u16),
    /// Filters and what is wanted of each.
    Subscribe(u16, Vec<Wanted<'a>>),
    /// Filters.
    Unsubscribe(u16, Vec<&'a str>),
    /// Are you there?
    PingReq,
    /// The client goes.
    Disconnect {
        /// MQTT 5: 4 asks for the will; else 0.
        code: u8,
        /// MQTT 5: a new session expiry interval.
        session_expiry: Option<u32>,
    },
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// It may have been sent before.
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// It is to be kept for later subscribers.
    pub retain: bool,
    /// Where it goes.
    pub topic: &'a str,
    /// 0 with QoS 0.
    pub id: u16,
    /// MQTT 5: its properties as they came, without their length; to be sent on unaltered.
    pub properties: &'a [u8],
    /// MQTT 5: seconds after which it is of no use, and where in `properties` they stand.
    pub expiry: Option<(u32, usize)>,
    /// MQTT 5: a short name for the topic, and where in `properties` it stands, with its identifier. The topic may be
    /// empty then.
    pub alias: Option<(u16, usize)>,
    /// What it says.
    pub payload: &'a [u8],
}

/// A subscription as asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its filter.
    pub filter: &'a str,
    /// The highest QoS wanted.
    pub qos: u8,
    /// Not what this client says itself.
    pub no_local: bool,
    /// MQTT 5: messages keep their flag RETAIN.
    pub retain_as_published: bool,
    /// Which retained messages are wanted at once.
    pub retained: Retained,
}

/// Which retained messages a subscription wants at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Those that it takes.
    Always,
    /// The same, if the subscription is new.
    IfNew,
    /// None.
    Never,
}

/// Reads a packet that is there in full; [`head`] has read `head`.
///
/// # Errors
/// If it breaks a rule.
pub fn packet<'a>(head: &Head, body: &'a [u8], version: Version) -> Result<Packet<'a>, Bad> {
    let v5 = version == Version::V5;
    let mut at = Cursor { rest: body };
    let packet = match head.first >> 4 {
        kind::PUBLISH => return publish(head.first, at, v5).map(Packet::Publish),
        kind::PUBACK => Packet::PubAck(ack(&mut at, v5, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])?),
        kind::PUBREC => Packet::PubRec(ack(&mut at, v5, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])?),
        kind::PUBREL => Packet::PubRel(ack(&mut at, v5, &[0x00, 0x92])?),
        kind::PUBCOMP => Packet::PubComp(ack(&mut at, v5, &[0x00, 0x92])?),
        kind::SUBSCRIBE => subscribe(&mut at, v5)?,
        kind::UNSUBSCRIBE => unsubscribe(&mut at, v5)?,
        kind::PINGREQ => Packet::PingReq,
        _ => disconnect(&mut at, v5)?,
    };
    at.end()?;
    Ok(packet)
}

fn publish(first: u8, mut at: Cursor<'_>, v5: bool) -> Result<Publish<'_>, Bad> {
    let (dup, qos, retain) = (first & 0x08 != 0, first >> 1 & 0x03, first & 0x01 != 0);
    if qos == 3 {
        return Err(malformed("QoS 3"));
    }
    if dup && qos == 0 {
        return Err(malformed("DUP with QoS 0"));
    }
    let topic = at.text()?;
    if topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(Bad { code: code::TOPIC_NAME_INVALID, what: "a wildcard in a topic name" });
    }
    let id = if qos == 0 { 0 } else { at.id()? };
    let (mut properties_as_they_came, mut expiry, mut alias) = (&b""[..], None, None);
    if v5 {
        let before = at.rest;
        let properties = at.properties(Property::PUBLISH)?;
        let all = &before[..before.len() - at.rest.len()];
        properties_as_they_came = &all[all.len() - properties.len..];
        expiry = properties.message_expiry;
        alias = properties.alias;
        if topic.is_empty() && alias.is_none() {
            return Err(protocol("no topic"));
        }
    } else if topic.is_empty() {
        return Err(malformed("no topic"));
    }
    Ok(Publish { dup, qos, retain, topic, id, properties: properties_as_they_came, expiry, alias, payload: at.rest })
}

/// Packet id, and for MQTT 5 a reason and properties.
fn ack(at: &mut Cursor<'_>, v5: bool, codes: &[u8]) -> Result<u16, Bad> {
    let id = at.id()?;
    if v5 && !at.rest.is_empty() {
        if !codes.contains(&at.byte()?) {
            return Err(malformed("there is no such reason code"));
        }
        if !at.rest.is_empty() {
            at.properties(Property::ACK)?;
        }
    }
    Ok(id)
}

fn subscribe<'a>(at: &mut Cursor<'a>, v5: bool) -> Result<Packet<'a>, Bad> {
    let id = at.id()?;
    if v5 {
        at.properties(Property::SUBSCRIBE)?;
    }
    let mut wanted = Vec::new();
    while !at.rest.is_empty() {
        let filter = at.text()?;
        let options = at.byte()?;
        let (qos, reserved) = (options & 0x03, if v5 { 0xc0 } else { 0xfc });
        if qos == 3 || options & reserved != 0 || v5 && options & 0x30 == 0x30 {
            return Err(malformed("the options of a subscription"));
        }
        if options & 0x04 != 0 && filter.starts_with("$share/") {
            return Err(protocol("No Local on a shared subscription"));
        }
        let retained = match options >> 4 & 0x03 {
            0 => Retained::Always,
            1 => Retained::IfNew,
            _ => Retained::Never,
        };
        let (no_local, retain_as_published) = (options & 0x04 != 0, options & 0x08 != 0);
        wanted.push(Wanted { filter, qos, no_local, retain_as_published, retained });
    }
    if wanted.is_empty() {
        return Err(protocol("SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe(id, wanted))
}

fn unsubscribe<'a>(at: &mut Cursor<'a>, v5: bool) -> Result<Packet<'a>, Bad> {
    let id = at.id()?;
    if v5 {
        at.properties(Property::USER_ONLY)?;
    }
    let mut filters = Vec::new();
    while !at.rest.is_empty() {
        filters.push(at.text()?);
    }
    if filters.is_empty() {
        return Err(protocol("UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe(id, filters))
}

fn disconnect<'a>(at: &mut Cursor<'a>, v5: bool) -> Result<Packet<'a>, Bad> {
    let mut code = 0;
    let mut session_expiry = None;
    if v5 && !at.rest.is_empty() {
        code = at.byte()?;
        let from_clients =
            [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99].contains(&code);
        if !from_clients {
            return Err(malformed("there is no such reason code"));
        }
        if !at.rest.is_empty() {
            session_expiry = at.properties(Property::DISCONNECT)?.session_expiry;
        }
    }
    Ok(Packet::Disconnect { code, session_expiry })
}

/// What a client says first.
#[derive(Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Of the protocol.
    pub version: Version,
    /// Clean Session, or Clean Start.
    pub clean: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// May be empty.
    pub client_id: &'a str,
    /// What to publish if the connection ends without DISCONNECT.
    pub will: Option<Will<'a>>,
    /// MQTT 5: it wants a session to be kept for so many seconds.
    pub session_expiry: u32,
    /// Messages of ours that it takes at a time.
    pub receive_max: u16,
    /// The largest packet that it takes.
    pub packet_max: u32,
    /// MQTT 5: it wants reason strings.
    pub problem_info: bool,
}

/// A will.
#[derive(Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Closed without an answer: it may not be MQTT at all.
    Close(Bad),
    /// Answered in the manner of 3.1 and 3.1.1, with this return code.
    V3(u8, &'static str),
    /// Answered in the manner of 5.
    V5(Bad),
}

impl Refusal {
    /// For people.
    pub fn what(&self) -> &'static str {
        match self {
            Refusal::V3(_, what) => what,
            Refusal::Close(bad) | Refusal::V5(bad) => bad.what,
        }
    }
}

/// Reads CONNECT.
///
/// # Errors
/// Says how to refuse it.
pub fn connect(body: &[u8]) -> Result<Connect<'_>, Refusal> {
    let mut at = Cursor { rest: body };
    let name = at.binary().map_err(Refusal::Close)?;
    let level = at.byte().map_err(Refusal::Close)?;
    let version = match (name, level) {
        (b"MQIsdp", 3) => Version::V31,
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT", 6..) => {
            let what = "a version of MQTT that is not known";
            return Err(Refusal::V5(Bad { code: code::UNSUPPORTED_VERSION, what }));
        }
        (b"MQIsdp" | b"MQTT", _) => return Err(Refusal::V3(1, "a version of MQTT that is not known")),
        _ => return Err(Refusal::Close(protocol("it is not MQTT"))),
    };
    let connect = if version == Version::V5 {
        connect_rest(at, version).map_err(Refusal::V5)?
    } else {
        connect_rest(at, version).map_err(Refusal::Close)?
    };
    if version != Version::V5 && connect.client_id.is_empty() && (version == Version::V31 || !connect.clean) {
        return Err(Refusal::V3(2, "a session is to be kept for a client without an id"));
    }
    Ok(connect)
}

fn connect_rest(mut at: Cursor<'_>, version: Version) -> Result<Connect<'_>, Bad> {
    let v5 = version == Version::V5;
    let flags = at.byte()?;
    let (name, password, will) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0x04 != 0);
    let (will_retain, will_qos, clean) = (flags & 0x20 != 0, flags >> 3 & 0x03, flags & 0x02 != 0);
    if flags & 0x01 != 0 && version != Version::V31 {
        return Err(malformed("the reserved flag of CONNECT is set"));
    }
    if will_qos == 3 || !will && (will_qos != 0 || will_retain) {
        return Err(malformed("the flags of the will"));
    }
    if password && !name && !v5 {
        return Err(malformed("a password without a user name"));
    }
    let keep_alive = at.number()?;
    let properties = if v5 { at.properties(Property::CONNECT)? } else { Properties::default() };
    if properties.authentication_data && !properties.authentication_method {
        return Err(protocol("authentication data without a method"));
    }
    let client_id = at.text()?;
    let will = if will {
        if v5 {
            at.properties(Property::WILL)?;
        }
        let topic = at.text()?;
        if topic.is_empty() || topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
            return Err(Bad { code: code::TOPIC_NAME_INVALID, what: "the topic of the will" });
        }
        Some(Will { topic, payload: at.binary()?, qos: will_qos })
    } else {
        None
    };
    if name {
        at.text()?;
    }
    if password {
        at.binary()?;
    }
    at.end()?;
    if properties.authentication_method {
        let what = "there is no enhanced authentication";
        return Err(Bad { code: code::BAD_AUTHENTICATION_METHOD, what });
    }
    Ok(Connect {
        version,
        clean,
        keep_alive,
        client_id,
        will,
        session_expiry: properties.session_expiry.unwrap_or(0),
        receive_max: properties.receive_max.unwrap_or(u16::MAX),
        packet_max: properties.packet_max.unwrap_or(u32::MAX),
        problem_info: properties.problem_info.unwrap_or(true),
    })
}

/// What this server wants to know of a packet's properties.
#[derive(Default)]
struct Properties {
    len: usize,
    alias: Option<(u16, usize)>,
    message_expiry: Option<(u32, usize)>,
    authentication_method: bool,
    authentication_data: bool,
    session_expiry: Option<u32>,
    receive_max: Option<u16>,
    packet_max: Option<u32>,
    problem_info: Option<bool>,
}

/// Identifiers of properties, by the packets that may have them.
struct Property;

impl Property {
    const CONNECT: &'static [u8] = &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27];
    const WILL: &'static [u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26];
    const PUBLISH: &'static [u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];
    const ACK: &'static [u8] = &[0x1f, 0x26];
    const SUBSCRIBE: &'static [u8] = &[0x0b, 0x26];
    const USER_ONLY: &'static [u8] = &[0x26];
    const DISCONNECT: &'static [u8] = &[0x11, 0x1f, 0x26];
    /// The only one that may stand several times in these packets.
    const USER: u8 = 0x26;
}

/// What is left of a packet.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(malformed("the packet is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Bad> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<u16, Bad> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn long(&mut self) -> Result<u32, Bad> {
        self.take(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn id(&mut self) -> Result<u16, Bad> {
        match self.number()? {
            0 => Err(protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], Bad> {
        let len = self.number()?;
        self.take(usize::from(len))
    }

    fn text(&mut self) -> Result<&'a str, Bad> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(malformed("a text with U+0000"));
        }
        // UTF-8 as Rust reads it has no surrogates.
        str::from_utf8(bytes).map_err(|_| malformed("a text that is not UTF-8"))
    }

    fn flag(&mut self) -> Result<bool, Bad> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(protocol("a property that is neither 0 nor 1")),
        }
    }

    /// A number of one to four bytes.
    fn variable(&mut self) -> Result<u32, Bad> {
        let mut number = 0;
        for i in 0..4 {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                if i > 0 && byte == 0 {
                    return Err(malformed("a length that is not in its shortest form"));
                }
                return Ok(number);
            }
        }
        Err(malformed("a length of more than four bytes"))
    }

    fn properties(&mut self, allowed: &[u8]) -> Result<Properties, Bad> {
        let len = self.variable()?;
        let mut at = Cursor { rest: self.take(len as usize)? };
        let mut properties = Properties { len: len as usize, ..Properties::default() };
        let mut seen = 0_u64;
        while !at.rest.is_empty() {
            let id = at.byte()?;
            if !allowed.contains(&id) {
                return Err(if (0x01..=0x2a).contains(&id) {
                    protocol("a property that this packet cannot have")
                } else {
                    malformed("there is no such property")
                });
            }
            if id != Property::USER && seen & 1 << id != 0 {
                return Err(protocol("a property stands twice"));
            }
            seen |= 1 << id;
            match id {
                0x01 | 0x19 => drop(at.flag()?),
                0x02 => {
                    let place = properties.len - at.rest.len();
                    properties.message_expiry = Some((at.long()?, place));
                }
                0x18 => drop(at.long()?),
                0x03 | 0x1f => drop(at.text()?),
                0x08 => {
                    let topic = at.text()?;
                    if topic.is_empty() || topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
                        return Err(protocol("the response topic"));
                    }
                }
                0x09 => drop(at.binary()?),
                0x0b => {
                    at.variable()?;
                    let what = "subscription identifiers are not supported";
                    return Err(Bad { code: code::SUBSCRIPTION_IDS_NOT_SUPPORTED, what });
                }
                0x11 => properties.session_expiry = Some(at.long()?),
                0x15 => {
                    at.text()?;
                    properties.authentication_method = true;
                }
                0x16 => {
                    at.binary()?;
                    properties.authentication_data = true;
                }
                0x17 => properties.problem_info = Some(at.flag()?),
                0x21 => match at.number()? {
                    0 => return Err(protocol("Receive Maximum 0")),
                    max => properties.receive_max = Some(max),
                },
                0x22 => drop(at.number()?),
                0x23 => {
                    let place = properties.len - at.rest.len() - 1;
                    properties.alias = Some((at.number()?, place));
                }
                0x27 => match at.long()? {
                    0 => return Err(protocol("Maximum Packet Size 0")),
                    max => properties.packet_max = Some(max),
                },
                _ => {
                    at.text()?;
                    at.text()?;
                }
            }
        }
        Ok(properties)
    }

    fn end(&self) -> Result<(), Bad> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed("bytes behind the end of the packet")) }
    }
}
