#!/usr/bin/env python3
"""Compares what `shufflefs shuffle` wrote with the stores, by anndata and zarr: check_shuffled.py OUT STORE...

Rows are named by their number over all stores (obs_names), so each row can be found at any position. Prints the number of rows,
and of rows at another position.
"""
import sys

import anndata
import numpy as np
import scipy.sparse as sp
import zarr


def load(path):
    return anndata.read_zarr(path) if str(path).endswith(".zarr") else anndata.read_h5ad(path)


def parts(out):
    if out.endswith(".h5ad"):
        return [anndata.read_h5ad(out)]
    group = zarr.open_group(out, mode="r")
    assert group.attrs["encoding-type"] == "annbatch-preshuffled", dict(group.attrs)
    names = sorted(group.group_keys(), key=lambda name: int(name.removeprefix("dataset_")))
    for name in names:
        data = group[f"{name}/X/data"] if isinstance(group[f"{name}/X"], zarr.Group) else group[f"{name}/X"]
        assert data.shards is not None, f"{name}: X is not sharded"
    return [anndata.read_zarr(f"{out}/{name}") for name in names]


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


out, *stores = sys.argv[1:]
found, want = parts(out), [load(store) for store in stores]
rows = np.concatenate([part.obs_names.to_numpy().astype(int) for part in found])
total = sum(len(store) for store in want)
assert np.array_equal(np.sort(rows), np.arange(total)), "each row once"
x = np.vstack([dense(part.X) for part in found])
expected = np.vstack([dense(store[:, found[0].var_names].X) for store in want])[rows]
assert x.dtype == expected.dtype and np.array_equal(x, expected, equal_nan=x.dtype.kind == "f"), "X"
for column in want[0].obs.columns:
    if all(column in part.obs for part in found):
        values = np.concatenate([part.obs[column].astype(str).to_numpy() for part in found])
        source = np.concatenate([store.obs[column].astype(str).to_numpy() for store in want])[rows]
        assert (values == source).all(), column
print(total, int((rows != np.arange(total)).sum()), len(found))
