//! obs and var: dataframes of named columns with an index.

use crate::array::cast::{cast, to_text};
use crate::array::{Array, ArrayError, Container, Counters, Dtype, NodeKind};

use super::column::{Categories, Column, Numbers, Texts, Values};
use super::{METADATA_LIMIT, element_error, encoding, unsupported};

/// What a column is, without reading its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Categorical,
    Number,
    Boolean,
    Text,
    /// An encoding that is not read.
    Other,
}

impl ColumnKind {
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::Categorical => "categorical",
            ColumnKind::Number => "number",
            ColumnKind::Boolean => "boolean",
            ColumnKind::Text => "text",
            ColumnKind::Other => "other",
        }
    }
}

/// A dataframe element, opened.
pub struct DataFrame<'a> {
    store: &'a Container,
    element: String,
    /// Columns in the order that the writer gave, without the index.
    pub columns: Vec<String>,
    index: String,
    pub rows: u64,
}

impl<'a> DataFrame<'a> {
    /// Opens `obs`, `var` or `raw/var`.
    ///
    /// # Errors
    /// The element is absent or no dataframe of anndata 0.8 or later.
    pub fn open(store: &'a Container, element: &str) -> Result<DataFrame<'a>, ArrayError> {
        match store.kind(element)? {
            Some(NodeKind::Group) => {}
            Some(NodeKind::Array) => {
                let cause = "a compound array, as before anndata 0.7; read and write the store with a newer anndata";
                return Err(unsupported(store, element, cause));
            }
            None => return Err(element_error(store, element, "there is none: not an AnnData store?")),
        }
        let attributes = store.attributes(element)?;
        if store.kind(&format!("{element}/__categories"))?.is_some() {
            let cause = "categories apart from codes, as in anndata 0.7; read and write the store with a newer anndata";
            return Err(unsupported(store, element, cause));
        }
        let index = attributes.get("_index").and_then(|name| name.as_str()).unwrap_or("_index").to_owned();
        let columns = match attributes.get("column-order").and_then(|order| order.as_array()) {
            Some(order) => order.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
            None => store.members(element)?.into_iter().filter(|name| *name != index).collect(),
        };
        let mut frame = DataFrame { store, element: element.to_owned(), columns, index, rows: 0 };
        frame.rows = frame.index_len()?;
        Ok(frame)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.element)
    }

    /// The index may be an array of strings or a `nullable-string-array` group.
    fn index_element(&self) -> Result<String, ArrayError> {
        let path = self.path(&self.index);
        Ok(match self.store.kind(&path)? {
            Some(NodeKind::Group) => format!("{path}/values"),
            _ => path,
        })
    }

    fn index_len(&self) -> Result<u64, ArrayError> {
        let element = self.index_element()?;
        match self.store.shape(&element)?.as_slice() {
            &[n] => Ok(n),
            shape => {
                Err(element_error(self.store, &element, format!("an index has one dimension, not {}", shape.len())))
            }
        }
    }

    /// The names of the rows.
    pub fn names(&self, counters: &Counters) -> Result<Vec<String>, ArrayError> {
        let element = self.index_element()?;
        if self.store.is_text(&element)? {
            return self.store.strings(&element);
        }
        let numbers = numbers(self.store, &element, counters)?;
        Ok((0..numbers.len()).map(|i| to_text(numbers.dtype, numbers.at(i))).collect())
    }

    /// What a column is; reads attributes alone.
    pub fn kind(&self, name: &str) -> Result<ColumnKind, ArrayError> {
        let path = self.path(name);
        Ok(match self.store.kind(&path)? {
            None => return Err(element_error(self.store, &path, "there is no such column")),
            Some(NodeKind::Group) => match encoding(self.store, &path)?.as_str() {
                "categorical" => ColumnKind::Categorical,
                "nullable-integer" => ColumnKind::Number,
                "nullable-boolean" => ColumnKind::Boolean,
                "nullable-string-array" => ColumnKind::Text,
                _ => ColumnKind::Other,
            },
            Some(NodeKind::Array) if self.store.is_text(&path)? => ColumnKind::Text,
            Some(NodeKind::Array) => match Dtype::from_name(&self.store.dtype_name(&path)?) {
                Some(Dtype::Bool) => ColumnKind::Boolean,
                Some(_) => ColumnKind::Number,
                None => ColumnKind::Other,
            },
        })
    }

    /// How many categories a categorical column has.
    pub fn category_count(&self, name: &str) -> Result<u64, ArrayError> {
        Ok(self.store.shape(&self.path(&format!("{name}/categories")))?.first().copied().unwrap_or_default())
    }

    /// Reads a column.
    ///
    /// # Errors
    /// Its length is not the frame's, a code is out of range, or its encoding is not read.
    pub fn column(&self, name: &str, counters: &Counters) -> Result<Column, ArrayError> {
        let path = self.path(name);
        for part in ["", "/codes", "/values", "/mask"].map(|part| format!("{path}{part}")) {
            if self.store.kind(&part)? == Some(NodeKind::Array) {
                self.one_a_row(&part)?;
            }
        }
        let values = match (self.kind(name)?, self.store.kind(&path)?) {
            (ColumnKind::Categorical, _) => self.categorical(&path, counters)?,
            (ColumnKind::Text, Some(NodeKind::Group)) => {
                let mask = self.mask(&path, counters)?;
                text(texts(self.store, &format!("{path}/values"))?, Some(mask))
            }
            (ColumnKind::Text, _) => text(texts(self.store, &path)?, None),
            (ColumnKind::Number | ColumnKind::Boolean, Some(NodeKind::Group)) => Values::Numbers {
                numbers: numbers(self.store, &format!("{path}/values"), counters)?,
                mask: Some(self.mask(&path, counters)?),
            },
            (ColumnKind::Number | ColumnKind::Boolean, _) => {
                Values::Numbers { numbers: numbers(self.store, &path, counters)?, mask: None }
            }
            (ColumnKind::Other, _) => {
                let encoding = encoding(self.store, &path)?;
                let cause = format!("a column of encoding {encoding:?} is not read; leave it out of --obs");
                return Err(unsupported(self.store, &path, cause));
            }
        };
        let column = Column { name: name.to_owned(), values };
        if column.len() as u64 != self.rows {
            let cause = format!("has {} values, but there are {} rows", column.len(), self.rows);
            return Err(element_error(self.store, &path, cause));
        }
        Ok(column)
    }

    /// Fails if an array has not one value a row: before it is read, as its shape may lie.
    fn one_a_row(&self, element: &str) -> Result<(), ArrayError> {
        match self.store.shape(element)?.as_slice() {
            &[n] if n != self.rows => {
                let cause = format!("has {n} values, but there are {} rows", self.rows);
                Err(element_error(self.store, element, cause))
            }
            // Another number of axes is told by who reads it.
            _ => Ok(()),
        }
    }

    fn mask(&self, path: &str, counters: &Counters) -> Result<Vec<u8>, ArrayError> {
        let element = format!("{path}/mask");
        let mask = numbers(self.store, &element, counters)?;
        if mask.dtype != Dtype::Bool || mask.len() as u64 != self.rows {
            let cause = format!("a mask of {} {} values for {} rows", mask.len(), mask.dtype, self.rows);
            return Err(element_error(self.store, &element, cause));
        }
        Ok(mask.bytes)
    }

    fn categorical(&self, path: &str, counters: &Counters) -> Result<Values, ArrayError> {
        let element = format!("{path}/categories");
        let categories = if self.store.is_text(&element)? {
            Categories { labels: texts(self.store, &element)?, numbers: None }
        } else {
            let numbers = numbers(self.store, &element, counters)?;
            let labels = (0..numbers.len()).map(|i| to_text(numbers.dtype, numbers.at(i))).collect();
            Categories { labels, numbers: Some(numbers) }
        };
        let codes = numbers(self.store, &format!("{path}/codes"), counters)?;
        if codes.dtype.is_float() || codes.dtype == Dtype::Bool {
            let cause = format!("codes are {}, not integers", codes.dtype);
            return Err(element_error(self.store, &format!("{path}/codes"), cause));
        }
        let mut wide = vec![0; codes.len() * 8];
        cast(codes.dtype, Dtype::I64, &codes.bytes, &mut wide);
        let count = categories.labels.len() as i64;
        // The largest u64 would wrap to "missing".
        let least = if codes.dtype.is_signed() { -1 } else { 0 };
        let wrong = |code: &i64| *code < least || *code >= count;
        if let Some(code) = wide.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).find(wrong) {
            let cause = format!("code {code} is outside its {count} categories");
            return Err(element_error(self.store, &format!("{path}/codes"), cause));
        }
        let ordered =
            self.store.attributes(path)?.get("ordered").is_some_and(|value| {
                value.as_bool().unwrap_or_else(|| value.as_i64().is_some_and(|number| number != 0))
            });
        let dtype = Values::code_dtype(categories.labels.len());
        let mut narrow = vec![0; codes.len() * dtype.size()];
        cast(Dtype::I64, dtype, &wide, &mut narrow);
        Ok(Values::Categorical { codes: Numbers { dtype, bytes: narrow }, categories, ordered })
    }
}

fn texts(store: &Container, element: &str) -> Result<Vec<String>, ArrayError> {
    match store.shape(element)?.len() {
        1 => store.strings(element),
        n => Err(element_error(store, element, format!("a column has one dimension, not {n}"))),
    }
}

fn numbers(store: &Container, element: &str, counters: &Counters) -> Result<Numbers, ArrayError> {
    let array: Array = store.array(element)?;
    if array.shape.len() != 1 {
        return Err(element_error(store, element, format!("a column has one dimension, not {}", array.shape.len())));
    }
    Ok(Numbers { dtype: array.dtype, bytes: array.read_all(METADATA_LIMIT, counters)? })
}

fn text(strings: Vec<String>, mask: Option<Vec<u8>>) -> Values {
    let mut texts = Texts::default();
    let (mut chars, mut bytes) = (0, 0);
    for string in &strings {
        texts.push(string);
        chars = chars.max(string.chars().count());
        bytes = bytes.max(string.len());
    }
    Values::Text { texts, mask, chars, bytes }
}
