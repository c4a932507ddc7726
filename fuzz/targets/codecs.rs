//! Every decoder and every chain of up to three, on arbitrary bytes and declared sizes; parts equal those of the whole chunk.

/// One input.
pub fn run(data: &[u8]) {
    let [chain, low, high, stored @ ..] = data else { return };
    // Declared sizes up to 256 kB.
    let size = usize::from(u16::from_le_bytes([*low, *high])) * 4 + usize::from(chain >> 6);
    let stages = usize::from(chain % 4);
    let Some((kinds, stored)) = stored.split_at_checked(stages) else { return };
    let decode = |part| shufflefs::array::fuzzing::decode(kinds, stored, part, size);
    let whole = decode(0..size);
    let start = size / 7 * usize::from(chain >> 2 & 7);
    let part = start..(start + size / 5 + 1).min(size);
    let some = decode(part.clone());
    if let Ok(whole) = whole {
        assert_eq!(whole.get(part.clone()), some.expect("as the whole").get(part));
    }
}
