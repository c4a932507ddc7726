#!/usr/bin/env python3
"""Checks that an epoch of a mount holds each row of a store once, with X as anndata reads it there.

Usage: check_rows.py MOUNT STORE       (.npz files of epoch 0; X sparse)
"""
import pathlib
import sys

import anndata as ad
import numpy as np
import scipy.sparse as sp

mount, store = map(pathlib.Path, sys.argv[1:])
want = (ad.read_zarr(store) if store.is_dir() else ad.read_h5ad(store)).X.tocsr()
rows = []
for file in sorted((mount / "epoch-0000").glob("*.npz")):
    got = sp.load_npz(file)
    numbers = np.load(file)["row"]
    rows.extend(numbers)
    part = want[numbers]
    for name in ("data", "indices", "indptr"):
        # NaN must equal NaN.
        np.testing.assert_array_equal(getattr(got, name), getattr(part, name), err_msg=f"{file} {name}")
assert sorted(rows) == list(range(want.shape[0])), "not each row once"
print(len(rows), "rows")
