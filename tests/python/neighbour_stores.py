#!/usr/bin/env python3
"""Small stores as programs of this field write them, and their odd neighbours: each is one more kind that must be read as
anndata reads it.

Usage: neighbour_stores.py make OUTDIR    one store each; what this anndata cannot write is left out, and named on stderr

It runs with any anndata since 0.8, so that stores of older versions can be made in other environments.
"""
import pathlib
import shutil
import sys
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr

warnings.simplefilter("ignore")
ROWS, GENES = 37, 11
STORES = {}


def store(*names):
    """Registers a maker of these stores."""
    def note(make):
        for name in names:
            STORES[name] = make
        return make
    return note


def matrix(rng, density=0.4, dtype="float32"):
    x = sp.random(ROWS, GENES, density, format="csr", random_state=rng, dtype="float64")
    x.data = np.ceil(x.data * 50).astype(dtype)
    return sp.csr_matrix((x.data.astype(dtype), x.indices, x.indptr), shape=x.shape)


def base(rng, x=None, **columns):
    obs = pd.DataFrame({"ct": pd.Categorical.from_codes(rng.integers(-1, 3, ROWS), list("abc")), **columns}, index=[f"c{i}" for i in range(ROWS)])
    var = pd.DataFrame({"n": np.arange(GENES)}, index=[f"g{i}" for i in range(GENES)])
    return ad.AnnData(matrix(rng) if x is None else x, obs=obs, var=var)


def write(a, path, **more):
    if path.suffix == ".zarr":
        version = 3 if ".v3" in path.name else 2
        try:
            with ad.settings.override(zarr_write_format=version):
                a.write_zarr(path, **more)
        except AttributeError:
            if version == 3:
                raise
            a.write_zarr(path, **more)
    else:
        a.write_h5ad(path, **more)


BOTH = lambda name: (f"{name}.h5ad", f"{name}.v2.zarr", f"{name}.v3.zarr")


@store(*BOTH("plain"))
def plain(path, rng):
    write(base(rng), path)


@store(*[f"x-{dtype}.h5ad" for dtype in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float64", "bool")])
def dtypes(path, rng):
    dtype = path.stem[2:]
    dense = matrix(rng).toarray()
    if dtype == "uint64":
        dense = dense.astype(dtype)
        dense[0, 0] = 2**64 - 1
    write(base(rng, dense.astype(dtype)), path)


@store("sparse-uint64.h5ad", "sparse-int64.v3.zarr", "sparse-bool.h5ad", "sparse-float64.v2.zarr")
def sparse_dtypes(path, rng):
    write(base(rng, matrix(rng, dtype=path.name.split(".")[0][7:])), path)


@store(*BOTH("nullable"))
def nullable(path, rng):
    missing = rng.random(ROWS) < 0.3
    columns = {f"{kind}": pd.array(np.where(missing, None, np.arange(ROWS) % 120), dtype=kind)
               for kind in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")}
    columns["boolean"] = pd.array([None if m else bool(i % 2) for i, m in enumerate(missing)], dtype="boolean")
    write(base(rng, **columns), path)


@store(*BOTH("categories"))
def categories(path, rng):
    codes = lambda n: rng.integers(-1, n, ROWS)
    columns = {
        "ordered": pd.Categorical.from_codes(codes(3), ["low", "mid", "high"], ordered=True),
        "unused": pd.Categorical.from_codes(np.zeros(ROWS, int), ["x", "never", "neither"]),
        "all missing": pd.Categorical.from_codes(np.full(ROWS, -1), ["a"]),
        "ints": pd.Categorical.from_codes(codes(3), [3, -1, 7]),
        "floats": pd.Categorical.from_codes(codes(3), [0.1, 2.5, -1e300]),
        "bools": pd.Categorical.from_codes(codes(2), [False, True]),
        "many": pd.Categorical.from_codes(rng.integers(0, 300, ROWS), [f"label {i}" for i in range(300)]),
        "long": pd.Categorical.from_codes(codes(2), ["é" * 500, "line\nbreak\ttab"]),
        "one": pd.Categorical.from_codes(np.zeros(ROWS, int), [""]),
    }
    write(base(rng, **columns), path)


@store(*BOTH("no-categories"))
def no_categories(path, rng):
    write(base(rng, empty=pd.Categorical.from_codes(np.full(ROWS, -1), np.array([], dtype=object))), path)


@store(*BOTH("text"))
def text(path, rng):
    columns = {"plain": [f"t{i}" for i in range(ROWS)], "empty": [""] * ROWS, "unicode": ["ü€😀"] * ROWS, "mixed length": ["x" * (i * 7) for i in range(ROWS)]}
    write(base(rng, **columns), path, **({"convert_strings_to_categoricals": False} if path.suffix == ".h5ad" or hasattr(ad, "settings") else {}))


@store(*BOTH("numbers"))
def numbers(path, rng):
    columns = {dtype: rng.integers(0, 100, ROWS).astype(dtype) for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")}
    columns["bool"] = rng.random(ROWS) < 0.5
    columns["nan"] = np.where(rng.random(ROWS) < 0.5, np.nan, 1.5)
    columns["inf"] = np.where(rng.random(ROWS) < 0.5, np.inf, -np.inf)
    columns["uint64"][3] = 2**64 - 1
    write(base(rng, **columns), path)


@store(*BOTH("uns"))
def uns(path, rng):
    a = base(rng)
    a.uns["nested"] = {"a": {"b": {"c": np.arange(3), "text": "x", "none": "None"}}, "table": pd.DataFrame({"x": [1, 2]}, index=["r", "s"]), "list": ["a", "b"],
                       "sparse": matrix(rng), "cat": pd.Categorical(["u", "v"]), "complex": np.array([1 + 2j]), "scalar": 3.5, "empty": {}}
    a.uns["neighbors"] = {"params": {"n": 3, "method": "umap"}}
    a.obsp["distances"] = sp.random(ROWS, ROWS, 0.1, format="csr", random_state=rng)
    a.varm["PCs"] = rng.random((GENES, 3))
    a.obsm["X_pca"] = rng.random((ROWS, 3)).astype("float32")
    a.obsm["sparse"] = matrix(rng)
    write(a, path)


@store(*BOTH("int64-indices"))
def wide(path, rng):
    x = matrix(rng)
    x.indices, x.indptr = x.indices.astype("int64"), x.indptr.astype("int64")
    write(base(rng, x), path)


@store("unsorted.h5ad", "unsorted.v2.zarr")
def unsorted(path, rng):
    x = matrix(rng)
    for row in range(ROWS):
        at = slice(x.indptr[row], x.indptr[row + 1])
        order = rng.permutation(at.stop - at.start)
        x.indices[at], x.data[at] = x.indices[at][order], x.data[at][order]
    x.has_sorted_indices = False
    write(base(rng, x), path)


@store("explicit-zeros.h5ad")
def zeros(path, rng):
    x = matrix(rng)
    x.data[::3] = 0
    write(base(rng, x), path)


@store(*BOTH("nothing-stored"))
def nothing(path, rng):
    write(base(rng, sp.csr_matrix((ROWS, GENES), dtype="float32")), path)


@store(*BOTH("csc"))
def csc(path, rng):
    write(base(rng, sp.csc_matrix(matrix(rng))), path)


@store("gzip.h5ad", "lzf.h5ad")
def compressed(path, rng):
    write(base(rng), path, compression=path.stem)


@store("one-chunk.v2.zarr", "rows-of-one.v2.zarr", "rows-of-one.v3.zarr")
def chunked(path, rng):
    write(base(rng, matrix(rng).toarray()), path, chunks=(1000, 1000) if path.name.startswith("one") else (1, GENES))


@store("one-gene.h5ad")
def one_gene(path, rng):
    write(base(rng)[:, :1].copy(), path)


@store("one-row.h5ad", "one-row.v2.zarr")
def one_row(path, rng):
    write(base(rng)[:1].copy(), path)


@store("no-genes.h5ad", "no-genes-dense.h5ad")
def no_genes(path, rng):
    a = base(rng, matrix(rng).toarray() if "dense" in path.name else None)[:, :0].copy()
    write(a, path)


@store("duplicate-names.h5ad")
def duplicate_names(path, rng):
    a = base(rng)
    a.obs_names = ["same"] * ROWS
    write(a, path)


@store("index-name.h5ad", "index-name.v3.zarr")
def index_name(path, rng):
    a = base(rng)
    a.obs.index.name, a.var.index.name = "barcode", "gene ids"
    write(a, path)


@store("raw.h5ad", "raw.v2.zarr")
def raw(path, rng):
    a = base(rng)
    a.raw = a
    write(a[:, :4].copy(), path)


@store("view.h5ad")
def view(path, rng):
    write(base(rng)[::2, ::3], path)


# ---------------------------------------------------------------- written by hand, as other programs do

def edited(path, rng, **columns):
    write(base(rng, **columns), path)
    return h5py.File(path, "r+")


@store("big-endian.h5ad")
def big_endian(path, rng):
    with edited(path, rng, n=rng.integers(0, 9, ROWS), f=rng.random(ROWS)) as f:
        for name, dtype in [("X/data", ">f4"), ("X/indices", ">i4"), ("X/indptr", ">i8"), ("obs/n", ">i8"), ("obs/f", ">f8"), ("obs/ct/codes", ">i2")]:
            values, attributes = f[name][...], dict(f[name].attrs)
            del f[name]
            f.create_dataset(name, data=values.astype(dtype), chunks=(5,)).attrs.update(attributes)


@store("fixed-text.h5ad")
def fixed_text(path, rng):
    with edited(path, rng) as f:
        for name in ("obs/_index", "obs/ct/categories"):
            values, attributes = f[name].asstr()[...], dict(f[name].attrs)
            del f[name]
            f.create_dataset(name, data=values.astype("S8")).attrs.update(attributes)


@store("late-format.h5ad", "early-format.h5ad")
def formats(path, rng):
    other = path.with_suffix(".tmp")
    write(base(rng), other.with_suffix(".h5ad.h5ad"))
    other = other.with_suffix(".h5ad.h5ad")
    with h5py.File(other) as f, h5py.File(path, "w", libver="latest" if "late" in path.name else "earliest") as g:
        for name in f:
            f.copy(name, g)
        g.attrs.update(dict(f.attrs))
    other.unlink()


@store("user-block.h5ad")
def user_block(path, rng):
    other = path.with_name("other.h5ad")
    write(base(rng), other)
    with h5py.File(other) as f, h5py.File(path, "w", userblock_size=1024) as g:
        for name in f:
            f.copy(name, g)
        g.attrs.update(dict(f.attrs))
    other.unlink()


@store("grown.h5ad")
def grown(path, rng):
    """Resizable, in chunks larger than what is there, and made smaller again."""
    with edited(path, rng) as f:
        for name in ("X/data", "X/indices", "obs/ct/codes"):
            values, attributes = f[name][...], dict(f[name].attrs)
            del f[name]
            made = f.create_dataset(name, shape=(len(values) * 3,), maxshape=(None,), dtype=values.dtype, chunks=(64,), compression="gzip", shuffle=True, fletcher32=True)
            made[: len(values)] = values
            made[len(values):] = 1
            made.resize(len(values), axis=0)
            made.attrs.update(attributes)


@store("fill-value.h5ad")
def fill_value(path, rng):
    with edited(path, rng) as f:
        f.create_dataset("obs/filled", shape=(ROWS,), dtype="i4", fillvalue=7, chunks=(10,)).attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        f["obs/filled"][3:5] = [1, 2]
        f["obs"].attrs["column-order"] = np.array(["ct", "filled"], dtype=h5py.string_dtype())


@store("links.h5ad")
def links(path, rng):
    """Soft and hard links in the file."""
    with edited(path, rng) as f:
        f["elsewhere/X"] = f["X"]
        del f["X"]
        f["X"] = h5py.SoftLink("/elsewhere/X")
        f["obs/again"] = f["obs/ct"]
        f["obs/dangling"] = h5py.SoftLink("/nowhere")
        f["obs"].attrs["column-order"] = np.array(["ct", "again"], dtype=h5py.string_dtype())


@store("many-attributes.h5ad")
def many_attributes(path, rng):
    with edited(path, rng) as f:
        for i in range(300):
            f["obs"].attrs[f"extra {i}"] = "x" * 200


@store("wide.h5ad")
def wide_table(path, rng):
    columns = {f"column {i}": rng.integers(0, 9, ROWS) for i in range(400)}
    write(base(rng, **columns), path)


@store("r-like.h5ad")
def r_like(path, rng):
    """As zellkonverter and anndataR leave it: float shapes, one-element arrays for scalars, no encoding of columns."""
    with edited(path, rng, n=rng.integers(0, 9, ROWS)) as f:
        f["X"].attrs["shape"] = np.array([ROWS, GENES], "f8")
        for name in ("obs/n", "obs/_index"):
            for attribute in list(f[name].attrs):
                del f[name].attrs[attribute]
        f["obs/ct"].attrs["ordered"] = np.array([0], "i4")


@store("scalar-attributes.h5ad")
def scalar_attributes(path, rng):
    """Attributes as fixed strings of several paddings, and as arrays of one."""
    with edited(path, rng) as f:
        for name in ("X", "obs", "obs/ct"):
            kind = f[name].attrs["encoding-type"]
            del f[name].attrs["encoding-type"]
            f[name].attrs.create("encoding-type", np.bytes_(kind))


def main():
    out = pathlib.Path(sys.argv[2])
    for number, (name, make) in enumerate(STORES.items()):
        path = out / name
        try:
            make(path, np.random.default_rng(number))
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
