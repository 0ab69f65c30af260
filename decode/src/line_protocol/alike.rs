//! The fields of lines that look like the line before: floats under the same names in the same places, as sensors send
//! them.
//!
//! Owns:     which fields the next line of a table is expected to have, and reading them at once.
//! Does not: decide what is wrong: a line that looks different in any way is read in full, from its first byte.
//!
//! Invariant: what is read here is what reading in full would find (tested, line by line, in `line_protocol`).

use super::number;

/// Bytes of a separator, a name and its `=` that are compared at once.
const HEAD: usize = 16;

/// The fields of a line.
#[derive(Default)]
pub(super) struct Shape<'a> {
    /// The batch of the table that the columns belong to.
    pub(super) generation: u32,
    /// By place; none if nothing is expected.
    pub(super) fields: Vec<Field<'a>>,
}

/// A field that is expected, and its value in the line that was read last.
pub(super) struct Field<'a> {
    /// What stands before the value: `,name=`, or as much of it as fits. Lowest byte first.
    head: u128,
    /// The bits of `head` that count.
    mask: u128,
    /// What does not fit of the name.
    tail: &'a [u8],
    /// Of the separator, the name and its `=`.
    len: usize,
    /// The column in the batch.
    pub(super) column: u32,
    /// The value.
    pub(super) value: f64,
}

impl<'a> Shape<'a> {
    /// Expects fields with these raw names, which differ, and columns.
    pub(super) fn expect(&mut self, generation: u32, fields: impl Iterator<Item = (&'a str, u32)>) {
        self.generation = generation;
        self.fields.clear();
        self.fields.extend(fields.enumerate().map(|(place, (raw, column))| {
            let separator = if place == 0 { b' ' } else { b',' };
            let mut head = [0; HEAD];
            let start = [separator].into_iter().chain(raw.bytes()).chain([b'=']);
            head.iter_mut().zip(start).for_each(|(byte, of_start)| *byte = of_start);
            let len = 1 + raw.len() + 1;
            let unused = HEAD.saturating_sub(len) as u32;
            Field {
                head: u128::from_le_bytes(head),
                mask: u128::MAX >> (8 * unused),
                tail: raw.as_bytes().get(HEAD - 1..).unwrap_or_default(),
                len,
                column,
                value: 0.0,
            }
        }));
    }

    /// Reads the values of a line whose series ends at `at`, if its fields are these; returns where the last one ends.
    #[inline]
    pub(super) fn read(&mut self, text: &str, mut at: usize) -> Option<usize> {
        let bytes = text.as_bytes();
        for field in &mut self.fields {
            let rest = bytes.get(at..)?;
            let head = u128::from_le_bytes(*rest.first_chunk::<HEAD>()?);
            if head & field.mask != field.head || !field.has_tail(rest) {
                return None;
            }
            (field.value, at) = number::float(text, at + field.len)?;
        }
        Some(at)
    }
}

impl Field<'_> {
    /// Whether the rest of the name, and its `=`, stand in `line` from the separator on.
    #[inline]
    fn has_tail(&self, line: &[u8]) -> bool {
        self.len <= HEAD || (line.get(self.len - 1) == Some(&b'=') && line[HEAD..].starts_with(self.tail))
    }
}
