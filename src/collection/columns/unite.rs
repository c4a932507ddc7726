//! Unites the columns of several stores into one, by the rules of docs/columns.md.

use std::collections::HashMap;

use crate::anndata::bytes::Bytes;
use crate::anndata::column::{Categories, Numbers, Texts, Values};
use crate::array::Dtype;
use crate::array::cast::{cast, to_i64};
use crate::array::meaning::{NOT_A_TIME, Time};

/// A store's column; `None` where the store lacks it.
pub struct StoreColumn<'a> {
    pub store: &'a str,
    pub rows: usize,
    pub values: Option<Values>,
}

/// The kind of a column, for the rules.
#[derive(Clone, Copy, PartialEq)]
enum UnionKind {
    Labels,
    Numbers,
    Text,
}

impl UnionKind {
    fn of(values: &Values) -> UnionKind {
        match values {
            Values::Categorical { .. } => UnionKind::Labels,
            Values::Numbers { .. } => UnionKind::Numbers,
            Values::Text { .. } => UnionKind::Text,
        }
    }
}

/// Concatenates the stores' columns; returns the rules applied. The error says why they cannot be united.
pub fn unite(mut parts: Vec<StoreColumn<'_>>) -> Result<(Values, Vec<String>), String> {
    if let [part] = parts.as_mut_slice()
        && let Some(values) = part.values.take()
    {
        return Ok((values, Vec::new()));
    }
    let kinds: Vec<(UnionKind, &str)> = parts
        .iter()
        .filter_map(|part| part.values.as_ref().map(|values| (UnionKind::of(values), part.store)))
        .collect();
    let first_of = |kind| kinds.iter().find(|(other, _)| *other == kind).map(|(_, store)| *store);
    let mut rules = Vec::new();
    let absent: Vec<&str> = parts.iter().filter(|part| part.values.is_none()).map(|part| part.store).collect();
    if let [first, rest @ ..] = absent.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        rules.push(format!("absent in {first}{more}: missing there"));
    }
    let values = match (first_of(UnionKind::Labels), first_of(UnionKind::Numbers), first_of(UnionKind::Text)) {
        (Some(labels), Some(numbers), _) => {
            return Err(format!("it is categorical in {labels}, but numbers or booleans in {numbers}"));
        }
        (_, Some(numbers), Some(text)) => {
            return Err(format!("it is text in {text}, but numbers or booleans in {numbers}"));
        }
        (_, Some(_), None) => numbers(times(parts, &mut rules)?, &mut rules),
        (Some(labels), None, text) => {
            if let Some(text) = text {
                rules.push(format!("categorical in {labels}, text in {text}: categorical, the texts are labels"));
            }
            categories(parts, &mut rules)
        }
        (None, None, _) => texts(parts),
    };
    Ok((values, rules))
}

/// Converts times of several units to the finest of them; times and numbers cannot be united.
fn times<'a>(mut parts: Vec<StoreColumn<'a>>, rules: &mut Vec<String>) -> Result<Vec<StoreColumn<'a>>, String> {
    let mut kinds: Vec<(Option<Time>, &str)> = Vec::new();
    for part in &parts {
        if let Some(Values::Numbers { time, .. }) = &part.values
            && !kinds.iter().any(|(known, _)| known == time)
        {
            kinds.push((*time, part.store));
        }
    }
    let [(first, first_store), rest @ ..] = kinds.as_slice() else { return Ok(parts) };
    let name = |time: &Option<Time>| time.map_or("numbers or booleans".to_owned(), |time| time.to_string());
    let finest = kinds.iter().filter_map(|(time, _)| *time).max_by_key(|time| time.unit);
    for (time, store) in rest {
        let fits = |time: &Option<Time>| time.zip(finest).is_some_and(|(time, finest)| time.steps_of(finest).is_some());
        if !fits(first) || !fits(time) {
            return Err(format!("it is {} in {first_store}, but {} in {store}", name(first), name(time)));
        }
    }
    let Some(finest) = finest.filter(|_| !rest.is_empty()) else { return Ok(parts) };
    for part in &mut parts {
        let Some(Values::Numbers { numbers, time: Some(time), .. }) = &mut part.values else { continue };
        let steps = time.steps_of(finest).unwrap_or(1);
        let scaled = |ticks: i64| if ticks == NOT_A_TIME { Some(ticks) } else { ticks.checked_mul(steps) };
        let all = |part: &[u8]| part.as_chunks().0.iter().map(|bytes| scaled(i64::from_le_bytes(*bytes))).collect();
        let mut bytes = Bytes::default();
        for ticks in numbers.bytes.parts() {
            let Some(ticks): Option<Vec<i64>> = all(ticks) else {
                return Err(format!(
                    "{} in {} has times that {finest} of other stores does not hold",
                    time, part.store
                ));
            };
            bytes.push(ticks.into_iter().flat_map(i64::to_le_bytes).collect());
        }
        (numbers.bytes, *time) = (bytes, finest);
    }
    let names: Vec<String> = kinds.iter().map(|(time, _)| name(time)).collect();
    rules.push(format!("{}: {finest}", names.join(" and ")));
    Ok(parts)
}

/// Numbers promoted as numpy does. Missing values are NaN if all columns are plain floats, else masked.
fn numbers(parts: Vec<StoreColumn<'_>>, rules: &mut Vec<String>) -> Values {
    let mut dtypes: Vec<Dtype> = Vec::new();
    let mut time = None;
    let (mut masked, mut plain, mut absent) = (false, false, false);
    for part in &parts {
        match &part.values {
            Some(Values::Numbers { numbers, mask, time: here }) => {
                time = time.or(*here);
                if !dtypes.contains(&numbers.dtype) {
                    dtypes.push(numbers.dtype);
                }
                masked |= mask.is_some();
                plain |= mask.is_none();
            }
            _ => absent = true,
        }
    }
    let dtype = dtypes.iter().copied().reduce(Dtype::promote).unwrap_or(Dtype::F64);
    if dtypes.len() > 1 {
        let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
        rules.push(format!("{}: {dtype}", names.join(" and ")));
    }
    if masked && plain {
        rules.push("nullable in some: nullable".to_owned());
    }
    let nullable = masked || (absent && !dtype.is_float() && time.is_none());
    let mut missing = vec![0; dtype.size()];
    if time.is_some() {
        missing = NOT_A_TIME.to_le_bytes().to_vec();
    } else if dtype.is_float() {
        cast(Dtype::F64, dtype, &f64::NAN.to_le_bytes(), &mut missing);
    }
    let (mut bytes, mut masks) = (Bytes::default(), Bytes::default());
    for part in parts {
        match part.values {
            Some(Values::Numbers { numbers, mask, .. }) => {
                let rows = numbers.len();
                if numbers.dtype == dtype {
                    bytes.append(numbers.bytes);
                } else {
                    numbers.bytes.parts().for_each(|part| bytes.push(promoted(numbers.dtype, dtype, part)));
                }
                if nullable {
                    masks.append(mask.unwrap_or_else(|| vec![0; rows].into()));
                }
            }
            _ => {
                bytes.push(missing.repeat(part.rows));
                if nullable {
                    masks.push(vec![1; part.rows]);
                }
            }
        }
    }
    Values::Numbers { numbers: Numbers { dtype, bytes }, mask: nullable.then_some(masks), time }
}

fn promoted(from: Dtype, to: Dtype, numbers: &[u8]) -> Vec<u8> {
    let mut out = vec![0; numbers.len() / from.size() * to.size()];
    cast(from, to, numbers, &mut out);
    out
}

fn texts(parts: Vec<StoreColumn<'_>>) -> Values {
    let (mut all, mut masks, mut nullable, mut chars, mut bytes) = (Texts::default(), Bytes::default(), false, 0, 0);
    for part in parts {
        if let Some(Values::Text { texts, mask, chars: c, bytes: b }) = part.values {
            nullable |= mask.is_some();
            masks.append(mask.unwrap_or_else(|| vec![0; texts.len()].into()));
            let offset = all.bytes.len() as u64;
            all.bytes.push_str(&texts.bytes);
            all.ends.extend(texts.ends.iter().map(|end| end + offset));
            chars = chars.max(c);
            bytes = bytes.max(b);
        } else {
            nullable = true;
            masks.push(vec![1; part.rows]);
            all.ends.resize(all.ends.len() + part.rows, all.bytes.len() as u64);
        }
    }
    Values::Text { texts: all, mask: nullable.then_some(masks), chars, bytes }
}

/// Converts text to codes of its distinct strings, in order of first appearance; masked values are missing.
fn labelled(texts: &Texts, mask: Option<&Bytes>) -> (Numbers, Categories) {
    let (mut labels, mut known) = (Vec::new(), HashMap::new());
    let code = |i: usize| {
        if mask.is_some_and(|mask| mask[i] != 0) {
            return -1;
        }
        let text = texts.at(i);
        *known.entry(text).or_insert_with(|| {
            labels.push(text.to_owned());
            i32::try_from(labels.len() - 1).unwrap_or(-1)
        })
    };
    let bytes: Vec<u8> = (0..texts.len()).map(code).flat_map(i32::to_le_bytes).collect();
    (Numbers { dtype: Dtype::I32, bytes: bytes.into() }, Categories { labels, numbers: None })
}

/// A store's codes, and the new code for each old one; `None` where the store lacks the column.
type Coded = (Numbers, Vec<usize>);

/// Unites categories by label. They stay numbers if all are integers; they stay ordered if all stores have the same, ordered.
fn categories(parts: Vec<StoreColumn<'_>>, rules: &mut Vec<String>) -> Values {
    let mut labels: Vec<String> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let number = number_dtype(&parts, rules);
    let mut numbers: Vec<u8> = Vec::new();
    let (mut orders, mut first): (Vec<bool>, Option<Vec<String>>) = (Vec::new(), None);
    let mut same = true;
    let mut coded: Vec<(usize, Option<Coded>)> = Vec::with_capacity(parts.len());
    for part in parts {
        let (codes, categories) = match part.values {
            Some(Values::Categorical { codes, categories, ordered }) => {
                orders.push(ordered);
                (codes, categories)
            }
            Some(Values::Text { texts, mask, .. }) => {
                orders.push(false);
                labelled(&texts, mask.as_ref())
            }
            _ => {
                coded.push((part.rows, None));
                continue;
            }
        };
        same &= first.get_or_insert_with(|| categories.labels.clone()) == &categories.labels;
        let mut recode: Vec<usize> = Vec::with_capacity(categories.labels.len());
        for (code, label) in categories.labels.into_iter().enumerate() {
            recode.push(*known.entry(label.clone()).or_insert_with(|| {
                labels.push(label);
                if let (Some(dtype), Some(here)) = (number, &categories.numbers) {
                    numbers.extend(promoted(here.dtype, dtype, here.at(code)));
                }
                labels.len() - 1
            }));
        }
        coded.push((part.rows, Some((codes, recode))));
    }
    let any_ordered = orders.contains(&true);
    let ordered = same && orders.iter().all(|&ordered| ordered);
    if any_ordered && !ordered {
        let why = if same { "ordered in some" } else { "ordered, with other categories" };
        rules.push(format!("{why}: unordered"));
    }
    let dtype = Values::code_dtype(labels.len());
    let mut bytes = Bytes::default();
    for (rows, codes) in coded {
        match codes {
            None => bytes.push(vec![0xff; rows * dtype.size()]),
            // Unchanged codes are not copied; they may be mapped.
            Some((codes, recode)) if codes.dtype == dtype && recode.iter().copied().eq(0..recode.len()) => {
                bytes.append(codes.bytes);
            }
            Some((codes, recode)) => {
                codes.bytes.parts().for_each(|part| bytes.push(recoded(codes.dtype, part, &recode, dtype)));
            }
        }
    }
    let numbers = number.map(|dtype| Numbers { dtype, bytes: numbers.into() });
    Values::Categorical { codes: Numbers { dtype, bytes }, categories: Categories { labels, numbers }, ordered }
}

/// Translates a store's codes to those of the collection, in its dtype.
fn recoded(from: Dtype, codes: &[u8], recode: &[usize], to: Dtype) -> Vec<u8> {
    let code = |code: &[u8]| {
        let code = usize::try_from(to_i64(from, code)).ok().and_then(|code| recode.get(code));
        code.map_or(-1, |&code| i64::try_from(code).unwrap_or(-1))
    };
    let mut out = Vec::with_capacity(codes.len() / from.size() * to.size());
    for code in codes.chunks_exact(from.size()).map(code) {
        out.extend_from_slice(&code.to_le_bytes()[..to.size()]);
    }
    out
}

/// The dtype of united categories if they are numbers in all stores: the common one, or one that holds all integers.
fn number_dtype(parts: &[StoreColumn<'_>], rules: &mut Vec<String>) -> Option<Dtype> {
    let mut dtypes: Vec<Option<Dtype>> = Vec::new();
    for part in parts {
        let dtype = match &part.values {
            Some(Values::Categorical { categories, .. }) => categories.numbers.as_ref().map(|numbers| numbers.dtype),
            Some(_) => None,
            None => continue,
        };
        if !dtypes.contains(&dtype) {
            dtypes.push(dtype);
        }
    }
    if let [only] = dtypes.as_slice() {
        return *only;
    }
    let name = |dtype: &Option<Dtype>| dtype.map_or("strings", Dtype::name);
    let names = dtypes.iter().map(name).collect::<Vec<_>>().join(" and ");
    let whole = |dtype: Dtype| !dtype.is_float() && dtype != Dtype::Bool;
    let all: Option<Vec<Dtype>> = dtypes.iter().map(|dtype| dtype.filter(|&dtype| whole(dtype))).collect();
    let promoted = all.and_then(|all| all.into_iter().reduce(Dtype::promote)).filter(|&dtype| whole(dtype));
    let result = promoted.map_or("strings", Dtype::name);
    rules.push(format!("categories of {names}: {result}"));
    promoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn categorical(codes: &[i8], labels: &[&str], ordered: bool) -> Values {
        Values::Categorical {
            codes: Numbers { dtype: Dtype::I8, bytes: codes.iter().map(|&code| code as u8).collect::<Vec<_>>().into() },
            categories: Categories { labels: labels.iter().map(|&l| l.to_owned()).collect(), numbers: None },
            ordered,
        }
    }

    fn bytes(dtype: Dtype, bytes: &[u8], mask: Option<&[u8]>) -> Values {
        let mask = mask.map(|mask| mask.to_vec().into());
        Values::Numbers { numbers: Numbers { dtype, bytes: bytes.to_vec().into() }, mask, time: None }
    }

    fn text(strings: &[&str]) -> Values {
        let mut texts = Texts::default();
        strings.iter().for_each(|string| texts.push(string));
        Values::Text { texts, mask: None, chars: 1, bytes: 1 }
    }

    fn join(parts: Vec<Option<Values>>) -> Result<(Values, Vec<String>), String> {
        unite(parts.into_iter().map(|values| StoreColumn { store: "s", rows: 2, values }).collect())
    }

    #[test]
    fn categories_unite_in_order_of_first_appearance() {
        let parts = [categorical(&[1, -1, 0], &["b", "a"], true), categorical(&[0, 1, -1], &["c", "b"], true)];
        let (values, rules) = join(parts.map(Some).into()).unwrap();
        assert_eq!(values, categorical(&[1, -1, 0, 2, 0, -1], &["b", "a", "c"], false));
        assert_eq!(rules, ["ordered, with other categories: unordered"]);
        let parts = [categorical(&[1], &["b", "a"], true), categorical(&[0], &["b", "a"], true)];
        assert_eq!(join(parts.map(Some).into()), Ok((categorical(&[1, 0], &["b", "a"], true), vec![])));
        let parts = [categorical(&[1], &["b", "a"], true), categorical(&[0], &["b", "a"], false)];
        let (values, rules) = join(parts.map(Some).into()).unwrap();
        assert_eq!(
            (values, rules[0].as_str()),
            (categorical(&[1, 0], &["b", "a"], false), "ordered in some: unordered")
        );
    }

    #[test]
    fn text_becomes_labels_and_absent_is_missing() {
        let (values, rules) =
            join(vec![Some(categorical(&[0], &["b"], false)), None, Some(text(&["a", "b"]))]).unwrap();
        assert_eq!(values, categorical(&[0, -1, -1, 1, 0], &["b", "a"], false));
        assert_eq!(rules.len(), 2, "{rules:?}");
    }

    #[test]
    fn numbers_promote_and_keep_masks() {
        let parts = vec![Some(bytes(Dtype::I8, &[255], None)), Some(bytes(Dtype::U8, &[255], Some(&[1])))];
        let (values, rules) = join(parts).unwrap();
        assert_eq!(values, bytes(Dtype::I16, &[255, 255, 255, 0], Some(&[0, 1])));
        assert_eq!(rules, ["int8 and uint8: int16", "nullable in some: nullable"]);
    }

    #[test]
    fn absent_numbers_are_masked_and_absent_floats_nan() {
        let (values, _) = join(vec![Some(bytes(Dtype::Bool, &[1], None)), None]).unwrap();
        assert_eq!(values, bytes(Dtype::Bool, &[1, 0, 0], Some(&[0, 1, 1])));
        let (values, rules) = join(vec![None, Some(bytes(Dtype::F16, &[0, 0x3c], None))]).unwrap();
        assert_eq!(values, bytes(Dtype::F16, &[0, 0x7e, 0, 0x7e, 0, 0x3c], None));
        assert_eq!(rules, ["absent in s: missing there"]);
    }

    #[test]
    fn labels_and_numbers_do_not_fit() {
        let reason = join(vec![Some(text(&["a"])), Some(bytes(Dtype::I8, &[1], None))]).unwrap_err();
        assert!(reason.contains("text in s"), "{reason}");
        let parts = vec![Some(bytes(Dtype::I8, &[1], None)), Some(categorical(&[0], &["b"], false))];
        assert!(join(parts).unwrap_err().contains("categorical in s"));
    }
}
