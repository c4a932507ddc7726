//! Aligns the genes of many stores: one list of columns, and a map from each store's columns to it.
//!
//! Alignment is by name. No store is changed: the map is applied while rows are scattered. Stores with equal lists share one map, so a
//! thousand of them take the memory of one.

mod choose;
pub mod matching;
pub mod vocabulary;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use choose::{Genes, choose, flagged, take};

/// What happens to genes that only some stores have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Join {
    /// They are an error; a different order is not.
    #[default]
    Exact,
    /// Only genes that all stores have, in the first store's order.
    Inner,
    /// Genes of all stores, in order of first appearance.
    Outer,
}

impl Join {
    pub const ALL: [Join; 3] = [Join::Exact, Join::Inner, Join::Outer];

    pub fn as_str(self) -> &'static str {
        match self {
            Join::Exact => "exact",
            Join::Inner => "inner",
            Join::Outer => "outer",
        }
    }

    /// The join of that name.
    pub fn from_name(name: &str) -> Option<Join> {
        Join::ALL.into_iter().find(|join| join.as_str() == name)
    }
}

/// Marks a column of the store that the collection leaves out, in a column map.
pub const DROPPED: u32 = u32::MAX;

/// How the columns of one store map to those of the collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnMap {
    /// The collection's column for each of the store's, or [`DROPPED`]; `None` if they are the same.
    pub map: Option<Arc<[u32]>>,
    /// Genes that the store and the collection have.
    pub shared: u64,
    /// Genes of the collection that the store lacks.
    pub missing: u64,
    /// Genes of the store that the collection leaves out.
    pub extra: u64,
}

/// One store's name and its genes; stores with equal lists share one.
pub type Named = (String, Arc<Vec<String>>);

/// The collection's genes, and the columns of each store.
pub type Aligned = (Arc<Vec<String>>, Vec<ColumnMap>);

/// Aligns the genes of all stores.
///
/// # Errors
/// (store, cause): its genes differ from the first store's and `join` is exact; a name occurs twice, so that names cannot be aligned.
pub fn align(stores: &[Named], join: Join) -> Result<Aligned, (String, String)> {
    let Some((_, first)) = stores.first() else { return Ok(Default::default()) };
    if stores.iter().all(|(_, names)| names == first) {
        let same = ColumnMap { shared: first.len() as u64, ..ColumnMap::default() };
        return Ok((first.clone(), vec![same; stores.len()]));
    }
    let mut distinct: Vec<&Named> = Vec::new();
    for store in stores {
        if !distinct.iter().any(|(_, names)| *names == store.1) {
            unique(store, stores)?;
            distinct.push(store);
        }
    }
    let genes = match join {
        Join::Exact => {
            distinct.iter().skip(1).try_for_each(|store| same_set(&stores[0], store))?;
            first.clone()
        }
        Join::Inner => {
            let mut stay: HashSet<&String> = first.iter().collect();
            for (_, names) in &distinct[1..] {
                let here: HashSet<&String> = names.iter().collect();
                stay.retain(|name| here.contains(name));
            }
            Arc::new(first.iter().filter(|name| stay.contains(name)).cloned().collect())
        }
        Join::Outer => {
            let mut known = HashSet::new();
            let all = distinct.iter().flat_map(|(_, names)| names.iter());
            Arc::new(all.filter(|name| known.insert(*name)).cloned().collect::<Vec<String>>())
        }
    };
    let place: HashMap<&String, u32> = genes.iter().zip(0..DROPPED).collect();
    if place.len() != genes.len() || distinct.iter().any(|(_, names)| names.len() as u64 >= u64::from(DROPPED)) {
        return Err((stores[0].0.clone(), "too many genes to align by name".to_owned()));
    }
    let columns = |names: &Vec<String>| {
        let map: Arc<[u32]> = names.iter().map(|name| place.get(name).copied().unwrap_or(DROPPED)).collect();
        let shared = map.iter().filter(|&&to| to != DROPPED).count() as u64;
        let same = map.len() == genes.len() && map.iter().zip(0..).all(|(&to, at)| to == at);
        let (missing, extra) = (genes.len() as u64 - shared, names.len() as u64 - shared);
        ColumnMap { map: (!same).then_some(map), shared, missing, extra }
    };
    let tables: Vec<ColumnMap> = distinct.iter().map(|(_, names)| columns(names)).collect();
    let of = |(_, names): &Named| {
        let at = distinct.iter().position(|(_, other)| other == names).unwrap_or_default();
        tables.get(at).cloned().unwrap_or_default()
    };
    let each = stores.iter().map(of).collect();
    Ok((genes, each))
}

/// Fails if a name occurs twice: such names cannot be aligned.
fn unique((store, names): &Named, stores: &[Named]) -> Result<(), (String, String)> {
    let mut known = HashSet::new();
    let Some(twice) = names.iter().find(|name| !known.insert(*name)) else { return Ok(()) };
    let other = stores.iter().find(|(_, others)| others != names).map_or("another store", |(name, _)| name.as_str());
    Err((
        store.clone(),
        format!(
            "gene {twice} stands twice, so its genes cannot be aligned by name with those of {other}; make the names \
             unique in Python: `a.var_names_make_unique()`"
        ),
    ))
}

fn same_set((path, first): &Named, (store, names): &Named) -> Result<(), (String, String)> {
    let known: HashSet<&String> = first.iter().collect();
    let here: HashSet<&String> = names.iter().collect();
    let missing: Vec<&String> = first.iter().filter(|name| !here.contains(name)).collect();
    let more: Vec<&String> = names.iter().filter(|name| !known.contains(name)).collect();
    if missing.is_empty() && more.is_empty() {
        return Ok(());
    }
    let shared = first.len() - missing.len();
    let inner = if shared == 0 { "serve " } else { "serve the genes that all stores have with --join inner, or " };
    let some = |names: &[&String]| names.first().map_or(String::new(), |name| format!(" (such as {name})"));
    Err((
        store.clone(),
        format!(
            "its genes are not those of {path}: {shared} are shared, {} are missing{}, {} are new{}{}; {inner}those of any \
             with --join outer",
            missing.len(),
            some(&missing),
            more.len(),
            some(&more),
            matching::hint(first, names),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stores(lists: &[&str]) -> Vec<Named> {
        let names = |list: &str| Arc::new(list.split_whitespace().map(str::to_owned).collect());
        lists.iter().enumerate().map(|(i, list)| (format!("s{i}"), names(list))).collect()
    }

    fn maps(columns: &[ColumnMap]) -> Vec<Option<Vec<u32>>> {
        columns.iter().map(|columns| columns.map.as_ref().map(|map| map.to_vec())).collect()
    }

    #[test]
    fn another_order_is_aligned_whatever_the_join() {
        for join in Join::ALL {
            let (genes, columns) = align(&stores(&["a b c", "c a b", "a b c"]), join).unwrap();
            assert_eq!(*genes, ["a", "b", "c"]);
            assert_eq!(maps(&columns), [None, Some(vec![2, 0, 1]), None]);
        }
    }

    #[test]
    fn inner_keeps_the_first_order_and_outer_that_of_appearance() {
        let lists = stores(&["c a b", "b d c"]);
        let (genes, columns) = align(&lists, Join::Inner).unwrap();
        assert_eq!(*genes, ["c", "b"]);
        assert_eq!(maps(&columns), [Some(vec![0, DROPPED, 1]), Some(vec![1, DROPPED, 0])]);
        assert_eq!((columns[0].shared, columns[0].missing, columns[0].extra), (2, 0, 1));
        let (genes, columns) = align(&lists, Join::Outer).unwrap();
        assert_eq!(*genes, ["c", "a", "b", "d"]);
        assert_eq!(maps(&columns), [Some(vec![0, 1, 2]), Some(vec![2, 3, 0])]);
        assert_eq!((columns[1].shared, columns[1].missing, columns[1].extra), (3, 1, 0));
    }

    #[test]
    fn differences_are_counted_and_named() {
        let (store, cause) = align(&stores(&["c a b", "b d c"]), Join::Exact).unwrap_err();
        assert_eq!(store, "s1");
        for word in ["s0", "2 are shared", "1 are missing (such as a)", "1 are new (such as d)", "--join inner"] {
            assert!(cause.contains(word), "{cause}");
        }
    }

    #[test]
    fn names_that_stand_twice_need_equal_lists() {
        assert!(align(&stores(&["a a", "a a"]), Join::Outer).is_ok());
        let (store, cause) = align(&stores(&["a b", "a a"]), Join::Outer).unwrap_err();
        assert!(store == "s1" && cause.contains("gene a stands twice") && cause.contains("s0"), "{cause}");
    }
}
