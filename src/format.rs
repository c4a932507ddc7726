//! The exact bytes of one file: a layout from the batch's shape alone, then everything that is not data.
//!
//! A format never sees a store. `layout` says where each field goes; the engine scatters the data there;
//! `finish` then writes headers, constants and checksums. So `st_size` needs no data, and a row's bytes are copied
//! once between decoder and reader.

pub mod h5ad;
mod npy;
mod npz;
mod safetensors;
mod tsv;

pub use tsv::escape;

use crate::anndata::column::Values;
use crate::batch::{Batch, Field, Layout, Repr};
use crate::collection::{MatrixKind, Table};

/// One output format. Implementations are pure: same batch, same bytes, on every machine.
pub trait Format: Send + Sync {
    /// Where each field goes and how large the file is. Reads no matrix data.
    fn layout(&self, batch: &Batch<'_>) -> Layout;

    /// Writes every byte of `image` that no span covers. Called once, after all spans hold their values; `image` may
    /// hold anything else before.
    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]);
}

/// The formats, by file name extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extension {
    Npz,
    Safetensors,
    Npy,
    H5ad,
    Tsv,
}

impl Extension {
    /// All, in the order of their inode codes: append only.
    pub const ALL: [Extension; 5] =
        [Extension::Npz, Extension::Safetensors, Extension::Npy, Extension::H5ad, Extension::Tsv];

    /// As in a file name, without the dot.
    pub fn as_str(self) -> &'static str {
        match self {
            Extension::Npz => "npz",
            Extension::Safetensors => "safetensors",
            Extension::Npy => "npy",
            Extension::H5ad => "h5ad",
            Extension::Tsv => "tsv",
        }
    }

    /// The extension of that name.
    pub fn from_name(name: &str) -> Option<Extension> {
        Extension::ALL.into_iter().find(|extension| extension.as_str() == name)
    }
}

/// The writers of all formats for one collection. A format that cannot hold it (too many columns for `.h5ad`, say) has
/// the reason in its place, and its files do not exist.
pub struct Writers([Result<Box<dyn Format>, String>; Extension::ALL.len()]);

impl Writers {
    pub fn new(table: &Table) -> Writers {
        Writers(Extension::ALL.map(|extension| -> Result<Box<dyn Format>, String> {
            Ok(match extension {
                Extension::Npz => Box::new(npz::Npz),
                Extension::Safetensors => Box::new(safetensors::Safetensors),
                Extension::Npy => Box::new(npy::Npy),
                Extension::H5ad => Box::new(h5ad::H5ad::new(table).map_err(|error| error.to_string())?),
                Extension::Tsv => Box::new(tsv::Tsv),
            })
        }))
    }

    /// The writer of a format.
    ///
    /// # Errors
    /// Why it cannot hold this collection.
    pub fn get(&self, extension: Extension) -> Result<&dyn Format, &str> {
        self.0[extension as usize].as_deref().map_err(String::as_str)
    }

    /// The formats that can hold the collection.
    pub fn extensions(&self) -> Vec<Extension> {
        Extension::ALL.into_iter().filter(|&extension| self.get(extension).is_ok()).collect()
    }
}

/// A named tensor of a batch, as `.npz` and `.safetensors` both have them.
struct Tensor {
    name: String,
    field: Field,
    repr: Repr,
    shape: Vec<u64>,
}

impl Tensor {
    /// Bytes of its elements.
    fn len(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.repr.size() as u64
    }
}

/// All tensors of a batch: X (`data`, `indices`, `indptr`, or `X`), `row`, `obs/<column>` and `obs/<column>/mask`.
fn tensors(batch: &Batch<'_>, text: impl Fn(usize, usize) -> Repr) -> Vec<Tensor> {
    let rows = batch.rows.len() as u64;
    let tensor = |name: &str, field, repr, shape| Tensor { name: name.to_owned(), field, repr, shape };
    let mut all = Vec::with_capacity(4 + batch.table.columns.len());
    match &batch.table.matrix {
        MatrixKind::Sparse { dtype } => {
            let index = Repr::Number(batch.index_dtype());
            all.push(tensor("data", Field::Data, Repr::Number(*dtype), vec![batch.nnz]));
            all.push(tensor("indices", Field::Indices, index, vec![batch.nnz]));
            all.push(tensor("indptr", Field::Indptr, index, vec![rows + 1]));
        }
        MatrixKind::Dense { dtype, .. } => {
            all.push(tensor("X", Field::Dense, Repr::Number(*dtype), batch.shape()));
        }
    }
    all.push(tensor("row", Field::Row, Repr::Number(crate::array::Dtype::I64), vec![rows]));
    for (i, column) in batch.table.columns.iter().enumerate() {
        let name = format!("obs/{}", column.name);
        let (repr, mask) = match &column.values {
            Values::Categorical { codes, .. } => (Repr::Number(codes.dtype), false),
            Values::Numbers { numbers, mask } => (Repr::Number(numbers.dtype), mask.is_some()),
            Values::Text { mask, chars, bytes, .. } => (text(*chars, *bytes), mask.is_some()),
        };
        if mask {
            let name = format!("{name}/mask");
            all.push(Tensor {
                name,
                field: Field::Mask(i),
                repr: Repr::Number(crate::array::Dtype::Bool),
                shape: vec![rows],
            });
        }
        all.push(Tensor { name, field: Field::Column(i), repr, shape: vec![rows] });
    }
    all
}
