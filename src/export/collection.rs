//! An epoch as an annbatch collection: a zarr v3 group whose `dataset_I` are AnnData groups, which may be written in any order and on
//! any machine. [`write`] writes one of them; [`finish`] checks that all exist, writes the collection's metadata and gives it its name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::anndata::progress::Progress;
use crate::engine::view_file::ViewFile;
use crate::format::DirectoryKind;
use crate::format::directory::{Directory, Inside, TOP};

use super::requests::InOrder;
use super::shard::{self, Index, Shards, sharded};
use super::{Export, ExportError, Part, parts, progress, replace, sync_directory};

const METADATA: &str = "zarr.json";
/// The name of the AnnData in the virtual directory of the engine.
const SHOWN: &str = "dataset_0";

/// Writes one part; returns its bytes on disk. Files of it that an earlier run has completed are kept.
///
/// # Errors
/// A store cannot be read, the disk is full, another process writes this part.
pub fn write(export: &Export, kind: DirectoryKind, part: Part) -> Result<u64, ExportError> {
    let name = format!("dataset_{}", part.index);
    let begun = parts::begin(export, part, &json!(format!("{:?}", export.compression)), |all| {
        let dataset = all.join(&name);
        if dataset.exists() { fs::remove_dir_all(dataset) } else { Ok(()) }
    })?;
    let dataset = begun.all.join(&name);
    let inside = |number| export.file(Some(part), |dealt| export.files.inside(dealt, kind, number));
    let directory = export.files.directory_of(inside(0), kind).map_err(ExportError::Read)?;
    let top = directory.lookup(TOP as u64, SHOWN).ok_or_else(|| ExportError::Read("there is no dataset".to_owned()))?;
    let arrays = Writer { export, directory: &directory, inside: &inside };
    let total = arrays.bytes(top);
    export.room(if export.compression == shard::Compression::None { total } else { total / 4 })?;
    let bar = progress(&export.out, total * if export.verify { 2 } else { 1 });
    let written = arrays.folder(top, &dataset, &bar)?;
    let metadata = fs::read(dataset.join(METADATA)).map_err(ExportError::write(&dataset))?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|error| ExportError::Read(error.to_string()))?;
    begun.finish(&metadata)?;
    Ok(written)
}

/// Completes a collection of `of` parts.
///
/// # Errors
/// A part is missing, or was written from other stores or with other options.
pub fn finish(export: &Export, of: u64) -> Result<(), ExportError> {
    let mut below = Map::new();
    for (index, mut metadata) in parts::all(export, of)?.into_iter().enumerate() {
        let name = format!("dataset_{index}");
        if let Some(Value::Object(inner)) = metadata["consolidated_metadata"].get_mut("metadata").map(Value::take) {
            below.extend(inner.into_iter().map(|(path, value)| (format!("{name}/{path}"), value)));
        }
        metadata["consolidated_metadata"] = inline(json!({}));
        below.insert(name, metadata);
    }
    let attributes = json!({"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"});
    let top = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes,
                     "consolidated_metadata": inline(Value::Object(below))});
    replace(&export.partial(".part").join(METADATA), top.to_string().as_bytes())?;
    parts::publish(export, of)
}

fn inline(metadata: Value) -> Value {
    json!({"kind": "inline", "must_understand": false, "metadata": metadata})
}

/// Writes the folders of one part.
struct Writer<'a> {
    export: &'a Export,
    directory: &'a Directory,
    inside: &'a dyn Fn(u64) -> ViewFile,
}

impl Writer<'_> {
    /// Decoded bytes of all files below a folder, at any depth.
    fn bytes(&self, folder: u64) -> u64 {
        let entries = (0..self.directory.len(folder)).filter_map(|i| self.directory.entry(folder, i));
        // All files of a run have the same size, except the last.
        let mut run = None;
        entries
            .map(|(_, number)| match self.directory.get(number) {
                Some(Inside::Folder) => self.bytes(number),
                Some(Inside::Numbered(_)) => *run.get_or_insert_with(|| self.size(number)),
                _ => self.size(number),
            })
            .sum()
    }

    fn size(&self, number: u64) -> u64 {
        self.export.files.size((self.inside)(number)).unwrap_or(0)
    }

    /// Writes a folder and what is below it; returns its bytes on disk.
    fn folder(&self, folder: u64, out: &Path, bar: &Progress) -> Result<u64, ExportError> {
        fs::create_dir_all(out).map_err(ExportError::write(out))?;
        let entries: Vec<(String, u64)> =
            (0..self.directory.len(folder)).filter_map(|i| self.directory.entry(folder, i)).collect();
        let (mut written, mut shards) = (0, None);
        if let Some((_, number)) = entries.iter().find(|(name, _)| name == METADATA) {
            let file = (self.inside)(*number);
            let bytes = self.read(std::iter::once(file)).next().unwrap_or_else(|| Ok(Vec::new()))?;
            let mut metadata: Value =
                serde_json::from_slice(&bytes).map_err(|error| ExportError::Read(error.to_string()))?;
            shards = sharded(&mut metadata, self.export.compression);
            if let Some(Value::Object(below)) = metadata["consolidated_metadata"].get_mut("metadata") {
                below.values_mut().for_each(|array| _ = sharded(array, self.export.compression));
            } else if let Some(object) = metadata.as_object_mut() {
                // Indexing above has created the key, with null.
                object.remove("consolidated_metadata");
            }
            replace(&out.join(METADATA), metadata.to_string().as_bytes())?;
            written += bytes.len() as u64;
        }
        let mut chunks = Vec::new();
        for (name, number) in entries {
            match self.directory.get(number) {
                Some(Inside::Folder) => written += self.folder(number, &out.join(&name), bar)?,
                Some(_) if name != METADATA => chunks.push((name, number)),
                _ => {}
            }
        }
        if let Some(shards) = shards {
            written += self.array(&chunks, shards, out, bar)?;
        }
        sync_directory(out)?;
        Ok(written)
    }

    /// Writes the chunks of an array, which is chunked along its first axis, as shards.
    fn array(&self, chunks: &[(String, u64)], shards: Shards, out: &Path, bar: &Progress) -> Result<u64, ExportError> {
        let mut written = 0;
        for (i, group) in chunks.chunks(usize::try_from(shards.each).unwrap_or(usize::MAX)).enumerate() {
            let Some((name, _)) = group.first() else { continue };
            // `c.FIRST.0` becomes `c.SHARD.0`.
            let rest = name.split('.').skip(2).map(|part| format!(".{part}")).collect::<String>();
            let path = out.join(format!("c.{i}{rest}"));
            let files = || group.iter().map(|(_, number)| (self.inside)(*number));
            match fs::metadata(&path) {
                Ok(about) => {
                    written += about.len();
                    bar.add(files().map(|file| self.export.files.size(file).unwrap_or(0)).sum());
                }
                Err(_) => written += self.shard(files(), shards, &path, bar)?,
            }
            if self.export.verify {
                self.verify(files(), shards, &path, bar)?;
            }
        }
        Ok(written)
    }

    fn shard(
        &self,
        files: impl Iterator<Item = ViewFile>,
        shards: Shards,
        path: &Path,
        bar: &Progress,
    ) -> Result<u64, ExportError> {
        let new = PathBuf::from(format!("{}.new", path.display()));
        let at = ExportError::write;
        let mut out = io::BufWriter::with_capacity(1 << 20, File::create(&new).map_err(at(&new))?);
        let (mut index, mut len) = (Index::default(), 0);
        for bytes in self.read(files) {
            let bytes = bytes?;
            let chunk = index.add(shards, self.export.compression, &bytes).map_err(ExportError::Read)?;
            out.write_all(&chunk).map_err(at(&new))?;
            len += chunk.len() as u64;
            bar.add(bytes.len() as u64);
        }
        let end = index.bytes(shards);
        let finish = || {
            out.write_all(&end)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&new, path)
        };
        finish().map_err(at(path))?;
        Ok(len + end.len() as u64)
    }

    fn verify(
        &self,
        files: impl Iterator<Item = ViewFile>,
        shards: Shards,
        path: &Path,
        bar: &Progress,
    ) -> Result<(), ExportError> {
        let shard = fs::read(path).map_err(ExportError::write(path))?;
        for (i, bytes) in self.read(files).enumerate() {
            let bytes = bytes?;
            let found = shard::chunk(&shard, shards, self.export.compression, i as u64, bytes.len());
            let differs = match found {
                Some(found) => found.iter().zip(&bytes).position(|(one, other)| one != other),
                None => Some(0),
            };
            if let Some(at) = differs {
                return Err(ExportError::Differs { path: path.to_owned(), at: at as u64 });
            }
            bar.add(bytes.len() as u64);
        }
        Ok(())
    }

    /// The contents of whole files, in order.
    fn read(&self, files: impl Iterator<Item = ViewFile>) -> impl Iterator<Item = Result<Vec<u8>, ExportError>> {
        let whole: Vec<_> = files.map(|file| (file, 0..self.export.files.size(file).unwrap_or(0))).collect();
        InOrder::new(&self.export.files, whole.into_iter())
    }
}
