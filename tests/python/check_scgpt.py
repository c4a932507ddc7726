#!/usr/bin/env python3
"""Compares tokens of an epoch with those of the scgpt package (0.2.4): check_scgpt.py MOUNT STORE VOCAB.json BINS

The mount has a recipe with `kind = "bins"`, `ties = "last"`, `longer = "cut"`, the token <cls> first and rows that fit. scGPT draws a bin where
a value equals several edges: with its draw set to 0 it takes the last. Its own `binning` and `tokenize_batch` are called; the rest of
the package imports torchtext, which is discontinued, and is not used.
"""
import importlib.util
import json
import logging
import pathlib
import sys
import types

import anndata
import numpy as np

mount, store, vocabulary = pathlib.Path(sys.argv[1]), anndata.read_h5ad(sys.argv[2]), json.loads(pathlib.Path(sys.argv[3]).read_text())
bins = int(sys.argv[4])
package = pathlib.Path(importlib.util.find_spec("scgpt").submodule_search_locations[0])
sys.modules["scgpt"] = types.ModuleType("scgpt")
sys.modules["scgpt"].logger = logging.getLogger("scgpt")
for name in ("torchtext", "torchtext.vocab", "torchtext._torchtext"):
    module = sys.modules[name] = types.ModuleType(name)
    module.Vocab = dict
sys.modules["torchtext"].vocab = sys.modules["torchtext.vocab"]


def own(name, file):
    spec = importlib.util.spec_from_file_location(name, package / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


binning = own("scgpt.preprocess", "preprocess.py").binning
tokenize_batch = own("scgpt.tokenizer.gene_tokenizer", "tokenizer/gene_tokenizer.py").tokenize_batch
np.random.rand = lambda *shape: np.zeros(shape)
has = np.array([name in vocabulary for name in store.var_names])
tokens = np.array([vocabulary[name] for name in store.var_names[has]])
x = store.X[:, has].toarray()
seen = []
for path in sorted((mount / "epoch-0000").iterdir()):
    batch = np.load(path)
    rows = batch["row"]
    binned = np.stack([np.asarray(binning(x[row], bins)) for row in rows])
    published = tokenize_batch(binned, tokens, return_pt=False, append_cls=True, include_zero_gene=False, cls_id=vocabulary["<cls>"])
    for i, (ids, values, *_) in enumerate(published):
        n = batch["length"][i]
        assert np.array_equal(batch["input_ids"][i, :n], ids), f"row {rows[i]}: tokens {batch['input_ids'][i, :n]}, not {ids}"
        assert np.array_equal(batch["expressions"][i, :n], values), f"row {rows[i]}: bins {batch['expressions'][i, :n]}, not {values}"
    seen.extend(rows.tolist())
assert sorted(seen) == list(range(store.n_obs)), "an epoch has each row once"
print(f"{len(seen)} rows agree with scgpt")
