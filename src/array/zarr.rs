//! zarr v2 and v3 in a directory: zarrs understands the metadata, the chunk files are read here.
//!
//! Only the metadata of named elements is parsed. Where the store has consolidated metadata it is believed, and
//! nothing is listed; otherwise directories are.

mod class;
mod library;
mod node;
mod open;
mod shard;
mod source;
mod text;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::container::NodeKind;
use super::{Array, ArrayError, Identity, file};
use class::Class;
use node::{Consolidated, Node};

/// An open `.zarr` directory.
pub struct Zarr {
    name: Arc<str>,
    root: PathBuf,
    /// Chunks written later than this are not those that were mounted.
    opened: SystemTime,
    consolidated: Option<Consolidated>,
    /// Nodes whose metadata was read, and the files it was read from.
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    nodes: HashMap<String, Arc<Node>>,
    files: Vec<Identity>,
}

impl Zarr {
    /// Opens a directory.
    pub fn open(path: &Path) -> Result<Zarr, ArrayError> {
        let opened = SystemTime::now();
        let name: Arc<str> = path.display().to_string().into();
        let fail = |cause: String| ArrayError::Open { store: name.to_string(), cause };
        if !["zarr.json", ".zgroup", ".zarray", ".zmetadata"].iter().any(|file| path.join(file).is_file()) {
            return Err(fail(
                "a directory, but no zarr store (it has no zarr.json, .zgroup, .zarray or .zmetadata); name the store \
                 itself, or an .h5ad file"
                    .to_owned(),
            ));
        }
        let mut files = Vec::new();
        let consolidated = node::consolidated(path, &mut files).map_err(fail)?;
        let read = Mutex::new(Read { nodes: HashMap::new(), files });
        let zarr = Zarr { name, root: path.to_path_buf(), opened, consolidated, read };
        match zarr.node("") {
            Ok(Some(_)) => Ok(zarr),
            Ok(None) => Err(ArrayError::Open {
                store: zarr.name.to_string(),
                cause: "its .zmetadata describes no group or array: the store is damaged or incomplete".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn identity(&self) -> Vec<Identity> {
        self.read().files.clone()
    }

    pub fn check_unchanged(&self) -> Result<(), ArrayError> {
        file::check_unchanged(&self.name, &self.identity())
    }

    fn error(&self, element: &str, cause: impl Into<String>) -> ArrayError {
        ArrayError::Element { store: self.name.to_string(), element: element.to_owned(), cause: cause.into() }
    }

    fn unsupported(&self, element: &str, cause: impl Into<String>) -> ArrayError {
        ArrayError::Unsupported { store: self.name.to_string(), element: element.to_owned(), cause: cause.into() }
    }

    /// The node of an element, from consolidated metadata or from its own files.
    fn node(&self, element: &str) -> Result<Option<Arc<Node>>, ArrayError> {
        // An element comes from the store's own attributes: it must not lead out of it, whatever is consolidated.
        if element.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !element.is_empty())) {
            return Ok(None);
        }
        if let Some(node) = self.consolidated.as_ref().and_then(|nodes| nodes.get(element)) {
            return Ok(Some(Arc::clone(node)));
        }
        if let Some(node) = self.read().nodes.get(element) {
            return Ok(Some(Arc::clone(node)));
        }
        let mut files = Vec::new();
        let node = node::read(&self.root.join(element), &mut files).map_err(|cause| self.error(element, cause))?;
        let Some(node) = node.map(Arc::new) else { return Ok(None) };
        let mut read = self.read();
        // Another thread may have been first.
        if read.nodes.insert(element.to_owned(), Arc::clone(&node)).is_none() {
            for file in files {
                // The root's was read when the store was opened: that is the one to compare with.
                if read.files.iter().all(|known| known.path != file.path) {
                    read.files.push(file);
                }
            }
        }
        Ok(Some(node))
    }

    fn existing(&self, element: &str, kind: NodeKind) -> Result<Arc<Node>, ArrayError> {
        match self.node(element)? {
            Some(node) if node.kind == kind => Ok(node),
            Some(_) if kind == NodeKind::Array => Err(self.error(element, "is a group, not an array")),
            Some(_) => Err(self.error(element, "is an array, not a group")),
            None => Err(self.error(element, "is not in the store")),
        }
    }

    pub fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError> {
        Ok(self.node(element)?.map(|node| node.kind))
    }

    pub fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        self.existing(group, NodeKind::Group)?;
        if let Some(nodes) = &self.consolidated
            && nodes.contains_key(group)
        {
            return Ok(node::members(nodes, group));
        }
        let mut names = Vec::new();
        let entries = std::fs::read_dir(self.root.join(group)).map_err(|e| self.error(group, e.to_string()))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.error(group, e.to_string()))?;
            // By its files, unparsed: a broken neighbour is a member like any other.
            if let (Ok(name), true) = (entry.file_name().into_string(), node::exists(&entry.path())) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        match self.node(element)? {
            Some(node) => Ok(node.attributes.clone()),
            None => Err(self.error(element, "is not in the store")),
        }
    }

    pub fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        let node = self.existing(element, NodeKind::Array)?;
        node.numbers("shape").ok_or_else(|| self.error(element, "its metadata has no shape"))
    }

    fn class(&self, element: &str) -> Result<Class, ArrayError> {
        Ok(class::of(&*self.existing(element, NodeKind::Array)?))
    }

    pub fn dtype_name(&self, element: &str) -> Result<String, ArrayError> {
        Ok(match self.class(element)? {
            Class::Number(dtype) => dtype.name().to_owned(),
            Class::Text | Class::FixedText { .. } => "string".to_owned(),
            Class::Other(name) => name,
        })
    }

    pub fn is_text(&self, element: &str) -> Result<bool, ArrayError> {
        Ok(matches!(self.class(element)?, Class::Text | Class::FixedText { .. }))
    }

    pub fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        text::strings(self, element)
    }

    pub fn array(&self, element: &str) -> Result<Array, ArrayError> {
        let node = self.existing(element, NodeKind::Array)?;
        match class::of(&node) {
            Class::Number(dtype) => open::numbers(self, element, &node, dtype),
            Class::Text | Class::FixedText { .. } => Err(self.error(element, "holds strings, not numbers")),
            Class::Other(name) => {
                Err(self
                    .unsupported(element, format!("elements of type {name} are not read; numbers and booleans are")))
            }
        }
    }
}
