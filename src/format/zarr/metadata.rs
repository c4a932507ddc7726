//! The `zarr.json` of groups and arrays (zarr v3 core specification), and AnnData's attributes in them.

use serde_json::{Map, Value, json};

use crate::array::Dtype;
use crate::array::meaning::{NOT_A_TIME, Time};

/// The metadata of an array, apart from its shape.
pub struct ArrayMetadata {
    data_type: Value,
    fill_value: Value,
    codec: Value,
    attributes: Value,
}

impl ArrayMetadata {
    pub fn numbers(dtype: Dtype, attributes: Value) -> ArrayMetadata {
        let fill_value = match dtype {
            Dtype::Bool => json!(false),
            dtype if dtype.is_float() => json!(0.0),
            _ => json!(0),
        };
        ArrayMetadata { data_type: json!(dtype.name()), fill_value, codec: bytes(), attributes }
    }

    pub fn time(time: Time, attributes: Value) -> ArrayMetadata {
        let name = if time.is_duration { "numpy.timedelta64" } else { "numpy.datetime64" };
        let data_type = json!({"name": name, "configuration": {"unit": time.unit.name(), "scale_factor": 1}});
        ArrayMetadata { data_type, fill_value: json!(NOT_A_TIME), codec: bytes(), attributes }
    }

    pub fn texts() -> ArrayMetadata {
        let codec = json!({"name": "vlen-utf8"});
        let attributes = encoding("string-array", "0.2.0");
        ArrayMetadata { data_type: json!("string"), fill_value: json!(""), codec, attributes }
    }
}

fn bytes() -> Value {
    json!({"name": "bytes", "configuration": {"endian": "little"}})
}

/// AnnData's encoding attributes of an element.
pub fn encoding(kind: &str, version: &str) -> Value {
    json!({"encoding-type": kind, "encoding-version": version})
}

/// Adds an attribute.
pub fn with(mut attributes: Value, name: &str, value: Value) -> Value {
    attributes[name] = value;
    attributes
}

pub fn group(attributes: Value) -> Value {
    json!({"zarr_format": 3, "node_type": "group", "attributes": attributes})
}

pub fn array(metadata: &ArrayMetadata, shape: &[u64], chunk: &[u64]) -> Value {
    json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": metadata.data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": metadata.fill_value,
        "codecs": [metadata.codec],
        "attributes": metadata.attributes,
        "storage_transformers": [],
    })
}

/// The `zarr.json` of a group, with the metadata of everything below it by path.
pub fn consolidated<'a>(attributes: Value, below: impl Iterator<Item = (&'a str, &'a Value)>) -> Vec<u8> {
    let inline = |metadata: Value| json!({"kind": "inline", "must_understand": false, "metadata": metadata});
    let node = |(path, metadata): (&str, &Value)| {
        let mut metadata = metadata.clone();
        if metadata["node_type"] == "group" {
            metadata["consolidated_metadata"] = inline(json!({}));
        }
        (path.to_owned(), metadata)
    };
    let all: Map<String, Value> = below.map(node).collect();
    let mut group = group(attributes);
    group["consolidated_metadata"] = inline(Value::Object(all));
    group.to_string().into_bytes()
}
