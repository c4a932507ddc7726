//! Reads a list of rows: global row numbers or `src_path:obs_name`, one a line, or a `.npy` array of numbers or booleans.
//!
//! A list is a set: order and repeats have no effect. Errors name the line of the entry.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::ViewError;
use super::bits::Bits;
use super::npy::{MAGIC, NpyArray};

/// Looks up stores and rows by name.
pub trait Names {
    /// The stores that a path in the list may mean.
    fn stores(&self, path: &str) -> Vec<usize>;
    /// The global number of a store's first row, and the names of its rows.
    fn rows(&self, store: usize) -> Result<(u64, Vec<String>), String>;
}

/// The rows that a file lists; `rows` is the number of rows of the collection.
///
/// # Errors
/// An entry that is no row, with its line or index.
pub fn rows(content: &[u8], rows: u64, names: &dyn Names) -> Result<Bits, ViewError> {
    if content.starts_with(MAGIC) {
        return numbers(content, rows);
    }
    let mut found = Bits::none(rows);
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = 1 + content[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        ViewError::List { line, cause: "is neither text (UTF-8) nor a .npy array".to_owned() }
    })?;
    let mut known = Known::new();
    for (number, entry) in text.lines().enumerate() {
        let entry = entry.trim_end_matches('\r');
        if entry.trim().is_empty() {
            continue;
        }
        let wrong = |cause: String| ViewError::List { line: number + 1, cause };
        let row = match entry.trim().parse::<u64>() {
            Ok(row) => row,
            Err(_) => by_name(entry, names, &mut known).map_err(wrong)?,
        };
        if row >= rows {
            return Err(wrong(no_row(row, rows)));
        }
        found.insert(row);
    }
    Ok(found)
}

/// By store: the number of its first row, and its rows by name; `None` for a name that occurs twice.
type Known = HashMap<usize, (u64, HashMap<String, Option<u64>>)>;

/// Finds a row by `STORE:NAME`. Both parts may contain colons, so all colons are tried, from the last one.
fn by_name(entry: &str, names: &dyn Names, known: &mut Known) -> Result<u64, String> {
    let mut path_known = None;
    for (colon, _) in entry.rmatch_indices(':') {
        let (path, name) = (&entry[..colon], &entry[colon + 1..]);
        for store in names.stores(path) {
            path_known = Some((path, name));
            let (first, by_name) = match known.entry(store) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(indexed(names.rows(store)?)),
            };
            match by_name.get(name) {
                Some(Some(row)) => return Ok(*first + row),
                Some(None) => return Err(format!("{name} names several rows of {path}; give row numbers")),
                None => {}
            }
        }
    }
    Err(match path_known {
        Some((path, name)) => format!("{path} has no row called {name}"),
        None => format!("{entry:?} is neither a row number nor STORE:NAME with one of the stores"),
    })
}

/// Inverts a list of row names.
fn indexed((first, names): (u64, Vec<String>)) -> (u64, HashMap<String, Option<u64>>) {
    let mut by_name = HashMap::with_capacity(names.len());
    for (i, name) in names.into_iter().enumerate() {
        // A name that occurs twice identifies no row.
        by_name.entry(name).and_modify(|row| *row = None).or_insert(Some(i as u64));
    }
    (first, by_name)
}

/// Reads an array of row numbers, or of booleans as a mask.
fn numbers(content: &[u8], rows: u64) -> Result<Bits, ViewError> {
    let wrong = |line: usize, cause: String| ViewError::List { line, cause };
    let array = NpyArray::parse(content).map_err(|cause| wrong(1, cause))?;
    let mut found = Bits::none(rows);
    match array.kind {
        'f' => return Err(wrong(1, "an array of floats; row numbers are integers, or booleans as a mask".to_owned())),
        'b' if array.len() as u64 != rows => {
            return Err(wrong(1, format!("a mask of {} values for {rows} rows", array.len())));
        }
        'b' => (0..rows).zip(array.integers()).filter(|&(_, kept)| kept != 0).for_each(|(row, _)| found.insert(row)),
        _ => {
            for (i, number) in array.integers().enumerate() {
                match u64::try_from(number).ok().filter(|&row| row < rows) {
                    Some(row) => found.insert(row),
                    None => return Err(wrong(i + 1, no_row(number, rows))),
                }
            }
        }
    }
    Ok(found)
}

fn no_row(row: impl std::fmt::Display, rows: u64) -> String {
    format!("there is no row {row}; the stores have {rows}, numbered from 0")
}

/// Reads a weight for each row of the collection: a number a line, or a `.npy` array.
///
/// # Errors
/// A line that is not a number; too few or too many numbers. The plan checks the values.
pub fn weights(content: &[u8], rows: u64) -> Result<Vec<f32>, ViewError> {
    let wrong = |line: usize, cause: String| ViewError::List { line, cause };
    let weights: Vec<f32> = if content.starts_with(MAGIC) {
        NpyArray::parse(content).map_err(|cause| wrong(1, cause))?.floats().map(|weight| weight as f32).collect()
    } else {
        let text = String::from_utf8_lossy(content);
        let number = |(i, line): (usize, &str)| {
            let number = line.trim().parse().map_err(|_| wrong(i + 1, format!("{:?} is no number", line.trim())));
            (!line.trim().is_empty()).then_some(number)
        };
        text.lines().enumerate().filter_map(number).collect::<Result<_, _>>()?
    };
    if weights.len() as u64 != rows {
        return Err(wrong(weights.len(), format!("{} weights for {rows} rows: give one for each", weights.len())));
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Names for Two {
        fn stores(&self, path: &str) -> Vec<usize> {
            ["a.h5ad", "b:c.zarr"].iter().position(|name| *name == path).into_iter().collect()
        }

        fn rows(&self, store: usize) -> Result<(u64, Vec<String>), String> {
            let names = [["x", "y:z", "x"], ["x", "y", "z"]][store];
            Ok((3 * store as u64, names.map(str::to_owned).into()))
        }
    }

    #[test]
    fn numbers_and_names() {
        let list = b"5\r\n\n  0 \na.h5ad:y:z\nb:c.zarr:x\n5\n";
        assert!(rows(list, 6, &Two).is_ok_and(|bits| bits.iter().eq([0, 1, 3, 5])));
        for (list, line, word) in [
            ("1\n6", 2, "no row 6"),
            ("-1", 1, "neither"),
            ("a.h5ad:x", 1, "several"),
            ("0\n1\nb:c.zarr:q", 3, "no row called q"),
            ("z.h5ad:x", 1, "one of the stores"),
        ] {
            match rows(list.as_bytes(), 6, &Two) {
                Err(ViewError::List { line: found, cause }) => {
                    assert!(found == line && cause.contains(word), "{cause}")
                }
                other => panic!("{list}: {other:?}"),
            }
        }
        assert!(matches!(rows(b"1\n2\n\xff", 6, &Two), Err(ViewError::List { line: 3, .. })));
    }

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn weights_are_one_a_row() {
        assert_eq!(weights(b"1\n0.5\n\n2e1", 3), Ok(vec![1.0, 0.5, 20.0]));
        assert_eq!(weights(&npy("<f4", "1,", &2.5f32.to_le_bytes()), 1), Ok(vec![2.5]));
        assert_eq!(weights(&npy("|i1", "2,", &[3, 255]), 2), Ok(vec![3.0, -1.0]));
        assert!(weights(b"1\nx", 2).is_err_and(|error| error.to_string().contains("line 2")));
        assert!(weights(b"1\n2", 3).is_err_and(|error| error.to_string().contains("2 weights for 3 rows")));
    }

    #[test]
    fn arrays() {
        assert!(rows(&npy("<i2", "2,", &[1, 0, 4, 0]), 6, &Two).is_ok_and(|bits| bits.iter().eq([1, 4])));
        assert!(rows(&npy(">u4", "1,", &[0, 0, 0, 2]), 6, &Two).is_ok_and(|bits| bits.iter().eq([2])));
        assert!(rows(&npy("|b1", "3,", &[1, 0, 1]), 3, &Two).is_ok_and(|bits| bits.iter().eq([0, 2])));
        for (file, word) in [
            (npy("<i2", "2,", &[1, 0, 255, 255]), "no row -1"),
            (npy("<f8", "1,", &[0; 8]), "floats"),
            (npy("<c8", "1,", &[0; 8]), "dtype"),
            (npy("<i8", "1, 1", &[0; 8]), "one axis"),
            (npy("<i8", "2,", &[0; 8]), "fewer"),
            (npy("|b1", "3,", &[1, 0, 1]), "for 6 rows"),
            (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), "cut off"),
        ] {
            let error = rows(&file, 6, &Two);
            assert!(error.as_ref().is_err_and(|error| error.to_string().contains(word)), "{error:?}");
        }
    }
}
