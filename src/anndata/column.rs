//! A column of a dataframe, in memory or mapped.

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
    /// Number of elements.
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

/// Concatenated strings: string `i` is `bytes[ends[i - 1]..ends[i]]`.
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

/// The categories that codes refer to.
#[derive(Clone, Debug, PartialEq)]
pub struct Categories {
    /// A label for each category; numbers as numpy prints them.
    pub labels: Vec<String>,
    /// The categories as numbers, if they are numbers or booleans.
    pub numbers: Option<Numbers>,
}

/// The values of one column, one for each row.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Codes are i8, i16 or i32; -1 is missing.
    Categorical { codes: Numbers, categories: Categories, ordered: bool },
    /// Numbers and booleans. `mask` (a byte for each row, 1 = missing) if the column is nullable. Times are int64 counts,
    /// [`NOT_A_TIME`](crate::array::meaning::NOT_A_TIME) if missing.
    Numbers { numbers: Numbers, mask: Option<Bytes>, time: Option<Time> },
    /// Strings; `mask` as above. `chars` and `bytes` are the maximum lengths of a string.
    Text { texts: Texts, mask: Option<Bytes>, chars: usize, bytes: usize },
}

/// A named column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub values: Values,
}

impl Values {
    /// Numbers or booleans without a mask.
    pub fn plain(numbers: Numbers) -> Values {
        Values::Numbers { numbers, mask: None, time: None }
    }

    /// The smallest signed dtype that holds the codes of `categories` categories and -1.
    pub fn code_dtype(categories: usize) -> Dtype {
        match categories {
            0..=128 => Dtype::I8,
            129..=32_768 => Dtype::I16,
            _ => Dtype::I32,
        }
    }
}

impl Column {
    /// The number of rows.
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
