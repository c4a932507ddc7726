//! obs and var: dataframes of named columns with an index.

mod read;

use crate::array::cast::{to_i64, to_text};
use crate::array::meaning::{Meaning, Names, Time};
use crate::array::{ArrayError, Container, Counters, Dtype, NodeKind, RecordField, RecordFieldKind};

use super::column::{Numbers, Values};
use super::names::Frame;
use super::row_index::RowIndex;
use super::values::numbers;
use super::{METADATA_LIMIT, categories, element_error, encoding, layout};

/// The type of a column, determined without reading its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Categorical,
    Number,
    Boolean,
    /// Datetimes or durations.
    Time(Time),
    Text,
    /// An unsupported type; [`DataFrame::what`] describes it.
    Other,
}

impl ColumnKind {
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::Categorical => "categorical",
            ColumnKind::Number => "number",
            ColumnKind::Boolean => "boolean",
            ColumnKind::Time(time) => time.kind(),
            ColumnKind::Text => "text",
            ColumnKind::Other => "other",
        }
    }
}

/// An opened dataframe.
pub struct DataFrame<'a> {
    store: &'a dyn Container,
    element: String,
    /// Names of the columns in the writer's order, without the index.
    pub columns: Vec<String>,
    index: String,
    pub rows: u64,
    layout: FrameLayout,
    /// Columns that are mapped instead of read.
    row_index: Option<&'a RowIndex>,
    /// Whether HDF5 enums, except booleans, are categoricals of their names; otherwise they are numbers, as in anndata.
    enums_are_labels: bool,
}

/// The storage layout of a frame.
enum FrameLayout {
    /// A group with an element for each column; since anndata 0.7.
    Group,
    /// A record array whose first field is the index; before 0.7.
    Records(Vec<RecordField>),
    /// There is no frame, or it has no index: rows are named by number, as in anndata.
    Numbered,
}

impl<'a> DataFrame<'a> {
    /// Opens a frame. A missing frame has no columns, and the length of the matrix next to it.
    ///
    /// # Errors
    /// It is missing, and so is a matrix with its number of rows; it is no dataframe.
    pub fn open(store: &'a dyn Container, frame: Frame) -> Result<DataFrame<'a>, ArrayError> {
        DataFrame::at(store, frame.path())
    }

    /// Opens any element that is a dataframe.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn at(store: &'a dyn Container, element: &str) -> Result<DataFrame<'a>, ArrayError> {
        let element = layout::located(store, element)?;
        match store.kind(&element)? {
            Some(NodeKind::Group) => DataFrame::group(store, element),
            Some(NodeKind::Array) if encoding(store, &element)? != "null" => DataFrame::records(store, element),
            _ => {
                let Some(rows) = layout::length(store, &element)? else {
                    return Err(element_error(store, &element, "there is none: not an AnnData store?"));
                };
                Ok(DataFrame {
                    store,
                    element,
                    columns: Vec::new(),
                    index: String::new(),
                    rows,
                    layout: FrameLayout::Numbered,
                    row_index: None,
                    enums_are_labels: false,
                })
            }
        }
    }

    /// The same frame with columns from the row index, where that has them.
    pub fn with(self, row_index: &'a RowIndex) -> DataFrame<'a> {
        DataFrame { row_index: Some(row_index), ..self }
    }

    /// The same frame with HDF5 enums as categoricals of their names, if requested.
    pub fn enums_as_labels(self, enums_are_labels: bool) -> DataFrame<'a> {
        DataFrame { enums_are_labels, ..self }
    }

    fn group(store: &'a dyn Container, element: String) -> Result<DataFrame<'a>, ArrayError> {
        let attributes = store.attributes(&element)?;
        // Without the `_index` attribute, anndata accepts these names.
        let usual = ["_index", "index", "obs_names", "var_names", "row_names"];
        let index = match attributes.get("_index").and_then(|name| name.as_str()) {
            Some(name) => name.to_owned(),
            None => {
                let members = store.members(&element)?;
                usual.into_iter().find(|&name| members.iter().any(|m| m == name)).unwrap_or_default().to_owned()
            }
        };
        let columns: Vec<String> = match attributes.get("column-order").and_then(|order| order.as_array()) {
            // For a frame without columns, anndata writes an empty array of floats.
            Some(order) => order.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
            None => {
                let own = |name: &String| *name != index && name != "__categories";
                store.members(&element)?.into_iter().filter(own).collect()
            }
        };
        let layout = if index.is_empty() { FrameLayout::Numbered } else { FrameLayout::Group };
        let mut frame =
            DataFrame { store, element, columns, index, rows: 0, layout, row_index: None, enums_are_labels: false };
        frame.rows = match frame.layout {
            FrameLayout::Numbered => frame.counted()?,
            _ => frame.index_len()?,
        };
        Ok(frame)
    }

    /// The length of a frame without an index: that of its first column, or else of a matrix.
    fn counted(&self) -> Result<u64, ArrayError> {
        for name in &self.columns {
            let path = self.path(name);
            if self.store.kind(&path)? == Some(NodeKind::Array)
                && let &[rows] = self.store.shape(&path)?.as_slice()
            {
                return Ok(rows);
            }
        }
        layout::length(self.store, &self.element)?.ok_or_else(|| {
            element_error(self.store, &self.element, "has no index and no columns: not an AnnData store?")
        })
    }

    fn records(store: &'a dyn Container, element: String) -> Result<DataFrame<'a>, ArrayError> {
        let fields = store.fields(&element)?;
        let (Some(index), &[rows]) = (fields.first(), store.shape(&element)?.as_slice()) else {
            return Err(element_error(store, &element, "an array without fields, not a dataframe"));
        };
        let index = index.name.clone();
        let columns = fields.iter().skip(1).map(|field| field.name.clone()).collect();
        Ok(DataFrame {
            store,
            element,
            columns,
            index,
            rows,
            layout: FrameLayout::Records(fields),
            row_index: None,
            enums_are_labels: false,
        })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.element)
    }

    /// The element of the index, which may be an array, a `nullable-string-array` group, or a categorical.
    fn index_element(&self) -> Result<String, ArrayError> {
        let path = self.path(&self.index);
        let codes = format!("{path}/codes");
        Ok(match self.store.kind(&path)? {
            Some(NodeKind::Group) if self.store.kind(&codes)?.is_some() => codes,
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

    /// Reads the names of the rows.
    pub fn names(&self, counters: &Counters) -> Result<Vec<String>, ArrayError> {
        let numbers = match &self.layout {
            FrameLayout::Numbered => return self.numbered(),
            FrameLayout::Records(fields) => match fields.first().map(|field| &field.kind) {
                Some(RecordFieldKind::Text) => return self.store.field_strings(&self.element, &self.index),
                _ => self.field(&self.index, counters)?,
            },
            FrameLayout::Group => {
                let element = self.index_element()?;
                if self.store.is_text(&element)? {
                    return self.store.strings(&element);
                }
                let path = self.path(&self.index);
                if element != path && element.ends_with("/codes") {
                    return self.category_names(&path, counters);
                }
                numbers(self.store, &element, counters)?
            }
        };
        Ok((0..numbers.len()).map(|i| to_text(numbers.dtype, numbers.at(i))).collect())
    }

    /// Numbers as names. Their count comes from a shape, which may be wrong, so it is limited.
    fn numbered(&self) -> Result<Vec<String>, ArrayError> {
        const MOST: u64 = 1 << 26;
        if self.rows > MOST {
            let cause = format!("has no names for {} rows; at most {MOST} are numbered", self.rows);
            return Err(element_error(self.store, &self.element, cause));
        }
        Ok((0..self.rows).map(|row| row.to_string()).collect())
    }

    fn category_names(&self, path: &str, counters: &Counters) -> Result<Vec<String>, ArrayError> {
        let Values::Categorical { codes, categories, .. } = self.categorical(path, counters)? else {
            return Ok(Vec::new());
        };
        let label = |i: usize| usize::try_from(to_i64(codes.dtype, codes.at(i))).ok();
        let name = |i: usize| label(i).and_then(|label| categories.labels.get(label).cloned()).unwrap_or_default();
        Ok((0..codes.len()).map(name).collect())
    }

    /// The names of an enum field of a record array.
    fn field_names(&self, name: &str) -> Option<&Names> {
        let FrameLayout::Records(fields) = &self.layout else { return None };
        fields.iter().find(|field| field.name == name)?.names.as_ref()
    }

    /// Reads a numeric field of a record array.
    fn field(&self, name: &str, counters: &Counters) -> Result<Numbers, ArrayError> {
        let array = self.store.field_numbers(&self.element, name)?;
        if array.shape.len() != 1 {
            return Err(element_error(self.store, &self.path(name), "holds lists, not one value a row"));
        }
        Ok(Numbers { dtype: array.dtype, bytes: array.read_all(METADATA_LIMIT, counters)?.into() })
    }

    /// The type of a column, from its attributes (and for records from its codes).
    pub fn kind(&self, name: &str) -> Result<ColumnKind, ArrayError> {
        if let FrameLayout::Records(fields) = &self.layout {
            return self.field_kind(fields, name);
        }
        let path = self.path(name);
        Ok(match self.store.kind(&path)? {
            // Named in column-order but missing: the column is damaged, the frame is not.
            None => ColumnKind::Other,
            Some(NodeKind::Group) => match encoding(self.store, &path)?.as_str() {
                "categorical" => ColumnKind::Categorical,
                "nullable-integer" | "nullable-float" => ColumnKind::Number,
                "nullable-boolean" => ColumnKind::Boolean,
                "nullable-string-array" => ColumnKind::Text,
                "" if self.has(&path, ["codes", "categories"])? => ColumnKind::Categorical,
                "" if self.has(&path, ["values", "mask"])? => self.array_kind(&format!("{path}/values"))?,
                _ => ColumnKind::Other,
            },
            // A link into another file, or a null dataspace.
            Some(NodeKind::Array) if matches!(self.store.shape(&path), Err(ArrayError::Element { .. })) => {
                ColumnKind::Other
            }
            Some(NodeKind::Array) if categories::referred(self.store, &self.element, name)?.is_some() => {
                ColumnKind::Categorical
            }
            Some(NodeKind::Array) => self.array_kind(&path)?,
        })
    }

    fn has(&self, path: &str, members: [&str; 2]) -> Result<bool, ArrayError> {
        for member in members {
            if self.store.kind(&format!("{path}/{member}"))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn array_kind(&self, path: &str) -> Result<ColumnKind, ArrayError> {
        // A null dataspace, or a multi-dimensional column.
        if self.store.shape(path).map_or(true, |shape| shape.len() != 1) {
            return Ok(ColumnKind::Other);
        }
        if self.store.is_text(path)? {
            return Ok(ColumnKind::Text);
        }
        Ok(match self.store.meaning(path)? {
            Meaning::Time(time) => ColumnKind::Time(time),
            Meaning::Names(names) if names.booleans().is_some() => ColumnKind::Boolean,
            Meaning::Names(_) if self.enums_are_labels => ColumnKind::Categorical,
            Meaning::Names(_) => ColumnKind::Number,
            Meaning::Numbers => number_kind(Dtype::from_name(&self.store.dtype_name(path)?)),
        })
    }

    /// Describes an unsupported column, for messages.
    pub fn what(&self, name: &str) -> Result<String, ArrayError> {
        if let FrameLayout::Records(fields) = &self.layout {
            let Some(field) = fields.iter().find(|field| field.name == name) else { return Ok("absent".to_owned()) };
            return Ok(match &field.kind {
                RecordFieldKind::Other(what) => what.clone(),
                _ => format!("a list of shape {:?} a row", field.shape),
            });
        }
        let path = self.path(name);
        Ok(match self.store.kind(&path)? {
            None => "absent, though column-order names it".to_owned(),
            Some(NodeKind::Group) => match encoding(self.store, &path)?.as_str() {
                "" => "a group that is no column (it has no encoding-type)".to_owned(),
                "dataframe" => "a table (dataframe)".to_owned(),
                other => format!("a column of encoding {other:?}"),
            },
            Some(NodeKind::Array) => match self.store.shape(&path) {
                // Without the remedy, which follows a semicolon: it concerns only users who request the column.
                Err(ArrayError::Element { cause, .. }) => {
                    format!("an array that {}", cause.split(';').next().unwrap_or_default())
                }
                Err(_) => "an array that cannot be read".to_owned(),
                Ok(shape) if shape.len() != 1 => format!("a table of shape {shape:?}"),
                Ok(_) => match self.store.dtype_name(&path)?.as_str() {
                    "compound" => "a table (records)".to_owned(),
                    other => other.to_owned(),
                },
            },
        })
    }

    fn field_kind(&self, fields: &[RecordField], name: &str) -> Result<ColumnKind, ArrayError> {
        Ok(match fields.iter().find(|field| field.name == name) {
            Some(RecordField { kind: RecordFieldKind::Text, shape, .. }) if shape.is_empty() => ColumnKind::Text,
            Some(RecordField { kind: RecordFieldKind::Number(dtype), shape, .. }) if shape.is_empty() => {
                let counters = Counters::default();
                if let Some(names) = self.field_names(name) {
                    return Ok(match names.booleans() {
                        Some(_) => ColumnKind::Boolean,
                        None if self.enums_are_labels => ColumnKind::Categorical,
                        None => ColumnKind::Number,
                    });
                }
                match categories::of_record(self.store, name, &self.field(name, &counters)?, &counters)? {
                    Some(_) if matches!(Frame::at(&self.element), Some(Frame::Obs | Frame::Var)) => {
                        ColumnKind::Categorical
                    }
                    _ => number_kind(Some(*dtype)),
                }
            }
            _ => ColumnKind::Other,
        })
    }

    /// The number of categories of a categorical column.
    pub fn category_count(&self, name: &str) -> Result<u64, ArrayError> {
        let path = self.path(name);
        if self.store.kind(&path)? == Some(NodeKind::Array)
            && let Meaning::Names(names) = self.store.meaning(&path)?
        {
            return Ok(names.0.len() as u64);
        }
        if let Some(names) = self.field_names(name) {
            return Ok(names.0.len() as u64);
        }
        let element = match &self.layout {
            FrameLayout::Records(_) => format!("uns/{name}_categories"),
            _ => match self.store.kind(&self.path(name))? {
                Some(NodeKind::Array) => categories::referred(self.store, &self.element, name)?.unwrap_or_default(),
                _ => self.path(&format!("{name}/categories")),
            },
        };
        let values = format!("{element}/values");
        let element = if self.store.kind(&element)? == Some(NodeKind::Group) { values } else { element };
        Ok(self.store.shape(&element)?.first().copied().unwrap_or(1))
    }
}

fn number_kind(dtype: Option<Dtype>) -> ColumnKind {
    match dtype {
        Some(Dtype::Bool) => ColumnKind::Boolean,
        Some(_) => ColumnKind::Number,
        None => ColumnKind::Other,
    }
}
