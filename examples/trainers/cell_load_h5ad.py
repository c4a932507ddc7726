#!/usr/bin/env python3
"""STATE's cell-load on a file of a view: cell_load_h5ad.py FILE.h5ad STORE.h5ad PERTURBATION CONTROL CELL_TYPE BATCH

FILE has rows by perturbation (by-PERTURBATION.h5ad) or as stored. One perturbation of one cell type is the test set, with the controls of that
cell type, which both sets have. Every cell comes once in its set, with the values that anndata reads from the store.
"""
import logging
import sys
import tempfile

import anndata
import numpy as np

from cell_load.data_modules import PerturbationDataModule

path, store, perturbation, control, cell_type, batch = sys.argv[1:]
logging.disable(logging.WARNING)
want = anndata.read_h5ad(store)
kind, left_out = want.obs[cell_type].cat.categories[0], want.obs[perturbation].cat.categories.drop(control)[0]
with tempfile.NamedTemporaryFile("w", suffix=".toml") as toml:
    toml.write(f'[datasets]\nscreen = "{path}"\n[training]\nscreen = "train"\n[zeroshot]\n')
    toml.write(f'[fewshot]\n[fewshot."screen.{kind}"]\nval = []\ntest = ["{left_out}"]\n')
    toml.flush()
    module = PerturbationDataModule(
        toml_config_path=toml.name, batch_size=64, num_workers=0, pert_col=perturbation, batch_col=batch, cell_type_key=cell_type,
        control_pert=control, embed_key=None, output_space="all", cell_sentence_len=1, basal_mapping_strategy="random", barcode=True,
        is_log1p=False,
    )
    module.setup()
    seen = {}
    for name, loader in (("train", module.train_dataloader()), ("test", module.test_dataloader())):
        for cells in loader:
            rows = np.array(cells["pert_cell_barcode"]).astype(int)
            x = cells["pert_cell_emb"].numpy().reshape(len(rows), -1)
            assert np.array_equal(x, want.X[rows].toarray()), "values differ from the store's"
            assert list(cells["pert_name"]) == list(want.obs[perturbation].iloc[rows])
            seen.setdefault(name, []).append(rows)
train, test = (np.concatenate(seen[name]) for name in ("train", "test"))
tested = (want.obs[cell_type] == kind) & (want.obs[perturbation] == left_out)
assert set(np.flatnonzero(tested)) <= set(test) and not set(np.flatnonzero(tested)) & set(train), "the test set is not left out"
assert len(set(train)) == len(train) and len(set(test)) == len(test), "a row comes twice"
assert set(train) | set(test) == set(range(want.n_obs)), "a row is missing"
print(f"{len(train)} rows in training, {len(test)} in testing")
