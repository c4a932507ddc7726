//! Describes a store, and what would prevent a mount of it, as JSON (`info`).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::anndata::matrix::Matrix;
use crate::anndata::names::Frame;
use crate::anndata::row_index::RowIndex;
use crate::anndata::{self, check, matrices, one_line};
use crate::array::{Array, ArrayError, Container, Counters};
use crate::collection::{Collection, Selection};
use crate::format::Writers;

use super::{memory, modalities};

/// Describes the store, or each store of an annbatch collection, or each modality of a MuData; one that cannot be opened has only `error`.
/// `check`: scan for damage as well. `selection`: what a mount would serve.
pub fn describe(path: &Path, check: bool, selection: &Selection) -> Vec<Value> {
    // `open` reports a path that cannot be opened.
    let stores = anndata::stores(path).unwrap_or_default();
    let parts = match stores.as_slice() {
        [] => vec![path.to_owned()],
        [(path, store)] => modalities::groups(path, &**store).unwrap_or_else(|| vec![path.clone()]),
        parts => parts.iter().map(|(path, _)| path.clone()).collect(),
    };
    let one = |path: &PathBuf| {
        open(path, check, selection).unwrap_or_else(|error| json!({"error": one_line(&error.to_string())}))
    };
    parts.iter().map(one).collect()
}

fn open(path: &Path, check: bool, selection: &Selection) -> Result<Value, ArrayError> {
    let counters = Counters { room: memory::metadata(), ..Counters::default() };
    let store = anndata::open(path)?;
    let store = &*store;
    let matrices: Vec<Value> = match matrices(store) {
        Ok(elements) => elements.iter().map(|element| matrix(store, &element.path(), &counters)).collect(),
        // With `check`, it is reported as a finding.
        Err(error) if !check => return Err(error),
        Err(_) => Vec::new(),
    };
    let columns = DataFrame::open(store, Frame::Obs).map(|obs| columns(&obs));
    let genes = DataFrame::open(store, Frame::Var).map(|var| var.rows);
    // A mount would transpose a matrix stored by column first; a description must not do that.
    let opened = match Matrix::open_by_column(store, &selection.x.path(), &counters) {
        Ok(Some(_)) => Ok(None),
        Ok(None) => Collection::open(&[path.to_owned()], selection, &counters).map(Some).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let refused: Map<String, Value> = match &opened {
        Ok(Some(collection)) => Writers::new(&collection.table)
            .refused()
            .into_iter()
            .map(|(format, reason)| (format.to_owned(), reason.into()))
            .collect(),
        _ => Map::new(),
    };
    let stops = opened.err().map(|error| one_line(&error));
    let mut described = json!({
        "store": store.name(),
        "rows": DataFrame::open(store, Frame::Obs).map(|obs| obs.rows).ok(),
        "genes": genes.ok(),
        "matrices": matrices,
        "columns": columns.unwrap_or_default(),
        "mounts": stops.is_none(),
        "stops": stops,
        "formats_refused": refused,
    });
    if check {
        described["check"] = check::check(store);
    }
    Ok(described)
}

fn matrix(store: &dyn Container, element: &str, counters: &Counters) -> Value {
    let by_column = Matrix::open_by_column(store, element, counters).transpose();
    let kind = if by_column.is_some() { "csc" } else { "csr" };
    match by_column.unwrap_or_else(|| Matrix::look(store, element, &RowIndex::looking(), counters)) {
        Ok(matrix) => {
            let mut shape: Vec<u64> = std::iter::once(matrix.rows()).chain(matrix.row_shape()).collect();
            if kind == "csc" {
                shape.reverse();
            }
            json!({
                "element": element,
                "kind": if matrix.is_sparse() { kind } else { "dense" },
                "dtype": matrix.dtype().name(),
                "shape": shape,
                "stored_values": matrix.stored(),
                "arrays": matrix.arrays().into_iter().map(array).collect::<Vec<_>>(),
            })
        }
        Err(error) => json!({"element": element, "stops": one_line(&error.to_string())}),
    }
}

fn array(array: &Array) -> Value {
    json!({
        "element": array.element.as_ref(),
        "dtype": array.dtype.name(),
        "chunk_shape": array.chunk_shape,
        "filters": array.source.filters(),
    })
}

fn columns(obs: &DataFrame<'_>) -> Vec<Value> {
    let one = |name: &String| {
        let kind = obs.kind(name)?;
        let mut told = json!({"name": name, "kind": kind.name(), "categories": null});
        match kind {
            ColumnKind::Categorical => told["categories"] = json!(obs.category_count(name)?),
            ColumnKind::Time(time) => told["unit"] = json!(time.unit.name()),
            ColumnKind::Other => told["stops"] = json!(format!("{}, which is not read", obs.what(name)?)),
            _ => {}
        }
        Ok::<Value, ArrayError>(told)
    };
    let stopped = |name: &String, error: ArrayError| json!({"name": name, "stops": one_line(&error.to_string())});
    obs.columns.iter().map(|name| one(name).unwrap_or_else(|error| stopped(name, error))).collect()
}
