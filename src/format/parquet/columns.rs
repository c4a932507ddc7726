//! The columns of a file: types, sizes of their rows, and the values that the engine does not fill.

use std::ops::Range;

use crate::array::Dtype;
use crate::array::cast::{cast, to_i64};
use crate::array::meaning::{Time, Unit};
use crate::batch::{Batch, Field, Repr};
use crate::collection::Table;
use crate::collection::companion::Beside;
use crate::collection::element::MatrixKind;
use crate::format::obs::{ObsColumn, ObsKind};
use crate::format::{names, records};
use crate::number::le32;

use super::thrift::Struct;

/// Physical types.
const BOOLEAN: u64 = 0;
const INT32: u64 = 1;
const INT64: u64 = 2;
const FLOAT: u64 = 4;
const DOUBLE: u64 = 5;
const BYTE_ARRAY: u64 = 6;
const FIXED: u64 = 7;

/// Repetition types.
const REQUIRED: u64 = 0;
const OPTIONAL: u64 = 1;
const REPEATED: u64 = 2;

/// The source of a column's values.
#[derive(Clone, Debug)]
pub enum Source {
    /// Global row numbers.
    Row,
    /// Number of values of each row of X.
    Length,
    /// Lists of the values of a sparse or dense element: field, stored representation, logical dtype.
    List(Field, Repr, Dtype),
    Obs(ObsColumn),
}

/// A leaf of the schema.
#[derive(Clone, Debug)]
pub struct ParquetColumn {
    pub name: String,
    /// Number of its companion ([`Batch::companion`]).
    pub companion: usize,
    pub source: Source,
    /// The value at the start of each row's list, as bytes.
    pub lead: Vec<u8>,
}

impl ParquetColumn {
    fn new(name: &str, source: Source) -> ParquetColumn {
        ParquetColumn { name: name.to_owned(), companion: 0, source, lead: Vec::new() }
    }
}

/// The columns of a table, then those of its companions with their names as prefix.
///
/// # Errors
/// A matrix whose rows are not vectors; a companion with several rows for each.
pub fn of_table(table: &Table) -> Result<Vec<ParquetColumn>, String> {
    let mut columns = of_rows(table)?;
    names::one_matrix(table)?;
    for (number, beside) in (1..).zip(&table.companions) {
        if let Beside::Each(each @ 2..) = beside.rows {
            return Err(format!("it has one value a row, and {} has {each} rows for each", beside.name));
        }
        columns.extend(of_rows(&beside.table)?.into_iter().map(|column| ParquetColumn {
            name: format!("{}/{}", beside.name, column.name),
            companion: number,
            ..column
        }));
    }
    Ok(columns)
}

fn of_rows(table: &Table) -> Result<Vec<ParquetColumn>, String> {
    let mut columns = vec![ParquetColumn::new("row", Source::Row)];
    let mut list = |name: &str, field, dtype| {
        columns.push(ParquetColumn::new(name, Source::List(field, Repr::Number(physical_dtype(dtype)), dtype)));
    };
    for (number, (element, names)) in table.elements.iter().zip(records::matrices(table)).enumerate() {
        match &element.kind {
            MatrixKind::Sparse { dtype } => {
                let index = table.index_dtype.unwrap_or(Dtype::I32);
                list(&names[0], Field::Indices(number), index);
                list(&names[1], Field::Data(number), *dtype);
            }
            MatrixKind::Dense { row, .. } if row.len() > 1 => {
                return Err(format!("rows of {} have the shape {row:?}; `.parquet` holds vectors", element.name));
            }
            MatrixKind::Dense { dtype, .. } => list(&names[0], Field::Dense(number), *dtype),
        }
        if element.n_vars() > i32::MAX as u64 / 8 {
            return Err(format!("{} has {} columns; a page of `.parquet` holds fewer", element.name, element.n_vars()));
        }
    }
    if records::has_length(table) {
        columns.push(ParquetColumn::new(records::LENGTH, Source::Length));
    }
    columns.extend(obs(table, &records::taken(table)));
    Ok(columns)
}

/// The columns of Tahoe-100M: tokens of genes and values of X, each after those of a class token; then obs.
///
/// # Errors
/// X is dense, or has values that float32 cannot represent.
pub fn of_tahoe(table: &Table) -> Result<Vec<ParquetColumn>, String> {
    let x = table.x();
    let dtype = x.kind.dtype();
    if x.tokens.is_some() {
        return Err("its tokens are those of Tahoe-100M, not of --tokens".to_owned());
    }
    if !x.is_sparse() {
        return Err(format!("{} is dense; rows there are lists of genes with a value", x.name));
    }
    if x.n_vars() > i32::MAX as u64 / 8 {
        return Err(format!("{} has {} columns; a page of `.parquet` holds fewer", x.name, x.n_vars()));
    }
    if matches!(dtype, Dtype::I32 | Dtype::I64 | Dtype::U32 | Dtype::U64 | Dtype::F64) {
        return Err(format!("values of {} are {dtype}; Tahoe-100M has float32 only; --dtype f32 rounds them", x.name));
    }
    let list = |name: &str, field, dtype, lead: &[u8]| {
        let source = Source::List(field, Repr::Number(dtype), dtype);
        ParquetColumn { lead: lead.to_vec(), ..ParquetColumn::new(name, source) }
    };
    let mut columns = vec![
        list("genes", Field::Indices(0), Dtype::I64, &1_i64.to_le_bytes()),
        list("expressions", Field::Data(0), Dtype::F32, &(-2_f32).to_le_bytes()),
    ];
    columns.extend(obs(table, &["genes".to_owned(), "expressions".to_owned()]));
    Ok(columns)
}

fn obs(table: &Table, taken: &[String]) -> impl Iterator<Item = ParquetColumn> + use<> {
    let all = ObsColumn::all(table, taken).into_iter();
    all.map(|column| ParquetColumn::new(&column.name.clone(), Source::Obs(column)))
}

/// The dtype to which smaller integers are widened.
fn physical_dtype(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::Bool | Dtype::I8 | Dtype::I16 | Dtype::U8 | Dtype::U16 => Dtype::I32,
        other => other,
    }
}

impl ParquetColumn {
    /// The logical dtype.
    fn dtype(&self) -> Dtype {
        match &self.source {
            Source::List(_, _, dtype) | Source::Obs(ObsColumn { kind: ObsKind::Number(dtype), .. }) => *dtype,
            Source::Row | Source::Length | Source::Obs(_) => Dtype::I64,
        }
    }

    /// Its schema elements, and the path of its leaf.
    pub fn schema(&self) -> (Vec<Vec<u8>>, Vec<String>) {
        match &self.source {
            Source::List(..) => {
                let outer = Struct::new().i32(3, REQUIRED).text(4, &self.name).i32(5, 1).i32(6, 3);
                let outer = outer.inner(10, Struct::new().inner(3, Struct::new())).end();
                let list = Struct::new().i32(3, REPEATED).text(4, "list").i32(5, 1).end();
                let leaf = self.leaf(REQUIRED, "element");
                (vec![outer, list, leaf], vec![self.name.clone(), "list".to_owned(), "element".to_owned()])
            }
            _ => {
                let repetition = if self.is_nullable() { OPTIONAL } else { REQUIRED };
                (vec![self.leaf(repetition, &self.name)], vec![self.name.clone()])
            }
        }
    }

    fn is_nullable(&self) -> bool {
        matches!(&self.source, Source::Obs(column) if column.nullable)
    }

    fn leaf(&self, repetition: u64, name: &str) -> Vec<u8> {
        let mut told = Struct::new().i32(1, self.physical());
        if self.physical() == FIXED {
            told = told.i32(2, 2);
        }
        told = told.i32(3, repetition).text(4, name);
        let logical = |kind, of| Struct::new().inner(kind, of);
        match &self.source {
            Source::Obs(ObsColumn { kind: ObsKind::Labels | ObsKind::Text, .. }) => {
                told = told.i32(6, 0).inner(10, logical(1, Struct::new()));
            }
            Source::Obs(ObsColumn { kind: ObsKind::Boolean, .. }) => {}
            // Durations are stored as numbers.
            Source::Obs(ObsColumn { kind: ObsKind::Time(Time { is_duration: false, unit }), .. }) => {
                let unit = match unit {
                    Unit::Nanosecond => 3,
                    Unit::Microsecond => 2,
                    _ => 1,
                };
                let unit = Struct::new().inner(unit, Struct::new());
                told = told.inner(10, logical(8, Struct::new().bool(1, false).inner(2, unit)));
            }
            _ => {
                let integer = |told: Struct, converted, bits, signed| {
                    told.i32(6, converted).inner(10, logical(10, Struct::new().i8(1, bits).bool(2, signed)))
                };
                told = match self.dtype() {
                    Dtype::Bool | Dtype::U8 => integer(told, 11, 8, false),
                    Dtype::U16 => integer(told, 12, 16, false),
                    Dtype::U32 => integer(told, 13, 32, false),
                    Dtype::U64 => integer(told, 14, 64, false),
                    Dtype::I8 => integer(told, 15, 8, true),
                    Dtype::I16 => integer(told, 16, 16, true),
                    Dtype::F16 => told.inner(10, logical(15, Struct::new())),
                    Dtype::I32 | Dtype::I64 | Dtype::F32 | Dtype::F64 => told,
                };
            }
        }
        told.end()
    }

    /// The physical type.
    pub fn physical(&self) -> u64 {
        match &self.source {
            Source::Obs(ObsColumn { kind: ObsKind::Labels | ObsKind::Text, .. }) => BYTE_ARRAY,
            Source::Obs(ObsColumn { kind: ObsKind::Boolean, .. }) => BOOLEAN,
            _ => match self.dtype() {
                Dtype::Bool | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::I8 | Dtype::I16 | Dtype::I32 => INT32,
                Dtype::U64 | Dtype::I64 => INT64,
                Dtype::F16 => FIXED,
                Dtype::F32 => FLOAT,
                Dtype::F64 => DOUBLE,
            },
        }
    }

    /// Number of values in the list of the row at a position of a batch, including the leading one.
    pub fn length(&self, batch: &Batch<'_>, at: usize) -> u64 {
        let batch = batch.companion(self.companion);
        match &self.source {
            Source::List(Field::Dense(element), ..) => batch.element(*element).n_vars(),
            Source::List(Field::Data(element) | Field::Indices(element), ..) => {
                batch.lengths(*element).get(at).copied().unwrap_or(0) + u64::from(!self.lead.is_empty())
            }
            _ => 1,
        }
    }

    /// Maximum bytes of the values of a row.
    pub fn bytes(&self, batch: &Batch<'_>, at: usize) -> u64 {
        let rows = batch.companion(self.companion);
        match &self.source {
            Source::List(_, repr, _) => self.length(batch, at) * repr.size() as u64,
            Source::Obs(column) if matches!(column.kind, ObsKind::Labels | ObsKind::Text) => {
                4 + column.text(rows.table, rows.rows[at]).len() as u64
            }
            _ => 8,
        }
    }

    /// Whether a row has a value.
    pub fn is_there(&self, table: &Table, row: u64) -> bool {
        match &self.source {
            Source::Obs(column) => !column.is_missing(table, row) && time(column, table, row).is_ok(),
            _ => true,
        }
    }

    pub fn has_levels(&self) -> bool {
        self.is_nullable()
    }

    /// The values at these positions of a batch, except those that the engine fills.
    pub fn values(&self, batch: &Batch<'_>, places: Range<usize>) -> Vec<u8> {
        let mut out = Vec::new();
        let table = batch.table;
        let column = match &self.source {
            Source::List(..) => return out,
            Source::Row => {
                places.for_each(|at| out.extend_from_slice(&batch.number(at).to_le_bytes()));
                return out;
            }
            Source::Length => {
                let lengths = batch.lengths(0).get(places).unwrap_or_default();
                lengths.iter().for_each(|length| out.extend_from_slice(&length.to_le_bytes()));
                return out;
            }
            Source::Obs(column) => column,
        };
        for (at, &row) in batch.rows[places].iter().filter(|&&row| self.is_there(table, row)).enumerate() {
            match column.kind {
                ObsKind::Labels | ObsKind::Text => {
                    let text = column.text(table, row);
                    out.extend_from_slice(&le32(text.len()));
                    out.extend_from_slice(text.as_bytes());
                }
                ObsKind::Boolean => {
                    if at % 8 == 0 {
                        out.push(0);
                    }
                    if let Some(last) = out.last_mut() {
                        *last |= u8::from(column.number(table, row) != [0]) << (at % 8);
                    }
                }
                ObsKind::Time(_) => out.extend_from_slice(&time(column, table, row).unwrap_or(0).to_le_bytes()),
                ObsKind::Number(dtype) => {
                    let to = physical_dtype(dtype);
                    let start = out.len();
                    out.resize(start + to.size(), 0);
                    cast(dtype, to, column.number(table, row), &mut out[start..]);
                }
            }
        }
        out
    }
}

/// A time in the stored unit. Parquet has no seconds; times outside the range of milliseconds are errors.
fn time(column: &ObsColumn, table: &Table, row: u64) -> Result<i64, ()> {
    match column.kind {
        ObsKind::Time(time) => {
            let ticks = to_i64(Dtype::I64, column.number(table, row));
            if time.unit == Unit::Second && !time.is_duration { ticks.checked_mul(1000).ok_or(()) } else { Ok(ticks) }
        }
        _ => Ok(0),
    }
}
