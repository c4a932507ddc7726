//! numcodecs' codecs, by id and configuration: those of v2, and those of v3 named `numcodecs.*`.

use std::sync::Arc;

use serde_json::Value;

use super::{View, invalid, sum};
use crate::array::Dtype;
use crate::array::codec::Stage;
use crate::array::codec::checksum::Sum;
use crate::array::codec::filter::Filter;
use crate::array::codec::lzma::{self, Lzma};
use crate::array::zarr::scalar;

/// How one codec is decoded.
pub enum Step {
    /// Bytes to bytes.
    Bytes(Stage),
    /// Reorders elements.
    Order(Stage),
    /// Values to values.
    Values(Filter),
    /// Reinterprets bytes, as numcodecs do, with dtypes and byte orders of its own.
    Raw {
        stored_big: bool,
        filter: Filter,
        big: bool,
    },
    Packbits,
    Nothing,
}

/// The codec with an id; `None` if it is not supported. `view` is its input when encoding.
pub fn step(id: &str, config: Option<&Value>, view: &View, is_v2: bool) -> Result<Option<Step>, String> {
    let get = |key: &str| config.and_then(|config| config.get(key)).filter(|value| !value.is_null());
    let own = view.element.dtype.map(|dtype| (dtype, false));
    // The dtype in a setting, by numpy's name, or a default.
    let dtype = |key: &str, default: Option<(Dtype, bool)>| -> Result<(Dtype, bool), String> {
        let Some(given) = get(key) else { return default.ok_or_else(|| invalid(id, &format!("no {key}"))) };
        let found = given.as_str().and_then(scalar::dtype);
        found.ok_or_else(|| format!("codec {id}: numbers of type {given} are not read"))
    };
    let number = |key: &str| -> Result<f64, String> {
        let value = get(key).and_then(|value| value.as_f64().or_else(|| scalar::number(value.as_str()?)));
        value.ok_or_else(|| invalid(id, &format!("no {key}")))
    };
    let raw = |filter: Filter, stored_big, big| Step::Raw { stored_big, filter, big };
    let checksum = |found: Sum, default: &str| {
        let place = get("location").and_then(Value::as_str).unwrap_or(default);
        Step::Bytes(sum(found, place == "start"))
    };
    Ok(Some(match id {
        "gzip" => Step::Bytes(Stage::Gzip),
        "zlib" => Step::Bytes(Stage::Zlib),
        "zstd" => Step::Bytes(Stage::Zstd),
        "blosc" => Step::Bytes(Stage::Blosc),
        "lz4" => Step::Bytes(Stage::Lz4),
        "bz2" => Step::Bytes(Stage::Bzip2),
        "lzma" => Step::Bytes(Stage::Lzma(Arc::new(lzma(config)?))),
        "pcodec" => Step::Bytes(Stage::Pcodec),
        "shuffle" => {
            let default = if is_v2 { 4 } else { view.element.size as u64 };
            let size = get("elementsize").map_or(Some(default), scalar::size);
            let size = size.and_then(|size| usize::try_from(size).ok());
            Step::Bytes(Stage::Shuffle(size.ok_or_else(|| invalid(id, "its elementsize is no number"))?))
        }
        "crc32c" => checksum(Sum::Crc32c, "end"),
        "crc32" => checksum(Sum::Crc32, "start"),
        "adler32" => checksum(Sum::Adler32, "start"),
        "fletcher32" => Step::Bytes(sum(Sum::Fletcher32, false)),
        "jenkins_lookup3" => Step::Bytes(sum(jenkins(config)?, false)),
        "delta" => {
            let (to, big) = dtype("dtype", own)?;
            let (stored, stored_big) = dtype("astype", Some((to, big)))?;
            raw(Filter::Delta { stored, to }, stored_big, big)
        }
        "fixedscaleoffset" => {
            let (to, big) = dtype("dtype", own)?;
            let (stored, stored_big) = dtype("astype", Some((to, big)))?;
            let (scale, offset) = (number("scale")?, number("offset")?);
            raw(Filter::FixedScaleOffset { stored, to, scale, offset }, stored_big, big)
        }
        "quantize" => {
            let (to, big) = dtype("dtype", own)?;
            let (stored, stored_big) = dtype("astype", Some((to, big)))?;
            raw(Filter::AsType { name: "quantize", stored, to }, stored_big, big)
        }
        "astype" => {
            let (to, big) = dtype("decode_dtype", own)?;
            let (stored, stored_big) = dtype("encode_dtype", None)?;
            raw(Filter::AsType { name: "astype", stored, to }, stored_big, big)
        }
        "packbits" => Step::Packbits,
        // Rounds bits when encoding; nothing to decode.
        "bitround" => Step::Nothing,
        "pickle" => return Err("codec pickle runs code of whoever wrote it and is never read; rewrite it".to_owned()),
        _ => return Ok(None),
    }))
}

fn jenkins(config: Option<&Value>) -> Result<Sum, String> {
    let get = |key: &str| config.and_then(|config| config.get(key)).filter(|value| !value.is_null());
    let bad = || invalid("jenkins_lookup3", "its initval or prefix");
    let initial = get("initval").map_or(Some(0), scalar::size).and_then(|value| u32::try_from(value).ok());
    let prefix: Option<Vec<u8>> = match get("prefix") {
        None => Some(Vec::new()),
        Some(Value::String(text)) => Some(text.as_bytes().to_vec()),
        Some(list) => scalar::sizes(list).and_then(|list| list.into_iter().map(|n| u8::try_from(n).ok()).collect()),
    };
    Ok(Sum::Jenkins { initial: initial.ok_or_else(bad)?, prefix: prefix.ok_or_else(bad)? })
}

/// Parses the configuration of Python's `lzma`, with its numbers of formats and filters.
fn lzma(config: Option<&Value>) -> Result<Lzma, String> {
    let get = |key: &str| config.and_then(|config| config.get(key)).filter(|value| !value.is_null());
    match get("format").map_or(Some(1), scalar::size) {
        Some(0) => Ok(Lzma::Auto),
        Some(1) => Ok(Lzma::Xz),
        Some(2) => Ok(Lzma::Alone),
        Some(3) => {
            let filters =
                get("filters").and_then(Value::as_array).ok_or_else(|| invalid("lzma", "raw, but no filters"))?;
            filters.iter().map(lzma_filter).collect::<Result<_, _>>().map(Lzma::Raw)
        }
        _ => Err(invalid("lzma", "an unknown format")),
    }
}

fn lzma_filter(filter: &Value) -> Result<lzma::Filter, String> {
    const LZMA1: u64 = 0x4000_0000_0000_0001;
    let bad = |what: &str| invalid("lzma", what);
    let get = |key: &str| filter.get(key).filter(|value| !value.is_null());
    let number = |key: &str, default: u32| -> Result<u32, String> {
        let value = get(key).map_or(Some(u64::from(default)), scalar::size);
        value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| bad(key))
    };
    // log2 of the dictionary sizes of presets 0 to 9.
    const DICTIONARIES: [u32; 10] = [18, 20, 21, 22, 22, 23, 23, 24, 25, 26];
    let preset = number("preset", 6)? & 0x1f;
    let power = DICTIONARIES.get(preset as usize).ok_or_else(|| bad("an unknown preset"))?;
    let dictionary = number("dict_size", 1 << power)?;
    Ok(match get("id").and_then(scalar::size).ok_or_else(|| bad("a filter without an id"))? {
        LZMA1 => lzma::Filter::Lzma1(dictionary, [number("lc", 3)?, number("lp", 0)?, number("pb", 2)?]),
        0x21 => lzma::Filter::Lzma2(dictionary),
        0x03 => lzma::Filter::Delta(number("dist", 1)?),
        id @ 4..=9 => lzma::Filter::Branch(id),
        id => return Err(bad(&format!("filter {id} is unknown"))),
    })
}
