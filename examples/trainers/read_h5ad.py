#!/usr/bin/env python3
"""Trains a classifier of an obs column on files that hold an epoch each: read_h5ad.py MOUNT COLUMN [EPOCHS]

Softmax regression with numpy. Nothing here depends on shufflefs: every epoch is one `.h5ad` file, whose rows are shuffled already.
"""
import sys

import anndata
import numpy as np


def train(mount, column, epochs=2, batch_size=128, rate=0.5):
    weights = None
    for epoch in range(epochs):
        adata = anndata.read_h5ad(f"{mount}/epoch-{epoch:04d}.h5ad")
        labels = adata.obs[column].cat.codes.to_numpy()
        classes = len(adata.obs[column].cat.categories)
        if weights is None:
            weights = np.zeros((adata.n_vars + 1, classes))
        losses = []
        for start in range(0, adata.n_obs, batch_size):
            target = labels[start : start + batch_size]
            x = adata.X[start : start + batch_size]
            x = np.log1p(x.toarray() if hasattr(x, "toarray") else np.asarray(x))[target >= 0]
            target = target[target >= 0]
            x = np.hstack([x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9), np.ones((len(x), 1))])
            scores = x @ weights
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            losses.append(-np.log(scores[np.arange(len(target)), target] + 1e-12).mean())
            scores[np.arange(len(target)), target] -= 1
            weights -= rate * x.T @ scores / max(len(target), 1)
        print(f"epoch {epoch}: {adata.n_obs} rows, loss {np.mean(losses):.4f}")
        yield adata.obs_names.to_numpy(), np.mean(losses)


if __name__ == "__main__":
    mount, column, *more = sys.argv[1:]
    for _ in train(mount, column, *map(int, more)):
        pass
