#!/usr/bin/env python3
"""Writes a store that trainers learn from: trainer_stores.py make DIRECTORY

`screen.h5ad`, and the same rows as `first.h5ad` and `second.zarr`, whose genes are in another order: 3,000 cells of two cell types in three batches with three perturbations and a control; counts depend on all of them.
"""
import sys

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

rng = np.random.default_rng(0)
rows, genes = 3000, 200
obs = pd.DataFrame(
    {
        "plate": pd.Categorical(rng.choice(["p1", "p2", "p3"], rows)),
        "drug": pd.Categorical(rng.choice(["control", "d1", "d2", "d3"], rows)),
        "line": pd.Categorical(rng.choice(["l1", "l2"], rows)),
        "n_genes": rng.integers(10, 100, rows).astype(np.int32),
    },
    index=[f"cell-{i}" for i in range(rows)],
)
rate = np.full((rows, genes), 0.3)
for column in ("plate", "drug", "line"):
    rate *= rng.gamma(2, 0.5, (len(obs[column].cat.categories), genes))[obs[column].cat.codes]
x = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"g{i}" for i in range(genes)]))
adata.write_h5ad(f"{sys.argv[2]}/screen.h5ad")
adata[:1000].copy().write_h5ad(f"{sys.argv[2]}/first.h5ad")
adata[1000:, rng.permutation(genes)].copy().write_zarr(f"{sys.argv[2]}/second.zarr")
