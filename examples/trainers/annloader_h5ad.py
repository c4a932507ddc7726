#!/usr/bin/env python3
"""One epoch of anndata's AnnLoader over a backed file: annloader_h5ad.py FILE.h5ad STORE.h5ad

FILE is the view in stored order (the loader shuffles) or an epoch. Each row comes once, with the values that anndata reads from the store.
"""
import sys
import time
import warnings

import anndata
import numpy as np

warnings.filterwarnings("ignore")
from anndata.experimental import AnnCollection, AnnLoader

path, store = sys.argv[1:]
want = anndata.read_h5ad(store)
loader = AnnLoader(AnnCollection([anndata.read_h5ad(path, backed="r")]), batch_size=64, shuffle=True)
start, batches = time.monotonic(), []
for batch in loader:
    batches.append((batch.obs_names.to_numpy().astype(int), batch.X))
seconds = time.monotonic() - start
seen = np.concatenate([rows for rows, _ in batches])
assert np.array_equal(np.sort(seen), np.arange(want.n_obs)), "an epoch has each row once"
assert not np.array_equal(seen, np.sort(seen)), "an epoch is shuffled"
for rows, x in batches:
    x = x.to_dense() if x.layout.__str__() == "torch.sparse_csr" else x
    assert np.array_equal(x.numpy(), want.X[rows].toarray()), "values differ from the store's"
print(f"{len(seen)} rows in {len(batches)} batches, {len(seen) / seconds:.0f} rows/s")
