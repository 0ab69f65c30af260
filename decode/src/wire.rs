//! The wire format of Protocol Buffers, read in place.
//!
//! Owns:     tags, varints, lengths, and where in the body a mistake is; the two kinds of fields that we write.
//! Does not: know messages, copy anything, or allocate: what a field costs is decided where it is used (P14).
//!
//! The format: <https://protobuf.dev/programming-guides/encoding/>. Groups, which no format here has, are refused.

/// A body that is not what its format says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Counted from 1.
    at: usize,
    what: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "byte {}: {}", self.at, self.what)
    }
}

/// A message, or what is left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    body: &'a [u8],
    at: usize,
    end: usize,
}

/// One field's value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    /// Where it begins.
    at: usize,
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Message<'a>),
}

impl<'a> Message<'a> {
    /// A whole body.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Message { body, at: 0, end: body.len() }
    }

    fn wrong(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at + 1, what }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (i, byte) in self.body[self.at..self.end].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(self.wrong("a number that does not end"))
    }

    fn skip(&mut self, len: usize) -> Result<usize, Malformed> {
        let start = self.at;
        if len > self.end - start {
            return Err(self.wrong("a field that is longer than what it is in"));
        }
        self.at = start + len;
        Ok(start)
    }

    /// The next field with its number; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, Malformed> {
        if self.at == self.end {
            return Ok(None);
        }
        let start = *self;
        let tag = self.varint()?;
        let at = self.at;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| start.wrong("a field without a number"))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let at = self.skip(8)?;
                Value::Fixed64(u64::from_le_bytes(self.body[at..at + 8].try_into().expect("eight bytes")))
            }
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| start.wrong("a length beyond all bounds"))?;
                let at = self.skip(len)?;
                Value::Bytes(Message { body: self.body, at, end: at + len })
            }
            5 => {
                let at = self.skip(4)?;
                Value::Fixed32(u32::from_le_bytes(self.body[at..at + 4].try_into().expect("four bytes")))
            }
            _ => return Err(start.wrong("a field of a kind that is not used any more")),
        };
        Ok(Some((number, Field { at, value })))
    }

    /// The bytes that are left.
    pub(crate) fn bytes(self) -> &'a [u8] {
        &self.body[self.at..self.end]
    }
}

impl<'a> Field<'a> {
    fn wrong(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at + 1, what }
    }

    pub(crate) fn varint(self) -> Result<u64, Malformed> {
        if let Value::Varint(value) = self.value { Ok(value) } else { Err(self.wrong("no number where one belongs")) }
    }

    /// A signed number that is written as the unsigned one of the same bits.
    pub(crate) fn int64(self) -> Result<i64, Malformed> {
        self.varint().map(u64::cast_signed)
    }

    /// A signed number that is written zigzag: 0, -1, 1, -2 …
    pub(crate) fn sint(self) -> Result<i64, Malformed> {
        self.varint().map(zigzag)
    }

    pub(crate) fn fixed64(self) -> Result<u64, Malformed> {
        if let Value::Fixed64(bits) = self.value { Ok(bits) } else { Err(self.wrong("no 64 bits where they belong")) }
    }

    pub(crate) fn double(self) -> Result<f64, Malformed> {
        self.fixed64().map(f64::from_bits)
    }

    pub(crate) fn float(self) -> Result<f32, Malformed> {
        if let Value::Fixed32(bits) = self.value {
            Ok(f32::from_bits(bits))
        } else {
            Err(self.wrong("no 32 bits where they belong"))
        }
    }

    pub(crate) fn message(self) -> Result<Message<'a>, Malformed> {
        if let Value::Bytes(message) = self.value {
            Ok(message)
        } else {
            Err(self.wrong("no message or text where one belongs"))
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        self.message().map(Message::bytes)
    }

    pub(crate) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.wrong("text that is not UTF-8"))
    }

    /// Calls `each` for each number of a repeated field, in one piece or one by one.
    pub(crate) fn varints(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        match self.value {
            Value::Bytes(mut packed) => {
                while packed.at < packed.end {
                    each(packed.varint()?);
                }
                Ok(())
            }
            _ => self.varint().map(each),
        }
    }

    /// As [`Field::varints`], of eight bytes each.
    pub(crate) fn fixed64s(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        match self.value {
            Value::Bytes(packed) => {
                let (words, rest) = packed.bytes().as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(self.wrong("a list of 64 bits each that ends within one"));
                }
                words.iter().for_each(|word| each(u64::from_le_bytes(*word)));
                Ok(())
            }
            _ => self.fixed64().map(each),
        }
    }
}

/// 0, -1, 1, -2 … by their numbers.
pub(crate) fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// Writes a field that is a number.
pub(crate) fn put_varint(out: &mut Vec<u8>, field: u32, value: u64) {
    put_number(out, u64::from(field) << 3);
    put_number(out, value);
}

/// Writes a field that is text or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_number(out, u64::from(field) << 3 | 2);
    put_number(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &[u8]) -> Result<Vec<(u32, String)>, String> {
        let (mut message, mut found) = (Message::new(body), Vec::new());
        while let Some((number, field)) = message.next().map_err(|e| e.to_string())? {
            let text = match field.value {
                Value::Varint(value) => value.to_string(),
                Value::Fixed64(bits) => format!("{bits:#x}"),
                Value::Fixed32(bits) => format!("{bits:#x}"),
                Value::Bytes(inner) => format!("{:?}", inner.bytes()),
            };
            found.push((number, text));
        }
        Ok(found)
    }

    #[test]
    fn fields_of_every_kind_are_found() {
        let body = [&[0x08, 0x96, 0x01, 0x11][..], &7u64.to_le_bytes(), &[0x1a, 2, 5, 6, 0x25, 1, 0, 0, 0]].concat();
        let found = fields(&body).unwrap();
        assert_eq!(found, [(1, "150".into()), (2, "0x7".into()), (3, "[5, 6]".into()), (4, "0x1".into())]);
        assert_eq!((zigzag(0), zigzag(1), zigzag(2), zigzag(u64::MAX)), (0, -1, 1, i64::MIN));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut body = Vec::new();
        put_varint(&mut body, 1, u64::MAX);
        put_bytes(&mut body, 200, "ü".as_bytes());
        put_varint(&mut body, 3, 0);
        assert_eq!(fields(&body).unwrap(), [(1, u64::MAX.to_string()), (200, "[195, 188]".into()), (3, "0".into())]);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (body, said) in [
            (&[0x08][..], "byte 2: a number that does not end"),
            (&[0x08, 0x80, 0x80], "byte 2: a number that does not end"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "byte 2: a number"),
            (&[0x00, 1], "byte 1: a field without a number"),
            (&[0x08, 1, 0x0b], "byte 3: a field of a kind that is not used any more"),
            (&[0x0a, 3, 1, 2], "byte 3: a field that is longer than what it is in"),
            (&[0x09, 1, 2], "byte 2: a field that is longer"),
        ] {
            let error = fields(body).unwrap_err();
            assert!(error.starts_with(said), "{body:?}: {error}");
        }
        let mut message = Message::new(&[0x0a, 1, 0]);
        assert!(message.next().unwrap().unwrap().1.varint().is_err());
    }
}
