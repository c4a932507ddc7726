#!/usr/bin/env python3
"""Softmax regression on .tar shards read by webdataset: webdataset_shards.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN

Each row comes once, with the values that anndata reads from the store; the loss falls.
"""
import glob
import sys
import time

import anndata
import numpy as np
import webdataset

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
classes = list(want.obs[column].cat.categories)
weights, losses, speeds = np.zeros((want.n_vars + 1, len(classes))), [], []
for _ in range(3):
    shards = webdataset.WebDataset(sorted(glob.glob(f"{directory}/*.tar")), shardshuffle=False).decode()
    start, seen, loss = time.monotonic(), [], []
    for batch in shards.batched(64, collation_fn=None):
        rows = [sample["json"]["row"] for sample in batch]
        x = np.zeros((len(rows), want.n_vars + 1), "float32")
        x[:, -1] = 1
        for i, sample in enumerate(batch):
            x[i, sample["genes.npy"]] = sample["expressions.npy"]
        assert np.array_equal(x[:, :-1], want.X[rows].toarray(), equal_nan=True), "values differ from the store's"
        seen.extend(rows)
        labels = [sample["json"][column] for sample in batch]
        known = np.array([label is not None for label in labels])
        target = np.array([classes.index(label) for label in labels if label is not None])
        x = np.log1p(np.abs(np.nan_to_num(x[known], posinf=0, neginf=0)))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        scores = np.exp(x @ weights)
        scores /= scores.sum(axis=1, keepdims=True)
        loss.append(-np.log(scores[np.arange(len(target)), target]).mean())
        scores[np.arange(len(target)), target] -= 1
        weights -= 0.5 * x.T @ scores / len(target)
    speeds.append(len(seen) / (time.monotonic() - start))
    assert sorted(seen) == list(range(want.n_obs)) and seen != sorted(seen), "an epoch has each row once, shuffled"
    losses.append(np.mean(loss))
assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
print(f"{len(seen)} rows, loss {losses[0]:.4f} to {losses[-1]:.4f}, {max(speeds):.0f} rows/s with the training")
