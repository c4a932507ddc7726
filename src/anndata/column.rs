//! One column of a dataframe, in memory or mapped.

use super::bytes::Bytes;
use crate::array::Dtype;
use crate::array::meaning::Time;
use crate::number::as_usize;

/// Elements of one dtype, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    pub dtype: Dtype,
    pub bytes: Bytes,
}

impl Numbers {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes of element `i`.
    pub fn at(&self, i: usize) -> &[u8] {
        let size = self.dtype.size();
        self.bytes.get(i * size, size)
    }
}

/// Strings back to back: string `i` is `bytes[ends[i - 1]..ends[i]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    pub ends: Vec<u64>,
    pub bytes: String,
}

impl Texts {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len() as u64);
    }

    pub fn at(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[as_usize(start)..as_usize(self.ends[i])]
    }
}

/// The values that codes stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Categories {
    /// One label a category, as text; numbers as numpy prints them.
    pub labels: Vec<String>,
    /// The categories themselves where they are numbers or booleans.
    pub numbers: Option<Numbers>,
}

/// The values of one column, one a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Codes are i8, i16 or i32; -1 is missing.
    Categorical { codes: Numbers, categories: Categories, ordered: bool },
    /// Numbers and booleans; `mask` (one byte a row, 1 = missing) where the column is nullable. Of times the int64 that
    /// count them, [`NOT_A_TIME`](crate::array::meaning::NOT_A_TIME) where one is missing.
    Numbers { numbers: Numbers, mask: Option<Bytes>, time: Option<Time> },
    /// Strings; `mask` as above. `chars` and `bytes` are the longest string's length.
    Text { texts: Texts, mask: Option<Bytes>, chars: usize, bytes: usize },
}

/// A named column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub values: Values,
}

impl Values {
    /// Numbers or booleans, none of them missing by a mask.
    pub fn plain(numbers: Numbers) -> Values {
        Values::Numbers { numbers, mask: None, time: None }
    }

    /// The smallest signed type that holds the codes of this many categories, and -1.
    pub fn code_dtype(categories: usize) -> Dtype {
        match categories {
            0..=128 => Dtype::I8,
            129..=32_768 => Dtype::I16,
            _ => Dtype::I32,
        }
    }
}

impl Column {
    /// How many rows it has.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Categorical { codes: numbers, .. } | Values::Numbers { numbers, .. } => numbers.len(),
            Values::Text { texts, .. } => texts.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
