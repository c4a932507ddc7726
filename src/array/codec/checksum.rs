//! 4-byte checksums before or after the data.

/// Kinds of checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sum {
    Crc32,
    Crc32c,
    Adler32,
    /// HDF5's variant.
    Fletcher32,
    /// Bob Jenkins' lookup3 over a prefix and the data.
    Jenkins {
        initial: u32,
        prefix: Vec<u8>,
    },
}

impl Sum {
    pub const fn name(&self) -> &'static str {
        match self {
            Sum::Crc32 => "crc32",
            Sum::Crc32c => "crc32c",
            Sum::Adler32 => "adler32",
            Sum::Fletcher32 => "fletcher32",
            Sum::Jenkins { .. } => "jenkins_lookup3",
        }
    }

    /// Whether the stored checksum is that of `data`.
    pub fn matches(&self, data: &[u8], stored: [u8; 4]) -> bool {
        let number = u32::from_le_bytes(stored);
        match self {
            Sum::Crc32 => crc32fast::hash(data) == number,
            Sum::Crc32c => crc32c::crc32c(data) == number,
            Sum::Adler32 => libdeflater::adler32(data) == number,
            Sum::Fletcher32 => fletcher32_matches(data, stored),
            Sum::Jenkins { initial, prefix } => lookup3(&[prefix, data].concat(), *initial) == number,
        }
    }
}

/// HDF5 sums big-endian 16-bit words and stores the result little-endian. Before 1.6.3, on little-endian machines, the bytes in each half
/// were swapped; the library accepts both forms, and so do we.
fn fletcher32_matches(data: &[u8], stored: [u8; 4]) -> bool {
    let sum = fletcher32(data).to_le_bytes();
    stored == sum || stored == [sum[1], sum[0], sum[3], sum[2]]
}

fn fletcher32(data: &[u8]) -> u32 {
    let (mut sum1, mut sum2) = (0_u32, 0_u32);
    let (pairs, odd) = data.as_chunks::<2>();
    // With at most 360 words, the second sum cannot overflow.
    for block in pairs.chunks(360) {
        for pair in block {
            sum1 += u32::from(u16::from_be_bytes(*pair));
            sum2 += sum1;
        }
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    if let [last] = odd {
        sum1 += u32::from(*last) << 8;
        sum2 += sum1;
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    sum1 = (sum1 & 0xffff) + (sum1 >> 16);
    sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    (sum2 << 16) | sum1
}

/// `hashlittle` of Bob Jenkins' lookup3.c.
fn lookup3(data: &[u8], initial: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add((data.len() as u64 & 0xffff_ffff) as u32).wrapping_add(initial);
    let mut state = [start; 3];
    let mut rest = data;
    let add = |state: &mut [u32; 3], block: &[u8]| {
        let mut padded = [0; 12];
        for (place, byte) in padded.iter_mut().zip(block) {
            *place = *byte;
        }
        for (word, bytes) in state.iter_mut().zip(padded.as_chunks::<4>().0) {
            *word = word.wrapping_add(u32::from_le_bytes(*bytes));
        }
    };
    while rest.len() > 12 {
        let (block, after) = rest.split_at(12);
        add(&mut state, block);
        let [mut a, mut b, mut c] = state;
        for (turn, [first, second, third]) in
            [4, 6, 8, 16, 19, 4].into_iter().zip([[0, 2, 1], [1, 0, 2], [2, 1, 0]].into_iter().cycle())
        {
            let mut words = [a, b, c];
            words[first] = words[first].wrapping_sub(words[second]) ^ words[second].rotate_left(turn);
            words[second] = words[second].wrapping_add(words[third]);
            [a, b, c] = words;
        }
        state = [a, b, c];
        rest = after;
    }
    if rest.is_empty() {
        return state[2];
    }
    add(&mut state, rest);
    let [mut a, mut b, mut c] = state;
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_byte_orders_pass_and_nothing_else() {
        let data = b"abcdefg";
        let sum = fletcher32(data).to_le_bytes();
        assert!(fletcher32_matches(data, sum));
        assert!(fletcher32_matches(data, [sum[1], sum[0], sum[3], sum[2]]));
        assert!(!fletcher32_matches(b"abcdefh", sum));
        // The largest words must not overflow the sums.
        assert!(!fletcher32_matches(&[0xff; 100_001], [1, 2, 3, 4]));
    }

    /// Test values from lookup3.c itself.
    #[test]
    fn lookup3_is_jenkins() {
        assert_eq!(lookup3(b"", 0), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago", 0), 0x1777_0551);
        assert_eq!(lookup3(b"Four score and seven years ago", 1), 0xcd62_8161);
    }
}
