#!/usr/bin/env python3
"""An epoch of .parquet files by Hugging Face datasets: huggingface_parquet.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN

Each row comes once, with the values that anndata reads from the store.
"""
import sys
import time

import anndata
import datasets
import numpy as np

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
labels = want.obs[column].astype(object).where(want.obs[column].notna(), None).to_list()
rows = datasets.load_dataset("parquet", data_files=f"{directory}/*.parquet", split="train", streaming=True)
start, seen, batches = time.monotonic(), [], 0
for batch in rows.with_format("numpy").iter(batch_size=64):
    for row, genes, expressions, label in zip(batch["row"], batch["genes"], batch["expressions"], batch[column]):
        stored = want.X[[row]]
        assert np.array_equal(genes, stored.indices) and np.array_equal(expressions, stored.data, equal_nan=True), "values differ from the store's"
        assert label == labels[row], "labels differ from the store's"
    seen.extend(batch["row"])
    batches += 1
seconds = time.monotonic() - start
assert sorted(seen) == list(range(want.n_obs)) and seen != sorted(seen), "an epoch has each row once, shuffled"
print(f"{len(seen)} rows in {batches} batches, {len(seen) / seconds:.0f} rows/s with the comparison")
