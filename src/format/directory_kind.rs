//! The registry of directory formats, one line each.

use crate::collection::Table;

use super::directory::OpenedDirectory;
use super::{dataset, shards, zarr};

/// A line of the registry: all that the rest of the program knows about a directory format.
pub struct DirectoryEntry {
    /// The number in inode numbers, 1 to 15. It must never change or be reused.
    pub code: u8,
    /// The name after `epoch-0000.`.
    pub name: &'static str,
    /// Programs that read it, for README.txt.
    pub readers: &'static str,
    /// Prepares what all epochs of a table share, or says why the format cannot hold the table.
    pub open: fn(&Table) -> OpenedDirectory,
}

/// A registered directory format.
#[derive(Clone, Copy)]
pub struct DirectoryKind(&'static DirectoryEntry);

impl DirectoryKind {
    /// The registry, one line for each format.
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

    /// The name after `epoch-0000.`.
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
