//! Reads the columns of a frame of any layout into [`Values`].

use crate::array::cast::cast;
use crate::array::meaning::{Meaning, Names, Time};
use crate::array::{ArrayError, Counters, Dtype, NodeKind};

use super::{ColumnKind, DataFrame};
use crate::anndata::bytes::Bytes;
use crate::anndata::column::{Categories, Column, Numbers, Values};
use crate::anndata::row_index::{ArrayContent, ColumnSource, RowIndex};
use crate::anndata::values::{numbers, text, texts};
use crate::anndata::{categories, element_error, unsupported};

impl DataFrame<'_> {
    /// Reads a column.
    ///
    /// # Errors
    /// Its length differs from the frame's, a code is out of range, or its encoding is not supported.
    pub fn column(&self, name: &str, counters: &Counters) -> Result<Column, ArrayError> {
        let path = self.path(name);
        for part in ["", "/codes", "/values", "/mask"].map(|part| format!("{path}{part}")) {
            if self.store.kind(&part)? == Some(NodeKind::Array) {
                self.one_a_row(&part)?;
            }
        }
        let values = match (self.kind(name)?, self.store.kind(&path)?) {
            (ColumnKind::Other, None) => {
                return Err(unsupported(self.store, &path, "there is no such column; leave it out of --obs"));
            }
            (ColumnKind::Text, None) => text(self.store.field_strings(&self.element, name)?, None),
            (kind @ (ColumnKind::Categorical | ColumnKind::Boolean), None) => match self.field_names(name) {
                Some(names) => self.named(&path, self.field(name, counters)?, names)?,
                None if kind == ColumnKind::Categorical => self.record_categorical(name, counters)?,
                None => Values::plain(self.field(name, counters)?),
            },
            (_, None) => Values::plain(self.field(name, counters)?),
            (kind @ (ColumnKind::Categorical | ColumnKind::Boolean), Some(NodeKind::Array)) => {
                match self.store.meaning(&path)? {
                    Meaning::Names(names) => self.named(&path, self.numbers(&path, counters)?, &names)?,
                    _ if kind == ColumnKind::Categorical => self.referred(name, counters)?,
                    _ => Values::Numbers { numbers: self.numbers(&path, counters)?, mask: None, time: time(kind) },
                }
            }
            (ColumnKind::Categorical, _) => self.categorical(&path, counters)?,
            (ColumnKind::Text, Some(NodeKind::Group)) => {
                let mask = self.mask(&path, counters)?;
                text(texts(self.store, &format!("{path}/values"))?, Some(mask))
            }
            (ColumnKind::Text, _) => text(texts(self.store, &path)?, None),
            (kind, Some(NodeKind::Group)) if kind != ColumnKind::Other => {
                let numbers = self.numbers(&format!("{path}/values"), counters)?;
                let numbers = if kind == ColumnKind::Boolean { booleans(numbers) } else { numbers };
                Values::Numbers { numbers, mask: Some(self.mask(&path, counters)?), time: time(kind) }
            }
            (ColumnKind::Other, _) => {
                let cause = format!("{}, which is not read; leave it out of --obs", self.what(name)?);
                return Err(unsupported(self.store, &path, cause));
            }
            (kind, _) => Values::Numbers { numbers: self.numbers(&path, counters)?, mask: None, time: time(kind) },
        };
        let column = Column { name: name.to_owned(), values };
        if column.len() as u64 != self.rows && !self.tries() {
            let cause = format!("has {} values, but there are {} rows", column.len(), self.rows);
            return Err(element_error(self.store, &path, cause));
        }
        Ok(column)
    }

    /// Whether arrays are opened only, as in the probe.
    fn tries(&self) -> bool {
        self.row_index.is_some_and(RowIndex::reads_nothing)
    }

    /// Fails if an array does not have a value for each row; checked before reading, as its shape may be wrong.
    fn one_a_row(&self, element: &str) -> Result<(), ArrayError> {
        match self.store.shape(element)?.as_slice() {
            &[n] if n != self.rows => {
                let cause = format!("has {n} values, but there are {} rows", self.rows);
                Err(element_error(self.store, element, cause))
            }
            // An array with other dimensions is refused where it is read.
            _ => Ok(()),
        }
    }

    /// Reads or maps a one-dimensional array.
    fn numbers(&self, element: &str, counters: &Counters) -> Result<Numbers, ArrayError> {
        let Some(row_index) = self.row_index else { return numbers(self.store, element, counters) };
        match row_index.numbers(&self.store.array(element)?, counters)? {
            Some(numbers) => Ok(numbers),
            None => numbers(self.store, element, counters),
        }
    }

    /// Codes and labels as a column. Codes of the row index are not checked again.
    fn labelled(
        &self,
        element: &str,
        categories: Categories,
        ordered: bool,
        counters: &Counters,
    ) -> Result<Values, ArrayError> {
        let codes = self.numbers(element, counters)?;
        if self.row_index.is_some_and(|row_index| row_index.holds(element)) {
            return Ok(Values::Categorical { codes, categories, ordered });
        }
        categories::categorical(self.store, element, &codes, categories, ordered)
    }

    /// The arrays of a column that a row index can hold: numbers, codes and masks.
    pub fn sources(&self, name: &str) -> Result<Vec<ColumnSource>, ArrayError> {
        let path = self.path(name);
        let source = |element: String, content: ArrayContent| {
            let array = self.store.array(&element)?;
            let fits = match content {
                ArrayContent::Codes { .. } => !array.dtype.is_float() && array.dtype != Dtype::Bool,
                _ => true,
            };
            Ok::<_, ArrayError>(fits.then_some(ColumnSource { element, array, content }))
        };
        let sources = match (self.kind(name)?, self.store.kind(&path)?) {
            (ColumnKind::Categorical, Some(kind)) => {
                let element = if kind == NodeKind::Group { format!("{path}/codes") } else { path };
                vec![source(element, ArrayContent::Codes { categories: self.category_count(name)? })?]
            }
            (ColumnKind::Number | ColumnKind::Boolean | ColumnKind::Time(_), Some(NodeKind::Group)) => {
                vec![
                    source(format!("{path}/values"), ArrayContent::Plain)?,
                    source(format!("{path}/mask"), ArrayContent::Plain)?,
                ]
            }
            (ColumnKind::Number | ColumnKind::Boolean | ColumnKind::Time(_), Some(NodeKind::Array)) => {
                vec![source(path, ArrayContent::Plain)?]
            }
            _ => Vec::new(),
        };
        Ok(sources.into_iter().flatten().collect())
    }

    /// Converts an enum: to masked booleans if its names are those of booleans, else to labels.
    fn named(&self, path: &str, numbers: Numbers, names: &Names) -> Result<Values, ArrayError> {
        let wrong = |number: i64| element_error(self.store, path, format!("{number} is no value of its enum"));
        let (mut all, mut masks) = (Bytes::default(), Bytes::default());
        if let Some(logical) = names.booleans() {
            for part in numbers.bytes.parts() {
                let (values, mask) = logical.split(numbers.dtype, part).map_err(wrong)?;
                all.push(values);
                masks.push(mask);
            }
            let numbers = Numbers { dtype: Dtype::Bool, bytes: all };
            return Ok(Values::Numbers { numbers, mask: logical.missing.map(|_| masks), time: None });
        }
        for part in numbers.bytes.parts() {
            let codes = names.codes(numbers.dtype, part).map_err(wrong)?;
            all.push(codes.into_iter().flat_map(i32::to_le_bytes).collect());
        }
        let codes = Numbers { dtype: Dtype::I32, bytes: all };
        let labels = names.0.iter().map(|(name, _)| name.clone()).collect();
        categories::categorical(self.store, path, &codes, Categories { labels, numbers: None }, false)
    }

    fn mask(&self, path: &str, counters: &Counters) -> Result<Bytes, ArrayError> {
        let element = format!("{path}/mask");
        let mask = self.numbers(&element, counters)?;
        // Bit fields are read as bytes; anndata refuses other dtypes as masks.
        let fits = mask.len() as u64 == self.rows || self.tries();
        if !matches!(mask.dtype, Dtype::Bool | Dtype::U8) || !fits {
            let cause = format!("a mask of {} {} values for {} rows", mask.len(), mask.dtype, self.rows);
            return Err(element_error(self.store, &element, cause));
        }
        Ok(booleans(mask).bytes)
    }

    pub(super) fn categorical(&self, path: &str, counters: &Counters) -> Result<Values, ArrayError> {
        let categories = categories::labels(self.store, &format!("{path}/categories"), counters)?;
        let element = format!("{path}/codes");
        self.labelled(&element, categories, categories::ordered(self.store, path)?, counters)
    }

    /// Reads a categorical of anndata 0.7: codes here, labels in another element, whose attribute tells whether they are ordered.
    fn referred(&self, name: &str, counters: &Counters) -> Result<Values, ArrayError> {
        let path = self.path(name);
        let element = categories::referred(self.store, &self.element, name)?.unwrap_or_default();
        let labels = categories::labels(self.store, &element, counters)?;
        self.labelled(&path, labels, categories::ordered(self.store, &element)?, counters)
    }

    fn record_categorical(&self, name: &str, counters: &Counters) -> Result<Values, ArrayError> {
        let path = self.path(name);
        let codes = self.field(name, counters)?;
        match categories::of_record(self.store, name, &codes, counters)? {
            Some(labels) => categories::categorical(self.store, &path, &codes, labels, false),
            None => Err(element_error(self.store, &path, "its categories are gone")),
        }
    }
}

/// The unit of the numbers in a column of this type, if they are times.
fn time(kind: ColumnKind) -> Option<Time> {
    if let ColumnKind::Time(time) = kind { Some(time) } else { None }
}

/// Booleans that other writers store as integers: nonzero means true.
fn booleans(numbers: Numbers) -> Numbers {
    if numbers.dtype == Dtype::Bool {
        return numbers;
    }
    let mut bytes = Bytes::default();
    for part in numbers.bytes.parts() {
        let mut flags = vec![0; part.len() / numbers.dtype.size()];
        cast(numbers.dtype, Dtype::Bool, part, &mut flags);
        bytes.push(flags);
    }
    Numbers { dtype: Dtype::Bool, bytes }
}
