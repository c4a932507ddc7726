//! Transposes a matrix stored by column (CSC) to CSR, out of core: what does not fit memory goes through a scratch file.
//!
//! The first pass counts the values of each row. The second reads the values in stored order, column by column, and distributes them to
//! bands of rows; then each band is sorted in memory and appended to the index. So the store is decoded once for the counts and once for
//! the values, whatever the number of bands, and column numbers ascend within a row, as in `scipy.sparse.csc_matrix.tocsr`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::array::cast::to_u64s;
use crate::array::{Array, ArrayError, Container, Counters, Dtype};
use crate::number::as_usize;

use super::index::{Building, IndexDir, IndexPart, IndexRequest};
use super::matrix::Matrix;
use super::progress::Progress;

/// Bytes that a transposition uses, besides 16 for each row and 8 for each column.
pub const MEMORY: u64 = 256 << 20;

/// The CSR form of a matrix stored by column. `by_column` is its transpose, opened as CSR.
///
/// # Errors
/// A chunk cannot be read, a row number is outside the matrix, the index directory is not writable.
pub fn by_row(
    store: &dyn Container,
    element: &str,
    by_column: &Matrix,
    memory: u64,
    directory: &IndexDir,
    counters: &Counters,
) -> Result<Matrix, ArrayError> {
    let Matrix::Sparse { data, indices, indptr, columns: rows, .. } = by_column else {
        return Err(super::element_error(store, element, "is not stored by column"));
    };
    let (columns, stored) = (indptr.len() as u64 - 1, data.shape[0]);
    let index = if columns > u64::from(i32::MAX.unsigned_abs()) { Dtype::I64 } else { Dtype::I32 };
    let bounds = rows.checked_add(1).filter(|&bounds| bounds < super::METADATA_LIMIT / 8);
    let bounds = bounds.ok_or_else(|| super::element_error(store, element, "has too many rows to transpose"))?;
    let parts = vec![
        IndexPart { name: "indptr".into(), dtype: Dtype::U64, len: bounds },
        IndexPart { name: "indices".into(), dtype: index, len: stored },
        IndexPart { name: "data".into(), dtype: data.dtype, len: stored },
    ];
    let sources = vec![element.to_owned()];
    let entry = IndexRequest { store, element, sources, kind: "csr", more: String::new(), parts, rows: None };
    let index = directory.get(&entry, |building| {
        tracing::info!("{}: {element} is stored by column (CSC): transposing it once", store.name());
        let bar = Progress::new(format!("{element}: transposing (CSC)"), 3 * stored);
        let source = CscMatrix { data, indices, indptr, rows: *rows, index, memory: memory.max(1 << 12), counters };
        source.write(building, &bar)
    })?;
    // The counts made when the file was written must match the matrix now.
    let bounds = index.bounds("indptr").filter(|bounds| bounds.last() == Some(&stored));
    let (Ok([_, indices, data]), Some(indptr)) = (<[Array; 3]>::try_from(index.arrays()), bounds) else {
        return Err(super::element_error(store, element, "its index is damaged: remove it from --index-dir"));
    };
    Ok(Matrix::Sparse { data, indices, indptr, rows: *rows, columns })
}

/// The stored matrix.
struct CscMatrix<'a> {
    data: &'a Array,
    /// Row numbers.
    indices: &'a Array,
    /// Bounds of the columns.
    indptr: &'a [u64],
    rows: u64,
    /// The dtype of column numbers to write.
    index: Dtype,
    memory: u64,
    counters: &'a Counters,
}

/// Rows that are sorted together.
struct Band {
    rows: std::ops::Range<usize>,
    /// Offset of its next record in the scratch file.
    at: u64,
    buffer: Vec<u8>,
}

impl CscMatrix<'_> {
    fn write(&self, building: &mut Building<'_>, bar: &Progress) -> Result<(), ArrayError> {
        let bounds = self.count(bar)?;
        let mut indptr = building.part(0);
        for part in bounds.chunks(1 << 16) {
            let bytes: Vec<u8> = part.iter().flat_map(|bound| bound.to_le_bytes()).collect();
            building.write(&mut indptr, &bytes)?;
        }
        building.finish(indptr)?;
        let bands = self.bands(&bounds);
        let scratch = building.scratch()?;
        let bands = self.deal(building, &bounds, bands, &scratch, bar)?;
        let (mut indices, mut data) = (building.part(1), building.part(2));
        for band in bands {
            let (columns, values) = self.order(&bounds, &band, &scratch).map_err(|error| building.failed(&error))?;
            building.write(&mut indices, &columns)?;
            building.write(&mut data, &values)?;
            bar.add(bounds[band.rows.end] - bounds[band.rows.start]);
        }
        building.finish(indices)?;
        building.finish(data)
    }

    /// Elements to read at once: row numbers as stored and as u64, and values.
    fn window(&self) -> u64 {
        (self.memory / 4 / (16 + self.data.dtype.size() as u64)).max(64)
    }

    /// Bytes of a record in the scratch file: row within the band, column, value.
    fn record(&self) -> usize {
        4 + self.index.size() + self.data.dtype.size()
    }

    /// Counts values; returns the row bounds.
    fn count(&self, bar: &Progress) -> Result<Vec<u64>, ArrayError> {
        let rows = as_usize(self.rows);
        let mut bounds = vec![0u64; rows + 1];
        let (total, mut start) = (self.indices.shape[0], 0);
        while start < total {
            let len = self.window().min(total - start);
            for row in read_u64(self.indices, start, len, self.counters)? {
                match usize::try_from(row).ok().and_then(|row| bounds.get_mut(row + 1)) {
                    Some(count) => *count += 1,
                    None => return Err(self.outside(row)),
                }
            }
            bar.add(len);
            start += len;
        }
        let mut sum = 0;
        for bound in &mut bounds {
            sum += *bound;
            *bound = sum;
        }
        Ok(bounds)
    }

    fn outside(&self, row: u64) -> ArrayError {
        ArrayError::Element {
            store: self.indices.store.to_string(),
            element: self.indices.element.to_string(),
            cause: format!("row number {} is outside the matrix of {} rows", row.cast_signed(), self.rows),
        }
    }

    /// Divides rows into bands of at least one row, whose records and sorted values take half of the memory.
    fn bands(&self, bounds: &[u64]) -> Vec<Band> {
        let most = self.memory / 2 / (2 * self.record() as u64);
        let mut bands = Vec::new();
        let (mut start, rows) = (0, bounds.len() - 1);
        while start < rows {
            let limit = bounds[start].saturating_add(most);
            let end = bounds.partition_point(|&bound| bound <= limit) - 1;
            let end = end.clamp(start + 1, rows).min(start + u32::MAX as usize);
            bands.push(Band { rows: start..end, at: bounds[start] * self.record() as u64, buffer: Vec::new() });
            start = end;
        }
        bands
    }

    /// Appends all values to their bands, in stored order.
    fn deal(
        &self,
        building: &Building<'_>,
        bounds: &[u64],
        mut bands: Vec<Band>,
        scratch: &File,
        bar: &Progress,
    ) -> Result<Vec<Band>, ArrayError> {
        let ends: Vec<usize> = bands.iter().map(|band| band.rows.end).collect();
        let full = as_usize((self.memory / 4 / bands.len().max(1) as u64).clamp(self.record() as u64, 1 << 20));
        let size = self.data.dtype.size();
        let (total, mut start, mut column) = (self.data.shape[0], 0, 0usize);
        let flush = |band: &mut Band| {
            // If the store has changed since it was counted, records must not overwrite the next band.
            let end = bounds[band.rows.end] * self.record() as u64;
            if band.at + band.buffer.len() as u64 > end {
                return Err(building.failed(&"the store changed meanwhile"));
            }
            scratch.write_all_at(&band.buffer, band.at).map_err(|error| building.failed(&error))?;
            band.at += band.buffer.len() as u64;
            band.buffer.clear();
            Ok(())
        };
        while start < total {
            let len = self.window().min(total - start);
            let rows = read_u64(self.indices, start, len, self.counters)?;
            let values = self.data.read_window(start, len, self.counters)?;
            for ((row, value), at) in rows.into_iter().zip(values.chunks_exact(size)).zip(start..) {
                while self.indptr.get(column + 1).is_some_and(|&end| end <= at) {
                    column += 1;
                }
                let row = usize::try_from(row).unwrap_or(usize::MAX);
                let number = ends.partition_point(|&end| end <= row);
                let Some(band) = bands.get_mut(number) else { return Err(self.outside(row as u64)) };
                // Bands have fewer rows than that.
                let in_band = u32::try_from(row - band.rows.start).map_err(|_| self.outside(row as u64))?;
                band.buffer.extend_from_slice(&in_band.to_le_bytes());
                band.buffer.extend_from_slice(&(column as u64).to_le_bytes()[..self.index.size()]);
                band.buffer.extend_from_slice(value);
                if band.buffer.len() >= full {
                    flush(band)?;
                }
            }
            bar.add(len);
            start += len;
        }
        bands.iter_mut().try_for_each(flush)?;
        Ok(bands)
    }

    /// A band's column numbers and values by row; within a row, in the order of its records.
    fn order(&self, bounds: &[u64], band: &Band, scratch: &File) -> Result<(Vec<u8>, Vec<u8>), std::io::Error> {
        let (record, width, size) = (self.record(), self.index.size(), self.data.dtype.size());
        let (first, end) = (bounds[band.rows.start], bounds[band.rows.end]);
        let count = as_usize(end - first);
        let mut records = vec![0; count * record];
        scratch.read_exact_at(&mut records, first * record as u64)?;
        let mut next: Vec<usize> = bounds[band.rows.clone()].iter().map(|&bound| as_usize(bound - first)).collect();
        let (mut columns, mut values) = (vec![0; count * width], vec![0; count * size]);
        for record in records.chunks_exact(record) {
            let (row, rest) = record.split_at(4);
            let (column, value) = rest.split_at(width);
            let row = u32::from_le_bytes(std::array::from_fn(|i| row[i])) as usize;
            let changed = || std::io::Error::other("the store changed meanwhile");
            let at = next.get_mut(row).filter(|at| **at < count).ok_or_else(changed)?;
            columns[*at * width..][..width].copy_from_slice(column);
            values[*at * size..][..size].copy_from_slice(value);
            *at += 1;
        }
        Ok((columns, values))
    }
}

/// Elements of a 1-D array as u64; negative ones wrap to large ones.
fn read_u64(array: &Array, start: u64, len: u64, counters: &Counters) -> Result<Vec<u64>, ArrayError> {
    let bytes = array.read_window(start, len, counters)?;
    Ok(to_u64s(array.dtype, &bytes))
}

#[cfg(feature = "hdf5")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::anndata::row_index::RowIndex;

    /// Values (row, column, value) in stored order: by column, with rows unsorted and some repeated.
    fn values() -> Vec<(u64, u64, f32)> {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let column = |column: u64| if column.is_multiple_of(7) { 0 } else { column * 13 % 60 };
        let columns = (0..90).flat_map(|c| std::iter::repeat_n(c, column(c) as usize));
        // Rows 50..100 are empty.
        columns.enumerate().map(|(i, column)| (random(2) * 100 + random(50), column, i as f32)).collect()
    }

    fn write(path: &std::path::Path, values: &[(u64, u64, f32)]) {
        let file = hdf5::File::create(path).unwrap();
        let group = file.create_group("X").unwrap();
        for (name, value) in [("encoding-type", "csc_matrix"), ("encoding-version", "0.1.0")] {
            let value: hdf5::types::VarLenUnicode = value.parse().unwrap();
            group.new_attr::<hdf5::types::VarLenUnicode>().create(name).unwrap().write_scalar(&value).unwrap();
        }
        group.new_attr::<u64>().shape(2).create("shape").unwrap().write_raw(&[151u64, 90]).unwrap();
        let data: Vec<f32> = values.iter().map(|v| v.2).collect();
        let rows: Vec<i64> = values.iter().map(|v| v.0 as i64).collect();
        let bounds: Vec<i32> = (0..=90).map(|c| values.iter().filter(|v| v.1 < c).count() as i32).collect();
        group.new_dataset_builder().with_data(&data).chunk(100).create("data").unwrap();
        group.new_dataset_builder().with_data(&rows).chunk(100).create("indices").unwrap();
        group.new_dataset_builder().with_data(&bounds).create("indptr").unwrap();
    }

    #[test]
    fn tiny_bands_give_the_rows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.h5ad");
        let values = values();
        write(&path, &values);
        let mut wanted = values.clone();
        wanted.sort_by_key(|&(row, ..)| row);
        for memory in [1 << 12, 1 << 14, MEMORY] {
            let store = crate::array::kinds::open(&path).unwrap();
            let counters = Counters::default();
            let by_column = Matrix::open_by_column(&*store, "X", &counters).unwrap().unwrap();
            let index = IndexDir(Some(directory.path().join(memory.to_string())));
            for _ in 0..2 {
                let matrix = by_row(&*store, "X", &by_column, memory, &index, &counters).unwrap();
                let Matrix::Sparse { data, indices, indptr, columns, .. } = &matrix else { panic!() };
                assert_eq!((*columns, indptr.len()), (90, 152));
                let bytes = data.read_all(1 << 20, &counters).unwrap();
                let got: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                assert_eq!(got, wanted.iter().map(|v| v.2).collect::<Vec<_>>());
                let got = read_u64(indices, 0, indices.shape[0], &counters).unwrap();
                assert_eq!(got, wanted.iter().map(|v| v.1).collect::<Vec<_>>());
                let bound = |row: u64| wanted.iter().filter(|v| v.0 < row).count() as u64;
                assert_eq!(**indptr, (0..=151).map(bound).collect::<Vec<_>>());
            }
            // One index file, and no temporary file.
            assert_eq!(std::fs::read_dir(index.0.as_ref().unwrap()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_row_number_outside_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.h5ad");
        let mut values = values();
        values[500].0 = 151;
        write(&path, &values);
        let (store, counters) = (crate::array::kinds::open(&path).unwrap(), Counters::default());
        let index = IndexDir(Some(directory.path().join("index")));
        let Err(error) = Matrix::open_by_row(&*store, "X", &index, &RowIndex::default(), &counters) else {
            panic!("opened")
        };
        assert!(error.to_string().contains("X/indices: row number 151 is outside"), "{error}");
        assert_eq!(std::fs::read_dir(index.0.as_ref().unwrap()).unwrap().count(), 0);
    }
}
