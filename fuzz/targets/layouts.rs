//! Every format of a batch, and files and directories of many: tables and rows of any shape, laid out, filled, finished.
//!
//! The output must not depend on the old content of memory, fields must not overlap, and all must be within the size.

use shufflefs::anndata::column::{Categories, Column, Numbers, Texts, Values};
use shufflefs::anndata::names::MatrixName;
use shufflefs::array::Dtype;
use shufflefs::batch::fill::fill;
use shufflefs::batch::{Batch, Field, Lengths};
use shufflefs::collection::Table;
use shufflefs::collection::element::{Element, MatrixKind};
use shufflefs::format::{DirectoryKind, Extension, FileShape, Writers};

/// The input, byte by byte; zeros after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }

    fn text(&mut self) -> String {
        let len = (self.byte() % 12).min(self.0.len());
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | self.byte() as u64)
    }
}

const DTYPES: [Dtype; 9] =
    [Dtype::F32, Dtype::F64, Dtype::U8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::U64, Dtype::F16, Dtype::Bool];

fn column(input: &mut Input<'_>, rows: usize) -> Column {
    let name = input.text();
    let kind = input.byte();
    let dtype = DTYPES[input.byte() % DTYPES.len()];
    let mask = (kind & 8 != 0).then(|| (0..rows).map(|row| (row % 3 == 1).into()).collect());
    let numbers = |dtype: Dtype, of: &mut dyn FnMut(usize) -> u64| Numbers {
        dtype,
        bytes: (0..rows).flat_map(|row| of(row).to_le_bytes()[..dtype.size()].to_vec()).collect(),
    };
    let values = match kind % 3 {
        0 => {
            let labels: Vec<String> =
                (0..input.byte() % 5 + 1).map(|number| format!("{number}{}", input.text())).collect();
            let count = labels.len() as i8;
            let codes = numbers(Dtype::I8, &mut |row| (row as i8 % (count + 1) - 1) as u8 as u64);
            Values::Categorical { codes, categories: Categories { labels, numbers: None }, ordered: kind & 4 != 0 }
        }
        1 => {
            let bool = dtype == Dtype::Bool;
            Values::Numbers {
                numbers: numbers(dtype, &mut |row| if bool { row as u64 % 2 } else { row as u64 * 77 }),
                mask,
                time: None,
            }
        }
        _ => {
            let all: Vec<String> = (0..rows).map(|_| input.text()).collect();
            let mut texts = Texts::default();
            all.iter().for_each(|text| texts.push(text));
            let chars = all.iter().map(|text| text.chars().count()).max().unwrap_or(0);
            let bytes = all.iter().map(String::len).max().unwrap_or(0);
            Values::Text { texts, mask, chars, bytes }
        }
    };
    Column { name, values }
}

/// One input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let rows = input.byte() % 40 + 1;
    let genes: Vec<String> = (0..input.byte() % 20 + 1).map(|number| format!("{}{number}", input.text())).collect();
    let wide = genes.len() as u64;
    let mut elements = Vec::new();
    for number in 0..input.byte() % 3 + 1 {
        let how = input.byte();
        let dtype = DTYPES[input.byte() % 5];
        let kind =
            if how & 1 == 0 { MatrixKind::Sparse { dtype } } else { MatrixKind::Dense { dtype, row: vec![wide] } };
        let name = if number == 0 { MatrixName::X } else { MatrixName::Layer(format!("{}{number}", input.text())) };
        elements.push(Element::plain(name, kind, genes.clone().into()));
    }
    let mut columns: Vec<Column> = (0..input.byte() % 6).map(|_| column(&mut input, rows)).collect();
    let mut seen = std::collections::HashSet::new();
    columns.retain(|column| seen.insert(column.name.clone()));
    let index_dtype = [None, Some(Dtype::I64), Some(Dtype::U16)][input.byte() % 3];
    let table = Table {
        n_rows: rows as u64,
        elements,
        columns: columns.into(),
        index_dtype,
        companions: Vec::new(),
        modality: None,
    };
    let batch_rows: Vec<u64> = (0..input.byte() % 30 + 1).map(|_| (input.byte() % rows) as u64).collect();
    let lengths: Vec<Vec<u64>> = table
        .elements
        .iter()
        .map(|element| {
            if element.is_sparse() {
                batch_rows.iter().map(|_| input.byte() as u64 % (wide + 1)).collect()
            } else {
                Vec::new()
            }
        })
        .collect();
    let nnz: Vec<u64> = lengths.iter().map(|lengths| lengths.iter().sum()).collect();
    let of_fetch = Lengths { of_fetch: &lengths, start: 0, end: batch_rows.len() };
    let batch = Batch {
        table: &table,
        rows: &batch_rows,
        nnz: &nnz,
        lengths: of_fetch,
        epoch: 3,
        index: 1,
        ..Batch::new(&table)
    };
    let writers = Writers::new(&table);
    for &extension in Extension::ALL {
        let Ok(writer) = writers.get(extension) else { continue };
        let layout = writer.layout(&batch);
        assert!(layout.size < 1 << 24, "{extension:?}: {} bytes", layout.size);
        let mut spans: Vec<_> = layout.spans.iter().map(|span| (span.start, span.start + span.len)).collect();
        spans.sort_unstable();
        assert!(spans.windows(2).all(|two| two[0].1 <= two[1].0), "{extension:?}: fields overlap");
        assert!(spans.last().is_none_or(|last| last.1 <= layout.size), "{extension:?}: beyond the end");
        let images = [0x55u8, 0xaa].map(|before| {
            let mut image = vec![before; layout.size as usize];
            for span in &layout.spans {
                let out = &mut image[span.start as usize..][..span.len as usize];
                match span.field {
                    // Valid gene numbers; any values.
                    Field::Indices(_) => out.fill(0),
                    Field::Data(_) | Field::Dense(_) => {
                        out.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8)
                    }
                    _ => fill(&batch, span, out),
                }
            }
            writer.finish(&batch, &layout, &mut image);
            image
        });
        assert!(images[0] == images[1], "{extension:?}: bytes that are not written");
    }
    // Files of many batches are laid out from counts.
    let many = input.number() % (1 << 40);
    let nnz: Vec<u64> =
        table.elements.iter().map(|element| if element.is_sparse() { many.saturating_mul(wide) } else { 0 }).collect();
    let shape = FileShape { table: &table, rows: many, nnz: &nnz, batches: many.div_ceil(256) };
    for &extension in Extension::ALL {
        let Some(segments) = writers.get(extension).ok().and_then(|writer| writer.segments(&shape).ok()) else {
            continue;
        };
        let mut end = 0;
        for segment in &segments.list {
            assert!(segment.start >= end, "{extension:?}: segments overlap");
            end = segment.start + segment.len;
        }
        assert!(end <= segments.size, "{extension:?}: beyond the end");
    }
    for &kind in DirectoryKind::ALL {
        let Some(directory) = writers.directory(kind).ok().and_then(|writer| writer.directory(&shape).ok()) else {
            continue;
        };
        let mut numbers: Vec<u64> = (0..directory.numbers().min(64)).collect();
        numbers.extend([directory.numbers().saturating_sub(1), directory.numbers() / 2]);
        for number in numbers {
            assert!(directory.get(number).is_some());
            let folder = directory.parent(number);
            for i in [0, 1, directory.len(folder).saturating_sub(1)] {
                if let Some((name, inside)) = directory.entry(folder, i) {
                    assert_eq!(directory.lookup(folder, &name), Some(inside), "{name}");
                }
            }
        }
    }
}
