//! Presents a file of another layout as AnnData, by a table that maps AnnData's element names to elements of the file.
//!
//! A layout is a function that recognises a container by its elements and returns that table, and a line in `anndata::LAYOUTS`. Nothing
//! is copied: arrays are read where they are.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::array::{Array, ArrayError, Container, NodeKind};
use crate::storage::Identity;

/// The elements of the AnnData by path, each with its element in the file.
#[derive(Default)]
pub struct Table(BTreeMap<String, Entry>);

enum Entry {
    Group(Map<String, Value>),
    Array { element: String, transposed: bool },
}

impl Table {
    /// The table of an AnnData without elements.
    pub fn anndata() -> Table {
        let mut table = Table::default();
        table.group("", json!({"encoding-type": "anndata", "encoding-version": "0.1.0"}));
        table
    }

    pub fn group(&mut self, path: &str, attributes: Value) {
        let attributes = if let Value::Object(map) = attributes { map } else { Map::new() };
        self.0.insert(path.to_owned(), Entry::Group(attributes));
    }

    pub fn array(&mut self, path: &str, element: &str) {
        self.0.insert(path.to_owned(), Entry::Array { element: element.to_owned(), transposed: false });
    }

    /// Adds a matrix whose rows are the columns of the file's element.
    pub fn transposed(&mut self, path: &str, element: &str) {
        self.0.insert(path.to_owned(), Entry::Array { element: element.to_owned(), transposed: true });
    }

    /// Adds obs or var: the element with the names of its rows, if any, and its columns.
    pub fn frame(&mut self, name: &str, index: Option<&str>, columns: &[(String, String)]) {
        let order: Vec<&str> = columns.iter().map(|(column, _)| column.as_str()).collect();
        let mut attributes = json!({"encoding-type": "dataframe", "column-order": order});
        if let Some(element) = index {
            attributes["_index"] = json!("_index");
            self.array(&format!("{name}/_index"), element);
        }
        self.group(name, attributes);
        for (column, element) in columns {
            self.array(&format!("{name}/{column}"), element);
        }
    }
}

/// A store and its table.
pub struct Adapted {
    pub store: Box<dyn Container>,
    pub table: Table,
}

impl Adapted {
    fn error(&self, element: &str, cause: &str) -> ArrayError {
        super::element_error(&*self.store, element, cause)
    }

    /// The file's array for an element of the AnnData, and whether its axes are swapped.
    fn stored(&self, element: &str) -> Result<(&str, bool), ArrayError> {
        match self.table.0.get(element) {
            Some(Entry::Array { element, transposed }) => Ok((element, *transposed)),
            Some(Entry::Group(_)) => Err(self.error(element, "is a group, not an array")),
            None => Err(self.error(element, "is not in the file")),
        }
    }
}

impl Container for Adapted {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn path(&self) -> &Path {
        self.store.path()
    }

    fn inner(&self) -> &str {
        self.store.inner()
    }

    fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError> {
        Ok(self.table.0.get(element).map(|entry| match entry {
            Entry::Group(_) => NodeKind::Group,
            Entry::Array { .. } => NodeKind::Array,
        }))
    }

    fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
        let below = self.table.0.keys().filter_map(|path| path.strip_prefix(&prefix));
        Ok(below.filter(|rest| !rest.is_empty() && !rest.contains('/')).map(str::to_owned).collect())
    }

    fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        match self.table.0.get(element) {
            Some(Entry::Group(attributes)) => Ok(attributes.clone()),
            Some(Entry::Array { .. }) => Ok(Map::new()),
            None => Err(self.error(element, "is not in the file")),
        }
    }

    fn array(&self, element: &str) -> Result<Array, ArrayError> {
        let (stored, transposed) = self.stored(element)?;
        let array = self.store.array(stored)?;
        Ok(if transposed { array.transposed() } else { array })
    }

    fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        let (stored, transposed) = self.stored(element)?;
        let mut shape = self.store.shape(stored)?;
        if transposed {
            shape.reverse();
        }
        Ok(shape)
    }

    fn dtype_name(&self, element: &str) -> Result<String, ArrayError> {
        self.store.dtype_name(self.stored(element)?.0)
    }

    fn is_text(&self, element: &str) -> Result<bool, ArrayError> {
        self.store.is_text(self.stored(element)?.0)
    }

    fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        self.store.strings(self.stored(element)?.0)
    }

    fn settle(&self) {
        self.store.settle();
    }

    fn identity(&self) -> Vec<Identity> {
        self.store.identity()
    }
}
