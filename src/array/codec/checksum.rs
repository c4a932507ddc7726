//! HDF5's Fletcher checksum.

/// Whether the stored sum is that of `data`.
///
/// HDF5 sums big-endian 16-bit words and stores the result little-endian. Before 1.6.3, on little-endian machines,
/// the bytes within each half came out swapped; the library accepts both, so this does.
pub fn fletcher32_matches(data: &[u8], stored: [u8; 4]) -> bool {
    let sum = fletcher32(data).to_le_bytes();
    stored == sum || stored == [sum[1], sum[0], sum[3], sum[2]]
}

fn fletcher32(data: &[u8]) -> u32 {
    let (mut sum1, mut sum2) = (0_u32, 0_u32);
    let (pairs, odd) = data.as_chunks::<2>();
    // 360 is the most words that cannot overflow the second sum.
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
        // The largest words: sums must not overflow.
        assert!(!fletcher32_matches(&[0xff; 100_001], [1, 2, 3, 4]));
    }
}
