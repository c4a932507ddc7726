#!/usr/bin/env python3
"""Softmax regression on an epoch by Hugging Face's load_from_disk: huggingface_disk.py EPOCH.dataset STORE.h5ad LABEL_COLUMN

Each row comes once, with the values that anndata reads from the store; rows in the middle are found at once; the loss falls.
"""
import sys
import time

import anndata
import datasets
import numpy as np

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
start = time.monotonic()
epoch = datasets.load_from_disk(directory).with_format("numpy")
opened = time.monotonic() - start
classes = epoch.features[column].names
assert classes == [str(label) for label in want.obs[column].cat.categories], f"{classes}"
weights, losses = np.zeros((want.n_vars + 1, len(classes))), []
for _ in range(3):
    start, seen, loss = time.monotonic(), [], []
    for batch in epoch.iter(batch_size=64):
        rows, target = batch["row"], batch[column]
        x = np.zeros((len(rows), want.n_vars + 1), "float32")
        x[:, -1] = 1
        for i, (genes, expressions) in enumerate(zip(batch["genes"], batch["expressions"])):
            x[i, genes.astype(int)] = expressions
        assert np.array_equal(x[:, :-1], want.X[rows].toarray(), equal_nan=True), "values differ from the store's"
        assert np.array_equal(target, want.obs[column].cat.codes.iloc[rows]), "labels differ from the store's"
        seen.extend(rows.tolist())
        x, target = np.log1p(np.abs(np.nan_to_num(x[target >= 0], posinf=0, neginf=0))), target[target >= 0]
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        scores = np.exp(x @ weights)
        scores /= scores.sum(axis=1, keepdims=True)
        loss.append(-np.log(scores[np.arange(len(target)), target]).mean())
        scores[np.arange(len(target)), target] -= 1
        weights -= 0.5 * x.T @ scores / len(target)
    seconds = time.monotonic() - start
    assert sorted(seen) == list(range(want.n_obs)) and seen != sorted(seen), "an epoch has each row once, shuffled"
    losses.append(np.mean(loss))
for i in (len(seen) - 1, 0, len(seen) // 2):
    assert epoch[i]["row"] == seen[i], "a row is found by its place"
assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
print(f"{len(seen)} rows, opened in {opened:.3f} s, loss {losses[0]:.4f} to {losses[-1]:.4f}, {len(seen) / seconds:.0f} rows/s with the training")
