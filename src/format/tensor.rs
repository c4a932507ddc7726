//! The named tensors of a batch, for `.npz`, `.safetensors`, `.npy` and `.record.npy`.

use super::{names, records};
use crate::anndata::column::Values;
use crate::array::Dtype;
use crate::batch::{Batch, Field, Repr, Span};
use crate::collection::Table;
use crate::collection::companion::Beside;
use crate::collection::element::MatrixKind;
use crate::number::as_usize;

/// A named tensor: what does not depend on the batch.
pub struct Tensor {
    pub name: String,
    /// Number of its companion ([`Batch::companion`]).
    pub companion: usize,
    pub field: Field,
    /// `None` for column numbers and row bounds: see `Batch::index_dtype` and `Batch::bounds_dtype`.
    repr: Option<Repr>,
    extent: TensorShape,
}

/// What the shape of a tensor depends on.
#[derive(Clone, Copy)]
enum TensorShape {
    /// Number of values of an element.
    Stored(usize),
    Rows,
    RowsAndOne,
    /// Rows of the batch itself, also in tensors of a companion.
    BatchRows,
    /// Edges, as two rows of node positions; or one value for each.
    EdgePairs,
    Edges,
    /// Rows of an element.
    Matrix(usize),
    /// Tokens of an element, in rows of equal length.
    Padded(usize),
}

impl Tensor {
    pub fn repr(&self, batch: &Batch<'_>) -> Repr {
        let batch = batch.companion(self.companion);
        self.repr.unwrap_or_else(|| match self.field {
            Field::Indptr(element) => Repr::Number(batch.bounds_dtype(element)),
            Field::Indices(element) => Repr::Number(batch.index_dtype(element)),
            _ => Repr::Number(Dtype::I64),
        })
    }

    /// Its shape; a string is one element.
    pub fn shape(&self, batch: &Batch<'_>) -> Shape {
        let all = batch.rows.len() as u64;
        let batch = batch.companion(self.companion);
        let rows = batch.rows.len() as u64;
        match self.extent {
            TensorShape::BatchRows => Shape::One(all),
            TensorShape::EdgePairs => Shape::Many(vec![2, batch.edges.from.len() as u64]),
            TensorShape::Edges => Shape::One(batch.edges.from.len() as u64),
            TensorShape::Stored(element) => Shape::One(batch.nnz[element]),
            TensorShape::Rows => Shape::One(rows),
            TensorShape::RowsAndOne => Shape::One(rows + 1),
            TensorShape::Matrix(element) => Shape::Many(batch.shape(element)),
            TensorShape::Padded(element) => {
                let length = batch.element(element).tokens.as_ref().map_or(0, |tokens| tokens.spec.length);
                Shape::Many(vec![rows, length])
            }
        }
    }

    /// Its size in bytes.
    pub fn bytes(&self, batch: &Batch<'_>) -> u64 {
        self.shape(batch).axes().iter().product::<u64>() * self.repr(batch).size() as u64
    }

    /// The range that the engine fills if the tensor starts at `start`; if rows are padded, this is the end of the tensor.
    pub fn span(&self, batch: &Batch<'_>, start: u64) -> Span {
        let (repr, bytes) = (self.repr(batch), self.bytes(batch));
        let len = match self.extent {
            TensorShape::Padded(element) => batch.companion(self.companion).nnz[element] * repr.size() as u64,
            _ => bytes,
        };
        Span { companion: self.companion, field: self.field, repr, start: start + bytes - len, len }
    }

    /// Moves tokens to rows of equal length, and pads these. `tensor` has all of its bytes.
    pub fn pad(&self, batch: &Batch<'_>, tensor: &mut [u8]) {
        let TensorShape::Padded(element) = self.extent else { return };
        let size = self.repr(batch).size();
        let batch = batch.companion(self.companion);
        let Some(tokens) = &batch.element(element).tokens else { return };
        let padding = match self.field {
            Field::Data(_) => tokens.spec.pad_value.to_le_bytes().to_vec(),
            _ => u64::from(tokens.spec.pad).to_le_bytes()[..size].to_vec(),
        };
        let row = as_usize(tokens.spec.length) * size;
        let mut from = tensor.len() - as_usize(batch.nnz[element]) * size;
        for (at, length) in batch.lengths(element).iter().enumerate() {
            // The write position never overtakes the read position, as no row is longer than `row`.
            let (start, len) = (at * row, as_usize(*length) * size);
            tensor.copy_within(from..from + len, start);
            tensor[start + len..start + row].chunks_exact_mut(size).for_each(|out| out.copy_from_slice(&padding));
            from += len;
        }
    }
}

/// The axes of a tensor; most have one, which needs no allocation.
pub enum Shape {
    One(u64),
    Many(Vec<u64>),
}

impl Shape {
    pub fn axes(&self) -> &[u64] {
        match self {
            Shape::One(n) => std::slice::from_ref(n),
            Shape::Many(axes) => axes,
        }
    }
}

/// All tensors of a table's batches: X (`data`, `indices`, `indptr`, or `X`), `row`, `obs/<column>`, `obs/<column>/mask`, and further
/// elements,
/// all by their served names ([`names`]); then those of each companion, with its name as prefix. If there are modalities, the table has the
/// name of its own as prefix, and `obsm/NAME` and `obsmap/NAME` map rows of the batch to those of each modality, as in a MuData. Edges of
/// neighbours are `edge_index` and `edge_weight`, as in PyTorch Geometric. `text` gives the representation of strings, from their maximum
/// numbers of characters and bytes.
pub fn tensors(table: &Table, text: impl Fn(usize, usize) -> Repr) -> Vec<Tensor> {
    let mut all = Vec::new();
    for (companion, table, below) in tables(table) {
        all.extend(tensors_of(table, companion, &below, &text));
    }
    for (companion, name) in names::modalities(table) {
        for (group, field, dtype) in [("obsm", Field::Has, Dtype::Bool), ("obsmap", Field::Place, Dtype::U32)] {
            let (repr, extent) = (Some(Repr::Number(dtype)), TensorShape::BatchRows);
            all.push(Tensor { name: format!("{group}/{name}"), companion, field, repr, extent });
        }
    }
    for (companion, beside) in (1..).zip(&table.companions) {
        let Beside::Neighbours { weights, .. } = &beside.rows else { continue };
        for (name, field, dtype, extent) in [
            ("edge_index", Field::EdgeIndex, Dtype::I64, TensorShape::EdgePairs),
            ("edge_weight", Field::EdgeWeight, *weights, TensorShape::Edges),
        ] {
            all.push(Tensor { name: name.to_owned(), companion, field, repr: Some(Repr::Number(dtype)), extent });
        }
    }
    all
}

/// The table and those of its companions, each with its number and the prefix of its parts.
fn tables(table: &Table) -> impl Iterator<Item = (usize, &Table, String)> {
    let beside = (1..).zip(&table.companions).map(|(number, of)| (number, &*of.table, format!("{}/", of.name)));
    std::iter::once((0, table, table.below())).chain(beside)
}

/// The tensors of one table, with `below` as prefix.
fn tensors_of(table: &Table, companion: usize, below: &str, text: impl Fn(usize, usize) -> Repr) -> Vec<Tensor> {
    let tensor =
        |name: &str, field, repr, extent| Tensor { name: format!("{below}{name}"), companion, field, repr, extent };
    let (columns, elements) = (names::columns(table), names::elements(table));
    let number = |dtype| Some(Repr::Number(dtype));
    let matrix = |i: usize| match &table.elements[i].kind {
        MatrixKind::Sparse { dtype } if table.elements[i].tokens.is_some() => vec![
            tensor("input_ids", Field::Indices(i), None, TensorShape::Padded(i)),
            tensor("expressions", Field::Data(i), number(*dtype), TensorShape::Padded(i)),
            tensor(records::LENGTH, Field::Length(i), number(Dtype::I32), TensorShape::Rows),
        ],
        MatrixKind::Sparse { dtype } => vec![
            tensor(&part_name(&elements, i, "data"), Field::Data(i), number(*dtype), TensorShape::Stored(i)),
            tensor(&part_name(&elements, i, "indices"), Field::Indices(i), None, TensorShape::Stored(i)),
            tensor(&part_name(&elements, i, "indptr"), Field::Indptr(i), None, TensorShape::RowsAndOne),
        ],
        MatrixKind::Dense { dtype, .. } => {
            let name = if i == 0 { "X" } else { &elements[i] };
            vec![tensor(name, Field::Dense(i), number(*dtype), TensorShape::Matrix(i))]
        }
    };
    let mut all = matrix(0);
    all.push(tensor("row", Field::Row, number(Dtype::I64), TensorShape::Rows));
    for (i, (column, name)) in table.columns.iter().zip(&columns).enumerate() {
        let name = format!("obs/{name}");
        let (repr, mask) = match &column.values {
            Values::Categorical { codes, .. } => (Repr::Number(codes.dtype), false),
            Values::Numbers { numbers, mask, .. } => (Repr::Number(numbers.dtype), mask.is_some()),
            Values::Text { mask, chars, bytes, .. } => (text(*chars, *bytes), mask.is_some()),
        };
        if mask {
            all.push(tensor(&format!("{name}/mask"), Field::Mask(i), number(Dtype::Bool), TensorShape::Rows));
        }
        all.push(tensor(&name, Field::Column(i), Some(repr), TensorShape::Rows));
    }
    all.extend((1..table.elements.len()).flat_map(matrix));
    all
}

/// Sorts tensors by descending element size, so that consecutive ones are all aligned.
pub fn by_falling_size(tensors: &mut [Tensor], table: &Table) {
    // Column numbers and row bounds have 4 bytes, unless the batch is huge or another dtype is requested.
    let asked = table.index_dtype.map_or(4, Dtype::size);
    tensors.sort_by_key(|tensor| match (tensor.repr, tensor.field) {
        (Some(Repr::Number(dtype)), _) => std::cmp::Reverse(dtype.size()),
        (Some(Repr::Ucs4(_)), _) => std::cmp::Reverse(4),
        (Some(Repr::Utf8(_)), _) => std::cmp::Reverse(1),
        (None, Field::Indices(_)) => std::cmp::Reverse(asked),
        (None, _) => std::cmp::Reverse(asked.max(4)),
    });
}

/// The shapes of sparse elements: number of the companion, index in the table, and the name in formats that store them.
pub fn sparse_shapes(table: &Table) -> Vec<(usize, usize, String)> {
    let mut shapes = Vec::new();
    for (number, table, below) in tables(table) {
        let elements = names::elements(table);
        let sparse =
            table.elements.iter().enumerate().filter(|(_, element)| element.is_sparse() && element.tokens.is_none());
        shapes.extend(sparse.map(|(i, _)| (number, i, format!("{below}{}", part_name(&elements, i, "shape")))));
    }
    shapes
}

/// The name of a part of a sparse element. Parts of X have no prefix, as scipy expects.
pub fn part_name(elements: &[String], element: usize, part: &str) -> String {
    if element == 0 { part.to_owned() } else { format!("{}/{part}", elements[element]) }
}
