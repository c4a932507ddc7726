//! Sets and bags as obs columns: categorical columns `set` and `bag` whose labels combine those of the grouping columns; the columns of
//! the user's table of bags; and a table of all groups, served beside the labels.
//!
//! The columns are made once for all stores, before views, so a group has the same code in every view, epoch and format.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use crate::anndata::bytes::Bytes;
use crate::anndata::column::{Categories, Column, Numbers, Values};
use crate::array::cast::{to_i64, to_text};
use crate::array::{Counters, Dtype};
use crate::collection::{Collection, Table};
use crate::format::escape;
use crate::plan::NO_CLASS;

use super::error::{About, SessionError};
use super::obs::{Labels, Obs};
use super::spec::{GroupSpec, Spec};

/// All groups of one kind, as a file in `categories/`.
pub struct GroupTable {
    /// `set` or `bag`.
    pub column: &'static str,
    /// Tab-separated: code, labels, number of rows, and columns that are constant within each bag.
    pub text: String,
}

impl GroupTable {
    /// Its file name in `categories/`.
    pub fn file(&self) -> String {
        format!("{}s.tsv", self.column)
    }
}

/// Adds the columns of sets and bags to the table, as views need them.
///
/// # Errors
/// Missing columns or ones without labels; views that group in different ways; a table that does not match the bags.
pub fn add(spec: &Spec, collection: &mut Collection, counters: &Counters) -> Result<Vec<GroupTable>, SessionError> {
    let mut tables = Vec::new();
    for column in [GroupSpec::SET, GroupSpec::BAG] {
        let of_views = spec.views.iter().filter_map(|view| view.draw.groups.as_ref());
        let mut of_kind = of_views.filter(|groups| groups.column == column);
        let Some(first) = of_kind.next() else { continue };
        if of_kind.any(|other| (&other.by, &other.table) != (&first.by, &first.table)) {
            return Err(SessionError::Refused(format!(
                "views make {column}s in several ways: all of a mount must have the same {column}-by"
            )));
        }
        if collection.table.columns.iter().any(|other| other.name == column) {
            return Err(SessionError::Refused(format!(
                "{column}-by adds an obs column {column}, and there is one: name the columns to serve with --obs, without it"
            )));
        }
        let (groups, made) = {
            let mut obs = Obs::new(collection, counters)?;
            let groups = joined(&mut obs, &first.by).about(format_args!("{column}-by"))?;
            let made = first.table.as_deref().map(|file| described(&groups, &first.by, file, &obs.collection.table));
            (groups, made.transpose()?.unwrap_or_default())
        };
        let text = told(&groups, first, &made, &collection.table);
        tables.push(GroupTable { column, text });
        let columns = Arc::make_mut(&mut collection.table.columns);
        columns.extend(made.into_iter().map(|(column, _)| column));
        columns.push(groups.into_column(column));
    }
    Ok(tables)
}

/// The group of each row.
struct Groups {
    /// The group of each row; [`NO_CLASS`] if one of the grouping columns has no label.
    codes: Vec<u32>,
    /// The labels of each group in the grouping columns; groups are ordered by the columns' codes.
    labels: Vec<Vec<String>>,
}

impl Groups {
    fn into_column(self, name: &str) -> Column {
        let labels: Vec<String> = self.labels.iter().map(|parts| label(parts)).collect();
        let codes = numbers(Values::code_dtype(labels.len()), self.codes.iter().map(|&code| i64::from(code as i32)));
        let categories = Categories { labels, numbers: None };
        Column { name: name.to_owned(), values: Values::Categorical { codes, categories, ordered: false } }
    }
}

/// The label of a group: its labels joined by `|`, with `\` before a `|` within one.
fn label(parts: &[String]) -> String {
    match parts {
        [one] => one.clone(),
        several => {
            let escaped: Vec<String> =
                several.iter().map(|part| part.replace('\\', "\\\\").replace('|', "\\|")).collect();
            escaped.join("|")
        }
    }
}

fn numbers(dtype: Dtype, values: impl Iterator<Item = i64>) -> Numbers {
    let size = dtype.size();
    Numbers { dtype, bytes: values.flat_map(|value| value.to_le_bytes().into_iter().take(size)).collect() }
}

/// Groups rows by several columns. Only combinations that occur are groups.
fn joined(obs: &mut Obs<'_>, by: &[String]) -> Result<Groups, SessionError> {
    let mut all = Groups { codes: Vec::new(), labels: vec![Vec::new()] };
    for (number, name) in by.iter().enumerate() {
        let Labels { codes, labels } = obs.labels(name)?;
        let before = |row: usize| if number == 0 { 0 } else { all.codes[row] };
        let pair = |(row, &code): (usize, &u32)| (before(row), code);
        let is_there = |pair: &(u32, u32)| pair.0 != NO_CLASS && pair.1 != NO_CLASS;
        let mut known: Vec<(u32, u32)> =
            codes.iter().enumerate().map(pair).filter(is_there).collect::<HashSet<_>>().into_iter().collect();
        known.sort_unstable();
        let numbers: HashMap<(u32, u32), u32> = known.iter().copied().zip(0..).collect();
        let joined = codes.iter().enumerate().map(pair).map(|pair| numbers.get(&pair).copied().unwrap_or(NO_CLASS));
        let joined = joined.collect();
        let parts = |&(group, code): &(u32, u32)| {
            let mut parts = all.labels[group as usize].clone();
            parts.push(labels.get(code as usize).cloned().unwrap_or_default());
            parts
        };
        all = Groups { labels: known.iter().map(parts).collect(), codes: joined };
    }
    if all.labels.is_empty() {
        return Err(SessionError::Refused(format!("no row has a label in {}", by.join(" and "))));
    }
    Ok(all)
}

/// A column of the user's table: by row, and as a text for each group.
type Described = (Column, Vec<String>);

/// The columns of the user's table, which has a line for each group.
///
/// # Errors
/// The file is not such a table; it lacks groups; a column of its name exists.
fn described(groups: &Groups, by: &[String], file: &Path, table: &Table) -> Result<Vec<Described>, SessionError> {
    let about = format!("bag-table {}", file.display());
    let refused = |cause: String| SessionError::Refused(format!("{about}: {cause}"));
    let text = std::fs::read_to_string(file).about(&about)?;
    let mut lines = text.lines().map(|line| line.split('\t').collect::<Vec<&str>>()).zip(1..);
    let (header, _) = lines.next().ok_or_else(|| refused("it has no line of names".into()))?;
    let place = |name: &String| {
        let place = header.iter().position(|other| other == name);
        place.ok_or_else(|| {
            refused(format!("it has no column {name}, which bags are made by; its columns are {}", header.join(", ")))
        })
    };
    let keys: Vec<usize> = by.iter().map(place).collect::<Result<_, _>>()?;
    let others: Vec<usize> = (0..header.len()).filter(|at| !keys.contains(at)).collect();
    for &at in &others {
        let is_twice = header.iter().filter(|name| **name == header[at]).count() > 1;
        if is_twice || table.columns.iter().any(|column| column.name == header[at]) || header[at] == GroupSpec::BAG {
            return Err(refused(format!("a column {} is there already: rename it", header[at])));
        }
    }
    let number: HashMap<&[String], usize> = groups.labels.iter().map(Vec::as_slice).zip(0..).collect();
    let mut found: Vec<Option<Vec<&str>>> = vec![None; groups.labels.len()];
    let mut unknown = 0u64;
    for (fields, line) in lines.filter(|(fields, _)| fields.iter().any(|field| !field.is_empty())) {
        if fields.len() != header.len() {
            let (has, wanted) = (fields.len(), header.len());
            return Err(refused(format!("line {line} has {has} fields, and the first {wanted}")));
        }
        let key: Vec<String> = keys.iter().map(|&at| fields[at].to_owned()).collect();
        let Some(&group) = number.get(key.as_slice()) else {
            unknown += 1;
            continue;
        };
        if found[group].is_some() {
            return Err(refused(format!("line {line} tells of {} again", label(&key))));
        }
        found[group] = Some(others.iter().map(|&at| fields[at]).collect());
    }
    let missing: Vec<String> =
        groups.labels.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(parts, _)| label(parts)).collect();
    if !missing.is_empty() {
        let (count, all) = (missing.len(), groups.labels.len());
        let some = missing.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        return Err(refused(format!("{count} of {all} bags have no line, such as {some}")));
    }
    if unknown > 0 {
        tracing::info!("{about}: {unknown} lines tell of bags that no row is of");
    }
    let values = |at: usize| found.iter().flatten().map(|fields| fields[at].to_owned()).collect::<Vec<String>>();
    let column = |(at, &place): (usize, &usize)| {
        let texts = values(at);
        (Column { name: header[place].to_owned(), values: spread(&texts, &groups.codes) }, texts)
    };
    Ok(others.iter().enumerate().map(column).collect())
}

/// Expands a text for each group to a value for each row: numbers if all are, else labels. An empty text is missing, and `NA` among
/// numbers.
fn spread(of_groups: &[String], codes: &[u32]) -> Values {
    let is_missing = |text: &String| text.is_empty() || text == "NA";
    let there = || of_groups.iter().filter(|text| !is_missing(text));
    let of = |code: u32| of_groups.get(code as usize);
    let all_have = codes.iter().all(|&code| of(code).is_some_and(|text| !is_missing(text)));
    if all_have && there().all(|text| text.parse::<i64>().is_ok()) {
        let value = |&code: &u32| of(code).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
        return Values::plain(numbers(Dtype::I64, codes.iter().map(value)));
    }
    if there().next().is_some() && there().all(|text| text.parse::<f64>().is_ok()) {
        let value = |&code: &u32| of(code).and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
        let bytes = codes.iter().map(value).flat_map(f64::to_le_bytes).collect();
        return Values::plain(Numbers { dtype: Dtype::F64, bytes });
    }
    let mut labels: Vec<String> = of_groups.iter().filter(|text| !text.is_empty()).cloned().collect();
    labels.sort_unstable();
    labels.dedup();
    let code_of = |code: &u32| {
        let place = of(*code).and_then(|text| labels.binary_search(text).ok());
        place.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1)
    };
    let codes = numbers(Values::code_dtype(labels.len()), codes.iter().map(code_of));
    Values::Categorical { codes, categories: Categories { labels, numbers: None }, ordered: false }
}

/// The table of groups: code, labels, number of rows; for bags also columns that are constant within each, and the user's columns.
fn told(groups: &Groups, spec: &GroupSpec, described: &[Described], table: &Table) -> String {
    let mut rows = vec![0u64; groups.labels.len()];
    let mut first = vec![usize::MAX; groups.labels.len()];
    for (row, code) in codes_of(groups) {
        rows[code] += 1;
        first[code] = first[code].min(row);
    }
    let is_bag = spec.column == GroupSpec::BAG;
    let alike: Vec<&Column> = table
        .columns
        .iter()
        .filter(|column| is_bag && !spec.by.contains(&column.name))
        .filter(|column| codes_of(groups).all(|(row, code)| is_same(&column.values, row, first[code])))
        .collect();
    let names = spec.by.iter().map(String::as_str).chain(["rows"]);
    let names = names.chain(alike.iter().map(|column| column.name.as_str()));
    let names = names.chain(described.iter().map(|(column, _)| column.name.as_str()));
    let mut text = spec.column.to_owned();
    let field = |value: &str, text: &mut String| {
        text.push('\t');
        escape(value, text);
    };
    names.for_each(|name| field(name, &mut text));
    text.push('\n');
    for (number, parts) in groups.labels.iter().enumerate() {
        let _ = write!(text, "{number}");
        parts.iter().for_each(|part| field(part, &mut text));
        field(&rows[number].to_string(), &mut text);
        alike.iter().for_each(|column| field(&value(&column.values, first[number]), &mut text));
        described.iter().for_each(|(_, values)| field(&values[number], &mut text));
        text.push('\n');
    }
    text
}

/// The rows that are in a group, each with its group.
fn codes_of(groups: &Groups) -> impl Iterator<Item = (usize, usize)> {
    groups.codes.iter().enumerate().filter(|(_, code)| **code != NO_CLASS).map(|(row, &code)| (row, code as usize))
}

fn is_missing(mask: Option<&Bytes>, row: usize) -> bool {
    mask.is_some_and(|mask| mask[row] != 0)
}

fn is_same(values: &Values, a: usize, b: usize) -> bool {
    match values {
        Values::Categorical { codes, .. } => codes.at(a) == codes.at(b),
        Values::Numbers { numbers, mask, .. } => {
            let missing = is_missing(mask.as_ref(), a);
            missing == is_missing(mask.as_ref(), b) && (missing || numbers.at(a) == numbers.at(b))
        }
        Values::Text { texts, mask, .. } => {
            let missing = is_missing(mask.as_ref(), a);
            missing == is_missing(mask.as_ref(), b) && (missing || texts.at(a) == texts.at(b))
        }
    }
}

/// A value as text; empty if missing.
fn value(values: &Values, row: usize) -> String {
    match values {
        Values::Categorical { codes, categories, .. } => {
            let code = usize::try_from(to_i64(codes.dtype, codes.at(row))).ok();
            code.and_then(|code| categories.labels.get(code).cloned()).unwrap_or_default()
        }
        Values::Numbers { mask, .. } | Values::Text { mask, .. } if is_missing(mask.as_ref(), row) => String::new(),
        Values::Numbers { numbers, time: Some(time), .. } => time.text(to_i64(numbers.dtype, numbers.at(row))),
        Values::Numbers { numbers, .. } => to_text(numbers.dtype, numbers.at(row)),
        Values::Text { texts, .. } => texts.at(row).to_owned(),
    }
}
