//! A file driver for libhdf5 that reads objects through `storage`.
//!
//! The library opens a name that is a key of a registry, which has it only while the file is being opened. Any other name is refused, and
//! so are links to other files. Callbacks run under the library's lock, on the calling thread; panics do not leave them.

mod blocks;
mod class;
mod tree;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use ::hdf5::File;
use ::hdf5::sync::sync;
use hdf5_sys::h5f::{H5F_ACC_RDONLY, H5Fopen};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::{H5P_CLS_FILE_ACCESS, H5Pcreate, H5Pset_driver};

use super::native::Id;
use crate::storage::Object;
use blocks::Blocks;
use class::{Class, Public};

/// An open file of the library, which owns the first field.
#[repr(C)]
struct Open {
    public: Public,
    source: Arc<Source>,
    end: u64,
}

/// The object that the library reads.
struct Source {
    number: u64,
    len: u64,
    blocks: Mutex<Blocks>,
}

static OPENING: LazyLock<Mutex<HashMap<String, Arc<Source>>>> = LazyLock::new(Mutex::default);

fn opening() -> MutexGuard<'static, HashMap<String, Arc<Source>>> {
    OPENING.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// Why the last read of this thread failed, as the library does not report it.
    static CAUSE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Why a read of this thread failed since the last call, if one did.
pub fn cause() -> Option<String> {
    CAUSE.take()
}

/// Opens an HDF5 file in an object.
///
/// # Errors
/// Those of the library, in one line, or of the storage.
pub fn open(object: Object) -> Result<File, String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let driver = register()?;
    let len = object.len();
    let blocks = Mutex::new(Blocks::start(object).map_err(|error| error.to_string())?);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let source = Arc::new(Source { number, len, blocks });
    let name = format!("object-{number}");
    let known = CString::new(name.as_str()).map_err(|error| error.to_string())?;
    opening().insert(name.clone(), source);
    let opened = sync(|| {
        // SAFETY: the property list is new and closed at the end; the driver is registered; the name is a C string.
        unsafe {
            let access = Id::new(H5Pcreate(*H5P_CLS_FILE_ACCESS), "making a property list")?;
            if H5Pset_driver(access.id(), driver, null_mut()) < 0 {
                return Err("HDF5: the driver is not taken".to_owned());
            }
            let id = H5Fopen(known.as_ptr(), H5F_ACC_RDONLY, access.id());
            if id < 0 {
                return Err(super::native::last_error());
            }
            // The identifier is new and not shared.
            ::hdf5::from_id::<File>(id).map_err(|error| super::words(&error))
        }
    });
    opening().remove(&name);
    // If the storage failed, its error is reported.
    opened.map_err(|said| cause().unwrap_or(said))
}

/// Registers the driver with the library, once.
fn register() -> Result<hid_t, String> {
    static DRIVER: LazyLock<Result<hid_t, String>> = LazyLock::new(|| {
        let class =
            Class::new(class::Callbacks { open: opened, close, cmp, query, get_eoa, set_eoa, get_eof, read, write });
        // SAFETY: the class has the layout of the library's version 1; the library checks the version, and copies it.
        let id = sync(|| unsafe { hdf5_sys::h5fd::H5FDregister((&raw const class).cast()) });
        if id < 0 {
            Err("HDF5 does not take the driver for remote files: this is a mistake here".to_owned())
        } else {
            Ok(id)
        }
    });
    DRIVER.clone()
}

/// Runs a callback; a panic becomes a failure.
fn guarded<T>(failed: T, call: impl FnOnce() -> Result<T, String>) -> T {
    let cause = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(answer)) => return answer,
        Ok(Err(cause)) => cause,
        Err(_) => "a mistake in the driver for remote files".to_owned(),
    };
    CAUSE.set(Some(cause));
    failed
}

unsafe extern "C" fn opened(name: *const c_char, flags: c_uint, _: hid_t, _: u64) -> *mut Public {
    guarded(null_mut(), || {
        if name.is_null() || flags != H5F_ACC_RDONLY {
            return Err("remote files are read only".to_owned());
        }
        // SAFETY: the library passes a C string.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|error| error.to_string())?;
        let Some(source) = opening().get(name).map(Arc::clone) else {
            // The name is not registered: it is a link to another file.
            return Ok(null_mut());
        };
        let open = Box::new(Open { public: Public::default(), source, end: 0 });
        Ok(Box::into_raw(open).cast())
    })
}

unsafe extern "C" fn close(file: *mut Public) -> c_int {
    guarded(-1, || {
        // SAFETY: created by `opened`, and closed once.
        drop(unsafe { Box::from_raw(file.cast::<Open>()) });
        Ok(0)
    })
}

/// # Safety
/// The pointer was created by `opened`, and not passed to `close`.
unsafe fn of<'a>(file: *const Public) -> &'a Open {
    // SAFETY: as the caller promises.
    unsafe { &*file.cast::<Open>() }
}

unsafe extern "C" fn cmp(a: *const Public, b: *const Public) -> c_int {
    // SAFETY: the library compares open files of the same driver.
    let (a, b) = unsafe { (of(a), of(b)) };
    a.source.number.cmp(&b.source.number) as c_int
}

unsafe extern "C" fn query(_: *const Public, flags: *mut c_ulong) -> c_int {
    if !flags.is_null() {
        // Lets the library read raw data in larger pieces than single values.
        const DATA_SIEVE: c_ulong = 8;
        // SAFETY: the library passes a pointer to one number.
        unsafe { *flags = DATA_SIEVE };
    }
    0
}

unsafe extern "C" fn get_eoa(file: *const Public, _: c_int) -> u64 {
    // SAFETY: an open file.
    unsafe { of(file) }.end
}

unsafe extern "C" fn set_eoa(file: *mut Public, _: c_int, end: u64) -> c_int {
    // SAFETY: an open file, and the library's lock is held.
    unsafe { (*file.cast::<Open>()).end = end };
    0
}

unsafe extern "C" fn get_eof(file: *const Public, _: c_int) -> u64 {
    // SAFETY: an open file.
    unsafe { of(file) }.source.len
}

unsafe extern "C" fn read(file: *mut Public, _: c_int, _: hid_t, at: u64, size: usize, to: *mut c_void) -> c_int {
    guarded(-1, || {
        if size == 0 {
            return Ok(0);
        }
        // SAFETY: an open file.
        let open = unsafe { of(file) };
        // SAFETY: the library passes a buffer of this size.
        let buffer = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), size) };
        let mut blocks = open.source.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.read(at, buffer, open.public.base).map_err(|error| error.to_string())?;
        Ok(0)
    })
}

unsafe extern "C" fn write(_: *mut Public, _: c_int, _: hid_t, _: u64, _: usize, _: *const c_void) -> c_int {
    -1
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::local;

    #[test]
    fn the_library_takes_the_driver_and_reads_through_it() {
        assert!(register().is_ok_and(|id| id > 0));
        let folder = tempfile::tempdir().expect("a directory");
        let (path, other) = (folder.path().join("x.h5"), folder.path().join("other.h5"));
        let values: Vec<u32> = (0..300_000).collect();
        for path in [&path, &other] {
            let file = File::create(path).expect("a file");
            file.new_dataset_builder().with_data(&values).chunk(100).create("far/data").expect("a dataset");
        }
        File::open_rw(&path)
            .expect("opens")
            .link_external(other.to_str().expect("text"), "far", "elsewhere")
            .expect("a link");
        let object = |path: &Path| local::object(std::fs::File::open(path).expect("opens"), path).expect("an object");
        let file = open(object(&path)).expect("opens");
        let read = file.dataset("far/data").and_then(|data| data.read_1d::<u32>()).expect("reads");
        assert_eq!(read.to_vec(), values);
        assert!(file.group("elsewhere").is_err(), "a link leads out of the object");
    }

    #[test]
    fn what_is_no_hdf5_is_told() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("x.h5");
        std::fs::write(&path, vec![7; 100_000]).expect("writes");
        let object = local::object(std::fs::File::open(&path).expect("opens"), &path).expect("an object");
        assert!(open(object).is_err());
        // Later reads of this thread must not report this error.
        cause();
    }
}
