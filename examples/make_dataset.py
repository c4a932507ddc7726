#!/usr/bin/env python3
"""Writes a small synthetic AnnData: 5,000 cells x 1,000 genes of counts, sorted by plate as real data are.

Usage: make_dataset.py OUT.h5ad
"""
import sys

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

CELLS, GENES, PLATES, DONORS = 5_000, 1_000, 5, 12
TYPES = ["B cell", "T cell", "NK cell", "monocyte", "dendritic cell", "platelet"]

rng = np.random.default_rng(0)
plate = np.sort(rng.integers(0, PLATES, CELLS))
# Each plate has a different mixture of cell types, in runs: a typical order on disk, which must be shuffled.
mixture = rng.dirichlet(np.full(len(TYPES), 0.7), PLATES)
cell_type = np.array([rng.choice(len(TYPES), p=mixture[p]) for p in plate])
order = np.lexsort((cell_type, plate))
plate, cell_type = plate[order], cell_type[order]
donor = rng.integers(0, DONORS, CELLS)

base = rng.gamma(0.3, 0.5, GENES)
markers = np.ones((len(TYPES), GENES))
for i in range(len(TYPES)):
    markers[i, rng.choice(GENES, 40, replace=False)] = rng.uniform(2, 6, 40)
plate_effect = rng.lognormal(0, 0.2, (PLATES, GENES))
depth = rng.lognormal(0, 0.4, CELLS)
counts = rng.poisson(base * markers[cell_type] * plate_effect[plate] * depth[:, None]).astype("float32")

x = sp.csr_matrix(counts)
obs = pd.DataFrame(
    {
        "cell_type": pd.Categorical.from_codes(cell_type, TYPES),
        "plate": pd.Categorical.from_codes(plate, [f"plate{i + 1}" for i in range(PLATES)]),
        "donor": pd.Categorical.from_codes(donor, [f"donor{i + 1}" for i in range(DONORS)]),
        "n_counts": np.asarray(x.sum(axis=1)).ravel().astype("int64"),
    },
    index=[f"cell{i}" for i in range(CELLS)],
)
ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])).write_h5ad(sys.argv[1], compression="gzip")
print(f"{CELLS:,} cells x {GENES:,} genes, {x.nnz / CELLS:.0f} values a cell, {len(TYPES)} cell types, {PLATES} plates")
