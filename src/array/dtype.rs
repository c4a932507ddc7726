//! Element types: the numeric dtypes that numpy, HDF5 and zarr share.

use std::fmt;

/// The dtype of an element, always little-endian in memory and in images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Dtype {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl Dtype {
    /// All dtypes.
    pub const ALL: [Dtype; 12] = [
        Dtype::Bool,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::F16,
        Dtype::F32,
        Dtype::F64,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::I8 | Dtype::U8 => 1,
            Dtype::I16 | Dtype::U16 | Dtype::F16 => 2,
            Dtype::I32 | Dtype::U32 | Dtype::F32 => 4,
            Dtype::I64 | Dtype::U64 | Dtype::F64 => 8,
        }
    }

    /// The name in numpy and zarr v3: `float32`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "bool",
            Dtype::I8 => "int8",
            Dtype::I16 => "int16",
            Dtype::I32 => "int32",
            Dtype::I64 => "int64",
            Dtype::U8 => "uint8",
            Dtype::U16 => "uint16",
            Dtype::U32 => "uint32",
            Dtype::U64 => "uint64",
            Dtype::F16 => "float16",
            Dtype::F32 => "float32",
            Dtype::F64 => "float64",
        }
    }

    /// The dtype with a name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The descriptor in a `.npy` header: `<f4`, `|b1`.
    pub const fn npy(self) -> &'static str {
        match self {
            Dtype::Bool => "|b1",
            Dtype::I8 => "|i1",
            Dtype::I16 => "<i2",
            Dtype::I32 => "<i4",
            Dtype::I64 => "<i8",
            Dtype::U8 => "|u1",
            Dtype::U16 => "<u2",
            Dtype::U32 => "<u4",
            Dtype::U64 => "<u8",
            Dtype::F16 => "<f2",
            Dtype::F32 => "<f4",
            Dtype::F64 => "<f8",
        }
    }

    /// The name in a safetensors header: `F32`, `BOOL`.
    pub const fn safetensors(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::I8 => "I8",
            Dtype::I16 => "I16",
            Dtype::I32 => "I32",
            Dtype::I64 => "I64",
            Dtype::U8 => "U8",
            Dtype::U16 => "U16",
            Dtype::U32 => "U32",
            Dtype::U64 => "U64",
            Dtype::F16 => "F16",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::F32 | Dtype::F64)
    }

    pub const fn is_signed(self) -> bool {
        matches!(self, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64)
    }

    /// The dtype that holds both, as `numpy.result_type`.
    pub fn promote(self, other: Dtype) -> Dtype {
        use Dtype::*;
        if self == other || other == Bool {
            return self;
        }
        if self == Bool {
            return other;
        }
        let float = |bytes: usize| {
            if bytes >= 8 {
                F64
            } else if bytes >= 4 {
                F32
            } else {
                F16
            }
        };
        let int = |bytes: usize| match bytes {
            1 => I8,
            2 => I16,
            4 => I32,
            _ => I64,
        };
        match (self.is_float(), other.is_float()) {
            (true, true) => float(self.size().max(other.size())),
            // The float must be wider than the integer, up to float64.
            (true, false) => float(self.size().max(2 * other.size())),
            (false, true) => float(other.size().max(2 * self.size())),
            (false, false) if self.is_signed() == other.is_signed() => {
                if self.size() >= other.size() {
                    self
                } else {
                    other
                }
            }
            (false, false) => {
                let (signed, unsigned) = if self.is_signed() { (self, other) } else { (other, self) };
                if signed.size() > unsigned.size() {
                    signed
                } else if unsigned == U64 {
                    F64
                } else {
                    int(2 * unsigned.size())
                }
            }
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Dtype::*;

    #[test]
    fn promotion_is_numpys() {
        for (a, b, both) in [
            (I8, U8, I16),
            (I32, U32, I64),
            (I64, U64, F64),
            (F16, I8, F16),
            (F16, I16, F32),
            (F32, I32, F64),
            (F32, U16, F32),
            (F32, F64, F64),
            (Bool, I8, I8),
            (U16, U32, U32),
            (I64, U32, I64),
        ] {
            assert_eq!(a.promote(b), both, "{a} {b}");
            assert_eq!(b.promote(a), both, "{b} {a}");
        }
    }
}
