#!/usr/bin/env python3
"""Compares the directory `epoch-N.zarr` with `epoch-N.h5ad`, which other tests compare with the stores.

Usage: check_zarr.py MOUNT EPOCH...    where EPOCH is a path without its ending, as train/rank-1-of-3/epoch-0001
       check_zarr.py --make FILE       a store with columns of every kind

zarr-python opens it with and without consolidated metadata and anndata reads its dataset_0, lazily too; every array, dtype, label and
name is that of the .h5ad. The files have the sizes that `stat` says, are listed, and are right at any offset. Prints one line of
JSON an epoch; exits 1 and names the first difference.
"""
import json
import os
import pathlib
import random
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")

import anndata as ad
import pandas as pd
import scipy.sparse as sp
import zarr


def need(condition, message):
    if not condition:
        raise SystemExit(f"check_zarr: {message}")


def same(got, want, what):
    got, want = (x.tocsr() if sp.issparse(x) else x for x in (got, want))
    if sp.issparse(want):
        need(sp.issparse(got), f"{what}: {type(got)}")
        need(got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}")
        for part in ("data", "indices", "indptr"):
            same(getattr(got, part), getattr(want, part), f"{what}/{part}")
        return
    got, want = np.asarray(got), np.asarray(want)
    need(got.dtype == want.dtype, f"{what}: dtype {got.dtype}, not {want.dtype}")
    need(got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}")
    if got.dtype.kind == "O":
        need(list(got) == list(want), f"{what}: other values")
    else:
        need(np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(want).tobytes(), f"{what}: other bytes")


def frames(got, want, what):
    need(list(got.columns) == list(want.columns), f"{what}: columns {list(got.columns)}, not {list(want.columns)}")
    need(list(got.index) == list(want.index), f"{what}: other names")
    for name in want:
        need(got[name].dtype == want[name].dtype, f"{what}/{name}: dtype {got[name].dtype}, not {want[name].dtype}")
        need(got[name].equals(want[name]), f"{what}/{name}: other values")


def anndatas(got, want, what):
    need(got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}")
    frames(got.obs, want.obs, f"{what}: obs")
    frames(got.var, want.var, f"{what}: var")
    need((got.X is None) == (want.X is None), f"{what}: X")
    if want.X is not None:
        same(got.X, want.X, f"{what}: X")
    for group in ("layers", "obsm"):
        need(set(getattr(got, group)) == set(getattr(want, group)), f"{what}: {group}")
        for name, value in getattr(want, group).items():
            same(getattr(got, group)[name], value, f"{what}: {group}/{name}")
    need((got.raw is None) == (want.raw is None), f"{what}: raw")
    if want.raw is not None:
        same(got.raw.X, want.raw.X, f"{what}: raw/X")
        frames(got.raw.var, want.raw.var, f"{what}: raw/var")


def files(top):
    """Every listed file has its size, and its bytes are the same from any offset."""
    rng, count = random.Random(7), 0
    for directory, folders, names in os.walk(top):
        need(os.stat(directory).st_nlink == 2 + len(folders), f"{directory}: links")
        for name in names:
            path, count = pathlib.Path(directory, name), count + 1
            whole = path.read_bytes()
            need(len(whole) == path.stat().st_size, f"{path}: {len(whole)} bytes")
            with open(path, "rb", buffering=0) as file:
                for _ in range(5):
                    start, length = rng.randrange(len(whole) + 5), rng.choice([1, 100, 5000, 1 << 20])
                    need(os.pread(file.fileno(), length, start) == whole[start : start + length], f"{path}: at {start}")
    return count


def arrays(group, path=""):
    for name, member in sorted(group.members()):
        if isinstance(member, zarr.Group):
            yield from arrays(member, f"{path}{name}/")
        else:
            yield f"{path}{name}", member


def parts(top):
    """Slices of every array are those of the whole; a store without consolidated metadata is the same store."""
    rng = random.Random(11)
    listed = {path: array for path, array in arrays(zarr.open_group(top, mode="r", use_consolidated=False))}
    told = {path: array for path, array in arrays(zarr.open_group(top, mode="r", use_consolidated=True))}
    need(listed.keys() == told.keys(), f"{top}: {sorted(listed.keys() ^ told.keys())}")
    for path, array in told.items():
        need(array.metadata == listed[path].metadata, f"{top}: {path}: other metadata")
        whole = array[...]
        for _ in range(6):
            start = rng.randrange(max(1, array.shape[0]))
            stop = start + rng.randrange(1, 3000)
            need(np.array_equal(np.asarray(array[start:stop]), np.asarray(whole)[start:stop], equal_nan=whole.dtype.kind == "f"), f"{top}: {path}: {start} to {stop}")
    return len(told)


def lazily(top, want):
    try:
        import dask  # noqa: F401
        import xarray  # noqa: F401
    except ImportError:
        return False
    lazy = ad.experimental.read_lazy(top)
    anndatas(lazy.to_memory(), want, f"{top}, lazily")
    return True


def epoch(mount, name):
    top, want = mount / f"{name}.zarr", ad.read_h5ad(mount / f"{name}.h5ad")
    collection = zarr.open_group(top, mode="r")
    need(collection.attrs["encoding-type"] == "annbatch-preshuffled", f"{top}: {dict(collection.attrs)}")
    need(list(collection.keys()) == ["dataset_0"], f"{top}: {list(collection.keys())}")
    anndatas(ad.read_zarr(top / "dataset_0"), want, str(top))
    told = {"epoch": name, "arrays": parts(top), "files": files(top), "lazily": lazily(top / "dataset_0", want)}
    rows = [int(row) for row in want.obs_names]
    print(json.dumps({**told, "rows": len(rows), "distinct": len(set(rows))}), flush=True)


def make(path):
    rng = np.random.default_rng(4)
    rows, genes = 40_000, 50
    some = rng.random(rows) < 0.1
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(rng.choice(["a", "b", None], rows)),
            "number": pd.Categorical(rng.choice([3, 5, 9], rows)),
            "grade": pd.Categorical(rng.choice(["low", "high"], rows), ["low", "high"], ordered=True),
            "count": rng.integers(0, 1 << 40, rows),
            "share": np.where(some, np.nan, rng.random(rows)),
            "good": rng.random(rows) < 0.5,
            "age": pd.array(np.where(some, None, rng.integers(0, 90, rows)), dtype="Int16"),
            "known": pd.array(np.where(some, None, rng.random(rows) < 0.5), dtype="boolean"),
            "text": rng.choice(["", "größe", "a longer text", "x"], rows),
        },
        index=[f"r{i}" for i in range(rows)],
    )
    var = pd.DataFrame(
        {
            "ensembl_id": [f"ENSG{i:05d}" for i in range(genes)],
            "biotype": pd.Categorical(rng.choice(["coding", "other"], genes)),
            "length": pd.array([None, *range(genes - 1)], dtype="Int32"),
            "variable": rng.random(genes) < 0.5,
        },
        index=[f"g{i}" for i in range(genes)],
    )
    x = sp.random(rows, genes, 0.3, "csr", np.float32, rng)
    adata = ad.AnnData(x, obs, var)
    adata.raw = ad.AnnData(sp.random(rows, 60, 0.1, "csr", np.float32, rng), adata.obs)
    adata.layers["counts"] = sp.random(rows, genes, 0.2, "csr", np.float64, rng)
    adata.layers["whole"] = rng.random((rows, genes))
    adata.obsm["X_pca"] = rng.random((rows, 5)).astype(np.float16)
    adata.write_h5ad(path)


def main():
    if sys.argv[1] == "--make":
        return make(sys.argv[2])
    for name in sys.argv[2:]:
        epoch(pathlib.Path(sys.argv[1]), name)


if __name__ == "__main__":
    main()
