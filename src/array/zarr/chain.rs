//! Translates the codecs in an array's metadata to stages of decoding.
//!
//! numcodecs' filters interpret bytes with a dtype of their own, regardless of the array's byte order, as numpy's `view` does; zarr's own
//! codecs work on values. So the byte order is tracked from codec to codec.

mod numcodec;

use std::sync::Arc;

use serde_json::Value;

use super::node::ZarrNode;
use super::scalar;
use crate::array::Dtype;
use crate::array::codec::Stage;
use crate::array::codec::checksum::Sum;
use crate::array::codec::filter::Filter;
use crate::array::codec::shard::{Index, Shard};
use crate::array::codec::transpose::Transpose;
use crate::array::codec::value_cast::{Beyond, Map, Rounding, ValueCast};
use numcodec::Step;

/// The elements of an array.
#[derive(Clone, Debug)]
pub struct Element {
    pub dtype: Option<Dtype>,
    /// Bytes of an element; 0 for variable-length strings.
    pub size: usize,
    /// Size of the words whose byte order may be swapped: numbers, or characters.
    pub word: usize,
    /// The fill value.
    pub fill: Vec<u8>,
}

/// How to decode a chunk.
#[derive(Clone, Debug, PartialEq)]
pub enum Chain {
    /// Stages, outermost first.
    Chunk(Vec<Stage>),
    /// The outermost codec is a shard, so its chunks can be read one by one.
    Shard { chunk_shape: Vec<u64>, index: Index, inner: Box<Chain> },
}

impl Chain {
    /// The stages to decode a whole chunk of the given shape.
    pub fn whole(self, shape: &[u64], element: &Element) -> Result<Vec<Stage>, String> {
        match self {
            Chain::Chunk(stages) => Ok(stages),
            Chain::Shard { chunk_shape, index, inner } => {
                // Further axes of the shape are those of bytes within an element.
                let shape = shape_of(shape.get(..chunk_shape.len()).unwrap_or_default())?;
                nested(index, *inner, &shape, &chunk_shape, element).map(|stage| vec![stage])
            }
        }
    }
}

/// The name of a codec; codecs without configuration may be bare strings.
pub fn name(codec: &Value) -> &str {
    codec.as_str().or_else(|| codec.get("name").and_then(Value::as_str)).unwrap_or_default()
}

pub fn setting<'a>(codec: &'a Value, key: &str) -> Option<&'a Value> {
    codec.get("configuration")?.get(key)
}

pub fn sizes(codec: &Value, key: &str) -> Option<Vec<u64>> {
    scalar::sizes(setting(codec, key)?)
}

/// The message that a codec is not supported.
fn unknown(codec: &str) -> String {
    format!("codec {codec} is not read; rewrite it with zstd or blosc")
}

fn invalid(codec: &str, what: &str) -> String {
    format!("codec {codec}: {what}: the metadata is damaged")
}

/// The shape and elements at one point in a chain of codecs.
#[derive(Clone)]
struct View {
    shape: Vec<usize>,
    element: Element,
}

impl View {
    fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |n, &c| n.checked_mul(c))
    }

    fn retype(&mut self, dtype: Dtype, fill: Vec<u8>) {
        self.element = Element { dtype: Some(dtype), size: dtype.size(), word: dtype.size(), fill };
    }
}

fn shape_of(chunk: &[u64]) -> Result<Vec<usize>, String> {
    let shape = chunk.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<usize>>>();
    shape.ok_or_else(|| "its chunks are too large; rewrite it in smaller ones".to_owned())
}

/// Translates the codecs of v3.
pub fn v3(codecs: &[Value], element: Element, chunk: &[u64]) -> Result<Chain, String> {
    let mut view = View { shape: shape_of(chunk)?, element };
    if let [only] = codecs
        && name(only) == "sharding_indexed"
    {
        let chunk_shape = sizes(only, "chunk_shape").ok_or_else(|| invalid(name(only), "no chunk_shape"))?;
        let inner = Box::new(v3(&inner_codecs(only), view.element, &chunk_shape)?);
        return Ok(Chain::Shard { index: index(only)?, chunk_shape, inner });
    }
    // In the order of encoding. Each says whether it takes values in the array's byte order.
    let mut before: Vec<Step> = Vec::new();
    let mut after: Vec<Stage> = Vec::new();
    // The codec that turns elements into bytes, and whether these are big-endian.
    let mut middle: Option<(Vec<Stage>, bool)> = None;
    for codec in codecs {
        let name = name(codec);
        match (&middle, to_bytes(codec, &view)?) {
            (None, Some(found)) => middle = Some(found),
            (Some(_), Some(_)) => return Err(invalid(name, "the array is turned into bytes twice")),
            (Some(_), None) => {
                let step = numcodec::step(short(name), codec.get("configuration"), &view, false)?;
                let Some(Step::Bytes(stage)) = step else { return Err(unknown(name)) };
                after.push(stage);
            }
            (None, None) => before.push(of_elements(codec, &mut view)?),
        }
    }
    let (middle, mut big) = middle.ok_or("its codecs turn no elements into bytes: the metadata is damaged")?;
    let mut stages: Vec<Stage> = after.into_iter().rev().collect();
    stages.extend(middle);
    let mut word = view.element.word;
    for step in before.into_iter().rev() {
        match step {
            Step::Bytes(stage) | Step::Order(stage) => stages.push(stage),
            Step::Values(filter) => {
                swap(&mut stages, big, word);
                (big, word) = (false, filter.types().1.size());
                stages.push(Stage::Filter(Arc::new(filter)));
            }
            Step::Raw { stored_big, filter, big: to_big } => {
                let (stored, to) = filter.types();
                swap(&mut stages, stored_big, stored.size());
                stages.push(Stage::Filter(Arc::new(filter)));
                (big, word) = (to_big, to.size());
            }
            Step::Packbits => {
                stages.push(Stage::Packbits);
                (big, word) = (false, 1);
            }
            Step::Nothing => {}
        }
    }
    swap(&mut stages, big, word);
    Ok(Chain::Chunk(stages))
}

fn swap(stages: &mut Vec<Stage>, big: bool, word: usize) {
    if big && word > 1 {
        stages.push(Stage::Swap(word));
    }
}

/// A codec's name without its namespace.
fn short(name: &str) -> &str {
    name.strip_prefix("numcodecs.").unwrap_or(name)
}

fn inner_codecs(shard: &Value) -> Vec<Value> {
    let codecs = setting(shard, "codecs").and_then(Value::as_array).cloned();
    codecs.unwrap_or_else(|| vec![Value::from("bytes")])
}

fn index(shard: &Value) -> Result<Index, String> {
    let codecs = setting(shard, "index_codecs").and_then(Value::as_array).cloned();
    let codecs = codecs.unwrap_or_else(|| vec![Value::from("bytes"), Value::from("crc32c")]);
    let element = Element { dtype: Some(Dtype::U64), size: 8, word: 8, fill: vec![0xff; 8] };
    // The shape matters only to codecs that an index cannot have.
    let Chain::Chunk(stages) = v3(&codecs, element, &[1, 2])? else {
        return Err(invalid("sharding_indexed", "an index that is sharded"));
    };
    if stages.iter().any(|stage| stage.encoded(16).is_none() || matches!(stage, Stage::Transpose(_))) {
        return Err("the index of its shards is compressed, which is not read; rewrite it".to_owned());
    }
    match setting(shard, "index_location").and_then(Value::as_str) {
        None | Some("end") => Ok(Index { stages, at_start: false }),
        Some("start") => Ok(Index { stages, at_start: true }),
        Some(_) => Err(invalid("sharding_indexed", "an index_location that is neither start nor end")),
    }
}

/// For a codec that turns elements into bytes: its stages, and whether the bytes are big-endian.
fn to_bytes(codec: &Value, view: &View) -> Result<Option<(Vec<Stage>, bool)>, String> {
    let name = name(codec);
    Ok(Some(match name {
        "bytes" | "endian" => match setting(codec, "endian").and_then(Value::as_str) {
            None | Some("little") => (Vec::new(), false),
            Some("big") => (Vec::new(), true),
            Some(_) => return Err(invalid(name, "an endian that is neither little nor big")),
        },
        // Strings are split by their own reader.
        "vlen-utf8" | "vlen-bytes" if view.element.size == 0 => (Vec::new(), false),
        "vlen-utf8" | "vlen-bytes" => return Err(format!("codec {name} is of strings, and the array has none")),
        "numcodecs.pcodec" | "pcodec" => (vec![Stage::Pcodec], false),
        "sharding_indexed" => {
            let chunk = sizes(codec, "chunk_shape").ok_or_else(|| invalid(name, "no chunk_shape"))?;
            if view.element.size == 0 {
                return Err("strings in shards behind other codecs are not read; rewrite it".to_owned());
            }
            let inner = v3(&inner_codecs(codec), view.element.clone(), &chunk)?;
            (vec![nested(index(codec)?, inner, &view.shape, &chunk, &view.element)?], false)
        }
        _ => return Ok(None),
    }))
}

/// A shard that is decoded whole.
fn nested(
    index: Index,
    inner: Chain,
    shape: &[usize],
    chunk_shape: &[u64],
    element: &Element,
) -> Result<Stage, String> {
    let chunk = shape_of(chunk_shape)?;
    let fits = shape.len() == chunk.len() && shape.iter().zip(&chunk).all(|(s, c)| *c > 0 && s % c == 0);
    if !fits {
        return Err("the shard shape is not a multiple of the chunk shape".to_owned());
    }
    let stages = inner.whole(chunk_shape, element)?;
    let (size, fill) = (element.size, element.fill.clone());
    Ok(Stage::Shard(Arc::new(Shard { shape: shape.to_vec(), chunk, size, stages, index, fill })))
}

/// A codec that turns elements into elements.
fn of_elements(codec: &Value, view: &mut View) -> Result<Step, String> {
    let name = name(codec);
    let step = match name {
        "transpose" => transpose(codec, view)?,
        "scale_offset" => {
            let dtype = view.element.dtype.filter(|dtype| *dtype != Dtype::Bool);
            let dtype = dtype.ok_or_else(|| invalid(name, "its elements are no numbers"))?;
            let own = |key: &str, default: i64| -> Result<[u8; 8], String> {
                let value = setting(codec, key).cloned().unwrap_or_else(|| Value::from(default));
                let bytes = scalar::bytes(dtype, &value);
                let bytes = bytes.ok_or_else(|| invalid(name, &format!("its {key} {value} is no {dtype}")))?;
                let mut out = [0; 8];
                out.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
                Ok(out)
            };
            Step::Values(Filter::ScaleOffset { dtype, scale: own("scale", 1)?, offset: own("offset", 0)? })
        }
        "cast_value" => Step::Values(Filter::ValueCast(value_cast(codec, view)?)),
        _ => match numcodec::step(short(name), codec.get("configuration"), view, false)? {
            Some(Step::Bytes(_)) => return Err(invalid(name, "bytes are encoded before there are any")),
            Some(step) => step,
            None => return Err(unknown(name)),
        },
    };
    match &step {
        Step::Values(filter) => {
            let fill = filter.stored_fill(&view.element.fill)?;
            view.retype(filter.types().0, fill);
        }
        Step::Raw { filter, .. } => {
            let fill = if view.element.fill.len() == filter.types().1.size() {
                filter.stored_fill(&view.element.fill)?
            } else {
                vec![0; filter.types().0.size()]
            };
            view.retype(filter.types().0, fill);
        }
        Step::Packbits => {
            let count = view.elements().ok_or("its chunks are too large; rewrite it in smaller ones")?;
            view.shape = vec![count.div_ceil(8) + 1];
            let fill = view.element.fill.clone();
            view.retype(Dtype::U8, fill);
        }
        Step::Bytes(_) | Step::Order(_) | Step::Nothing => {}
    }
    Ok(step)
}

fn transpose(codec: &Value, view: &mut View) -> Result<Step, String> {
    let axes = view.shape.len();
    let order: Option<Vec<usize>> = match setting(codec, "order") {
        Some(Value::String(order)) if order == "C" => Some((0..axes).collect()),
        Some(Value::String(order)) if order == "F" => Some((0..axes).rev().collect()),
        Some(order) => scalar::sizes(order).and_then(|order| shape_of(&order).ok()),
        None => None,
    };
    let order = order.filter(|order| order.len() == axes && (0..axes).all(|axis| order.contains(&axis)));
    let order = order.ok_or_else(|| invalid("transpose", "its order does not name every axis once"))?;
    let step = ordered(view, order.clone())?;
    view.shape = order.iter().filter_map(|&axis| view.shape.get(axis).copied()).collect();
    Ok(step)
}

/// Elements with their axes in another order.
fn ordered(view: &View, order: Vec<usize>) -> Result<Step, String> {
    let moved: Vec<usize> = order.iter().copied().filter(|&axis| view.shape.get(axis) != Some(&1)).collect();
    if moved.is_sorted() {
        return Ok(Step::Nothing);
    }
    if view.element.size == 0 {
        return Err("strings in F order are not read; rewrite it in C order".to_owned());
    }
    let transpose = Transpose { shape: view.shape.clone(), order, size: view.element.size };
    Ok(Step::Order(Stage::Transpose(Arc::new(transpose))))
}

fn value_cast(codec: &Value, view: &View) -> Result<ValueCast, String> {
    const NAME: &str = "cast_value";
    let to = view.element.dtype.filter(|dtype| *dtype != Dtype::Bool);
    let to = to.ok_or_else(|| invalid(NAME, "its elements are no numbers"))?;
    let stored = setting(codec, "data_type").map(self::name).and_then(Dtype::from_name);
    let stored = stored.filter(|dtype| *dtype != Dtype::Bool).ok_or_else(|| {
        format!(
            "codec {NAME}: numbers of type {} are not read",
            setting(codec, "data_type").map_or("(none)", self::name)
        )
    })?;
    let rounding = match setting(codec, "rounding").and_then(Value::as_str) {
        None | Some("nearest-even") => Rounding::NearestEven,
        Some("nearest-away") => Rounding::NearestAway,
        Some("towards-zero") => Rounding::TowardsZero,
        Some("towards-positive") => Rounding::TowardsPositive,
        Some("towards-negative") => Rounding::TowardsNegative,
        Some(other) => return Err(invalid(NAME, &format!("rounding {other}"))),
    };
    let beyond = match setting(codec, "out_of_range").and_then(Value::as_str) {
        None => Beyond::Error,
        Some("clamp") => Beyond::Clamp,
        Some("wrap") => Beyond::Wrap,
        Some(other) => return Err(invalid(NAME, &format!("out_of_range {other}"))),
    };
    let map = |key: &str, from: Dtype, to: Dtype| -> Result<Map, String> {
        let pairs = setting(codec, "scalar_map").and_then(|map| map.get(key)).and_then(Value::as_array);
        let pair = |pair: &Value| {
            let [from_value, to_value] = pair.as_array()?.as_slice() else { return None };
            Some((scalar::bytes(from, from_value)?, scalar::bytes(to, to_value)?))
        };
        let parsed = pairs.into_iter().flatten().map(pair).collect::<Option<Map>>();
        parsed.ok_or_else(|| invalid(NAME, "a scalar_map with values of another type"))
    };
    let (encode, decode) = (map("encode", to, stored)?, map("decode", stored, to)?);
    Ok(ValueCast { stored, to, rounding, beyond, encode, decode })
}

/// Translates the filters, compressor and order of v2.
pub fn v2(node: &ZarrNode, element: &Element, chunk: &[u64]) -> Result<Chain, String> {
    let view = View { shape: shape_of(chunk)?, element: element.clone() };
    let field = |key: &str| node.metadata.get(key).filter(|value| !value.is_null());
    let filters = field("filters").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut stages = Vec::new();
    for codec in field("compressor").into_iter().chain(filters.iter().rev()) {
        let id = codec.get("id").and_then(Value::as_str).ok_or("a codec without an id: the metadata is damaged")?;
        if matches!(id, "vlen-utf8" | "vlen-bytes") && element.size == 0 {
            continue;
        }
        match numcodec::step(id, Some(codec), &view, true)? {
            Some(Step::Bytes(stage) | Step::Order(stage)) => stages.push(stage),
            Some(Step::Values(filter)) => stages.push(Stage::Filter(Arc::new(filter))),
            Some(Step::Raw { stored_big, filter, big }) => {
                let (stored, to) = filter.types();
                swap(&mut stages, stored_big, stored.size());
                stages.push(Stage::Filter(Arc::new(filter)));
                swap(&mut stages, big, to.size());
            }
            Some(Step::Packbits) => stages.push(Stage::Packbits),
            Some(Step::Nothing) => {}
            None => return Err(unknown(id)),
        }
    }
    let big = field("dtype").and_then(Value::as_str).is_some_and(|dtype| dtype.starts_with('>'));
    swap(&mut stages, big && element.size > 0, element.word);
    if field("order").and_then(Value::as_str) == Some("F")
        && let Step::Order(stage) = ordered(&view, (0..view.shape.len()).rev().collect())?
    {
        stages.push(stage);
    }
    Ok(Chain::Chunk(stages))
}

/// A checksum codec of numcodecs.
fn sum(sum: Sum, at_start: bool) -> Stage {
    if at_start { Stage::LeadingSum(Arc::new(sum)) } else { Stage::sum(sum) }
}
