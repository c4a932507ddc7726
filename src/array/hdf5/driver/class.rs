//! The library's structures for drivers, as in its header `H5FDdevelop.h` (2.2.0, class version 1); those of `hdf5-metno-sys` belong to
//! an older version.

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};
use std::ptr::null;

use hdf5_sys::h5i::hid_t;

/// `H5FD_t`: the start of every driver's open file, filled by the library.
#[repr(C)]
pub struct Public {
    driver: hid_t,
    class: *const c_void,
    number: c_ulong,
    access: c_uint,
    features: c_ulong,
    max_address: u64,
    /// Offset of the HDF5 file in the object: behind a user block.
    pub base: u64,
    threshold: u64,
    alignment: u64,
    paged: bool,
}

impl Default for Public {
    fn default() -> Public {
        Public {
            driver: 0,
            class: null(),
            number: 0,
            access: 0,
            features: 0,
            max_address: 0,
            base: 0,
            threshold: 0,
            alignment: 0,
            paged: false,
        }
    }
}

type Unused = Option<unsafe extern "C" fn()>;

/// The callbacks of a read-only driver.
pub struct Callbacks {
    pub open: unsafe extern "C" fn(*const c_char, c_uint, hid_t, u64) -> *mut Public,
    pub close: unsafe extern "C" fn(*mut Public) -> c_int,
    pub cmp: unsafe extern "C" fn(*const Public, *const Public) -> c_int,
    pub query: unsafe extern "C" fn(*const Public, *mut c_ulong) -> c_int,
    pub get_eoa: unsafe extern "C" fn(*const Public, c_int) -> u64,
    pub set_eoa: unsafe extern "C" fn(*mut Public, c_int, u64) -> c_int,
    pub get_eof: unsafe extern "C" fn(*const Public, c_int) -> u64,
    pub read: unsafe extern "C" fn(*mut Public, c_int, hid_t, u64, usize, *mut c_void) -> c_int,
    pub write: unsafe extern "C" fn(*mut Public, c_int, hid_t, u64, usize, *const c_void) -> c_int,
}

/// `H5FD_class_t`.
#[repr(C)]
pub struct Class {
    version: c_uint,
    value: c_int,
    name: *const c_char,
    max_address: u64,
    close_degree: c_int,
    terminate: Unused,
    sb_size: Unused,
    sb_encode: Unused,
    sb_decode: Unused,
    fapl_size: usize,
    fapl_get: Unused,
    fapl_copy: Unused,
    fapl_free: Unused,
    dxpl_size: usize,
    dxpl_copy: Unused,
    dxpl_free: Unused,
    open: Option<unsafe extern "C" fn(*const c_char, c_uint, hid_t, u64) -> *mut Public>,
    close: Option<unsafe extern "C" fn(*mut Public) -> c_int>,
    cmp: Option<unsafe extern "C" fn(*const Public, *const Public) -> c_int>,
    query: Option<unsafe extern "C" fn(*const Public, *mut c_ulong) -> c_int>,
    get_type_map: Unused,
    alloc: Unused,
    free: Unused,
    get_eoa: Option<unsafe extern "C" fn(*const Public, c_int) -> u64>,
    set_eoa: Option<unsafe extern "C" fn(*mut Public, c_int, u64) -> c_int>,
    get_eof: Option<unsafe extern "C" fn(*const Public, c_int) -> u64>,
    get_handle: Unused,
    read: Option<unsafe extern "C" fn(*mut Public, c_int, hid_t, u64, usize, *mut c_void) -> c_int>,
    write: Option<unsafe extern "C" fn(*mut Public, c_int, hid_t, u64, usize, *const c_void) -> c_int>,
    read_vector: Unused,
    write_vector: Unused,
    read_selection: Unused,
    write_selection: Unused,
    flush: Unused,
    truncate: Unused,
    lock: Unused,
    unlock: Unused,
    del: Unused,
    ctl: Unused,
    free_lists: [c_int; 7],
}

impl Class {
    pub fn new(callbacks: Callbacks) -> Class {
        Class {
            version: 1,
            // In the range for unregistered drivers (512 and above).
            value: 600,
            name: c"shufflefs".as_ptr(),
            max_address: i64::MAX as u64,
            // H5F_CLOSE_WEAK: the file is closed with the last object in it.
            close_degree: 1,
            terminate: None,
            sb_size: None,
            sb_encode: None,
            sb_decode: None,
            fapl_size: 0,
            fapl_get: None,
            fapl_copy: None,
            fapl_free: None,
            dxpl_size: 0,
            dxpl_copy: None,
            dxpl_free: None,
            open: Some(callbacks.open),
            close: Some(callbacks.close),
            cmp: Some(callbacks.cmp),
            query: Some(callbacks.query),
            get_type_map: None,
            alloc: None,
            free: None,
            get_eoa: Some(callbacks.get_eoa),
            set_eoa: Some(callbacks.set_eoa),
            get_eof: Some(callbacks.get_eof),
            get_handle: None,
            read: Some(callbacks.read),
            write: Some(callbacks.write),
            read_vector: None,
            write_vector: None,
            read_selection: None,
            write_selection: None,
            flush: None,
            truncate: None,
            lock: None,
            unlock: None,
            del: None,
            ctl: None,
            // H5FD_FLMAP_DICHOTOMY: separates metadata from raw data.
            free_lists: [1, 1, 1, 3, 3, 1, 1],
        }
    }
}
