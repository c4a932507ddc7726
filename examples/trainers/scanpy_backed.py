#!/usr/bin/env python3
"""Scanpy on one epoch, in memory and in backed mode: scanpy_backed.py EPOCH.h5ad STORE.h5ad LABEL_COLUMN

The file holds each row once, with the values that anndata reads from the store; means by label, taken from the backed file in pieces,
are those of the store, and so is the first principal component.
"""
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")
import scanpy as sc

path, store, column = sys.argv[1:]
want, backed = sc.read_h5ad(store), sc.read_h5ad(path, backed="r")
rows = backed.obs_names.to_numpy().astype(int)
assert np.array_equal(np.sort(rows), np.arange(want.n_obs)), "an epoch has each row once"
sums = {label: np.zeros(want.n_vars) for label in want.obs[column].cat.categories}
for chunk, start, end in backed.chunked_X(500):
    assert (chunk != want.X[rows[start:end]]).nnz == 0, "values differ from the store's"
    for label, sum in sums.items():
        sum += np.asarray(chunk[(backed.obs[column][start:end] == label).to_numpy()].sum(axis=0)).ravel()
for label, sum in sums.items():
    assert np.allclose(sum, np.asarray(want[want.obs[column] == label].X.sum(axis=0)).ravel()), label
adata = backed.to_memory()
for each in (adata, want):
    sc.pp.normalize_total(each, target_sum=1e4)
    sc.pp.log1p(each)
    sc.pp.pca(each, n_comps=2)
same = np.corrcoef(adata.obsm["X_pca"][:, 0], want[rows].obsm["X_pca"][:, 0])[0, 1]
assert abs(same) > 0.999, same
print(f"{len(rows)} rows, {len(sums)} labels, components agree ({abs(same):.4f})")
