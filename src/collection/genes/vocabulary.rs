//! A fixed list of genes; those that a store lacks are zero in its rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Aligned, ColumnMap, DROPPED, Named};

/// The list as the collection's genes, and the column map of each store to it.
///
/// # Errors
/// (store, cause): a gene occurs twice in the list or in the store, or the store has less than the share `least` of the list.
pub fn align(names: &[String], stores: &[Named], least: f64) -> Result<Aligned, (String, String)> {
    let mut place: HashMap<&String, u32> = HashMap::with_capacity(names.len());
    for (name, at) in names.iter().zip(0..DROPPED) {
        if place.insert(name, at).is_some() {
            return Err(("--genes".to_owned(), format!("{name} is asked for twice")));
        }
    }
    let one = |(store, here): &Named| {
        let map: Arc<[u32]> = here.iter().map(|name| place.get(name).copied().unwrap_or(DROPPED)).collect();
        let mut seen = HashSet::new();
        if let Some(at) = map.iter().position(|&to| to != DROPPED && !seen.insert(to)) {
            let cause = format!(
                "gene {} stands twice; make the names unique in Python: `a.var_names_make_unique()`",
                here.get(at).map_or("", String::as_str)
            );
            return Err((store.clone(), cause));
        }
        let shared = seen.len() as u64;
        if (shared as f64) < least * names.len() as f64 {
            let example = |names: &[String]| names.first().cloned().unwrap_or_default();
            let cause = format!(
                "it has {shared} of the {} genes of --genes, less than {:.0} % (asked for is {}, it has {}){}; match by a \
                 column of var with --genes-column, or serve zeros for what it lacks with --min-matched {:.2}",
                names.len(),
                least * 100.0,
                example(names),
                example(here),
                super::matching::hint(names, here),
                (shared as f64 / names.len() as f64 * 100.0).floor() / 100.0,
            );
            return Err((store.clone(), cause));
        }
        let same = map.len() == names.len() && map.iter().zip(0..).all(|(&to, at)| to == at);
        let (missing, extra) = (names.len() as u64 - shared, here.len() as u64 - shared);
        Ok(ColumnMap { map: (!same).then_some(map), shared, missing, extra })
    };
    let mut tables: Vec<(&Arc<Vec<String>>, ColumnMap)> = Vec::new();
    let mut all = Vec::with_capacity(stores.len());
    for store in stores {
        let known = tables.iter().find(|(names, _)| **names == store.1).map(|(_, columns)| columns.clone());
        all.push(match known {
            Some(columns) => columns,
            None => {
                let columns = one(store)?;
                tables.push((&store.1, columns.clone()));
                columns
            }
        });
    }
    Ok((Arc::new(names.to_vec()), all))
}

/// The genes of the list that no store has.
pub fn absent(names: &[String], columns: &[ColumnMap]) -> Vec<String> {
    let mut there = vec![false; names.len()];
    for columns in columns {
        let Some(map) = &columns.map else { return Vec::new() };
        for &to in map.iter().filter(|&&to| to != DROPPED) {
            there[to as usize] = true;
        }
    }
    names.iter().zip(there).filter(|(_, there)| !there).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_columns() {
        let list = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let stores = ["c a", "x b a", "c a"].map(|names| (names.to_owned(), Arc::new(list(names))));
        let (genes, columns) = align(&list("a b c d"), &stores, 0.3).unwrap();
        assert_eq!(*genes, ["a", "b", "c", "d"]);
        assert_eq!(columns[0].map.as_ref().unwrap().to_vec(), [2, 0]);
        assert_eq!(columns[1].map.as_ref().unwrap().to_vec(), [DROPPED, 1, 0]);
        assert_eq!((columns[1].shared, columns[1].missing, columns[1].extra), (2, 2, 1));
        assert_eq!(absent(&genes, &columns), ["d"]);
        let (store, cause) = align(&list("a b c d"), &stores, 0.6).unwrap_err();
        assert!(
            store == "c a" && cause.contains("2 of the 4 genes") && cause.contains("--min-matched 0.50"),
            "{cause}"
        );
        assert!(align(&list("a a"), &stores, 0.0).unwrap_err().1.contains("twice"));
    }
}
