//! Matches genes whose spelling differs by a version suffix (`ENSG00000141510.18`) or by case.
//!
//! Names of every store are replaced by the spelling that came first, then aligned like any other names. A name that could be two genes
//! is never guessed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Named;

/// Which gene names count as equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Matching {
    /// Equal names.
    #[default]
    Exact,
    /// Names that are equal without a suffix of `.` and digits (also before `_PAR_Y`).
    Unversioned,
    /// Names that are equal in lower case.
    Case,
}

impl Matching {
    pub const ALL: [Matching; 3] = [Matching::Exact, Matching::Unversioned, Matching::Case];

    pub fn as_str(self) -> &'static str {
        match self {
            Matching::Exact => "exact",
            Matching::Unversioned => "unversioned",
            Matching::Case => "case",
        }
    }

    /// The matching with a name.
    pub fn from_name(name: &str) -> Option<Matching> {
        Matching::ALL.into_iter().find(|matching| matching.as_str() == name)
    }

    /// The part of a name that counts.
    fn key(self, name: &str) -> String {
        match self {
            Matching::Exact => name.to_owned(),
            Matching::Case => name.to_lowercase(),
            Matching::Unversioned => {
                let (name, region) = name.strip_suffix("_PAR_Y").map_or((name, ""), |rest| (rest, "_PAR_Y"));
                let stem = name.rsplit_once('.').filter(|(stem, version)| {
                    !stem.is_empty() && !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
                });
                format!("{}{region}", stem.map_or(name, |(stem, _)| stem))
            }
        }
    }
}

/// The genes of all stores, in the spelling of the first list that has them.
///
/// # Errors
/// (store, cause): two of its genes count as equal, and not all stores have both.
pub fn respelt(lists: &[Named], matching: Matching) -> Result<Vec<Named>, (String, String)> {
    if matching == Matching::Exact {
        return Ok(lists.to_vec());
    }
    // Spellings of each key in each distinct list.
    let mut distinct: Vec<&Named> = Vec::new();
    for list in lists {
        if !distinct.iter().any(|(_, names)| *names == list.1) {
            distinct.push(list);
        }
    }
    let mut first: HashMap<String, (&Named, Vec<&String>)> = HashMap::new();
    let mut ambiguous: Vec<(&Named, Vec<&String>)> = Vec::new();
    for list in distinct {
        let mut here: HashMap<String, Vec<&String>> = HashMap::new();
        list.1.iter().for_each(|name| here.entry(matching.key(name)).or_default().push(name));
        for (key, names) in here {
            match first.get(&key) {
                None => drop(first.insert(key, (list, names))),
                Some((_, known)) if known.len() == 1 && names.len() == 1 => {}
                Some((_, known)) if known.iter().collect::<HashSet<_>>() == names.iter().collect() => {}
                Some((_, known)) if known.len() > 1 => ambiguous.push((first[&key].0, known.clone())),
                Some(_) => ambiguous.push((list, names)),
            }
        }
    }
    if !ambiguous.is_empty() {
        ambiguous.sort_by(|a, b| a.1.cmp(&b.1));
        let pair = |names: &[&String]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" and ");
        let examples: Vec<String> = ambiguous.iter().take(3).map(|(_, names)| pair(names)).collect();
        let store = ambiguous.first().map(|((store, _), _)| store.clone()).unwrap_or_default();
        let cause = format!(
            "--genes-match {}: {} of its genes cannot be told from one another, such as {}; make them one before, or use \
             --genes-match exact",
            matching.as_str(),
            ambiguous.len(),
            examples.join(", ")
        );
        return Err((store, cause));
    }
    let spelling = |name: &String| match first.get(&matching.key(name)) {
        Some((_, known)) if known.len() == 1 => known[0].clone(),
        _ => name.clone(),
    };
    let mut respelt: Vec<(&Named, Arc<Vec<String>>)> = Vec::new();
    let mut all = Vec::with_capacity(lists.len());
    for list @ (store, names) in lists {
        // Equal lists stay shared.
        let known = respelt.iter().find(|((_, known), _)| known == names).map(|(_, names)| names.clone());
        let spelt = known.unwrap_or_else(|| {
            let spelt = Arc::new(names.iter().map(spelling).collect::<Vec<String>>());
            respelt.push((list, spelt.clone()));
            spelt
        });
        all.push((store.clone(), spelt));
    }
    Ok(all)
}

/// If another rule would match more genes of two lists, a sentence that says so for a message; else empty.
pub fn hint(a: &[String], b: &[String]) -> String {
    let shared = |matching: Matching| {
        let keys: HashMap<String, &String> = a.iter().map(|name| (matching.key(name), name)).collect();
        let mut same = b.iter().filter_map(|name| Some((*keys.get(&matching.key(name))?, name))).collect::<Vec<_>>();
        same.sort_by_key(|(a, b)| a == b);
        same
    };
    let exact = shared(Matching::Exact).len();
    for (matching, what) in [(Matching::Unversioned, "without version suffixes"), (Matching::Case, "but for case")] {
        let same = shared(matching);
        if let Some((one, other)) = same.first().filter(|_| same.len() > exact) {
            return format!(
                "; {} are the same {what} ({one} and {other}): --genes-match {}",
                same.len(),
                matching.as_str()
            );
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(lists: &[&str]) -> Vec<Named> {
        let names = |list: &str| Arc::new(list.split_whitespace().map(str::to_owned).collect());
        lists.iter().enumerate().map(|(i, list)| (format!("s{i}"), names(list))).collect()
    }

    #[test]
    fn the_first_spelling_stands() {
        let spelt = |of: &[&str], matching| {
            respelt(&lists(of), matching)
                .map(|all| all.into_iter().map(|(_, names)| names.join(" ")).collect::<Vec<_>>())
        };
        let versions = ["ENSG1.2 ENSG2.1 ENSG3.4_PAR_Y", "ENSG2 ENSG1.11 ENSG3.9_PAR_Y X.1a"];
        assert_eq!(spelt(&versions, Matching::Unversioned).unwrap()[1], "ENSG2.1 ENSG1.2 ENSG3.4_PAR_Y X.1a");
        assert_eq!(spelt(&["Tp53 Actb", "ACTB TP53"], Matching::Case).unwrap()[1], "Actb Tp53");
        assert_eq!(spelt(&versions, Matching::Exact).unwrap()[1], versions[1]);
        // Two versions that all stores have are different genes.
        assert_eq!(spelt(&["A.1 A.2 B.1", "A.2 A.1 B.7"], Matching::Unversioned).unwrap()[1], "A.2 A.1 B.1");
    }

    #[test]
    fn what_could_be_two_genes_is_an_error() {
        for of in [["A.1 A.2 B", "A.3 B"], ["A.3 B", "A.1 A.2 B"]] {
            let (_, cause) = respelt(&lists(&of), Matching::Unversioned).unwrap_err();
            assert!(cause.contains("A.1 and A.2") && cause.contains("1 of its genes"), "{cause}");
        }
    }

    #[test]
    fn what_would_help_is_said() {
        let hint = |a: &str, b: &str| {
            let all = lists(&[a, b]);
            hint(&all[0].1, &all[1].1)
        };
        assert!(
            hint("ENSG1.2 ENSG2.1", "ENSG1.3 ENSG2.1")
                .contains("2 are the same without version suffixes (ENSG1.2 and ENSG1.3)")
        );
        assert!(hint("Actb", "ACTB").contains("--genes-match case"));
        assert_eq!(hint("a b", "c d"), "");
    }
}
