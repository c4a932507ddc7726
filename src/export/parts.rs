//! Parts, each written by its own process, in a hidden directory beside the final name.
//!
//! A part has a file `.begun` with its identity, written before its first byte, and a `.json` after its last. So a part that was begun
//! with other stores or options is written again, a complete one is not, and [`all`] knows which are missing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Export, ExportError, Part, lock, replace, sync_directory};

/// A part being written, locked against other processes.
pub struct Begun {
    /// The directory of all parts.
    pub all: PathBuf,
    identity: Value,
    done: PathBuf,
    _lock: File,
}

/// Begins a part, or continues it. `more` is what decides its bytes besides stores and options; `clear` removes the files that a run
/// with another identity has written.
///
/// # Errors
/// The final name exists, another process writes this part, the directory cannot be made.
pub fn begin(
    export: &Export,
    Part { index, of }: Part,
    more: &Value,
    clear: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Begun, ExportError> {
    export.refuse_existing()?;
    let all = export.partial(".part");
    // Its parent is not created: a missing one may be a disk that is not mounted.
    match fs::create_dir(&all) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(ExportError::write(&all)(error)),
        _ => {}
    }
    let lock = lock(&all.join(format!(".part-{index}.lock")))?;
    let identity = json!({"identity": export.identity, "of": of, "more": more});
    let (begun, done) = (all.join(format!(".part-{index}.begun")), all.join(format!(".part-{index}.json")));
    if fs::read(&begun).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).as_ref() != Some(&identity)
    {
        // Written with another epoch, other options or another version: nothing of it can be used.
        for path in [&begun, &done] {
            _ = fs::remove_file(path);
        }
        clear(&all).map_err(ExportError::write(&all))?;
        replace(&begun, identity.to_string().as_bytes())?;
    }
    Ok(Begun { all, identity, done, _lock: lock })
}

impl Begun {
    /// Marks the part as complete; its files must be synced. `metadata` is returned by [`all`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self, metadata: &Value) -> Result<(), ExportError> {
        replace(&self.done, json!({"identity": self.identity, "metadata": metadata}).to_string().as_bytes())
    }
}

/// The metadata of all parts.
///
/// # Errors
/// A part is missing, or was written from other stores or with other options.
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

/// Renames the complete directory to its final name.
///
/// # Errors
/// The file system refuses.
pub fn publish(export: &Export, of: u64) -> Result<(), ExportError> {
    let all = export.partial(".part");
    // Our own files are removed before the rename. If the process is killed in between, the parts are written again.
    for index in 0..of {
        for end in ["begun", "json", "lock"] {
            _ = fs::remove_file(all.join(format!(".part-{index}.{end}")));
        }
    }
    sync_directory(&all)?;
    fs::rename(&all, &export.out).map_err(ExportError::write(&export.out))?;
    sync_directory(&export.directory())
}
