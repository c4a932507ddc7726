//! Every decoder and every chain of up to three, on arbitrary bytes and declared sizes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [chain, low, high, stored @ ..] = data else { return };
    // Declared sizes up to 256 kB.
    let size = usize::from(u16::from_le_bytes([*low, *high])) * 4 + usize::from(chain >> 6);
    let stages = usize::from(chain % 4);
    let Some((kinds, stored)) = stored.split_at_checked(stages) else { return };
    let _ = shufflefs::array::fuzzing::decode(kinds, stored, size);
});
