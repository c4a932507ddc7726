#!/usr/bin/env python3
"""An epoch of .tar files by Hugging Face datasets: huggingface_webdataset.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN

Each row comes once, with the values that anndata reads from the store.
"""
import sys
import time

import anndata
import datasets
import numpy as np

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
samples = datasets.load_dataset("webdataset", data_files={"train": f"{directory}/*.tar"}, split="train", streaming=True)
start, seen = time.monotonic(), []
for sample in samples:
    row = sample["json"]["row"]
    stored = want.X[[row]]
    assert np.array_equal(sample["genes.npy"], stored.indices), "genes differ from the store's"
    assert np.array_equal(np.asarray(sample["expressions.npy"], stored.dtype), stored.data, equal_nan=True), "values differ from the store's"
    label = want.obs[column].iloc[row]
    assert sample["json"][column] == label or label != label, "labels differ from the store's"
    seen.append(row)
seconds = time.monotonic() - start
assert sorted(seen) == list(range(want.n_obs)) and seen != sorted(seen), "an epoch has each row once, shuffled"
print(f"{len(seen)} rows, {len(seen) / seconds:.0f} rows/s with the comparison")
