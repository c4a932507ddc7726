//! zarr v2 and v3 in a directory or a zip archive. Metadata is interpreted as in zarr-python.
//!
//! Only the metadata of named elements is parsed. If the store has consolidated metadata, these are used and nothing is listed; otherwise
//! directories are listed.

mod blob;
mod chain;
mod class;
mod layout;
mod location;
mod node;
mod open;
mod record;
mod scalar;
mod shard;
mod source;
mod text;
mod zip;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::container::{Candidate, Container, Kind, NodeKind};
use super::meaning::Meaning;
use super::{Array, ArrayError, Dtype, RecordField};
use crate::storage::{Address, Identity, ZARR_MARKERS};
use class::ElementClass;
use location::Location;
use node::{Consolidated, ZarrNode};
use zip::Zip;

/// An open `.zarr`, or a group in one.
pub struct Zarr {
    name: Arc<str>,
    /// The file or directory.
    address: Address,
    /// The group that paths of elements are relative to; empty for the root.
    inner: String,
    root: Location,
    /// Chunks written later than this are stale.
    opened: SystemTime,
    consolidated: Option<Consolidated>,
    /// Nodes whose metadata were read, and the files they were read from.
    read: Mutex<OpenedNodes>,
}

#[derive(Default)]
struct OpenedNodes {
    nodes: HashMap<String, Arc<ZarrNode>>,
    files: Vec<Identity>,
}

/// Directories with metadata of a zarr node.
pub const DIRECTORY: Kind = Kind {
    recognises: |candidate| {
        let place = || Location::Folder(candidate.address.clone());
        candidate.object.is_none() && (!candidate.inner.is_empty() || is_root(&place()))
    },
    open: |candidate| Zarr::open(&candidate).map(|zarr| Box::new(zarr) as Box<dyn Container>),
    needs_trial: false,
};

/// Zip archives: recognised by a local header, or the end record of an empty archive.
pub const ZIP: Kind = Kind {
    recognises: |candidate| [b"PK\x03\x04", b"PK\x05\x06"].iter().any(|magic| candidate.start.starts_with(*magic)),
    open: |candidate| Zarr::open_zip(candidate).map(|zarr| Box::new(zarr) as Box<dyn Container>),
    needs_trial: false,
};

impl Zarr {
    /// Opens a directory, or the requested group in it.
    fn open(candidate: &Candidate<'_>) -> Result<Zarr, ArrayError> {
        Zarr::at(candidate, Location::Folder(candidate.address.clone()), Vec::new())
    }

    /// Opens a zip archive, or the requested group of the store in it.
    fn open_zip(mut candidate: Candidate<'_>) -> Result<Zarr, ArrayError> {
        let Some(object) = candidate.object.take() else { return Err(candidate.fail("a directory, not a file")) };
        let fail = |cause: String| candidate.fail(&cause);
        let identity = object.identity();
        let zip = Zip::open(object).map_err(fail)?;
        let top = Location::Zip { zip: Arc::new(zip), folder: String::new() };
        let is_here = is_root(&top) || is_root(&top.join(candidate.inner));
        let place = if is_here { top } else { below(&top).map_err(fail)? };
        Zarr::at(&candidate, place, vec![identity])
    }

    fn at(candidate: &Candidate<'_>, place: Location, mut files: Vec<Identity>) -> Result<Zarr, ArrayError> {
        let (name, inner) = (Arc::clone(&candidate.name), candidate.inner);
        let opened = SystemTime::now();
        let fail = |cause: String| candidate.fail(&cause);
        let whole = node::consolidated(&place, &mut files).map_err(fail)?;
        let root = place.join(inner);
        let consolidated = match (whole, inner) {
            (whole, "") => whole,
            // A group that the store's consolidated metadata does not name may have its own.
            (whole, _) => match whole.and_then(|nodes| node::within(&nodes, inner)) {
                Some(nodes) => Some(nodes),
                None => node::consolidated(&root, &mut files).map_err(fail)?,
            },
        };
        let read = Mutex::new(OpenedNodes { nodes: HashMap::new(), files });
        let (address, group) = (candidate.address.clone(), inner.to_owned());
        let zarr = Zarr { name, address, inner: group, root, opened, consolidated, read };
        match zarr.node("")? {
            Some(node) if node.kind == NodeKind::Group || inner.is_empty() => Ok(zarr),
            Some(_) => Err(fail(format!("{inner} is an array, not a group"))),
            None if inner.is_empty() => {
                Err(fail("its .zmetadata describes no group or array: the store is damaged or incomplete".to_owned()))
            }
            None => Err(fail(format!("there is no group {inner} in the store"))),
        }
    }

    fn read(&self) -> MutexGuard<'_, OpenedNodes> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, element: &str, cause: impl Into<String>) -> ArrayError {
        ArrayError::Element { store: self.name.to_string(), element: element.to_owned(), cause: cause.into() }
    }

    fn unsupported(&self, element: &str, cause: impl Into<String>) -> ArrayError {
        ArrayError::Unsupported { store: self.name.to_string(), element: element.to_owned(), cause: cause.into() }
    }

    /// The node of an element, from consolidated metadata or its own files.
    fn node(&self, element: &str) -> Result<Option<Arc<ZarrNode>>, ArrayError> {
        // Paths of elements may come from the store's attributes: they must not lead out of it.
        if element.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !element.is_empty())) {
            return Ok(None);
        }
        if let Some(nodes) = &self.consolidated {
            match nodes.get(element) {
                Some(Some(node)) => return Ok(Some(Arc::clone(node))),
                None if node::is_absent(nodes, element) => return Ok(None),
                _ => {}
            }
        }
        if let Some(node) = self.read().nodes.get(element) {
            return Ok(Some(Arc::clone(node)));
        }
        let mut files = Vec::new();
        let node = node::read(&self.root.join(element), &mut files).map_err(|cause| self.error(element, cause))?;
        let Some(node) = node.map(Arc::new) else { return Ok(None) };
        let mut read = self.read();
        // Another thread may have inserted it first.
        if read.nodes.insert(element.to_owned(), Arc::clone(&node)).is_none() {
            for file in files {
                // The root's file was read when the store was opened, and is compared with that state.
                if read.files.iter().all(|known| known.address.path() != file.address.path()) {
                    read.files.push(file);
                }
            }
        }
        Ok(Some(node))
    }

    fn existing(&self, element: &str, kind: NodeKind) -> Result<Arc<ZarrNode>, ArrayError> {
        match self.node(element)? {
            Some(node) if node.kind == kind => Ok(node),
            Some(_) if kind == NodeKind::Array => Err(self.error(element, "is a group, not an array")),
            Some(_) => Err(self.error(element, "is an array, not a group")),
            None => Err(self.error(element, "is not in the store")),
        }
    }

    fn class(&self, element: &str) -> Result<ElementClass, ArrayError> {
        Ok(class::of(&*self.existing(element, NodeKind::Array)?))
    }
}

impl Container for Zarr {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> &Path {
        self.address.path()
    }

    fn inner(&self) -> &str {
        &self.inner
    }

    fn identity(&self) -> Vec<Identity> {
        self.read().files.clone()
    }

    fn kind(&self, element: &str) -> Result<Option<NodeKind>, ArrayError> {
        Ok(self.node(element)?.map(|node| node.kind))
    }

    fn members(&self, group: &str) -> Result<Vec<String>, ArrayError> {
        self.existing(group, NodeKind::Group)?;
        if let Some(nodes) = &self.consolidated
            && nodes.contains_key(group)
        {
            return Ok(node::members(nodes, group));
        }
        let place = self.root.join(group);
        let mut names = place.names().map_err(|cause| self.error(group, cause))?;
        // Only the existence of metadata files is checked: a damaged member is listed as well.
        names.retain(|name| node::exists(&place.join(name)));
        Ok(names)
    }

    fn attributes(&self, element: &str) -> Result<Map<String, Value>, ArrayError> {
        match self.node(element)? {
            Some(node) => Ok(node.attributes.clone()),
            None => Err(self.error(element, "is not in the store")),
        }
    }

    fn meaning(&self, element: &str) -> Result<Meaning, ArrayError> {
        Ok(match self.class(element)? {
            ElementClass::Time(time) => Meaning::Time(time),
            _ => Meaning::Numbers,
        })
    }

    fn array(&self, element: &str) -> Result<Array, ArrayError> {
        let node = self.existing(element, NodeKind::Array)?;
        match class::of(&node) {
            ElementClass::Number(dtype) => open::numbers(self, element, &node, dtype),
            ElementClass::Time(_) => open::numbers(self, element, &class::as_integers(&node), Dtype::I64),
            ElementClass::Text | ElementClass::FixedText { .. } => {
                Err(self.error(element, "holds strings, not numbers"))
            }
            ElementClass::Other(name) => {
                Err(self
                    .unsupported(element, format!("elements of type {name} are not read; numbers and booleans are")))
            }
        }
    }

    fn shape(&self, element: &str) -> Result<Vec<u64>, ArrayError> {
        let node = self.existing(element, NodeKind::Array)?;
        node.metadata
            .get("shape")
            .and_then(scalar::sizes)
            .ok_or_else(|| self.error(element, "its metadata has no shape"))
    }

    fn dtype_name(&self, element: &str) -> Result<String, ArrayError> {
        Ok(match self.class(element)? {
            ElementClass::Number(dtype) => dtype.name().to_owned(),
            ElementClass::Text | ElementClass::FixedText { .. } => "string".to_owned(),
            ElementClass::Time(time) => time.to_string(),
            ElementClass::Other(name) => name,
        })
    }

    fn is_text(&self, element: &str) -> Result<bool, ArrayError> {
        Ok(matches!(self.class(element)?, ElementClass::Text | ElementClass::FixedText { .. }))
    }

    fn strings(&self, element: &str) -> Result<Vec<String>, ArrayError> {
        text::strings(self, element)
    }

    fn fields(&self, element: &str) -> Result<Vec<RecordField>, ArrayError> {
        record::fields(self, element)
    }

    fn field_numbers(&self, element: &str, field: &str) -> Result<Array, ArrayError> {
        record::numbers(self, element, field)
    }

    fn field_strings(&self, element: &str, field: &str) -> Result<Vec<String>, ArrayError> {
        record::strings(self, element, field)
    }
}

/// Whether a location has metadata of a zarr node.
fn is_root(place: &Location) -> bool {
    ZARR_MARKERS.iter().any(|file| place.has(file))
}

/// The only store below the top of an archive, as people zip the directory of a store as well as its content.
fn below(top: &Location) -> Result<Location, String> {
    /// Levels of directories to search.
    const DEEPEST: usize = 8;
    let mut level = vec![String::new()];
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for folder in &level {
            let place = top.join(folder);
            let names = place.names()?.into_iter().filter(|name| !name.starts_with("__MACOSX"));
            let folders = names.filter(|name| !place.has(name));
            next.extend(folders.map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") }));
        }
        let roots: Vec<&String> = next.iter().filter(|folder| is_root(&top.join(folder))).collect();
        match roots.as_slice() {
            [] => level = next,
            [one] => return Ok(top.join(one)),
            [first, ..] => {
                return Err(format!(
                    "a zip archive of {} zarr stores; name one of them, such as STORE::{first}",
                    roots.len()
                ));
            }
        }
    }
    Err("a zip archive without a zarr store in it (no zarr.json, .zgroup or .zmetadata)".to_owned())
}
