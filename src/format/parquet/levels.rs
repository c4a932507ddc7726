//! Repetition and definition levels of 0 and 1, run-length encoded: a few bytes for each row, and their size follows from the row lengths.

use super::thrift::varint;
use crate::number::le32;

/// Encodes levels.
#[derive(Default)]
pub struct Levels {
    bytes: Vec<u8>,
    value: bool,
    count: u64,
}

impl Levels {
    pub fn push(&mut self, value: bool, count: u64) {
        if value != self.value {
            self.flush();
            self.value = value;
        }
        self.count += count;
    }

    fn flush(&mut self) {
        if self.count > 0 {
            varint(2 * self.count, &mut self.bytes);
            self.bytes.push(self.value.into());
            self.count = 0;
        }
    }

    /// The encoded levels, preceded by their length.
    pub fn end(mut self) -> Vec<u8> {
        self.flush();
        let mut bytes = le32(self.bytes.len()).to_vec();
        bytes.extend(self.bytes);
        bytes
    }
}

/// Repetition and definition levels of lists with these lengths. An empty list counts as one undefined value.
pub fn of_lists(lengths: impl Iterator<Item = u64>) -> Vec<u8> {
    let (mut repeated, mut defined) = (Levels::default(), Levels::default());
    for length in lengths {
        repeated.push(false, 1);
        if length > 1 {
            repeated.push(true, length - 1);
        }
        defined.push(length > 0, length.max(1));
    }
    [repeated.end(), defined.end()].concat()
}

/// Definition levels of values, some of which are missing.
pub fn of_values(there: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut defined = Levels::default();
    there.for_each(|there| defined.push(there, 1));
    defined.end()
}
