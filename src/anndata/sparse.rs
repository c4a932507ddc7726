//! Sparse matrices: their encoding and shape, also where the writer has not stored these.

use serde_json::Value;

use super::dataframe::DataFrame;
use super::layout::{located, two, whole};
use super::names::{Frame, is_raw};
use crate::array::cast::to_i64;
use crate::array::{ArrayError, Container, Counters, NodeKind};

/// The group's encoding; if it is not stored, it is inferred from members and shape. Empty if unknown.
pub fn encoding(store: &dyn Container, element: &str) -> Result<String, ArrayError> {
    let told = super::encoding(store, element)?;
    if !told.is_empty() {
        return Ok(told);
    }
    let attributes = store.attributes(element)?;
    if let Some(format) = attributes.get("h5sparse_format").and_then(Value::as_str) {
        return Ok(format!("{format}_matrix"));
    }
    for part in ["data", "indices", "indptr"] {
        if store.kind(&format!("{element}/{part}"))? != Some(NodeKind::Array) {
            return Ok(String::new());
        }
    }
    let bounds = store.shape(&format!("{element}/indptr"))?;
    let columns = shape(store, element)?.and_then(|[rows, columns]| {
        let fits = |n: u64| bounds.as_slice() == [n.saturating_add(1)];
        // A square matrix counts as CSR, as nearly all are.
        if fits(rows) { Some(false) } else { fits(columns).then_some(true) }
    });
    Ok(match columns {
        Some(false) => "csr_matrix".to_owned(),
        Some(true) => "csc_matrix".to_owned(),
        None => String::new(),
    })
}

/// Rows and columns of a sparse group: from its attribute, or an array of that name (10x), or else from obs and var.
pub fn shape(store: &dyn Container, element: &str) -> Result<Option<[u64; 2]>, ArrayError> {
    let attributes = store.attributes(element)?;
    for name in ["shape", "h5sparse_shape"] {
        if let Some(Value::Array(shape)) = attributes.get(name) {
            return Ok(two(shape.iter().map(whole)));
        }
    }
    let own = format!("{element}/shape");
    if store.kind(&own)? == Some(NodeKind::Array) {
        let array = store.array(&own)?;
        if array.shape == [2] {
            let bytes = array.read_all(64, &Counters::default())?;
            let numbers = bytes.chunks_exact(array.dtype.size());
            return Ok(two(numbers.map(|n| u64::try_from(to_i64(array.dtype, n)).ok())));
        }
    }
    let var = if is_raw(element) { Frame::RawVar } else { Frame::Var };
    let length = |frame: Frame| match store.kind(&located(store, frame.path())?)? {
        Some(_) => DataFrame::open(store, frame).map(|frame| Some(frame.rows)),
        None => Ok(None),
    };
    Ok(length(Frame::Obs)?.zip(length(var)?).map(|(rows, columns)| [rows, columns]))
}
