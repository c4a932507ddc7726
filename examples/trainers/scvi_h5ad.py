#!/usr/bin/env python3
"""Trains scvi-tools' SCVI on one epoch as a file: scvi_h5ad.py EPOCH.h5ad STORE.h5ad BATCH_COLUMN

The file holds each row once, with the values that anndata reads from the store; obs_names of the epoch are row numbers there.
"""
import sys
import warnings

import anndata
import numpy as np

warnings.filterwarnings("ignore")
import scvi

path, store, column = sys.argv[1:]
adata, want = anndata.read_h5ad(path), anndata.read_h5ad(store)
rows = adata.obs_names.to_numpy().astype(int)
assert np.array_equal(np.sort(rows), np.arange(want.n_obs)), "an epoch has each row once"
assert (adata.X != want.X[rows]).nnz == 0, "values differ from the store's"
scvi.settings.seed = 0
scvi.model.SCVI.setup_anndata(adata, batch_key=column)
model = scvi.model.SCVI(adata, n_hidden=16, n_latent=4)
model.train(max_epochs=4, batch_size=128, accelerator="cpu", devices=1, enable_progress_bar=False, train_size=1.0, check_val_every_n_epoch=None)
losses = model.history["elbo_train"]["elbo_train"].to_numpy().astype(float)
assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
latent = model.get_latent_representation()
assert latent.shape == (want.n_obs, 4) and np.isfinite(latent).all()
print(f"{len(rows)} rows, loss {losses[0]:.2f} to {losses[-1]:.2f}")
