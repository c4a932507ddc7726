#!/usr/bin/env python3
"""Softmax regression on an epoch by LitData: litdata_streaming.py EPOCH.litdata STORE.h5ad LABEL_COLUMN

The directory is an optimized dataset that is shuffled already, read where it is. Each row comes once, with the values
that anndata reads from the store; the loss falls.
"""
import sys
import time

import anndata
import numpy as np
import torch
from litdata import StreamingDataset, StreamingDataLoader

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
classes = [str(label) for label in want.obs[column].cat.categories]
dataset = StreamingDataset(directory, shuffle=False)
assert len(dataset) == want.n_obs, "an epoch has as many samples as the store has rows"


def collate(samples):
    x = np.zeros((len(samples), want.n_vars), "float32")
    for i, sample in enumerate(samples):
        x[i, sample["genes"]] = sample["expressions"]
    return np.array([sample["row"] for sample in samples]), torch.from_numpy(x), [sample[column] for sample in samples]


weights = torch.zeros(want.n_vars + 1, len(classes), requires_grad=True)
optimizer, losses = torch.optim.SGD([weights], lr=1.0), []
for _ in range(3):
    start, seen, loss = time.monotonic(), [], []
    for rows, x, labels in StreamingDataLoader(dataset, batch_size=64, collate_fn=collate):
        assert np.array_equal(x.numpy(), want.X[rows].toarray()), "values differ from the store's"
        assert labels == list(want.obs[column].iloc[rows].astype(object).fillna("")), "labels differ from the store's"
        seen.extend(rows.tolist())
        x = torch.nn.functional.normalize(torch.cat([torch.log1p(x), torch.ones(len(x), 1)], dim=1), dim=1)
        target = torch.tensor([classes.index(label) for label in labels])
        error = torch.nn.functional.cross_entropy(x @ weights, target)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        loss.append(error.item())
    seconds = time.monotonic() - start
    assert sorted(seen) == list(range(want.n_obs)) and seen != sorted(seen), "an epoch has each row once, shuffled"
    losses.append(np.mean(loss))
assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
print(f"{len(seen)} rows, loss {losses[0]:.4f} to {losses[-1]:.4f}, {len(seen) / seconds:.0f} rows/s with the training")
