//! The zstd filter (32015) for libhdf5, which has none of its own.
//!
//! It is needed for string columns, as the library reads strings.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::io::Read;
use std::sync::Once;

use ::hdf5::sync::sync;
use hdf5_sys::h5::{H5allocate_memory, H5free_memory};
use hdf5_sys::h5z::{H5Z_CLASS_T_VERS, H5Z_FLAG_REVERSE, H5Z_class2_t, H5Zregister};

/// The registered number of the filter.
pub const ZSTD: c_int = 32015;

/// Registers the filter, once.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[expect(clippy::cast_possible_wrap, reason = "a small constant of the library's header")]
        let version = H5Z_CLASS_T_VERS as c_int;
        let class = H5Z_class2_t {
            version,
            id: ZSTD,
            encoder_present: 0,
            decoder_present: 1,
            name: c"zstd".as_ptr().cast::<c_char>(),
            can_apply: None,
            set_local: None,
            filter: Some(filter),
        };
        // SAFETY: the library copies the description; the name and the function live for ever.
        sync(|| unsafe { H5Zregister((&raw const class).cast::<c_void>()) });
    });
}

/// Decodes one chunk; returns 0 on failure.
///
/// # Safety
/// Called by the library: `*buf` points to `nbytes` bytes of its memory.
unsafe extern "C" fn filter(
    flags: c_uint,
    _count: usize,
    _values: *const c_uint,
    nbytes: usize,
    size: *mut usize,
    buf: *mut *mut c_void,
) -> usize {
    if flags & H5Z_FLAG_REVERSE as c_uint == 0 {
        return 0;
    }
    // SAFETY: as promised by the library.
    let input = unsafe { std::slice::from_raw_parts((*buf).cast::<u8>(), nbytes) };
    let Some(decoded) = decode(input) else { return 0 };
    // SAFETY: the new memory has room for the copied bytes; the library owns it instead of the old.
    unsafe {
        let memory = H5allocate_memory(decoded.len(), 0);
        if memory.is_null() {
            return 0;
        }
        std::ptr::copy_nonoverlapping(decoded.as_ptr(), memory.cast::<u8>(), decoded.len());
        H5free_memory(*buf);
        *buf = memory;
        *size = decoded.len();
    }
    decoded.len()
}

/// Decodes as a stream, so that a size stated in the frame allocates nothing; at most 4 GiB, HDF5's largest chunk.
fn decode(input: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let reader = zstd::stream::read::Decoder::with_buffer(input).ok()?;
    reader.take(1 << 32).read_to_end(&mut decoded).ok()?;
    Some(decoded)
}
