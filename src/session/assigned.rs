//! Splits by cell line and perturbation: finds the dataset of each store, and computes the rows of each split.

use std::path::{Path, PathBuf};

use crate::collection::{Collection, Store};
use crate::storage::pattern;
use crate::view::assigned::{Columns, StoreRows};
use crate::view::bits::Bits;
use crate::view::split::Labelled;

use super::error::{About, SessionError};
use super::obs::{Labels, Obs};
use super::spec::AssignedSpec;

/// The rows of each split that is a view, among `base` or all rows.
///
/// # Errors
/// No store belongs to a dataset of the file; missing columns; unknown names; no controls.
pub fn sides(spec: &AssignedSpec, obs: &mut Obs<'_>, base: Option<&Bits>) -> Result<Vec<Bits>, SessionError> {
    let about = format!("--split-toml {}", spec.file.display());
    let stores = datasets(spec, obs.collection).map_err(SessionError::Refused).about(&about)?;
    let cell_lines = obs.labels(&spec.cell_type_key).about("--cell-type-key")?;
    let perturbations = obs.labels(&spec.pert_col).about("--pert-col")?;
    fn labelled<'l>(name: &'l str, labels: &'l Labels) -> Labelled<'l> {
        Labelled { name, codes: &labels.codes, labels: &labels.labels }
    }
    let columns = Columns {
        cell_lines: labelled(&spec.cell_type_key, &cell_lines),
        perturbations: labelled(&spec.pert_col, &perturbations),
        control: &spec.control_pert,
        seed: spec.seed,
    };
    let all = spec.rules.divide(&stores, &columns).about(&about)?;
    let side = |side: usize| base.map_or_else(|| all[side].clone(), |base| all[side].clone().and(base));
    Ok(spec.rules.sides().into_iter().map(side).collect())
}

fn datasets(spec: &AssignedSpec, collection: &Collection) -> Result<Vec<StoreRows>, String> {
    let used = spec.rules.used();
    let mut of_stores = Vec::with_capacity(collection.stores.len());
    for store in &collection.stores {
        let mut dataset = None;
        for (name, path) in &spec.rules.datasets {
            if is_of(path, store)? {
                dataset = Some(name.clone());
                break;
            }
        }
        if dataset.is_none() {
            let known: Vec<&str> = spec.rules.datasets.keys().map(String::as_str).collect();
            let (store, known) = (store.path.display(), known.join(", "));
            return Err(format!("{store} is at the path of none of its datasets ({known})"));
        }
        let dataset = dataset.filter(|name| used.contains(&name.as_str()));
        let rows = store.first_row..store.first_row + store.rows;
        of_stores.push(StoreRows { name: store.path.display().to_string(), dataset, rows });
    }
    if of_stores.iter().all(|store| store.dataset.is_none()) {
        return Err(format!("no store is of a dataset that a rule is about ({})", used.join(", ")));
    }
    Ok(of_stores)
}

/// Whether a store belongs to a dataset: it is at its path, in that directory, or matches its pattern.
fn is_of(dataset: &str, store: &Store) -> Result<bool, String> {
    let named = store.path.to_string_lossy();
    let named = Path::new(named.split("::").next().unwrap_or_default()).to_owned();
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let places: [PathBuf; 2] = [named.clone(), real(&named)];
    let holds = |name: String| {
        let is_file = name.ends_with(".h5") || name.ends_with(".h5ad");
        places.iter().any(|store| {
            let folder = store.parent().is_some_and(|parent| !is_file && pattern::fits_path(Path::new(&name), parent));
            folder
                || pattern::fits_path(Path::new(&name), store)
                || real(Path::new(&name)) == *store
                || store.parent().is_some_and(|parent| !is_file && real(Path::new(&name)) == parent)
        })
    };
    Ok(pattern::sets(dataset)?.into_iter().any(holds))
}
