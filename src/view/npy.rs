//! Reads one-dimensional arrays of numbers from `.npy` files.

/// An array, little- or big-endian.
pub struct NpyArray<'a> {
    /// `i`, `u`, `f` or `b`.
    pub kind: char,
    swapped: bool,
    size: usize,
    data: &'a [u8],
}

pub const MAGIC: &[u8] = b"\x93NUMPY";

impl<'a> NpyArray<'a> {
    /// Parses a file.
    ///
    /// # Errors
    /// The array has several axes or is not numeric, or the file is truncated.
    pub fn parse(content: &'a [u8]) -> Result<NpyArray<'a>, String> {
        let short = || "the .npy header is cut off".to_owned();
        let wide = content.get(6).is_some_and(|&version| version >= 2);
        let (length, start) = if wide {
            let length =
                content.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or_else(short)?;
            (length as usize, 12)
        } else {
            let length =
                content.get(8..10).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes).ok_or_else(short)?;
            (usize::from(length), 10)
        };
        let header = content.get(start..start + length).ok_or_else(short)?;
        let header: String = String::from_utf8_lossy(header).chars().filter(|c| !c.is_whitespace()).collect();
        let data = &content[start + length..];
        let descr = header.split("'descr':'").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        let shape = header.split("'shape':(").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
        let count: usize =
            shape.trim_end_matches(',').parse().map_err(|_| format!("an array of shape ({shape}), not of one axis"))?;
        let (swapped, kind) = match descr.split_at_checked(1) {
            Some((">", kind)) => (true, kind),
            Some(("<" | "|" | "=", kind)) => (false, kind),
            _ => (false, ""),
        };
        let size = match kind {
            "i1" | "u1" | "b1" => 1,
            "i2" | "u2" => 2,
            "i4" | "u4" | "f4" => 4,
            "i8" | "u8" | "f8" => 8,
            _ => return Err(format!("an array of dtype {descr:?}, not of numbers")),
        };
        let bytes = count.checked_mul(size).filter(|&bytes| bytes <= data.len());
        let data = bytes.map(|bytes| &data[..bytes]);
        let data = data.ok_or_else(|| format!("{count} numbers are announced, but the file holds fewer"))?;
        Ok(NpyArray { kind: kind.chars().next().unwrap_or('?'), swapped, size, data })
    }

    pub fn len(&self) -> usize {
        self.data.len() / self.size
    }

    /// Elements as 8 little-endian bytes, integers sign-extended.
    fn elements(&self) -> impl Iterator<Item = [u8; 8]> + '_ {
        self.data.chunks_exact(self.size).map(|bytes| {
            let mut wide = [0; 8];
            wide[..self.size].copy_from_slice(bytes);
            if self.swapped {
                wide[..self.size].reverse();
            }
            if self.kind == 'i' && wide[self.size - 1] >= 0x80 {
                wide[self.size..].fill(0xff);
            }
            wide
        })
    }

    /// Elements as integers; meaningless for floats.
    pub fn integers(&self) -> impl Iterator<Item = i128> + '_ {
        let signed = self.kind == 'i';
        self.elements().map(
            move |bytes| {
                if signed { i64::from_le_bytes(bytes).into() } else { u64::from_le_bytes(bytes).into() }
            },
        )
    }

    /// Elements as the nearest f64.
    pub fn floats(&self) -> impl Iterator<Item = f64> + '_ {
        self.elements().map(|bytes| match (self.kind, self.size) {
            ('f', 4) => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            ('f', _) => f64::from_le_bytes(bytes),
            ('i', _) => i64::from_le_bytes(bytes) as f64,
            _ => u64::from_le_bytes(bytes) as f64,
        })
    }
}
