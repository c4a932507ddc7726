//! `.h5ad`: a valid AnnData, contiguous and uncompressed, written without libhdf5.
//!
//! Everything that depends on the table alone (object headers, attributes, gene names, category labels) is one constant block at the start
//! of the file; the batch's data follow, 64-byte aligned. So each data address is a sum of lengths, `layout` takes nanoseconds for each
//! column, and `finish` is one copy plus a patch and a checksum for each dataset.
//!
//! Invariant: the layout depends only on (rows, nnz, table).

mod hdf5_image;
mod lookup3;
mod structure;

use crate::array::Dtype;
use crate::batch::{Batch, Field, Layout, Repr, Span};
use crate::collection::Table;
use crate::collection::companion::Beside;
use crate::format::names::one_matrix;
use crate::format::{Content, FileShape, Format, Segment, Segments};
use crate::number::as_usize;
use hdf5_image::{ALIGN, Placed};
pub use structure::check_elements;

/// Why a collection cannot be served as `.h5ad`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum H5adError {
    /// An attribute has at most 65,535 bytes, and a name takes 16 of them; anndata itself has the same limit.
    #[error("obs has {columns} columns; `.h5ad` holds at most {most}: select fewer, or read another format")]
    TooManyColumns { columns: usize, most: usize },
    #[error("a dense row of shape {row:?} is too large for `.h5ad`")]
    RowTooLarge { row: Vec<u64> },
    /// Layers must have the columns of X.
    #[error("{element} has other columns than X ({x}), which layers of an AnnData must not; read another format")]
    Layer { element: String, x: String },
    /// Two elements would have the same name.
    #[error("{element} is where X ({x}) goes, whose rows are no vectors; read another format")]
    Taken { element: String, x: String },
    #[error("a text of {element} has {bytes} bytes; `.h5ad` allows at most {most}")]
    TextTooLong { element: String, bytes: usize, most: usize },
    /// Rows of tokens are not rows of a matrix.
    #[error("an AnnData holds no tokens")]
    Tokens,
    /// A limit that the other checks should have found first.
    #[error("the table does not fit the limits of HDF5 object headers")]
    Header,
}

/// The number of items of a dataset in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemCount {
    Rows,
    RowsAndOne,
    /// One item for each row of the batch itself, also in datasets of a companion.
    BatchRows,
    /// Values of an element.
    Stored(usize),
}

/// A dataset that the engine fills.
#[derive(Clone, Debug)]
struct Filled {
    /// Number of the companion ([`Batch::companion`]).
    companion: usize,
    field: Field,
    repr: Repr,
    count: ItemCount,
    /// Elements of an item: those of a row of a dense matrix, else 1.
    elements: u64,
    placed: Placed,
}

impl Filled {
    /// Number of items, given rows and values of each companion.
    fn items<'a>(&self, counts: impl Fn(usize) -> Counts<'a>) -> u64 {
        let (rows, nnz) = counts(self.companion);
        match self.count {
            ItemCount::BatchRows => counts(0).0,
            ItemCount::Rows => rows,
            ItemCount::RowsAndOne => rows + 1,
            ItemCount::Stored(element) => nnz[element],
        }
    }

    /// The dtype of column numbers and row bounds in a batch: both 32-bit unless a number does not fit or 64 bits are requested; scipy
    /// needs both alike.
    fn index_dtype(&self, batch: &Batch<'_>) -> Option<Dtype> {
        let batch = batch.companion(self.companion);
        let (Field::Indices(element) | Field::Indptr(element)) = self.field else { return None };
        let wide = [batch.index_dtype(element), batch.bounds_dtype(element)].contains(&Dtype::I64);
        Some(if wide { Dtype::I64 } else { Dtype::I32 })
    }

    /// The same in a file with this many values.
    fn index_dtype_of_many(&self, table: &Table, nnz: &[u64]) -> Option<Dtype> {
        let (Field::Indices(element) | Field::Indptr(element)) = self.field else { return None };
        Some(index_dtype_of_many(table, element, nnz[element]))
    }
}

/// The dtype of column numbers and row bounds of an element with this many values; scipy needs both alike.
pub fn index_dtype_of_many(table: &Table, element: usize, nnz: u64) -> Dtype {
    let most = nnz.max(table.elements[element].n_vars());
    let wide = table.index_dtype == Some(Dtype::I64) || most > i32::MAX as u64;
    if wide { Dtype::I64 } else { Dtype::I32 }
}

/// The `.h5ad` format of one table.
#[derive(Clone, Debug)]
pub struct H5ad {
    batch: Skeleton,
    /// With all columns of var, which would be most of a batch file; `None`: there is no file of many batches.
    many: Option<Skeleton>,
}

/// What files of one kind have in common.
#[derive(Clone, Debug)]
struct Skeleton {
    /// The start of each file; its length is a multiple of [`ALIGN`].
    front: Vec<u8>,
    /// Bytes of `front` before the HDF5 file starts, a multiple of [`ALIGN`]; addresses are relative to that.
    user_block: usize,
    /// The datasets, in the order of their data.
    filled: Vec<Filled>,
    /// The groups of sparse matrices, with the number of their companion; their third attribute is `shape`.
    sparse: Vec<(usize, Placed)>,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    one_matrix(table)?;
    Ok(Box::new(H5ad::new(table).map_err(|error| error.to_string())?))
}

/// The format for a MuData, `.h5mu`: modalities of the same cells, each an AnnData.
pub fn open_h5mu(table: &Table) -> Result<Box<dyn Format>, String> {
    if table.companions.iter().any(|of| matches!(of.rows, Beside::Neighbours { .. })) {
        return Err("it holds no graph; .npz, .safetensors and .record.npy do".to_owned());
    }
    if table.modality.is_none() {
        return Err("there is one AnnData, and no modalities: .h5ad holds it".to_owned());
    }
    let batch = structure::build(table, &[], true).map_err(|error| error.to_string())?;
    Ok(Box::new(H5ad { batch, many: None }))
}

impl H5ad {
    /// Prepares what all batches of `table` share.
    pub fn new(table: &Table) -> Result<H5ad, H5adError> {
        let batch = structure::build(table, &[], false)?;
        // If not all columns of var fit, none is written.
        let many = structure::build(table, &table.x().var, false).unwrap_or_else(|_| batch.clone());
        Ok(H5ad { batch, many: Some(many) })
    }
}

/// Number of rows, and of values of each element.
type Counts<'a> = (u64, &'a [u64]);

/// Those of a batch and its companions.
fn counts<'a>(batch: &Batch<'a>) -> impl Fn(usize) -> Counts<'a> {
    let batch = *batch;
    move |number| {
        let of = batch.companion(number);
        (of.rows.len() as u64, of.nnz)
    }
}

impl Skeleton {
    /// The layout for given counts of each companion; `index`: the dtype of column numbers and row bounds.
    fn place<'a>(&self, counts: impl Fn(usize) -> Counts<'a>, index: impl Fn(&Filled) -> Option<Dtype>) -> Layout {
        let mut size = self.front.len() as u64;
        let spans = self
            .filled
            .iter()
            .map(|filled| {
                let repr = index(filled).map_or(filled.repr, Repr::Number);
                let start = size.next_multiple_of(ALIGN);
                let len = filled.items(&counts) * filled.elements * repr.size() as u64;
                // No padding before empty arrays, or after the last array.
                size = if len == 0 { size } else { start + len };
                Span { companion: filled.companion, field: filled.field, repr, start: start.min(size), len }
            })
            .collect();
        Layout { size, spans }
    }

    /// Writes the front of a file with this layout.
    fn patch<'a>(&self, counts: impl Fn(usize) -> Counts<'a>, layout: &Layout, front: &mut [u8]) {
        front.copy_from_slice(&self.front);
        let (_, front) = front.split_at_mut(self.user_block);
        for (filled, span) in self.filled.iter().zip(&layout.spans) {
            filled.placed.set_first_dim(front, filled.items(&counts));
            filled.placed.set_storage(front, span.start - self.user_block as u64, span.len);
            if let (Field::Indices(_) | Field::Indptr(_), Repr::Number(dtype)) = (filled.field, span.repr) {
                filled.placed.set_integers(front, dtype);
            }
            filled.placed.seal(front);
        }
        for (companion, group) in &self.sparse {
            group.set_value(front, structure::SHAPE, &counts(*companion).0.to_le_bytes());
            group.seal(front);
        }
        hdf5_image::set_end_of_file(front, layout.size);
    }
}

impl Format for H5ad {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        self.batch.place(counts(batch), |filled| filled.index_dtype(batch))
    }

    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]) {
        let (front, _) = image.split_at_mut(self.batch.front.len());
        self.batch.patch(counts(batch), layout, front);
        let mut end = self.batch.front.len();
        for span in layout.spans.iter().filter(|span| span.len > 0) {
            image[end..as_usize(span.start)].fill(0);
            end = as_usize(span.start + span.len);
        }
    }

    fn segments(&self, &FileShape { table, rows, nnz, .. }: &FileShape<'_>) -> Result<Segments, String> {
        let many = self.many.as_ref().ok_or("it holds one batch a file")?;
        let layout = many.place(|_| (rows, nnz), |filled| filled.index_dtype_of_many(table, nnz));
        let mut front = vec![0; many.front.len()];
        many.patch(|_| (rows, nnz), &layout, &mut front);
        let front = Segment { start: 0, len: front.len() as u64, from: 0, content: Content::Bytes(front) };
        let segment = |span: &Span| Segment {
            start: span.start,
            len: span.len,
            from: 0,
            content: Content::Field(span.field, span.repr),
        };
        let list = std::iter::once(front).chain(layout.spans.iter().map(segment)).collect();
        Ok(Segments::new(layout.size, list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::element::{Element, MatrixKind};

    fn table() -> Table {
        let matrix = MatrixKind::Sparse { dtype: Dtype::U8 };
        let x = Element::plain(crate::anndata::names::MatrixName::X, matrix, vec!["g".into(), "h".into()].into());
        Table {
            n_rows: 10,
            elements: vec![x],
            columns: Default::default(),
            index_dtype: None,
            companions: Vec::new(),
            modality: None,
        }
    }

    #[test]
    fn indices_widen_only_when_they_must() {
        let (mut table, rows) = (table(), [3, 9]);
        let format = H5ad::new(&table).unwrap();
        let most = i32::MAX as u64;
        for (nnz, dtype) in [(most, Dtype::I32), (most + 1, Dtype::I64)] {
            let layout = format.layout(&Batch { rows: &rows, nnz: &[nnz], ..Batch::new(&table) });
            let of = |field| layout.spans.iter().find(|span| span.field == field).unwrap();
            for (field, items) in [(Field::Indices(0), nnz), (Field::Indptr(0), 3)] {
                assert_eq!(of(field).repr, Repr::Number(dtype));
                assert_eq!(of(field).len, items * dtype.size() as u64);
            }
            assert_eq!(of(Field::Data(0)).len, nnz);
            assert_eq!(layout.size, of(Field::Data(0)).start + nnz, "data come last");
        }

        // A batch that needs 64 bits is too large for a test, so they are requested.
        table.index_dtype = Some(Dtype::I64);
        let batch = Batch { rows: &rows, nnz: &[1], ..Batch::new(&table) };
        let layout = format.layout(&batch);
        let mut image = vec![0xaa; layout.size as usize];
        for span in &layout.spans {
            let bytes: Vec<u8> = match span.field {
                Field::Indptr(_) => [0_i64, 1, 1].iter().flat_map(|v| v.to_le_bytes()).collect(),
                _ => std::iter::once(1).chain(std::iter::repeat(0)).take(span.len as usize).collect(),
            };
            image[span.start as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        format.finish(&batch, &layout, &mut image);
        #[cfg(feature = "hdf5")]
        is_wide(&image);
    }

    #[cfg(feature = "hdf5")]
    fn is_wide(image: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wide.h5ad");
        std::fs::write(&path, image).unwrap();
        let file = hdf5::File::open(&path).unwrap();
        for (name, values) in [("X/indptr", vec![0_i64, 1, 1]), ("X/indices", vec![1])] {
            let dataset = file.dataset(name).unwrap();
            assert!(dataset.dtype().unwrap().is::<i64>(), "{name}");
            assert_eq!(dataset.read_raw::<i64>().unwrap(), values, "{name}");
        }
    }
}
