//! libhdf5's own calls where the safe crate has none: types told apart exactly, reads into bytes.
//!
//! Every call runs under the library's lock (`sync`), and every identifier is closed by `Id`.

use std::ffi::{CString, c_char, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ::hdf5::plist::FileAccess;
use ::hdf5::sync::sync;
use ::hdf5::{Dataset, File, from_id};
use hdf5_sys::h5::H5free_memory;
use hdf5_sys::h5a::{H5Aget_space, H5Aget_type, H5Aread};
use hdf5_sys::h5d::{H5Dget_space, H5Dget_type, H5Dread};
use hdf5_sys::h5f::{H5F_ACC_RDONLY, H5Fopen};
use hdf5_sys::h5i::{H5I_type_t, H5Idec_ref, H5Iget_type, hid_t};
use hdf5_sys::h5l::H5Lexists;
use hdf5_sys::h5o::{H5Oexists_by_name, H5Oopen};
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5r::{H5R_type_t, H5Rget_name};
use hdf5_sys::h5s::{
    H5S_class_t, H5S_seloper_t, H5Scopy, H5Screate_simple, H5Sget_simple_extent_dims, H5Sget_simple_extent_ndims,
    H5Sget_simple_extent_type, H5Sselect_hyperslab,
};
use hdf5_sys::h5t::{
    H5T_STD_REF_OBJ, H5T_class_t, H5T_order_t, H5T_sign_t, H5T_str_t, H5Tcopy, H5Tequal, H5Tget_class, H5Tget_ebias,
    H5Tget_fields, H5Tget_member_name, H5Tget_member_value, H5Tget_nmembers, H5Tget_offset, H5Tget_order,
    H5Tget_precision, H5Tget_sign, H5Tget_size, H5Tget_strpad, H5Tget_super, H5Tget_tag, H5Tis_variable_str,
    H5Tset_order,
};

use crate::array::Dtype;
use crate::array::cast::to_i64;
use crate::array::container::NodeKind;
use crate::array::meaning::{Booleans, Names, Time};

/// An identifier of the library, closed when dropped.
pub struct Id(hid_t);

impl Id {
    /// Takes a fresh identifier, or says that the call failed.
    pub fn new(id: hid_t, call: &str) -> Result<Id, String> {
        if id < 0 { Err(format!("HDF5: {call} failed")) } else { Ok(Id(id)) }
    }

    pub fn id(&self) -> hid_t {
        self.0
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: the identifier came from the library and is ours alone.
        sync(|| unsafe { H5Idec_ref(self.0) });
    }
}

/// Opens a file for reading, whatever bytes its path has.
///
/// # Errors
/// Why not, in words for the user: damage only where the library found some.
pub fn open(path: &Path) -> Result<File, String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| "its path holds a zero byte")?;
    // Nothing is written, and a lock would fail on file systems without locks.
    let access = FileAccess::build().file_locking(false).finish().map_err(|error| super::words(&error))?;
    sync(|| {
        // SAFETY: a C string and a live property list.
        let id = unsafe { H5Fopen(name.as_ptr(), H5F_ACC_RDONLY, access.id()) };
        if id < 0 {
            return Err(open_failure(&last_error()));
        }
        // SAFETY: the identifier is fresh and ours alone.
        unsafe { from_id::<File>(id) }.map_err(|error| super::words(&error))
    })
}

/// What the library says, and what follows for the user.
fn open_failure(words: &str) -> String {
    /// What it says of bytes that are not as they should be.
    const DAMAGE: [&str; 8] =
        ["signature", "superblock", "checksum", "object header", "B-tree", "heap", "address", "message"];
    if words.contains("truncated") || words.contains("eof") {
        return format!("the HDF5 file is truncated ({words}); copy or download it again");
    }
    // The system's own reason, which says nothing about the bytes.
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

/// What an element type is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeClass {
    Number {
        dtype: Dtype,
        big: bool,
    },
    /// Integers with names ([`names`] has them), among them booleans ([`Names::booleans`]).
    Enum {
        dtype: Dtype,
        big: bool,
    },
    /// Times as numpy has them: little-endian, 8 bytes each.
    Time(Time),
    /// Pointers to strings elsewhere in the file.
    VariableText,
    /// So many bytes each.
    FixedText {
        size: usize,
        spaces: bool,
    },
    /// Named for messages.
    Other(&'static str),
}

/// Tells a type.
pub fn class(type_id: hid_t) -> TypeClass {
    // SAFETY: `type_id` is a live datatype; these calls only read it.
    sync(|| unsafe {
        let size = H5Tget_size(type_id);
        match H5Tget_class(type_id) {
            H5T_class_t::H5T_INTEGER => integer(type_id, size),
            H5T_class_t::H5T_FLOAT => float(type_id, size),
            H5T_class_t::H5T_ENUM => enumeration(type_id, size),
            H5T_class_t::H5T_STRING if H5Tis_variable_str(type_id) > 0 => TypeClass::VariableText,
            H5T_class_t::H5T_STRING => {
                TypeClass::FixedText { size, spaces: H5Tget_strpad(type_id) == H5T_str_t::H5T_STR_SPACEPAD }
            }
            H5T_class_t::H5T_COMPOUND => compound(type_id),
            H5T_class_t::H5T_REFERENCE => TypeClass::Other("reference"),
            H5T_class_t::H5T_OPAQUE => opaque(type_id, size),
            H5T_class_t::H5T_BITFIELD => bits(type_id, size),
            H5T_class_t::H5T_TIME => TypeClass::Other("HDF5 time"),
            H5T_class_t::H5T_VLEN => TypeClass::Other("variable-length list"),
            H5T_class_t::H5T_ARRAY => TypeClass::Other("array of arrays"),
            _ => TypeClass::Other("unknown type"),
        }
    })
}

/// # Safety
/// `id` is a live integer datatype, and the library's lock is held.
unsafe fn integer(id: hid_t, size: usize) -> TypeClass {
    // SAFETY: as the caller promises.
    let (precision, offset, signed, big) = unsafe {
        (
            H5Tget_precision(id),
            H5Tget_offset(id),
            H5Tget_sign(id) == H5T_sign_t::H5T_SGN_2,
            H5Tget_order(id) == H5T_order_t::H5T_ORDER_BE,
        )
    };
    if offset != 0 || precision != size.saturating_mul(8) {
        return TypeClass::Other("integer of odd width");
    }
    let dtype = match (size, signed) {
        (1, true) => Dtype::I8,
        (2, true) => Dtype::I16,
        (4, true) => Dtype::I32,
        (8, true) => Dtype::I64,
        (1, false) => Dtype::U8,
        (2, false) => Dtype::U16,
        (4, false) => Dtype::U32,
        (8, false) => Dtype::U64,
        _ => return TypeClass::Other("integer of odd width"),
    };
    TypeClass::Number { dtype, big: big && size > 1 }
}

/// # Safety
/// `id` is a live floating-point datatype, and the library's lock is held.
unsafe fn float(id: hid_t, size: usize) -> TypeClass {
    let (mut sign, mut exponent, mut exponent_bits, mut mantissa, mut mantissa_bits) = (0, 0, 0, 0, 0);
    // SAFETY: as the caller promises; the out-pointers are to locals.
    let (bias, order) = unsafe {
        H5Tget_fields(
            id,
            &raw mut sign,
            &raw mut exponent,
            &raw mut exponent_bits,
            &raw mut mantissa,
            &raw mut mantissa_bits,
        );
        (H5Tget_ebias(id), H5Tget_order(id))
    };
    let dtype = match (size, sign, exponent, exponent_bits, mantissa, mantissa_bits, bias) {
        (2, 15, 10, 5, 0, 10, 15) => Dtype::F16,
        (4, 31, 23, 8, 0, 23, 127) => Dtype::F32,
        (8, 63, 52, 11, 0, 52, 1023) => Dtype::F64,
        _ => return TypeClass::Other("float that is not IEEE half, single or double"),
    };
    match order {
        H5T_order_t::H5T_ORDER_LE => TypeClass::Number { dtype, big: false },
        H5T_order_t::H5T_ORDER_BE => TypeClass::Number { dtype, big: true },
        _ => TypeClass::Other("float of odd byte order"),
    }
}

/// Bits are read as the unsigned integer of their bytes, as h5py does: booleans of Julia and PyTables.
///
/// # Safety
/// `id` is a live bit field, and the library's lock is held.
unsafe fn bits(id: hid_t, size: usize) -> TypeClass {
    let dtype = match size {
        1 => Dtype::U8,
        2 => Dtype::U16,
        4 => Dtype::U32,
        8 => Dtype::U64,
        _ => return TypeClass::Other("bit field of odd width"),
    };
    // SAFETY: as the caller promises.
    let big = unsafe { H5Tget_order(id) == H5T_order_t::H5T_ORDER_BE };
    TypeClass::Number { dtype, big: big && size > 1 }
}

/// # Safety
/// `id` is a live enum datatype, and the library's lock is held.
unsafe fn enumeration(id: hid_t, size: usize) -> TypeClass {
    // SAFETY: as the caller promises; `base` is live until it is dropped.
    let Ok(base) = Id::new(unsafe { H5Tget_super(id) }, "reading an enum's base type") else {
        return TypeClass::Other("enum");
    };
    // SAFETY: as above.
    let TypeClass::Number { dtype, big } = (unsafe { integer(base.id(), size) }) else {
        return TypeClass::Other("enum of integers of odd width");
    };
    match names(id) {
        // Its bytes are those of a boolean.
        Ok(names) if size == 1 && names.booleans() == Some(Booleans { no: 0, yes: 1, missing: None }) => {
            TypeClass::Number { dtype: Dtype::Bool, big: false }
        }
        Ok(_) => TypeClass::Enum { dtype, big },
        Err(_) => TypeClass::Other("enum"),
    }
}

/// The names of an enum and the integers that they stand for.
///
/// # Errors
/// The type is damaged, or none.
pub fn names(id: hid_t) -> Result<Names, String> {
    // SAFETY: `id` is a live enum datatype, whose base is an integer of at most 8 bytes, as the size is checked; a value
    // of it has the bytes of the base type, in its order. The library owns a name until it is freed.
    sync(|| unsafe {
        let base = Id::new(H5Tget_super(id), "reading an enum's base type")?;
        let size = H5Tget_size(base.id());
        let TypeClass::Number { dtype, big } = integer(base.id(), size) else {
            return Err("an enum of integers of odd width".to_owned());
        };
        let count = c_uint::try_from(H5Tget_nmembers(id)).unwrap_or(0);
        let mut names = Vec::new();
        for member in 0..count {
            let mut value = [0_u8; 8];
            if H5Tget_member_value(id, member, value.as_mut_ptr().cast::<c_void>()) < 0 {
                return Err("a value of its enum cannot be read: it is damaged".to_owned());
            }
            let bytes = value.get_mut(..dtype.size()).unwrap_or_default();
            if big {
                bytes.reverse();
            }
            let number = to_i64(dtype, bytes);
            let name = H5Tget_member_name(id, member);
            if name.is_null() {
                return Err("a name of its enum cannot be read: it is damaged".to_owned());
            }
            names.push((std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned(), number));
            H5free_memory(name.cast::<c_void>());
        }
        // By value: the order of members in the type is the writer's accident.
        names.sort_by_key(|(_, number)| *number);
        Ok(Names(names))
    })
}

/// Times as h5py writes numpy's, by their tag; other opaque bytes are not read.
///
/// # Safety
/// `id` is a live opaque datatype, and the library's lock is held.
unsafe fn opaque(id: hid_t, size: usize) -> TypeClass {
    // SAFETY: as the caller promises; the library owns the tag until it is freed.
    let tag = unsafe {
        let pointer = H5Tget_tag(id);
        let tag = owned(pointer);
        H5free_memory(pointer.cast::<c_void>());
        tag
    };
    let descr = tag.strip_prefix("NUMPY:").unwrap_or_default();
    match Time::from_descr(descr).filter(|_| size == 8 && !descr.starts_with('>')) {
        Some(time) => TypeClass::Time(time),
        None if descr.contains("M8") => TypeClass::Other("datetime64 in big-endian order or of an odd unit"),
        None if descr.contains("m8") => TypeClass::Other("timedelta64 in big-endian order or of an odd unit"),
        None => TypeClass::Other("opaque bytes"),
    }
}

/// Complex numbers as h5py writes them are records of `r` and `i`.
///
/// # Safety
/// `id` is a live compound datatype, and the library's lock is held.
unsafe fn compound(id: hid_t) -> TypeClass {
    // SAFETY: as the caller promises; the library owns the name until it is freed.
    let is = |member: c_uint, wanted: &str| unsafe {
        let pointer = H5Tget_member_name(id, member);
        let name = owned(pointer);
        H5free_memory(pointer.cast::<c_void>());
        name == wanted
    };
    // SAFETY: as above.
    let two = unsafe { H5Tget_nmembers(id) } == 2;
    TypeClass::Other(if two && is(0, "r") && is(1, "i") { "complex numbers" } else { "compound" })
}

/// Whether a link path leads to a group or a dataset. A dangling link leads nowhere.
pub fn kind(file: &File, path: &str) -> Result<Option<NodeKind>, String> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    sync(|| {
        let mut prefix = String::new();
        for part in parts {
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(part);
            let Ok(name) = CString::new(prefix.as_str()) else { return Ok(None) };
            // SAFETY: the file is open and the name a C string; each step's parent was found to exist before it.
            let exists = unsafe {
                H5Lexists(file.id(), name.as_ptr(), H5P_DEFAULT) > 0
                    && H5Oexists_by_name(file.id(), name.as_ptr(), H5P_DEFAULT) > 0
            };
            if !exists {
                return Ok(None);
            }
        }
        let Ok(name) = CString::new(prefix) else { return Ok(None) };
        // SAFETY: as above.
        let object = Id::new(unsafe { H5Oopen(file.id(), name.as_ptr(), H5P_DEFAULT) }, "opening the object")?;
        // SAFETY: the identifier is live.
        Ok(match unsafe { H5Iget_type(object.id()) } {
            H5I_type_t::H5I_GROUP => Some(NodeKind::Group),
            H5I_type_t::H5I_DATASET => Some(NodeKind::Array),
            _ => None,
        })
    })
}

/// What a dataset and an attribute have in common.
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

    /// The shape: empty for a scalar; none for a null space.
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

    /// Reads `count` elements from `start` on each axis (all of them for an attribute) as `memory` type.
    ///
    /// # Safety
    /// `out` points to room for product(`count`) elements of that type, as the library writes them.
    pub unsafe fn read(self, memory: &Id, start: &[u64], count: &[u64], out: *mut c_void) -> Result<(), String> {
        let status = match self {
            // SAFETY: the caller gives the room.
            TypedObject::Attribute(id) => sync(|| unsafe { H5Aread(id, memory.id(), out) }),
            // SAFETY: a null pointer is allowed for maximum sizes; both slices have the rank that is given, which
            // the library compares with the dataset's; the caller gives the room.
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

    /// Reads numbers or fixed text as bytes, numbers little-endian.
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
        // SAFETY: `out` has exactly the bytes of these elements, and holds no pointers as the type is plain.
        unsafe { self.read(memory, start, count, out.as_mut_ptr().cast::<c_void>()) }
    }
}

/// The path of the object that an attribute of one object reference points to, as anndata 0.7 points to categories; none
/// for other references.
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
    // SAFETY: the reference is one of that kind, the buffer has the size that is given.
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

/// The same type in little-endian order; of an enum, whose order cannot be changed, the integers.
pub fn little_endian(datatype: &Id) -> Result<Id, String> {
    // SAFETY: the type is live; the copy is ours to change.
    sync(|| unsafe {
        let is_enum = H5Tget_class(datatype.id()) == H5T_class_t::H5T_ENUM;
        let copy = match is_enum && H5Tget_order(datatype.id()) == H5T_order_t::H5T_ORDER_BE {
            true => H5Tget_super(datatype.id()),
            false => H5Tcopy(datatype.id()),
        };
        let copy = Id::new(copy, "copying a type")?;
        if H5Tget_order(copy.id()) == H5T_order_t::H5T_ORDER_BE
            && H5Tset_order(copy.id(), H5T_order_t::H5T_ORDER_LE) < 0
        {
            return Err("HDF5: the type has no little-endian form".to_owned());
        }
        Ok(copy)
    })
}

/// The shape of a dataset.
pub fn shape(dataset: &Dataset) -> Result<Vec<u64>, String> {
    TypedObject::of(dataset).shape()?.ok_or_else(|| "has a null space: it holds nothing".to_owned())
}

/// The class of a dataset's elements.
pub fn class_of(dataset: &Dataset) -> Result<TypeClass, String> {
    Ok(class(TypedObject::of(dataset).datatype()?.id()))
}

/// What the library's error stack says of the call that just failed.
pub fn last_error() -> String {
    match ::hdf5::Error::query() {
        Ok(error) => format!("HDF5: {}", super::words(&error)),
        Err(_) => "HDF5: reading failed".to_owned(),
    }
}

/// A string that the library points to.
///
/// # Safety
/// `pointer` is null or a C string.
pub unsafe fn owned(pointer: *const c_char) -> String {
    if pointer.is_null() {
        // h5py stores an empty string, and an element never written, as no pointer at all.
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { std::ffi::CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
