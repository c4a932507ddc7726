//! Attributes as JSON, as in zarr. A reference to an object becomes its path, such as `/obs/__categories/louvain`.

use ::hdf5::Location;
use half::f16;
use serde_json::{Map, Value};

use super::native::{self, TypedObject};
use super::text;
use super::types::{self, TypeClass};
use crate::array::Dtype;

/// Maximum elements of one attribute: enough for a list of a million columns, and a bound on the cost of a wrong shape.
const MOST: u64 = 1 << 22;

/// Skipped: nearly every element has it, nothing uses it, and reading it takes a quarter of the time to open a small store.
const UNREAD: &str = "encoding-version";

/// All attributes of a group or dataset except `UNREAD`; values that JSON cannot represent are skipped. Paths are relative to the group
/// `inner`.
///
/// # Errors
/// An attribute cannot be read. Skipping it could be wrong: without `column-order` a frame would have no columns.
pub fn all(location: &Location, inner: &str) -> Result<Map<String, Value>, String> {
    let mut attributes = Map::new();
    let failed = |name: &str, cause: &dyn std::fmt::Display| format!("its attribute {name} cannot be read: {cause}");
    for name in location.attr_names().map_err(|error| super::words(&error))? {
        if name == UNREAD {
            continue;
        }
        let attribute = location.attr(&name).map_err(|error| failed(&name, &super::words(&error)))?;
        // Unsupported attributes (compounds, nested lists) are skipped.
        if let Some(value) =
            one(TypedObject::Attribute(attribute.id()), inner).map_err(|error| failed(&name, &error))?
        {
            attributes.insert(name, value);
        }
    }
    Ok(attributes)
}

fn one(values: TypedObject, inner: &str) -> Result<Option<Value>, String> {
    let datatype = values.datatype()?;
    let Some(shape) = values.shape()? else { return Ok(None) };
    if shape.len() > 1 {
        return Ok(None);
    }
    let count = shape.first().copied().unwrap_or(1);
    if count > MOST {
        return Ok(None);
    }
    let list: Vec<Value> = match types::class(datatype.id()) {
        TypeClass::Other("reference") if shape.is_empty() => {
            let path = native::referred(values)?;
            let within = |path: &String| path.strip_prefix('/')?.strip_prefix(inner).map(str::to_owned);
            return Ok(path.as_ref().and_then(within).map(|path| format!("/{}", path.trim_start_matches('/')).into()));
        }
        TypeClass::Other(_) | TypeClass::Time { .. } => return Ok(None),
        class @ (TypeClass::VariableText | TypeClass::FixedText { .. }) => {
            text::attribute(values, class, count)?.into_iter().map(Value::from).collect()
        }
        class @ (TypeClass::Number { dtype, .. } | TypeClass::Enum { dtype, .. }) => {
            let bytes = usize::try_from(count).ok().and_then(|n| n.checked_mul(dtype.size())).ok_or("too large")?;
            let mut buffer = vec![0; bytes];
            values.read_bytes(&types::little_endian(&datatype)?, &[], &[], &mut buffer)?;
            // R's logical is an enum, as in `ordered` of categoricals.
            let booleans =
                matches!(class, TypeClass::Enum { .. }).then(|| types::names(datatype.id()).ok()?.booleans());
            let value = |element| match booleans.flatten() {
                Some(booleans) => {
                    booleans.split(dtype, element).map_or(Value::Null, |(yes, _)| Value::from(yes == [1]))
                }
                None => number(dtype, element),
            };
            buffer.chunks_exact(dtype.size()).map(value).collect()
        }
    };
    Ok(Some(if shape.is_empty() { list.into_iter().next().unwrap_or_default() } else { Value::Array(list) }))
}

/// A little-endian element; NaN and infinities, which JSON lacks, become null.
fn number(dtype: Dtype, element: &[u8]) -> Value {
    let mut wide = [0; 8];
    for (place, &byte) in wide.iter_mut().zip(element) {
        *place = byte;
    }
    let bits = u64::from_le_bytes(wide);
    let signed = || {
        let spare = 64 - 8 * dtype.size();
        (bits << spare).cast_signed() >> spare
    };
    match dtype {
        Dtype::Bool => Value::from(bits != 0),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => Value::from(bits),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Value::from(signed()),
        Dtype::F16 => Value::from(f16::from_le_bytes([wide[0], wide[1]]).to_f64()),
        Dtype::F32 => Value::from(f64::from(f32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]))),
        Dtype::F64 => Value::from(f64::from_bits(bits)),
    }
}
