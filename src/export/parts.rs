//! Parts that are written each by itself, in a hidden directory beside the place where the whole will be.
//!
//! A part has a word of what it is before its first byte and one after its last; so one that was begun with other stores or options is
//! written anew, one that is done is not written again, and who makes the whole knows what is missing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Export, ExportError, Part, lock, replace, sync_directory};

/// A part that is being written; nobody else writes it meanwhile.
pub struct Begun {
    /// Where all parts lie.
    pub all: PathBuf,
    identity: Value,
    done: PathBuf,
    _lock: File,
}

/// Begins a part, or goes on with it. `more` is what decides its bytes besides stores and options; `clear` removes what another run has
/// written of it.
///
/// # Errors
/// The place is taken, another process writes this part, the directory cannot be made.
pub fn begin(
    export: &Export,
    Part { index, of }: Part,
    more: &Value,
    clear: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Begun, ExportError> {
    export.refuse_existing()?;
    let all = export.partial(".part");
    // Its parent is not made: it may be a disk that is not mounted.
    match fs::create_dir(&all) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(ExportError::write(&all)(error)),
        _ => {}
    }
    let lock = lock(&all.join(format!(".part-{index}.lock")))?;
    let identity = json!({"identity": export.identity, "of": of, "more": more});
    let (begun, done) = (all.join(format!(".part-{index}.begun")), all.join(format!(".part-{index}.json")));
    if fs::read(&begun).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).as_ref() != Some(&identity)
    {
        // Another epoch, other options, or another version: nothing of it can be used.
        for path in [&begun, &done] {
            _ = fs::remove_file(path);
        }
        clear(&all).map_err(ExportError::write(&all))?;
        replace(&begun, identity.to_string().as_bytes())?;
    }
    Ok(Begun { all, identity, done, _lock: lock })
}

impl Begun {
    /// Notes that it is written and on the disk; `metadata` is for who makes the whole.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(&self, metadata: &Value) -> Result<(), ExportError> {
        replace(&self.done, json!({"identity": self.identity, "metadata": metadata}).to_string().as_bytes())
    }
}

/// The metadata of all parts.
///
/// # Errors
/// A part is missing, or was written of other stores or with other options.
pub fn all(export: &Export, of: u64) -> Result<Vec<Value>, ExportError> {
    export.refuse_existing()?;
    let all = export.partial(".part");
    let mut found = Vec::new();
    let mut first: Option<Value> = None;
    for index in 0..of {
        let path = all.join(format!(".part-{index}.json"));
        let missing =
            |_| ExportError::Parts(format!("part {index}/{of} is not written: --part {index}/{of} writes it"));
        let mut done: Value = serde_json::from_slice(&fs::read(&path).map_err(missing)?).unwrap_or_default();
        if *first.get_or_insert_with(|| done["identity"].clone()) != done["identity"] || done["identity"]["of"] != of {
            let (was, path) = (&done["identity"]["of"], path.display());
            return Err(ExportError::Parts(format!(
                "part {index} is one of {was}, or of other stores or options than part 0: write it again, or remove {path}"
            )));
        }
        found.push(done["metadata"].take());
    }
    Ok(found)
}

/// Gives the whole its name.
///
/// # Errors
/// The disk's.
pub fn publish(export: &Export, of: u64) -> Result<(), ExportError> {
    let all = export.partial(".part");
    // What only this program needs goes before the name is final; without it, the parts would be written again.
    for index in 0..of {
        for end in ["begun", "json", "lock"] {
            _ = fs::remove_file(all.join(format!(".part-{index}.{end}")));
        }
    }
    sync_directory(&all)?;
    fs::rename(&all, &export.out).map_err(ExportError::write(&export.out))?;
    sync_directory(&export.directory())
}
