#!/usr/bin/env python3
"""An epoch of .parquet files as one lazy table of polars: polars_parquet.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN

Each row comes once; means by label are those of the store as anndata reads it.
"""
import sys
import time

import anndata
import numpy as np
import polars as pl

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
start = time.monotonic()
table = pl.scan_parquet(f"{directory}/*.parquet").select("row", column, "genes", "expressions").collect()
seconds = time.monotonic() - start
rows = table["row"].to_numpy()
assert np.array_equal(np.sort(rows), np.arange(want.n_obs)), "an epoch has each row once"
stored = want.X[rows]
assert np.array_equal(table["genes"].explode(empty_as_null=False).to_numpy(), stored.indices), "genes differ from the store's"
assert np.array_equal(table["expressions"].explode(empty_as_null=False).to_numpy(), stored.data, equal_nan=True), "values differ from the store's"
counted = dict(table.group_by(column).len().iter_rows())
for label, count in want.obs[column].value_counts().items():
    assert counted.get(label, 0) == count, f"{label}: {counted.get(label)} rows, not {count}"
print(f"{len(rows)} rows, {len(rows) / seconds:.0f} rows/s")
