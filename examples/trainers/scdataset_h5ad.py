#!/usr/bin/env python3
"""One epoch of scDataset over a backed file: scdataset_h5ad.py FILE.h5ad STORE.h5ad

FILE is the view in stored order (the loader shuffles) or an epoch. Each row comes once, with the values that anndata reads from the store.
"""
import sys
import time

import anndata
import numpy as np
from scdataset import BlockShuffling, scDataset

path, store = sys.argv[1:]
want, backed = anndata.read_h5ad(store), anndata.read_h5ad(path, backed="r")


def fetch(collection, rows):
    part = collection[np.sort(rows)].to_memory()
    order = np.argsort(np.argsort(rows))
    return part.obs_names.to_numpy().astype(int)[order], part.X[order]


dataset = scDataset(
    backed,
    BlockShuffling(block_size=16),
    batch_size=64,
    fetch_factor=8,
    seed=0,
    fetch_callback=fetch,
    batch_callback=lambda fetched, rows: (fetched[0][rows], fetched[1][rows]),
)
start, batches = time.monotonic(), list(dataset)
seconds = time.monotonic() - start
seen = np.concatenate([rows for rows, _ in batches])
assert np.array_equal(np.sort(seen), np.arange(want.n_obs)), "an epoch has each row once"
assert not np.array_equal(seen, np.sort(seen)), "an epoch is shuffled"
for rows, x in batches:
    assert (x != want.X[rows]).nnz == 0, "values differ from the store's"
print(f"{len(seen)} rows in {len(batches)} batches, {len(seen) / seconds:.0f} rows/s")
