//! Finds the elements of a store: their names today, and in older layouts and by other writers.
//!
//! Reads no values, only names and attributes; errors in other elements are ignored.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::encoding;
use super::names::{Frame, LAYERS, MatrixName, OBSM, ROOT, before_0_7};
use crate::array::kinds::file_of;
use crate::array::{ArrayError, Container, NodeKind, RecordFieldKind};
use crate::storage::ZARR_MARKERS;

/// Groups of one level to search for AnnData, at most.
const MOST_GROUPS: usize = 256;

/// The path of an element in this store: before anndata 0.7, `raw/X` was `raw.X` and `raw/var` was `raw.var`.
pub fn located(store: &dyn Container, element: &str) -> Result<String, ArrayError> {
    match before_0_7(element) {
        Some(old) if store.kind(element)?.is_none() && store.kind(&old)?.is_some() => Ok(old),
        _ => Ok(element.to_owned()),
    }
}

/// Whether an element exists. Python's `None` is stored as an element with encoding `null` (`raw` without a raw).
pub fn is_there(store: &dyn Container, element: &str) -> Result<bool, ArrayError> {
    Ok(store.kind(element)?.is_some() && encoding(store, element)? != "null")
}

/// The matrices of this store that `--x` accepts.
pub fn matrices(store: &dyn Container) -> Result<Vec<MatrixName>, ArrayError> {
    let mut all = Vec::new();
    for single in [MatrixName::X, MatrixName::RawX] {
        if is_there(store, &located(store, &single.path())?)? {
            all.push(single);
        }
    }
    for group in [LAYERS, OBSM] {
        let named = |name| if group == LAYERS { MatrixName::Layer(name) } else { MatrixName::Obsm(name) };
        match store.kind(group)? {
            Some(NodeKind::Group) => all.extend(store.members(group)?.into_iter().map(named)),
            // Before 0.7: a record array with a field for each.
            Some(NodeKind::Array) => {
                let fields = store.fields(group)?.into_iter();
                let numbers = fields.filter(|field| matches!(field.kind, RecordFieldKind::Number(_)));
                all.extend(numbers.map(|field| named(field.name)));
            }
            None => {}
        }
    }
    Ok(all)
}

/// Two numbers, if both are known.
pub fn two(numbers: impl Iterator<Item = Option<u64>>) -> Option<[u64; 2]> {
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// An integer; R writes integers as floats.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 0 to 9e15")]
pub fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n)).map(|n| n as u64);
    value.as_u64().or_else(float)
}

/// The length of a missing frame: that of the matrix next to it.
pub fn length(store: &dyn Container, frame: &str) -> Result<Option<u64>, ArrayError> {
    let frame = Frame::at(frame);
    let of_var = |matrix: &MatrixName| match frame {
        Some(Frame::RawVar) => *matrix == MatrixName::RawX,
        _ => matrix.frame() == Some(Frame::Var),
    };
    for element in matrices(store)?.into_iter().filter(of_var) {
        let element = located(store, &element.path())?;
        let shape = match store.kind(&element)? {
            Some(NodeKind::Array) => two(store.shape(&element)?.into_iter().take(2).map(Some)),
            Some(NodeKind::Group) => {
                let attributes = store.attributes(&element)?;
                let told = ["shape", "h5sparse_shape"].iter().find_map(|name| attributes.get(*name)?.as_array());
                told.and_then(|shape| two(shape.iter().map(whole)))
            }
            None => None,
        };
        if let Some([rows, columns]) = shape {
            return Ok(Some(if matches!(frame, Some(Frame::Var | Frame::RawVar)) { columns } else { rows }));
        }
    }
    Ok(None)
}

/// Elements that identify other formats, with a description and what to do.
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

/// What a store without a matrix is instead, if its elements identify it.
pub fn foreign(store: &dyn Container) -> Option<&'static str> {
    let there = |element: &&str| store.kind(element).is_ok_and(|kind| kind.is_some());
    FOREIGN.iter().find(|(elements, _)| elements.iter().all(&there)).map(|(_, told)| *told)
}

fn is_anndata(store: &dyn Container, element: &str) -> bool {
    let group = |element: &str| store.kind(element).is_ok_and(|kind| kind == Some(NodeKind::Group));
    let there = |element: &str| store.kind(element).is_ok_and(|kind| kind.is_some());
    group(element)
        && (encoding(store, element).is_ok_and(|encoding| encoding == "anndata")
            || [Frame::Obs, Frame::Var].iter().all(|frame| there(&format!("{element}/{}", frame.path()))))
}

/// AnnData groups in a store that is not AnnData: `mod/rna` (MuData), `tables/table` (SpatialData).
pub fn inside(store: &dyn Container) -> Vec<String> {
    let mut all = Vec::new();
    // Groups that cannot be listed are skipped.
    let members = |group: &str| store.members(group).unwrap_or_default().into_iter().take(MOST_GROUPS);
    for outer in members("").filter(|name| !ROOT.contains(&name.as_str())) {
        if is_anndata(store, &outer) {
            all.push(outer);
        } else if store.kind(&outer).is_ok_and(|kind| kind == Some(NodeKind::Group)) {
            let below = members(&outer).map(|name| format!("{outer}/{name}"));
            all.extend(below.filter(|name| is_anndata(store, name)));
        }
    }
    all
}

/// The stores that a path stands for: for a directory that is no store itself, its `.h5ad` and `.zarr` stores, sorted by name; otherwise
/// the path itself.
pub fn expand(path: &Path) -> Vec<PathBuf> {
    let is_zarr = ZARR_MARKERS.iter().any(|file| path.join(file).is_file());
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

/// A store and its path.
pub type OpenedStore = (PathBuf, Box<dyn Container>);

/// Opens the stores that a path stands for: the store itself, or `dataset_0`, `dataset_1`, ... of an annbatch collection, in this
/// order.
///
/// # Errors
/// Those of [`super::open`].
pub fn stores(path: &Path) -> Result<Vec<OpenedStore>, ArrayError> {
    let store = super::open(path)?;
    let whole = |store| Ok(vec![(path.to_owned(), store)]);
    if is_there(&*store, Frame::Obs.path())? || is_there(&*store, &MatrixName::X.path())? {
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
        // If the path already names a group (`STORE::GROUP`), the inner name is appended to that.
        name.push(if file_of(path) == path { "::" } else { "/" });
        name.push(inner);
        let path = PathBuf::from(name);
        super::open(&path).map(|store| (path, store))
    };
    parts.into_iter().map(open).collect()
}
