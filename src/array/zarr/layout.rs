//! The layout of an array: shape, chunks, chunk keys and codecs, from metadata of v2 or v3.
//!
//! Metadata is interpreted as in zarr-python: fields with a default may be missing.

use serde_json::Value;

use super::chain::{self, Chain, Element};
use super::node::ZarrNode;
use super::scalar;

/// The layout of one array.
pub struct Layout {
    pub shape: Vec<u64>,
    /// Shape of the chunks that are stored as files: of shards, if there are any.
    pub outer: Vec<u64>,
    pub keys: Keys,
    pub chain: Chain,
}

/// How chunk files are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    separator: char,
    /// Whether keys start with `c/`.
    prefix: bool,
}

impl Keys {
    /// The key of a chunk, by its indices along the axes.
    pub fn key(&self, indices: &[u64]) -> String {
        let prefix = self.prefix.then(|| "c".to_owned());
        let parts: Vec<String> = prefix.into_iter().chain(indices.iter().map(u64::to_string)).collect();
        if parts.is_empty() { "0".to_owned() } else { parts.join(&self.separator.to_string()) }
    }
}

/// Parses the metadata of an array with such elements.
///
/// # Errors
/// Unsupported or invalid metadata, described.
pub fn of(node: &ZarrNode, element: &Element) -> Result<Layout, String> {
    let field = |key: &str| node.metadata.get(key).unwrap_or(&Value::Null);
    let shape = scalar::sizes(field("shape")).ok_or("its metadata has no shape")?;
    let mut outer = match node.version {
        2 => scalar::sizes(field("chunks")).ok_or("its metadata has no chunks")?,
        _ => {
            let grid = field("chunk_grid");
            match chain::name(grid) {
                "regular" => chain::sizes(grid, "chunk_shape").ok_or("its chunk grid has no chunk_shape")?,
                "" => return Err("its metadata has no chunk grid".to_owned()),
                other => return Err(format!("a {other} chunk grid is not read; rewrite it with chunks of one shape")),
            }
        }
    };
    if outer.len() != shape.len() {
        return Err("the chunk shape does not fit the shape: the metadata is damaged".to_owned());
    }
    let sharded = field("codecs").as_array().and_then(|codecs| codecs.first());
    let unit = sharded.and_then(|codec| chain::sizes(codec, "chunk_shape")).unwrap_or_default();
    for (axis, (size, &len)) in outer.iter_mut().zip(&shape).enumerate() {
        // Writers use 0 for empty axes; zarr-python then reads it as the smallest valid size.
        if *size == 0 && len == 0 {
            *size = unit.get(axis).copied().unwrap_or(1).max(1);
        }
    }
    if outer.contains(&0) {
        return Err("its chunks have no elements: the metadata is damaged".to_owned());
    }
    let keys = match node.version {
        2 => Keys { separator: separator(field("dimension_separator"), '.')?, prefix: false },
        _ => v3_keys(field("chunk_key_encoding"))?,
    };
    let chain = match node.version {
        2 => chain::v2(node, element, &outer)?,
        _ => {
            understood(node)?;
            let codecs = field("codecs").as_array().ok_or("its metadata has no codecs")?;
            chain::v3(codecs, element.clone(), &outer)?
        }
    };
    Ok(Layout { shape, outer, keys, chain })
}

fn separator(value: &Value, default: char) -> Result<char, String> {
    match value.as_str() {
        Some(".") => Ok('.'),
        Some("/") => Ok('/'),
        None if value.is_null() => Ok(default),
        _ => Err(format!("the separator of its chunk keys is {value}, which is neither \"/\" nor \".\"")),
    }
}

fn v3_keys(encoding: &Value) -> Result<Keys, String> {
    let given = chain::setting(encoding, "separator").or_else(|| encoding.get("separator")).unwrap_or(&Value::Null);
    match chain::name(encoding) {
        "default" => Ok(Keys { separator: separator(given, '/')?, prefix: true }),
        "v2" => Ok(Keys { separator: separator(given, '.')?, prefix: false }),
        "" => Err("its metadata has no chunk key encoding".to_owned()),
        other => Err(format!("the chunk key encoding {other} is not known")),
    }
}

/// Fails on extensions that a reader must support, and this one does not.
fn understood(node: &ZarrNode) -> Result<(), String> {
    const KNOWN: [&str; 11] = [
        "zarr_format",
        "node_type",
        "data_type",
        "shape",
        "chunk_grid",
        "chunk_key_encoding",
        "fill_value",
        "codecs",
        "attributes",
        "storage_transformers",
        "dimension_names",
    ];
    let optional = |value: &Value| value.get("must_understand") == Some(&Value::Bool(false));
    for (key, value) in &node.metadata {
        if !KNOWN.contains(&key.as_str()) && !optional(value) {
            return Err(format!("its metadata has a field {key} that a reader must understand, and this one does not"));
        }
    }
    let transformers = node.metadata.get("storage_transformers").and_then(Value::as_array);
    match transformers.and_then(|list| list.iter().find(|transformer| !optional(transformer))) {
        Some(transformer) => Err(format!(
            "its chunks went through the storage transformer {}, which is not read",
            chain::name(transformer)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_every_encoding() {
        for (encoding, key, scalar) in [
            (json!({"name": "default"}), "c/1/2", "c"),
            (json!({"name": "default", "configuration": {"separator": "."}}), "c.1.2", "c"),
            (json!({"name": "v2", "separator": "/"}), "1/2", "0"),
            (json!("v2"), "1.2", "0"),
        ] {
            let keys = v3_keys(&encoding).unwrap();
            assert_eq!((keys.key(&[1, 2]).as_str(), keys.key(&[]).as_str()), (key, scalar), "{encoding}");
        }
        assert!(v3_keys(&json!({"name": "fanout"})).unwrap_err().contains("fanout"));
    }
}
