//! Metadata of groups and arrays: from one consolidated file, or from each node's own files.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::location::Location;
use crate::array::container::NodeKind;
use crate::storage::Identity;

/// A group or an array.
#[derive(Debug)]
pub struct ZarrNode {
    pub kind: NodeKind,
    /// The zarr format: 2 or 3.
    pub version: u8,
    /// `.zarray` or `zarr.json`; empty for a v2 group.
    pub metadata: Map<String, Value>,
    pub attributes: Map<String, Value>,
}

impl ZarrNode {
    fn v3(mut metadata: Map<String, Value>) -> Result<ZarrNode, String> {
        let kind = match metadata.get("node_type").and_then(Value::as_str) {
            Some("array") => NodeKind::Array,
            Some("group") => NodeKind::Group,
            _ => return Err("zarr.json does not say whether it is a group or an array".to_owned()),
        };
        let attributes = object(metadata.remove("attributes"));
        metadata.remove("consolidated_metadata");
        Ok(ZarrNode { kind, version: 3, metadata, attributes })
    }
}

/// All nodes of consolidated metadata by path; the root is "". `None` for invalid metadata of a node: its own file is then read when
/// needed.
pub type Consolidated = BTreeMap<String, Option<Arc<ZarrNode>>>;

/// The consolidated metadata of a store, if it has any.
pub fn consolidated(root: &Location, files: &mut Vec<Identity>) -> Result<Option<Consolidated>, String> {
    if let Some(mut metadata) = json(root, "zarr.json", files)? {
        let inner = metadata.get_mut("consolidated_metadata").and_then(|c| c.get_mut("metadata")).map(Value::take);
        let Some(Value::Object(inner)) = inner else { return Ok(None) };
        if inner.is_empty() {
            // zarr-python writes empty consolidated metadata to groups; they mean nothing.
            return Ok(None);
        }
        let mut nodes = Consolidated::new();
        nodes.insert(String::new(), Some(Arc::new(ZarrNode::v3(metadata)?)));
        nodes.extend(
            inner.into_iter().map(|(path, value)| (path, ZarrNode::v3(object(Some(value))).ok().map(Arc::new))),
        );
        return Ok(Some(nodes));
    }
    let Some(mut metadata) = json(root, ".zmetadata", files)? else { return Ok(None) };
    let Some(Value::Object(mut inner)) = metadata.remove("metadata") else {
        // Without `metadata` it is invalid; the nodes may still have their own files.
        return Ok(None);
    };
    let mut nodes = Consolidated::new();
    let keys: Vec<String> = inner.keys().cloned().collect();
    for key in keys {
        let (path, file) = key.rsplit_once('/').unwrap_or(("", &key));
        let kind = match file {
            ".zarray" => NodeKind::Array,
            ".zgroup" => NodeKind::Group,
            _ => continue,
        };
        let attributes = if path.is_empty() { ".zattrs".to_owned() } else { format!("{path}/.zattrs") };
        let attributes = object(inner.get(&attributes).cloned());
        let metadata = if kind == NodeKind::Array { object(inner.remove(&key)) } else { Map::new() };
        nodes.insert(path.to_owned(), Some(Arc::new(ZarrNode { kind, version: 2, metadata, attributes })));
    }
    Ok((!nodes.is_empty()).then_some(nodes))
}

/// Names one level below a group.
pub fn members(nodes: &Consolidated, group: &str) -> Vec<String> {
    let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
    let below = nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
    let mut names: Vec<String> = below
        .filter(|(_, node)| node.is_some())
        .filter_map(|(path, _)| path.get(prefix.len()..))
        .filter(|rest| !rest.is_empty() && !rest.contains('/'))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// Whether consolidated metadata have a group at a path.
fn is_group(nodes: &Consolidated, path: &str) -> bool {
    nodes.get(path).and_then(Option::as_ref).is_some_and(|node| node.kind == NodeKind::Group)
}

/// Whether consolidated metadata say that a node does not exist: they name everything below each group that they name.
pub fn is_absent(nodes: &Consolidated, path: &str) -> bool {
    let mut rest = path;
    while !nodes.contains_key(rest) && !rest.is_empty() {
        rest = rest.rsplit_once('/').map_or("", |(above, _)| above);
    }
    rest != path && nodes.get(rest).is_some_and(Option::is_some)
}

/// The nodes below one group, with relative paths; `None` if the group is not named.
pub fn within(nodes: &Consolidated, group: &str) -> Option<Consolidated> {
    is_group(nodes, group).then_some(())?;
    let below = nodes.range::<str, _>((Bound::Included(group), Bound::Unbounded));
    // Paths with a common prefix (`a`, `a-b`, `a/x`) may lie between.
    let below = below.take_while(|(path, _)| path.starts_with(group));
    Some(
        below
            .filter_map(|(path, node)| {
                let rest = path.strip_prefix(group)?;
                let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
                Some((rest.to_owned(), node.clone()))
            })
            .collect(),
    )
}

/// Whether a location has metadata of a node.
pub fn exists(place: &Location) -> bool {
    ["zarr.json", ".zarray", ".zgroup"].iter().any(|file| place.has(file))
}

/// Reads a node's own metadata files.
pub fn read(place: &Location, files: &mut Vec<Identity>) -> Result<Option<ZarrNode>, String> {
    if let Some(metadata) = json(place, "zarr.json", files)? {
        return ZarrNode::v3(metadata).map(Some);
    }
    let (kind, metadata) = match json(place, ".zarray", files)? {
        Some(metadata) => (NodeKind::Array, metadata),
        None if json(place, ".zgroup", files)?.is_some() => (NodeKind::Group, Map::new()),
        None => return Ok(None),
    };
    let attributes = json(place, ".zattrs", files)?.unwrap_or_default();
    Ok(Some(ZarrNode { kind, version: 2, metadata, attributes }))
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Parses a metadata file, if it exists.
fn json(place: &Location, key: &str, files: &mut Vec<Identity>) -> Result<Option<Map<String, Value>>, String> {
    let wrong = |cause: String| format!("{}: {cause}", place.show(key));
    let Some(text) = place.metadata(key, files).map_err(wrong)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&text).or_else(|error| {
        // Python writes NaN and Infinity, which are not valid JSON.
        serde_json::from_slice(&quote_names(&text)).map_err(|_| error)
    });
    match parsed {
        Ok(Value::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(wrong("not a JSON object".to_owned())),
        Err(error) => Err(wrong(format!("not JSON: {error}"))),
    }
}

/// Quotes bare `NaN`, `Infinity` and `-Infinity`.
fn quote_names(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len());
    let mut in_string = false;
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if in_string && byte == b'\\' {
            quoted.extend(rest.iter().take(2));
            rest = after.get(1..).unwrap_or_default();
            continue;
        }
        if byte == b'"' {
            in_string = !in_string;
        } else if !in_string
            && let Some(name) =
                [&b"NaN"[..], b"Infinity", b"-Infinity"].into_iter().find(|&name| rest.starts_with(name))
        {
            quoted.push(b'"');
            quoted.extend(name);
            quoted.push(b'"');
            rest = rest.get(name.len()..).unwrap_or_default();
            continue;
        }
        quoted.push(byte);
        rest = after;
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_json_is_mended_outside_strings() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" NaN", "d\\": NaN}"#;
        let value: Value = serde_json::from_slice(&quote_names(text)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"a": "NaN", "b": ["-Infinity", "Infinity"], "c": "NaN \" NaN", "d\\": "NaN"})
        );
    }
}
