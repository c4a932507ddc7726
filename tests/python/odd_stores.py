"""Stores as others write them: by hand, by R, by anndata 0.5 to 0.7, zipped, nested. `make_stores.py` makes them.

Beside each lies `<name>.twin.h5ad`: the same values as anndata writes them today, which is what must be served.
"""
import json
import pathlib
import shutil
import struct
import zipfile
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

ROWS, GENES = 230, 30
STORES = {}


def store(name, **more):
    """Registers a writer: it gets a path, a random generator and a matching AnnData, and may return another twin."""
    def register(function):
        STORES[name] = lambda path, rng: function(path, rng, **more)
        return function
    return register


def write(path, name):
    twin = STORES[name](path, np.random.default_rng(zlib.crc32(name.encode())))
    if twin is not None:
        twins = twin if isinstance(twin, list) else [twin]
        for i, adata in enumerate(twins):
            mark = f".{i}" if len(twins) > 1 else ""
            adata.write_h5ad(path.parent / f"{name}.twin{mark}.h5ad")


def csr(rng, rows=ROWS, genes=GENES, dtype="float32"):
    x = sp.random(rows, genes, 0.2, format="csr", random_state=rng, dtype="float64")
    x.data = np.ceil(x.data * 50).astype(dtype)
    return sp.csr_matrix((x.data.astype(dtype), x.indices.astype("int32"), x.indptr.astype("int32")), shape=x.shape)


def frame(rng, rows=ROWS):
    kinds = pd.Categorical.from_codes(rng.integers(-1, 3, rows), ["T cell", "B µ", "NK"])
    stage = pd.Categorical.from_codes(rng.integers(0, 2, rows), ["early", "late"], ordered=True)
    return pd.DataFrame({
        "kind": kinds, "stage": stage, "n": rng.integers(-9, 9, rows), "score": rng.random(rows).astype("float32"),
        "flag": rng.random(rows) < 0.5,
    }, index=[f"cell{i}" for i in range(rows)])


def adata(rng, rows=ROWS, genes=GENES, dense=False, dtype="float32"):
    x = csr(rng, rows, genes, dtype)
    return ad.AnnData(x.toarray() if dense else x, obs=frame(rng, rows), var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]))


def fixed(values):
    return np.array([v.encode() for v in values])


# ---------------------------------------------------------------- by hand and by R

@store("r-like.h5ad")
def r_like(path, rng, shape=True):
    """Fixed-length strings, no attributes but a shape of floats."""
    a = adata(rng)
    a.obs["stage"] = pd.Categorical(a.obs["stage"], ordered=False)
    with h5py.File(path, "w") as f:
        for part in ("data", "indices", "indptr"):
            f[f"X/{part}"] = getattr(a.X, part)
        if shape:
            f["X"].attrs["shape"] = np.array(a.shape, dtype="float64")
        f["obs/index"] = fixed(a.obs_names)
        f["var/index"] = fixed(a.var_names)
        for name in ("kind", "stage"):
            f[f"obs/{name}/codes"] = a.obs[name].cat.codes.to_numpy()
            f[f"obs/{name}/categories"] = fixed(a.obs[name].cat.categories)
        for name in ("n", "score", "flag"):
            f[f"obs/{name}"] = a.obs[name].to_numpy()
    a.obs = a.obs[sorted(a.obs.columns)]
    return a


store("r-like-no-shape.h5ad", shape=False)(r_like)


@store("matrix-alone.h5ad")
def matrix_alone(path, rng):
    """No obs, no var: rows and genes by number."""
    a = adata(rng, dense=True)
    with h5py.File(path, "w") as f:
        f["X"] = a.X
    return ad.AnnData(a.X)


@store("strange-neighbours.h5ad")
def strange_neighbours(path, rng):
    """A column that is named and absent, one in another file, a table in a column, unknown encodings, a broken link, a compound uns."""
    a = adata(rng)
    a.write_h5ad(path)
    with h5py.File(path, "r+") as f:
        f["obs/table"] = np.zeros((ROWS, 3))
        f["obs/odd"] = np.zeros(ROWS, dtype=[("a", "i4"), ("b", "f4")])
        f.create_group("obs/future").attrs["encoding-type"] = "invented-in-2031"
        with h5py.File(path.parent / "strange-neighbours.h5", "w") as other:
            other["far"] = np.zeros(ROWS)
        f["obs/far"] = h5py.ExternalLink("strange-neighbours.h5", "/far")
        names = [*a.obs.columns, "gone", "table", "odd", "future", "far"]
        f["obs"].attrs["column-order"] = np.array(names, dtype=h5py.string_dtype())
        f["uns/records"] = np.zeros(4, dtype=[("a", "i4"), ("b", "S3")])
        f["uns/nowhere"] = h5py.SoftLink("/not/there")
        f["uns/elsewhere"] = h5py.ExternalLink("no-such-file.h5", "/x")
        f["obsp/half"] = h5py.Empty("f4")
    return a


@store("categories.h5ad")
def categories(path, rng):
    """Categories and codes of every kind; an index that is a categorical."""
    a = adata(rng)
    obs = frame(rng)[["kind"]]
    labels = {"ints": [30, -1, 2], "floats": [0.5, 1e-7, 3.0], "bools": [False, True]}
    for name, values in labels.items():
        obs[name] = pd.Categorical.from_codes(rng.integers(0, len(values), ROWS), values)
    a.obs = obs
    a.write_h5ad(path)
    with h5py.File(path, "r+") as f:
        for name, dtype in [("ints", "int64"), ("floats", "uint8"), ("bools", "uint16"), ("kind", "int32")]:
            codes = f[f"obs/{name}/codes"][...].astype(dtype)
            del f[f"obs/{name}/codes"]
            f[f"obs/{name}/codes"] = codes
        del f["var/_index"]
        f["var/_index/codes"] = np.arange(GENES)[::-1].astype("int16")
        f["var/_index/categories"] = fixed(a.var_names[::-1])
        f["var/_index"].attrs["encoding-type"] = "categorical"
    return a


# ---------------------------------------------------------------- anndata 0.5 to 0.7

def records(frame, text="S"):
    """A frame as a structured array: codes for categoricals, as before 0.7."""
    columns = {"index": fixed(frame.index) if text == "S" else np.array(frame.index, dtype="U10")}
    for name, column in frame.items():
        columns[name] = column.cat.codes.to_numpy() if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()
    out = np.empty(len(frame), dtype=[(name, c.dtype) for name, c in columns.items()])
    for name, column in columns.items():
        out[name] = column
    return out


def old(rng):
    a = adata(rng)
    a.obs["stage"] = pd.Categorical(a.obs["stage"], ordered=False)
    wide = csr(rng, genes=GENES + 5, dtype="int32")
    a.raw = ad.AnnData(wide, obs=a.obs, var=pd.DataFrame(index=[f"w{i}" for i in range(GENES + 5)]))
    a.obsm["X_pca"] = rng.random((ROWS, 4)).astype("float32")
    a.obsm["X_umap"] = rng.random((ROWS, 2))
    return a


def old_parts(a, text="S"):
    obsm = np.empty(ROWS, dtype=[("X_pca", "f4", (4,)), ("X_umap", "f8", (2,))])
    for name in a.obsm:
        obsm[name] = a.obsm[name]
    return {"obs": records(a.obs, text), "var": records(a.var, text), "raw.var": records(a.raw.var, text), "obsm": obsm}


@store("anndata-0.6.h5ad")
def anndata_06(path, rng):
    a = old(rng)
    with h5py.File(path, "w") as f:
        for name, x in [("X", a.X), ("raw.X", a.raw.X)]:
            group = f.create_group(name)
            group.attrs["h5sparse_format"] = "csr"
            group.attrs["h5sparse_shape"] = np.array(x.shape)
            for part in ("data", "indices", "indptr"):
                group.create_dataset(part, data=getattr(x, part), compression="gzip")
        for name, array in old_parts(a).items():
            f.create_dataset(name, data=array, compression="gzip")
        f["uns/kind_categories"] = fixed(a.obs["kind"].cat.categories)
        f.create_dataset("uns/stage_categories", data=list(a.obs["stage"].cat.categories), dtype=h5py.string_dtype())
        f["uns/n_categories"] = np.arange(3)  # codes do not fit: a column of numbers all the same
    return a


@store("anndata-0.6.zarr")
def anndata_06_zarr(path, rng):
    a = old(rng)
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    for name, x in [("X", a.X), ("raw.X", a.raw.X)]:
        group = root.create_group(name)
        group.attrs.update({"h5sparse_format": "csr", "h5sparse_shape": list(x.shape)})
        for part in ("data", "indices", "indptr"):
            group.create_array(part, data=getattr(x, part), chunks=(100,))
    for name, array in old_parts(a, "U").items():
        # By hand: zarr-python 3 writes records in a way of its own.
        (path / name).mkdir()
        descr = [[n, dt.base.str, *([list(dt.shape)] if dt.shape else [])] for n, (dt, _) in array.dtype.fields.items()]
        codec = numcodecs.Zlib(3)
        meta = {"zarr_format": 2, "shape": [len(array)], "chunks": [100], "dtype": descr, "order": "C", "filters": None,
                "fill_value": None, "compressor": codec.get_config()}
        (path / name / ".zarray").write_text(json.dumps(meta))
        for i in range(0, len(array), 100):
            chunk = np.zeros(100, array.dtype)
            part = array[i : i + 100]
            chunk[: len(part)] = part
            (path / name / str(i // 100)).write_bytes(codec.encode(chunk.tobytes()))
    uns = root.create_group("uns")
    for name in ("kind", "stage"):
        uns.create_array(f"{name}_categories", data=np.array(a.obs[name].cat.categories, dtype="U9"))
    return a


def frame_07(group, frame, refer):
    group.attrs["encoding-type"], group.attrs["encoding-version"] = "dataframe", "0.1.0"
    group.attrs["_index"] = "CellID"
    order = list(frame.columns)
    group.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype()) if isinstance(group, h5py.Group) else order
    put(group, "CellID", frame.index)
    labels = group.create_group("__categories")
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            put(labels, name, column.cat.categories)
            labels[name].attrs["ordered"] = bool(column.cat.ordered)
            put(group, name, column.cat.codes.to_numpy())
            group[name].attrs["categories"] = refer(labels[name])
        else:
            put(group, name, column.to_numpy())


def put(group, name, values):
    values = np.asarray(values)
    text = values.dtype == object
    if isinstance(group, h5py.Group):
        group.create_dataset(name, data=values, dtype=h5py.string_dtype() if text else None)
    else:
        group.create_array(name, data=values.astype("U12") if text else values)


def write_07(root, a, refer):
    group = root.create_group("X")
    group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
    group.attrs["shape"] = np.array(a.shape) if isinstance(root, h5py.Group) else list(a.shape)
    for part in ("data", "indices", "indptr"):
        put(group, part, getattr(a.X, part))
    frame_07(root.create_group("obs"), a.obs, refer)
    frame_07(root.create_group("var"), a.var, refer)


@store("anndata-0.7.h5ad")
def anndata_07(path, rng):
    a = adata(rng)
    with h5py.File(path, "w") as f:
        write_07(f, a, lambda dataset: dataset.ref)
    return a


@store("anndata-0.7-inside.h5mu")
def anndata_07_inside(path, rng):
    """References from the root of the file, in a store that is a group."""
    a = adata(rng)
    with h5py.File(path, "w", userblock_size=512) as f:
        write_07(f.create_group("mod/rna"), a, lambda dataset: dataset.ref)
    return a


@store("anndata-0.7.zarr")
def anndata_07_zarr(path, rng):
    a = adata(rng)
    write_07(zarr.open_group(str(path), mode="w", zarr_format=2), a, lambda array: "__categories/" + array.basename)
    return a


# ---------------------------------------------------------------- shapes

@store("one-row.h5ad", rows=1)
@store("one-gene.h5ad", genes=1)
@store("no-rows.h5ad", rows=0)
@store("no-genes.h5ad", genes=0)
@store("no-genes-dense.h5ad", genes=0, dense=True)
def small(path, rng, **size):
    a = adata(rng, **size)
    a.write_h5ad(path)
    return a


@store("no-values.h5ad")
@store("no-values.zarr")
def no_values(path, rng):
    a = adata(rng)
    a.X = sp.csr_matrix(a.shape, dtype="float32")
    a.write_h5ad(path) if path.suffix == ".h5ad" else a.write_zarr(path)
    return a


@store("images.zarr")
def images(path, rng):
    """obsm of four axes, as microscopy stores have them."""
    a = adata(rng)
    a.obsm["images"] = rng.integers(0, 255, (ROWS, 3, 8, 8), dtype="uint8")
    a.write_zarr(path)
    return a


# ---------------------------------------------------------------- zip

def zip_tree(directory, path, folder="", deflate=lambda key: False):
    with zipfile.ZipFile(path, "w") as z:
        for file in sorted(p for p in directory.rglob("*") if p.is_file()):
            key = file.relative_to(directory).as_posix()
            z.write(file, folder + key, zipfile.ZIP_DEFLATED if deflate(key) else zipfile.ZIP_STORED)


def zipped(path, a, fmt=3, **options):
    directory = path.parent / "tree.zarr"
    ad.settings.zarr_write_format = fmt
    a.write_zarr(directory)
    zip_tree(directory, path, **options)
    shutil.rmtree(directory)
    return a


@store("stored.zarr.zip")
def stored(path, rng):
    return zipped(path, adata(rng))


@store("mixed-in-folder.zarr.zip")
def mixed_in_folder(path, rng):
    """As a file manager makes it: a folder in the archive, most members deflated."""
    counter = iter(range(10**6))
    return zipped(path, adata(rng), fmt=2, folder="some folder/my.zarr/", deflate=lambda key: next(counter) % 3 > 0)


@store("zip64.zarr.zip")
def zip64(path, rng):
    limit, zipfile.ZIP64_LIMIT = zipfile.ZIP64_LIMIT, 10
    try:
        return zipped(path, adata(rng), deflate=lambda key: key.endswith("json"))
    finally:
        zipfile.ZIP64_LIMIT = limit


@store("replaced.zarr.zip")
def replaced(path, rng):
    """Every member twice, the first time of another store: the last entry counts."""
    first, second = path.parent / "first.zip", path.parent / "second.zip"
    zipped(first, adata(rng, dtype="int64"))
    a = zipped(second, adata(rng))
    with zipfile.ZipFile(path, "w") as out:
        for source in (first, second):
            with zipfile.ZipFile(source) as z:
                for info in z.infolist():
                    out.writestr(info.filename, z.read(info))
        out.comment = b"PK\x05\x06 a comment that looks like an end record"
    first.unlink()
    second.unlink()
    return a


@store("written-by-zarr.zarr.zip")
def written_by_zarr(path, rng):
    a = adata(rng, dense=True)
    with zarr.storage.ZipStore(path, mode="w") as z:
        ad.io.write_elem(zarr.open_group(z, mode="w"), "/", a)
    return a


def bad_zip(name, edit):
    """An archive whose root metadata is damaged by an edit of its central entry."""
    @store(name)
    def make(path, rng):
        zipped(path, adata(rng), deflate=lambda key: True)
        data = bytearray(path.read_bytes())
        at = data.index(b"PK\x01\x02")
        while bytes(data[at + 46 : at + 46 + 10]) != b"zarr.jsonP":  # the name; the last of the archive, so the end record follows
            at = data.index(b"PK\x01\x02", at + 4)
        edit(data, at)
        path.write_bytes(data)


bad_zip("zip-header.zarr.zip", lambda data, central: struct.pack_into("<I", data, central + 42, 7))
bad_zip("zip-huge.zarr.zip", lambda data, central: struct.pack_into("<I", data, central + 24, 0xF0000000))
bad_zip("zip-beyond.zarr.zip", lambda data, central: struct.pack_into("<I", data, central + 20, 0x70000000))
bad_zip("zip-encrypted.zarr.zip", lambda data, central: struct.pack_into("<H", data, central + 8, 1))
bad_zip("zip-method.zarr.zip", lambda data, central: struct.pack_into("<H", data, central + 10, 93))
bad_zip("zip-crc.zarr.zip", lambda data, central: struct.pack_into("<I", data, central + 16, 1))


@store("zip-truncated.zarr.zip")
def zip_truncated(path, rng):
    zipped(path, adata(rng))
    path.write_bytes(path.read_bytes()[:-100])


@store("zip-of-two.zarr.zip")
def zip_of_two(path, rng):
    a, b = adata(rng), path.parent / "tree.zarr"
    a.write_zarr(b)
    zip_tree(b, path, folder="a.zarr/")
    with zipfile.ZipFile(path, "a") as z:
        for file in (p for p in b.rglob("*") if p.is_file()):
            z.write(file, f"b.zarr/{file.relative_to(b).as_posix()}")
    shutil.rmtree(b)
    return a


# ---------------------------------------------------------------- several in one

@store("collection.zarr")
def collection(path, rng):
    """As annbatch writes it; ten comes after two."""
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    parts = [adata(rng, rows=rows) for rows in (40, 7, 90)]
    for number, part in zip([0, 2, 10], parts):
        ad.io.write_elem(root, f"dataset_{number}", part)
    root.create_group("dataset_info")
    zarr.consolidate_metadata(str(path))
    return parts


@store("nested.zarr")
def nested(path, rng):
    """SpatialData: directories that are no zarr beside the table, no consolidated metadata."""
    a = adata(rng)
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    root.create_group("tables")
    ad.io.write_elem(root["tables"], "table", a)
    (path / "tables" / "notes").mkdir()
    (path / "points" / "x.parquet").mkdir(parents=True)
    (path / "images").mkdir()
    (path / "images" / "zarr.json").write_text("{ broken")
    return a


@store("colons::in::name.h5ad")
def colons(path, rng):
    a = adata(rng)
    a.write_h5ad(path)
    return a


@store("elsewhere.h5ad")
def elsewhere(path, rng):
    """X is a link into another file."""
    a = adata(rng, dense=True)
    a.write_h5ad(path)
    with h5py.File(path.parent / "elsewhere.h5", "w") as f:
        f["X"] = a.X
    with h5py.File(path, "r+") as f:
        del f["X"]
        f["X"] = h5py.ExternalLink("elsewhere.h5", "/X")


# ---------------------------------------------------------------- chunks

@store("filter-masks.h5ad")
def filter_masks(path, rng):
    """Chunks that skip filters: shuffle, gzip or both, as the library writes what does not shrink."""
    a = adata(rng, dense=True)
    a.write_h5ad(path)
    with h5py.File(path, "r+") as f:
        del f["X"]
        x = f.create_dataset("X", a.shape, "float32", chunks=(32, GENES), shuffle=True, compression="gzip")
        for i, start in enumerate(range(0, ROWS, 32)):
            chunk = np.zeros((32, GENES), "float32")
            chunk[: len(a.X[start : start + 32])] = a.X[start : start + 32]
            stored = chunk.tobytes()
            mask = i % 4
            if not mask & 1:
                stored = np.frombuffer(stored, "u1").reshape(-1, 4).T.tobytes()
            if not mask & 2:
                stored = zlib.compress(stored)
            x.id.write_direct_chunk((start, 0), stored, filter_mask=mask)
    return a


@store("zstd-strings.h5ad")
def zstd_strings(path, rng):
    """A user block, and names and labels of fixed length that are compressed with zstd."""
    a = adata(rng, dense=True)
    plain = path.parent / "plain.h5ad"
    a.write_h5ad(plain)
    with h5py.File(plain) as source, h5py.File(path, "w", userblock_size=2048) as f:
        for name in source:
            source.copy(name, f)
        for name in ("obs/_index", "var/_index", "obs/kind/categories"):
            values = f[name].asstr()[...]
            attributes = dict(f[name].attrs)
            del f[name]
            f.create_dataset(name, data=fixed(values), chunks=(min(50, len(values)),), **hdf5plugin.Zstd())
            f[name].attrs.update(attributes)
    plain.unlink()
    return a


@store("index-at-start.zarr")
def index_at_start(path, rng):
    a = adata(rng, dense=True)
    a.write_zarr(path)
    root = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    attributes = dict(root["X"].attrs)
    del root["X"]
    codec = zc.ShardingCodec(chunk_shape=(10, 8), codecs=[zc.BytesCodec(), zc.ZstdCodec()], index_location="start")
    x = root.create_array("X", shape=a.shape, dtype="float32", chunks=(50, 16), serializer=codec, compressors=None, filters=None)
    x[...] = a.X
    x.attrs.update(attributes)
    zarr.consolidate_metadata(str(path))
    return a


@store("f-order.zarr")
def f_order(path, rng):
    a = adata(rng, dense=True)
    ad.settings.zarr_write_format = 2
    a.write_zarr(path)
    root = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    attributes = dict(root["X"].attrs)
    del root["X"]
    x = root.create_array("X", shape=a.shape, dtype="float32", chunks=(50, 16), order="F", compressors=numcodecs.Zstd(3))
    x[...] = a.X
    x.attrs.update(attributes)
    zarr.consolidate_metadata(str(path))
    return a


@store("stale-metadata.zarr")
def stale_metadata(path, rng):
    """Consolidated metadata that is older than the arrays: anndata believes it, and so do we."""
    a = adata(rng, dense=True)
    ad.settings.zarr_write_format = 2
    a.write_zarr(path)
    zarr.consolidate_metadata(str(path))
    own = path / "X" / ".zarray"
    own.write_text(own.read_text().replace(str(ROWS), str(ROWS + 50), 1))
    (path / "obs" / ".zattrs").unlink()
    return a
