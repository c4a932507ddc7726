//! Direct calls of libhdf5 that the safe crate lacks: files, links, and reads into bytes.
//!
//! Every call runs under the library's lock (`sync`), and every identifier is closed by `Id`.

use std::ffi::{CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ::hdf5::plist::FileAccess;
use ::hdf5::sync::sync;
use ::hdf5::{Dataset, File, Group, from_id};
use hdf5_sys::h5a::{H5Aget_space, H5Aget_type, H5Aread};
use hdf5_sys::h5d::{H5Dget_space, H5Dget_type, H5Dread};
use hdf5_sys::h5f::{H5F_ACC_RDONLY, H5Fopen};
use hdf5_sys::h5i::{H5I_type_t, H5Idec_ref, H5Iget_type, hid_t};
use hdf5_sys::h5l::H5Lexists;
use hdf5_sys::h5o::{H5O_INFO_BASIC, H5Oexists_by_name, H5Oget_info3, H5Oopen};
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5r::{H5R_type_t, H5Rget_name};
use hdf5_sys::h5s::{
    H5S_class_t, H5S_seloper_t, H5Scopy, H5Screate_simple, H5Sget_simple_extent_dims, H5Sget_simple_extent_ndims,
    H5Sget_simple_extent_type, H5Sselect_hyperslab,
};
use hdf5_sys::h5t::{H5T_STD_REF_OBJ, H5Tequal, H5Tget_size};

use crate::array::container::NodeKind;

/// An identifier of the library; closed when dropped.
pub struct Id(hid_t);

impl Id {
    /// Wraps a new identifier; fails if the call returned an error.
    pub fn new(id: hid_t, call: &str) -> Result<Id, String> {
        if id < 0 { Err(format!("HDF5: {call} failed")) } else { Ok(Id(id)) }
    }

    pub fn id(&self) -> hid_t {
        self.0
    }

    /// Releases the identifier; the caller must close it.
    fn given(self) -> hid_t {
        let id = self.0;
        std::mem::forget(self);
        id
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: the identifier came from the library and is not shared.
        sync(|| unsafe { H5Idec_ref(self.0) });
    }
}

/// Opens a file for reading; the path may have any bytes.
///
/// # Errors
/// The cause for the user; it speaks of damage only if the library has found some.
pub fn open(path: &Path) -> Result<File, String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| "its path holds a zero byte")?;
    // No locking: nothing is written, and a lock would fail on file systems without locks.
    let access = FileAccess::build().file_locking(false).finish().map_err(|error| super::words(&error))?;
    sync(|| {
        // SAFETY: a C string and a live property list.
        let id = unsafe { H5Fopen(name.as_ptr(), H5F_ACC_RDONLY, access.id()) };
        if id < 0 {
            return Err(open_failure(&last_error()));
        }
        // SAFETY: the identifier is new and not shared.
        unsafe { from_id::<File>(id) }.map_err(|error| super::words(&error))
    })
}

/// An error of opening a file, with its remedy.
fn open_failure(words: &str) -> String {
    /// Words in messages about invalid bytes.
    const DAMAGE: [&str; 8] =
        ["signature", "superblock", "checksum", "object header", "B-tree", "heap", "address", "message"];
    if words.contains("truncated") || words.contains("eof") {
        return format!("the HDF5 file is truncated ({words}); copy or download it again");
    }
    // An error of the system, which is not about the bytes.
    if let Some((_, reason)) = words.split_once("error message = '") {
        let reason = reason.split('\'').next().unwrap_or(reason);
        let remedy = if reason.contains("Too many open files") { "; raise `ulimit -n`" } else { "" };
        return format!("the HDF5 file cannot be opened: {reason}{remedy}");
    }
    if words.contains("already open") {
        return format!("the HDF5 file cannot be opened ({words}); somebody may be writing it");
    }
    let is_damage = DAMAGE.iter().any(|part| words.contains(part));
    let remedy = if is_damage { "; it may be damaged: copy or download it again" } else { "" };
    format!("the HDF5 file cannot be opened ({words}){remedy}")
}

/// An object of the library. Clones share it.
#[derive(Clone)]
pub enum Node {
    Group(Arc<Group>),
    Dataset(Arc<Dataset>),
    /// A dataset of another file, behind a link.
    Elsewhere,
}

impl Node {
    pub fn kind(&self) -> NodeKind {
        match self {
            Node::Group(_) => NodeKind::Group,
            Node::Dataset(_) | Node::Elsewhere => NodeKind::Array,
        }
    }
}

/// Whether all links of a path exist; the last one may dangle.
///
/// # Errors
/// It cannot be found out, which differs from not existing.
fn leads(file: &File, path: &str) -> Result<bool, String> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        let Ok(name) = CString::new(format!("/{}", path.get(..end).unwrap_or(path))) else { return Ok(false) };
        // SAFETY: the file is open and the name a C string.
        match unsafe { H5Lexists(file.id(), name.as_ptr(), H5P_DEFAULT) } {
            0 => return Ok(false),
            ..0 => return Err(last_error()),
            _ => {}
        }
        // SAFETY: as above.
        if end < path.len() && unsafe { H5Oexists_by_name(file.id(), name.as_ptr(), H5P_DEFAULT) } == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The object that a path leads to. `None` for a dangling link, and for objects that are neither group nor dataset. `number` is the
/// library's number of the file.
pub fn node(file: &File, number: u64, path: &str) -> Result<Option<Node>, String> {
    // The path is made absolute, so that the empty one is the root.
    let Ok(name) = CString::new(format!("/{path}")) else { return Ok(None) };
    sync(|| {
        // The root is not behind a link.
        if !path.is_empty() && !leads(file, path)? {
            return Ok(None);
        }
        // SAFETY: the file is open and the name a C string.
        let id = unsafe { H5Oopen(file.id(), name.as_ptr(), H5P_DEFAULT) };
        if id < 0 {
            // SAFETY: as above.
            let exists = unsafe { H5Oexists_by_name(file.id(), name.as_ptr(), H5P_DEFAULT) } > 0;
            return if exists { Err("HDF5: opening the object failed".to_owned()) } else { Ok(None) };
        }
        let object = Id(id);
        let failed = |error: ::hdf5::Error| super::words(&error);
        // SAFETY: the identifier is live, and released only once.
        Ok(match unsafe { H5Iget_type(object.id()) } {
            H5I_type_t::H5I_GROUP => {
                // SAFETY: as above.
                let group = unsafe { from_id::<Group>(object.given()) }.map_err(failed)?;
                Some(Node::Group(Arc::new(group)))
            }
            H5I_type_t::H5I_DATASET if file_number(object.id())? != number => Some(Node::Elsewhere),
            H5I_type_t::H5I_DATASET => {
                // SAFETY: as above.
                let dataset = unsafe { from_id::<Dataset>(object.given()) }.map_err(failed)?;
                Some(Node::Dataset(Arc::new(dataset)))
            }
            _ => None,
        })
    })
}

/// The library's number of the file that an object is in.
pub fn file_number(object: hid_t) -> Result<u64, String> {
    let mut info = std::mem::MaybeUninit::uninit();
    sync(|| {
        // SAFETY: the identifier is live, and `info` has room for the result, which is read only after success.
        unsafe {
            if H5Oget_info3(object, info.as_mut_ptr(), H5O_INFO_BASIC) < 0 {
                return Err("HDF5: reading an object's file failed".to_owned());
            }
            Ok(info.assume_init().fileno)
        }
    })
}

/// An object with a datatype and a dataspace.
#[derive(Clone, Copy)]
pub enum TypedObject {
    Dataset(hid_t),
    Attribute(hid_t),
}

impl TypedObject {
    pub fn of(dataset: &Dataset) -> TypedObject {
        TypedObject::Dataset(dataset.id())
    }

    pub fn datatype(self) -> Result<Id, String> {
        // SAFETY: the identifier is that of an open object.
        let id = sync(|| unsafe {
            match self {
                TypedObject::Dataset(id) => H5Dget_type(id),
                TypedObject::Attribute(id) => H5Aget_type(id),
            }
        });
        Id::new(id, "reading the type")
    }

    pub fn space(self) -> Result<Id, String> {
        // SAFETY: the identifier is that of an open object.
        let id = sync(|| unsafe {
            match self {
                TypedObject::Dataset(id) => H5Dget_space(id),
                TypedObject::Attribute(id) => H5Aget_space(id),
            }
        });
        Id::new(id, "reading the shape")
    }

    /// The shape: empty for a scalar; `None` for a null dataspace.
    pub fn shape(self) -> Result<Option<Vec<u64>>, String> {
        let space = self.space()?;
        // SAFETY: the space is live; `dims` has the rank that the library gives for it.
        sync(|| unsafe {
            if H5Sget_simple_extent_type(space.id()) == H5S_class_t::H5S_NULL {
                return Ok(None);
            }
            let rank = usize::try_from(H5Sget_simple_extent_ndims(space.id())).map_err(|_| "the shape is damaged")?;
            let mut dims = vec![0_u64; rank];
            if H5Sget_simple_extent_dims(space.id(), dims.as_mut_ptr(), std::ptr::null_mut()) < 0 {
                return Err("the shape is damaged".to_owned());
            }
            Ok(Some(dims))
        })
    }

    /// Reads `count` elements from `start` on (along each axis; all elements of an attribute), converted to the type `memory`.
    ///
    /// # Safety
    /// `out` points to room for product(`count`) elements of that type, in the library's memory layout.
    pub unsafe fn read(self, memory: &Id, start: &[u64], count: &[u64], out: *mut c_void) -> Result<(), String> {
        let status = match self {
            // SAFETY: the caller guarantees the room.
            TypedObject::Attribute(id) => sync(|| unsafe { H5Aread(id, memory.id(), out) }),
            // SAFETY: null means that maximum sizes are the current ones; both slices have the same rank, which the library compares
            // with the dataset's; the caller guarantees the room.
            TypedObject::Dataset(id) => {
                let space = self.space()?;
                // SAFETY: as said above the arm.
                sync(|| unsafe {
                    if start.is_empty() {
                        return Ok(H5Dread(id, memory.id(), 0, 0, H5P_DEFAULT, out));
                    }
                    let file_space = Id::new(H5Scopy(space.id()), "copying the shape")?;
                    let null = std::ptr::null();
                    let rank = H5Sget_simple_extent_ndims(space.id());
                    if usize::try_from(rank) != Ok(start.len()) || start.len() != count.len() {
                        return Err("the shape changed".to_owned());
                    }
                    let chosen = H5Sselect_hyperslab(
                        file_space.id(),
                        H5S_seloper_t::H5S_SELECT_SET,
                        start.as_ptr(),
                        null,
                        count.as_ptr(),
                        null,
                    );
                    if chosen < 0 {
                        return Err("HDF5: selecting a part failed".to_owned());
                    }
                    let room = Id::new(H5Screate_simple(rank, count.as_ptr(), null), "describing a part")?;
                    Ok(H5Dread(id, memory.id(), room.id(), file_space.id(), H5P_DEFAULT, out))
                })?
            }
        };
        if status < 0 { Err(last_error()) } else { Ok(()) }
    }

    /// Reads numbers or fixed-length text as bytes; numbers must be little-endian in `memory`.
    pub fn read_bytes(self, memory: &Id, start: &[u64], count: &[u64], out: &mut [u8]) -> Result<(), String> {
        // SAFETY: the type is live.
        let size = sync(|| unsafe { H5Tget_size(memory.id()) }) as u64;
        let counts =
            if matches!(self, TypedObject::Attribute(_)) { self.shape()?.unwrap_or_default() } else { count.to_vec() };
        let bytes = counts.iter().try_fold(size, |n, &c| n.checked_mul(c)).ok_or("the shape is too large")?;
        if bytes != out.len() as u64 {
            return Err(format!("{bytes} bytes to read into room for {}", out.len()));
        }
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: `out` has exactly the size of these elements, and the type contains no pointers.
        unsafe { self.read(memory, start, count, out.as_mut_ptr().cast::<c_void>()) }
    }
}

/// The path of the object that an attribute refers to, if it is a single object reference, as anndata 0.7 refers to categories.
pub fn referred(attribute: TypedObject) -> Result<Option<String>, String> {
    let TypedObject::Attribute(id) = attribute else { return Ok(None) };
    let datatype = attribute.datatype()?;
    let mut reference = [0_u8; 8];
    // SAFETY: both types are live; `reference` has the size of an object reference, checked here.
    let plain = sync(|| unsafe { H5Tequal(datatype.id(), *H5T_STD_REF_OBJ) > 0 && H5Tget_size(datatype.id()) == 8 });
    if !plain {
        return Ok(None);
    }
    attribute.read_bytes(&datatype, &[], &[], &mut reference)?;
    // SAFETY: the reference is of that type, and the buffer has the given size.
    sync(|| unsafe {
        let pointer = reference.as_ptr().cast::<c_void>();
        let kind = H5R_type_t::H5R_OBJECT1;
        let length = H5Rget_name(id, kind, pointer, std::ptr::null_mut(), 0);
        let Ok(length @ 1..=65_536) = usize::try_from(length) else { return Ok(None) };
        let mut name = vec![0_u8; length + 1];
        if H5Rget_name(id, kind, pointer, name.as_mut_ptr().cast::<c_char>(), name.len()) < 0 {
            return Ok(None);
        }
        name.truncate(length);
        Ok(String::from_utf8(name).ok())
    })
}

/// The shape of a dataset.
pub fn shape(dataset: &Dataset) -> Result<Vec<u64>, String> {
    TypedObject::of(dataset).shape()?.ok_or_else(|| "has a null space: it holds nothing".to_owned())
}

/// The library's error for the call that just failed.
pub fn last_error() -> String {
    match ::hdf5::Error::query() {
        Ok(error) => format!("HDF5: {}", super::words(&error)),
        Err(_) => "HDF5: reading failed".to_owned(),
    }
}

/// Copies a C string of the library.
///
/// # Safety
/// `pointer` is null or a C string.
pub unsafe fn owned(pointer: *const c_char) -> String {
    if pointer.is_null() {
        // h5py stores empty strings and unwritten elements as null pointers.
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { std::ffi::CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
