//! Which rows of a column hold a value.

use std::ops::Range;

/// One bit a row: set where the row has a value, clear where the field was absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    words: Vec<u64>,
    len: usize,
    absent: usize,
}

impl Validity {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `len` rows, none of which has a value.
    pub fn absent(len: usize) -> Self {
        Validity { words: vec![0; len.div_ceil(64)], len, absent: len }
    }

    /// `len` rows, all of which have a value.
    pub fn present(len: usize) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64)];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = (1 << (len % 64)) - 1;
        }
        Validity { words, len, absent: 0 }
    }

    /// Rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows without a value.
    pub fn absent_count(&self) -> usize {
        self.absent
    }

    /// Appends one row.
    #[inline]
    pub fn push(&mut self, valid: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        if valid {
            self.words[self.len / 64] |= 1 << (self.len % 64);
        } else {
            self.absent += 1;
        }
        self.len += 1;
    }

    /// Appends `rows` of `other`.
    ///
    /// # Panics
    /// If they are out of its range.
    pub fn extend_from(&mut self, other: &Validity, rows: Range<usize>) {
        if other.absent > 0 {
            rows.for_each(|row| self.push(other.get(row)));
            return;
        }
        assert!(rows.end <= other.len, "row {} of {}", rows.end, other.len);
        let mut left = rows.len();
        while left > 0 {
            let at = self.len % 64;
            if at == 0 {
                self.words.push(0);
            }
            let bits = left.min(64 - at);
            self.words[self.len / 64] |= (u64::MAX >> (64 - bits)) << at;
            self.len += bits;
            left -= bits;
        }
    }

    /// Appends absent rows until there are `len`.
    pub fn pad_to(&mut self, len: usize) {
        debug_assert!(len >= self.len);
        self.absent += len - self.len;
        self.len = len;
        self.words.resize(len.div_ceil(64), 0);
    }

    /// Whether `row` has a value.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn get(&self, row: usize) -> bool {
        assert!(row < self.len, "row {row} of {}", self.len);
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// Marks `row` as having a value.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn set(&mut self, row: usize) {
        if !self.get(row) {
            self.words[row / 64] |= 1 << (row % 64);
            self.absent -= 1;
        }
    }

    /// Bits in words of 64, least significant first; bits past the last row are clear.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Takes `words` as the bits of `len` rows; `None` if their number is not that of `len` rows or a bit
    /// past the last row is set.
    pub fn from_words(words: Vec<u64>, len: usize) -> Option<Self> {
        let tail_is_clear = len.is_multiple_of(64) || words.last().is_none_or(|last| last >> (len % 64) == 0);
        if words.len() != len.div_ceil(64) || !tail_is_clear {
            return None;
        }
        let set: usize = words.iter().map(|word| word.count_ones() as usize).sum();
        Some(Validity { words, len, absent: len - set })
    }
}
