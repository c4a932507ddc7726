#!/usr/bin/env python3
"""Softmax regression in JAX on batches of an epoch: jax_epoch.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN

The directory has a batch a file (.npz). Each row comes once, with the values that anndata reads from the store.
"""
import glob
import sys

import anndata
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
classes = len(want.obs[column].cat.categories)


@jax.jit
def step(weights, x, label):
    def loss(weights):
        scores = jnp.log1p(x) @ weights
        return -jnp.take_along_axis(jax.nn.log_softmax(scores), label[:, None], axis=1).mean()

    value, gradient = jax.value_and_grad(loss)(weights)
    return weights - 0.01 * gradient, value


weights, losses = jnp.zeros((want.n_vars, classes)), []
for _ in range(3):
    seen, epoch = [], []
    for path in sorted(glob.glob(f"{directory}/*.npz")):
        batch = np.load(path)
        x = scipy.sparse.load_npz(path)
        assert (x != want.X[batch["row"]]).nnz == 0, "values differ from the store's"
        seen.append(batch["row"])
        weights, value = step(weights, jnp.asarray(x.toarray()), jnp.asarray(batch[f"obs/{column}"].astype(int)))
        epoch.append(float(value))
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(want.n_obs)), "an epoch has each row once"
    losses.append(np.mean(epoch))
assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
print(f"{want.n_obs} rows in {len(epoch)} batches, loss {losses[0]:.4f} to {losses[-1]:.4f}")
