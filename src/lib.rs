//! shufflefs mounts AnnData stores and shows every training epoch as a directory of shuffled minibatch files.
//!
//! The rooms, in the order that data flows towards the reader; imports run only downward in this list:
//!
//! - [`cli`]: one file for each command.
//! - [`tune`]: measures, models, and chooses options.
//! - [`session`]: composes stores, plans, engine and tree.
//! - [`mount`]: mounts and unmounts.
//! - [`fuse`]: decodes and answers the kernel's requests.
//! - [`tree`]: paths, inode numbers, attributes, listings.
//! - [`engine`]: loads fetches into images, on demand and ahead, within one memory budget.
//! - [`mod@format`]: the exact bytes of one file.
//! - [`batch`]: where each row's bytes go in an image.
//! - [`plan`]: which rows, in what order.
//! - [`view`]: which rows a view has: expressions, splits, lists.
//! - [`collection`]: many stores, one table of rows.
//! - [`anndata`]: AnnData on disk.
//! - [`mod@array`]: an on-disk array as chunks.
//! - [`storage`]: bytes of stored objects: local files, HTTP, S3, GCS, Azure.
//! - `slab`: memory for images and decoded chunks.
//! - `number`: conversions between integer types.
//! - `sync`: locks of the engine and the chunk cache, which models replace.

// Input from a store must give an error, never a panic; tests may unwrap.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod anndata;
pub mod array;
pub mod batch;
pub mod cli;
pub mod collection;
pub mod engine;
pub mod export;
pub mod format;
pub mod fuse;
pub mod mount;
mod number;
pub mod plan;
pub mod session;
pub mod slab;
pub mod storage;
mod sync;
pub mod tree;
pub mod tune;
pub mod view;
