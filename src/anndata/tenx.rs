//! 10x Genomics' `.h5`, as Cell Ranger writes it: the group `matrix` (version 3), or one group a genome (version 2).
//!
//! Its matrix is CSC of genes x cells, which is CSR of cells x genes. As in scanpy, cells are named by barcode and genes by name;
//! `gene_ids`, `feature_types` and `genome` are columns of var. All features are served, not only gene expression.

use serde_json::json;

use super::adapted::Table;
use super::names::{Frame, MatrixName};
use crate::array::{ArrayError, Container, NodeKind};

/// Groups of the root to search, at most.
const MOST_GROUPS: usize = 256;

pub fn table(store: &dyn Container) -> Result<Option<Table>, ArrayError> {
    // `FILE::GENOME` names the group itself.
    if is_matrix(store, "")? {
        return of(store, "").map(Some);
    }
    if is_matrix(store, "matrix/")? {
        return of(store, "matrix/").map(Some);
    }
    let mut genomes = Vec::new();
    for name in store.members("")?.into_iter().take(MOST_GROUPS) {
        if is_matrix(store, &format!("{name}/"))? {
            genomes.push(name);
        }
    }
    match genomes.as_slice() {
        [] => Ok(None),
        [one] => of(store, &format!("{one}/")).map(Some),
        several => {
            let named: Vec<String> = several.iter().map(|genome| format!("{}::{genome}", store.name())).collect();
            let cause = format!("a 10x file of several genomes; name {}", named.join(" or "));
            Err(ArrayError::Open { store: store.name().to_owned(), cause })
        }
    }
}

fn is_array(store: &dyn Container, element: &str) -> Result<bool, ArrayError> {
    Ok(store.kind(element)? == Some(NodeKind::Array))
}

fn is_matrix(store: &dyn Container, group: &str) -> Result<bool, ArrayError> {
    for part in ["barcodes", "data", "indices", "indptr"] {
        if !is_array(store, &format!("{group}{part}"))? {
            return Ok(false);
        }
    }
    Ok(is_array(store, &format!("{group}features/id"))? || is_array(store, &format!("{group}genes"))?)
}

fn of(store: &dyn Container, group: &str) -> Result<Table, ArrayError> {
    let at = |part: &str| format!("{group}{part}");
    let is_new = is_array(store, &at("features/id"))?;
    let ids = at(if is_new { "features/id" } else { "genes" });
    let names = at(if is_new { "features/name" } else { "gene_names" });
    let length = |element: &str| Ok::<u64, ArrayError>(store.shape(element)?.first().copied().unwrap_or_default());
    let mut table = Table::anndata();
    let shape = [length(&at("barcodes"))?, length(&ids)?];
    table.group(&MatrixName::X.path(), json!({"encoding-type": "csr_matrix", "shape": shape}));
    for part in ["data", "indices", "indptr"] {
        table.array(&format!("X/{part}"), &at(part));
    }
    table.frame(Frame::Obs.path(), Some(&at("barcodes")), &[]);
    let mut columns = vec![("gene_ids".to_owned(), ids.clone())];
    if is_new {
        for name in store.members(&at("features"))? {
            let element = at(&format!("features/{name}"));
            let column = match name.as_str() {
                "id" | "name" | "_all_tag_keys" => continue,
                "feature_type" => "feature_types",
                other => other,
            };
            if is_array(store, &element)? {
                columns.push((column.to_owned(), element));
            }
        }
    }
    let index = if is_array(store, &names)? { names } else { ids };
    table.frame(Frame::Var.path(), Some(&index), &columns);
    Ok(table)
}
