//! Categorical columns, as three generations of anndata stored them.
//!
//! Today: a group of codes and categories. In 0.7: codes with an attribute `categories` that refers to the labels. Before: codes in a
//! field of a record array, and labels in `uns/<column>_categories`.

use serde_json::Value;

use super::column::{Categories, Numbers, Values};
use super::element_error;
use super::values::{numbers, texts};
use crate::array::cast::{cast, to_i64, to_text};
use crate::array::meaning::Meaning;
use crate::array::{ArrayError, Container, Counters, Dtype, NodeKind};

/// The labels in an element: strings, numbers or booleans.
pub fn labels(store: &dyn Container, element: &str, counters: &Counters) -> Result<Categories, ArrayError> {
    // Newer pandas stores labels as a nullable array of strings.
    let values = format!("{element}/values");
    let element = match store.kind(element)? {
        Some(NodeKind::Group) => values.as_str(),
        _ => element,
    };
    if store.is_text(element)? {
        return Ok(Categories { labels: texts(store, element)?, numbers: None });
    }
    let numbers = numbers(store, element, counters)?;
    if let Meaning::Time(time) = store.meaning(element)? {
        let labels = (0..numbers.len()).map(|i| time.text(to_i64(numbers.dtype, numbers.at(i)))).collect();
        return Ok(Categories { labels, numbers: None });
    }
    let labels = (0..numbers.len()).map(|i| to_text(numbers.dtype, numbers.at(i))).collect();
    Ok(Categories { labels, numbers: Some(numbers) })
}

/// Codes and labels as a column. `element` is the path of the codes.
///
/// # Errors
/// A code is outside of the categories.
pub fn categorical(
    store: &dyn Container,
    element: &str,
    codes: &Numbers,
    categories: Categories,
    ordered: bool,
) -> Result<Values, ArrayError> {
    if codes.dtype.is_float() || codes.dtype == Dtype::Bool {
        return Err(element_error(store, element, format!("codes are {}, not integers", codes.dtype)));
    }
    let count = categories.labels.len() as u64;
    let mut narrowed = Vec::new();
    for part in codes.bytes.parts().flat_map(|part| part.chunks(STEP * codes.dtype.size())) {
        let part = narrow(codes.dtype, part, count)
            .map_err(|code| element_error(store, element, format!("code {code} is outside its {count} categories")))?;
        narrowed.extend(part);
    }
    let dtype = Values::code_dtype(categories.labels.len());
    Ok(Values::Categorical { codes: Numbers { dtype, bytes: narrowed.into() }, categories, ordered })
}

/// Codes that are checked at once.
const STEP: usize = 1 << 16;

/// Checks integers as codes of `categories` categories, and converts them to the smallest dtype.
///
/// # Errors
/// The first invalid code: neither in 0..categories nor -1.
pub fn narrow(dtype: Dtype, codes: &[u8], categories: u64) -> Result<Vec<u8>, i64> {
    let mut wide = vec![0; codes.len() / dtype.size() * 8];
    cast(dtype, Dtype::I64, codes, &mut wide);
    let count = i64::try_from(categories).unwrap_or(i64::MAX);
    // For unsigned codes, -1 can only be a large u64 that has wrapped.
    let least = if dtype.is_signed() { -1 } else { 0 };
    let wrong = |code: &i64| *code < least || *code >= count;
    if let Some(code) = wide.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).find(wrong) {
        return Err(code);
    }
    let to = Values::code_dtype(usize::try_from(categories).unwrap_or(usize::MAX));
    let mut narrow = vec![0; wide.len() / 8 * to.size()];
    cast(Dtype::I64, to, &wide, &mut narrow);
    Ok(narrow)
}

/// Whether an element has the attribute that its categories are ordered.
pub fn ordered(store: &dyn Container, element: &str) -> Result<bool, ArrayError> {
    let attributes = store.attributes(element)?;
    Ok(attributes
        .get("ordered")
        .is_some_and(|value| value.as_bool().unwrap_or_else(|| value.as_i64().is_some_and(|number| number != 0))))
}

/// The path of the labels of codes as anndata 0.7 stored them: their attribute `categories` is a path (zarr) or a reference (HDF5,
/// already resolved to a path); relative to the frame unless it starts with `/`. `None` for any other array.
pub fn referred(store: &dyn Container, frame: &str, name: &str) -> Result<Option<String>, ArrayError> {
    let attributes = store.attributes(&format!("{frame}/{name}"))?;
    let usual = format!("{frame}/__categories/{name}");
    let told = match attributes.get("categories").and_then(Value::as_str) {
        Some(path) => path.strip_prefix('/').map_or_else(|| format!("{frame}/{path}"), str::to_owned),
        None => return Ok(None),
    };
    // If the reference is broken, the usual path is used.
    Ok(Some(if store.kind(&told)?.is_some() { told } else { usual }))
}

/// The labels of a record field before 0.7: `uns/<name>_categories`, if all codes fit. This is anndata's rule, because categories of the
/// same name may belong to a column of var.
pub fn of_record(
    store: &dyn Container,
    name: &str,
    codes: &Numbers,
    counters: &Counters,
) -> Result<Option<Categories>, ArrayError> {
    let element = format!("uns/{name}_categories");
    if codes.dtype.is_float() || store.kind(&element)? != Some(NodeKind::Array) {
        return Ok(None);
    }
    let categories = labels(store, &element, counters)?;
    // Unsigned values that wrapped to a negative i64 are no codes.
    let least = if codes.dtype.is_signed() { i64::MIN } else { 0 };
    let code = |i| Some(to_i64(codes.dtype, codes.at(i))).filter(|&code| code >= least);
    let label = |code: i64| usize::try_from(code).map_or(true, |code| code < categories.labels.len());
    let fits = (0..codes.len()).all(|i| code(i).is_some_and(label));
    Ok(fits.then_some(categories))
}
