//! A dataframe in `obsm` as a dense matrix in memory: its numeric columns.

use crate::array::cast::cast;
use crate::array::{Array, ArrayError, Container, Counters, Dtype, constant};

use super::column::Values;
use super::dataframe::{ColumnKind, DataFrame};
use super::{METADATA_LIMIT, element_error, encoding, unsupported};

/// Whether an element is a dataframe.
pub fn is_table(store: &dyn Container, element: &str) -> Result<bool, ArrayError> {
    Ok(store.kind(element)?.is_some() && encoding(store, element)? == "dataframe")
}

/// Names of the numeric and boolean columns, in the writer's order.
pub fn columns(store: &dyn Container, element: &str) -> Result<Vec<String>, ArrayError> {
    let frame = DataFrame::at(store, element)?;
    let mut names = Vec::new();
    for name in &frame.columns {
        if matches!(frame.kind(name)?, ColumnKind::Number | ColumnKind::Boolean) {
            names.push(name.clone());
        }
    }
    Ok(names)
}

/// An array of shape [rows, columns] with one dtype, promoted as numpy does; nullable columns become float64 with NaN for missing.
///
/// # Errors
/// It has no numeric columns, or one of them cannot be read.
pub fn open(store: &dyn Container, element: &str, counters: &Counters) -> Result<Array, ArrayError> {
    let frame = DataFrame::at(store, element)?;
    let names = columns(store, element)?;
    let mut read: Vec<(Dtype, Vec<u8>)> = Vec::with_capacity(names.len());
    for name in &names {
        let Values::Numbers { numbers, mask, .. } = frame.column(name, counters)?.values else { continue };
        let mut bytes = numbers.bytes.to_vec();
        let mut dtype = numbers.dtype;
        if let Some(mask) = mask {
            let mut floats = vec![0; numbers.len() * Dtype::F64.size()];
            cast(dtype, Dtype::F64, &bytes, &mut floats);
            for (row, float) in floats.chunks_exact_mut(Dtype::F64.size()).enumerate() {
                if mask[row] != 0 {
                    float.copy_from_slice(&f64::NAN.to_le_bytes());
                }
            }
            (dtype, bytes) = (Dtype::F64, floats);
        }
        read.push((dtype, bytes));
    }
    let Some(dtype) = read.iter().map(|(dtype, _)| *dtype).reduce(Dtype::promote) else {
        return Err(unsupported(store, element, "a dataframe without columns of numbers"));
    };
    let (rows, count, size) = (frame.rows, read.len(), dtype.size());
    let total = rows.checked_mul(count as u64).and_then(|n| n.checked_mul(size as u64));
    let total = total.filter(|&total| total <= METADATA_LIMIT).and_then(|total| usize::try_from(total).ok());
    let Some(total) = total else { return Err(element_error(store, element, "too large to be held in memory")) };
    let mut all = vec![0; total];
    for (place, (from, column)) in read.into_iter().enumerate() {
        let mut wide = vec![0; column.len() / from.size() * size];
        cast(from, dtype, &column, &mut wide);
        for (row, value) in all.chunks_exact_mut(count * size).zip(wide.chunks_exact(size)) {
            row[place * size..][..size].copy_from_slice(value);
        }
    }
    Ok(constant::in_memory(store.name(), element, dtype, vec![rows, count as u64], all))
}
