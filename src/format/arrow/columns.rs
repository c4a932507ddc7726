//! The columns of a record batch: their types, and their buffers in Arrow's order.

use crate::anndata::column::Values;
use crate::anndata::index::arrow::messages::{ArrowType, Column};
use crate::anndata::names::MatrixName;
use crate::array::Dtype;
use crate::batch::{Batch, Field, Repr};
use crate::collection::Table;
use crate::collection::element::MatrixKind;
use crate::format::obs::{ObsColumn, ObsKind};
use crate::format::records;

/// Maximum labels of a dictionary column, as every file contains them all. Other columns have the labels as text.
const MOST_LABELS: usize = 4096;

/// The width of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    Narrow,
    Wide,
}

impl Width {
    pub fn dtype(self) -> Dtype {
        match self {
            Width::Narrow => Dtype::I32,
            Width::Wide => Dtype::I64,
        }
    }

    fn list(self, item: ArrowType) -> ArrowType {
        match self {
            Width::Narrow => ArrowType::List(Column::item(item)),
            Width::Wide => ArrowType::LargeList(Column::item(item)),
        }
    }

    fn text(self) -> ArrowType {
        match self {
            Width::Narrow => ArrowType::Utf8,
            Width::Wide => ArrowType::LargeUtf8,
        }
    }

    pub fn put(self, number: u64, out: &mut Vec<u8>) {
        match self {
            Width::Narrow => out.extend_from_slice(&i32::try_from(number).unwrap_or(i32::MAX).to_le_bytes()),
            Width::Wide => out.extend_from_slice(&number.to_le_bytes()),
        }
    }
}

/// The content of a buffer.
#[derive(Clone, Debug)]
pub enum BufferPart {
    /// A field that the engine fills.
    Filled(Field, Repr),
    /// An empty validity bitmap: nothing is missing.
    Empty,
    /// A bit for each row: whether it has a value.
    Validity(ObsColumn),
    /// A bit for each row.
    Bits(ObsColumn),
    /// Codes of this dtype.
    Codes(ObsColumn, Dtype),
    Numbers(ObsColumn, usize),
    /// The end of each text.
    Ends(ObsColumn),
    Texts(ObsColumn),
}

impl BufferPart {
    /// Size in a batch, in bytes.
    pub fn len(&self, batch: &Batch<'_>, width: Width) -> u64 {
        let rows = batch.rows.len() as u64;
        match self {
            BufferPart::Filled(field, repr) => filled_len((*field, *repr), batch.table, rows, batch.nnz),
            BufferPart::Empty => 0,
            BufferPart::Validity(_) | BufferPart::Bits(_) => rows.div_ceil(8),
            BufferPart::Codes(_, dtype) => rows * dtype.size() as u64,
            BufferPart::Numbers(_, size) => rows * *size as u64,
            BufferPart::Ends(_) => (rows + 1) * width.dtype().size() as u64,
            BufferPart::Texts(column) => column.text_bytes(batch.table, batch.rows),
        }
    }

    /// Writes the content, unless the engine fills it.
    pub fn write(&self, batch: &Batch<'_>, width: Width, out: &mut [u8]) {
        let (table, rows) = (batch.table, batch.rows);
        match self {
            BufferPart::Filled(..) | BufferPart::Empty => {}
            BufferPart::Validity(column) => bits(rows.iter().map(|&row| !column.is_missing(table, row)), out),
            BufferPart::Bits(column) => bits(rows.iter().map(|&row| column.number(table, row) != [0]), out),
            BufferPart::Codes(column, dtype) => {
                for (&row, out) in rows.iter().zip(out.chunks_exact_mut(dtype.size())) {
                    let code = column.code(table, row).unwrap_or(0) as u64;
                    out.copy_from_slice(&code.to_le_bytes()[..dtype.size()]);
                }
            }
            BufferPart::Numbers(column, size) => {
                for (&row, out) in rows.iter().zip(out.chunks_exact_mut(*size)) {
                    out.copy_from_slice(column.number(table, row));
                }
            }
            BufferPart::Ends(column) => {
                let mut ends = Vec::with_capacity(out.len());
                let mut end = 0;
                width.put(end, &mut ends);
                for &row in rows {
                    end += column.text(table, row).len() as u64;
                    width.put(end, &mut ends);
                }
                out.copy_from_slice(&ends);
            }
            BufferPart::Texts(column) => {
                let mut rest = out;
                for &row in rows {
                    let text = column.text(table, row);
                    let (here, after) = rest.split_at_mut(text.len());
                    here.copy_from_slice(text.as_bytes());
                    rest = after;
                }
            }
        }
    }
}

/// Size in bytes of a field with this many rows and values.
pub fn filled_len((field, repr): (Field, Repr), table: &Table, rows: u64, nnz: &[u64]) -> u64 {
    let elements = match field {
        Field::Data(element) | Field::Indices(element) => nnz[element],
        Field::Indptr(_) => rows + 1,
        Field::Dense(element) => rows * table.elements[element].n_vars(),
        _ => rows,
    };
    elements * repr.size() as u64
}

/// Packs bits; the first row's is the lowest bit of the first byte.
fn bits(values: impl Iterator<Item = bool>, out: &mut [u8]) {
    out.fill(0);
    for (at, value) in values.enumerate() {
        out[at / 8] |= u8::from(value) << (at % 8);
    }
}

/// A level of a column: its number of values, and how many are missing.
#[derive(Clone, Debug)]
pub enum Node {
    Rows,
    /// The rows of an obs column with missing values.
    Nullable(ObsColumn),
    /// Values of a sparse element.
    Values(usize),
    /// A fixed number of values for each row.
    Times(u64),
}

impl Node {
    pub fn len(&self, rows: u64, nnz: &[u64]) -> u64 {
        match self {
            Node::Rows | Node::Nullable(_) => rows,
            Node::Values(element) => nnz[*element],
            Node::Times(count) => rows * count,
        }
    }

    pub fn missing(&self, batch: &Batch<'_>) -> u64 {
        match self {
            Node::Nullable(column) => column.missing(batch.table, batch.rows),
            _ => 0,
        }
    }
}

/// All columns.
pub struct ArrowColumns {
    pub fields: Vec<Column>,
    pub nodes: Vec<Node>,
    pub buffers: Vec<BufferPart>,
    /// The dictionary columns, in order.
    pub dictionaries: Vec<ObsColumn>,
}

impl ArrowColumns {
    pub fn new(table: &Table, width: Width) -> Result<ArrowColumns, String> {
        let mut columns = ArrowColumns::of_matrices(table, width)?;
        for column in ObsColumn::all(table, &records::taken(table)) {
            columns.obs(table, column, width);
        }
        Ok(columns)
    }

    /// The columns of row numbers and matrices.
    ///
    /// # Errors
    /// An axis is too long for a list.
    pub fn of_matrices(table: &Table, width: Width) -> Result<ArrowColumns, String> {
        let mut columns =
            ArrowColumns { fields: Vec::new(), nodes: Vec::new(), buffers: Vec::new(), dictionaries: Vec::new() };
        let names = records::matrices(table);
        columns.whole("row", ArrowType::Number(Dtype::I64), Field::Row, Repr::Number(Dtype::I64));
        for (number, element) in table.elements.iter().enumerate() {
            let (name, item) = (&names[number], ArrowType::Number(element.kind.dtype()));
            match &element.kind {
                MatrixKind::Sparse { dtype } => {
                    let index = table.index_dtype.unwrap_or(width.dtype());
                    let genes = ArrowType::Number(index);
                    columns.list(&name[0], width, genes, (number, Field::Indices(number), index));
                    columns.list(&name[1], width, item, (number, Field::Data(number), *dtype));
                    if element.tokens.is_some() {
                        let repr = Repr::Number(Dtype::I32);
                        columns.whole(records::LENGTH, ArrowType::Number(Dtype::I32), Field::Length(number), repr);
                    }
                }
                MatrixKind::Dense { dtype, row } => {
                    columns.nodes.push(Node::Rows);
                    columns.buffers.push(BufferPart::Empty);
                    let (mut times, mut tensor) = (1, item);
                    for (axis, &len) in row.iter().enumerate() {
                        times *= len;
                        columns.nodes.push(Node::Times(times));
                        if axis + 1 < row.len() {
                            columns.buffers.push(BufferPart::Empty);
                        }
                    }
                    columns.filled(Field::Dense(number), Repr::Number(*dtype));
                    for &len in row.iter().skip(1).rev() {
                        tensor = fixed(&element.name, tensor, len)?;
                    }
                    let len = row.first().copied().unwrap_or(1);
                    columns.push(&name[0], fixed(&element.name, tensor, len)?, false);
                }
            }
        }
        Ok(columns)
    }

    /// Adds a column with one field, and one value for each row.
    pub fn whole(&mut self, name: &str, kind: ArrowType, field: Field, repr: Repr) {
        self.push(name, kind, false);
        self.nodes.push(Node::Rows);
        self.filled(field, repr);
    }

    /// The obs columns with texts.
    pub fn texts(&self) -> impl Iterator<Item = &ObsColumn> {
        self.buffers.iter().filter_map(|part| match part {
            BufferPart::Texts(column) => Some(column),
            _ => None,
        })
    }

    fn push(&mut self, name: &str, kind: ArrowType, nullable: bool) {
        self.fields.push(Column { name: name.to_owned(), kind, nullable });
    }

    fn filled(&mut self, field: Field, repr: Repr) {
        self.buffers.extend([BufferPart::Empty, BufferPart::Filled(field, repr)]);
    }

    fn list(&mut self, name: &str, width: Width, item: ArrowType, (number, field, dtype): (usize, Field, Dtype)) {
        self.push(name, width.list(item), false);
        self.nodes.extend([Node::Rows, Node::Values(number)]);
        self.filled(Field::Indptr(number), Repr::Number(width.dtype()));
        self.filled(field, Repr::Number(dtype));
    }

    fn obs(&mut self, table: &Table, column: ObsColumn, width: Width) {
        let nullable = column.nullable;
        self.nodes.push(if nullable { Node::Nullable(column.clone()) } else { Node::Rows });
        self.buffers.push(if nullable { BufferPart::Validity(column.clone()) } else { BufferPart::Empty });
        let name = column.name.clone();
        let kind = match column.kind {
            ObsKind::Boolean => {
                self.buffers.push(BufferPart::Bits(column));
                ArrowType::Boolean
            }
            ObsKind::Number(dtype) => {
                self.buffers.push(BufferPart::Numbers(column, dtype.size()));
                ArrowType::Number(dtype)
            }
            ObsKind::Time(time) => {
                self.buffers.push(BufferPart::Numbers(column, 8));
                ArrowType::Time(time)
            }
            ObsKind::Labels => match dictionary(table, &column) {
                Some((codes, ordered)) => {
                    self.dictionaries.push(column.clone());
                    self.buffers.push(BufferPart::Codes(column, codes));
                    ArrowType::Labels { codes, ordered }
                }
                None => self.text(column, width),
            },
            ObsKind::Text => self.text(column, width),
        };
        self.push(&name, kind, nullable);
    }

    fn text(&mut self, column: ObsColumn, width: Width) -> ArrowType {
        self.buffers.extend([BufferPart::Ends(column.clone()), BufferPart::Texts(column)]);
        width.text()
    }
}

/// For a dictionary column, the dtype of its codes, and whether its labels are ordered.
fn dictionary(table: &Table, column: &ObsColumn) -> Option<(Dtype, bool)> {
    let Values::Categorical { codes, categories, ordered } = &table.columns[column.place].values else { return None };
    (categories.labels.len() <= MOST_LABELS).then_some((codes.dtype, *ordered))
}

fn fixed(element: &MatrixName, item: ArrowType, len: u64) -> Result<ArrowType, String> {
    let len = i32::try_from(len)
        .map_err(|_| format!("an axis of {element} has {len} values; a list of `.arrow` has at most {}", i32::MAX))?;
    Ok(ArrowType::FixedSizeList(Column::item(item), len))
}
