#!/usr/bin/env python3
"""Reads obsm/images of a mount in every format and compares it with the stores. Usage: check_images.py MOUNT STORE..."""
import pathlib
import sys

import anndata as ad
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import safetensors.numpy
import zarr

mount, paths = pathlib.Path(sys.argv[1]), sys.argv[2:]
read = lambda path: (h5py.File(path) if path.endswith(".h5ad") else zarr.open_group(path, mode="r"))["obsm/images"][...]
want = [read(path) for path in paths]
want = np.concatenate(want).astype(np.result_type(*want))
seen = []
for path in sorted((mount / "epoch-0000").iterdir()):
    with np.load(path) as f:
        rows = f["row"]
        images = {"npz": f["X"]}
    images["npy"] = np.load(path.with_suffix(".npy"), mmap_mode="r")
    images["safetensors"] = safetensors.numpy.load_file(path.with_suffix(".safetensors"))["X"]
    adata = ad.read_h5ad(path.with_suffix(".h5ad"))
    assert adata.obs_names.astype("int64").tolist() == rows.tolist()
    images["h5ad"] = adata.obsm["X"]
    for name, got in images.items():
        assert got.dtype == want.dtype and got.shape == (len(rows), *want.shape[1:]), f"{path.name}: {name}: {got.dtype}{got.shape}"
        assert (got == want[rows]).all(), f"{path.name}: {name} differs"
    seen.extend(rows.tolist())
assert sorted(seen) == list(range(len(want))), "rows"
