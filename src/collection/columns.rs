//! obs columns of many stores as one: categories united in order of first appearance, numbers promoted.
//!
//! For each way in which stores can differ there is one rule: docs/columns.md states it, and dataset.json names it for each column it was
//! applied to.

mod unite;

use std::collections::HashSet;

use crate::anndata::column::{Column, Numbers, Values};
use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::anndata::names::Frame;
use crate::array::{ArrayError, Counters, Dtype};
use crate::number::as_usize;

use super::{CollectionError, Selection, Store, each};

/// obs columns of a collection.
#[derive(Default)]
pub struct ObsColumns {
    pub columns: Vec<Column>,
    /// Columns that are not served, each with the reason.
    pub left_out: Vec<(String, String)>,
    /// Columns that differ between stores, each with the rules applied.
    pub joined: Vec<(String, String)>,
}

/// Opens the obs of a store, with its mapped columns. `named`: whether the user names the column, so that an HDF5 enum gives labels.
fn obs(store: &Store, named: bool) -> Result<DataFrame<'_>, ArrayError> {
    Ok(DataFrame::open(&*store.container, Frame::Obs)?.with(store.row_index()).enums_as_labels(named))
}

/// Reads the selected columns, or every categorical, boolean and numeric one of any store.
///
/// # Errors
/// A selected column that no store has or that cannot be served; a served column that is damaged.
pub fn read(stores: &[Store], selection: &Selection, counters: &Counters) -> Result<ObsColumns, CollectionError> {
    let named = selection.obs.as_deref();
    let frames = each(stores, |store| obs(store, named.is_some()))?;
    let mut known = HashSet::new();
    let candidates: Vec<String> = match named {
        Some(names) => names.iter().filter(|name| known.insert(*name)).cloned().collect(),
        None => frames.iter().flat_map(|frame| &frame.columns).filter(|name| known.insert(*name)).cloned().collect(),
    };
    let mut read = ObsColumns::default();
    for name in candidates {
        match one(stores, &frames, &name, named.is_some(), selection.looks, counters)? {
            Ok((values, rules)) => {
                if !rules.is_empty() {
                    read.joined.push((name.clone(), rules.join("; ")));
                }
                read.columns.push(Column { name, values });
            }
            Err(reason) if named.is_none() || selection.looks => read.left_out.push((name, reason)),
            Err(reason) => return Err(CollectionError::Option(format!("--obs {name}: {reason}"))),
        }
    }
    Ok(read)
}

/// Names of the columns of all stores, in order of first appearance.
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
/// No store has it, it cannot be read, or the stores' columns cannot be united.
pub fn read_one(stores: &[Store], name: &str, looks: bool, counters: &Counters) -> Result<Values, CollectionError> {
    let frames = each(stores, |store| obs(store, false))?;
    match one(stores, &frames, name, true, looks, counters)? {
        Ok((values, _)) => Ok(values),
        Err(reason) => Err(CollectionError::Option(format!("obs column {name}: {reason}"))),
    }
}

/// One column over all stores and the rules that were applied, or the reason why it is not served.
fn one(
    stores: &[Store],
    frames: &[DataFrame<'_>],
    name: &str,
    named: bool,
    looks: bool,
    counters: &Counters,
) -> Result<Result<(Values, Vec<String>), String>, CollectionError> {
    let kind = |frame: &DataFrame<'_>| match frame.columns.iter().any(|column| column == name) {
        true => frame.kind(name).map(Some),
        false => Ok(None),
    };
    let kinds = each(frames, kind)?;
    let other = kinds.iter().position(|&kind| kind == Some(ColumnKind::Other));
    if let Some((store, frame)) = other.and_then(|other| stores.get(other).zip(frames.get(other))) {
        return Ok(Err(format!("in {} it is {}, which is not read", store.container.name(), frame.what(name)?)));
    }
    let mut there = kinds.iter().flatten().peekable();
    if there.peek().is_none() {
        let first = frames.first().map(|frame| list(&frame.columns)).unwrap_or_default();
        return Ok(Err(format!("no store has such a column (the first has {first})")));
    }
    if !named && there.all(|&kind| kind == ColumnKind::Text) {
        return Ok(Err("text is served when named in --obs".to_owned()));
    }
    let there: Vec<_> = frames.iter().zip(&kinds).collect();
    let columns = each(&there, |(frame, kind)| kind.map(|_| frame.column(name, counters)).transpose());
    let columns = match columns {
        Err(ArrayError::Unsupported { cause, .. }) if !named => return Ok(Err(cause)),
        columns => columns?,
    };
    let mut parts = Vec::with_capacity(stores.len());
    for (store, column) in stores.iter().zip(columns) {
        let values = column.map(|column: Column| column.values);
        parts.push(unite::StoreColumn { store: store.container.name(), rows: as_usize(store.rows), values });
    }
    // The probe has not read large columns, so there is nothing to unite.
    if looks {
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
