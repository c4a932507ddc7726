#!/usr/bin/env python3
"""Makes stores that lie: each is a tiny store with one thing changed. Prints JSON: path -> what must be said of it.

Usage: hostile_stores.py TINY OUT     TINY is what tiny_stores.py made
"""
import json
import os
import pathlib
import shutil
import struct
import sys

import h5py
import numpy as np

TINY, OUT = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
cases = {}


def h5(name, word, base="plain.h5ad"):
    """A copy of a tiny h5ad to change. `word` is in the refusal, or EIO: it mounts, and X cannot be read to the end."""
    path = OUT / f"{name}.h5ad"
    shutil.copy(TINY / base, path)
    cases[str(path)] = word
    return h5py.File(path, "r+")


def replace(group, name, **new):
    attributes = dict(group[name].attrs)
    del group[name]
    out = group.create_dataset(name, **new)
    out.attrs.update(attributes)
    return out


def zarr(name, word, element, base="plain.v3.zarr", **new):
    """A copy of a tiny zarr with keys of one element's metadata changed."""
    path = OUT / f"{name}.zarr"
    shutil.copytree(TINY / base, path)
    cases[str(path)] = word
    file = path / element / ("zarr.json" if ".v3." in base else ".zarray")
    metadata = json.loads(file.read_text())
    for key, value in new.items():
        at = metadata
        *parts, last = key.split("__")
        for part in parts:
            at = at[int(part)] if isinstance(at, list) else at[part]
        at[last] = value
    file.write_text(json.dumps(metadata))
    return path


def sparse():
    indptr = h5py.File(TINY / "plain.h5ad")["X/indptr"][...]
    nnz = int(indptr[-1])
    for name, at, value in [("falls", 5, int(indptr[20])), ("negative", 5, -1), ("beyond", 48, nnz + 1), ("first", 0, 1)]:
        bad = indptr.copy()
        bad[at] = value
        with h5(f"indptr-{name}", "indptr") as f:
            f["X/indptr"][...] = bad
    wide = indptr.astype("uint64")
    wide[7] = 2**64 - 1
    with h5("indptr-u64", "indptr") as f:
        replace(f["X"], "indptr", data=wide)
    with h5("indptr-float", "not integers") as f:
        replace(f["X"], "indptr", data=indptr.astype("float64"))
    with h5("indptr-short", "indptr") as f:
        replace(f["X"], "indptr", data=indptr[:-1])
    with h5("indptr-huge", "indptr") as f:
        replace(f["X"], "indptr", shape=(10**12 + 1,), chunks=(1024,), dtype="int64")
    with h5("rows-huge", "") as f:
        replace(f["X"], "indptr", shape=(10**12 + 1,), chunks=(1024,), dtype="int64")
        f["X"].attrs["shape"] = [10**12, 12]
    with h5("indptr-scalar", "dimension") as f:
        replace(f["X"], "indptr", data=7)
    with h5("indices-short", "indices") as f:
        replace(f["X"], "indices", data=f["X/indices"][:-3])
    with h5("no-data", "data") as f:
        del f["X/data"]
    with h5("data-text", "strings") as f:
        replace(f["X"], "data", data=["a"] * nnz)
    with h5("data-group", "group") as f:
        del f["X/data"]
        f["X"].create_group("data")
    for kind in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]:
        info = np.iinfo(kind)
        for value in {12, info.max, -1 if info.min < 0 else 12, info.min if info.min < 0 else info.max}:
            with h5(f"column-{kind}-{value}", "EIO") as f:
                indices = f["X/indices"][...].astype(kind)
                indices[nnz // 2] = value
                replace(f["X"], "indices", data=indices, chunks=(32,))
    for name, shape in [("text", "many"), ("mixed", None), ("one", [48]), ("negative", [-48, 12]), ("three", [48, 12, 1]), ("other", [48, 13])]:
        # A word is no shape at all: it is told from indptr and var, as where there is none.
        with h5(f"shape-{name}", "MOUNTS" if name == "text" else "") as f:
            f["X"].attrs["shape"] = shape if shape is not None else np.array([b"48", b"12"])
    # Numbers that would be 48 in fewer bits, without their sign, or without their fraction.
    cut = {"bits": np.array([2**32 + 48, 12], "uint64"), "sign": np.array([2**64 - 48, 12], "uint64")}
    for name, shape in (cut | {"fraction": np.array([48.5, 12.0]), "vast": np.array([1e300, 12.0])}).items():
        with h5(f"shape-{name}", "indptr has 49 numbers" if name in cut else "not two numbers") as f:
            f["X"].attrs["shape"] = shape


def frames():
    for kind in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]:
        for value in {3, np.iinfo(kind).max, -2 if kind[0] == "i" else 3}:
            with h5(f"code-{kind}-{value}", "code") as f:
                codes = np.maximum(f["obs/cell_type/codes"][...], 0).astype(kind)
                codes[20] = value
                replace(f["obs/cell_type"], "codes", data=codes)
    # Records of old stores: with a number that is no code, the column is one of numbers, as with anndata.
    with h5("record-code-huge", "MOUNTS") as f:
        records = np.zeros(48, [("index", "S8"), ("label", "u8")])
        records["index"] = [f"c{row}" for row in range(48)]
        records["label"] = [2**63 if row == 5 else row % 2 for row in range(48)]
        del f["obs"]
        f["obs"] = records
        f.create_dataset("uns/label_categories", data=["a", "b"], dtype=h5py.string_dtype())
    with h5("codes-float", "not integers") as f:
        replace(f["obs/cell_type"], "codes", data=np.full(48, np.nan))
    with h5("codes-short", "47") as f:
        replace(f["obs/cell_type"], "codes", data=f["obs/cell_type/codes"][:-1])
    with h5("codes-scalar", "") as f:
        replace(f["obs/cell_type"], "codes", data=np.int8(0))
    with h5("categories-2d", "dimension") as f:
        replace(f["obs/cell_type"], "categories", data=[["a", "b"], ["c", "d"]])
    with h5("no-categories", "categories") as f:
        del f["obs/cell_type/categories"]
    with h5("mask-short", "mask") as f:
        replace(f["obs/passage"], "mask", data=np.zeros(3, bool))
    with h5("mask-int", "mask") as f:
        replace(f["obs/passage"], "mask", data=np.zeros(48, "int8"))
    with h5("column-short", "40") as f:
        replace(f["obs"], "n", data=np.zeros(40))
    with h5("column-huge", "") as f:
        replace(f["obs"], "n", shape=(2**40,), chunks=(64,), dtype="int64")
    with h5("index-short", "48 rows") as f:
        replace(f["obs"], "_index", data=["x"] * 40)
    with h5("index-scalar", "dimension") as f:
        replace(f["obs"], "_index", data="x")
    with h5("genes-huge", "") as f:
        replace(f["var"], "_index", shape=(2**36,), chunks=(64,), dtype=h5py.string_dtype())
    with h5("genes-wide", "") as f:
        replace(f["var"], "_index", shape=(12,), chunks=(1,), dtype="S2000000000")
    with h5("index-elsewhere", "") as f:
        f["obs"].attrs["_index"] = "../../../etc/passwd"
    # Rows are numbered then, as anndata does (docs/stores.md).
    with h5("no-obs", "MOUNTS") as f:
        del f["obs"]
    with h5("index-number", "MOUNTS") as f:
        del f["obs/_index"]
        f["obs"].attrs["_index"] = 5


def dense():
    with h5("dense-huge", "") as f:
        del f["X"]
        f.create_dataset("X", shape=(2**50, 12), chunks=(64, 12), dtype="float32", compression="gzip")
    with h5("dense-scalar", "single") as f:
        del f["X"]
        f["X"] = 5.0
    with h5("dense-line", "dimension") as f:
        del f["X"]
        f["X"] = np.zeros(48)
    with h5("dense-rows", "47 rows") as f:
        del f["X"]
        f["X"] = np.zeros((47, 12), "float32")


def zarrs():
    zarr("z-indptr-chunk", "too large", "X/indptr", chunk_grid__configuration__chunk_shape=[2**40])
    zarr("z-data-chunk", "too large", "X/data", chunk_grid__configuration__chunk_shape=[2**62])
    zarr("z-chunk-zero", "", "X/data", chunk_grid__configuration__chunk_shape=[0])
    zarr("z-chunk-axes", "", "X/data", chunk_grid__configuration__chunk_shape=[32, 32])
    zarr("z-shard-huge", "EIO", "X/data", "tiny.v3.zarr", chunk_grid__configuration__chunk_shape=[2**50])
    zarr("z-shard-inner", "too large", "X/data", "tiny.v3.zarr", codecs__0__configuration__chunk_shape=[2**60], chunk_grid__configuration__chunk_shape=[2**60])
    zarr("z-shard-odd", "", "X/data", "tiny.v3.zarr", codecs__0__configuration__chunk_shape=[31])
    zarr("z-shape-huge", "indices", "X/data", shape=[2**60])
    zarr("z-shape-overflow", "", "X/data", shape=[2**64 - 1])
    zarr("z-shape-negative", "", "X/data", shape=[-5])
    zarr("z-shape-text", "", "X/data", shape="5")
    zarr("z-column-huge", "", "obs/n", shape=[2**40])
    zarr("z-codes-huge", "", "obs/cell_type/codes", shape=[2**33])
    zarr("z-genes-huge", "strings are declared", "var/_index", shape=[2**32])
    zarr("z-genes-chunk", "too large", "var/_index", chunk_grid__configuration__chunk_shape=[2**28])
    zarr("z-index-huge", "", "obs/_index", shape=[2**63])
    zarr("z-dtype", "", "X/data", data_type="float31")
    zarr("z-fill", "", "X/data", fill_value="x")
    zarr("z-codec", "", "X/data", codecs=[{"name": "bytes"}, {"name": "nothing"}])
    zarr("z-suffix", "", "X/data", chunk_key_encoding={"name": "suffix", "configuration": {"suffix": "/../../../../etc/passwd"}})
    zarr("z-separator", "", "X/data", chunk_key_encoding={"name": "default", "configuration": {"separator": "/../"}})
    both = zarr("z-rows-huge", "", "X", attributes__shape=[2**42, 12])
    file = both / "X/indptr/zarr.json"
    metadata = json.loads(file.read_text())
    metadata["shape"] = [2**42 + 1]
    file.write_text(json.dumps(metadata))
    bomb = zarr("z-deep", "not JSON", "X/data")
    (bomb / "X/data/zarr.json").write_text("[" * 1_000_000)
    bomb = zarr("z-deep-group", "not JSON", "X/data")
    (bomb / "zarr.json").write_text('{"zarr_format":3,"node_type":"group","attributes":' + '{"a":' * 100_000 + "1" + "}" * 100_001)
    large = zarr("z-endless", "not a metadata file", "X/data")
    with open(large / "X/data/zarr.json", "wb") as f:
        f.truncate(1 << 40)
    pipe = zarr("z-pipe", "not a metadata file", "X/data")
    (pipe / "X/data/zarr.json").unlink()
    os.mkfifo(pipe / "X/data/zarr.json")
    pipe = zarr("z-pipe-chunk", "EIO", "X/data")
    (pipe / "X/data/c/1").unlink()
    os.mkfifo(pipe / "X/data/c/1")
    # Consolidated names that lead out of the store, to a matrix that is there.
    out = zarr("z-out", "MOUNTS", "X/data")
    root = json.loads((out / "zarr.json").read_text())
    nodes = {str(p.parent.relative_to(out)): json.loads(p.read_text()) for p in out.rglob("zarr.json") if p.parent != out}
    nodes["obs"]["attributes"]["column-order"] = ["../../plain/obs/n"]
    nodes["obs/../../plain/obs/n"] = nodes["obs/n"]
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
    (out / "zarr.json").write_text(json.dumps(root))
    shutil.copytree(TINY / "plain.v3.zarr", OUT / "plain")
    # Chunks of the wrong length; an index of a shard that points outside, or whose checksum is wrong.
    short = zarr("z-chunk-short", "EIO", "X/data")
    (short / "X/data/c/2").write_bytes(b"\0" * 100)
    long = zarr("z-chunk-long", "EIO", "X/data")
    (long / "X/data/c/2").write_bytes(b"\0" * 200)
    for name, edit in [("crc", lambda s: s[:-1] + bytes([s[-1] ^ 1])), ("cut", lambda s: s[:-9]), ("empty", lambda s: b""), ("short", lambda s: s[:7])]:
        shard = zarr(f"z-shard-{name}", "EIO", "X/data", "tiny.v3.zarr")
        file = shard / "X/data/c/1"
        file.write_bytes(edit(file.read_bytes()))
    outside = zarr("z-shard-outside", "EIO", "X/data", "tiny.v3.zarr", codecs__0__configuration__index_codecs=[{"name": "bytes", "configuration": {"endian": "little"}}])
    for file in (outside / "X/data/c").iterdir():
        body = bytearray(file.read_bytes()[:-4])
        struct.pack_into("<QQ", body, len(body) - 64, 2**63, 100)
        file.write_bytes(body)


def files():
    for name, content in [("empty", b""), ("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), ("magic", b"\x89HDF\r\n\x1a\n")]:
        path = OUT / f"{name}.h5ad"
        path.write_bytes(content)
        cases[str(path)] = "HDF5"
    whole = (TINY / "plain.h5ad").read_bytes()
    for cut in [100, 1000, len(whole) // 2, len(whole) - 100]:
        path = OUT / f"cut-{cut}.h5ad"
        path.write_bytes(whole[:cut])
        cases[str(path)] = ""
    pipe = OUT / "pipe.h5ad"
    os.mkfifo(pipe)
    cases[str(pipe)] = "neither a file nor a directory"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for make in (sparse, frames, dense, zarrs, files):
        make()
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
