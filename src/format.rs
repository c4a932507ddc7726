//! Output formats: the exact bytes of one file, from a layout that follows from the batch's shape.
//!
//! A format never sees a store. `layout` says where each field goes; the engine scatters the data there; `finish` then writes headers,
//! constants and checksums. So `st_size` needs no data, and a row's bytes are copied once between decoder and reader.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap))]

mod arrow;
mod dataset;
pub mod directory;
mod directory_kind;
pub mod h5ad;
pub mod names;
mod npy;
mod npz;
pub mod obs;
mod parquet;
mod record;
pub mod records;
mod safetensors;
mod segments;
mod shards;
mod tar;
mod tensor;
mod tfrecord;
mod tsv;
mod zarr;

use std::fmt;
use std::hash::{Hash, Hasher};

pub use directory_kind::DirectoryKind;
pub use parquet::open_paged as paged_parquet;
pub use segments::{Content, FileShape, Segment, Segments};
pub use tsv::escape;

use directory::{DirectoryFormat, OpenedDirectory};

use crate::batch::{Batch, Layout};
use crate::collection::Table;

/// One output format. Implementations are pure: equal batches give equal bytes on every machine.
pub trait Format: Send + Sync {
    /// The range of each field and the size of the file, from the rows, their lengths ([`Batch::lengths`]) and the obs columns. Reads no
    /// matrix data.
    fn layout(&self, batch: &Batch<'_>) -> Layout;

    /// Writes every byte of `image` that no span covers. Called once, after all spans have been filled; the rest of `image` is arbitrary
    /// before. May move the content of spans.
    fn finish(&self, batch: &Batch<'_>, layout: &Layout, image: &mut [u8]);

    /// Lays out one file of many batches (`epoch-0000.NAME`), which is never in memory as a whole, unlike a batch file.
    ///
    /// # Errors
    /// Why the format has no such file.
    fn segments(&self, shape: &FileShape<'_>) -> Result<Segments, String> {
        let _ = shape;
        Err("it holds one batch a file".to_owned())
    }

    /// Maximum size of a file; larger ones do not exist.
    fn most_bytes(&self) -> u64 {
        u64::MAX
    }
}

/// A line of the registry: all that the rest of the program knows about a format.
pub struct FormatEntry {
    /// The number in inode numbers, 1 to 14. It must never change or be reused.
    pub code: u8,
    /// The file name extension, without the dot.
    pub name: &'static str,
    /// Programs that read it, for README.txt.
    pub readers: &'static str,
    /// Whether it has companions of a batch's rows ([`Table::companions`]).
    pub companions: bool,
    /// Prepares what all batches of a table share, or says why the format cannot hold the table.
    pub open: fn(&Table) -> Opened,
}

/// A registered format.
#[derive(Clone, Copy)]
pub struct Extension(&'static FormatEntry);

impl Extension {
    /// The registry, one line for each format.
    pub const ALL: &[Extension] = &[
        Extension(&FormatEntry { code: 1, name: "npz", readers: "numpy, scipy", companions: true, open: npz::open }),
        Extension(&FormatEntry {
            code: 2,
            name: "safetensors",
            readers: "the same tensors; fastest to load",
            companions: true,
            open: safetensors::open,
        }),
        Extension(&FormatEntry {
            code: 3,
            name: "npy",
            readers: "X alone, dense; can be memory-mapped",
            companions: true,
            open: npy::open,
        }),
        Extension(&FormatEntry {
            code: 4,
            name: "h5ad",
            readers: "anndata.read_h5ad",
            companions: true,
            open: h5ad::open,
        }),
        Extension(&FormatEntry {
            code: 5,
            name: "tsv",
            readers: "the obs rows as text: head, cut, R",
            companions: false,
            open: tsv::open,
        }),
        Extension(&FormatEntry {
            code: 6,
            name: "arrow",
            readers: "Arrow: pyarrow, polars, R; mapped, a row a cell",
            companions: false,
            open: arrow::open,
        }),
        Extension(&FormatEntry {
            code: 7,
            name: "parquet",
            readers: "pyarrow, polars, DuckDB, Spark, Hugging Face",
            companions: true,
            open: parquet::open,
        }),
        Extension(&FormatEntry {
            code: 8,
            name: "tar",
            readers: "WebDataset: a sample a row, .npy and .json",
            companions: false,
            open: tar::open,
        }),
        Extension(&FormatEntry {
            code: 9,
            name: "tfrecord",
            readers: "TensorFlow: tf.train.Example",
            companions: false,
            open: tfrecord::open,
        }),
        Extension(&FormatEntry {
            code: 10,
            name: "tahoe.parquet",
            readers: "loaders of Tahoe-100M: its columns, gene tokens",
            companions: false,
            open: parquet::open_tahoe,
        }),
        Extension(&FormatEntry {
            code: 11,
            name: "mds",
            readers: "MosaicML Streaming, of epoch-0000.mds",
            companions: false,
            open: shards::open_mds,
        }),
        Extension(&FormatEntry {
            code: 12,
            name: "litdata",
            readers: "LitData, of epoch-0000.litdata",
            companions: false,
            open: shards::open_litdata,
        }),
        Extension(&FormatEntry {
            code: 13,
            name: "record.npy",
            readers: "the arrays of .npz as one record: numpy, faster",
            companions: true,
            open: record::open,
        }),
        Extension(&FormatEntry {
            code: 14,
            name: "h5mu",
            readers: "mudata.read_h5mu, of several modalities",
            companions: true,
            open: h5ad::open_h5mu,
        }),
    ];

    /// A format that is not registered, for tests; its code must be unused.
    pub const fn new(entry: &'static FormatEntry) -> Extension {
        Extension(entry)
    }

    /// The extension in file names, without the dot.
    pub fn as_str(self) -> &'static str {
        self.0.name
    }

    /// The number in inode numbers.
    pub fn code(self) -> u8 {
        self.0.code
    }

    /// Programs that read it.
    pub fn readers(self) -> &'static str {
        self.0.readers
    }

    /// The registered format with a name.
    pub fn from_name(name: &str) -> Option<Extension> {
        Extension::ALL.iter().copied().find(|extension| extension.as_str() == name)
    }
}

impl PartialEq for Extension {
    fn eq(&self, other: &Extension) -> bool {
        self.code() == other.code()
    }
}

impl Eq for Extension {}

impl Hash for Extension {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.code().hash(state);
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The writers of all formats for one collection. A format that cannot hold it (`.h5ad` with too many columns) has the reason instead, and
/// its files do not exist.
pub struct Writers {
    files: Vec<(Extension, Opened)>,
    directories: Vec<(DirectoryKind, OpenedDirectory)>,
}

/// A format's writer, or why it cannot hold the table.
type Opened = Result<Box<dyn Format>, String>;

impl Writers {
    /// Writers of all registered formats.
    pub fn new(table: &Table) -> Writers {
        Writers::of(table, Extension::ALL)
    }

    /// Writers of these formats.
    pub fn of(table: &Table, extensions: &[Extension]) -> Writers {
        let refused = |holds: bool| match table.companions.first() {
            Some(companion) if !holds => Err(format!("it holds no rows beside those of a batch ({})", companion.name)),
            _ => Ok(()),
        };
        let file = |&extension: &Extension| {
            let opened = refused(extension.0.companions).and_then(|()| (extension.0.open)(table));
            (extension, opened)
        };
        let directory = |&kind: &DirectoryKind| (kind, refused(false).and_then(|()| kind.open(table)));
        let files = extensions.iter().map(file).collect();
        Writers { files, directories: DirectoryKind::ALL.iter().map(directory).collect() }
    }

    /// The writer of a format.
    ///
    /// # Errors
    /// Why the format cannot hold this collection.
    pub fn get(&self, extension: Extension) -> Result<&dyn Format, &str> {
        match self.files.iter().find(|(other, _)| *other == extension) {
            Some((_, writer)) => writer.as_deref().map_err(String::as_str),
            None => Err("there is no such format"),
        }
    }

    /// The formats that can hold the collection.
    pub fn extensions(&self) -> Vec<Extension> {
        self.files.iter().filter(|(_, writer)| writer.is_ok()).map(|(extension, _)| *extension).collect()
    }

    /// The formats with a file of many batches. Tables with companions have none.
    pub fn whole(&self, table: &Table) -> Vec<Extension> {
        if !table.companions.is_empty() {
            return Vec::new();
        }
        let nnz = vec![0; table.elements.len()];
        let has = |extension: &Extension| {
            let shape = FileShape { table, rows: 0, nnz: &nnz, batches: 0 };
            self.get(*extension).is_ok_and(|writer| writer.segments(&shape).is_ok())
        };
        self.extensions().into_iter().filter(has).collect()
    }

    /// The writer of a directory format.
    ///
    /// # Errors
    /// Why the format cannot hold this collection.
    pub fn directory(&self, kind: DirectoryKind) -> Result<&dyn DirectoryFormat, &str> {
        match self.directories.iter().find(|(other, _)| *other == kind) {
            Some((_, writer)) => writer.as_deref().map_err(String::as_str),
            None => Err("there is no such format"),
        }
    }

    /// The directory formats that can hold the collection.
    pub fn directories(&self) -> Vec<DirectoryKind> {
        self.directories.iter().filter(|(_, writer)| writer.is_ok()).map(|(kind, _)| *kind).collect()
    }

    /// Upper bound of the numbers in the directory of an epoch with this many rows and batches.
    pub fn numbers(&self, table: &Table, rows: u64, batches: u64) -> u64 {
        // With many values, as no format has more files for fewer.
        let nnz = vec![MANY_VALUES; table.elements.len()];
        let shape = FileShape { table, rows, nnz: &nnz, batches };
        let numbers = |kind: DirectoryKind| Some(self.directory(kind).ok()?.directory(&shape).ok()?.numbers());
        self.directories().into_iter().filter_map(numbers).max().unwrap_or(0)
    }

    /// The names of the formats that cannot hold the collection, each with the reason.
    pub fn refused(&self) -> Vec<(&'static str, String)> {
        let files = self.files.iter().filter_map(|(of, writer)| Some((of.as_str(), writer.as_ref().err()?.clone())));
        let directories =
            self.directories.iter().filter_map(|(of, writer)| Some((of.as_str(), writer.as_ref().err()?.clone())));
        files.chain(directories).collect()
    }
}

/// A number of values for which layouts use their widest forms.
pub const MANY_VALUES: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::Extension;

    #[test]
    fn codes_are_unique_and_stay() {
        let known = [
            ("npz", 1),
            ("safetensors", 2),
            ("npy", 3),
            ("h5ad", 4),
            ("tsv", 5),
            ("arrow", 6),
            ("parquet", 7),
            ("tar", 8),
            ("tfrecord", 9),
            ("tahoe.parquet", 10),
            ("mds", 11),
            ("litdata", 12),
            ("record.npy", 13),
            ("h5mu", 14),
        ];
        for (name, code) in known {
            assert_eq!(Extension::from_name(name).map(Extension::code), Some(code), "{name}");
        }
        let codes: std::collections::HashSet<u8> = Extension::ALL.iter().map(|format| format.code()).collect();
        assert_eq!(codes.len(), Extension::ALL.len());
        // 0 is the directory of an epoch, 15 the directory above it.
        assert!(codes.iter().all(|code| (1..15).contains(code)));
    }
}
