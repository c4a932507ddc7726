//! Tests of the checker: it must accept correct data and find errors, else the other tests prove nothing.

use crate::support::{python, stores, succeed};

#[test]
fn the_checker_finds_small_damages() {
    for names in [
        &["csr-float32-none.h5ad"][..],
        &["dense-float32-gzip.v3.zarr"],
        &["part-a.h5ad", "part-b.zarr", "part-c.h5ad"],
    ] {
        let out = succeed(python("check_checker.py").args(stores(names)));
        assert!(out.contains("\"ok\": true"), "{names:?}: {out}");
    }
}
