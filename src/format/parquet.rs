//! `.parquet`: one row group with uncompressed plain pages and no statistics, so that everything except matrix values is known in advance.
//!
//! Each row of the batch is a row, as in `.arrow`: a sparse matrix becomes two list columns (`genes`, `expressions`), a dense one a list
//! column; labels are text. Levels are run-length encoded, so that they take a few bytes for each row, and their size follows from the row
//! lengths. A page has at most [`PAGE`] bytes, so columns have one page except in very large batches. The engine fills all values of a
//! column
//! contiguously at the end of its chunk; `finish` moves those of all pages but the last to their position.

mod columns;
mod levels;
mod thrift;

use std::ops::Range;

use crate::anndata::column::Values;
use crate::array::cast::to_i64;
use crate::batch::{Batch, Field, Layout, Span};
use crate::collection::Table;
use crate::number::{as_usize, le32};

use super::Format;
use columns::{ParquetColumn, Source};
use thrift::Struct;

const MAGIC: &[u8; 4] = b"PAR1";
/// Maximum bytes of the values of a page, unless one row has more: the field has 32 bits.
const PAGE: u64 = 1 << 30;
/// The encoding of levels; that of values is 0 (plain).
const RLE: u64 = 3;

/// The `.parquet` format of one table.
pub struct Parquet {
    columns: Vec<ParquetColumn>,
    /// The schema: the root, then the elements of each column.
    schema: Vec<Vec<u8>>,
    /// The path of each column.
    paths: Vec<Vec<Vec<u8>>>,
    physical: Vec<u64>,
    page: u64,
    /// The token of each gene, if rows start with a class token.
    tokens: Vec<i64>,
}

pub fn open(table: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Parquet::new(columns::of_table(table)?, PAGE, Vec::new())))
}

/// The same with a maximum page size, for tests: otherwise there is a second page only beyond 1 GiB.
pub fn open_paged(table: &Table, page: u64) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Parquet::new(columns::of_table(table)?, page, Vec::new())))
}

/// The schema of Tahoe-100M, in which the first pair of each row stands for the cell.
pub fn open_tahoe(table: &Table) -> Result<Box<dyn Format>, String> {
    Ok(Box::new(Parquet::new(columns::of_tahoe(table)?, PAGE, tokens(table))))
}

/// The tokens of genes: the column `token_id` of var, as in Tahoe-100M's table of genes, or else consecutive numbers after the special
/// tokens.
fn tokens(table: &Table) -> Vec<i64> {
    const FIRST: i64 = 3;
    let x = table.x();
    let told = x.var.iter().find(|column| column.name == "token_id" && column.len() == x.genes.len());
    match told.map(|column| &column.values) {
        Some(Values::Numbers { numbers, mask: None, time: None }) if !numbers.dtype.is_float() => {
            (0..numbers.len()).map(|gene| to_i64(numbers.dtype, numbers.at(gene))).collect()
        }
        _ => (FIRST..).take(x.genes.len()).collect(),
    }
}

/// A page of a column.
struct Page {
    rows: Range<usize>,
    /// Its header and levels.
    head: Vec<u8>,
    /// Bytes of its values.
    len: u64,
}

/// The chunk of a column in a file.
struct ColumnChunk {
    start: u64,
    len: u64,
    /// Number of values, including missing ones.
    count: u64,
    pages: Vec<Page>,
}

impl Parquet {
    fn new(columns: Vec<ParquetColumn>, page: u64, tokens: Vec<i64>) -> Parquet {
        let root = Struct::new().text(4, "schema").i32(5, columns.len() as u64).end();
        let (mut schema, mut paths) = (vec![root], Vec::new());
        for column in &columns {
            let (elements, path) = column.schema();
            schema.extend(elements);
            paths.push(path.iter().map(|name| thrift::text(name)).collect());
        }
        let physical = columns.iter().map(ParquetColumn::physical).collect();
        Parquet { columns, schema, paths, physical, page, tokens }
    }

    fn chunks(&self, batch: &Batch<'_>) -> Vec<ColumnChunk> {
        let mut at = MAGIC.len() as u64;
        let chunk = |column: &ParquetColumn| {
            let (start, mut count) = (at, 0);
            let page = |rows| {
                let (page, values) = page(column, batch, rows);
                at += page.head.len() as u64 + page.len;
                count += values;
                page
            };
            let pages = self.pages(column, batch).into_iter().map(page).collect();
            ColumnChunk { start, len: at - start, count, pages }
        };
        self.columns.iter().map(chunk).collect()
    }

    /// The rows of each page.
    fn pages(&self, column: &ParquetColumn, batch: &Batch<'_>) -> Vec<Range<usize>> {
        let (mut pages, mut first, mut bytes) = (Vec::new(), 0, 0);
        for at in 0..batch.rows.len() {
            let more = column.bytes(batch, at);
            if bytes + more > self.page && at > first {
                pages.push(first..at);
                (first, bytes) = (at, 0);
            }
            bytes += more;
        }
        pages.push(first..batch.rows.len());
        pages
    }

    fn footer(&self, batch: &Batch<'_>, chunks: &[ColumnChunk]) -> Vec<u8> {
        let rows = batch.rows.len() as u64;
        let column = |((chunk, path), &physical): ((&ColumnChunk, &Vec<Vec<u8>>), &u64)| {
            let told = Struct::new()
                .i32(1, physical)
                .list(2, thrift::I32, &[thrift::number(0), thrift::number(RLE)])
                .list(3, thrift::BINARY, path)
                .i32(4, 0)
                .i64(5, chunk.count)
                .i64(6, chunk.len)
                .i64(7, chunk.len)
                .i64(9, chunk.start);
            Struct::new().i64(2, chunk.start).inner(3, told).end()
        };
        let columns: Vec<Vec<u8>> = chunks.iter().zip(&self.paths).zip(&self.physical).map(column).collect();
        let bytes = chunks.iter().map(|chunk| chunk.len).sum();
        let group = Struct::new().list(1, thrift::STRUCT, &columns).i64(2, bytes).i64(3, rows).end();
        let mut footer = Struct::new()
            .i32(1, 2)
            .list(2, thrift::STRUCT, &self.schema)
            .i64(3, rows)
            .list(4, thrift::STRUCT, &[group])
            .text(6, "shufflefs")
            .end();
        footer.extend_from_slice(&le32(footer.len()));
        footer.extend_from_slice(MAGIC);
        footer
    }
}

impl Parquet {
    /// Moves the values of a page to their position, each row's behind its leading value.
    fn lead(
        &self,
        column: &ParquetColumn,
        batch: &Batch<'_>,
        page: &Page,
        (from, mut at): (&mut usize, usize),
        image: &mut [u8],
    ) {
        let size = column.lead.len();
        for row in page.rows.clone() {
            let len = (as_usize(column.length(batch, row)) - 1) * size;
            // The write position never overtakes the read position: they differ by one value for each row to come.
            image.copy_within(*from..*from + len, at + size);
            image[at..at + size].copy_from_slice(&column.lead);
            at += size;
            if matches!(column.source, Source::List(Field::Indices(_), ..)) {
                for gene in image[at..at + len].as_chunks_mut::<8>().0 {
                    let token = usize::try_from(i64::from_le_bytes(*gene)).ok().and_then(|gene| self.tokens.get(gene));
                    *gene = token.copied().unwrap_or(i64::from_le_bytes(*gene)).to_le_bytes();
                }
            }
            (*from, at) = (*from + len, at + len);
        }
    }
}

/// Makes the page of some rows of a column; also returns its number of values, including missing ones.
fn page(column: &ParquetColumn, batch: &Batch<'_>, rows: Range<usize>) -> (Page, u64) {
    let of = batch.companion(column.companion);
    let numbers = &of.rows[rows.clone()];
    let (levels, len, count) = match &column.source {
        Source::List(_, repr, _) => {
            let lengths = || rows.clone().map(|at| column.length(batch, at));
            let len = lengths().sum::<u64>() * repr.size() as u64;
            (levels::of_lists(lengths()), len, lengths().map(|length| length.max(1)).sum())
        }
        _ => {
            let there = numbers.iter().map(|&row| column.is_there(of.table, row));
            let levels = if column.has_levels() { levels::of_values(there) } else { Vec::new() };
            (levels, column.values(&of, rows.clone()).len() as u64, numbers.len() as u64)
        }
    };
    let size = levels.len() as u64 + len;
    let data = Struct::new().i32(1, count).i32(2, 0).i32(3, RLE).i32(4, RLE);
    let mut head = Struct::new().i32(1, 0).i32(2, size).i32(3, size).inner(5, data).end();
    head.extend(levels);
    (Page { rows, head, len }, count)
}

impl Format for Parquet {
    fn layout(&self, batch: &Batch<'_>) -> Layout {
        let chunks = self.chunks(batch);
        let end = chunks.last().map_or(MAGIC.len() as u64, |chunk| chunk.start + chunk.len);
        let span = |(column, chunk): (&ParquetColumn, &ColumnChunk)| {
            let Source::List(field, repr, _) = column.source else { return None };
            let led = (column.lead.len() * batch.rows.len()) as u64;
            let len = chunk.pages.iter().map(|page| page.len).sum::<u64>() - led;
            Some(Span { companion: column.companion, field, repr, start: chunk.start + chunk.len - len, len })
        };
        let spans = self.columns.iter().zip(&chunks).filter_map(span).collect();
        Layout { size: end + self.footer(batch, &chunks).len() as u64, spans }
    }

    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]) {
        let chunks = self.chunks(batch);
        image[..MAGIC.len()].copy_from_slice(MAGIC);
        let mut spans = layout.spans.iter();
        let mut at = MAGIC.len();
        for (column, chunk) in self.columns.iter().zip(&chunks) {
            let of = batch.companion(column.companion);
            let mut filled = match column.source {
                Source::List(..) => spans.next().map(|span| as_usize(span.start)),
                _ => None,
            };
            for page in &chunk.pages {
                image[at..][..page.head.len()].copy_from_slice(&page.head);
                at += page.head.len();
                let len = as_usize(page.len);
                match &mut filled {
                    Some(from) if column.lead.is_empty() => {
                        image.copy_within(*from..*from + len, at);
                        *from += len;
                    }
                    Some(from) => self.lead(column, batch, page, (from, at), image),
                    None => image[at..][..len].copy_from_slice(&column.values(&of, page.rows.clone())),
                }
                at += len;
            }
        }
        image[at..].copy_from_slice(&self.footer(batch, &chunks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anndata::names::MatrixName;
    use crate::array::Dtype;
    use crate::batch::Lengths;
    use crate::collection::element::{Element, MatrixKind};

    /// Pages of any size have the same values, row by row, after their headers.
    #[test]
    fn values_are_dealt_to_pages() {
        let genes: Vec<String> = (0..9).map(|gene| gene.to_string()).collect();
        let x = Element::plain(MatrixName::X, MatrixKind::Sparse { dtype: Dtype::F32 }, genes.into());
        let table = Table {
            n_rows: 7,
            elements: vec![x],
            columns: Default::default(),
            index_dtype: None,
            companions: Vec::new(),
            modality: None,
        };
        let (rows, lengths) = ([5, 1, 3, 0, 6, 2, 4], vec![vec![3, 0, 5, 5, 1, 0, 9]]);
        let lengths = Lengths { of_fetch: &lengths, start: 0, end: rows.len() };
        let batch = Batch { table: &table, rows: &rows, nnz: &[23], lengths, ..Batch::new(&table) };
        let values = |page: u64| {
            let Ok(columns) = columns::of_table(&table) else { panic!("refused") };
            let parquet = Parquet::new(columns, page, Vec::new());
            let layout = parquet.layout(&batch);
            let mut image = vec![0x55; layout.size as usize];
            for span in &layout.spans {
                let fill = if span.field == Field::Data(0) { 100 } else { 0 };
                image[span.start as usize..][..span.len as usize]
                    .iter_mut()
                    .zip(fill..)
                    .for_each(|(byte, value)| *byte = value);
            }
            parquet.finish(&batch, &layout, &mut image);
            let (mut values, mut pages) = (Vec::new(), 0);
            for chunk in parquet.chunks(&batch) {
                let mut at = chunk.start as usize;
                for page in &chunk.pages {
                    assert_eq!(image[at..at + page.head.len()], page.head);
                    at += page.head.len();
                    values.extend_from_slice(&image[at..at + page.len as usize]);
                    at += page.len as usize;
                    pages += 1;
                }
                assert_eq!(at as u64, chunk.start + chunk.len);
            }
            (values, pages)
        };
        let (want, one) = values(PAGE);
        assert_eq!((one, want.len()), (3, 7 * 8 + 2 * 23 * 4));
        for page in [1, 8, 20, 24, 40, 1000] {
            let (got, pages) = values(page);
            assert!(got == want && (page == 1000 || pages > one), "pages of {page} bytes");
        }
    }
}
