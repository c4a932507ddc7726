#!/usr/bin/env python3
"""Makes the small AnnData stores that the tests mount; the same name always gives the same content.

Usage: make_stores.py OUTDIR NAME...     makes what is missing (a store appears under its name only when complete)
       make_stores.py --list             JSON: name -> what it is, for table-driven tests

Everything but X is written by anndata. X is written by h5py and zarr, so that chunks are small, filters are the ones
named, and dtypes that scipy cannot hold (float16 CSR) exist too; the `anndata-*` stores are wholly anndata's own.
"""
import json
import os
import pathlib
import shutil
import sys
import warnings
import zlib

import anndata as ad
import h5py
import hdf5plugin
import numcodecs
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
import zarr.codecs as zc

import odd_stores

warnings.simplefilter("ignore")

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
FILTERS = {
    "h5ad": ["none", "gzip", "lzf", "shuffle+gzip", "zstd", "blosc"],
    "v2.zarr": ["none", "gzip", "zstd", "blosc", "shuffle+gzip"],
    "v3.zarr": ["none", "gzip", "zstd", "blosc"],
    "sharded.zarr": ["none", "gzip", "zstd", "blosc"],
    "v2.zip": ["none", "blosc"],
    "sharded.zip": ["none", "zstd"],
}
ROWS, GENES = 700, 60


# ---------------------------------------------------------------- the table of stores

def matrix_table():
    """Every dtype and every filter, for both kinds of X in every container."""
    table = {}
    for container, filters in FILTERS.items():
        for k, kind in enumerate(["csr", "dense"]):
            pairs = [(dtype, filters[(i + k) % len(filters)]) for i, dtype in enumerate(DTYPES)]
            pairs += [("float32", f) for f in filters]
            for i, (dtype, filt) in enumerate(dict.fromkeys(pairs)):
                name = f"{kind}-{dtype}-{filt}.{container}"
                spec = {"kind": kind, "dtype": dtype, "filter": filt, "container": container}
                if container != "h5ad" and not container.endswith(".zip"):
                    spec["consolidated"] = i % 2 == 0
                table[name] = spec
    return table


SPECIAL = {
    # Wholly written by anndata, with its own chunks and settings.
    "anndata-csr.h5ad": {"anndata": "csr", "compression": None},
    "anndata-csr-gzip.h5ad": {"anndata": "csr", "compression": "gzip"},
    "anndata-csr-lzf.h5ad": {"anndata": "csr", "compression": "lzf"},
    "anndata-dense.h5ad": {"anndata": "dense", "compression": None},
    "anndata-dense-gzip.h5ad": {"anndata": "dense", "compression": "gzip"},
    "anndata-csr.v2.zarr": {"anndata": "csr", "zarr": 2},
    "anndata-csr.v3.zarr": {"anndata": "csr", "zarr": 3},
    "anndata-csr.auto.zarr": {"anndata": "csr", "zarr": 3, "auto_shard": True},
    "anndata-dense.v2.zarr": {"anndata": "dense", "zarr": 2},
    "anndata-dense.v3.zarr": {"anndata": "dense", "zarr": 3},
    # Unsorted indices, int64 indices and indptr.
    "odd.h5ad": {"kind": "csr", "dtype": "float32", "filter": "gzip", "container": "h5ad", "unsorted": True, "index": "int64"},
    # Stored big-endian: served little-endian, like everything.
    "big-endian-csr.h5ad": {"kind": "csr", "dtype": "float32", "filter": "none", "container": "h5ad", "order": ">"},
    "big-endian-dense.h5ad": {"kind": "dense", "dtype": "int32", "filter": "gzip", "container": "h5ad", "order": ">"},
    # Dense, not chunked (as anndata writes it without compression).
    "contiguous.h5ad": {"kind": "dense", "dtype": "float32", "filter": "none", "container": "h5ad", "contiguous": True},
    # v2 with `/` between chunk numbers, and uint16 indices.
    "nested.v2.zarr": {"kind": "csr", "dtype": "float32", "filter": "zstd", "container": "v2.zarr", "nested": True, "index": "uint16", "consolidated": False},
    # Larger, for order, determinism and clients: several chunks, many blocks, some batches.
    "sparse.h5ad": {"kind": "csr", "dtype": "float32", "filter": "gzip", "container": "h5ad", "rows": 2000, "genes": 120},
    "dense.h5ad": {"kind": "dense", "dtype": "float32", "filter": "none", "container": "h5ad", "rows": 1500, "genes": 80},
    "sharded.zarr": {"kind": "csr", "dtype": "float32", "filter": "blosc", "container": "sharded.zarr", "rows": 2000, "genes": 120, "consolidated": True},
    # A nullable string column beside the usual ones.
    "nullable-text.h5ad": {"kind": "csr", "dtype": "float32", "filter": "none", "container": "h5ad", "nullable_text": True},
    # raw (more genes, other dtype), layers and obsm.
    "layers.h5ad": {"layers": True},
    # One collection: same genes, other categories in another order, other dtypes of a numeric column.
    "part-a.h5ad": {"kind": "csr", "dtype": "float32", "filter": "gzip", "container": "h5ad", "rows": 523, "part": 0},
    "part-b.zarr": {"kind": "csr", "dtype": "float32", "filter": "zstd", "container": "v3.zarr", "rows": 301, "part": 1, "consolidated": True},
    "part-c.h5ad": {"kind": "csr", "dtype": "float32", "filter": "none", "container": "h5ad", "rows": 777, "part": 2},
    # Same cells as part-a, but genes in another order: no collection with the others.
    # Damaged: one gzip chunk overwritten; `<name>.json` beside it says which rows it holds, `<name>.good` is undamaged.
    "damaged-csr.h5ad": {"kind": "csr", "dtype": "float32", "filter": "gzip", "container": "h5ad", "rows": 1000, "damage": "X/data"},
    "damaged-dense.h5ad": {"kind": "dense", "dtype": "float32", "filter": "gzip", "container": "h5ad", "rows": 1000, "damage": "X"},
    "damaged.zarr": {"kind": "csr", "dtype": "float32", "filter": "zstd", "container": "v3.zarr", "rows": 1000, "damage": "X/data", "consolidated": True},
    # Not stores.
    "truncated.h5ad": {"garbage": "truncated"},
    "text.h5ad": {"garbage": "text"},
    "empty.h5ad": {"garbage": "empty"},
    "hdf5.h5ad": {"garbage": "hdf5"},
    "no-zarr.zarr": {"garbage": "directory"},
    "text.zarr": {"garbage": "metadata"},
    # Stores of other writers, and of old ones: `<name>.twin.h5ad` beside each holds the same by anndata.
    **{name: {"odd": name} for name in odd_stores.STORES},
    # A layout of a later release: one clear line.
}


# ---------------------------------------------------------------- content

def values(rng, dtype, n):
    """`n` values over the whole range of the dtype, some zeros stored, signed zeros, infinities and NaN for floats."""
    dtype = np.dtype(dtype)
    if dtype == bool:
        return rng.random(n) < 0.9
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        out = rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)
        small = rng.random(n) < 0.7
        out[small] = rng.integers(1, 100, n)[small].astype(dtype)
        special = np.array([info.min, info.max, 0, 1], dtype)
    else:
        info = np.finfo(dtype)
        out = rng.standard_normal(n).astype(dtype)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, info.max, info.tiny, info.smallest_subnormal], dtype)
    at = rng.random(n) < 0.02
    out[at] = special[rng.integers(0, len(special), at.sum())]
    return out


def sparse(rng, rows, genes, dtype, unsorted=False, index="int32"):
    """CSR parts with ragged rows: a run of empty rows, a full row, an empty first and last one."""
    lengths = rng.integers(0, max(2, genes // 2), rows)
    lengths[rng.random(rows) < 0.1] = 0
    lengths[rows // 7: rows // 7 + rows // 14] = 0
    lengths[rows // 3] = genes
    lengths[[0, -1]] = 0
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.concatenate([rng.permutation(genes)[:n] if unsorted else np.sort(rng.permutation(genes)[:n]) for n in lengths])
    indptr_type = "int64" if index == "int64" else "int32"
    return values(rng, dtype, indptr[-1]), indices.astype(index), indptr.astype(indptr_type)


def dense(rng, rows, genes, dtype):
    """Dense values with a band of zeros, which zarr does not store at all."""
    x = values(rng, dtype, rows * genes).reshape(rows, genes)
    x[rng.random((rows, genes)) < 0.5] = 0
    x[rows // 7: rows // 7 + rows // 3] = 0
    return x


AWKWARD = ["plain", "with space", "tab\tinside", "line\nbreak", "back\\slash", "größe µ", "", "-1", "NaN", "a,b", '"quoted"']


def frame(rng, rows, part=0, nullable_text=False):
    """obs with a column of every kind that is served."""
    types = [["T cell", "B cell", "NK cell", "monocyte", "dendritic"],
             ["monocyte", "stem cell", "B cell", "erythrocyte"],
             ["unknown", "dendritic", "T cell", "basophil"]][part]
    run = np.repeat(np.arange(rows // 20 + 1), 20)[:rows]
    codes = (run + rng.integers(0, 2, rows)) % len(types)
    codes[rng.random(rows) < 0.08] = -1
    donors = [f"donor {i:03d}" for i in range(150 * part // 2, 150 * part // 2 + 150)]
    clusters = [[0, 1, 2, 10], [3, 10, 11, 0], [7, 2, -5, 1]][part]
    doses = [[0.1, 1.0, 1e-05, 10.0], [1e21, 0.1, 2.5, 1.0], [0.001, 123456.789, 10.0, 1e16]][part]
    pick = lambda n: rng.integers(0, n, rows)
    nan = rng.standard_normal(rows)
    nan[rng.random(rows) < 0.1] = np.nan
    nan[3] = np.inf
    obs = pd.DataFrame({
        "cell_type": pd.Categorical.from_codes(codes, types),
        "plate": pd.Categorical.from_codes(np.arange(rows) * 4 // rows, [f"plate{i + part}" for i in range(4)]),
        "stage": pd.Categorical.from_codes(pick(4) - 1, ["early", "middle", "late"], ordered=True),
        "donor": pd.Categorical.from_codes(pick(150), donors),
        "label": pd.Categorical.from_codes(pick(len(AWKWARD)), AWKWARD),
        "cluster": pd.Categorical.from_codes(pick(4), clusters),
        "dose": pd.Categorical.from_codes(pick(4), doses),
        "größe é": pd.Categorical.from_codes(pick(2), ["klein", "groß"]),
        "n_counts": rng.integers(-2**62, 2**62, rows),
        "n_genes": pick(60000).astype(["int32", "int64", "int32"][part]),
        "u8": pick(256).astype("uint8"),
        "i16": (pick(65536) - 32768).astype("int16"),
        "u64": rng.integers(0, 2**64 - 1, rows, dtype="uint64", endpoint=True),
        "score": rng.standard_normal(rows).astype("float32"),
        "pct mito": nan,
        "is_doublet": rng.random(rows) < 0.3,
        "passage": pd.arrays.IntegerArray(pick(30).astype("int32"), rng.random(rows) < 0.2),
        "sorted": pd.arrays.BooleanArray(rng.random(rows) < 0.5, rng.random(rows) < 0.2),
        "barcode": [f"{'ACGTµ'[i % 5]}{i * 7919 % 65536:x}-{part}" for i in range(rows)],
    })
    if nullable_text:
        text = np.array([f"note {i}" for i in range(rows)], object)
        text[rng.random(rows) < 0.2] = pd.NA
        obs["note"] = pd.array(text, dtype="string")
    obs.index = [f"cell-{part}-{i}" for i in range(rows)]
    return obs


def genes_of(n):
    return pd.DataFrame(index=["γ-globin", "HLA-A"][: min(2, n)] + [f"gene{i}" for i in range(2, n)])


# ---------------------------------------------------------------- stores whose genes or columns differ

JOINED = {
    # name: genes (start, stop, shuffled), kind, dtype, rows, part of the obs columns
    "join-a.h5ad": dict(genes=(0, 60, False), kind="csr", dtype="float32", rows=300, part=0),
    "join-permuted.zarr": dict(genes=(0, 60, True), kind="csr", dtype="float32", rows=250, part=1, index="int64"),
    "join-b.h5ad": dict(genes=(20, 80, True), kind="csr", dtype="int16", rows=200, part=1, unsorted=True),
    "join-c.zarr": dict(genes=(30, 110, False), kind="csr", dtype="float32", rows=150, part=2, zarr=2),
    "join-none.h5ad": dict(genes=(200, 220, False), kind="csr", dtype="float32", rows=50, part=0),
    "join-twice.h5ad": dict(genes=(20, 80, False), kind="csr", dtype="float32", rows=50, part=0, twice=True),
    # By column: empty first, last and other rows and columns, rows unsorted within columns.
    "csc-unsorted.h5ad": dict(genes=(0, 60, False), kind="csc", dtype="float32", rows=300, part=0, unsorted=True),
    "csc-int64.zarr": dict(genes=(0, 60, True), kind="csc", dtype="uint16", rows=250, part=1, index="int64"),
    "csc-gzip.h5ad": dict(genes=(20, 80, True), kind="csc", dtype="float64", rows=200, part=2, compression="gzip"),
    "join-dense-a.h5ad": dict(genes=(0, 60, False), kind="dense", dtype="float32", rows=300, part=0),
    "join-dense-permuted.zarr": dict(genes=(0, 60, True), kind="dense", dtype="float32", rows=250, part=1),
    "join-dense-b.zarr": dict(genes=(20, 80, True), kind="dense", dtype="int8", rows=200, part=1),
    "join-dense-c.h5ad": dict(genes=(30, 110, True), kind="dense", dtype="uint16", rows=150, part=2, compression="gzip"),
}


COLUMNS = {"columns-a.h5ad": 0, "columns-b.zarr": 1, "columns-c.h5ad": 2}


def write_columns(path, part):
    """obs columns that differ between the three stores in every way that docs/columns.md names."""
    rng = np.random.default_rng(part)
    n = [90, 70, 50][part]
    pick = lambda values: np.array(values, dtype=object if isinstance(values[0], str) else None)[rng.integers(0, len(values), n)]
    labels = lambda values, **more: pd.Categorical.from_codes(rng.integers(-1, len(values), n), values, **more)
    text = lambda: pick(["x", "größe", "z", ""])
    some = rng.random(n) < 0.3
    columns = [{
        "a label": labels(["u", "v"]), "a ordered": labels(["u", "v"], ordered=True), "a float": rng.random(n).astype("float32"),
        "a half": rng.random(n).astype("float16"), "a int": pick([1, -2, 3]).astype("int16"), "a bool": pick([True, False]),
        "a nullable": pd.arrays.IntegerArray(pick([1, 2]).astype("uint8"), some), "a text": text(),
        "number": pick([1, 2**30 + 1]).astype("int32"), "big": pick([-1, 2**40]).astype("int64"), "flag": pick([True, False]),
        "nullable": pd.arrays.IntegerArray(pick([1, 2]).astype("int32"), some),
        "nullable flag": pick([True, False]),
        "order": labels(["u", "v", "w"], ordered=True), "order other": labels(["u", "v"], ordered=True),
        "order same": labels(["u", "v"], ordered=True), "category width": labels([1, 2, 30]), "category kind": labels(["1", "2"]),
        "category float": labels([1, 2]), "mixed text": labels(["z", "y"]), "mixed number": labels(["z", "y"]),
        "text number": text(), "text": text(), "text nullable": text(),
    }, {
        "number": rng.random(n).astype("float32"), "big": rng.integers(2**63, 2**64 - 1, n, dtype="uint64"), "flag": pick([1, -5]).astype("int8"),
        "nullable flag": pd.arrays.BooleanArray(pick([True, False]), some),
        "order": labels(["u", "v", "w"]), "order other": labels(["u", "v", "w"], ordered=True),
        "order same": labels(["u", "v"], ordered=True), "category width": labels(np.array([7, 2, -9], "int8")), "category kind": labels([2, 3]),
        "category float": labels([1.0, 2.5]), "mixed text": text(), "mixed number": rng.random(n), "text number": pick([1, 2]),
        "text": text(), "text nullable": pd.array(np.where(some, pd.NA, text()), dtype="string"), "b label": labels(["only b"]),
    }, {
        "number": pick([1, 2]).astype("uint8"), "flag": pick([True, False]), "nullable": pick([5, 2**40]).astype("int64"),
        "category width": labels(np.array([300, 1], "uint16")), "category kind": labels([True, False]),
        "mixed text": pd.array(np.where(some, pd.NA, text()), dtype="string"), "text": text(), "c float": rng.random(n),
    }][part]
    obs = pd.DataFrame(columns, index=[f"{part}-{i}" for i in range(n)])
    x = sp.random(n, 5, 0.5, "csr", dtype="float32", random_state=rng)
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abcde")))
    # anndata makes text of few distinct values categorical as it writes: here it stays text.
    adata.strings_to_categoricals = lambda *_: None
    ad.settings.allow_write_nullable_strings = True
    adata.write_h5ad(path) if path.suffix == ".h5ad" else adata.write_zarr(path)


NUMBERS = {f"dtype-{dtype}.h5ad": dtype for dtype in DTYPES}


def write_number(path, dtype):
    """One dtype, sparse in X and dense in a layer, for pairs."""
    rng = np.random.default_rng(zlib.crc32(dtype.encode()))
    x = dense(rng, 40, 6, dtype)
    adata = ad.AnnData(obs=pd.DataFrame(index=[str(i) for i in range(40)]), var=pd.DataFrame(index=list("abcdef")))
    adata.layers["dense"] = x
    if dtype != "float16":
        adata.X = sp.csr_matrix(x)
    adata.write_h5ad(path)


IMAGES = {f"images-{dtype}.{kind}": (dtype, kind) for dtype, kind in
          [("uint8", "h5ad"), ("uint16", "v2.zarr"), ("float16", "v3.zarr"), ("uint8", "sharded.zarr")]}


def write_images(path, dtype, kind):
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    n, shape = 70, (3, 17, 13)
    adata = ad.AnnData(obs=pd.DataFrame({"label": pd.Categorical(["a", "b"] * 35)}, index=[str(i) for i in range(n)]))
    images = rng.integers(0, 200, (n, *shape)).astype(dtype)
    # Chunks divide no axis.
    if kind == "h5ad":
        adata.write_h5ad(path)
        with h5py.File(path, "r+") as f:
            f["obsm"].create_dataset("images", data=images, chunks=(8, 2, 10, 6), compression="gzip")
            f["obsm/images"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    else:
        ad.settings.zarr_write_format = 2 if kind == "v2.zarr" else 3
        adata.write_zarr(path)
        group = zarr.open_group(str(path), mode="r+")["obsm"]
        more = {"shards": (16, 4, 20, 12)} if kind == "sharded.zarr" else {}
        out = group.create_array("images", shape=images.shape, chunks=(8, 2, 10, 6), dtype=dtype, **more)
        out[...] = images
        out.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        zarr.consolidate_metadata(str(path))


WIDE = {"wide-csr.h5ad": "csr", "wide-dense.zarr": "dense"}


def write_wide(path, kind):
    """Genotypes: int8, 120,000 columns."""
    rng = np.random.default_rng(5)
    x = sp.random(200, 120_000, 0.005, "csr", dtype="int8", random_state=rng, data_rvs=lambda n: rng.integers(-1, 3, n))
    x = x if kind == "csr" else x.toarray()
    obs = pd.DataFrame({"population": pd.Categorical(["a", "b"] * 100)}, index=[str(i) for i in range(200)])
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"rs{i}" for i in range(120_000)]))
    adata.write_h5ad(path) if kind == "csr" else adata.write_zarr(path)


MADE = {**{n: (write_columns, p) for n, p in COLUMNS.items()}, **{n: (write_number, d) for n, d in NUMBERS.items()},
        **{n: (write_images, *d) for n, d in IMAGES.items()}, **{n: (write_wide, k) for n, k in WIDE.items()}}


def write_joined(path, name, genes, kind, dtype, rows, part, index="int32", unsorted=False, zarr=3, twice=False, compression=None):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    names = [f"gene{i}" for i in range(*genes[:2])]
    if genes[2]:
        rng.shuffle(names)
    if twice:
        names[3] = names[7]
    n = len(names)
    if kind == "csr":
        x = sp.csr_matrix(sparse(rng, rows, n, dtype, unsorted, index), shape=(rows, n))
    elif kind == "csc":
        x = sp.csc_matrix(sparse(rng, n, rows, dtype, unsorted, index), shape=(rows, n))
    else:
        x = dense(rng, rows, n, dtype)
    adata = ad.AnnData(x, obs=frame(rng, rows, part), var=pd.DataFrame(index=names))
    if kind == "csc":
        adata.layers["by_column"] = x * 2
        adata.raw = adata
    if path.suffix == ".h5ad":
        adata.write_h5ad(path, compression=compression)
    else:
        ad.settings.zarr_write_format = zarr
        adata.write_zarr(path)


# ---------------------------------------------------------------- writing

def is_h5(spec):
    return spec["container"] == "h5ad"


def write_base(path, spec, obs, var):
    """All but X, by anndata."""
    adata = ad.AnnData(obs=obs, var=var)
    ad.settings.allow_write_nullable_strings = True
    if is_h5(spec):
        with h5py.File(path, "w") as f:
            ad.io.write_elem(f, "/", adata, dataset_kwargs={"compression": "gzip"} if spec["filter"] == "gzip" else {})
    else:
        group = zarr.open_group(str(path), mode="w", zarr_format=2 if spec["container"] == "v2.zarr" else 3)
        ad.io.write_elem(group, "/", adata)


def copy_base(path, spec, rows, genes):
    """The same obs and var serve all stores of one container: written once, then copied."""
    kind = "v3.zarr" if spec["container"] == "sharded.zarr" else spec["container"]
    spec = {**spec, "filter": "gzip" if spec["filter"] == "gzip" else "none", "container": kind}
    parts = [rows, genes, spec.get("part", 0), spec["filter"]]
    parts += [flag for flag in ("nullable_text", "reverse_genes") if spec.get(flag)]
    base = path.parent.parent / f".base-{'-'.join(map(str, parts))}.{kind}"
    if not base.exists():
        obs = frame(np.random.default_rng(zlib.crc32(repr(parts).encode())), rows, spec.get("part", 0), "nullable_text" in parts)
        var = genes_of(genes)
        work = path.parent / "base"
        write_base(work, spec, obs, var.iloc[::-1] if "reverse_genes" in parts else var)
        os.rename(work, base)
    shutil.copytree(base, path) if base.is_dir() else shutil.copy(base, path)


def h5_options(filt):
    return {
        "none": {},
        "gzip": {"compression": "gzip", "compression_opts": 4},
        "lzf": {"compression": "lzf"},
        "shuffle+gzip": {"compression": "gzip", "shuffle": True},
        "zstd": dict(hdf5plugin.Zstd(clevel=3)),
        "blosc": dict(hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.SHUFFLE)),
    }[filt]


def zarr_options(filt, fmt, dtype):
    size = np.dtype(dtype).itemsize
    if fmt == 2:
        return {
            "none": {"compressors": None},
            "gzip": {"compressors": numcodecs.GZip(5)},
            "zstd": {"compressors": numcodecs.Zstd(3)},
            "blosc": {"compressors": numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE)},
            "shuffle+gzip": {"compressors": numcodecs.GZip(5), "filters": [numcodecs.Shuffle(size)]},
        }[filt]
    return {
        "none": {"compressors": None},
        "gzip": {"compressors": zc.GzipCodec(level=5)},
        "zstd": {"compressors": zc.ZstdCodec(level=3, checksum=True)},
        "blosc": {"compressors": zc.BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=size)},
    }[filt]


def put_array(group, name, array, chunks, spec, filtered=True):
    filt = spec["filter"] if filtered else "none"
    if isinstance(group, h5py.Group):
        if spec.get("contiguous"):
            return group.create_dataset(name, data=array)
        dtype = array.dtype.newbyteorder(spec["order"]) if "order" in spec else array.dtype
        chunks = tuple(min(c, s) for c, s in zip(chunks, array.shape))
        return group.create_dataset(name, data=array, dtype=dtype, chunks=chunks, **h5_options(filt))
    fmt = group.metadata.zarr_format
    more = zarr_options(filt, fmt, array.dtype)
    if spec["container"] == "sharded.zarr":
        # Inner chunks of a shard; the shard is not a divisor of the array.
        more["shards"] = tuple(4 * c if i == 0 else c * (2 if c < s else 1) for i, (c, s) in enumerate(zip(chunks, array.shape)))
    if spec.get("nested"):
        more["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    out = group.create_array(name, shape=array.shape, chunks=chunks, dtype=array.dtype, **more)
    out[...] = array
    return out


def put_x(root, spec, x):
    if "X" in root:
        del root["X"]
    if spec["kind"] == "csr":
        data, indices, indptr = x[0]
        group = root.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        shape = [int(n) for n in x[1]]
        group.attrs["shape"] = np.array(shape) if is_h5(spec) else shape
        put_array(group, "data", data, (1000,), spec)
        put_array(group, "indices", indices, (1300,), spec)
        put_array(group, "indptr", indptr, (256,), spec)
    else:
        # Neither rows nor columns are multiples of the chunk.
        out = put_array(root, "X", x, (96, min(x.shape[1], 32)), spec)
        out.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def write_matrix(path, name, spec):
    if spec["container"].endswith(".zip"):
        # The directory, zipped: members of v2 stores deflated, of sharded ones stored.
        directory = path.parent / "unzipped.zarr"
        kind = spec["container"].replace("zip", "zarr")
        write_matrix(directory, name, {**spec, "container": kind})
        odd_stores.zip_tree(directory, path, deflate=lambda key: kind == "v2.zarr")
        shutil.rmtree(directory)
        return
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    rows, genes = spec.get("rows", ROWS), spec.get("genes", GENES)
    copy_base(path, spec, rows, genes)
    if spec["kind"] == "csr":
        x = (sparse(rng, rows, genes, spec["dtype"], spec.get("unsorted", False), spec.get("index", "int32")), (rows, genes))
    else:
        x = dense(rng, rows, genes, spec["dtype"])
    if is_h5(spec):
        with h5py.File(path, "r+") as f:
            put_x(f, spec, x)
    else:
        put_x(zarr.open_group(str(path), mode="r+"), spec, x)
        if spec.get("consolidated"):
            zarr.consolidate_metadata(str(path))
    return x


def write_by_anndata(path, name, spec):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if spec["anndata"] == "csr":
        x = sp.csr_matrix(sparse(rng, ROWS, GENES, "float32"), shape=(ROWS, GENES))
    else:
        x = dense(rng, ROWS, GENES, "float32")
    adata = ad.AnnData(x, obs=frame(rng, ROWS), var=genes_of(GENES))
    if "zarr" in spec:
        ad.settings.zarr_write_format = spec["zarr"]
        ad.settings.auto_shard_zarr_v3 = spec.get("auto_shard", False)
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path, compression=spec["compression"])


def write_layers(path, name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    wide, narrow = GENES + 17, GENES
    matrix = lambda genes, dtype: sp.csr_matrix(sparse(rng, ROWS, genes, dtype), shape=(ROWS, genes))
    raw = ad.AnnData(matrix(wide, "uint16"), obs=frame(rng, ROWS), var=genes_of(wide))
    adata = ad.AnnData(dense(rng, ROWS, narrow, "float32"), obs=raw.obs, var=genes_of(narrow))
    adata.raw = raw
    adata.layers["counts"] = matrix(narrow, "int32")
    adata.layers["scaled"] = dense(rng, ROWS, narrow, "float64")
    adata.layers["raw"] = matrix(narrow, "float64")
    adata.obsm["X_pca"] = rng.standard_normal((ROWS, 10)).astype("float32")
    adata.write_h5ad(path, compression="gzip")


def damage(path, spec, x, report):
    """Overwrites one chunk in the middle with bytes that no codec accepts; says which rows hold elements of it."""
    element = spec["damage"]
    if is_h5(spec):
        with h5py.File(path, "r") as f:
            dataset = f[element]
            chunks = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
            chunk = chunks[len(chunks) // 2]
            start, shape = chunk.chunk_offset, dataset.chunks
        with open(path, "r+b") as f:
            f.seek(chunk.byte_offset)
            f.write(b"\xff" * chunk.size)
        grid = [-(-n // c) for n, c in zip(x.shape if element == "X" else x[0][0].shape, shape)]
        number = int(np.ravel_multi_index([s // c for s, c in zip(start, shape)], grid))
    else:
        number, shape = 5, (1000,)
        start = (number * 1000,)
        file = path / "X/data/c" / str(number)
        file.write_bytes(b"\xff" * file.stat().st_size)
    if element == "X":
        rows = list(range(start[0], min(start[0] + shape[0], x.shape[0])))
    else:
        indptr = x[0][2].astype("int64")
        low, high = start[0], start[0] + shape[0]
        rows = [r for r in range(len(indptr) - 1) if max(indptr[r], low) < min(indptr[r + 1], high)]
    report.write_text(json.dumps({"element": element, "chunk": number, "rows": [int(r) for r in rows]}))


def write_garbage(path, kind, out):
    if kind == "truncated":
        whole = ensure(out, "anndata-csr-gzip.h5ad")
        data = whole.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 133\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "hdf5":
        with h5py.File(path, "w") as f:
            f["table"] = np.arange(10)
    elif kind == "directory":
        path.mkdir()
        (path / "notes.txt").write_text("no zarr here\n")
    elif kind == "metadata":
        path.mkdir()
        (path / "zarr.json").write_text("{ this is not json")


def ensure(out, name):
    """The path of the store, made now if it is not there yet."""
    final = out / name
    if final.exists():
        return final
    spec = matrix_table().get(name) or SPECIAL.get(name) or JOINED.get(name) or {"made": MADE[name]}
    work = out / f".{os.getpid()}-{name}"  # One a store: some are made from others.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    path = work / name
    if "garbage" in spec:
        write_garbage(path, spec["garbage"], out)
    elif "anndata" in spec:
        write_by_anndata(path, name, spec)
    elif "made" in spec:
        spec["made"][0](path, *spec["made"][1:])
    elif name in JOINED:
        write_joined(path, name, **spec)
    elif "layers" in spec:
        write_layers(path, name)
    elif "odd" in spec:
        odd_stores.write(path, name)
    else:
        x = write_matrix(path, name, spec)
        if "damage" in spec:
            good = work / f"good-{name}"
            shutil.copytree(path, good) if path.is_dir() else shutil.copy(path, good)
            damage(path, spec, x, work / f"{name}.json")
    for made in sorted(work.iterdir(), key=lambda p: p.name == name):
        os.rename(made, out / made.name)  # The store itself last: what names it is then complete.
    work.rmdir()
    return final


def main():
    if sys.argv[1:] == ["--list"]:
        print(json.dumps({**matrix_table(), **SPECIAL, **JOINED}, indent=1))
        return
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        ensure(out, name)


if __name__ == "__main__":
    main()
