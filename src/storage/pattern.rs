//! Expands patterns: `{a,b}`, and for remote objects, which no shell expands, `*`, `?` and `[a-z]`. A `*` matches within one path
//! component.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use super::locate;
use super::name::{Name, is_remote};

/// Names that one pattern may expand to, at most.
const MOST: usize = 100_000;

/// Expands names in order; the matches of one pattern are sorted. Local paths stay as they are.
///
/// # Errors
/// A pattern without a match; those of the storage.
pub fn expand(names: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut all = Vec::new();
    for name in names {
        match name.to_str().filter(|_| is_remote(name)) {
            Some(text) => {
                for text in sets(text)? {
                    all.extend(matching(&text)?.into_iter().map(PathBuf::from));
                }
            }
            None => all.push(name.clone()),
        }
    }
    Ok(all)
}

/// Expands `{a,b}`: a name for each choice.
///
/// # Errors
/// There are too many choices.
pub fn sets(text: &str) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    let mut left = vec![text.to_owned()];
    while let Some(text) = left.pop() {
        let inner = text.find('{').and_then(|open| Some((open, text[open..].find('}')? + open)));
        match inner {
            Some((open, close)) => {
                let choices = text[open + 1..close].split(',').rev();
                left.extend(choices.map(|choice| format!("{}{choice}{}", &text[..open], &text[close + 1..])));
            }
            None => done.push(text),
        }
        if done.len() + left.len() > MOST {
            return Err("a set in braces stands for too many names".to_owned());
        }
    }
    Ok(done)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The names that match a pattern, found component by component.
fn matching(text: &str) -> Result<Vec<String>, String> {
    let (store, inner) = text.rsplit_once("::").map_or((text, None), |(store, inner)| (store, Some(inner)));
    if !is_pattern(store) {
        return Ok(vec![text.to_owned()]);
    }
    let failed = |cause: String| format!("{text}: {cause}");
    let name = Name::parse(store).map_err(failed)?;
    let mut folders = vec![name.root.clone()];
    for part in name.key.split('/') {
        let mut below = Vec::new();
        for folder in &folders {
            if !is_pattern(part) {
                below.push(format!("{folder}/{part}"));
                continue;
            }
            let listed = locate(Path::new(folder)).and_then(|folder| folder.list());
            let listed = match listed {
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                listed => listed.map_err(|error: Error| failed(error.to_string()))?,
            };
            let fitting = listed.into_iter().filter(|name| fits(part.as_bytes(), name.as_bytes()));
            below.extend(fitting.map(|name| format!("{folder}/{name}")));
        }
        folders = below;
    }
    if folders.is_empty() {
        return Err(failed("no object matches".to_owned()));
    }
    folders.sort();
    Ok(folders.into_iter().map(|name| inner.map_or(name.clone(), |inner| format!("{name}::{inner}"))).collect())
}

/// Whether a path matches a pattern, component by component.
pub fn fits_path(pattern: &Path, path: &Path) -> bool {
    let levels = |path: &Path| path.components().count();
    let fit = |(pattern, name): (std::path::Component<'_>, std::path::Component<'_>)| {
        fits(pattern.as_os_str().as_encoded_bytes(), name.as_os_str().as_encoded_bytes())
    };
    levels(pattern) == levels(path) && pattern.components().zip(path.components()).all(fit)
}

/// Whether a name matches a pattern of one component.
fn fits(mut pattern: &[u8], mut name: &[u8]) -> bool {
    // After a `*`: the rest of the pattern, and where in the name it was tried last. On a mismatch the `*` takes one byte more. Earlier
    // stars need no backtracking.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', rest)) = pattern.split_first() {
            star = Some((rest, name));
            pattern = rest;
            continue;
        }
        let next = match name.split_first() {
            None if pattern.is_empty() => return true,
            None => None,
            Some((&byte, after)) => behind(pattern, byte).map(|rest| (rest, after)),
        };
        (pattern, name) = match next {
            Some(next) => next,
            None => {
                let Some((rest, [_, after @ ..])) = star else { return false };
                star = Some((rest, after));
                (rest, after)
            }
        };
    }
}

/// The rest of a pattern after the element that matches a byte; `None` if it does not match.
fn behind(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern.split_first()? {
        (b'?', rest) => Some(rest),
        (b'[', rest) if rest.contains(&b']') => {
            let end = rest.iter().position(|&byte| byte == b']').unwrap_or(0);
            let set = rest.get(..end).unwrap_or_default();
            is_in(set, byte).then(|| rest.get(end + 1..).unwrap_or_default())
        }
        (&first, rest) => (first == byte).then_some(rest),
    }
}

/// Whether a byte is in a set such as `abc`, `a-z` or `!0-9`.
fn is_in(set: &[u8], byte: u8) -> bool {
    let (negated, mut set) = match set.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    while let Some((&first, rest)) = set.split_first() {
        set = match rest {
            [b'-', last, rest @ ..] => {
                found |= (first..=*last).contains(&byte);
                rest
            }
            rest => {
                found |= first == byte;
                rest
            }
        };
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_stand_for_each_of_their_names_in_order() {
        let all = sets("s3://b/{x,y}/{1,2}.h5ad").expect("few");
        assert_eq!(all, ["s3://b/x/1.h5ad", "s3://b/x/2.h5ad", "s3://b/y/1.h5ad", "s3://b/y/2.h5ad"]);
        assert_eq!(sets("s3://b/plain{").expect("one"), ["s3://b/plain{"]);
    }

    #[test]
    fn patterns_fit_one_level() {
        for (pattern, name, expected) in [
            ("*.h5ad", "a.h5ad", true),
            ("*.h5ad", "a.zarr", false),
            ("plate_?.*", "plate_7.h5ad", true),
            ("plate_[0-4]", "plate_7", false),
            ("plate_[!0-4]", "plate_7", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        let names = ["/data/a*.h5ad".into(), "s3://b/{a,b}.h5ad::mod/rna".into()];
        let expected: Vec<PathBuf> =
            ["/data/a*.h5ad", "s3://b/a.h5ad::mod/rna", "s3://b/b.h5ad::mod/rna"].map(PathBuf::from).into();
        assert_eq!(expand(&names), Ok(expected));
    }
}
