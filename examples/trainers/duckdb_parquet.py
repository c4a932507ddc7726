#!/usr/bin/env python3
"""An epoch of .parquet files queried by SQL in DuckDB: duckdb_parquet.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN

Each row comes once; counts by label, and values stored for each row, are those of the store as anndata reads it.
"""
import sys
import time

import anndata
import duckdb
import numpy as np

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
start = time.monotonic()
found = duckdb.sql(f"select row, genes, expressions from '{directory}/*.parquet' order by row").fetchnumpy()
seconds = time.monotonic() - start
assert np.array_equal(found["row"], np.arange(want.n_obs)), "an epoch has each row once"
assert np.array_equal(np.concatenate(found["genes"]), want.X.indices), "genes differ from the store's"
assert np.array_equal(np.concatenate(found["expressions"]), want.X.data, equal_nan=True), "values differ from the store's"
counted = dict(duckdb.sql(f'select "{column}", count(*) from \'{directory}/*.parquet\' group by 1').fetchall())
for label, count in want.obs[column].value_counts().items():
    assert counted.get(label, 0) == count, f"{label}: {counted.get(label)} rows, not {count}"
print(f"{len(found['row'])} rows, {len(found['row']) / seconds:.0f} rows/s")
