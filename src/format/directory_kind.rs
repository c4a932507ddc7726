//! The registry of formats whose epochs are directories: one line each.

use crate::collection::Table;

use super::directory::OpenedDirectory;
use super::{dataset, shards, zarr};

/// One line of the registry: all that the rest of the program knows of a directory format.
pub struct DirectoryEntry {
    /// Its number in inode numbers, 1 to 15: never changed, never used again.
    pub code: u8,
    /// What follows `epoch-0000.`.
    pub name: &'static str,
    /// What reads it, for README.txt.
    pub readers: &'static str,
    /// Prepares what all epochs of a table share; or says why the format cannot hold it.
    pub open: fn(&Table) -> OpenedDirectory,
}

/// A directory format, by its line of the registry.
#[derive(Clone, Copy)]
pub struct DirectoryKind(&'static DirectoryEntry);

impl DirectoryKind {
    /// The registry: one line a format.
    pub const ALL: &[DirectoryKind] = &[
        DirectoryKind(&DirectoryEntry {
            code: 1,
            name: "zarr",
            readers: "annbatch, scvi-tools; anndata, dask and zarr read its dataset_0",
            open: zarr::open,
        }),
        DirectoryKind(&DirectoryEntry {
            code: 2,
            name: "dataset",
            readers: "Hugging Face: datasets.load_from_disk",
            open: dataset::open,
        }),
        DirectoryKind(&DirectoryEntry {
            code: 3,
            name: "mds",
            readers: "MosaicML Streaming: StreamingDataset(local=...)",
            open: shards::mds_directory,
        }),
        DirectoryKind(&DirectoryEntry {
            code: 4,
            name: "litdata",
            readers: "Lightning's LitData: StreamingDataset",
            open: shards::litdata_directory,
        }),
    ];

    /// What follows `epoch-0000.`.
    pub fn as_str(self) -> &'static str {
        self.0.name
    }

    /// Its number in inode numbers.
    pub fn code(self) -> u8 {
        self.0.code
    }

    /// What reads it.
    pub fn readers(self) -> &'static str {
        self.0.readers
    }

    /// Its writer for a table.
    pub fn open(self, table: &Table) -> OpenedDirectory {
        (self.0.open)(table)
    }
}

impl PartialEq for DirectoryKind {
    fn eq(&self, other: &DirectoryKind) -> bool {
        self.code() == other.code()
    }
}

impl Eq for DirectoryKind {}

impl std::hash::Hash for DirectoryKind {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.code().hash(state);
    }
}

impl std::fmt::Debug for DirectoryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
