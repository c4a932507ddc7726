//! One column of many stores: the rules where they differ (docs/columns.md).

use std::collections::HashMap;

use crate::anndata::column::{Categories, Numbers, Texts, Values};
use crate::array::Dtype;
use crate::array::cast::cast;

/// The column in one store; `None` where it has no such column.
pub struct Part<'a> {
    pub store: &'a str,
    pub rows: usize,
    pub values: Option<Values>,
}

/// What a column is, as far as joining goes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Labels,
    Numbers,
    Text,
}

impl Kind {
    fn of(values: &Values) -> Kind {
        match values {
            Values::Categorical { .. } => Kind::Labels,
            Values::Numbers { .. } => Kind::Numbers,
            Values::Text { .. } => Kind::Text,
        }
    }
}

/// The parts end to end with the rules that it took, or why they do not fit together.
pub fn unite(mut parts: Vec<Part<'_>>) -> Result<(Values, Vec<String>), String> {
    if let [part] = parts.as_mut_slice()
        && let Some(values) = part.values.take()
    {
        return Ok((values, Vec::new()));
    }
    let kinds: Vec<(Kind, &str)> =
        parts.iter().filter_map(|part| part.values.as_ref().map(|values| (Kind::of(values), part.store))).collect();
    let first_of = |kind| kinds.iter().find(|(other, _)| *other == kind).map(|(_, store)| *store);
    let mut rules = Vec::new();
    let absent: Vec<&str> = parts.iter().filter(|part| part.values.is_none()).map(|part| part.store).collect();
    if let [first, rest @ ..] = absent.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        rules.push(format!("absent in {first}{more}: missing there"));
    }
    let values = match (first_of(Kind::Labels), first_of(Kind::Numbers), first_of(Kind::Text)) {
        (Some(labels), Some(numbers), _) => {
            return Err(format!("it is categorical in {labels}, but numbers or booleans in {numbers}"));
        }
        (_, Some(numbers), Some(text)) => {
            return Err(format!("it is text in {text}, but numbers or booleans in {numbers}"));
        }
        (_, Some(_), None) => numbers(parts, &mut rules),
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

/// Promoted as numpy does; what is missing is NaN if all are plain floats, else masked.
fn numbers(parts: Vec<Part<'_>>, rules: &mut Vec<String>) -> Values {
    let mut dtypes: Vec<Dtype> = Vec::new();
    let (mut masked, mut plain, mut absent) = (false, false, false);
    for part in &parts {
        match &part.values {
            Some(Values::Numbers { numbers, mask }) => {
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
    let nullable = masked || (absent && !dtype.is_float());
    let mut missing = vec![0; dtype.size()];
    if dtype.is_float() {
        cast(Dtype::F64, dtype, &f64::NAN.to_le_bytes(), &mut missing);
    }
    let (mut bytes, mut masks) = (Vec::new(), Vec::new());
    for part in parts {
        match part.values {
            Some(Values::Numbers { numbers, mask }) => {
                let start = bytes.len();
                bytes.resize(start + numbers.len() * dtype.size(), 0);
                cast(numbers.dtype, dtype, &numbers.bytes, &mut bytes[start..]);
                masks.extend(mask.unwrap_or_else(|| vec![0; numbers.len()]));
            }
            _ => {
                bytes.extend(std::iter::repeat_n(&missing, part.rows).flatten());
                masks.resize(masks.len() + part.rows, 1);
            }
        }
    }
    Values::Numbers { numbers: Numbers { dtype, bytes }, mask: nullable.then_some(masks) }
}

fn texts(parts: Vec<Part<'_>>) -> Values {
    let (mut all, mut masks, mut nullable, mut chars, mut bytes) = (Texts::default(), Vec::new(), false, 0, 0);
    for part in parts {
        if let Some(Values::Text { texts, mask, chars: c, bytes: b }) = part.values {
            nullable |= mask.is_some();
            masks.extend(mask.unwrap_or_else(|| vec![0; texts.len()]));
            let offset = all.bytes.len() as u64;
            all.bytes.push_str(&texts.bytes);
            all.ends.extend(texts.ends.iter().map(|end| end + offset));
            chars = chars.max(c);
            bytes = bytes.max(b);
        } else {
            nullable = true;
            masks.resize(masks.len() + part.rows, 1);
            all.ends.resize(all.ends.len() + part.rows, all.bytes.len() as u64);
        }
    }
    Values::Text { texts: all, mask: nullable.then_some(masks), chars, bytes }
}

/// Text as codes of its distinct strings, in order of first appearance; what is masked is missing.
fn labelled(texts: &Texts, mask: Option<&[u8]>) -> (Vec<i64>, Categories) {
    let (mut labels, mut known) = (Vec::new(), HashMap::new());
    let code = |i: usize| {
        if mask.is_some_and(|mask| mask.get(i).is_some_and(|&m| m != 0)) {
            return -1;
        }
        let text = texts.at(i);
        *known.entry(text).or_insert_with(|| {
            labels.push(text.to_owned());
            labels.len() as i64 - 1
        })
    };
    let codes = (0..texts.len()).map(code).collect();
    (codes, Categories { labels, numbers: None })
}

/// Categories united by label. They stay numbers where all are whole numbers; ordered where all have the same, ordered.
fn categories(parts: Vec<Part<'_>>, rules: &mut Vec<String>) -> Values {
    let mut labels: Vec<String> = Vec::new();
    let mut known: HashMap<String, i64> = HashMap::new();
    let mut codes: Vec<i64> = Vec::new();
    let number = number_dtype(&parts, rules);
    let mut numbers = number.map(|dtype| Numbers { dtype, bytes: Vec::new() });
    let (mut orders, mut first): (Vec<bool>, Option<Vec<String>>) = (Vec::new(), None);
    let mut same = true;
    for part in parts {
        let (part_codes, categories) = match part.values {
            Some(Values::Categorical { codes, categories, ordered }) => {
                orders.push(ordered);
                let mut wide = vec![0; codes.len() * 8];
                cast(codes.dtype, Dtype::I64, &codes.bytes, &mut wide);
                (wide.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(), categories)
            }
            Some(Values::Text { texts, mask, .. }) => {
                orders.push(false);
                labelled(&texts, mask.as_deref())
            }
            _ => {
                codes.resize(codes.len() + part.rows, -1);
                continue;
            }
        };
        same &= first.get_or_insert_with(|| categories.labels.clone()) == &categories.labels;
        let mut recode: Vec<i64> = Vec::with_capacity(categories.labels.len());
        for (code, label) in categories.labels.into_iter().enumerate() {
            recode.push(*known.entry(label.clone()).or_insert_with(|| {
                labels.push(label);
                if let (Some(all), Some(here)) = (&mut numbers, &categories.numbers) {
                    let start = all.bytes.len();
                    all.bytes.resize(start + all.dtype.size(), 0);
                    cast(here.dtype, all.dtype, here.at(code), &mut all.bytes[start..]);
                }
                labels.len() as i64 - 1
            }));
        }
        let recoded = |code: i64| usize::try_from(code).ok().and_then(|code| recode.get(code)).copied().unwrap_or(-1);
        codes.extend(part_codes.into_iter().map(recoded));
    }
    let any_ordered = orders.contains(&true);
    let ordered = same && orders.iter().all(|&ordered| ordered);
    if any_ordered && !ordered {
        let why = if same { "ordered in some" } else { "ordered, with other categories" };
        rules.push(format!("{why}: unordered"));
    }
    let dtype = Values::code_dtype(labels.len());
    let wide: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
    let mut bytes = vec![0; codes.len() * dtype.size()];
    cast(Dtype::I64, dtype, &wide, &mut bytes);
    Values::Categorical { codes: Numbers { dtype, bytes }, categories: Categories { labels, numbers }, ordered }
}

/// The dtype of united categories that are numbers everywhere: one dtype, or whole numbers of several.
fn number_dtype(parts: &[Part<'_>], rules: &mut Vec<String>) -> Option<Dtype> {
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
            codes: Numbers { dtype: Dtype::I8, bytes: codes.iter().map(|&code| code as u8).collect() },
            categories: Categories { labels: labels.iter().map(|&l| l.to_owned()).collect(), numbers: None },
            ordered,
        }
    }

    fn bytes(dtype: Dtype, bytes: &[u8], mask: Option<&[u8]>) -> Values {
        Values::Numbers { numbers: Numbers { dtype, bytes: bytes.to_vec() }, mask: mask.map(<[u8]>::to_vec) }
    }

    fn text(strings: &[&str]) -> Values {
        let mut texts = Texts::default();
        strings.iter().for_each(|string| texts.push(string));
        Values::Text { texts, mask: None, chars: 1, bytes: 1 }
    }

    fn join(parts: Vec<Option<Values>>) -> Result<(Values, Vec<String>), String> {
        unite(parts.into_iter().map(|values| Part { store: "s", rows: 2, values }).collect())
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
