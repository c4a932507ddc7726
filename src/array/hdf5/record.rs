//! Compound datasets, as tables were stored before anndata 0.7. Fields are read one by one.
//!
//! The memory type has only one member, so the library extracts that field, and other fields have no effect.

use std::ffi::{CStr, CString, c_uint, c_void};
use std::sync::Arc;

use ::hdf5::Dataset;
use ::hdf5::sync::sync;
use hdf5_sys::h5::H5free_memory;
use hdf5_sys::h5t::{
    H5T_class_t, H5Tarray_create2, H5Tcreate, H5Tget_array_dims2, H5Tget_array_ndims, H5Tget_class, H5Tget_member_name,
    H5Tget_member_type, H5Tget_nmembers, H5Tget_size, H5Tget_super, H5Tinsert,
};

use super::Hdf5;
use super::native::{self, Id, TypedObject};
use super::text;
use super::types::{self, TypeClass};
use crate::array::constant::InMemory;
use crate::array::{Array, ArrayError, Dtype, RecordField, RecordFieldKind};

/// Maximum bytes of one field, which is held in memory: such tables are small.
const MOST: u64 = 4 << 30;
/// More fields than this mean damage.
const MOST_FIELDS: c_uint = 1 << 16;

/// A field and its type.
struct FieldType {
    name: String,
    /// The stored type, without axes.
    base: Id,
    class: TypeClass,
    /// Axes of each element; empty for scalars.
    shape: Vec<u64>,
}

/// The fields of a compound dataset; empty for other datasets.
pub fn fields(dataset: &Dataset) -> Result<Vec<RecordField>, String> {
    let known = |member: FieldType| RecordField {
        names: match member.class {
            TypeClass::Enum { .. } => types::names(member.base.id()).ok(),
            _ => None,
        },
        kind: match member.class {
            TypeClass::Number { dtype, .. } | TypeClass::Enum { dtype, .. } => RecordFieldKind::Number(dtype),
            TypeClass::Time { time, .. } => RecordFieldKind::Other(time.to_string()),
            TypeClass::VariableText | TypeClass::FixedText { .. } => RecordFieldKind::Text,
            TypeClass::Other(what) => RecordFieldKind::Other(what.to_owned()),
        },
        name: member.name,
        shape: member.shape,
    };
    Ok(members(dataset)?.into_iter().map(known).collect())
}

fn members(dataset: &Dataset) -> Result<Vec<FieldType>, String> {
    let datatype = TypedObject::of(dataset).datatype()?;
    // SAFETY: the type is live.
    let count = sync(|| unsafe {
        match H5Tget_class(datatype.id()) {
            H5T_class_t::H5T_COMPOUND => c_uint::try_from(H5Tget_nmembers(datatype.id())).unwrap_or(0),
            _ => 0,
        }
    });
    if count > MOST_FIELDS {
        return Err(format!("has {count} fields: it is damaged"));
    }
    (0..count).map(|index| member(&datatype, index)).collect()
}

fn member(datatype: &Id, index: c_uint) -> Result<FieldType, String> {
    // SAFETY: the type is live and has a member of that number; the library owns the name until it is freed; `dims` has the rank that
    // the library reports.
    sync(|| unsafe {
        let pointer = H5Tget_member_name(datatype.id(), index);
        if pointer.is_null() {
            return Err(format!("field {index} has no name: it is damaged"));
        }
        let name = CStr::from_ptr(pointer).to_string_lossy().into_owned();
        H5free_memory(pointer.cast::<c_void>());
        let own = Id::new(H5Tget_member_type(datatype.id(), index), "reading a field's type")?;
        let mut shape = Vec::new();
        let base = if H5Tget_class(own.id()) == H5T_class_t::H5T_ARRAY {
            let rank = usize::try_from(H5Tget_array_ndims(own.id())).map_err(|_| "a field's shape is damaged")?;
            shape = vec![0_u64; rank];
            if H5Tget_array_dims2(own.id(), shape.as_mut_ptr()) < 0 {
                return Err("a field's shape is damaged".to_owned());
            }
            Id::new(H5Tget_super(own.id()), "reading a field's element type")?
        } else {
            own
        };
        let class = types::class(base.id());
        Ok(FieldType { name, base, class, shape })
    })
}

/// A memory type with this field only.
fn alone(name: &str, field: &Id) -> Result<Id, String> {
    let name = CString::new(name).map_err(|_| "a field's name holds a zero byte")?;
    // SAFETY: the field's type is live, and fits into a record of its size at offset 0.
    sync(|| unsafe {
        let record = Id::new(H5Tcreate(H5T_class_t::H5T_COMPOUND, H5Tget_size(field.id())), "making a record type")?;
        if H5Tinsert(record.id(), name.as_ptr(), 0, field.id()) < 0 {
            return Err("HDF5: making a record type failed".to_owned());
        }
        Ok(record)
    })
}

fn find(dataset: &Dataset, field: &str) -> Result<FieldType, String> {
    members(dataset)?.into_iter().find(|m| m.name == field).ok_or_else(|| format!("has no field {field}"))
}

/// A numeric field of all records, in memory; its shape is [records, axes of the field...].
pub fn numbers(file: &Hdf5, element: &str, dataset: &Dataset, field: &str) -> Result<Array, ArrayError> {
    let fail = |cause: String| file.error(element, cause);
    let member = find(dataset, field).map_err(fail)?;
    let (TypeClass::Number { dtype, .. } | TypeClass::Enum { dtype, .. }) = member.class else {
        return Err(fail(format!("field {field} holds no numbers")));
    };
    let rows = native::shape(dataset).map_err(fail)?;
    let mut shape = rows.clone();
    shape.extend(&member.shape);
    let bytes = read_numbers(dataset, &member, dtype, &rows, &shape).map_err(fail)?;
    let name = format!("{element}/{field}").into();
    Ok(Array::new((Arc::clone(&file.name), name), dtype, (shape.clone(), shape), Arc::new(InMemory { bytes })))
}

fn read_numbers(
    dataset: &Dataset,
    member: &FieldType,
    dtype: Dtype,
    rows: &[u64],
    shape: &[u64],
) -> Result<Vec<u8>, String> {
    let size = shape.iter().try_fold(dtype.size() as u64, |n, &c| n.checked_mul(c)).filter(|&n| n <= MOST);
    // Filters of old files reduce a table at most a thousand times.
    let held = dataset.storage_size().saturating_mul(1100).saturating_add(1 << 16);
    let size = size.filter(|&n| n <= held).ok_or("its shape is too large for the file: it is damaged")?;
    let base = types::little_endian(&member.base)?;
    let memory = if member.shape.is_empty() {
        base
    } else {
        let rank = c_uint::try_from(member.shape.len()).map_err(|_| "a field's shape is damaged")?;
        // SAFETY: the element type is live, and the shape has that rank.
        let id = sync(|| unsafe { H5Tarray_create2(base.id(), rank, member.shape.as_ptr()) });
        Id::new(id, "making an array type")?
    };
    let record = alone(&member.name, &memory)?;
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| "its shape is too large")?];
    TypedObject::of(dataset).read_bytes(&record, &vec![0; rows.len()], rows, &mut bytes)?;
    Ok(bytes)
}

/// A string field of all records.
pub fn strings(dataset: &Dataset, field: &str) -> Result<Vec<String>, String> {
    let member = find(dataset, field)?;
    if !member.shape.is_empty() {
        return Err(format!("field {field} holds arrays of strings"));
    }
    let memory = alone(&member.name, &member.base)?;
    text::with_type(dataset, member.class, &memory)
}
