//! The integration tests: one binary, so that HDF5 is linked once. What they share: `support`, `area`, `damaged`, `pieces`.

mod area;
mod array;
mod checker;
mod clients;
mod columns;
mod command_line;
mod csc;
mod damage;
mod damaged;
mod determinism;
mod engine;
mod exact;
mod fields;
mod garbage;
mod h5ad_format;
mod join;
mod lifecycle;
mod page_cache;
mod passthrough;
mod pieces;
mod properties;
mod run;
mod scale;
mod stores;
mod support;
mod views;
