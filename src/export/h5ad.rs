//! An epoch as one `.h5ad`: the bytes of `epoch-N.h5ad`, so an interrupted run can continue at any byte.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::format::Extension;

use super::requests::InOrder;
use super::{Export, ExportError, lock, progress, replace, sync_directory};

/// Bytes of one request, and bytes between two syncs.
const PIECE: u64 = 4 << 20;
const SYNC: u64 = 256 << 20;

/// Writes the epoch.
///
/// # Errors
/// The final name exists, a store cannot be read, the disk is full; nothing has the final name then.
pub fn write(export: &Export, extension: Extension) -> Result<u64, ExportError> {
    export.refuse_existing()?;
    let file = export.file(None, |dealt| export.files.of_epoch(dealt, extension));
    let Some(size) = export.files.size(file) else {
        return Err(ExportError::Read(format!(
            "these stores cannot be one .{} file; `info` says why",
            extension.as_str()
        )));
    };
    let (path, state) = (export.partial(".part"), export.partial(".part.json"));
    let _lock = lock(&path)?;
    let start = done_before(&state, &export.identity).filter(|&done| done <= size && has(&path, done)).unwrap_or(0);
    export.room(size - start)?;
    let at = ExportError::write;
    let mut out = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    out.set_len(start).and_then(|()| out.seek(SeekFrom::Start(start))).map_err(at(&path))?;
    let bar = progress(&export.out, size);
    bar.add(start);
    let pieces = |start: u64| {
        let requests = (start..size).step_by(PIECE as usize).map(|from| (file, from..size.min(from + PIECE)));
        InOrder::new(&export.files, requests)
    };
    let mut done = start;
    for bytes in pieces(start) {
        let bytes = bytes?;
        out.write_all(&bytes).map_err(at(&path))?;
        bar.add(bytes.len() as u64);
        let before = done / SYNC;
        done += bytes.len() as u64;
        if done / SYNC != before {
            out.sync_data().map_err(at(&path))?;
            replace(&state, json!({"identity": export.identity, "done": done}).to_string().as_bytes())?;
        }
    }
    out.sync_all().map_err(at(&path))?;
    drop(out);
    if export.verify {
        verify(export, &path, size, pieces(0))?;
    }
    export.refuse_existing()?;
    // Removed before the rename, so that a run that is killed in between leaves nothing beside the result.
    _ = fs::remove_file(state);
    fs::rename(&path, &export.out).map_err(at(&export.out))?;
    sync_directory(&export.directory())?;
    Ok(size)
}

/// Bytes that an earlier run with the same identity has synced.
fn done_before(state: &Path, identity: &Value) -> Option<u64> {
    let state: Value = serde_json::from_slice(&fs::read(state).ok()?).ok()?;
    (state["identity"] == *identity).then(|| state["done"].as_u64())?
}

fn has(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|about| about.len() >= bytes)
}

/// Compares the file with a second reading from the engine.
fn verify(
    export: &Export,
    path: &Path,
    size: u64,
    again: impl Iterator<Item = Result<Vec<u8>, ExportError>>,
) -> Result<(), ExportError> {
    let mut file = File::open(path).map_err(ExportError::write(path))?;
    let bar = progress(&export.out, size);
    let (mut at, mut found) = (0, Vec::new());
    for bytes in again {
        let bytes = bytes?;
        found.resize(bytes.len(), 0);
        file.read_exact(&mut found).map_err(ExportError::write(path))?;
        if let Some(i) = found.iter().zip(&bytes).position(|(one, other)| one != other) {
            return Err(ExportError::Differs { path: path.to_owned(), at: at + i as u64 });
        }
        at += bytes.len() as u64;
        bar.add(bytes.len() as u64);
    }
    Ok(())
}
