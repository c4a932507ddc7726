//! What an array's elements are, from its metadata alone.

use serde_json::Value;

use super::node::ZarrNode;
use crate::array::Dtype;

/// Element types as far as they matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementClass {
    Number(Dtype),
    /// Strings of any length.
    Text,
    /// So many bytes each.
    FixedText {
        size: u64,
        encoding: Encoding,
    },
    /// Named for messages.
    Other(String),
}

/// How fixed-length text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Bytes,
    Utf32Little,
    Utf32Big,
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
        let text = node.metadata.get("filters").and_then(Value::as_array).is_some_and(|filters| {
            filters.iter().any(|filter| filter.get("id").and_then(Value::as_str) == Some("vlen-utf8"))
        });
        return if text { ElementClass::Text } else { ElementClass::Other("object".to_owned()) };
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
        ("string", _) => ElementClass::Text,
        ("null_terminated_bytes", Some(size)) => ElementClass::FixedText { size, encoding: Encoding::Bytes },
        ("fixed_length_utf32", Some(size)) => {
            let big = node.metadata.get("codecs").and_then(Value::as_array).is_some_and(|codecs| {
                let endian = |codec: &Value| codec.get("configuration").and_then(|c| c.get("endian")).cloned();
                codecs.iter().any(|codec| endian(codec).is_some_and(|e| e == "big"))
            });
            let encoding = if big { Encoding::Utf32Big } else { Encoding::Utf32Little };
            ElementClass::FixedText { size, encoding }
        }
        _ => Dtype::from_name(name).map_or_else(|| ElementClass::Other(name.to_owned()), ElementClass::Number),
    }
}
