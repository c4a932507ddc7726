//! The checker itself: it must pass what is right and find what is wrong, else the other tests show nothing.

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
