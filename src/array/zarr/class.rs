//! The element type of an array, from its metadata.

use serde_json::{Map, Value, json};

use super::node::ZarrNode;
use crate::array::Dtype;
use crate::array::meaning::{NOT_A_TIME, Time, Unit};

/// Classes of element types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementClass {
    Number(Dtype),
    /// Variable-length strings.
    Text,
    /// Fixed-length strings of `size` bytes.
    FixedText {
        size: u64,
        encoding: Encoding,
    },
    /// Times as in numpy.
    Time(Time),
    /// An unsupported type, named for messages.
    Other(String),
}

/// The encoding of fixed-length text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Bytes,
    Utf32Little,
    Utf32Big,
}

/// Whether variable-length strings are bytes, which need not be UTF-8.
pub fn is_bytes(node: &ZarrNode) -> bool {
    let named = |key: &str| node.metadata.get(key).is_some_and(|list| list.to_string().contains("\"vlen-bytes\""));
    named("codecs") || named("filters") || named("compressor")
}

pub fn of(node: &ZarrNode) -> ElementClass {
    match node.version {
        2 => v2(node),
        _ => v3(node),
    }
}

fn v2(node: &ZarrNode) -> ElementClass {
    let Some(dtype) = node.metadata.get("dtype").and_then(Value::as_str) else {
        return ElementClass::Other("compound".to_owned());
    };
    let (order, kind, size) = match (dtype.get(..1), dtype.get(1..2), dtype.get(2..)) {
        (Some(order), Some(kind), Some(size)) => (order, kind, size),
        _ => return ElementClass::Other(dtype.to_owned()),
    };
    if kind == "O" {
        let filters = node.metadata.get("filters").and_then(Value::as_array).into_iter().flatten();
        let mut ids = filters.chain(node.metadata.get("compressor")).filter_map(|codec| codec.get("id")?.as_str());
        // Codecs that serialise Python objects.
        const OBJECTS: [&str; 7] =
            ["vlen-utf8", "vlen-bytes", "vlen-array", "pickle", "json2", "msgpack2", "categorize"];
        return match ids.find(|id| OBJECTS.contains(id)) {
            Some("vlen-utf8" | "vlen-bytes") => ElementClass::Text,
            Some(id) => ElementClass::Other(format!("object, written by codec {id},")),
            None => ElementClass::Other("object".to_owned()),
        };
    }
    if let Some(time) = Time::from_descr(dtype) {
        return ElementClass::Time(time);
    }
    let Ok(size) = size.parse::<u64>() else { return ElementClass::Other(dtype.to_owned()) };
    match (kind, size) {
        ("b", 1) => ElementClass::Number(Dtype::Bool),
        ("i" | "u" | "f", _) => {
            let name = match kind {
                "i" => "int",
                "u" => "uint",
                _ => "float",
            };
            let dtype = size.checked_mul(8).and_then(|bits| Dtype::from_name(&format!("{name}{bits}")));
            dtype.map_or_else(|| ElementClass::Other(format!("{name} of {size} bytes")), ElementClass::Number)
        }
        ("S", _) => ElementClass::FixedText { size, encoding: Encoding::Bytes },
        ("U", _) => match size.checked_mul(4) {
            Some(size) if order == ">" => ElementClass::FixedText { size, encoding: Encoding::Utf32Big },
            Some(size) => ElementClass::FixedText { size, encoding: Encoding::Utf32Little },
            None => ElementClass::Other(dtype.to_owned()),
        },
        _ => ElementClass::Other(dtype.to_owned()),
    }
}

fn v3(node: &ZarrNode) -> ElementClass {
    let Some(dtype) = node.metadata.get("data_type") else { return ElementClass::Other("unknown type".to_owned()) };
    let name = dtype.as_str().or_else(|| dtype.get("name").and_then(Value::as_str)).unwrap_or("unknown type");
    let size = dtype.get("configuration").and_then(|c| c.get("length_bytes")).and_then(Value::as_u64);
    match (name, size) {
        ("numpy.datetime64" | "numpy.timedelta64", _) => {
            let setting = |key: &str| dtype.get("configuration").and_then(|c| c.get(key));
            let unit = setting("unit").and_then(Value::as_str).and_then(Unit::from_name);
            let once = setting("scale_factor").is_none_or(|factor| factor.as_u64() == Some(1));
            let is_duration = name == "numpy.timedelta64";
            match unit.filter(|_| once) {
                Some(unit) => ElementClass::Time(Time { is_duration, unit }),
                None => ElementClass::Other(format!("{name} of an odd unit")),
            }
        }
        ("string" | "variable_length_bytes" | "bytes", _) => ElementClass::Text,
        ("null_terminated_bytes", Some(size)) => ElementClass::FixedText { size, encoding: Encoding::Bytes },
        // The codecs swap it to little-endian.
        ("fixed_length_utf32", Some(size)) => ElementClass::FixedText { size, encoding: Encoding::Utf32Little },
        _ => Dtype::from_name(name).map_or_else(|| ElementClass::Other(name.to_owned()), ElementClass::Number),
    }
}

/// The metadata of an array of times, changed to that of an array of integers.
pub fn as_integers(node: &ZarrNode) -> ZarrNode {
    let mut metadata = node.metadata.clone();
    if node.version == 2 {
        let order = node.metadata.get("dtype").and_then(Value::as_str).and_then(|dtype| dtype.get(..1)).unwrap_or("<");
        metadata.insert("dtype".to_owned(), json!(format!("{order}i8")));
    } else {
        metadata.insert("data_type".to_owned(), json!("int64"));
    }
    if metadata.get("fill_value").is_some_and(|fill| fill == "NaT") {
        metadata.insert("fill_value".to_owned(), json!(NOT_A_TIME));
    }
    ZarrNode { kind: node.kind, version: node.version, metadata, attributes: Map::new() }
}
