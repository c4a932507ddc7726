//! The options that mounts share: as clap sees them, and as the rest of the program gets them.
//!
//! `Options` is plain data that has been checked. Nothing below the command line reads the environment, the command
//! line or the current directory: paths are absolute here, because a daemon's directory is `/`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::Failure;
use super::memory;
use super::values::{self, Auto, Memory};
use crate::collection::genes::Join;
use crate::format::Extension;

/// What a mount was asked to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub stores: Vec<PathBuf>,
    pub batch_size: u32,
    /// None: from the collection.
    pub block_size: Option<u32>,
    /// None: from the collection.
    pub fetch_factor: Option<u32>,
    pub seed: u64,
    /// How many epochs are listed.
    pub epochs: u32,
    pub drop_last: bool,
    pub format: Extension,
    /// `X`, `raw/X`, `layers/NAME` or `obsm/NAME`.
    pub x: String,
    /// None: every categorical, boolean and numeric column.
    pub obs: Option<Vec<String>>,
    pub join: Join,
    pub index_dir: PathBuf,
    /// Bytes. None: the default share of what is free.
    pub memory: Option<u64>,
    pub threads: usize,
    pub timeout: Duration,
    /// Keep file contents in the kernel's page cache.
    pub cache: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub allow_other: bool,
    pub log: Option<PathBuf>,
}

/// Options of `mount` and `run`.
#[derive(Debug, Clone, Args)]
pub struct OptionArgs {
    /// Rows in a batch, which is one file; 1 to 16777216
    #[arg(long, value_name = "ROWS", default_value_t = 256, help_heading = "Sampling",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(values::MAX_BATCH_SIZE)))]
    pub batch_size: u32,

    /// Consecutive rows that are always read together; 1 to 1048576, or auto (from the store's chunks). Larger is faster,
    /// smaller mixes better: k = batch-size * fetch-factor / block-size independent blocks are mixed in one fetch, and
    /// diversity depends on k alone (16 is poor, 256 good, 1024 as good as random)
    #[arg(long, value_name = "ROWS|auto", default_value = "auto", help_heading = "Sampling",
          value_parser = values::block_size)]
    pub block_size: Auto,

    /// Batches that are loaded together and shuffled in memory; 1 to 1048576, or auto (k = 1024, less where a fetch would
    /// exceed 1 GiB). k = batch-size * fetch-factor / block-size
    #[arg(long, value_name = "BATCHES|auto", default_value = "auto", help_heading = "Sampling",
          value_parser = values::fetch_factor)]
    pub fetch_factor: Auto,

    /// Seed of the shuffle: the same seed gives the same files, byte for byte
    #[arg(long, value_name = "NUMBER", default_value_t = 0, help_heading = "Sampling")]
    pub seed: u64,

    /// Epochs that are listed; any further epoch can be opened by name. 1 to 10000000
    #[arg(long, value_name = "COUNT", default_value_t = 100, help_heading = "Sampling",
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub epochs: u32,

    /// Leave out the last batch of an epoch if it is short [default: it is kept]
    #[arg(long, help_heading = "Sampling")]
    pub drop_last: bool,

    /// Format of the listed files; files of every other format can be opened by name
    #[arg(long, value_name = "FORMAT", default_value = "npz", help_heading = "Output",
          value_parser = values::format())]
    pub format: Extension,

    /// The matrix to serve: X, raw/X, layers/NAME or obsm/NAME
    #[arg(long, value_name = "MATRIX", default_value = "X", help_heading = "Output", value_parser = values::matrix)]
    pub x: String,

    /// obs columns to serve, comma-separated or repeated; empty for none [default: every categorical, boolean and numeric
    /// column]
    #[arg(long, value_name = "COL,...", value_delimiter = ',', help_heading = "Output")]
    pub obs: Option<Vec<String>>,

    /// Genes of several stores: exact (the same in every store, in any order), inner (those that all have), outer (those
    /// that any has; absent values are not stored, and NaN in dense rows)
    #[arg(long, value_name = "JOIN", default_value = "exact", help_heading = "Output", value_parser = values::join())]
    pub join: Join,

    /// Bound on memory, prefetch included: a size with unit (512MiB, 2GiB), a share of this machine's or container's memory
    /// (25%), or auto (25% of what is free)
    #[arg(long, value_name = "SIZE|%|auto", default_value = "auto", help_heading = "Resources",
          value_parser = values::memory)]
    pub memory: Memory,

    /// Where what is derived from stores is kept for later mounts: matrices stored by column (CSC), transposed once, and
    /// counts of inner joins [default: shufflefs in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", help_heading = "Resources")]
    pub index_dir: Option<PathBuf>,

    /// Threads that read and decode; 1 to 1024 [default: all cores]
    #[arg(long, value_name = "COUNT", help_heading = "Resources",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// A read that makes no progress for so long fails with an I/O error; seconds, or with a unit: 90s, 2min, 1h
    #[arg(long, value_name = "TIME", default_value = "60s", help_heading = "Resources",
          value_parser = values::timeout)]
    pub timeout: Duration,

    /// Keep file contents in the page cache, for readers that read the same files again [default: read past it]
    #[arg(long, help_heading = "Resources")]
    pub cache: bool,

    /// Owner of the files, a number [default: you]
    #[arg(long, value_name = "UID", help_heading = "Permissions")]
    pub uid: Option<u32>,

    /// Group of the files, a number [default: yours]
    #[arg(long, value_name = "GID", help_heading = "Permissions")]
    pub gid: Option<u32>,

    /// Let other users read the mount [default: you alone]; as a user this needs user_allow_other in /etc/fuse.conf
    #[arg(long, help_heading = "Permissions")]
    pub allow_other: bool,

    /// Write the log to this file [default: stderr; none in the background]
    #[arg(long, value_name = "FILE", help_heading = "Other")]
    pub log: Option<PathBuf>,

    /// Any option above by its name without the dashes, as in -o seed=7,drop_last; options of mount(8) that mean nothing
    /// here are ignored [default: none]
    #[arg(short = 'o', value_name = "NAME=VALUE,...", help_heading = "Other")]
    pub mount_options: Vec<String>,
}

impl OptionArgs {
    /// Checks what no single option can check.
    pub fn validate(self, stores: Vec<PathBuf>) -> Result<Options, Failure> {
        if let (Auto(Some(block_size)), Auto(Some(fetch_factor))) = (self.block_size, self.fetch_factor) {
            let rows = u64::from(self.batch_size) * u64::from(fetch_factor);
            if rows < u64::from(block_size) {
                return Err(Failure::usage(format_args!(
                    "k = batch-size * fetch-factor / block-size = {} * {fetch_factor} / {block_size} is below 1: \
                     a fetch must hold at least one block",
                    self.batch_size
                )));
            }
        }
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
        };
        let memory = match self.memory {
            Memory::Auto => None,
            Memory::Bytes(bytes) => Some(bytes),
            Memory::Percent(percent) => {
                let limit = memory::limit().ok_or_else(|| {
                    Failure::usage("--memory: this system does not tell how much memory it has; give a size")
                })?;
                Some(limit / 100 * u64::from(percent))
            }
        };
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Ok(Options {
            stores: stores.into_iter().map(absolute).collect::<Result<_, _>>()?,
            batch_size: self.batch_size,
            block_size: self.block_size.0,
            fetch_factor: self.fetch_factor.0,
            seed: self.seed,
            epochs: self.epochs,
            drop_last: self.drop_last,
            format: self.format,
            x: self.x,
            obs: self.obs.map(|names| names.into_iter().filter(|name| !name.is_empty()).collect()),
            join: self.join,
            index_dir: absolute(self.index_dir.unwrap_or_else(cache))?,
            memory,
            threads: self.threads.map_or_else(cores, usize::from),
            timeout: self.timeout,
            cache: self.cache,
            uid: self.uid,
            gid: self.gid,
            allow_other: self.allow_other,
            log: self.log.map(absolute).transpose()?,
        })
    }
}

/// The user's cache directory; without a home one below /tmp of this user's own.
pub fn cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").map(|home| home.join(".cache"));
    match variable("XDG_CACHE_HOME").or_else(home) {
        Some(cache) => cache.join("shufflefs"),
        // SAFETY: always succeeds and touches no memory.
        None => std::env::temp_dir().join(format!("shufflefs-{}", unsafe { libc::geteuid() })),
    }
}

impl Options {
    /// How the table of mounts names the source: the first store, and how many more.
    pub fn source(&self) -> String {
        let first = self.stores.first().map(|store| store.display().to_string()).unwrap_or_default();
        match self.stores.len() {
            0 | 1 => first,
            count => format!("{first} (+{})", count - 1),
        }
    }
}
