//! The same cells in several modalities: finds the stores of each, and joins their rows.
//!
//! The rows of the first modality are the rows of the mount; views and obs refer to them. Rows of the others are found by their names in
//! obs; if whole MuData are given, within the same file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::anndata;
use crate::array::kinds::file_of;
use crate::array::{Container, Counters, NodeKind};
use crate::collection::Collection;
use crate::collection::companion::MOD;
use crate::plan::Rows;
use crate::plan::modality::{Modality, NO_ROW};
use crate::view::suggest::suggest;

use super::error::{About, SessionError};
use super::spec::Spec;

/// A modality besides the first.
#[derive(Debug)]
pub struct JoinedModality {
    pub name: String,
    pub rows: Arc<Modality>,
}

/// If the stores of a spec are MuData, replaces them by the groups of their modalities, and returns true.
///
/// # Errors
/// Modalities of a MuData share genes instead of cells; a MuData has other modalities than the first; an option names an unknown
/// modality.
pub fn of_mudata(spec: &mut Spec) -> Result<bool, SessionError> {
    let mut names: Option<Vec<String>> = None;
    let mut stores: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for path in &spec.stores {
        let Ok(store) = anndata::open(path) else { return Ok(false) };
        let Some(found) = modalities_in(&*store)? else {
            return match &names {
                None => Ok(false),
                Some(_) => Err(refused(path, "it is no MuData, but the first store is one")),
            };
        };
        let first = names.get_or_insert_with(|| found.clone());
        if let Some(other) = found.iter().find(|name| !first.contains(name)) {
            let known = first.join(", ");
            return Err(refused(path, &format!("it has a modality {other}, but the first store has {known} alone")));
        }
        if let Some(lacking) = first.iter().find(|name| !found.contains(name)) {
            return Err(refused(path, &format!("it has no modality {lacking}, but the first store has one")));
        }
        for name in found {
            let inner = inside(path, &format!("{MOD}/{name}"));
            stores.entry(name).or_default().push(inner);
        }
    }
    let Some(names) = names else { return Ok(false) };
    let [first, others @ ..] = names.as_slice() else { return Ok(false) };
    let mut said: HashMap<String, Spec> = HashMap::new();
    for one in std::mem::take(&mut spec.modalities) {
        let name = one.modality.clone().unwrap_or_default();
        if name == *first {
            return Err(SessionError::Refused(first_is_said_alone(first)));
        }
        if !others.contains(&name) {
            let known = suggest(&name, others.iter().map(String::as_str));
            return Err(SessionError::Refused(format!("--modality-option {name}: there is no such modality; {known}")));
        }
        said.insert(name, one);
    }
    let mut of = |name: &str| stores.remove(name).unwrap_or_default();
    let found = others.iter().map(|name| spec.of_modality(name, of(name), said.remove(name))).collect();
    let own = of(first);
    (spec.stores, spec.modality, spec.modalities) = (own, Some(first.clone()), found);
    Ok(true)
}

/// The message for an option of the first modality that has its name in front.
pub fn first_is_said_alone(name: &str) -> String {
    format!(
        "--modality-option {name}: it is the first modality, whose options have no name before them, as in --genes; the others' do"
    )
}

/// The modalities of a MuData as stores; `None` for any other store, or one that cannot be read.
pub fn groups(path: &Path, store: &dyn Container) -> Option<Vec<PathBuf>> {
    let names = modalities_in(store).ok()??;
    Some(names.iter().map(|name| inside(path, &format!("{MOD}/{name}"))).collect())
}

/// The names of the modalities of a MuData, in its order; `None` for any other store.
fn modalities_in(store: &dyn Container) -> Result<Option<Vec<String>>, SessionError> {
    if store.kind("X")?.is_some() || store.kind(MOD)? != Some(NodeKind::Group) {
        return Ok(None);
    }
    if store.attributes("")?.get("axis").and_then(Value::as_i64).is_some_and(|axis| axis != 0) {
        let cause =
            "the modalities of this MuData share their genes and not their cells: name one, as in STORE::mod/NAME";
        return Err(SessionError::Refused(format!("{}: {cause}", store.name())));
    }
    let mut names = store.members(MOD)?;
    names.sort();
    let order = store.attributes(MOD)?.get("mod-order").and_then(|order| {
        let texts = order.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
        texts.collect::<Option<Vec<String>>>()
    });
    // As mudata does: the order counts only if it names all modalities.
    if let Some(order) = order.filter(|order| order.len() == names.len() && names.iter().all(|n| order.contains(n))) {
        names = order;
    }
    Ok((!names.is_empty()).then_some(names))
}

/// The name of a group in a store, which may be a group itself.
fn inside(path: &Path, group: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(if file_of(path) == path { "::" } else { "/" });
    name.push(group);
    PathBuf::from(name)
}

fn refused(path: &Path, cause: &str) -> SessionError {
    SessionError::Refused(format!("{}: {cause}", path.display()))
}

/// Joins another modality to a collection by row names, and adds it as a companion. `own` are the rows of the first modality.
///
/// # Errors
/// Row names are not unique, or none occurs in both modalities: counts and examples.
pub fn join(
    (first, collection, own): (&str, &mut Collection, &Numbered),
    (name, modality): (&str, Collection),
    by_file: bool,
    counters: &Counters,
) -> Result<JoinedModality, SessionError> {
    let count = modality.table.n_rows;
    let (theirs, of_theirs) = numbered((name, &modality), by_file, counters)?;
    let mut rows = vec![NO_ROW; usize::try_from(collection.table.n_rows).unwrap_or(usize::MAX)];
    let (mut joined, mut lacking) = (0_u64, Vec::new());
    for (key, &row) in &theirs {
        match own.get(key).and_then(|&at| rows.get_mut(at as usize)) {
            Some(place) => {
                *place = row;
                joined += 1;
            }
            None => lacking.push(row),
        }
    }
    lacking.sort_unstable();
    let some = |names: &[String]| names.iter().take(3).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if joined == 0 {
        let mut of_own: Vec<(u32, &String)> = own.iter().map(|((_, name), &row)| (row, name)).collect();
        of_own.sort_unstable();
        let of_own: Vec<String> = of_own.into_iter().take(3).map(|(_, name)| name.clone()).collect();
        return Err(SessionError::Refused(format!(
            "none of the {count} rows of {name} has the name of one of the {} rows of {first}: {first} has {}, ...; {name} has {}, \
             ...; modalities are joined by the names of obs",
            collection.table.n_rows,
            some(&of_own),
            some(&of_theirs),
        )));
    }
    let without = collection.table.n_rows - joined;
    if without > 0 || !lacking.is_empty() {
        let named: Vec<String> =
            lacking.iter().take(3).filter_map(|&row| of_theirs.get(row as usize).cloned()).collect();
        let such = if named.is_empty() { String::new() } else { format!(", such as {}", some(&named)) };
        let (left, rows) = (lacking.len(), collection.table.n_rows);
        tracing::info!(
            "{without} of {rows} rows of {first} have none in {name}; {left} of {count} rows of {name} are of no row of {first}, \
             and not served{such}"
        );
    }
    collection.with_modality(name, Arc::new(modality));
    Ok(JoinedModality { name: name.to_owned(), rows: Arc::new(Modality::new(rows, count)?) })
}

/// Rows by name and, if names are unique only within a file, the number of the file.
pub type Numbered = HashMap<(u32, String), u32>;

/// The rows of a collection by name, and their names in order.
///
/// # Errors
/// Row names are not unique, or cannot be read.
pub fn numbered(
    (modality, collection): (&str, &Collection),
    by_file: bool,
    counters: &Counters,
) -> Result<(Numbered, Vec<String>), SessionError> {
    let (mut rows, mut names, mut twice, mut row) = (Numbered::new(), Vec::new(), Vec::new(), 0_u32);
    for store in 0..collection.stores.len() {
        let about = collection.stores.get(store).map(|store| store.path.display().to_string()).unwrap_or_default();
        let file = if by_file { u32::try_from(store).unwrap_or(u32::MAX) } else { 0 };
        for name in collection.row_names(store, counters).about(about)? {
            match rows.entry((file, name.clone())) {
                Entry::Occupied(_) => twice.push(name.clone()),
                Entry::Vacant(place) => drop(place.insert(row)),
            }
            names.push(name);
            row = row.saturating_add(1);
        }
    }
    if let Some(first) = twice.first() {
        let (count, all) = (twice.len(), collection.table.n_rows);
        return Err(SessionError::Refused(format!(
            "{count} of {all} rows of {modality} have the name of another, such as {first:?}: modalities are joined by the names of \
             obs, which must be unique (`obs_names_make_unique`)"
        )));
    }
    Ok((rows, names))
}

/// The description of a view's modalities in `dataset.json`: rows with and without each.
pub fn told(modalities: &[JoinedModality], rows: &Rows) -> Value {
    let one = |modality: &JoinedModality| {
        let with = rows.iter().filter(|&row| modality.rows.of(row).is_some()).count() as u64;
        (modality.name.clone(), json!({"rows": with, "rows_without": rows.len() - with}))
    };
    Value::Object(modalities.iter().map(one).collect::<Map<String, Value>>())
}
