//! A list of rows: global row numbers, or `src_path:obs_name`; one a line, or a `.npy` array of numbers.
//!
//! The order in the list and repeats mean nothing: a list is a set. A bad entry is told with its line.

use std::collections::HashMap;

use super::ViewError;
use super::bits::Bits;

/// What stores are called and how their rows are named, to find rows by name.
pub trait Names {
    /// Whether a store goes by this path, given as written in the list; the stores in question, each with its first row.
    fn stores(&self, path: &str) -> Vec<usize>;
    /// Names of a store's rows, and the global number of the first.
    fn rows(&self, store: usize) -> Result<(u64, Vec<String>), String>;
}

/// The rows that a file lists.
///
/// # Errors
/// An entry that is no row: with the number of its line, or of its element.
pub fn rows(content: &[u8], rows: u64, names: &dyn Names) -> Result<Bits, ViewError> {
    if content.starts_with(b"\x93NUMPY") {
        return numbers(content, rows);
    }
    let mut found = Bits::none(rows);
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = 1 + content[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        ViewError::List { line, cause: "is neither text (UTF-8) nor a .npy array".to_owned() }
    })?;
    let mut known: HashMap<usize, (u64, HashMap<String, Option<u64>>)> = HashMap::new();
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
            return Err(wrong(format!("there is no row {row}; the stores have {rows}, numbered from 0")));
        }
        found.insert(row);
    }
    Ok(found)
}

type Known = HashMap<usize, (u64, HashMap<String, Option<u64>>)>;

/// Paths and names may both hold colons: every colon is tried, from the last.
fn by_name(entry: &str, names: &dyn Names, known: &mut Known) -> Result<u64, String> {
    let mut path_known = None;
    for (colon, _) in entry.rmatch_indices(':') {
        let (path, name) = (&entry[..colon], &entry[colon + 1..]);
        for store in names.stores(path) {
            path_known = Some((path, name));
            if !known.contains_key(&store) {
                let (first, all) = names.rows(store)?;
                let mut by_name = HashMap::with_capacity(all.len());
                for (i, name) in all.into_iter().enumerate() {
                    // A name that stands twice names no row.
                    by_name.entry(name).and_modify(|row| *row = None).or_insert(Some(i as u64));
                }
                known.insert(store, (first, by_name));
            }
            match known.get(&store).and_then(|(first, rows)| Some((first, rows.get(name)?))) {
                Some((first, Some(row))) => return Ok(first + row),
                Some((_, None)) => return Err(format!("{name} names several rows of {path}; give row numbers")),
                None => {}
            }
        }
    }
    Err(match path_known {
        Some((path, name)) => format!("{path} has no row called {name}"),
        None => format!("{entry:?} is neither a row number nor STORE:NAME with one of the stores"),
    })
}

/// An array as numpy writes it: one axis of whole numbers, or booleans as a mask.
fn numbers(content: &[u8], rows: u64) -> Result<Bits, ViewError> {
    let wrong = |line: usize, cause: String| ViewError::List { line, cause };
    let short = || wrong(1, "the .npy header is cut off".to_owned());
    let wide = content.get(6).is_some_and(|&version| version >= 2);
    let (length, start) = if wide {
        let length = content.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or_else(short)?;
        (length as usize, 12)
    } else {
        let length = content.get(8..10).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes).ok_or_else(short)?;
        (usize::from(length), 10)
    };
    let header = content.get(start..start + length).ok_or_else(short)?;
    let header: String = String::from_utf8_lossy(header).chars().filter(|c| !c.is_whitespace()).collect();
    let data = &content[start + length..];
    let descr = header.split("'descr':'").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
    let shape = header.split("'shape':(").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
    let count: usize = shape
        .trim_end_matches(',')
        .parse()
        .map_err(|_| wrong(1, format!("an array of shape ({shape}); row numbers have one axis")))?;
    let (swapped, kind) = match descr.split_at_checked(1) {
        Some((">", kind)) => (true, kind),
        Some(("<" | "|" | "=", kind)) => (false, kind),
        _ => (false, ""),
    };
    let size: usize = match kind {
        "i1" | "u1" | "b1" => 1,
        "i2" | "u2" => 2,
        "i4" | "u4" => 4,
        "i8" | "u8" => 8,
        _ => {
            return Err(wrong(
                1,
                format!("an array of dtype {descr:?}; row numbers are integers, or booleans as a mask"),
            ));
        }
    };
    if count.checked_mul(size).is_none_or(|bytes| bytes > data.len()) {
        return Err(wrong(1, format!("{count} numbers are announced, but the file holds fewer")));
    }
    let mut found = Bits::none(rows);
    if kind == "b1" {
        if count as u64 != rows {
            return Err(wrong(1, format!("a mask of {count} values for {rows} rows")));
        }
        (0..rows).filter(|&row| data[row as usize] != 0).for_each(|row| found.insert(row));
        return Ok(found);
    }
    for (i, bytes) in data.chunks_exact(size).take(count).enumerate() {
        let mut wide = [0; 16];
        wide[..size].copy_from_slice(bytes);
        if swapped {
            wide[..size].reverse();
        }
        if kind.starts_with('i') && wide[size - 1] >= 0x80 {
            wide[size..].fill(0xff);
        }
        let number = i128::from_le_bytes(wide);
        match u64::try_from(number).ok().filter(|&row| row < rows) {
            Some(row) => found.insert(row),
            None => {
                return Err(wrong(i + 1, format!("there is no row {number}; the stores have {rows}, numbered from 0")));
            }
        }
    }
    Ok(found)
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
    fn arrays() {
        assert!(rows(&npy("<i2", "2,", &[1, 0, 4, 0]), 6, &Two).is_ok_and(|bits| bits.iter().eq([1, 4])));
        assert!(rows(&npy(">u4", "1,", &[0, 0, 0, 2]), 6, &Two).is_ok_and(|bits| bits.iter().eq([2])));
        assert!(rows(&npy("|b1", "3,", &[1, 0, 1]), 3, &Two).is_ok_and(|bits| bits.iter().eq([0, 2])));
        for (file, word) in [
            (npy("<i2", "2,", &[1, 0, 255, 255]), "no row -1"),
            (npy("<f8", "1,", &[0; 8]), "dtype"),
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
