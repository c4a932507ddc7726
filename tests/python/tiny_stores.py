#!/usr/bin/env python3
"""Makes stores of a few kB with every kind of element that is served, for tests and fuzzers that damage them.

Usage: tiny_stores.py make OUTDIR     tiny.h5ad (gzip), checked.h5ad (fletcher32), tiny.v2.zarr (gzip), tiny.v3.zarr (sharded,
                                 crc32c): X is CSR, layers/dense is dense; plain.h5ad and plain.v3.zarr: uncompressed;
                                 tiny.zarr.zip: tiny.v2.zarr as an archive
"""
import json
import pathlib
import sys
import warnings
import zipfile

import anndata as ad
import h5py
import numcodecs
import numpy as np
import pandas as pd
import zarr
import zarr.codecs as zc

warnings.simplefilter("ignore")
ROWS, GENES = 48, 12


def frames(rng):
    text = np.array([f"note {i}" for i in range(ROWS)], object)
    text[::7] = pd.NA
    obs = pd.DataFrame({
        "cell_type": pd.Categorical.from_codes(np.arange(ROWS) % 4 - 1, ["T", "B", "NK"]),
        "cluster": pd.Categorical.from_codes(np.arange(ROWS) % 3, [7, 8, 11]),
        "n": rng.integers(-1000, 1000, ROWS),
        "flag": np.arange(ROWS) % 3 == 0,
        "passage": pd.arrays.IntegerArray(np.arange(ROWS, dtype="int32"), np.arange(ROWS) % 5 == 0),
        "barcode": [f"bc-{i}" for i in range(ROWS)],
        "note": pd.array(text, dtype="string"),
    }, index=[f"cell-{i}" for i in range(ROWS)])
    return obs, pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])


def content(rng):
    lengths = rng.integers(0, GENES, ROWS)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.concatenate([np.sort(rng.permutation(GENES)[:n]) for n in lengths]).astype("int32")
    return (rng.integers(1, 99, indptr[-1]).astype("float32"), indices, indptr.astype("int64"),
            rng.integers(1, 99, (ROWS, GENES)).astype("float32"))


def put(group, name, array, chunks, kind):
    if kind in ("tiny.h5ad", "checked.h5ad", "plain.h5ad"):
        more = {"tiny.h5ad": {"compression": "gzip"}, "checked.h5ad": {"fletcher32": True}, "plain.h5ad": {}}[kind]
        return group.create_dataset(name, data=array, chunks=chunks, **more)
    more = {
        "tiny.v2.zarr": {"compressors": numcodecs.GZip(5)},
        "plain.v3.zarr": {"compressors": None},
        "tiny.v3.zarr": {"compressors": [zc.GzipCodec(level=5), zc.Crc32cCodec()], "shards": tuple(4 * c if i == 0 else c for i, c in enumerate(chunks))},
    }[kind]
    out = group.create_array(name, shape=array.shape, chunks=chunks, dtype=array.dtype, **more)
    out[...] = array
    return out


def make(path, kind):
    rng = np.random.default_rng(5)
    obs, var = frames(rng)
    data, indices, indptr, dense = content(rng)
    ad.settings.allow_write_nullable_strings = True
    h5 = kind.endswith("h5ad")
    version = 2 if ".v2." in kind else 3
    root = h5py.File(path, "w") if h5 else zarr.open_group(str(path), mode="w", zarr_format=version)
    ad.io.write_elem(root, "/", ad.AnnData(obs=obs, var=var), dataset_kwargs={"compression": "gzip"} if kind == "tiny.h5ad" else {})
    if "X" in root:
        del root["X"]
    group = root.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [ROWS, GENES]})
    for name, array in [("data", data), ("indices", indices), ("indptr", indptr)]:
        put(group, name, array, (32,), kind)
    layers = root["layers"] if "layers" in root else root.create_group("layers")
    out = put(layers, "dense", dense, (10, 8), kind)
    out.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    if h5:
        root.close()


def extents(path):
    """Where the elements of each dataset lie: [element, offset, bytes, whether damage to them is noticed]."""
    found = []

    def visit(name, node):
        if not isinstance(node, h5py.Dataset):
            return
        # Of strings of any length the chunks hold pointers.
        noticed = bool(node.compression or node.fletcher32) and node.dtype != object
        if node.chunks:
            for i in range(node.id.get_num_chunks()):
                chunk = node.id.get_chunk_info(i)
                found.append([name, chunk.byte_offset, chunk.size, noticed])
        elif node.id.get_offset() is not None:
            found.append([name, node.id.get_offset(), node.id.get_storage_size(), noticed])

    with h5py.File(path) as f:
        f.visititems(visit)
    return found


def pack(folder, path):
    """The directory as an archive, its metadata deflated, and where its chunks lie: [element, offset, bytes, whether damage is noticed]."""
    found = []
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            name = str(file.relative_to(folder))
            is_chunk = not file.name.startswith(".")
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_STORED if is_chunk else zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())
            if is_chunk:
                # As in the directory: other elements have no codec with a checksum.
                element = str(pathlib.Path(name).parent)
                noticed = element.startswith(("X", "layers/dense"))
                found.append([element, info.header_offset + 30 + len(name), info.compress_size, noticed])
    return found


def main():
    out = pathlib.Path(sys.argv[2])
    for kind in ["tiny.h5ad", "checked.h5ad", "plain.h5ad", "tiny.v2.zarr", "tiny.v3.zarr", "plain.v3.zarr"]:
        make(out / kind, kind)
        if kind.endswith("h5ad"):
            (out / f"{kind}.json").write_text(json.dumps(extents(out / kind)))
    (out / "tiny.zarr.zip.json").write_text(json.dumps(pack(out / "tiny.v2.zarr", out / "tiny.zarr.zip")))


if __name__ == "__main__":
    main()
