//! The checksum of HDF5 metadata: Bob Jenkins' lookup3 (`hashlittle`, initial value 0).
//!
//! HDF5 File Format Specification Version 3.0, sections II.A (superblock) and IV.A.1.b (object header): every version-2 structure ends with
//! it. Bytes are read as little-endian, so the checksum is the same on every architecture.

/// The checksum of `bytes`.
pub fn lookup3(bytes: &[u8]) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32, as in H5checksum.c")]
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let mut s = [start; 3];
    if bytes.is_empty() {
        return start;
    }
    // The last 1 to 12 bytes are for the final mix; missing bytes count as zeros.
    let whole = (bytes.len() - 1) / 12 * 12;
    for block in bytes[..whole].chunks_exact(12) {
        add(&mut s, block);
        mix(&mut s);
    }
    let mut tail = [0; 12];
    tail[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
    add(&mut s, &tail);
    last_mix(&mut s);
    s[2]
}

fn add(s: &mut [u32; 3], block: &[u8]) {
    for (word, b) in s.iter_mut().zip(block.chunks_exact(4)) {
        *word = word.wrapping_add(u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    }
}

fn mix(s: &mut [u32; 3]) {
    let [mut a, mut b, mut c] = *s;
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    *s = [a, b, c];
}

fn last_mix(s: &mut [u32; 3]) {
    let [mut a, mut b, mut c] = *s;
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    *s = [a, b, c];
}

#[cfg(test)]
mod tests {
    use super::lookup3;

    #[test]
    fn sums_are_libhdf5s() {
        // Values from the test driver in lookup3.c, and libhdf5's test/tchecksum.c.
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
        assert_eq!(lookup3(&[0; 1]), 0x8ba9_414b);
    }
}
