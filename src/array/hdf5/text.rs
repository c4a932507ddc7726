//! Strings of variable length, to which the file has pointers, and of fixed length.
//!
//! They are read in slices along the first axis, so that a wrong shape costs the memory of one slice only.

use std::ffi::{c_char, c_void};
use std::ptr;

use ::hdf5::Dataset;
use ::hdf5::sync::sync;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5s::H5Screate_simple;
use hdf5_sys::h5t::{H5Tcopy, H5Treclaim};

use super::native::{self, Id, TypedObject};
use super::types::{self, TypeClass};

/// Elements of one slice.
const SLICE: u64 = 1 << 16;
/// Bytes of one slice of fixed-length strings.
const SLICE_BYTES: u64 = 64 << 20;

/// All strings of a dataset in C order.
pub fn dataset(dataset: &Dataset) -> Result<Vec<String>, String> {
    let class = types::class_of(dataset)?;
    with_type(dataset, class, &TypedObject::of(dataset).datatype()?)
}

/// All strings of a dataset, or of a field of its records; `memory` is the type of a string, or of a record with that field.
pub fn with_type(dataset: &Dataset, class: TypeClass, memory: &Id) -> Result<Vec<String>, String> {
    let shape = native::shape(dataset)?;
    let values = TypedObject::of(dataset);
    let mut all = Vec::new();
    if shape.is_empty() {
        read(values, class, memory, &[], &[], 1, &mut all)?;
        return Ok(all);
    }
    let rows = shape.first().copied().unwrap_or(0);
    let row = shape.iter().skip(1).try_fold(1_u64, |n, &c| n.checked_mul(c)).ok_or("the shape is too large")?;
    let elements = row.checked_mul(rows).ok_or("the shape is too large")?;
    // A stored string takes at least some bits. An unwritten one takes none, but is useless.
    let most = dataset.storage_size().saturating_mul(1024).saturating_add(SLICE);
    if elements > most || row > most {
        return Err(format!("{elements} strings are declared, and {} bytes stored", dataset.storage_size()));
    }
    let mut step = (SLICE / row.max(1)).max(1);
    if let TypeClass::FixedText { size, .. } = class {
        let line =
            row.checked_mul(size as u64).filter(|&bytes| bytes <= SLICE_BYTES).ok_or("its strings are too long")?;
        step = step.min(SLICE_BYTES / line.max(1)).max(1);
    }
    let mut first = 0;
    while first < rows && row > 0 {
        let mut count = shape.clone();
        let mut start = vec![0; shape.len()];
        count[0] = step.min(rows - first);
        start[0] = first;
        read(values, class, memory, &start, &count, count[0] * row, &mut all)?;
        first += count[0];
    }
    Ok(all)
}

/// All strings of an attribute.
pub fn attribute(values: TypedObject, class: TypeClass, elements: u64) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    if elements > 0 {
        read(values, class, &values.datatype()?, &[], &[], elements, &mut all)?;
    }
    Ok(all)
}

fn read(
    values: TypedObject,
    class: TypeClass,
    datatype: &Id,
    start: &[u64],
    count: &[u64],
    elements: u64,
    all: &mut Vec<String>,
) -> Result<(), String> {
    let elements = usize::try_from(elements).map_err(|_| "too many strings")?;
    match class {
        TypeClass::FixedText { size, spaces } => {
            let bytes = elements.checked_mul(size).filter(|&bytes| bytes as u64 <= SLICE_BYTES);
            let bytes = bytes.ok_or("its strings are too long")?;
            let mut buffer = vec![0; bytes];
            // SAFETY: the buffer has the size of `elements` strings of this type, which contains no pointers.
            unsafe { values.read(datatype, start, count, buffer.as_mut_ptr().cast::<c_void>())? };
            all.extend(buffer.chunks_exact(size.max(1)).map(|text| fixed(text, spaces)));
            Ok(())
        }
        TypeClass::VariableText => {
            let mut pointers: Vec<*mut c_char> = vec![ptr::null_mut(); elements];
            // SAFETY: the copied type is a memory type, in which variable-length strings are pointers. The vector has room for
            // `elements` of these, which are C strings or null until they are reclaimed.
            unsafe {
                let memory = Id::new(sync(|| H5Tcopy(datatype.id())), "copying a type")?;
                values.read(&memory, start, count, pointers.as_mut_ptr().cast::<c_void>())?;
                all.extend(pointers.iter().map(|&p| native::owned(p)));
                let room = elements as u64;
                let space = Id::new(sync(|| H5Screate_simple(1, &raw const room, ptr::null())), "describing strings")?;
                sync(|| H5Treclaim(memory.id(), space.id(), H5P_DEFAULT, pointers.as_mut_ptr().cast::<c_void>()));
            }
            Ok(())
        }
        TypeClass::Number { dtype, .. } => Err(format!("holds {dtype}, not strings")),
        TypeClass::Enum { .. } => Err("holds an enum, not strings".to_owned()),
        TypeClass::Time { time, .. } => Err(format!("holds {time}, not strings")),
        TypeClass::Other(what) => Err(format!("holds elements of type {what}, not strings")),
    }
}

/// A fixed-length string without padding.
fn fixed(bytes: &[u8], spaces: bool) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    if spaces { text.trim_end_matches(' ').to_owned() } else { text.into_owned() }
}
