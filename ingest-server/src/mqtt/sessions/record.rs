//! The bytes in which sessions are kept: `docs/formats/mqtt-sessions.md`.
//!
//! Owns:     encoding changes, and reading them back with every length checked (P14).
//! Does not: read or write files (`keeper`), or know what a change means (`restore`).

use std::sync::Arc;

use bytes::Bytes;

use super::session::{Order, Queued, Session, Subscription};

/// The version of a record.
const VERSION: u8 = 1;

const PUT: u8 = 1;
const QUEUE: u8 = 2;
const DONE: u8 = 3;
const DROP: u8 = 4;
const AWAY: u8 = 5;
const RETAIN: u8 = 6;
const FORGET: u8 = 7;
const BEGIN: u8 = 8;
const END: u8 = 9;

/// What happened, as it is read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A session is so, whatever it was.
    Put { client: Arc<str>, session: Stored },
    /// A command waits in a session.
    Queue { client: Arc<str>, queued: Queued },
    /// A command of a session is done with.
    Done { client: Arc<str>, id: u16 },
    /// A session has ended.
    Drop { client: Arc<str> },
    /// The connection of a session has ended.
    Away { client: Arc<str>, since_us: i64, expiry: u32 },
    /// A command is retained on its topic.
    Retain { client: Arc<str>, order: Order },
    /// Nothing is retained on a topic any more.
    Forget { client: Arc<str>, topic: Box<str> },
    /// All that is known follows, up to [`Change::End`]; what came before is of no account then.
    Begin,
    /// See [`Change::Begin`].
    End,
}

/// A session as it is read back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) expiry: u32,
    /// `None`: a connection had it.
    pub(super) away_since_us: Option<i64>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) orders: Vec<Queued>,
}

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A later version has written it (P13).
    Newer(u8),
    /// It is damaged.
    Malformed,
}

/// Records in the making.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<Vec<u8>>);

/// Bytes of a record from which on another one is begun.
const RECORD_BYTES: usize = 256 << 10;

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    pub(super) fn into_inner(self) -> Vec<Vec<u8>> {
        self.0
    }

    fn add(&mut self, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.0.last().is_none_or(|record| record.len() >= RECORD_BYTES) {
            self.0.push(vec![VERSION]);
        }
        let record = self.0.last_mut().expect("there is one by now");
        let start = record.len();
        record.extend_from_slice(&[0; 4]);
        record.push(kind);
        fill(record);
        let len = (record.len() - start - 4) as u32;
        record[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    pub(super) fn put(&mut self, client: &str, session: &Session) {
        self.add(PUT, |bytes| {
            text(bytes, client);
            bytes.extend_from_slice(&session.expiry.to_le_bytes());
            let is_away = session.link.is_none();
            bytes.push(u8::from(is_away));
            bytes.extend_from_slice(&session.away_since_us.to_le_bytes());
            bytes.extend_from_slice(&(session.subscriptions.len() as u32).to_le_bytes());
            for found in &session.subscriptions {
                text(bytes, &found.filter);
                bytes.push(found.qos | u8::from(found.no_local) << 2 | u8::from(found.retain_as_published) << 3);
            }
            let orders = || session.orders.iter().filter(|queued| queued.id > 0);
            bytes.extend_from_slice(&(orders().count() as u32).to_le_bytes());
            orders().for_each(|order| queued(bytes, order, !is_away));
        });
    }

    pub(super) fn queue(&mut self, client: &str, order: &Queued, may_be_sent: bool) {
        self.add(QUEUE, |bytes| {
            text(bytes, client);
            queued(bytes, order, may_be_sent);
        });
    }

    pub(super) fn done(&mut self, client: &str, id: u16) {
        self.add(DONE, |bytes| {
            text(bytes, client);
            bytes.extend_from_slice(&id.to_le_bytes());
        });
    }

    pub(super) fn drop_session(&mut self, client: &str) {
        self.add(DROP, |bytes| text(bytes, client));
    }

    pub(super) fn away(&mut self, client: &str, since_us: i64, expiry: u32) {
        self.add(AWAY, |bytes| {
            text(bytes, client);
            bytes.extend_from_slice(&since_us.to_le_bytes());
            bytes.extend_from_slice(&expiry.to_le_bytes());
        });
    }

    pub(super) fn retain(&mut self, client: &str, retained: &Order) {
        self.add(RETAIN, |bytes| {
            text(bytes, client);
            order(bytes, retained);
        });
    }

    pub(super) fn forget(&mut self, client: &str, topic: &str) {
        self.add(FORGET, |bytes| {
            text(bytes, client);
            text(bytes, topic);
        });
    }

    pub(super) fn begin(&mut self) {
        self.add(BEGIN, |_| {});
    }

    pub(super) fn end(&mut self) {
        self.add(END, |_| {});
    }
}

fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    part(bytes, text.as_bytes());
}

fn order(bytes: &mut Vec<u8>, order: &Order) {
    bytes.push(order.qos | u8::from(order.retain) << 2 | u8::from(order.expires.is_some()) << 3);
    if let Some((at, place)) = order.expires {
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&place.to_le_bytes());
    }
    text(bytes, &order.topic);
    part(bytes, &order.properties);
    part(bytes, &order.payload);
}

fn queued(bytes: &mut Vec<u8>, queued: &Queued, may_be_sent: bool) {
    bytes.extend_from_slice(&queued.id.to_le_bytes());
    bytes.push(u8::from(queued.dup || queued.is_flying || may_be_sent));
    order(bytes, &queued.order);
}

/// Reads a record.
pub(super) fn decode(record: &[u8]) -> Result<Vec<Change>, Unreadable> {
    let mut at = Reader(record);
    match at.chunk()? {
        [VERSION] => {}
        [version] => return Err(Unreadable::Newer(version)),
    }
    let mut changes = Vec::new();
    while !at.0.is_empty() {
        let mut one = Reader(at.part()?);
        changes.push(one.change()?);
        if !one.0.is_empty() {
            return Err(Unreadable::Malformed);
        }
    }
    Ok(changes)
}

/// Reads forward; every read fails past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable::Malformed)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn long(&mut self) -> Result<u32, Unreadable> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn part(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = self.long()? as usize;
        let (part, rest) = self.0.split_at_checked(len).ok_or(Unreadable::Malformed)?;
        self.0 = rest;
        Ok(part)
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        str::from_utf8(self.part()?).map_err(|_| Unreadable::Malformed)
    }

    fn change(&mut self) -> Result<Change, Unreadable> {
        let [kind] = self.chunk()?;
        match kind {
            BEGIN => return Ok(Change::Begin),
            END => return Ok(Change::End),
            PUT..=FORGET => {}
            _ => return Err(Unreadable::Newer(VERSION)),
        }
        let client = self.text()?.into();
        Ok(match kind {
            PUT => Change::Put { client, session: self.session()? },
            QUEUE => Change::Queue { client, queued: self.queued()? },
            DONE => Change::Done { client, id: u16::from_le_bytes(self.chunk()?) },
            DROP => Change::Drop { client },
            AWAY => Change::Away { client, since_us: i64::from_le_bytes(self.chunk()?), expiry: self.long()? },
            RETAIN => Change::Retain { client, order: self.order()? },
            _ => Change::Forget { client, topic: self.text()?.into() },
        })
    }

    fn session(&mut self) -> Result<Stored, Unreadable> {
        let expiry = self.long()?;
        let [is_away] = self.chunk()?;
        let since_us = i64::from_le_bytes(self.chunk()?);
        let mut stored = Stored { expiry, away_since_us: (is_away > 0).then_some(since_us), ..Stored::default() };
        // Not reserved: a number is not trusted before its entries are there.
        for _ in 0..self.long()? {
            let filter = self.text()?.into();
            let [flags] = self.chunk()?;
            stored.subscriptions.push(Subscription {
                filter,
                qos: flags & 0x03,
                no_local: flags & 0x04 != 0,
                retain_as_published: flags & 0x08 != 0,
            });
        }
        for _ in 0..self.long()? {
            stored.orders.push(self.queued()?);
        }
        Ok(stored)
    }

    fn queued(&mut self) -> Result<Queued, Unreadable> {
        let id = u16::from_le_bytes(self.chunk()?);
        let [dup] = self.chunk()?;
        Ok(Queued { id, dup: dup > 0, is_flying: false, order: Arc::new(self.order()?) })
    }

    fn order(&mut self) -> Result<Order, Unreadable> {
        let [flags] = self.chunk()?;
        let expires = if flags & 0x08 != 0 { Some((i64::from_le_bytes(self.chunk()?), self.long()?)) } else { None };
        let topic = self.text()?.into();
        let properties: Box<[u8]> = self.part()?.into();
        let payload = Bytes::copy_from_slice(self.part()?);
        if expires.is_some_and(|(_, place)| properties.len() < place as usize + 4) {
            return Err(Unreadable::Malformed);
        }
        Ok(Order { topic, properties, expires, payload, qos: flags & 0x03, retain: flags & 0x04 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use model::{Rng as _, SplitMix64};

    use super::*;

    fn some_records() -> Vec<Vec<u8>> {
        let order = Order {
            topic: "eden/v1/pi/cmd/x".into(),
            properties: vec![0x02, 0, 0, 0, 9].into(),
            expires: Some((1_780_272_000_000_000, 1)),
            payload: Bytes::from_static(b"go"),
            qos: 1,
            retain: true,
        };
        let mut session = Session { expiry: 60, away_since_us: 7, ..Session::default() };
        let filter = "eden/v1/pi/cmd/#".into();
        session.subscriptions.push(Subscription { filter, qos: 1, no_local: true, retain_as_published: true });
        session.push(Arc::new(order.clone()));
        let mut records = Records::default();
        records.begin();
        records.put("pi", &session);
        records.retain("pi", &order);
        records.end();
        records.queue("pi", &session.orders[0], true);
        records.done("pi", 1);
        records.away("pi", 8, 61);
        records.forget("pi", "eden/v1/pi/cmd/x");
        records.drop_session("pi");
        records.into_inner()
    }

    #[test]
    fn changes_are_read_as_they_were_written() {
        let records = some_records();
        let changes = decode(&records[0]).unwrap();
        let [Change::Begin, Change::Put { session, .. }, Change::Retain { order, .. }, Change::End, rest @ ..] =
            &changes[..]
        else {
            panic!("{changes:?}")
        };
        assert_eq!((session.expiry, session.away_since_us, session.subscriptions.len()), (60, Some(7), 1));
        assert!(session.subscriptions[0].no_local && session.subscriptions[0].retain_as_published);
        assert!(!session.orders[0].dup, "nobody was there to send it to");
        assert_eq!(*session.orders[0].order, *order);
        let [Change::Queue { queued, .. }, done, away, forget, drop] = rest else { panic!("{rest:?}") };
        assert!(queued.dup, "it may have been sent");
        let client = || Arc::from("pi");
        assert_eq!(*done, Change::Done { client: client(), id: 1 });
        assert_eq!(*away, Change::Away { client: client(), since_us: 8, expiry: 61 });
        assert_eq!(*forget, Change::Forget { client: client(), topic: "eden/v1/pi/cmd/x".into() });
        assert_eq!(*drop, Change::Drop { client: client() });
    }

    #[test]
    fn damaged_records_are_refused_and_newer_ones_told_apart() {
        let record = some_records().remove(0);
        let mut newer = record.clone();
        newer[0] = 2;
        assert_eq!(decode(&newer), Err(Unreadable::Newer(2)));
        for cut in 0..record.len() {
            // A record may end between two changes.
            if let Ok(changes) = decode(&record[..cut]) {
                assert!(changes.len() < 9, "{cut}");
            }
        }
        let rng = SplitMix64::new(0x5eed_0024);
        for _ in 0..20_000 {
            let mut bytes = record.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            let _ = decode(&bytes);
        }
    }
}
