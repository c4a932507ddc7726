#!/usr/bin/env python3
"""An epoch by Ray Data: ray_parquet.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN     (a mount with --format parquet)

Ray's workers open the files; blocks are in order. Each row comes once, with the values that anndata reads from the store.
"""
import os
import sys
import time

import anndata
import numpy as np
import ray

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error", object_store_memory=200 << 20)
ray.data.DataContext.get_current().execution_options.preserve_order = True
ray.data.DataContext.get_current().enable_progress_bars = False
start, seen = time.monotonic(), []
# Parquet files by name, whichever format the mount lists.
paths = [f"{name.split('.')[0]}.parquet" for name in sorted(os.listdir(directory))]
epoch = ray.data.read_parquet([os.path.join(directory, name) for name in paths], file_extensions=None)
for batch in epoch.iter_batches(batch_size=64, batch_format="numpy"):
    rows = batch["row"]
    x = np.zeros((len(rows), want.n_vars), "float32")
    for i, (genes, expressions) in enumerate(zip(batch["genes"], batch["expressions"])):
        x[i, np.asarray(genes, int)] = expressions
    assert np.array_equal(x, want.X[rows].toarray()), "values differ from the store's"
    assert list(batch[column]) == list(want.obs[column].iloc[rows].astype(object)), "labels differ from the store's"
    seen.extend(rows.tolist())
seconds = time.monotonic() - start
assert sorted(seen) == list(range(want.n_obs)) and seen != sorted(seen), "an epoch has each row once, shuffled"
print(f"{len(seen)} rows, {len(seen) / seconds:.0f} rows/s")
