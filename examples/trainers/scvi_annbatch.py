#!/usr/bin/env python3
"""Trains scvi-tools' SCVI through AnnbatchDataModule: scvi_annbatch.py EPOCH.zarr STORE.h5ad BATCH_COLUMN

The module gives each row to the model once, with the values that anndata reads from the store; obs_names of the epoch are row
numbers there.
"""
import sys
import warnings

import anndata
import numpy as np

warnings.filterwarnings("ignore")
import scvi
from annbatch import DatasetCollection, Loader
from scvi.dataloaders import AnnbatchDataModule

path, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
loader = Loader(batch_size=128, shuffle=False, preload_to_gpu=False).use_collection(DatasetCollection(path, mode="r"))
module = AnnbatchDataModule(loader, batch_key=column, preload_to_gpu=False)
names = np.concatenate([obs.index.to_numpy() for obs in loader._obs]).astype(int)
assert np.array_equal(np.sort(names), np.arange(want.n_obs)), "an epoch has each row once"
counts, start = want.X[names].toarray(), 0
for batch in module:
    x = batch["X"].numpy()
    assert np.array_equal(x, counts[start : start + len(x)]), "values differ from the store's"
    start += len(x)
assert start == want.n_obs
scvi.settings.seed = 0
model = scvi.model.SCVI(registry=module.registry, n_hidden=16, n_latent=4)
model.train(datamodule=module, max_epochs=4, batch_size=128, accelerator="cpu", devices=1, enable_progress_bar=False, shuffle_set_split=False)
losses = model.history["elbo_train"]["elbo_train"].to_numpy().astype(float)
assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
print(f"{start} rows, loss {losses[0]:.2f} to {losses[-1]:.2f}")
