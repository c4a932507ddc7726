//! AnnData's on-disk structure (anndata 0.8 and later), as HDF5 objects.
//!
//! Children are added before their group, as a link contains an address. Datasets that a batch fills are recorded in the order of their
//! data
//! in the file: obs first, matrices last, so that small arrays share pages with the headers.

use super::hdf5_image::{AttributeValue, DataSource, FrontBuilder, Placed, TooLong, Type};
use super::{Filled, H5adError, ItemCount, Skeleton};
use crate::anndata::bytes::Bytes;
use crate::anndata::column::{Categories, Column, Numbers, Values};
use crate::anndata::names::MatrixName;
use crate::array::Dtype;
use crate::batch::{Field, Repr};
use crate::collection::Table;
use crate::collection::element::{Element, MatrixKind};
use crate::format::names;
use crate::number::{as_i64, le32};

/// The index of the attribute `shape` of a sparse matrix.
pub const SHAPE: usize = 2;

/// A message has at most 65,535 bytes: 9 fixed, the name `column-order`, a datatype of 20 and a dataspace of 12, then 16 for each name.
const COLUMNS_MAX: usize = (65_535 - 9 - 13 - 20 - 12) / 16;
/// The size of a datatype has 4 bytes, numpy's item size 31 bits.
const TEXT_MAX: usize = i32::MAX as usize;
/// The start of a MuData file, and the minimum size of an HDF5 user block.
const USER_BLOCK: &[u8] = b"MuData (format-version=0.1.0;creator=shufflefs)";
const USER_BLOCK_UNIT: usize = 512;
/// Maximum elements of a dense row: far more than any memory holds, and few enough that sizes of batches cannot overflow.
const ROW_MAX: u64 = 1 << 36;

/// The skeleton of an AnnData with these columns of var, or of a MuData.
pub fn build(table: &Table, var: &[Column], modalities: bool) -> Result<Skeleton, H5adError> {
    let companions = table.companions.iter().map(|companion| &*companion.table);
    std::iter::once(table).chain(companions).try_for_each(check)?;
    let mut builder =
        StructureBuilder { image: FrontBuilder::new(), companion: 0, filled: Vec::new(), sparse: Vec::new() };
    let root = if modalities { builder.mudata(table) } else { builder.anndata(table, var, None) };
    let root = root.map_err(|TooLong| H5adError::Header)?;
    let StructureBuilder { image, filled, sparse, .. } = builder;
    // mudata recognises its files by their first bytes.
    let block = if modalities { USER_BLOCK } else { &[] };
    let user_block = block.len().next_multiple_of(USER_BLOCK_UNIT);
    let mut front = block.to_vec();
    front.resize(user_block, 0);
    front.extend_from_slice(&image.seal(&root, user_block as u64));
    Ok(Skeleton { front, user_block, filled, sparse })
}

fn check(table: &Table) -> Result<(), H5adError> {
    let names = names::columns(table);
    if names.len() > COLUMNS_MAX {
        return Err(H5adError::TooManyColumns { columns: names.len(), most: COLUMNS_MAX });
    }
    check_elements(table)?;
    let genes = table.elements.iter().filter_map(|element| {
        let frame = element.name.frame()?;
        Some((format!("{}/_index", frame.path()), width(&element.genes)))
    });
    let columns = table.columns.iter().map(|column| {
        let bytes = match &column.values {
            Values::Categorical { categories, .. } => width(&categories.labels),
            Values::Numbers { .. } => 1,
            Values::Text { bytes, .. } => *bytes,
        };
        (format!("obs/{}", column.name), bytes)
    });
    for (element, bytes) in genes.chain(columns) {
        if bytes > TEXT_MAX {
            return Err(H5adError::TextTooLong { element, bytes, most: TEXT_MAX });
        }
    }
    Ok(())
}

/// Whether the elements can be in an AnnData, in any file format.
pub fn check_elements(table: &Table) -> Result<(), H5adError> {
    let x = table.x();
    if x.tokens.is_some() {
        return Err(H5adError::Tokens);
    }
    for (i, element) in table.elements.iter().enumerate() {
        if let MatrixKind::Dense { row, .. } = &element.kind {
            let elements = row.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
            if elements.is_none_or(|elements| elements > ROW_MAX) || row.len() > 31 {
                return Err(H5adError::RowTooLarge { row: row.clone() });
            }
        }
        let (name, x_name) = (element.name.path(), x.name.path());
        if i > 0 && element.name.is_layer() && element.genes != x.genes {
            return Err(H5adError::Layer { element: name, x: x_name });
        }
        // Images are written as `obsm/X`, so that name would be used twice.
        if i > 0 && element.name == MatrixName::Obsm("X".to_owned()) && is_image(x) {
            return Err(H5adError::Taken { element: name, x: x_name });
        }
    }
    Ok(())
}

/// Whether its rows have several dimensions. anndata's X must have two dimensions in total; elements of obsm may have more.
fn is_image(element: &Element) -> bool {
    matches!(&element.kind, MatrixKind::Dense { row, .. } if row.len() > 1)
}

struct StructureBuilder {
    image: FrontBuilder,
    /// Number of the companion whose arrays are being added.
    companion: usize,
    filled: Vec<Filled>,
    sparse: Vec<(usize, Placed)>,
}

impl StructureBuilder {
    /// Adds a whole AnnData; `var`: the address of its var if it exists already. Companions are in `uns`, each an AnnData.
    fn anndata(&mut self, table: &Table, columns: &[Column], var: Option<u64>) -> Result<Placed, TooLong> {
        let obs = self.obs(table, digits(table), &names::columns(table))?;
        self.parts(table, obs, columns, var)
    }

    /// Adds an AnnData whose obs exists already.
    fn parts(&mut self, table: &Table, obs: u64, columns: &[Column], var: Option<u64>) -> Result<Placed, TooLong> {
        let (mut layers, mut obsm, mut raw) = (Vec::new(), Vec::new(), None);
        let x = self.matrix(0, table.x())?;
        let var = match var {
            Some(address) => address,
            None => self.var(table.x(), columns)?,
        };
        let mut links = vec![("obs", obs), ("var", var)];
        if is_image(table.x()) {
            obsm.push(("X", x))
        } else {
            links.push(("X", x))
        }
        let served = names::element_names(table);
        for (i, (element, name)) in table.elements.iter().zip(&served).enumerate().skip(1) {
            let address = self.matrix(i, element)?;
            match name {
                MatrixName::Layer(name) => layers.push((name.as_str(), address)),
                MatrixName::Obsm(name) => obsm.push((name.as_str(), address)),
                MatrixName::X | MatrixName::RawX => raw = Some(self.raw(element, address)?),
            }
        }
        links.push(("obsm", self.dict(&obsm)?));
        links.push(("layers", self.dict(&layers)?));
        let mut uns = Vec::new();
        let alike = (1..).zip(&table.companions).filter(|(_, beside)| beside.modality().is_none());
        for (number, beside) in alike {
            self.companion = number;
            // A shared var is written once, as it is most of a small file.
            let shared = (beside.table.x().genes == table.x().genes).then_some(var);
            uns.push((beside.name.as_str(), self.anndata(&beside.table, &[], shared)?.address()));
            self.companion = 0;
        }
        let none: &[(&str, u64)] = &[];
        for (name, held) in [("obsp", none), ("uns", uns.as_slice()), ("varm", none), ("varp", none)] {
            links.push((name, self.dict(held)?));
        }
        links.extend(raw.map(|raw| ("raw", raw)));
        self.image.group(&encoding("anndata", "0.1.0"), &links)
    }

    /// Adds a MuData: modalities, each an AnnData with its rows, and the mapping of rows of the batch to these.
    fn mudata(&mut self, table: &Table) -> Result<Placed, TooLong> {
        let modalities = names::modalities(table);
        let of = |number: usize| match number.checked_sub(1) {
            None => table,
            Some(before) => table.companions.get(before).map_or(table, |companion| &companion.table),
        };
        let digits = digits(table);
        let index = self.fill(Field::RowName, Repr::Utf8(digits), "string-array")?;
        let obs = self.frame(&[], &[("_index", index)])?;
        let genes = |number: usize| {
            let x = of(number).x();
            if x.genes.len() as u64 == x.n_vars() { x.genes.to_vec() } else { numbered(x) }
        };
        let all: Vec<String> = modalities.iter().flat_map(|(number, _)| genes(*number)).collect();
        let index = self.constant_texts(&all)?;
        let var = self.frame(&[], &[("_index", index)])?;
        let (mut has, mut places, mut of_var, mut var_places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for (number, name) in &modalities {
            self.companion = *number;
            let flags = self.fill_counted(Field::Has, Repr::Number(Dtype::Bool), ItemCount::BatchRows)?;
            has.push((name.as_str(), flags));
            let numbers = self.fill_counted(Field::Place, Repr::Number(Dtype::U32), ItemCount::BatchRows)?;
            places.push((name.as_str(), numbers));
            let end = first + genes(*number).len();
            let own = |at: usize| (first..end).contains(&at);
            let flags = (0..all.len()).map(|at| u8::from(own(at))).collect();
            of_var.push((name.as_str(), self.constant(&Numbers { dtype: Dtype::Bool, bytes: flags })?));
            let place = |at: usize| if own(at) { le32(at - first + 1) } else { [0; 4] };
            let numbers = (0..all.len()).flat_map(place).collect();
            var_places.push((name.as_str(), self.constant(&Numbers { dtype: Dtype::U32, bytes: numbers })?));
            first = end;
        }
        let mut held = Vec::new();
        for (number, name) in &modalities {
            self.companion = *number;
            let table = of(*number);
            let obs = self.obs(table, digits, &names::columns(table))?;
            held.push((name.as_str(), self.parts(table, obs, &[], None)?.address()));
        }
        self.companion = 0;
        let order: Vec<String> = modalities.iter().map(|(_, name)| name.clone()).collect();
        let held = self.image.group(&[("mod-order", AttributeValue::Texts(&order))], &held)?.address();
        let mut links = vec![("obs", obs), ("var", var), ("mod", held)];
        for (name, of) in [("obsm", has), ("obsmap", places), ("varm", of_var), ("varmap", var_places)] {
            links.push((name, self.dict(&of)?));
        }
        for name in ["obsp", "uns", "varp"] {
            links.push((name, self.dict(&[])?));
        }
        let [encoding, version] = encoding("MuData", "0.1.0");
        self.image.group(&[encoding, version, ("axis", AttributeValue::Integer(0))], &links)
    }

    /// Adds `raw`: a matrix with genes of its own.
    fn raw(&mut self, element: &Element, x: u64) -> Result<u64, TooLong> {
        let links = [("X", x), ("var", self.var(element, &[])?), ("varm", self.dict(&[])?)];
        Ok(self.image.group(&encoding("raw", "0.1.0"), &links)?.address())
    }

    fn dict(&mut self, links: &[(&str, u64)]) -> Result<u64, TooLong> {
        Ok(self.image.group(&encoding("dict", "0.1.0"), links)?.address())
    }

    /// Adds obs. `digits`: maximum length of a row's name.
    fn obs(&mut self, table: &Table, digits: usize, names: &[String]) -> Result<u64, TooLong> {
        let index = self.fill(Field::RowName, Repr::Utf8(digits), "string-array")?;
        let mut links = vec![("_index", index)];
        for (i, (column, name)) in table.columns.iter().zip(names).enumerate() {
            links.push((name, self.column(i, column)?));
        }
        self.frame(names, &links)
    }

    fn var(&mut self, x: &Element, columns: &[Column]) -> Result<u64, TooLong> {
        let index = match &x.kind {
            // The columns of X need names; anndata numbers unnamed ones.
            MatrixKind::Dense { row, .. } if row.len() <= 1 && x.n_vars() != x.genes.len() as u64 => {
                self.constant_texts(&numbered(x))?
            }
            _ => self.constant_texts(&x.genes)?,
        };
        let names = names::of_var(columns);
        let mut links = vec![("_index", index)];
        for (column, name) in columns.iter().zip(&names) {
            links.push((name, self.constant_column(column)?));
        }
        self.frame(&names, &links)
    }

    fn frame(&mut self, names: &[String], links: &[(&str, u64)]) -> Result<u64, TooLong> {
        let [encoding, version] = encoding("dataframe", "0.2.0");
        let attributes = [
            encoding,
            version,
            ("_index", AttributeValue::Text("_index")),
            ("column-order", AttributeValue::Texts(names)),
        ];
        Ok(self.image.group(&attributes, links)?.address())
    }

    fn column(&mut self, i: usize, column: &Column) -> Result<u64, TooLong> {
        let (values, mask) = (Field::Column(i), Field::Mask(i));
        match &column.values {
            Values::Categorical { codes, categories, ordered } => {
                let codes = self.fill(values, Repr::Number(codes.dtype), "array")?;
                let categories = self.categories(categories)?;
                let [encoding, version] = encoding("categorical", "0.2.0");
                let attributes = [encoding, version, ("ordered", AttributeValue::Bool(*ordered))];
                let links = [("codes", codes), ("categories", categories)];
                Ok(self.image.group(&attributes, &links)?.address())
            }
            Values::Numbers { numbers, mask: missing, time } => {
                let repr = Repr::Number(numbers.dtype);
                let kind = match numbers.dtype {
                    _ if missing.is_none() => None,
                    Dtype::Bool => Some("nullable-boolean"),
                    _ if time.is_some() => None,
                    // anndata 0.12 has no nullable float: missing values are NaN.
                    dtype if dtype.is_float() => None,
                    _ => Some("nullable-integer"),
                };
                let ty = time.map_or(Type::Number(numbers.dtype), Type::Time);
                let values = self.fill_as(ty, values, repr, "array")?;
                kind.map_or(Ok(values), |kind| self.nullable(kind, values, mask))
            }
            Values::Text { mask: missing, bytes, .. } => {
                let values = self.fill(values, Repr::Utf8((*bytes).max(1)), "string-array")?;
                match missing {
                    Some(_) => self.nullable("nullable-string-array", values, mask),
                    None => Ok(values),
                }
            }
        }
    }

    /// Adds a column that is the same in every file.
    fn constant_column(&mut self, column: &Column) -> Result<u64, TooLong> {
        match &column.values {
            Values::Categorical { codes, categories, ordered } => {
                let codes = self.constant(codes)?;
                let categories = self.categories(categories)?;
                let [encoding, version] = encoding("categorical", "0.2.0");
                let attributes = [encoding, version, ("ordered", AttributeValue::Bool(*ordered))];
                Ok(self.image.group(&attributes, &[("codes", codes), ("categories", categories)])?.address())
            }
            Values::Numbers { numbers, time: Some(time), .. } => {
                let (dims, source) = ([numbers.len() as u64], DataSource::Constant(numbers.bytes.to_vec()));
                Ok(self.image.dataset(Type::Time(*time), &dims, &encoding("array", "0.2.0"), source)?.address())
            }
            Values::Numbers { numbers, mask, .. } => {
                let values = self.constant(numbers)?;
                match (mask, numbers.dtype) {
                    (Some(mask), Dtype::Bool) => self.constant_nullable("nullable-boolean", values, mask),
                    (Some(mask), dtype) if !dtype.is_float() => {
                        self.constant_nullable("nullable-integer", values, mask)
                    }
                    _ => Ok(values),
                }
            }
            Values::Text { texts, mask, .. } => {
                let texts: Vec<String> = (0..texts.len()).map(|i| texts.at(i).to_owned()).collect();
                let values = self.constant_texts(&texts)?;
                match mask {
                    Some(mask) => self.constant_nullable("nullable-string-array", values, mask),
                    None => Ok(values),
                }
            }
        }
    }

    fn constant_nullable(&mut self, kind: &'static str, values: u64, mask: &Bytes) -> Result<u64, TooLong> {
        let mask = self.constant(&Numbers { dtype: Dtype::Bool, bytes: mask.clone() })?;
        Ok(self.image.group(&encoding(kind, "0.1.0"), &[("values", values), ("mask", mask)])?.address())
    }

    fn constant(&mut self, numbers: &Numbers) -> Result<u64, TooLong> {
        let (dims, source) = ([numbers.len() as u64], DataSource::Constant(numbers.bytes.to_vec()));
        Ok(self.image.dataset(Type::Number(numbers.dtype), &dims, &encoding("array", "0.2.0"), source)?.address())
    }

    fn nullable(&mut self, kind: &'static str, values: u64, mask: Field) -> Result<u64, TooLong> {
        let mask = self.fill(mask, Repr::Number(Dtype::Bool), "array")?;
        let links = [("values", values), ("mask", mask)];
        Ok(self.image.group(&encoding(kind, "0.1.0"), &links)?.address())
    }

    fn categories(&mut self, categories: &Categories) -> Result<u64, TooLong> {
        let Some(numbers) = &categories.numbers else {
            return self.constant_texts(&categories.labels);
        };
        self.constant(numbers)
    }

    fn constant_texts(&mut self, texts: &[String]) -> Result<u64, TooLong> {
        let width = width(texts);
        let mut bytes = vec![0; width * texts.len()];
        for (place, text) in bytes.chunks_exact_mut(width).zip(texts) {
            place[..text.len()].copy_from_slice(text.as_bytes());
        }
        let attributes = encoding("string-array", "0.2.0");
        let dims = [texts.len() as u64];
        Ok(self.image.dataset(Type::Utf8(width), &dims, &attributes, DataSource::Constant(bytes))?.address())
    }

    /// Adds a matrix of the batch; returns its address.
    fn matrix(&mut self, i: usize, element: &Element) -> Result<u64, TooLong> {
        match &element.kind {
            MatrixKind::Dense { dtype, row } => {
                let row: &[u64] = if row.is_empty() { &[1] } else { row };
                let dims: Vec<u64> = std::iter::once(0).chain(row.iter().copied()).collect();
                let ty = Type::Number(*dtype);
                let placed = self.image.dataset(ty, &dims, &encoding("array", "0.2.0"), DataSource::Later)?;
                let address = placed.address();
                self.filled.push(Filled {
                    companion: self.companion,
                    field: Field::Dense(i),
                    repr: Repr::Number(*dtype),
                    count: ItemCount::Rows,
                    elements: row.iter().product(),
                    placed,
                });
                Ok(address)
            }
            MatrixKind::Sparse { dtype } => {
                // scipy, and so anndata, refuses sparse float16; float32 holds all of its values.
                let dtype = if *dtype == Dtype::F16 { Dtype::F32 } else { *dtype };
                // The arrays of a sparse matrix have no encoding attributes.
                let mut links = Vec::new();
                for (name, field, dtype, count) in [
                    ("indptr", Field::Indptr(i), Dtype::I32, ItemCount::RowsAndOne),
                    ("indices", Field::Indices(i), Dtype::I32, ItemCount::Stored(i)),
                    ("data", Field::Data(i), dtype, ItemCount::Stored(i)),
                ] {
                    let placed = self.image.dataset(Type::Number(dtype), &[0], &[], DataSource::Later)?;
                    links.push((name, placed.address()));
                    let (companion, repr) = (self.companion, Repr::Number(dtype));
                    self.filled.push(Filled { companion, field, repr, count, elements: 1, placed });
                }
                let [encoding, version] = encoding("csr_matrix", "0.1.0");
                let shape = [0, as_i64(element.genes.len())];
                let group =
                    self.image.group(&[encoding, version, ("shape", AttributeValue::Integers(&shape))], &links)?;
                let address = group.address();
                self.sparse.push((self.companion, group));
                Ok(address)
            }
        }
    }

    /// Adds a dataset with one value for each row.
    fn fill(&mut self, field: Field, repr: Repr, kind: &'static str) -> Result<u64, TooLong> {
        let ty = match repr {
            Repr::Number(dtype) => Type::Number(dtype),
            Repr::Utf8(bytes) | Repr::Ucs4(bytes) => Type::Utf8(bytes),
        };
        self.fill_as(ty, field, repr, kind)
    }

    fn fill_as(&mut self, ty: Type, field: Field, repr: Repr, kind: &'static str) -> Result<u64, TooLong> {
        self.dataset((ty, kind), field, repr, ItemCount::Rows)
    }

    /// Adds an array of numbers, `count` of them.
    fn fill_counted(&mut self, field: Field, repr: Repr, count: ItemCount) -> Result<u64, TooLong> {
        let Repr::Number(dtype) = repr else { return Err(TooLong) };
        self.dataset((Type::Number(dtype), "array"), field, repr, count)
    }

    fn dataset(
        &mut self,
        (ty, kind): (Type, &'static str),
        field: Field,
        repr: Repr,
        count: ItemCount,
    ) -> Result<u64, TooLong> {
        let placed = self.image.dataset(ty, &[0], &encoding(kind, "0.2.0"), DataSource::Later)?;
        let (address, companion) = (placed.address(), self.companion);
        self.filled.push(Filled { companion, field, repr, count, elements: 1, placed });
        Ok(address)
    }
}

/// Digits of the largest row number.
fn digits(table: &Table) -> usize {
    table.n_rows.saturating_sub(1).checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Numbers as names of unnamed columns.
fn numbered(x: &Element) -> Vec<String> {
    (0..x.n_vars()).map(|i| i.to_string()).collect()
}

fn encoding(kind: &'static str, version: &'static str) -> [(&'static str, AttributeValue<'static>); 2] {
    [("encoding-type", AttributeValue::Text(kind)), ("encoding-version", AttributeValue::Text(version))]
}

/// Bytes of the longest text, at least 1: HDF5 has no type of 0 bytes.
fn width(texts: &[String]) -> usize {
    texts.iter().map(String::len).max().unwrap_or(0).max(1)
}
