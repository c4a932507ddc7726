//! obs columns of many stores as one: categories united in order of first appearance, numbers promoted.

use std::collections::HashMap;

use crate::anndata::column::{Categories, Column, Numbers, Texts, Values};
use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::array::cast::cast;
use crate::array::{ArrayError, Counters, Dtype};

use super::{CollectionError, Store};

/// The columns served, and those left out with the reason.
type Read = (Vec<Column>, Vec<(String, String)>);

/// Reads the columns named, or every categorical, boolean and numeric column that all stores have.
///
/// # Errors
/// A named column that is absent or not read; a served column that is damaged.
pub fn read(stores: &[Store], named: Option<&[String]>, counters: &Counters) -> Result<Read, CollectionError> {
    let frames = stores.iter().map(|store| DataFrame::open(&store.container, "obs")).collect::<Result<Vec<_>, _>>()?;
    let candidates: Vec<String> = match named {
        Some(names) => names.to_vec(),
        None => {
            let mut all: Vec<String> = Vec::new();
            for name in frames.iter().flat_map(|frame| &frame.columns) {
                if !all.contains(name) {
                    all.push(name.clone());
                }
            }
            all
        }
    };
    let (mut columns, mut left_out) = (Vec::new(), Vec::new());
    for name in candidates {
        match one(stores, &frames, &name, named.is_some(), counters)? {
            Ok(column) => columns.push(column),
            Err(reason) if named.is_none() => left_out.push((name, reason)),
            Err(reason) => return Err(CollectionError::Option(format!("--obs {name}: {reason}"))),
        }
    }
    Ok((columns, left_out))
}

/// One column over all stores, or the reason why it is not served.
fn one(
    stores: &[Store],
    frames: &[DataFrame<'_>],
    name: &str,
    named: bool,
    counters: &Counters,
) -> Result<Result<Column, String>, CollectionError> {
    let mut parts = Vec::new();
    let mut kind = None;
    for (store, frame) in stores.iter().zip(frames) {
        let store = store.container.name();
        if !frame.columns.iter().any(|column| column == name) {
            return Ok(Err(format!("{store} has no such column (it has {})", list(&frame.columns))));
        }
        let here = frame.kind(name)?;
        match here {
            ColumnKind::Other => return Ok(Err(format!("{store} holds it in an encoding that is not read"))),
            ColumnKind::Text if !named => return Ok(Err("text is served when named in --obs".to_owned())),
            _ => {}
        }
        if *kind.get_or_insert(here) != here {
            let first = kind.map_or("", ColumnKind::name);
            return Ok(Err(format!("it is {first} in the first store, but {} in {store}", here.name())));
        }
        match frame.column(name, counters) {
            Ok(column) => parts.push(column.values),
            Err(ArrayError::Unsupported { cause, .. }) if !named => return Ok(Err(cause)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Ok(Column { name: name.to_owned(), values: unite(parts) }))
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names if names.len() > 20 => format!("{}, and {} more", names[..20].join(", "), names.len() - 20),
        names => names.join(", "),
    }
}

/// Parts of one kind, end to end.
fn unite(mut parts: Vec<Values>) -> Values {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    match parts.first() {
        Some(Values::Categorical { .. }) => unite_categories(parts),
        Some(Values::Text { .. }) => unite_text(parts),
        _ => unite_numbers(parts),
    }
}

fn unite_numbers(parts: Vec<Values>) -> Values {
    let parts: Vec<(Numbers, Option<Vec<u8>>)> = parts
        .into_iter()
        .filter_map(|part| match part {
            Values::Numbers { numbers, mask } => Some((numbers, mask)),
            _ => None,
        })
        .collect();
    let dtype = parts.iter().map(|(numbers, _)| numbers.dtype).reduce(Dtype::promote).unwrap_or(Dtype::F64);
    let nullable = parts.iter().any(|(_, mask)| mask.is_some());
    let (mut bytes, mut masks) = (Vec::new(), Vec::new());
    for (numbers, mask) in parts {
        let start = bytes.len();
        bytes.resize(start + numbers.len() * dtype.size(), 0);
        cast(numbers.dtype, dtype, &numbers.bytes, &mut bytes[start..]);
        masks.extend(mask.unwrap_or_else(|| vec![0; numbers.len()]));
    }
    Values::Numbers { numbers: Numbers { dtype, bytes }, mask: nullable.then_some(masks) }
}

fn unite_text(parts: Vec<Values>) -> Values {
    let (mut texts, mut masks, mut nullable, mut chars, mut bytes) = (Texts::default(), Vec::new(), false, 0, 0);
    for part in parts {
        if let Values::Text { texts: more, mask, chars: c, bytes: b } = part {
            nullable |= mask.is_some();
            masks.extend(mask.unwrap_or_else(|| vec![0; more.len()]));
            let offset = texts.bytes.len() as u64;
            texts.bytes.push_str(&more.bytes);
            texts.ends.extend(more.ends.iter().map(|end| end + offset));
            chars = chars.max(c);
            bytes = bytes.max(b);
        }
    }
    Values::Text { texts, mask: nullable.then_some(masks), chars, bytes }
}

fn unite_categories(parts: Vec<Values>) -> Values {
    let mut labels: Vec<String> = Vec::new();
    let mut known: HashMap<String, i64> = HashMap::new();
    let mut codes: Vec<u8> = Vec::new();
    // Ordered only where every store says so and none adds to or reorders the first one's categories.
    let mut ordered = true;
    let mut numbers: Option<Numbers> = None;
    for (i, part) in parts.into_iter().enumerate() {
        let Values::Categorical { codes: part_codes, categories, ordered: part_ordered } = part else { continue };
        if i == 0 {
            numbers = categories.numbers.clone().map(|numbers| Numbers { dtype: numbers.dtype, bytes: Vec::new() });
        }
        numbers = match (numbers, &categories.numbers) {
            (Some(all), Some(here)) if all.dtype == here.dtype => Some(all),
            _ => None,
        };
        ordered &= part_ordered && (i == 0 || categories.labels == labels);
        let mut recode: Vec<i64> = Vec::with_capacity(categories.labels.len());
        for (code, label) in categories.labels.into_iter().enumerate() {
            recode.push(*known.entry(label.clone()).or_insert_with(|| {
                labels.push(label);
                if let (Some(all), Some(here)) = (&mut numbers, &categories.numbers) {
                    all.bytes.extend_from_slice(here.at(code));
                }
                labels.len() as i64 - 1
            }));
        }
        let mut wide = vec![0; part_codes.len() * 8];
        cast(part_codes.dtype, Dtype::I64, &part_codes.bytes, &mut wide);
        for code in wide.as_chunks_mut::<8>().0 {
            let at = i64::from_le_bytes(*code);
            *code = usize::try_from(at).map_or(-1, |at| recode[at]).to_le_bytes();
        }
        codes.extend_from_slice(&wide);
    }
    let dtype = Values::code_dtype(labels.len());
    let mut narrow = vec![0; codes.len() / 8 * dtype.size()];
    cast(Dtype::I64, dtype, &codes, &mut narrow);
    let codes = Numbers { dtype, bytes: narrow };
    Values::Categorical { codes, categories: Categories { labels, numbers }, ordered }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn categorical(codes: &[i8], labels: &[&str], ordered: bool) -> Values {
        Values::Categorical {
            codes: Numbers { dtype: Dtype::I8, bytes: codes.iter().map(|&code| code as u8).collect() },
            categories: Categories { labels: labels.iter().map(|&l| l.to_owned()).collect(), numbers: None },
            ordered,
        }
    }

    #[test]
    fn categories_unite_in_order_of_first_appearance() {
        let parts = vec![categorical(&[1, -1, 0], &["b", "a"], true), categorical(&[0, 1, -1], &["c", "b"], true)];
        assert_eq!(unite(parts), categorical(&[1, -1, 0, 2, 0, -1], &["b", "a", "c"], false));
        let same = vec![categorical(&[1], &["b", "a"], true), categorical(&[0], &["b", "a"], true)];
        assert_eq!(unite(same), categorical(&[1, 0], &["b", "a"], true));
    }

    #[test]
    fn numbers_promote_and_keep_masks() {
        let parts = vec![
            Values::Numbers { numbers: Numbers { dtype: Dtype::I8, bytes: vec![255] }, mask: None },
            Values::Numbers { numbers: Numbers { dtype: Dtype::U8, bytes: vec![255] }, mask: Some(vec![1]) },
        ];
        let numbers = Numbers { dtype: Dtype::I16, bytes: vec![255, 255, 255, 0] };
        assert_eq!(unite(parts), Values::Numbers { numbers, mask: Some(vec![0, 1]) });
    }
}
