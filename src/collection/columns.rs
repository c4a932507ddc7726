//! obs columns of many stores as one: categories united in order of first appearance, numbers promoted.
//!
//! Each way in which stores can differ has one rule: docs/columns.md states it, and dataset.json names it for each column it
//! applies to.

mod unite;

use std::collections::HashSet;

use crate::anndata::column::{Column, Numbers, Values};
use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::anndata::names::Frame;
use crate::array::{ArrayError, Counters, Dtype};
use crate::number::as_usize;

use super::{CollectionError, Selection, Store, Visit};

/// obs columns of a collection.
#[derive(Default)]
pub struct ObsColumns {
    pub columns: Vec<Column>,
    /// Columns that are not served, each with the reason.
    pub left_out: Vec<(String, String)>,
    /// Columns that differ between stores, each with what was done.
    pub joined: Vec<(String, String)>,
}

/// The obs of a store, with its mapped columns. An enum column that the user names gives labels.
fn obs(store: &Store, named: bool) -> Result<DataFrame<'_>, ArrayError> {
    Ok(DataFrame::open(&*store.container, Frame::Obs)?.with(store.row_index()).enums_as_labels(named))
}

/// Reads the columns named, or every categorical, boolean and numeric one of any store.
///
/// # Errors
/// A named column that no store has or that cannot be served; a served column that is damaged.
pub fn read(stores: &[Store], selection: &Selection, counters: &Counters) -> Result<ObsColumns, CollectionError> {
    let named = selection.obs.as_deref();
    let frames = stores.iter().map(|store| obs(store, named.is_some())).collect::<Result<Vec<_>, _>>()?;
    let mut known = HashSet::new();
    let candidates: Vec<String> = match named {
        Some(names) => names.iter().filter(|name| known.insert(*name)).cloned().collect(),
        None => frames.iter().flat_map(|frame| &frame.columns).filter(|name| known.insert(*name)).cloned().collect(),
    };
    let mut read = ObsColumns::default();
    for name in candidates {
        match one(stores, &frames, &name, named.is_some(), selection.visit, counters)? {
            Ok((values, rules)) => {
                if !rules.is_empty() {
                    read.joined.push((name.clone(), rules.join("; ")));
                }
                read.columns.push(Column { name, values });
            }
            Err(reason) if named.is_none() || selection.is_partial() => read.left_out.push((name, reason)),
            Err(reason) => return Err(CollectionError::Option(format!("--obs {name}: {reason}"))),
        }
    }
    Ok(read)
}

/// Names of the columns of any store, in order of first appearance.
pub fn names(stores: &[Store]) -> Result<Vec<String>, CollectionError> {
    let mut known = HashSet::new();
    let mut names = Vec::new();
    for store in stores {
        let frame = DataFrame::open(&*store.container, Frame::Obs)?;
        names.extend(frame.columns.iter().filter(|name| known.insert((*name).clone())).cloned());
    }
    Ok(names)
}

/// One column over all stores, whether it is served or not.
///
/// # Errors
/// No store has it, it cannot be read, or its stores do not fit together.
pub fn read_one(
    stores: &[Store],
    name: &str,
    visit: Option<Visit>,
    counters: &Counters,
) -> Result<Values, CollectionError> {
    let frames = stores.iter().map(|store| obs(store, false)).collect::<Result<Vec<_>, _>>()?;
    match one(stores, &frames, name, true, visit, counters)? {
        Ok((values, _)) => Ok(values),
        Err(reason) => Err(CollectionError::Option(format!("obs column {name}: {reason}"))),
    }
}

/// One column over all stores and the rules that it took, or the reason why it is not served.
fn one(
    stores: &[Store],
    frames: &[DataFrame<'_>],
    name: &str,
    named: bool,
    visit: Option<Visit>,
    counters: &Counters,
) -> Result<Result<(Values, Vec<String>), String>, CollectionError> {
    let mut kinds = Vec::with_capacity(stores.len());
    for (store, frame) in stores.iter().zip(frames) {
        let kind = if frame.columns.iter().any(|column| column == name) { Some(frame.kind(name)?) } else { None };
        if kind == Some(ColumnKind::Other) {
            return Ok(Err(format!("in {} it is {}, which is not read", store.container.name(), frame.what(name)?)));
        }
        kinds.push(kind);
    }
    let mut there = kinds.iter().flatten().peekable();
    if there.peek().is_none() {
        let first = frames.first().map(|frame| list(&frame.columns)).unwrap_or_default();
        return Ok(Err(format!("no store has such a column (the first has {first})")));
    }
    // A store that the probe has not may hold labels.
    let all = visit.is_none_or(|visit| !visit.partial);
    if all && !named && there.all(|&kind| kind == ColumnKind::Text) {
        return Ok(Err("text is served when named in --obs".to_owned()));
    }
    let mut parts = Vec::with_capacity(stores.len());
    for ((store, frame), kind) in stores.iter().zip(frames).zip(kinds) {
        if let Some(visit) = visit {
            (visit.tell)(store.container.name());
        }
        let rows = as_usize(store.rows);
        let values = match kind {
            None => None,
            Some(_) => match frame.column(name, counters) {
                Ok(column) => Some(column.values),
                Err(ArrayError::Unsupported { cause, .. }) if !named => return Ok(Err(cause)),
                Err(error) => return Err(error.into()),
            },
        };
        parts.push(unite::StoreColumn { store: store.container.name(), rows, values });
    }
    // The probe has only looked at large columns: there is nothing to unite.
    if visit.is_some() {
        let numbers = Numbers { dtype: Dtype::Bool, bytes: Default::default() };
        return Ok(Ok((Values::plain(numbers), Vec::new())));
    }
    Ok(unite::unite(parts))
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names if names.len() > 20 => format!("{}, and {} more", names[..20].join(", "), names.len() - 20),
        names => names.join(", "),
    }
}
