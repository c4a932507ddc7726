//! Properties of every array and every batch: chunk scheduling and layouts, compared with the simplest possible code.
//!
//! Cases are generated and shrunk by proptest, from a fixed seed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::{Array as _, Int64Array};
use arrow_ipc::reader::FileReader;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

use crate::pieces::Pieces;
use shufflefs::anndata::column::{Categories, Column, Numbers, Texts, Values};
use shufflefs::anndata::names::MatrixName;
use shufflefs::array::cache::ChunkCache;
use shufflefs::array::gather::{ElementRange, GatherContext, Io, gather};
use shufflefs::array::{Array, ArrayError, ChunkBuf, ChunkSource, Counters, Dtype, Extent, Scratch};
use shufflefs::batch::fill::fill;
use shufflefs::batch::{Batch, Field, Layout, Lengths, Repr, Span};
use shufflefs::collection::Table;
use shufflefs::collection::element::{Element, MatrixKind};
use shufflefs::format::{Extension, Writers};
use shufflefs::storage::{Meter, Object, local};

fn check<T: Debug>(cases: u32, of: impl Strategy<Value = T>, test: impl Fn(T) -> TestCaseResult) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner.run(&of, test).unwrap();
}

// ---------------------------------------------------------------- chunk scheduling

/// A request to an array: its shape and chunks, the bytes of an element, and pieces as fractions.
#[derive(Clone, Debug)]
struct Asked {
    shape: Vec<u64>,
    chunk: Vec<u64>,
    dtype: Dtype,
    encoded: bool,
    /// Bytes of the chunk cache.
    cache: Option<u64>,
    /// Whether the sink accepts stored bytes directly.
    places: bool,
    /// Requests in flight, and whether each chunk is an object.
    io: Option<(usize, bool)>,
    pieces: Vec<(prop::sample::Index, prop::sample::Index)>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let axes =
        prop_oneof![vec((1u64..3000, 1u64..800), 1), vec((1u64..40, 1u64..50), 2), vec((1u64..12, 1u64..14), 3),];
    let dtype = prop_oneof![Just(Dtype::U8), Just(Dtype::I16), Just(Dtype::F32), Just(Dtype::I64)];
    let pieces = vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..80);
    let cache = proptest::option::of(0u64..20_000);
    let io = proptest::option::of((1usize..9, any::<bool>()));
    (axes, dtype, any::<bool>(), cache, any::<bool>(), io, pieces).prop_map(
        |(axes, dtype, encoded, cache, places, io, pieces)| {
            let (shape, chunk) = axes.into_iter().unzip();
            Asked { shape, chunk, dtype, encoded, cache, places, io, pieces }
        },
    )
}

/// An array in memory (as if its chunks were encoded), in a file, or in both, and how often each chunk was decoded.
struct Held {
    chunks: Vec<Vec<u8>>,
    file: Option<Object>,
    encoded: bool,
    scattered: bool,
    decoded: Vec<AtomicU64>,
}

impl Held {
    /// The offset of a chunk in the file: in reverse order, with a gap before each third.
    fn offset(&self, chunk: u64) -> u64 {
        let place = self.chunks.len() as u64 - 1 - chunk;
        place * self.chunks[0].len() as u64 + place / 3 * 7
    }

    fn extent(&self, chunk: u64) -> Option<Extent> {
        let (offset, len) = (self.offset(chunk), self.chunks[0].len() as u64);
        self.file.clone().map(|object| Extent { object, offset, len })
    }
}

struct Shared(Arc<Held>);

impl ChunkSource for Shared {
    fn raw(&self, chunk: u64) -> Result<Option<Extent>, ArrayError> {
        Ok(self.0.extent(chunk).filter(|_| !self.0.encoded))
    }

    fn stored(&self, chunk: u64, _: &Counters) -> Result<Option<Extent>, ArrayError> {
        // Some are not known in advance.
        Ok(self.0.extent(chunk).filter(|_| chunk % 5 != 3))
    }

    fn looks_up(&self) -> bool {
        true
    }

    fn is_scattered(&self) -> bool {
        self.0.scattered
    }

    fn meter(&self) -> Option<&Meter> {
        self.0.file.as_ref().map(|file| &**file.address().meter())
    }

    /// Only the needed part is correct.
    fn decode(
        &self,
        chunk: u64,
        stored: Option<&[u8]>,
        out: ChunkBuf<'_>,
        _: &mut Scratch,
        _: &Counters,
    ) -> Result<(), ArrayError> {
        self.0.decoded[chunk as usize].fetch_add(1, Ordering::SeqCst);
        out.bytes.fill(0x77);
        let stored = stored.unwrap_or(&self.0.chunks[chunk as usize]);
        out.bytes[out.part.clone()].copy_from_slice(&stored[out.part]);
        Ok(())
    }

    fn is_encoded(&self) -> bool {
        self.0.encoded
    }
}

/// The coordinates of all elements of a box, in C order.
fn coordinates(shape: &[u64]) -> Vec<Vec<u64>> {
    shape.iter().fold(vec![Vec::new()], |all, &len| {
        all.iter().flat_map(|at| (0..len).map(move |i| at.iter().copied().chain([i]).collect())).collect()
    })
}

/// The index of coordinates in a grid of that shape.
fn flat(at: &[u64], shape: &[u64]) -> u64 {
    at.iter().zip(shape).fold(0, |flat, (at, len)| flat * len + at)
}

/// The array's elements (C order, each different from its neighbours), its chunks, and the chunk of each element.
fn hold(asked: &Asked) -> (Array, Vec<u8>, Arc<Held>, Vec<u64>) {
    let size = asked.dtype.size();
    let grid: Vec<u64> = asked.shape.iter().zip(&asked.chunk).map(|(n, c)| n.div_ceil(*c)).collect();
    let elements = |shape: &[u64]| shape.iter().product::<u64>() as usize;
    let mut chunks = vec![vec![0xee; elements(&asked.chunk) * size]; elements(&grid)];
    let (mut whole, mut chunk_of) = (Vec::new(), Vec::new());
    for (number, at) in coordinates(&asked.shape).into_iter().enumerate() {
        let element = &(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[..size];
        whole.extend_from_slice(element);
        let (chunk, within): (Vec<u64>, Vec<u64>) =
            at.iter().zip(&asked.chunk).map(|(at, len)| (at / len, at % len)).unzip();
        let (chunk, within) = (flat(&chunk, &grid), flat(&within, &asked.chunk) as usize * size);
        chunks[chunk as usize][within..within + size].copy_from_slice(element);
        chunk_of.push(chunk);
    }
    let decoded = chunks.iter().map(|_| AtomicU64::new(0)).collect();
    let mut held = Held {
        chunks,
        file: None,
        encoded: asked.encoded,
        scattered: asked.io.is_some_and(|(_, scattered)| scattered),
        decoded,
    };
    if !asked.encoded || asked.io.is_some() {
        let file = tempfile::tempfile().unwrap();
        for (number, chunk) in held.chunks.iter().enumerate() {
            file.write_all_at(chunk, held.offset(number as u64)).unwrap();
        }
        held.file = Some(local::object(file, Path::new("chunks")).unwrap());
    }
    let held = Arc::new(held);
    (array(asked, held.clone()), whole, held, chunk_of)
}

fn array(asked: &Asked, held: Arc<Held>) -> Array {
    let shapes = (asked.shape.clone(), asked.chunk.clone());
    Array::new(("store".into(), "X".into()), asked.dtype, shapes, Arc::new(Shared(held)))
}

#[test]
fn a_gather_is_slices_and_decodes_each_chunk_once() {
    check(400, asked(), |asked| {
        let (array, whole, held, chunk_of) = hold(&asked);
        let (rows, row) = (asked.shape[0] as usize, asked.shape[1..].iter().product::<u64>() as usize);
        let pieces: Vec<ElementRange> = asked
            .pieces
            .iter()
            .map(|(start, len)| {
                let start = start.index(rows);
                let len = if asked.shape.len() == 1 { len.index(rows - start + 1) } else { 1 };
                ElementRange { start: start as u64, len: len as u64 }
            })
            .collect();
        let size = asked.dtype.size();
        let elements = |piece: &ElementRange| piece.start as usize * row..(piece.start + piece.len) as usize * row;
        let buffers = pieces.iter().map(|piece| Mutex::new(vec![0x55; elements(piece).len() * size])).collect();
        let sink = Pieces { buffers, size, places: asked.places };
        let counters = Counters::default();
        let cache = asked.cache.map(ChunkCache::new);
        let io = asked.io.map(|(depth, _)| Io::new(Some(depth), 2, 64 << 10));
        let work = GatherContext { counters: &counters, progress: &|| {}, cache: cache.as_ref(), io: io.as_ref() };
        for round in 0..2 {
            sink.buffers.iter().for_each(|buffer| buffer.lock().unwrap().fill(0x55));
            gather(&array, &pieces, &sink, &work).unwrap();
            for (piece, buffer) in pieces.iter().zip(&sink.buffers) {
                let naive = &whole[elements(piece).start * size..elements(piece).end * size];
                prop_assert_eq!(&buffer.lock().unwrap()[..], naive, "{:?}", piece);
            }
            if asked.encoded {
                let touched: BTreeSet<u64> =
                    pieces.iter().flat_map(elements).map(|element| chunk_of[element]).collect();
                for (chunk, decoded) in held.decoded.iter().enumerate() {
                    let (decoded, once) =
                        (decoded.load(Ordering::SeqCst), u64::from(touched.contains(&(chunk as u64))));
                    // A cache may have it in the second round.
                    let most = if round == 0 { once } else { 2 * once };
                    prop_assert!((once..=most).contains(&decoded), "chunk {} was decoded {} times", chunk, decoded);
                }
            }
        }
        Ok(())
    });
}

// ---------------------------------------------------------------- layouts

/// A table with values computed from row numbers, and rows of it.
#[derive(Clone, Debug)]
struct Served {
    /// The number of values of each row; None: X is dense, with this many columns.
    lengths: Vec<u8>,
    dense: Option<u64>,
    x: Dtype,
    with: bool,
    kinds: Vec<u8>,
    index_dtype: Option<Dtype>,
    rows: Vec<prop::sample::Index>,
}

fn served() -> impl Strategy<Value = Served> {
    let x = prop_oneof![Just(Dtype::F32), Just(Dtype::U8), Just(Dtype::F64), Just(Dtype::I16)];
    let index = prop_oneof![Just(None), Just(Some(Dtype::I64)), Just(Some(Dtype::U16))];
    (
        vec(0u8..9, 1..60),
        proptest::option::of(1u64..7),
        x,
        any::<bool>(),
        vec(0u8..6, 0..7),
        index,
        vec(any::<prop::sample::Index>(), 1..40),
    )
        .prop_map(|(lengths, dense, x, with, kinds, index_dtype, rows)| Served {
            lengths,
            dense,
            x,
            with,
            kinds,
            index_dtype,
            rows,
        })
}

/// Text of a row: of different lengths, not all ASCII.
fn text(row: usize) -> String {
    "aé日𝄞".chars().cycle().skip(row).take(row % 5).collect()
}

fn column(kind: u8, name: String, rows: usize) -> Column {
    let codes =
        |of: &dyn Fn(usize) -> i8| Numbers { dtype: Dtype::I8, bytes: (0..rows).map(|row| of(row) as u8).collect() };
    let numbers =
        || Numbers { dtype: Dtype::F64, bytes: (0..rows).flat_map(|row| (row as f64 / 3.0).to_le_bytes()).collect() };
    let mask = || (0..rows).map(|row| u8::from(row % 3 == 1)).collect();
    let categories = Categories { labels: vec!["x".into(), "y".into(), "größe".into()], numbers: None };
    let texts = || {
        let mut texts = Texts::default();
        (0..rows).for_each(|row| texts.push(&text(row)));
        texts
    };
    let chars = (0..rows).map(|row| text(row).chars().count()).max().unwrap_or(0);
    let bytes = (0..rows).map(|row| text(row).len()).max().unwrap_or(0);
    let values = match kind {
        0 => Values::Categorical { codes: codes(&|row| (row % 4) as i8 - 1), categories, ordered: false },
        1 => Values::Numbers { numbers: numbers(), mask: None, time: None },
        2 => Values::Numbers { numbers: numbers(), mask: Some(mask()), time: None },
        3 => Values::Numbers { numbers: Numbers { dtype: Dtype::Bool, bytes: mask() }, mask: None, time: None },
        4 => Values::Text { texts: texts(), mask: None, chars, bytes },
        _ => Values::Text { texts: texts(), mask: Some(mask()), chars, bytes },
    };
    Column { name, values }
}

fn table(served: &Served) -> Table {
    let rows = served.lengths.len();
    let genes: Vec<String> = (0..served.dense.unwrap_or(9)).map(|gene| format!("gene {gene}")).collect();
    let kind = match served.dense {
        Some(columns) => MatrixKind::Dense { dtype: served.x, row: vec![columns] },
        None => MatrixKind::Sparse { dtype: served.x },
    };
    let mut elements = vec![Element::plain(MatrixName::X, kind, genes.into())];
    if served.with {
        let places = vec!["0".to_owned(), "1".to_owned(), "2".to_owned()];
        elements.push(Element::plain(
            MatrixName::at("obsm/X_pca").unwrap(),
            MatrixKind::Dense { dtype: Dtype::F32, row: vec![3] },
            places.into(),
        ));
    }
    let columns = served.kinds.iter().enumerate();
    let columns: Vec<_> = columns.map(|(number, &kind)| column(kind, format!("column {number}"), rows)).collect();
    Table {
        n_rows: rows as u64,
        elements,
        columns: columns.into(),
        index_dtype: served.index_dtype,
        companions: Vec::new(),
        modality: None,
    }
}

/// Element `at` of a row of a matrix, from a stream that all rows share.
fn value(element: usize, row: u64, at: u64, size: usize) -> Vec<u8> {
    let mixed = (row * 1000 + at * 7 + element as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[..size].to_vec()
}

/// The bytes of a field, one element after the other.
fn naive(batch: &Batch<'_>, lengths: &[u8], span: &Span) -> Vec<u8> {
    let integer = |value: i64| match span.repr {
        Repr::Number(dtype) => value.to_le_bytes()[..dtype.size()].to_vec(),
        Repr::Ucs4(_) | Repr::Utf8(_) => padded(&value.to_string(), span.repr),
    };
    let size = span.repr.size();
    let rows = batch.rows.iter().copied();
    match span.field {
        Field::Data(element) => rows
            .flat_map(|row| (0..lengths[row as usize].into()).flat_map(move |at| value(element, row, at, size)))
            .collect(),
        Field::Indices(_) => {
            rows.flat_map(|row| (0..lengths[row as usize]).flat_map(|at| integer(at.into()))).collect()
        }
        Field::Indptr(_) => {
            let mut bytes = integer(0);
            let mut end = 0;
            for row in rows {
                end += i64::from(lengths[row as usize]);
                bytes.extend(integer(end));
            }
            bytes
        }
        Field::Dense(element) => {
            let columns = batch.element(element).n_vars();
            rows.flat_map(|row| (0..columns).flat_map(move |at| value(element, row, at, size))).collect()
        }
        Field::Length(_) => rows.flat_map(|row| integer(lengths[row as usize].into())).collect(),
        Field::Row | Field::RowName => rows.flat_map(|row| integer(row as i64)).collect(),
        Field::Has | Field::Place | Field::EdgeIndex | Field::EdgeWeight => unreachable!("nothing stands beside"),
        Field::Mask(_) => rows.map(|row| u8::from(row % 3 == 1)).collect(),
        Field::Column(number) => rows
            .flat_map(|row| match &batch.table.columns[number].values {
                Values::Categorical { .. } => integer(row as i64 % 4 - 1),
                Values::Numbers { numbers, .. } if numbers.dtype == Dtype::Bool => vec![u8::from(row % 3 == 1)],
                Values::Numbers { .. } => (row as f64 / 3.0).to_le_bytes().to_vec(),
                Values::Text { .. } => padded(&text(row as usize), span.repr),
            })
            .collect(),
    }
}

fn padded(text: &str, repr: Repr) -> Vec<u8> {
    let mut bytes: Vec<u8> = match repr {
        Repr::Ucs4(_) => text.chars().flat_map(|char| u32::from(char).to_le_bytes()).collect(),
        _ => text.as_bytes().to_vec(),
    };
    bytes.resize(repr.size(), 0);
    bytes
}

fn lengths_of(lengths: &[u8], rows: &[u64]) -> Vec<u64> {
    rows.iter().map(|&row| lengths[row as usize].into()).collect()
}

/// The image as the engine makes it, in memory with old content.
fn image(writers: &Writers, extension: Extension, batch: &Batch<'_>, lengths: &[u8]) -> Option<(Layout, Vec<u8>)> {
    let writer = writers.get(extension).ok()?;
    let layout = writer.layout(batch);
    let mut image = vec![0x55; layout.size as usize];
    for span in &layout.spans {
        let out = &mut image[span.start as usize..][..span.len as usize];
        match span.field {
            Field::Data(_) | Field::Indices(_) | Field::Dense(_) => out.copy_from_slice(&naive(batch, lengths, span)),
            _ => fill(batch, span, out),
        }
    }
    writer.finish(batch, &layout, &mut image);
    Some((layout, image))
}

/// Offsets and shapes of the tensors of a safetensors file, from its header.
fn tensors(image: &[u8]) -> Vec<(u64, u64)> {
    let header = u64::from_le_bytes(image[..8].try_into().unwrap());
    let parsed: serde_json::Value = serde_json::from_slice(&image[8..8 + header as usize]).unwrap();
    let tensors = parsed.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let mut tensors: Vec<(u64, u64)> = tensors
        .map(|(_, tensor)| {
            let offset = |i: usize| tensor["data_offsets"][i].as_u64().unwrap();
            (8 + header + offset(0), offset(1) - offset(0))
        })
        .collect();
    tensors.sort_unstable();
    // As the format requires: one after the other, without gaps, to the end.
    let mut end = 8 + header;
    for (start, len) in &tensors {
        assert_eq!(*start, end);
        end += len;
    }
    assert_eq!(end, image.len() as u64);
    tensors
}

/// Positions of the elements of the arrays of an npz file, member by member.
fn members(image: &[u8]) -> Vec<(u64, u64)> {
    let u16_at = |at: usize| u64::from(u16::from_le_bytes(image[at..at + 2].try_into().unwrap()));
    let u32_at = |at: usize| u64::from(u32::from_le_bytes(image[at..at + 4].try_into().unwrap()));
    let (mut at, mut found) = (0, Vec::new());
    while u32_at(at) == 0x0403_4b50 {
        assert_eq!(u16_at(at + 8), 0, "stored");
        let (crc, len) = (u32_at(at + 14), u32_at(at + 22));
        let start = at as u64 + 30 + u16_at(at + 26) + u16_at(at + 28);
        let member = &image[start as usize..(start + len) as usize];
        assert_eq!(u64::from(crc32fast::hash(member)), crc);
        assert_eq!(&member[..8], b"\x93NUMPY\x01\x00");
        let header = 10 + u64::from(u16::from_le_bytes(member[8..10].try_into().unwrap()));
        assert_eq!((header % 64, member[header as usize - 1]), (0, b'\n'));
        found.push((start + header, len - header));
        at = (start + len) as usize;
    }
    assert_eq!(u32_at(at), 0x0201_4b50, "then the directory");
    found
}

/// Formats whose size depends on the values of obs columns.
const RECORDS: [&str; 6] = ["parquet", "tahoe.parquet", "tar", "tfrecord", "mds", "litdata"];
/// Those of them whose records interleave what the engine fills.
const MOVED: [&str; 5] = ["tahoe.parquet", "tar", "tfrecord", "mds", "litdata"];

/// An Arrow file, read and checked by the arrow crate.
fn record_batch(batch: &Batch<'_>, image: &[u8]) {
    let mut reader = FileReader::try_new(std::io::Cursor::new(image), None).unwrap();
    let read = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    assert_eq!((read.num_rows(), read.num_columns()), (batch.rows.len(), reader.schema().fields().len()));
    let rows = read.column_by_name("row").unwrap().as_any().downcast_ref::<Int64Array>().unwrap();
    assert!(rows.values().iter().map(|&row| row as u64).eq(batch.rows.iter().copied()));
    assert!(read.columns().iter().all(|column| column.to_data().validate_full().is_ok()));
}

/// Arrays of a tar of samples, member by member, compared with those of each row.
fn samples(batch: &Batch<'_>, lengths: &[u8], image: &[u8]) {
    let (mut at, mut names, mut rows) = (0, BTreeSet::new(), batch.rows.iter());
    let mut row = None;
    while image[at] != 0 {
        let text = |from: usize, len: usize| {
            let field = &image[at + from..at + from + len];
            std::str::from_utf8(field.split(|&byte| byte == 0).next().unwrap()).unwrap().to_owned()
        };
        let (name, size) = (text(0, 100), usize::from_str_radix(&text(124, 12), 8).unwrap());
        let content = &image[at + 512..at + 512 + size];
        let (key, kind) = name.split_once('.').unwrap();
        if names.insert(key.to_owned()) {
            row = rows.next().copied();
        }
        let header = || 10 + usize::from(u16::from_le_bytes([content[8], content[9]]));
        let field = match kind {
            "json" => {
                let json: serde_json::Value = serde_json::from_slice(content).unwrap();
                assert_eq!(json["row"].as_u64(), row);
                None
            }
            "genes.npy" => Some(Field::Indices(0)),
            "expressions.npy" => Some(Field::Data(0)),
            "X.npy" => Some(Field::Dense(0)),
            other => {
                assert_eq!(other, "obsm.X_pca.npy");
                Some(Field::Dense(1))
            }
        };
        if let Some(field) = field {
            let dtype = match field {
                Field::Indices(_) => batch.table.index_dtype.unwrap_or(Dtype::I32),
                Field::Data(element) | Field::Dense(element) => batch.element(element).kind.dtype(),
                _ => Dtype::I64,
            };
            let one = Batch { rows: &[row.unwrap()], ..*batch };
            let span = Span { companion: 0, field, repr: Repr::Number(dtype), start: 0, len: 0 };
            assert_eq!(&content[header()..], naive(&one, lengths, &span));
        }
        at += 512 + size.next_multiple_of(512);
    }
    assert_eq!((names.len(), at + 1024), (batch.rows.len(), image.len()));
}

#[test]
fn a_layout_holds_every_field_where_it_says() {
    check(300, served(), |served| {
        let table = table(&served);
        let rows: Vec<u64> = served.rows.iter().map(|row| row.index(served.lengths.len()) as u64).collect();
        let values = rows.iter().map(|&row| u64::from(served.lengths[row as usize])).sum();
        let nnz: Vec<u64> = table.elements.iter().map(|element| if element.is_sparse() { values } else { 0 }).collect();
        let of_fetch: Vec<Vec<u64>> = table
            .elements
            .iter()
            .map(|element| if element.is_sparse() { lengths_of(&served.lengths, &rows) } else { Vec::new() })
            .collect();
        let lengths = Lengths { of_fetch: &of_fetch, start: 0, end: rows.len() };
        let batch = Batch { rows: &rows, nnz: &nnz, lengths, epoch: 3, index: 1, ..Batch::new(&table) };
        let writers = Writers::new(&table);
        for &extension in Extension::ALL {
            let Some((layout, image)) = image(&writers, extension, &batch, &served.lengths) else { continue };
            let mut spans = layout.spans.clone();
            spans.sort_by_key(|span| span.start);
            let mut end = 0;
            for span in &spans {
                prop_assert!(span.start >= end, "{:?}: {:?} begins before {}", extension, span, end);
                end = span.start + span.len;
                let bytes = &image[span.start as usize..end as usize];
                // In these formats, `finish` moves the filled bytes to records.
                if MOVED.contains(&extension.as_str()) {
                    continue;
                }
                prop_assert_eq!(bytes, &naive(&batch, &served.lengths, span)[..], "{:?} {:?}", extension, span);
            }
            prop_assert!(end <= layout.size);
            if extension.as_str() == "tar" {
                samples(&batch, &served.lengths, &image);
            }
            // Sizes must follow from the shape and, if records have them, from obs columns.
            if RECORDS.contains(&extension.as_str()) {
                continue;
            }
            let other: Vec<u64> = rows.iter().rev().copied().collect();
            let turned = Batch { rows: &other, epoch: 9, ..batch };
            prop_assert_eq!(&writers.get(extension).unwrap().layout(&turned).spans, &layout.spans);
            // The positions according to the file.
            let found = match extension.as_str() {
                "safetensors" => tensors(&image),
                "npz" => members(&image),
                "arrow" => {
                    record_batch(&batch, &image);
                    continue;
                }
                _ => continue,
            };
            let held = |span: &&Span| span.len > 0 && !found.contains(&(span.start, span.len));
            prop_assert_eq!(spans.iter().find(held), None, "{:?}: not in the file: {:?}", extension, found);
            let constants = found.len() - spans.len();
            prop_assert!(constants <= table.elements.len() + 1, "{:?}: {} more arrays", extension, constants);
        }
        Ok(())
    });
}
