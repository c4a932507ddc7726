#!/usr/bin/env python3
"""One epoch through annbatch's Loader: annbatch_loader.py EPOCH.zarr STORE.h5ad [BATCH_SIZE]

The directory is a collection that is shuffled already, so the loader reads it in order. Each row comes once, with the values that anndata reads
from the store; obs_names of the epoch are row numbers there.
"""
import sys
import time

import anndata
import numpy as np
from annbatch import DatasetCollection, Loader

path, store, *more = sys.argv[1:]
want = anndata.read_h5ad(store)
loader = Loader(batch_size=int(more[0]) if more else 128, shuffle=False, preload_to_gpu=False)
loader = loader.use_collection(DatasetCollection(path, mode="r"))
batches, start = [], time.monotonic()
for batch in loader:
    batches.append((batch["obs"].index, batch["X"], batch["obs"]))
seconds = time.monotonic() - start
seen = np.concatenate([index.to_numpy().astype(int) for index, _, _ in batches])
assert np.array_equal(np.sort(seen), np.arange(want.n_obs)), "an epoch has each row once"
assert not np.array_equal(seen, np.sort(seen)), "an epoch is shuffled"
for index, x, obs in batches:
    rows = want[index.to_numpy().astype(int)]
    assert (x != rows.X).nnz == 0, "values differ from the store's"
    for column in obs:
        assert list(obs[column]) == list(rows.obs[column]), column
print(f"{len(seen)} rows in {len(batches)} batches, {len(seen) / seconds:.0f} rows/s")
