//! Classifies libhdf5's datatypes.
//!
//! Every call runs under the library's lock (`sync`).

use std::ffi::{c_uint, c_void};

use ::hdf5::Dataset;
use ::hdf5::sync::sync;
use hdf5_sys::h5::H5free_memory;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5t::{
    H5T_class_t, H5T_order_t, H5T_sign_t, H5T_str_t, H5Tcopy, H5Tget_class, H5Tget_ebias, H5Tget_fields,
    H5Tget_member_name, H5Tget_member_value, H5Tget_nmembers, H5Tget_offset, H5Tget_order, H5Tget_precision,
    H5Tget_sign, H5Tget_size, H5Tget_strpad, H5Tget_super, H5Tget_tag, H5Tis_variable_str, H5Tset_order,
};

use super::native::{Id, TypedObject, owned};
use crate::array::Dtype;
use crate::array::cast::to_i64;
use crate::array::meaning::{Booleans, Names, Time};

/// A class of element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeClass {
    Number {
        dtype: Dtype,
        big: bool,
    },
    /// Integers with names (see [`names`]), which may be booleans ([`Names::booleans`]).
    Enum {
        dtype: Dtype,
        big: bool,
    },
    /// Times as in numpy, 8 bytes each, with a number of units a tick.
    Time {
        time: Time,
        multiple: i64,
        big: bool,
    },
    /// Variable-length strings: pointers into the file.
    VariableText,
    /// Fixed-length strings of `size` bytes.
    FixedText {
        size: usize,
        spaces: bool,
    },
    /// An unsupported type, named for messages.
    Other(&'static str),
}

/// Classifies a type.
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

/// Bit fields are read as unsigned integers of their size, as in h5py: Julia and PyTables store booleans so.
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
        // It has the bytes of a boolean.
        Ok(names) if size == 1 && names.booleans() == Some(Booleans { no: 0, yes: 1, missing: None }) => {
            TypeClass::Number { dtype: Dtype::Bool, big: false }
        }
        Ok(_) => TypeClass::Enum { dtype, big },
        Err(_) => TypeClass::Other("enum"),
    }
}

/// The names of an enum with their integers.
///
/// # Errors
/// The type is damaged, or no enum.
pub fn names(id: hid_t) -> Result<Names, String> {
    // SAFETY: `id` is a live enum datatype, whose base is an integer of at most 8 bytes (checked); its values have the size and byte order
    // of the base type. The library owns a name until it is freed.
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
        // Sorted by value, as the order of members in the type has no meaning.
        names.sort_by_key(|(_, number)| *number);
        Ok(Names(names))
    })
}

/// numpy's times as h5py stores them: opaque bytes with a tag. Other opaque types are not supported.
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
    match Time::multiple_of(descr).filter(|_| size == 8) {
        Some((time, multiple)) => TypeClass::Time { time, multiple, big: descr.starts_with('>') },
        None if descr.contains("M8") => TypeClass::Other("datetime64 of an odd unit"),
        None if descr.contains("m8") => TypeClass::Other("timedelta64 of an odd unit"),
        None => TypeClass::Other("opaque bytes"),
    }
}

/// h5py stores complex numbers as compounds of `r` and `i`; these get a name of their own.
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

/// The same type in little-endian order; for an enum, whose order cannot be changed, the type of its integers.
pub fn little_endian(datatype: &Id) -> Result<Id, String> {
    // SAFETY: the type is live; the copy is changed.
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

/// The class of a dataset's elements.
pub fn class_of(dataset: &Dataset) -> Result<TypeClass, String> {
    Ok(class(TypedObject::of(dataset).datatype()?.id()))
}
