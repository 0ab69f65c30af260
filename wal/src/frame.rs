//! One frame: a group of records, or the start or end of a run of segments.
//!
//! Owns:     the bytes of a frame, as `docs/formats/wal.md` lays them out.
//! Does not: know files; where a frame may stand is judged by `scan` and `reader`.
//!
//! Invariants
//!  1. What [`FrameBuffer::finish`] writes, [`Header::parse`] and [`Header::verify`] accept.
//!  2. A frame that both accept can be taken apart without a further check.

use model::{NodeEpoch, NodeId, Position};

/// Frames begin and end on this grain.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// One block of what is there where nothing was written.
pub(crate) static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
/// The version of segments and frames that this release writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
pub(crate) const FRAME_HEADER_BYTES: usize = 80;
/// Offsets and counters beyond this are no ones that a log can have reached; the rest of the range keeps sums safe.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// The longest record that any log takes, in bytes (32 MiB).
pub const RECORD_BYTES_MAX: usize = 32 << 20;

const RECORD_LEN_BYTES: usize = 4;
/// One record of the greatest length and nothing else.
pub(crate) const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX + RECORD_LEN_BYTES;

const MAGIC: [u8; 4] = *b"EFRM";
const CRC_AT: usize = 8;
const CLOSING_BYTES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Start,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: u32,
    pub(crate) records: u32,
    pub(crate) segment: u64,
    pub(crate) position: Position,
    /// Byte of the segment file at which the frame begins.
    pub(crate) at: u64,
    /// The log's durable offset when the frame was written: what was lost below it had been synced.
    pub(crate) durable: u64,
}

impl Header {
    /// Takes the first bytes of a frame; `None` if they cannot be ones. Nothing is proven before [`Header::verify`].
    pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let kind = match bytes[5] {
            1 => Kind::Data,
            2 => Kind::Start,
            3 => Kind::End,
            _ => return None,
        };
        let header = Header {
            kind,
            payload_bytes: u32_at(12),
            records: u32_at(16),
            segment: u64_at(24),
            position: Position {
                counter: u64_at(48),
                node: NodeId(u64_at(40)),
                epoch: NodeEpoch(u64_at(32)),
                offset: u64_at(56),
            },
            at: u64_at(64),
            durable: u64_at(72),
        };
        let known = bytes[..4] == MAGIC && u32::from(bytes[4]) == FORMAT_VERSION;
        let reserved = bytes[6] == 0 && bytes[7] == 0 && u32_at(20) == 0;
        (known && reserved && header.is_sound()).then_some(header)
    }

    /// What holds for every frame before it is written and after it is read.
    pub(crate) fn is_sound(&self) -> bool {
        let Position { counter, offset, .. } = self.position;
        self.payload_bytes as usize <= PAYLOAD_BYTES_MAX
            && (counter > 0 && counter < NUMBER_MAX && offset < NUMBER_MAX && self.at < NUMBER_MAX)
            && (offset.is_multiple_of(BLOCK_BYTES) && self.at.is_multiple_of(BLOCK_BYTES) && self.at >= BLOCK_BYTES)
            && self.durable <= offset
            && match self.kind {
                Kind::Data => self.records > 0,
                Kind::Start | Kind::End => self.records == 0 && self.payload_bytes as usize == CLOSING_BYTES,
            }
    }

    /// Bytes of header and payload, without padding.
    pub(crate) fn content_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload_bytes as usize
    }

    /// Bytes of the whole frame, padding included.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_bytes as usize)
    }

    /// The log offset behind the frame.
    pub(crate) fn end(&self) -> u64 {
        self.position.offset + self.frame_bytes()
    }

    /// Whether `content`, header and payload, is what was written: checksum and inner lengths.
    pub(crate) fn verify(&self, content: &[u8]) -> bool {
        assert_eq!(content.len(), self.content_bytes());
        let crc = u32::from_le_bytes(content[CRC_AT..CRC_AT + 4].try_into().expect("four bytes"));
        let payload = &content[FRAME_HEADER_BYTES..];
        crc == checksum(content)
            && match self.kind {
                Kind::Data => records_fit(payload, self.records),
                Kind::Start | Kind::End => Closing::decode(payload).is_some(),
            }
    }
}

/// Bytes of a frame around a payload of `payload_bytes`.
pub(crate) fn frame_bytes(payload_bytes: usize) -> u64 {
    ((FRAME_HEADER_BYTES + payload_bytes) as u64).next_multiple_of(BLOCK_BYTES)
}

/// Payload bytes that a record of `record_bytes` takes.
pub(crate) fn payload_bytes_of(record_bytes: usize) -> usize {
    RECORD_LEN_BYTES + record_bytes
}

/// The records of a verified payload.
pub(crate) fn records(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let (record, rest) = split_record(payload).expect("a payload is verified before it is taken apart");
        payload = rest;
        Some(record)
    })
}

fn split_record(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = payload.split_first_chunk::<RECORD_LEN_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

fn records_fit(mut payload: &[u8], count: u32) -> bool {
    for _ in 0..count {
        let Some((_, rest)) = split_record(payload) else { return false };
        payload = rest;
    }
    payload.is_empty()
}

/// Over all of header and payload but the checksum itself.
fn checksum(content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&content[..CRC_AT]), &content[CRC_AT + 4..])
}

/// Why a segment takes no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Only in a start frame: there was no log before.
    First,
    /// The next frame did not fit.
    Rotated,
    /// The log was closed in order.
    Clean,
    /// The log was found without an end; behind its last frame was nothing.
    Cut,
    /// The log was found without an end; bytes that may have been a frame were given up.
    CutWithBytes,
}

/// How a run of segments ended: the payload of the end frame, and again of the start frame of the next life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) reason: Reason,
    /// Offset of the end frame, or where it would have been.
    pub(crate) cut_at: u64,
    /// Offset at which the log goes on.
    pub(crate) next: u64,
}

impl Closing {
    fn encode(&self, out: &mut Vec<u8>) {
        let reason = match self.reason {
            Reason::First => 0,
            Reason::Rotated => 1,
            Reason::Clean => 2,
            Reason::Cut => 3,
            Reason::CutWithBytes => 4,
        };
        out.extend_from_slice(&u64::to_le_bytes(reason));
        out.extend_from_slice(&self.cut_at.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
    }

    /// `None` if the bytes are none that [`Closing::encode`] makes.
    pub(crate) fn decode(payload: &[u8]) -> Option<Closing> {
        let payload: &[u8; CLOSING_BYTES] = payload.try_into().ok()?;
        let u64_at = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
        let reason = match u64_at(0) {
            0 => Reason::First,
            1 => Reason::Rotated,
            2 => Reason::Clean,
            3 => Reason::Cut,
            4 => Reason::CutWithBytes,
            _ => return None,
        };
        let closing = Closing { reason, cut_at: u64_at(8), next: u64_at(16) };
        let sound = closing.cut_at <= closing.next
            && closing.next < NUMBER_MAX
            && closing.cut_at.is_multiple_of(BLOCK_BYTES)
            && closing.next.is_multiple_of(BLOCK_BYTES);
        sound.then_some(closing)
    }
}

/// The bytes of one frame at a time, in memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    records: u32,
}

impl FrameBuffer {
    /// Forgets the last frame.
    pub(crate) fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEADER_BYTES, 0);
        self.records = 0;
    }

    pub(crate) fn push_record(&mut self, record: &[u8]) {
        let len = u32::try_from(record.len()).expect("the length of a record is checked when it is appended");
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.records += 1;
    }

    pub(crate) fn push_closing(&mut self, closing: Closing) {
        closing.encode(&mut self.bytes);
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.bytes.len() - FRAME_HEADER_BYTES)
    }

    /// Fills in the header and pads. `header` is complete but for the sizes.
    ///
    /// # Panics
    /// If the frame is none that a reader would accept.
    pub(crate) fn finish(&mut self, mut header: Header) -> (Header, &[u8]) {
        let payload_bytes = self.bytes.len() - FRAME_HEADER_BYTES;
        header.payload_bytes = u32::try_from(payload_bytes).expect("a payload is at most PAYLOAD_BYTES_MAX");
        header.records = self.records;
        assert!(header.is_sound(), "about to write {header:?}");
        let Position { counter, node, epoch, offset } = header.position;
        let out = &mut self.bytes;
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(4, &[FORMAT_VERSION as u8]);
        put(
            5,
            &[match header.kind {
                Kind::Data => 1,
                Kind::Start => 2,
                Kind::End => 3,
            }],
        );
        put(12, &header.payload_bytes.to_le_bytes());
        put(16, &header.records.to_le_bytes());
        put(24, &header.segment.to_le_bytes());
        put(32, &epoch.0.to_le_bytes());
        put(40, &node.0.to_le_bytes());
        put(48, &counter.to_le_bytes());
        put(56, &offset.to_le_bytes());
        put(64, &header.at.to_le_bytes());
        put(72, &header.durable.to_le_bytes());
        let crc = checksum(&self.bytes);
        self.bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        let padding = header.frame_bytes() as usize - self.bytes.len();
        self.bytes.extend_from_slice(&ZEROS[..padding]);
        (header, &self.bytes)
    }
}
