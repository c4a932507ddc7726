#!/usr/bin/env python3
"""Compares .parquet files of many pages a column with the store, by three readers: check_pages.py DIRECTORY STORE.h5ad"""
import pathlib
import sys

import anndata
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

directory, want = pathlib.Path(sys.argv[1]), anndata.read_h5ad(sys.argv[2])
seen = []
for path in sorted(directory.iterdir()):
    # A page header has tens of bytes; a chunk of one page has one header, these have many.
    group = pq.read_metadata(path).row_group(0)
    plain = sum(want.X[row].nnz for row in pq.read_table(path, columns=["row"])["row"].to_pylist()) * 4
    chunk = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema.startswith("expressions")][0]
    assert chunk.total_uncompressed_size > plain + 1000, f"{path.name}: one page of {chunk.total_uncompressed_size} bytes"
    tables = [pq.read_table(path), duckdb.read_parquet(str(path)).to_arrow_table(), pl.read_parquet(path).to_arrow()]
    for table in tables:
        rows = table["row"].to_numpy()
        x = want.X[rows]
        genes, expressions = (pa.concat_arrays(table[name].chunks).flatten().to_numpy() for name in ("genes", "expressions"))
        assert np.array_equal(genes, x.indices) and expressions.tobytes() == x.data.tobytes(), f"{path.name}: values differ"
    seen.extend(rows.tolist())
assert sorted(seen) == list(range(want.n_obs)), "each row once"
