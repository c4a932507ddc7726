//! Selects genes: the collection's list becomes the requested one, in its order.
//!
//! A selection is composed with each store's column map, so the code that scatters rows is the same with and without it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::anndata::column::Values;
use crate::anndata::dataframe::{ColumnKind, DataFrame};
use crate::anndata::names::Frame;
use crate::array::{Container, Counters};
use crate::collection::CollectionError;

use super::{Aligned, ColumnMap, DROPPED};

/// Which genes are served, and in what order.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Genes {
    /// These, in this order.
    Names(Vec<String>),
    /// Those for which a boolean column of var is true in the first store, in stored order. Only the first store counts, so that
    /// stores appended later change nothing.
    Var(String),
}

/// The selected genes, and the column map of each store to them.
///
/// # Errors
/// A gene that no store has, that is requested twice, or whose name occurs twice; a column that is absent or not boolean.
pub fn choose(
    chosen: &Genes,
    first: Option<&dyn Container>,
    var: Frame,
    genes: &Arc<Vec<String>>,
    columns: Vec<ColumnMap>,
    counters: &Counters,
) -> Result<Aligned, CollectionError> {
    let stay = match (chosen, first) {
        (Genes::Names(names), _) => named(names, genes)?,
        (Genes::Var(column), Some(first)) => {
            let stay = flagged(first, var, column, counters)?;
            // The collection's genes start with the first store's, except those that an inner join has dropped.
            let of_first = columns.first().and_then(|columns| columns.map.as_ref());
            let place = |at: usize| {
                of_first.map_or(u32::try_from(at).unwrap_or(DROPPED), |map| map.get(at).copied().unwrap_or(DROPPED))
            };
            stay.into_iter().map(place).filter(|&place| place != DROPPED).collect()
        }
        (Genes::Var(_), None) => Vec::new(),
    };
    if stay.is_empty() {
        return Err(CollectionError::Option("--genes: none are chosen".to_owned()));
    }
    Ok(take(&stay, genes, columns))
}

/// The genes at these positions, and the column map of each store to them.
pub fn take(stay: &[u32], genes: &Arc<Vec<String>>, columns: Vec<ColumnMap>) -> Aligned {
    let mut to = vec![DROPPED; genes.len()];
    for (new, &old) in (0..).zip(stay) {
        if let Some(to) = to.get_mut(old as usize) {
            *to = new;
        }
    }
    let same: Arc<[u32]> = to.as_slice().into();
    let compose = |columns: ColumnMap| {
        let map = match &columns.map {
            None => same.clone(),
            Some(map) => map.iter().map(|&old| to.get(old as usize).copied().unwrap_or(DROPPED)).collect(),
        };
        let shared = map.iter().filter(|&&to| to != DROPPED).count() as u64;
        let is_same = map.len() == stay.len() && map.iter().zip(0..).all(|(&to, at)| to == at);
        let (missing, extra) = (stay.len() as u64 - shared, map.len() as u64 - shared);
        ColumnMap { map: (!is_same).then_some(map), shared, missing, extra }
    };
    let names = stay.iter().filter_map(|&old| genes.get(old as usize)).cloned().collect();
    (Arc::new(names), columns.into_iter().map(compose).collect())
}

/// Positions of these names.
fn named(names: &[String], genes: &Arc<Vec<String>>) -> Result<Vec<u32>, CollectionError> {
    let wanted: HashSet<&String> = names.iter().collect();
    let mut place: HashMap<&String, u32> = HashMap::with_capacity(wanted.len());
    for (gene, at) in genes.iter().zip(0..DROPPED).filter(|(gene, _)| wanted.contains(gene)) {
        if place.insert(gene, at).is_some() {
            return Err(CollectionError::Option(format!(
                "--genes: {gene} stands twice among the genes; make the names unique in Python: \
                 `a.var_names_make_unique()`"
            )));
        }
    }
    let unknown: Vec<&String> = names.iter().filter(|name| !place.contains_key(name)).collect();
    if let Some(&first) = unknown.first() {
        let more = match unknown.len() {
            1 => String::new(),
            count => format!(" ({count} of the {} asked for are unknown)", names.len()),
        };
        let cause = format!("--genes: no gene is called {first}{more}");
        return Err(CollectionError::Unknown { cause, wanted: first.clone(), known: genes.clone() });
    }
    if wanted.len() < names.len() {
        let mut seen = HashSet::new();
        let twice = names.iter().find(|name| !seen.insert(*name)).map_or("", String::as_str);
        let count = names.len() - wanted.len();
        return Err(CollectionError::Option(format!(
            "--genes: {twice} is asked for twice ({count} of the {} repeat others)",
            names.len()
        )));
    }
    Ok(names.iter().filter_map(|name| place.get(name).copied()).collect())
}

/// Rows of a store's var for which a column is true; missing values count as false.
pub fn flagged(
    store: &dyn Container,
    var: Frame,
    column: &str,
    counters: &Counters,
) -> Result<Vec<usize>, CollectionError> {
    let frame = DataFrame::open(store, var)?;
    if !frame.columns.iter().any(|name| name == column) {
        let cause = format!("--genes: {}: {} has no column {column}", store.name(), var.path());
        let known = Arc::new(frame.columns.clone());
        return Err(CollectionError::Unknown { cause, wanted: column.to_owned(), known });
    }
    let kind = frame.kind(column)?;
    if kind == ColumnKind::Boolean
        && let Values::Numbers { numbers, mask, .. } = frame.column(column, counters)?.values
    {
        let is_true = |at: &usize| {
            numbers.at(*at).first() != Some(&0) && mask.as_ref().is_none_or(|mask| *at < mask.len() && mask[*at] == 0)
        };
        return Ok((0..numbers.len()).filter(is_true).collect());
    }
    Err(CollectionError::Option(format!(
        "--genes: {}: {}/{column} is {}, not boolean: true for the genes to serve",
        store.name(),
        var.path(),
        kind.name()
    )))
}

#[cfg(test)]
mod tests {
    use super::super::{Join, align};
    use super::*;

    fn list(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_asked_order_holds_in_every_store() {
        let stores = ["a b c d", "d a c b"].map(|names| (names.to_owned(), Arc::new(list(names))));
        let (genes, columns) = align(&stores, Join::Exact).unwrap();
        let chosen = Genes::Names(list("c a"));
        let (genes, columns) = choose(&chosen, None, Frame::Var, &genes, columns, &Counters::default()).unwrap();
        assert_eq!(*genes, ["c", "a"]);
        let map = |store: usize| columns[store].map.as_ref().unwrap().to_vec();
        assert_eq!((map(0), map(1)), (vec![1, DROPPED, 0, DROPPED], vec![DROPPED, 1, 0, DROPPED]));
        assert_eq!((columns[1].shared, columns[1].missing, columns[1].extra), (2, 0, 2));
    }

    #[test]
    fn what_cannot_be_chosen_is_told() {
        let genes = Arc::new(list("a b b c"));
        let told = |names: &str| named(&list(names), &genes).map_err(|error| error.to_string());
        assert_eq!(told("c a"), Ok(vec![3, 0]));
        for (names, words) in [
            ("c x y", vec!["called x", "2 of the 3"]),
            ("a c a", vec!["a is asked for twice"]),
            ("b", vec!["b stands twice", "var_names_make_unique"]),
        ] {
            let error = told(names).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
