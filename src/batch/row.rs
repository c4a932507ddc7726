//! Converts one whole stored row for its image: selects genes, computes and casts values, writes CSR or dense.
//!
//! For rows that cannot be scattered while they are decoded, because the result for a value depends on other values of its row. The
//! row is in the processor's cache, so several passes over it cost less than one over memory.

use crate::array::Dtype;
use crate::array::cast::fits::misfit;
use crate::array::cast::{all_below, cast, max_index, to_text, to_u64s};
use crate::collection::element::Arithmetic;
use crate::collection::genes::DROPPED;
use crate::collection::tokens::Tokens;

use super::arithmetic::{apply, total};
use super::dense::{add, expand};
use super::select::RetainedValues;
use super::tokens::{TokenScratch, tokenize};

/// Why a row cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A column number outside the matrix.
    Column(u64),
    /// The number of retained values differs from that counted at the mount: the store has changed.
    Count,
    /// A value that the served dtype cannot represent.
    Value(String),
}

/// How the rows of one store are converted.
pub struct Recipe<'a> {
    /// The dtype of the stored values.
    pub from: Dtype,
    /// The dtype of the stored column numbers; `None` where rows are dense.
    pub index: Option<Dtype>,
    /// The new number of each column, or [`DROPPED`]; `None` where columns are unchanged.
    pub map: Option<&'a [u32]>,
    /// Columns of the stored matrix.
    pub columns: u64,
    pub arithmetic: Arithmetic,
    /// Set where rows become tokens.
    pub tokens: Option<&'a Tokens>,
    /// The dtype that arithmetic is done in.
    pub computed: Dtype,
    /// The served dtype. A format may ask for a wider one: see [`RowTarget`].
    pub served: Dtype,
}

/// Where the converted row is written.
pub enum RowTarget<'a> {
    /// `values` or `columns` is empty if the file lacks that field, which happens only with tokens. `key`: `tokens::draw_key`.
    Csr { key: u64, values: &'a mut [u8], to: Dtype, columns: &'a mut [u8], index: Dtype },
    /// `missing` is the value for columns that the store lacks; empty if it has all.
    Dense { row: &'a mut [u8], to: Dtype, missing: &'a [u8] },
}

/// Buffers of one thread.
#[derive(Default)]
pub struct RowScratch {
    retained: RetainedValues,
    steps: Steps,
    tokens: TokenScratch,
    wide: Vec<u32>,
}

/// Buffers for a row's values after each step.
#[derive(Default)]
struct Steps {
    computed: Vec<u8>,
    served: Vec<u8>,
    wanted: Vec<u8>,
}

impl Recipe<'_> {
    /// Converts one row. `columns` is empty for dense rows.
    ///
    /// # Errors
    /// The row does not match the collection's counts, or a value does not fit the served dtype.
    pub fn serve(
        &self,
        columns: &[u8],
        values: &[u8],
        out: RowTarget<'_>,
        scratch: &mut RowScratch,
    ) -> Result<(), Misfit> {
        if let Some(tokens) = self.tokens {
            return self.tokenize(tokens, (columns, values), out, scratch);
        }
        let RowScratch { retained, steps, .. } = scratch;
        let sum = if self.arithmetic.normalize.is_some() { total(self.from, values) } else { 0.0 };
        match (self.index, self.map, out) {
            (Some(from), Some(map), out) => {
                retained.select(map, from, columns, self.from.size(), values).map_err(Misfit::Column)?;
                match out {
                    RowTarget::Csr { values, to, columns, index, .. } => {
                        if retained.columns().len() * index.size() != columns.len() {
                            return Err(Misfit::Count);
                        }
                        let numbers: &[u32] = retained.columns();
                        match index.size() {
                            2 => put(columns, numbers, |column| (column as u16).to_le_bytes()),
                            4 => put(columns, numbers, u32::to_le_bytes),
                            _ => put(columns, numbers, |column| u64::from(column).to_le_bytes()),
                        }
                        values.copy_from_slice(self.convert(retained.values(), sum, to, steps)?);
                    }
                    RowTarget::Dense { row, to, .. } => {
                        row.fill(0);
                        let columns = retained.columns().iter().map(|&column| column as usize);
                        add(to, self.convert(retained.values(), sum, to, steps)?, columns, row);
                    }
                }
            }
            (Some(from), None, RowTarget::Csr { values: to_values, to, columns: to_columns, index, .. }) => {
                if !all_below(from, columns, self.columns) {
                    return Err(Misfit::Column(max_index(from, columns)));
                }
                cast(from, index, columns, to_columns);
                to_values.copy_from_slice(self.convert(values, sum, to, steps)?);
            }
            (Some(from), None, RowTarget::Dense { row, to, .. }) => {
                expand(to, self.convert(values, sum, to, steps)?, from, columns, row).map_err(Misfit::Column)?;
            }
            (None, Some(map), RowTarget::Dense { row, to, missing }) => {
                let size = to.size();
                if !missing.is_empty() {
                    row.chunks_exact_mut(size).for_each(|out| out.copy_from_slice(missing));
                }
                let places: Vec<u8> = (0..map.len() as u32).flat_map(u32::to_le_bytes).collect();
                retained.select(map, Dtype::U32, &places, self.from.size(), values).map_err(Misfit::Column)?;
                let converted = self.convert(retained.values(), sum, to, steps)?;
                for (&column, value) in retained.columns().iter().zip(converted.chunks_exact(size)) {
                    debug_assert_ne!(column, DROPPED);
                    row[column as usize * size..][..size].copy_from_slice(value);
                }
            }
            (None, None, RowTarget::Dense { row, to, .. }) => {
                row.copy_from_slice(self.convert(values, sum, to, steps)?)
            }
            // Dense rows are never served as CSR.
            (None, _, RowTarget::Csr { .. }) => return Err(Misfit::Count),
        }
        Ok(())
    }

    /// Writes the tokens of a row.
    fn tokenize(
        &self,
        tokens: &Tokens,
        (columns, values): (&[u8], &[u8]),
        out: RowTarget<'_>,
        scratch: &mut RowScratch,
    ) -> Result<(), Misfit> {
        let RowTarget::Csr { key, values: to_values, to, columns: to_columns, index } = out else {
            return Err(Misfit::Count);
        };
        let from = self.index.ok_or(Misfit::Count)?;
        let RowScratch { retained, steps, tokens: buffers, wide } = scratch;
        let sum = total(self.from, values);
        let (columns, values): (&[u32], &[u8]) = match self.map {
            Some(map) => {
                retained.select(map, from, columns, self.from.size(), values).map_err(Misfit::Column)?;
                (retained.columns(), retained.values())
            }
            None => {
                if !all_below(from, columns, self.columns) {
                    return Err(Misfit::Column(max_index(from, columns)));
                }
                wide.clear();
                wide.extend(to_u64s(from, columns).into_iter().map(|column| column as u32));
                (wide.as_slice(), values)
            }
        };
        let numbers = sized(&mut steps.computed, values.len() / self.from.size() * Dtype::F64.size());
        cast(self.from, Dtype::F64, values, numbers);
        let numbers: Vec<f64> = numbers.as_chunks::<8>().0.iter().map(|value| f64::from_le_bytes(*value)).collect();
        let row = tokenize(tokens, (columns, numbers.as_slice()), sum, key, buffers);
        let fits = |bytes: usize, size: usize| bytes == 0 || bytes == row.len() * size;
        if !fits(to_columns.len(), index.size()) || !fits(to_values.len(), to.size()) {
            return Err(Misfit::Count);
        }
        for ((token, _), out) in row.iter().zip(to_columns.chunks_exact_mut(index.size())) {
            out.copy_from_slice(&u64::from(*token).to_le_bytes()[..index.size()]);
        }
        for ((_, value), out) in row.iter().zip(to_values.chunks_exact_mut(to.size())) {
            cast(Dtype::F32, to, &value.to_le_bytes(), out);
        }
        Ok(())
    }

    /// Casts the values to the dtype of the arithmetic, computes, and casts the results to the served dtype.
    fn convert<'b>(
        &self,
        values: &'b [u8],
        total: f64,
        to: Dtype,
        Steps { computed, served, wanted }: &'b mut Steps,
    ) -> Result<&'b [u8], Misfit> {
        let (mut from, mut values) = (self.from, values);
        if !self.arithmetic.is_none() {
            let out = sized(computed, values.len() / from.size() * self.computed.size());
            cast(from, self.computed, values, out);
            apply(&self.arithmetic, self.computed, total, out);
            (from, values) = (self.computed, out);
        }
        for (dtype, buffer) in [(self.served, served), (to, wanted)] {
            if dtype == from {
                continue;
            }
            if let Some(at) = misfit(from, dtype, values) {
                return Err(Misfit::Value(to_text(from, &values[at * from.size()..][..from.size()])));
            }
            let out = sized(buffer, values.len() / from.size() * dtype.size());
            cast(from, dtype, values, out);
            (from, values) = (dtype, out);
        }
        Ok(values)
    }
}

/// A slice of `len` bytes of the buffer, with arbitrary content.
fn sized(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    buffer.resize(len, 0);
    buffer
}

fn put<const N: usize>(out: &mut [u8], columns: &[u32], bytes: impl Fn(u32) -> [u8; N]) {
    for (out, &column) in out.as_chunks_mut::<N>().0.iter_mut().zip(columns) {
        *out = bytes(column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn recipe(map: Option<&[u32]>, normalize: Option<f64>, served: Dtype) -> Recipe<'_> {
        let arithmetic = Arithmetic { normalize, log1p: false };
        let (from, index) = (Dtype::F32, Some(Dtype::U16));
        Recipe { from, index, map, columns: 4, arithmetic, tokens: None, computed: Dtype::F32, served }
    }

    #[test]
    fn totals_are_those_of_the_whole_row() {
        let columns: Vec<u8> = [0u16, 1, 3].iter().flat_map(|c| c.to_le_bytes()).collect();
        let values = f32s(&[1.0, 2.0, 5.0]);
        let map = [DROPPED, 1, DROPPED, 0];
        let (mut to_values, mut to_columns) = ([0; 4], [0; 4]);
        let out = RowTarget::Csr {
            key: 0,
            values: &mut to_values,
            to: Dtype::I16,
            columns: &mut to_columns,
            index: Dtype::U16,
        };
        let scratch = &mut RowScratch::default();
        recipe(Some(&map), Some(16.0), Dtype::I16).serve(&columns, &values, out, scratch).unwrap();
        assert_eq!((to_values, to_columns), ([4, 0, 10, 0], [1, 0, 0, 0]));
        let mut row = [0xaa; 8];
        let mut dense = |normalize, served: Dtype| {
            let out = RowTarget::Dense { row: &mut row[..2 * served.size()], to: served, missing: &[] };
            recipe(Some(&map), normalize, served).serve(&columns, &values, out, scratch).map(|()| row)
        };
        assert_eq!(dense(None, Dtype::F32).unwrap().as_slice(), f32s(&[5.0, 2.0]));
        assert_eq!(dense(Some(4.0), Dtype::I32), Err(Misfit::Value("2.5".to_owned())));
    }

    #[test]
    fn dense_rows_go_by_column() {
        let map = [2, DROPPED, 0];
        let recipe = Recipe { index: None, ..recipe(Some(&map), Some(8.0), Dtype::F32) };
        let serve = |missing: &[u8], columns: usize| {
            let mut row = vec![0; 4 * columns];
            let out = RowTarget::Dense { row: &mut row, to: Dtype::F32, missing };
            recipe.serve(&[], &f32s(&[1.0, 2.0, 1.0]), out, &mut RowScratch::default()).map(|()| row)
        };
        assert_eq!(serve(&f32s(&[7.0]), 4), Ok(f32s(&[2.0, 7.0, 2.0, 7.0])));
        let all = Recipe { map: Some(&[1, 0]), ..self::recipe(None, None, Dtype::F32) };
        let (mut row, values) = (vec![0; 8], f32s(&[1.0, 2.0]));
        let out = RowTarget::Dense { row: &mut row, to: Dtype::F32, missing: &[] };
        Recipe { index: None, ..all }.serve(&[], &values, out, &mut RowScratch::default()).unwrap();
        assert_eq!(row, f32s(&[2.0, 1.0]));
    }

    #[test]
    fn another_count_is_told() {
        let columns = [1, 0, 2, 0];
        let (mut to_values, mut to_columns) = ([0; 4], [0; 4]);
        let out = RowTarget::Csr {
            key: 0,
            values: &mut to_values,
            to: Dtype::F32,
            columns: &mut to_columns,
            index: Dtype::I32,
        };
        let map = [0, 1, 2, DROPPED];
        let result =
            recipe(Some(&map), None, Dtype::F32).serve(&columns, &f32s(&[1.0, 2.0]), out, &mut RowScratch::default());
        assert_eq!(result, Err(Misfit::Count));
    }
}
