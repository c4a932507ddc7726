//! The served names of obs columns and matrices, which all formats and the files of `categories/` use.
//!
//! A name that is valid everywhere is kept, regardless of other names. Any other name is escaped: `%` and two hexadecimal digits for each
//! byte that is not allowed, as in a URL. If an escaped name is taken, `%` is appended until it is free. So no two columns share a name,
//! and
//! none gets the exact name of another.

use std::collections::HashSet;

use crate::anndata::column::Column;
use crate::anndata::names::MatrixName;
use crate::collection::Table;
use crate::collection::companion::{Beside, MOD};

/// Maximum bytes of a name, so that with `.txt` it is a valid file name.
const MOST: usize = 251;
/// Bytes kept of a too long escaped name; a checksum of the whole name follows.
const BEGINNING: usize = 200;
/// Names that `.tsv` and `.h5ad` use themselves.
const RESERVED: [&str; 2] = ["row", "_index"];

/// The served names of the obs columns.
pub fn columns(table: &Table) -> Vec<String> {
    served(table.columns.iter().map(|column| column.name.as_str()), &RESERVED)
}

/// The served names of columns of var, which only `.h5ad` has.
pub fn of_var(columns: &[Column]) -> Vec<String> {
    served(columns.iter().map(|column| column.name.as_str()), &RESERVED)
}

/// The served paths of the elements: `layers/NAME` and `obsm/NAME`, with NAME by the rule above; others are unchanged.
pub fn elements(table: &Table) -> Vec<String> {
    element_names(table).iter().map(MatrixName::path).collect()
}

/// The served names of the elements.
pub fn element_names(table: &Table) -> Vec<MatrixName> {
    let mut all: Vec<MatrixName> = table.elements.iter().map(|element| element.name.clone()).collect();
    for is_layer in [true, false] {
        let of_group: Vec<(usize, String)> = all
            .iter()
            .enumerate()
            .filter_map(|(i, name)| match name {
                MatrixName::Layer(name) if is_layer => Some((i, name.clone())),
                MatrixName::Obsm(name) if !is_layer => Some((i, name.clone())),
                _ => None,
            })
            .collect();
        let names = served(of_group.iter().map(|(_, name)| name.as_str()), &[]);
        for ((i, _), name) in of_group.iter().zip(names) {
            all[*i] = if is_layer { MatrixName::Layer(name) } else { MatrixName::Obsm(name) };
        }
    }
    all
}

/// The modalities of a table, each with its number ([`crate::batch::Batch::companion`]); empty for a single AnnData.
pub fn modalities(table: &Table) -> Vec<(usize, String)> {
    let Some(own) = &table.modality else { return Vec::new() };
    let beside = (1..).zip(&table.companions).filter(|(_, companion)| companion.modality().is_some());
    let below = format!("{MOD}/");
    let named = beside.map(|(number, of)| (number, of.name.trim_start_matches(&below).to_owned()));
    std::iter::once((0, own.clone())).chain(named).collect()
}

/// For formats that have one matrix a file: refuses other tables.
///
/// # Errors
/// There are several modalities, or a graph.
pub fn one_matrix(table: &Table) -> Result<(), String> {
    let has_graph = table.companions.iter().any(|companion| matches!(companion.rows, Beside::Neighbours { .. }));
    match (table.has_modalities(), has_graph) {
        (true, _) => {
            Err("it holds the rows of one modality; .npz, .safetensors, .record.npy and .h5mu hold several".to_owned())
        }
        (_, true) => Err("it holds no graph; .npz, .safetensors and .record.npy do".to_owned()),
        _ => Ok(()),
    }
}

/// The file in `categories/` with the labels of a column with this served name.
pub fn categories_file(name: &str) -> String {
    format!("{name}.txt")
}

fn served<'a>(names: impl Iterator<Item = &'a str> + Clone, reserved: &[&str]) -> Vec<String> {
    let usable = |name: &str| is_usable(name) && !reserved.contains(&name);
    let exact: HashSet<&str> = names.clone().filter(|name| usable(name)).collect();
    // The first column with an exact name keeps it; a second one is escaped.
    let (mut free, mut taken) = (exact.clone(), HashSet::new());
    let one = |name: &'a str| {
        if free.remove(name) {
            return name.to_owned();
        }
        let mut served = escaped(name, reserved);
        while exact.contains(served.as_str()) || taken.contains(&served) {
            served.push('%');
        }
        taken.insert(served.clone());
        served
    };
    names.map(one).collect()
}

/// Whether a name is valid as file name, HDF5 link, path component and field of a line.
fn is_usable(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MOST && !name.chars().any(is_escaped)
}

fn is_escaped(char: char) -> bool {
    matches!(char, '/' | '\\') || char.is_control()
}

fn escaped(name: &str, reserved: &[&str]) -> String {
    // Names without a byte to escape (`.`, `row`) have their first byte escaped.
    let first = matches!(name, "." | "..") || reserved.contains(&name);
    let mut out = String::with_capacity(name.len() + 8);
    let mut beginning = 0;
    for (i, char) in name.chars().enumerate() {
        // `%` is escaped as well, so that the original name can be derived.
        if is_escaped(char) || char == '%' || (first && i == 0) {
            let mut bytes = [0; 4];
            char.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        } else {
            out.push(char);
        }
        if out.len() <= BEGINNING {
            beginning = out.len();
        }
    }
    if out.len() > MOST {
        out.truncate(beginning);
        out.push_str(&format!("%~{:08x}{:08x}", crc32fast::hash(name.as_bytes()), crc32c::crc32c(name.as_bytes())));
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        served(names.iter().copied(), &RESERVED)
    }

    #[test]
    fn usable_names_are_kept() {
        for name in [
            "a_b",
            "cell type",
            "größe µ",
            "mask",
            "Row",
            "index",
            "a%2Fb",
            "%mito",
            "...",
            "a,b",
            "\"q\"",
            &"x".repeat(251),
        ] {
            assert_eq!(names(&[name]), [name]);
        }
        assert_eq!(names(&["Ab", "ab"]), ["Ab", "ab"]);
    }

    #[test]
    fn others_are_escaped() {
        let odd = ["a/b", "a\\b", "", ".", "..", "row", "_index", "new\nline", "50%/a", "nul\0"];
        let want = ["a%2Fb", "a%5Cb", "%", "%2E", "%2E.", "%72ow", "%5Findex", "new%0Aline", "50%25%2Fa", "nul%00"];
        assert_eq!(names(&odd), want);
    }

    #[test]
    fn no_two_share_a_name() {
        assert_eq!(names(&["a/b", "a_b", "a%2Fb", "a/b"]), ["a%2Fb%", "a_b", "a%2Fb", "a%2Fb%%"]);
        // The order does not matter for who keeps an exact name.
        assert_eq!(names(&["a%2Fb", "a/b"]), ["a%2Fb", "a%2Fb%"]);
        assert_eq!(names(&["a", "a"]), ["a", "a%"]);
        let long = ["x".repeat(300), format!("{}y", "x".repeat(299)), "é/".repeat(200)];
        let served = names(&long.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(served.iter().all(|name| name.len() <= 220 && name.contains("%~")), "{served:?}");
        assert!(served[0].starts_with(&"x".repeat(200)) && served[0] != served[1]);
    }
}
