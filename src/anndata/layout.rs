//! Where a store keeps its elements: the names of today, and those of older layouts and other writers.
//!
//! Nothing here reads values; what is asked of a neighbour is its name and attributes, and its trouble is not ours.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::encoding;
use crate::array::container::file_of;
use crate::array::{ArrayError, Container, NodeKind, RecordFieldKind};

/// Groups of one level that are looked through for AnnData.
const MOST_GROUPS: usize = 256;
/// What AnnData holds: none of it is another AnnData.
const OWN: [&str; 10] = ["X", "obs", "var", "layers", "obsm", "varm", "obsp", "varp", "uns", "raw"];

/// The name in this store: before anndata 0.7, `raw/X` was `raw.X` and `raw/var` was `raw.var`.
pub fn located(store: &dyn Container, element: &str) -> Result<String, ArrayError> {
    if let Some(rest) = element.strip_prefix("raw/")
        && store.kind(element)?.is_none()
    {
        let old = format!("raw.{rest}");
        if store.kind(&old)?.is_some() {
            return Ok(old);
        }
    }
    Ok(element.to_owned())
}

/// Whether there is such an element. `None` of Python is written as one that says so (`raw` without a raw).
pub fn is_there(store: &dyn Container, element: &str) -> Result<bool, ArrayError> {
    Ok(store.kind(element)?.is_some() && encoding(store, element)? != "null")
}

/// The elements that `--x` can name in this store: `X`, `raw/X`, `layers/NAME`, `obsm/NAME`.
pub fn matrices(store: &dyn Container) -> Result<Vec<String>, ArrayError> {
    let mut all = Vec::new();
    for single in ["X", "raw/X"] {
        if is_there(store, &located(store, single)?)? {
            all.push(single.to_owned());
        }
    }
    for group in ["layers", "obsm"] {
        match store.kind(group)? {
            Some(NodeKind::Group) => {
                all.extend(store.members(group)?.into_iter().map(|name| format!("{group}/{name}")));
            }
            // Before 0.7: one array of records, a field for each.
            Some(NodeKind::Array) => {
                let fields = store.fields(group)?.into_iter();
                let numbers = fields.filter(|field| matches!(field.kind, RecordFieldKind::Number(_)));
                all.extend(numbers.map(|field| format!("{group}/{}", field.name)));
            }
            None => {}
        }
    }
    Ok(all)
}

/// The group's encoding; where the writer did not tell it, what its members and shape say. Empty where that is unknown.
pub fn sparse_encoding(store: &dyn Container, element: &str) -> Result<String, ArrayError> {
    let told = encoding(store, element)?;
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
    let columns = sparse_shape(store, element)?.and_then(|[rows, columns]| {
        let fits = |n: u64| bounds.as_slice() == [n.saturating_add(1)];
        // A square one is taken for rows, as nearly all are.
        if fits(rows) { Some(false) } else { fits(columns).then_some(true) }
    });
    Ok(match columns {
        Some(false) => "csr_matrix".to_owned(),
        Some(true) => "csc_matrix".to_owned(),
        None => String::new(),
    })
}

/// Rows and columns of a sparse group: its attribute, an array of that name (as 10x writes it), else obs and var.
pub fn sparse_shape(store: &dyn Container, element: &str) -> Result<Option<[u64; 2]>, ArrayError> {
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
            let bytes = array.read_all(64, &crate::array::Counters::default())?;
            let numbers = bytes.chunks_exact(array.dtype.size());
            return Ok(two(numbers.map(|n| u64::try_from(crate::array::cast::to_i64(array.dtype, n)).ok())));
        }
    }
    let var = if element.starts_with("raw") { located(store, "raw/var")? } else { "var".to_owned() };
    let length = |frame: &str| match store.kind(frame)? {
        Some(_) => super::dataframe::DataFrame::open(store, frame).map(|frame| Some(frame.rows)),
        None => Ok(None),
    };
    Ok(length("obs")?.zip(length(&var)?).map(|(rows, columns)| [rows, columns]))
}

fn two(numbers: impl Iterator<Item = Option<u64>>) -> Option<[u64; 2]> {
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// A whole number; R writes them as floats.
fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n)).map(|n| n as u64);
    value.as_u64().or_else(float)
}

/// Rows and columns of whatever matrix of this kind there is, for a frame that is absent.
pub fn lengths(store: &dyn Container, raw: bool) -> Result<Option<[u64; 2]>, ArrayError> {
    let candidates = matrices(store)?.into_iter().filter(|name| match name.as_str() {
        "raw/X" => raw,
        name => !raw && !name.starts_with("obsm/"),
    });
    for element in candidates {
        let element = located(store, &element)?;
        let shape = match store.kind(&element)? {
            Some(NodeKind::Array) => two(store.shape(&element)?.into_iter().take(2).map(Some)),
            Some(NodeKind::Group) => {
                let attributes = store.attributes(&element)?;
                let told = ["shape", "h5sparse_shape"].iter().find_map(|name| attributes.get(*name)?.as_array());
                told.and_then(|shape| two(shape.iter().map(whole)))
            }
            None => None,
        };
        if shape.is_some() {
            return Ok(shape);
        }
    }
    Ok(None)
}

/// Elements that only another format has, what it is, and what to do.
const FOREIGN: &[(&[&str], &str)] = &[
    (&["assays", "meta.data"], SEURAT),
    (&["assays", "cell.names"], SEURAT),
    (
        &["uns/AnnDataSet"],
        "this is a SnapATAC2 AnnDataSet (.h5ads), which only names other files: name those .h5ad files, or their directory",
    ),
    (
        &["assay001"],
        "these are the arrays of an R object (saveHDF5SummarizedExperiment): convert it in R with anndataR",
    ),
    (&["bins", "pixels"], "this is a .cool file of contacts between regions, and no AnnData"),
    (&["geneExp"], "this is a Stereo-seq .gef file: stereopy's `read_gef` and `stereo_to_anndata` make an .h5ad of it"),
    (
        &["cellBin"],
        "this is a Stereo-seq .cgef file: stereopy's `read_gef` and `stereo_to_anndata` make an .h5ad of it",
    ),
];

const SEURAT: &str =
    "this is an .h5seurat file: in R, SeuratDisk's `Convert(file, dest = \"h5ad\")` makes an .h5ad of it";

/// What a store without a matrix is instead, if its elements tell.
pub fn foreign(store: &dyn Container) -> Option<&'static str> {
    let there = |element: &&str| store.kind(element).is_ok_and(|kind| kind.is_some());
    FOREIGN.iter().find(|(elements, _)| elements.iter().all(&there)).map(|(_, told)| *told)
}

fn is_anndata(store: &dyn Container, element: &str) -> bool {
    let group = |element: &str| store.kind(element).is_ok_and(|kind| kind == Some(NodeKind::Group));
    let there = |element: &str| store.kind(element).is_ok_and(|kind| kind.is_some());
    group(element)
        && (encoding(store, element).is_ok_and(|encoding| encoding == "anndata")
            || (there(&format!("{element}/obs")) && there(&format!("{element}/var"))))
}

/// AnnData groups inside of a store that is none itself: `mod/rna` (MuData), `tables/table` (SpatialData).
pub fn inside(store: &dyn Container) -> Vec<String> {
    let mut all = Vec::new();
    // What cannot be listed holds nothing for us.
    let members = |group: &str| store.members(group).unwrap_or_default().into_iter().take(MOST_GROUPS);
    for outer in members("").filter(|name| !OWN.contains(&name.as_str())) {
        if is_anndata(store, &outer) {
            all.push(outer);
        } else if store.kind(&outer).is_ok_and(|kind| kind == Some(NodeKind::Group)) {
            let below = members(&outer).map(|name| format!("{outer}/{name}"));
            all.extend(below.filter(|name| is_anndata(store, name)));
        }
    }
    all
}

/// The stores that a path stands for: those in a directory of `.h5ad` and `.zarr` stores that is no store itself, in the order
/// of their names; else the path alone.
pub fn expand(path: &Path) -> Vec<PathBuf> {
    let is_zarr = ["zarr.json", ".zgroup", ".zarray", ".zmetadata"].iter().any(|file| path.join(file).is_file());
    let entries = if is_zarr { None } else { std::fs::read_dir(path).ok() };
    let is_store = |path: &PathBuf| {
        let name = path.as_os_str().as_encoded_bytes();
        [".h5ad".as_bytes(), b".zarr", b".zarr.zip"].iter().any(|ending| name.ends_with(ending))
    };
    let mut stores: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    stores.retain(is_store);
    stores.sort();
    if stores.is_empty() { vec![path.to_owned()] } else { stores }
}

/// A store and the path that names it.
pub type OpenedStore = (PathBuf, Box<dyn Container>);

/// The stores that a path names, opened: itself, or the `dataset_0`, `dataset_1`, ... of an annbatch collection, in that
/// order.
///
/// # Errors
/// Those of [`super::open`].
pub fn stores(path: &Path) -> Result<Vec<OpenedStore>, ArrayError> {
    let store = super::open(path)?;
    let whole = |store| Ok(vec![(path.to_owned(), store)]);
    if is_there(&*store, "obs")? || is_there(&*store, "X")? {
        return whole(store);
    }
    let number = |name: &String| name.strip_prefix("dataset_")?.parse::<u64>().ok();
    let mut parts: Vec<(u64, String)> =
        store.members("")?.into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    parts.retain(|(_, name)| is_anndata(&*store, name));
    if parts.is_empty() {
        return whole(store);
    }
    parts.sort();
    let open = |(_, inner): (u64, String)| {
        let mut name = path.as_os_str().to_owned();
        // `STORE::GROUP` already names a group.
        name.push(if file_of(path) == path { "::" } else { "/" });
        name.push(inner);
        let path = PathBuf::from(name);
        super::open(&path).map(|store| (path, store))
    };
    parts.into_iter().map(open).collect()
}
