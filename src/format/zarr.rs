//! `epoch-0000.zarr/`: an epoch as a zarr v3 store of uncompressed chunks, in the form of an annbatch collection.
//!
//! The store is a group with one AnnData, `dataset_0`: annbatch expects such groups, and anndata only X and obs in it. All readers open
//! each chunk as a file, so a chunk is a range of a field: about 64 rows of values or column numbers, as in annbatch's own collections.
//! Keys
//! have no `/` (`c.12`, not `c/12`), which saves a lookup. Metadata is also consolidated, so that readers open one file and list nothing.

mod metadata;

use serde_json::{Value, json};

use crate::anndata::bytes::Bytes;
use crate::anndata::column::{Categories, Column, Numbers, Values};
use crate::anndata::names::MatrixName;
use crate::array::Dtype;
use crate::batch::{Field, Repr};
use crate::collection::Table;
use crate::collection::element::{Element, MatrixKind};
use crate::number::as_usize;

use super::directory::{Directory, DirectoryFormat, FileContent, Made, OpenedDirectory, Run, TOP, part_of_field};
use super::{FileShape, h5ad, names};
use metadata::{ArrayMetadata, array, consolidated, encoding, group, with};

/// Rows whose values form a chunk.
const ROWS: u64 = 64;
/// Minimum values of a chunk and maximum chunks of a sparse matrix, to avoid tiny files and too many of them.
const LEAST_VALUES: u64 = 1 << 14;
const MOST_CHUNKS: u64 = 1 << 20;
/// Bytes of a chunk of a dense matrix.
const DENSE_BYTES: u64 = 512 << 10;
/// Rows of a chunk of an obs column or of row bounds; and of text, whose size is found by reading it.
const COLUMN_ROWS: u64 = 1 << 16;
const TEXT_ROWS: u64 = 1 << 14;
/// The AnnData in the collection.
const DATASET: &str = "dataset_0";
/// The metadata file of a group or array.
const METADATA: &str = "zarr.json";

struct Zarr;

pub fn open(table: &Table) -> OpenedDirectory {
    h5ad::check_elements(table).map_err(|error| error.to_string())?;
    let columns = names::columns(table).into_iter().map(|name| format!("obs/{name}"));
    let var = names::of_var(&table.x().var).into_iter().map(|name| format!("var/{name}"));
    let taken = |path: &String| path.rsplit('/').next() == Some(METADATA);
    match columns.chain(var).chain(names::elements(table)).find(taken) {
        Some(path) => Err(format!("{path} has the name of zarr's metadata; read another format")),
        None => Ok(Box::new(Zarr)),
    }
}

impl DirectoryFormat for Zarr {
    fn directory(&self, shape: &FileShape<'_>) -> Result<Directory, String> {
        let mut builder = Builder { shape: *shape, directory: Directory::default(), metadata: Vec::new() };
        let top = json!({"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"});
        let dataset = Place { folder: builder.directory.add_folder(TOP, DATASET), path: DATASET.to_owned() };
        builder.anndata(&dataset);
        let all: Vec<(&str, &Value)> = builder.metadata.iter().map(|(path, value)| (path.as_str(), value)).collect();
        let below = format!("{DATASET}/");
        let within = all.iter().filter_map(|(path, value)| Some((path.strip_prefix(&below)?, *value)));
        let of_dataset = consolidated(encoding("anndata", "0.1.0"), within);
        let of_top = consolidated(
            top,
            std::iter::once((DATASET, &group(encoding("anndata", "0.1.0")))).chain(all.iter().copied()),
        );
        let Builder { mut directory, .. } = builder;
        directory.add_file(dataset.folder, METADATA, FileContent::bytes(of_dataset));
        directory.add_file(TOP, METADATA, FileContent::bytes(of_top));
        Ok(directory.sealed())
    }
}

/// A group and its location.
struct Place {
    folder: usize,
    path: String,
}

struct Builder<'a> {
    shape: FileShape<'a>,
    directory: Directory,
    /// Metadata of each group and array below the collection, by path.
    metadata: Vec<(String, Value)>,
}

impl Builder<'_> {
    fn anndata(&mut self, dataset: &Place) {
        let table = self.shape.table;
        let x = table.x();
        self.obs(dataset);
        self.var(dataset, x, &x.var);
        let [layers, obsm] = ["layers", "obsm"].map(|name| self.group(dataset, name, encoding("dict", "0.1.0")));
        for name in ["obsp", "uns", "varm", "varp"] {
            self.group(dataset, name, encoding("dict", "0.1.0"));
        }
        for (i, (element, name)) in table.elements.iter().zip(names::element_names(table)).enumerate() {
            match name {
                // anndata's X must have two dimensions in total; elements of obsm may have more.
                _ if i == 0 => {
                    let is_image = matches!(&x.kind, MatrixKind::Dense { row, .. } if row.len() > 1);
                    self.matrix(if is_image { &obsm } else { dataset }, "X", i, element);
                }
                MatrixName::Layer(name) => self.matrix(&layers, &name, i, element),
                MatrixName::Obsm(name) => self.matrix(&obsm, &name, i, element),
                _ => {
                    let raw = self.group(dataset, "raw", encoding("raw", "0.1.0"));
                    self.matrix(&raw, "X", i, element);
                    self.var(&raw, element, &[]);
                    self.group(&raw, "varm", encoding("dict", "0.1.0"));
                }
            }
        }
    }

    fn obs(&mut self, dataset: &Place) {
        let table = self.shape.table;
        let names = names::columns(table);
        let obs = self.group(dataset, "obs", frame(&names));
        let digits = table.n_rows.saturating_sub(1).checked_ilog10().map_or(1, |log| log as usize + 1);
        self.texts(&obs, "_index", (Field::RowName, Repr::Utf8(digits)));
        for (i, (column, name)) in table.columns.iter().zip(&names).enumerate() {
            self.column(&obs, name, i, column);
        }
    }

    fn column(&mut self, obs: &Place, name: &str, i: usize, column: &Column) {
        let rows = self.shape.rows;
        let (values, mask) = (Field::Column(i), (Field::Mask(i), Repr::Number(Dtype::Bool)));
        match &column.values {
            Values::Categorical { codes, categories, ordered } => {
                let column = self.group(obs, name, with(encoding("categorical", "0.2.0"), "ordered", json!(ordered)));
                let metadata = ArrayMetadata::numbers(codes.dtype, encoding("array", "0.2.0"));
                self.filled(&column, "codes", (values, Repr::Number(codes.dtype)), (rows, &[], COLUMN_ROWS), metadata);
                self.categories(&column, categories);
            }
            Values::Numbers { numbers, mask: missing, time } => {
                let kind = nullable(numbers.dtype, missing.is_some() && time.is_none());
                let metadata = match time {
                    Some(time) => ArrayMetadata::time(*time, encoding("array", "0.2.0")),
                    None => ArrayMetadata::numbers(numbers.dtype, encoding("array", "0.2.0")),
                };
                let values = (values, Repr::Number(numbers.dtype));
                let extent: (u64, &[u64], u64) = (rows, &[], COLUMN_ROWS);
                let Some(kind) = kind else { return self.filled(obs, name, values, extent, metadata) };
                let column = self.group(obs, name, encoding(kind, "0.1.0"));
                self.filled(&column, "values", values, extent, metadata);
                let metadata = ArrayMetadata::numbers(Dtype::Bool, encoding("array", "0.2.0"));
                self.filled(&column, "mask", mask, extent, metadata);
            }
            Values::Text { mask: missing, bytes, .. } => {
                let values = (values, Repr::Utf8((*bytes).max(1)));
                if missing.is_none() {
                    return self.texts(obs, name, values);
                }
                let column = self.group(obs, name, encoding("nullable-string-array", "0.1.0"));
                self.texts(&column, "values", values);
                let metadata = ArrayMetadata::numbers(Dtype::Bool, encoding("array", "0.2.0"));
                self.filled(&column, "mask", mask, (rows, &[], COLUMN_ROWS), metadata);
            }
        }
    }

    fn var(&mut self, parent: &Place, element: &Element, columns: &[Column]) {
        let names = names::of_var(columns);
        let var = self.group(parent, "var", frame(&names));
        match &element.kind {
            // The columns of X need names; anndata numbers unnamed ones.
            MatrixKind::Dense { row, .. } if row.len() <= 1 && element.n_vars() != element.genes.len() as u64 => {
                let numbers: Vec<String> = (0..element.n_vars()).map(|i| i.to_string()).collect();
                self.constant_texts(&var, "_index", numbers.iter().map(String::as_str));
            }
            _ => self.constant_texts(&var, "_index", element.genes.iter().map(String::as_str)),
        }
        for (column, name) in columns.iter().zip(&names) {
            self.constant_column(&var, name, column);
        }
    }

    /// Adds a column that is the same in every epoch.
    fn constant_column(&mut self, var: &Place, name: &str, column: &Column) {
        match &column.values {
            Values::Categorical { codes, categories, ordered } => {
                let column = self.group(var, name, with(encoding("categorical", "0.2.0"), "ordered", json!(ordered)));
                self.constant(&column, "codes", codes);
                self.categories(&column, categories);
            }
            Values::Numbers { numbers, time: Some(time), .. } => {
                let metadata = ArrayMetadata::time(*time, encoding("array", "0.2.0"));
                self.constant_bytes(var, name, numbers.len() as u64, metadata, numbers.bytes.to_vec());
            }
            Values::Numbers { numbers, mask, time: None } => match (nullable(numbers.dtype, mask.is_some()), mask) {
                (Some(kind), Some(mask)) => {
                    let column = self.group(var, name, encoding(kind, "0.1.0"));
                    self.constant(&column, "values", numbers);
                    self.constant_mask(&column, mask);
                }
                _ => self.constant(var, name, numbers),
            },
            Values::Text { texts, mask, .. } => {
                let all = (0..texts.len()).map(|i| texts.at(i));
                let Some(mask) = mask else { return self.constant_texts(var, name, all) };
                let column = self.group(var, name, encoding("nullable-string-array", "0.1.0"));
                self.constant_texts(&column, "values", all);
                self.constant_mask(&column, mask);
            }
        }
    }

    fn categories(&mut self, column: &Place, categories: &Categories) {
        match &categories.numbers {
            Some(numbers) => self.constant(column, "categories", numbers),
            None => self.constant_texts(column, "categories", categories.labels.iter().map(String::as_str)),
        }
    }

    fn matrix(&mut self, parent: &Place, name: &str, i: usize, element: &Element) {
        let (rows, nnz) = (self.shape.rows, self.shape.nnz[i]);
        match &element.kind {
            MatrixKind::Dense { dtype, row } => {
                let row: &[u64] = if row.is_empty() { &[1] } else { row };
                let bytes = row.iter().product::<u64>().max(1) * dtype.size() as u64;
                let each = (DENSE_BYTES / bytes).max(rows.div_ceil(MOST_CHUNKS)).max(1);
                let metadata = ArrayMetadata::numbers(*dtype, encoding("array", "0.2.0"));
                self.filled(parent, name, (Field::Dense(i), Repr::Number(*dtype)), (rows, row, each), metadata);
            }
            MatrixKind::Sparse { dtype } => {
                // scipy, and so anndata, refuses sparse float16; float32 holds all of its values.
                let dtype = if *dtype == Dtype::F16 { Dtype::F32 } else { *dtype };
                let index = h5ad::index_dtype_of_many(self.shape.table, i, nnz);
                let chunks = rows.div_ceil(ROWS).clamp(1, MOST_CHUNKS);
                let each = nnz.div_ceil(chunks).max(LEAST_VALUES);
                let shape = json!([rows, element.genes.len()]);
                let matrix = self.group(parent, name, with(encoding("csr_matrix", "0.1.0"), "shape", shape));
                for (name, field, dtype, items, each) in [
                    ("indptr", Field::Indptr(i), index, rows + 1, COLUMN_ROWS),
                    ("indices", Field::Indices(i), index, nnz, each),
                    ("data", Field::Data(i), dtype, nnz, each),
                ] {
                    // The arrays of a sparse matrix have no encoding attributes.
                    let metadata = ArrayMetadata::numbers(dtype, json!({}));
                    self.filled(&matrix, name, (field, Repr::Number(dtype)), (items, &[], each), metadata);
                }
            }
        }
    }

    fn group(&mut self, parent: &Place, name: &str, attributes: Value) -> Place {
        let place = self.place(parent, name);
        self.describe(&place, group(attributes));
        place
    }

    /// Adds an array from fields: `items` times `row` numbers, with `each` items a chunk.
    fn filled(
        &mut self,
        parent: &Place,
        name: &str,
        field: (Field, Repr),
        (items, row, each): (u64, &[u64], u64),
        metadata: ArrayMetadata,
    ) {
        let place = self.place(parent, name);
        let shape: Vec<u64> = std::iter::once(items).chain(row.iter().copied()).collect();
        let chunk: Vec<u64> = std::iter::once(each).chain(row.iter().map(|&n| n.max(1))).collect();
        self.describe(&place, array(&metadata, &shape, &chunk));
        let item = row.iter().product::<u64>() * field.1.size() as u64;
        let (bytes, all) = (each * item, items * item);
        let run = Run {
            prefix: "c.".to_owned(),
            digits: 1,
            suffix: ".0".repeat(row.len()),
            count: if all == 0 { 0 } else { items.div_ceil(each) },
            file: Box::new(move |i| part_of_field(field, i * bytes..((i + 1) * bytes).min(all), bytes)),
        };
        self.directory.add_run(place.folder, run);
    }

    /// Adds an array of texts, one for each row.
    fn texts(&mut self, parent: &Place, name: &str, (field, repr): (Field, Repr)) {
        let (place, rows) = (self.place(parent, name), self.shape.rows);
        self.describe(&place, array(&ArrayMetadata::texts(), &[rows], &[TEXT_ROWS]));
        let file = move |i: u64| {
            let items = (i * TEXT_ROWS, ((i + 1) * TEXT_ROWS).min(rows));
            FileContent::Made(Made { field, repr, items, padded: TEXT_ROWS, make: vlen_utf8_of_items })
        };
        let count = rows.div_ceil(TEXT_ROWS);
        let run = Run { prefix: "c.".to_owned(), digits: 1, suffix: String::new(), count, file: Box::new(file) };
        self.directory.add_run(place.folder, run);
    }

    fn constant(&mut self, parent: &Place, name: &str, numbers: &Numbers) {
        let metadata = ArrayMetadata::numbers(numbers.dtype, encoding("array", "0.2.0"));
        self.constant_bytes(parent, name, numbers.len() as u64, metadata, numbers.bytes.to_vec());
    }

    fn constant_mask(&mut self, parent: &Place, mask: &Bytes) {
        self.constant(parent, "mask", &Numbers { dtype: Dtype::Bool, bytes: mask.clone() });
    }

    fn constant_texts<'a>(&mut self, parent: &Place, name: &str, texts: impl ExactSizeIterator<Item = &'a str>) {
        let len = texts.len() as u64;
        let bytes = vlen_utf8(texts.map(str::as_bytes), len);
        self.constant_bytes(parent, name, len, ArrayMetadata::texts(), bytes);
    }

    /// Adds an array in one chunk.
    fn constant_bytes(&mut self, parent: &Place, name: &str, len: u64, metadata: ArrayMetadata, bytes: Vec<u8>) {
        let place = self.place(parent, name);
        self.describe(&place, array(&metadata, &[len], &[len.max(1)]));
        if len > 0 {
            self.directory.add_file(place.folder, "c.0", FileContent::bytes(bytes));
        }
    }

    fn place(&mut self, parent: &Place, name: &str) -> Place {
        Place { folder: self.directory.add_folder(parent.folder, name), path: format!("{}/{name}", parent.path) }
    }

    fn describe(&mut self, place: &Place, metadata: Value) {
        self.directory.add_file(place.folder, METADATA, FileContent::bytes(metadata.to_string().into_bytes()));
        self.metadata.push((place.path.clone(), metadata));
    }
}

/// anndata's encoding of numbers with a mask. anndata 0.12 has no nullable float: missing values are NaN.
fn nullable(dtype: Dtype, is_nullable: bool) -> Option<&'static str> {
    match dtype {
        _ if !is_nullable => None,
        Dtype::Bool => Some("nullable-boolean"),
        dtype if dtype.is_float() => None,
        _ => Some("nullable-integer"),
    }
}

/// The attributes of a dataframe with these columns.
fn frame(names: &[String]) -> Value {
    with(with(encoding("dataframe", "0.2.0"), "_index", json!("_index")), "column-order", json!(names))
}

/// Encodes fixed-width texts as a chunk.
fn vlen_utf8_of_items(repr: Repr, items: &[u8], padded: u64) -> Vec<u8> {
    let texts = items.chunks_exact(repr.size().max(1)).map(|item| {
        let end = item.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        &item[..end]
    });
    vlen_utf8(texts, padded)
}

/// Encodes a chunk of `len` texts, of which missing ones are empty: their number, then length and bytes of each.
fn vlen_utf8<'a>(texts: impl Iterator<Item = &'a [u8]>, len: u64) -> Vec<u8> {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let (mut bytes, mut missing) = (number(len).to_vec(), len);
    for text in texts {
        bytes.extend_from_slice(&number(text.len() as u64));
        bytes.extend_from_slice(text);
        missing -= 1;
    }
    bytes.resize(bytes.len() + 4 * as_usize(missing), 0);
    bytes
}
