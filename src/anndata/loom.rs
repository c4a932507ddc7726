//! loom files: `matrix` and `layers` are genes x cells, `row_attrs` tells of genes, `col_attrs` of cells.
//!
//! As `anndata.io.read_loom` reads it: rows are named by `CellID`, genes by `Gene`. An attribute of one value a cell is a
//! column, a table of numbers is a matrix in obsm.

use serde_json::json;

use super::adapted::Table;
use super::names::{Frame, LAYERS, MatrixName, OBSM};
use crate::array::{ArrayError, Container, NodeKind};

/// Attributes that name cells and genes; the first that is there.
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
    // loom has a group of this name, too.
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
