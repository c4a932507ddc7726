//! loom files: `matrix` and `layers` are genes x cells, `row_attrs` are columns of var, `col_attrs` of obs.
//!
//! As in `anndata.io.read_loom`: cells are named by `CellID`, genes by `Gene`. One-dimensional attributes are columns, two-dimensional
//! numeric ones are matrices in obsm.

use serde_json::json;

use super::adapted::Table;
use super::names::{Frame, LAYERS, MatrixName, OBSM};
use crate::array::{ArrayError, Container, NodeKind};

/// Attributes with the names of cells and of genes; the first that exists is used.
const CELLS: [&str; 2] = ["CellID", "obs_names"];
const GENES: [&str; 2] = ["Gene", "var_names"];

pub fn table(store: &dyn Container) -> Result<Option<Table>, ArrayError> {
    for (element, kind) in [("matrix", NodeKind::Array), ("row_attrs", NodeKind::Group), ("col_attrs", NodeKind::Group)]
    {
        if store.kind(element)? != Some(kind) {
            return Ok(None);
        }
    }
    let mut table = Table::anndata();
    table.transposed(&MatrixName::X.path(), "matrix");
    for group in [LAYERS, OBSM] {
        table.group(group, json!({"encoding-type": "dict"}));
    }
    // loom uses AnnData's name of this group.
    let layers = "layers";
    if store.kind(layers)? == Some(NodeKind::Group) {
        for name in store.members(layers)? {
            let element = format!("{layers}/{name}");
            table.transposed(&MatrixName::Layer(name).path(), &element);
        }
    }
    for (frame, group, names) in [(Frame::Obs, "col_attrs", CELLS), (Frame::Var, "row_attrs", GENES)] {
        let members = store.members(group)?;
        let index = names.into_iter().find(|name| members.iter().any(|member| member == name));
        let mut columns = Vec::new();
        for name in members.iter().filter(|name| Some(name.as_str()) != index) {
            let element = format!("{group}/{name}");
            if store.kind(&element)? != Some(NodeKind::Array) {
                continue;
            }
            match store.shape(&element)?.len() {
                1 => columns.push((name.clone(), element)),
                2 if frame == Frame::Obs => table.array(&MatrixName::Obsm(name.clone()).path(), &element),
                _ => {}
            }
        }
        table.frame(frame.path(), index.map(|name| format!("{group}/{name}")).as_deref(), &columns);
    }
    Ok(Some(table))
}
