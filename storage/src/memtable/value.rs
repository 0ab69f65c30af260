//! Values that outlive their column, and sets of rows.

use model::Value;

/// A growing set of row ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    pub(crate) count: usize,
}

impl Bits {
    pub(super) fn grow(&mut self, len: u32) {
        let words = (len as usize).div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    pub(super) fn set(&mut self, row: u32) {
        self.grow(row + 1);
        let (word, bit) = (row as usize / 64, 1 << (row % 64));
        self.count += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// Whether `row` is in the set.
    pub(crate) fn get(&self, row: u32) -> bool {
        self.words.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }
}

/// A value that outlives its column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnedValue {
    F64(f64),
    I64(i64),
    U64(u64),
    Bool(bool),
    Text(Box<str>),
    Decimal { units: i64, scale: u8 },
}

impl OwnedValue {
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            OwnedValue::F64(value) => Value::F64(*value),
            OwnedValue::I64(value) => Value::I64(*value),
            OwnedValue::U64(value) => Value::U64(*value),
            OwnedValue::Bool(value) => Value::Bool(*value),
            OwnedValue::Text(value) => Value::Text(value),
            OwnedValue::Decimal { units, scale } => Value::Decimal { units: *units, scale: *scale },
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::F64(value) => OwnedValue::F64(value),
            Value::I64(value) => OwnedValue::I64(value),
            Value::U64(value) => OwnedValue::U64(value),
            Value::Bool(value) => OwnedValue::Bool(value),
            Value::Text(value) => OwnedValue::Text(value.into()),
            Value::Decimal { units, scale } => OwnedValue::Decimal { units, scale },
        }
    }
}
