//! An epoch as a directory of files of one format, `part-00000.NAME`, for readers of many files (Spark, polars, DuckDB, Hugging Face):
//! one file a fetch, with rows in the order of the epoch.

use std::fs;
use std::io;
use std::sync::mpsc::sync_channel;

use serde_json::json;

use crate::engine::lease::Loaded;
use crate::engine::{ImageKey, ReadError};
use crate::format::Extension;

use super::{Export, ExportError, Part, parts, progress, replace, sync_directory};

/// Writes the files of one part; returns their bytes. Files of it that an earlier run has completed are kept.
///
/// # Errors
/// A store cannot be read, the disk is full, another process writes this part.
pub fn write(export: &Export, extension: Extension, part: Part) -> Result<u64, ExportError> {
    let (from, to) = export.cut(part);
    let name = |number: u64| format!("part-{number:05}.{}", extension.as_str());
    let begun = parts::begin(export, part, &json!(extension.as_str()), |all| {
        let gone = |number| match fs::remove_file(all.join(name(number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        (from..to).try_for_each(gone)
    })?;
    let key = |batch| ImageKey::file(export.view, export.epoch, batch, extension);
    let size = |batch| export.engine.size(key(batch)).unwrap_or(0);
    let total: u64 = (from..to).map(size).sum();
    let here = |number| begun.all.join(name(number));
    let there: u64 = (from..to).filter_map(|number| fs::metadata(here(number)).ok()).map(|about| about.len()).sum();
    export.room(total.saturating_sub(there))?;
    let bar = progress(&export.out, total * if export.verify { 2 } else { 1 });
    for number in from..to {
        let path = here(number);
        if path.exists() {
            bar.add(size(number));
        } else {
            let image = load(export, key(number))?;
            replace(&path, image.bytes())?;
            bar.add(image.bytes().len() as u64);
        }
        if export.verify {
            let (written, image) = (fs::read(&path).map_err(ExportError::write(&path))?, load(export, key(number))?);
            let differs = written.iter().zip(image.bytes()).position(|(one, other)| one != other);
            if let Some(at) = differs.or((written.len() != image.bytes().len()).then_some(written.len())) {
                return Err(ExportError::Differs { path, at: at as u64 });
            }
            bar.add(written.len() as u64);
        }
    }
    sync_directory(&begun.all)?;
    begun.finish(&json!(to - from))?;
    Ok(total)
}

/// Completes a directory of `of` parts.
///
/// # Errors
/// A part is missing, or was written from other stores or with other options.
pub fn finish(export: &Export, of: u64) -> Result<(), ExportError> {
    parts::all(export, of)?;
    parts::publish(export, of)
}

fn load(export: &Export, key: ImageKey) -> Result<Loaded, ExportError> {
    let (sender, receiver) = sync_channel(1);
    let opened = move |image: Result<Loaded, &ReadError>| {
        _ = sender.send(image.map_err(ToString::to_string));
    };
    export.engine.open(key, None, Box::new(opened));
    receiver.recv().unwrap_or_else(|_| Err("a read was given up".to_owned())).map_err(ExportError::Read)
}
