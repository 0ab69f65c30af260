//! Messages from clients, out of bytes that nobody has checked.
//!
//! Owns:     the bounds of what is read, and where one message ends.
//! Does not: read from sockets (`socket` does) or know what a message asks for.
//!
//! The library's own reader trusts the counts and lengths inside of a message and panics where they are wrong, so what
//! clients send is read here. Source of the layouts: PostgreSQL's documentation, "Message Formats".
//!
//! Invariant: nothing is allocated for what a message announces, only for what it holds (P14).

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

/// The first message of a client: nobody is known yet.
pub const STARTUP_BYTES_MAX: usize = 10_000;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// What is wrong with bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// They are no message.
    #[error("{0}")]
    Malformed(&'static str),
    /// The message is larger than any may be.
    #[error("a message of {bytes} bytes is larger than the {limit} bytes of [postgres] max_message_bytes")]
    TooLarge {
        /// As it announces itself.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSSAPI.
    Gss,
    /// Another connection's statement is to end.
    Cancel {
        /// Which.
        process: i32,
        /// What only its client knows.
        secret: Vec<u8>,
    },
    /// A session begins.
    Startup {
        /// Major and minor version of the protocol.
        version: (u16, u16),
        /// What the client says of itself.
        parameters: BTreeMap<String, String>,
    },
}

/// A message of a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Statements, in the simple protocol.
    Query(String),
    /// Prepares a statement.
    Parse {
        /// Its name; empty for the one without.
        name: String,
        /// Its text.
        sql: String,
        /// Types of its parameters; 0 where the server is to say.
        types: Vec<u32>,
    },
    /// Gives a statement its parameters.
    Bind(Bind),
    /// Asks for the columns of a statement or portal.
    Describe(Target),
    /// Runs a portal.
    Execute {
        /// Its name.
        portal: String,
        /// Rows at most; 0: all.
        rows_max: u32,
    },
    /// Forgets a statement or portal.
    Close(Target),
    /// Ends a series of these.
    Sync,
    /// Asks for what is answered so far.
    Flush,
    /// Ends the connection.
    Terminate,
    /// A part of what is copied in.
    CopyData(Bytes),
    /// The end of it.
    CopyDone,
    /// The client gives up, and why.
    CopyFail(String),
    /// Part of a login.
    Password(Bytes),
}

/// A statement with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    /// The portal's name.
    pub portal: String,
    /// The statement's.
    pub statement: String,
    /// Whether each parameter is binary: for none, for all, or one by one.
    pub parameter_formats: Vec<i16>,
    /// The parameters; `None` is null.
    pub parameters: Vec<Option<Bytes>>,
    /// As `parameter_formats`, of the columns.
    pub result_formats: Vec<i16>,
}

/// A prepared statement or a portal, by name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// Takes the first message off `bytes`, if all of it is there.
///
/// # Errors
/// [`Bad`]: the connection ends.
pub fn opening(bytes: &mut BytesMut) -> Result<Option<Opening>, Bad> {
    let Some(body) = take(bytes, 0, STARTUP_BYTES_MAX)? else { return Ok(None) };
    let mut body = Fields(body);
    let code = body.u32()?;
    Ok(Some(match code {
        SSL_REQUEST => Opening::Ssl,
        GSS_REQUEST => Opening::Gss,
        CANCEL_REQUEST => Opening::Cancel { process: body.u32()?.cast_signed(), secret: body.0.to_vec() },
        _ => {
            let version = ((code >> 16) as u16, (code & 0xffff) as u16);
            let mut parameters = BTreeMap::new();
            if version.0 == 3 {
                loop {
                    let name = body.text()?;
                    if name.is_empty() {
                        break;
                    }
                    parameters.insert(name, body.text()?);
                }
            }
            Opening::Startup { version, parameters }
        }
    }))
}

/// Takes the next message off `bytes`, if all of it is there. One of more than `bytes_max` is refused by its head.
///
/// # Errors
/// [`Bad`]: what follows cannot be told apart, so the connection ends.
pub fn message(bytes: &mut BytesMut, bytes_max: usize) -> Result<Option<Message>, Bad> {
    let Some(kind) = bytes.first().copied() else { return Ok(None) };
    if !b"QPBDECSHXdcfp".contains(&kind) {
        return Err(Bad::Malformed("a message of a kind that does not exist"));
    }
    let Some(body) = take(bytes, 1, bytes_max)? else { return Ok(None) };
    let mut body = Fields(body);
    let message = match kind {
        b'Q' => Message::Query(body.text()?),
        b'P' => {
            let (name, sql) = (body.text()?, body.text()?);
            Message::Parse { name, sql, types: body.list(4, Fields::u32)? }
        }
        b'B' => Message::Bind(Bind {
            portal: body.text()?,
            statement: body.text()?,
            parameter_formats: body.list(2, Fields::i16)?,
            parameters: body.list(4, Fields::value)?,
            result_formats: body.list(2, Fields::i16)?,
        }),
        b'D' => Message::Describe(body.target()?),
        b'E' => Message::Execute { portal: body.text()?, rows_max: body.u32()? },
        b'C' => Message::Close(body.target()?),
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'X' => Message::Terminate,
        b'd' => Message::CopyData(std::mem::take(&mut body.0)),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(body.text()?),
        _ => Message::Password(std::mem::take(&mut body.0)),
    };
    if !body.0.is_empty() {
        return Err(Bad::Malformed("a message with something behind its end"));
    }
    Ok(Some(message))
}

/// Takes off a message whose length stands behind `head` bytes; gives what follows the length.
fn take(bytes: &mut BytesMut, head: usize, bytes_max: usize) -> Result<Option<Bytes>, Bad> {
    let Some(length) = bytes.get(head..head + 4) else { return Ok(None) };
    let length = length.try_into().map_or(0, u32::from_be_bytes) as usize;
    if length < 4 {
        return Err(Bad::Malformed("a message whose length is less than that of its head"));
    }
    if length > bytes_max {
        return Err(Bad::TooLarge { bytes: length, limit: bytes_max });
    }
    if bytes.len() < head + length {
        // No more than what one message needs is kept ahead.
        bytes.reserve((head + length - bytes.len()).min(64 << 10));
        return Ok(None);
    }
    let mut message = bytes.split_to(head + length).freeze();
    message.advance(head + 4);
    Ok(Some(message))
}

/// The rest of a message.
struct Fields(Bytes);

impl Fields {
    fn need(&self, bytes: usize) -> Result<(), Bad> {
        if self.0.len() < bytes { Err(Bad::Malformed("a message that ends too early")) } else { Ok(()) }
    }

    fn u32(&mut self) -> Result<u32, Bad> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    fn i16(&mut self) -> Result<i16, Bad> {
        self.need(2)?;
        Ok(self.0.get_i16())
    }

    fn text(&mut self) -> Result<String, Bad> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Bad::Malformed("a text without its end"))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.into()).map_err(|_| Bad::Malformed("a text that is not UTF-8"))
    }

    fn value(&mut self) -> Result<Option<Bytes>, Bad> {
        match self.u32()?.cast_signed() {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Bad::Malformed("a value of negative length"))?;
                self.need(length)?;
                Ok(Some(self.0.split_to(length)))
            }
        }
    }

    /// A count, and that many elements of at least `bytes_min`.
    fn list<T>(&mut self, bytes_min: usize, element: fn(&mut Self) -> Result<T, Bad>) -> Result<Vec<T>, Bad> {
        let count = usize::from(self.i16()?.cast_unsigned());
        self.need(count * bytes_min)?;
        (0..count).map(|_| element(self)).collect()
    }

    fn target(&mut self) -> Result<Target, Bad> {
        self.need(1)?;
        match self.0.get_u8() {
            b'S' => Ok(Target::Statement(self.text()?)),
            b'P' => Ok(Target::Portal(self.text()?)),
            _ => Err(Bad::Malformed("neither a statement nor a portal")),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Rng as _, SplitMix64};

    use super::*;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    const BIND: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";

    #[test]
    fn messages_are_taken_off_one_by_one() {
        let mut bytes = framed(b'Q', b"SELECT 1\0");
        bytes.extend_from_slice(&framed(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17"));
        bytes.extend_from_slice(&framed(b'B', BIND));
        bytes.extend_from_slice(&framed(b'E', b"p\0\0\0\0\x05")[..7]);
        let mut next = || message(&mut bytes, 100).unwrap();
        assert_eq!(next(), Some(Message::Query("SELECT 1".into())));
        assert_eq!(next(), Some(Message::Parse { name: "s".into(), sql: "SELECT $1".into(), types: vec![23] }));
        let bind = Bind {
            portal: "p".into(),
            statement: "s".into(),
            parameter_formats: vec![1],
            parameters: vec![Some(Bytes::from_static(b"x")), None],
            result_formats: vec![1],
        };
        assert_eq!(next(), Some(Message::Bind(bind)));
        assert_eq!(next(), None);
    }

    #[test]
    fn openings_are_told_apart() {
        let opened = |body: &[u8]| opening(&mut BytesMut::from(&framed(0, body)[1..]));
        assert_eq!(opened(&SSL_REQUEST.to_be_bytes()), Ok(Some(Opening::Ssl)));
        assert_eq!(opened(&GSS_REQUEST.to_be_bytes()), Ok(Some(Opening::Gss)));
        let cancel = [&CANCEL_REQUEST.to_be_bytes()[..], &7_u32.to_be_bytes(), b"abcd"].concat();
        assert_eq!(opened(&cancel), Ok(Some(Opening::Cancel { process: 7, secret: b"abcd".to_vec() })));
        let parameters = [("user".to_owned(), "me".to_owned())].into();
        assert_eq!(opened(b"\0\x03\0\0user\0me\0\0"), Ok(Some(Opening::Startup { version: (3, 0), parameters })));
        assert!(opened(b"\0\x03\0\0user\0me").is_err());
        let mut large = BytesMut::from(&[0, 1, 0, 0][..]);
        assert_eq!(opening(&mut large), Err(Bad::TooLarge { bytes: 65_536, limit: STARTUP_BYTES_MAX }));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (kind, body) in [
            (b'Q', &b"no end"[..]),
            (b'Q', b"\xff\0"),
            (b'Q', b"x\0y\0"),
            (b'P', b"s\0sql\0\xff\xff"),
            (b'B', b"p\0s\0\0\0\0\x01\0\0\0\x09x"),
            (b'B', b"p\0s\0\0\0\0\x01\xff\xff\xff\xfe"),
            (b'D', b"Xname\0"),
            (b'E', b"p\0\0"),
            (b'z', b""),
        ] {
            assert!(message(&mut framed(kind, body), 100).is_err(), "{} {body:?}", kind as char);
        }
        assert_eq!(message(&mut framed(b'Q', &[0; 200]), 100), Err(Bad::TooLarge { bytes: 204, limit: 100 }));
    }

    #[test]
    fn hostile_bytes_neither_panic_nor_loop() {
        let seed = 27;
        println!("seed {seed}");
        let rng = SplitMix64::new(seed);
        let whole =
            [framed(b'B', BIND), framed(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17"), framed(b'C', b"Ss\0")].concat();
        for _ in 0..20_000 {
            let mut bytes = BytesMut::from(&whole[..]);
            for _ in 0..=rng.next_u64() % 4 {
                let at = rng.next_u64() as usize % bytes.len();
                bytes[at] = rng.next_u64() as u8;
            }
            bytes.truncate(rng.next_u64() as usize % (whole.len() + 1));
            let _ = opening(&mut bytes.clone());
            let before = bytes.len();
            let mut taken = 0;
            while let Ok(Some(_)) = message(&mut bytes, 1 << 20) {
                taken += 1;
                assert!(taken <= before);
            }
        }
    }
}
