"""Writes small stores, each with all of its arrays in one codec or chain, as zarr-python writes them. Usage: codec_stores.py DIRECTORY

`dense-*` have a dense X, `csr-*` a sparse one; every obs column and every other array is in the codec too, as far as its
type allows. Stores that zarr-python cannot write are left out, and named on standard output."""
import asyncio
import json
import pathlib
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")
import anndata as ad
import numcodecs
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
import zarr.api.asynchronous
import zarr.codecs as zc
from zarr.codecs import numcodecs as nc

ROWS, GENES = 40, 12
LZMA2 = {"id": 0x21, "preset": 1}
LZMA1 = {"id": 0x4000000000000001, "dict_size": 1 << 16, "lc": 2, "lp": 1, "pb": 1}


def table(is_sparse):
    rng = np.random.default_rng(7)
    x = rng.random((ROWS, GENES), dtype="float32") * 10
    x[rng.random(x.shape) < 0.6] = 0
    obs = pd.DataFrame(
        {
            "label": pd.Categorical(rng.choice(["a", "bé", "c c"], ROWS)),
            "size": rng.integers(-5, 99, ROWS),
            "score": rng.random(ROWS) * 3,
            "half": (rng.random(ROWS) * 4).astype("float16"),
            "flag": rng.random(ROWS) < 0.5,
            "count": pd.array(rng.integers(0, 9, ROWS), dtype="Int32"),
        },
        index=[f"cell{i}" for i in range(ROWS)],
    )
    obs.loc[obs.index[3], "count"] = pd.NA
    return ad.AnnData(sp.csr_matrix(x) if is_sparse else x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))


def by_kind(**kinds):
    """A codec that only elements of some kinds are given: `f`, `i`, `u`, `b`."""
    return lambda dtype: kinds.get(dtype.kind, lambda dtype: None)(dtype)


def wide(make):
    """zarr-python reads no other type where the array's own has one byte."""
    return lambda dtype: make(dtype) if dtype.itemsize > 1 else None


numbers = lambda make: by_kind(f=make, i=make, u=make)

# What stands before the bytes, in both formats: numcodecs' own configuration.
FILTERS = {
    "delta": numbers(lambda d: {"id": "delta", "dtype": d.str}),
    "delta-wide": by_kind(i=wide(lambda d: {"id": "delta", "dtype": d.str, "astype": "<i8"})),
    "delta-float": by_kind(i=wide(lambda d: {"id": "delta", "dtype": d.str, "astype": "<f8"})),
    "scale": by_kind(f=lambda d: {"id": "fixedscaleoffset", "scale": 1000, "offset": 1, "dtype": d.str, "astype": "<i4"}),
    "scale-float": by_kind(f=lambda d: {"id": "fixedscaleoffset", "scale": 0.3, "offset": 0.1, "dtype": d.str, "astype": d.str}),
    "scale-u1": by_kind(f=lambda d: {"id": "fixedscaleoffset", "scale": 7.0, "offset": 0.25, "dtype": d.str, "astype": "|u1"}),
    "quantize": by_kind(f=lambda d: {"id": "quantize", "digits": 2, "dtype": d.str}),
    "bitround": by_kind(f=lambda d: {"id": "bitround", "keepbits": 5}),
    "astype": by_kind(f=lambda d: {"id": "astype", "encode_dtype": "<f8", "decode_dtype": d.str}, i=wide(lambda d: {"id": "astype", "encode_dtype": "<i8", "decode_dtype": d.str})),
    "astype-half": by_kind(f=lambda d: {"id": "astype", "encode_dtype": "<f2", "decode_dtype": d.str}),
    "packbits": by_kind(b=lambda d: {"id": "packbits"}),
}
# What stands behind them.
BYTES = {
    "zstd": [{"id": "zstd", "level": 3}],
    "blosc-zstd": [{"id": "blosc", "cname": "zstd", "shuffle": 2}],
    "blosc-lz4hc": [{"id": "blosc", "cname": "lz4hc", "shuffle": 1}],
    "blosc-blosclz": [{"id": "blosc", "cname": "blosclz", "shuffle": 0}],
    "blosc-zlib": [{"id": "blosc", "cname": "zlib"}],
    "zlib": [{"id": "zlib"}],
    "gzip": [{"id": "gzip", "level": 2}],
    "bz2": [{"id": "bz2"}],
    "lzma": [{"id": "lzma"}],
    "lzma-alone": [{"id": "lzma", "format": 2}],
    "lzma-check": [{"id": "lzma", "check": 4, "preset": 2}],
    "lzma-raw": [{"id": "lzma", "format": 3, "filters": [LZMA2]}],
    "lzma-raw-delta": [{"id": "lzma", "format": 3, "filters": [{"id": 3, "dist": 4}, LZMA2]}],
    "lzma-raw1": [{"id": "lzma", "format": 3, "filters": [LZMA1]}],
    "lzma-raw-x86": [{"id": "lzma", "format": 3, "filters": [{"id": 4}, LZMA2]}],
    "lz4": [{"id": "lz4"}],
    "crc32": [{"id": "crc32"}],
    "crc32-end": [{"id": "crc32", "location": "end"}],
    "crc32c": [{"id": "crc32c"}],
    "adler32": [{"id": "adler32"}],
    "fletcher32": [{"id": "fletcher32"}],
    "jenkins": [{"id": "jenkins_lookup3"}],
    "shuffle-zlib": [{"id": "shuffle", "elementsize": 4}, {"id": "zlib"}],
    "lz4-crc32-bz2": [{"id": "lz4"}, {"id": "crc32"}, {"id": "bz2"}],
}


def v3_codec(config):
    names = {"id": None}
    return zarr.registry.get_codec_class("numcodecs." + config["id"]).from_dict(
        {"name": "numcodecs." + config["id"], "configuration": {k: v for k, v in config.items() if k not in names}})


async def arrays_of(path):
    """All arrays of a store: name -> (array, its elements)."""
    root = await zarr.api.asynchronous.open_group(path, mode="r", use_consolidated=False)
    members = [(name, node) async for name, node in root.members(max_depth=None) if isinstance(node, zarr.AsyncArray)]
    return {name: (node, await node.getitem(...)) for name, node in members if node.ndim}


async def recode(path, arrays, make):
    """Writes every array anew, with what `make` gives for it to `create_array`."""
    root = await zarr.api.asynchronous.open_group(path, mode="r+", use_consolidated=False)
    for name, (old, data) in arrays.items():
        options = make(name, old)
        if options is None:
            continue
        new = await root.create_array(name=name, shape=old.shape, dtype=old.dtype, attributes=dict(old.attrs), overwrite=True,
                                      fill_value=old.metadata.fill_value, **{"chunks": tuple(max(1, min(n, 7)) if i == 0 else n for i, n in enumerate(old.shape)), **options})
        if data.size:
            await new.setitem(..., data)


def v3(filters=None, behind=(), serializer=None, **more):
    def make(name, old):
        is_text = old.dtype.kind not in "fiub"
        options = dict(more)
        used = [c for c in behind if not (is_text and isinstance(c, dict) and c["id"] == "shuffle")]
        options["compressors"] = [v3_codec(c) if isinstance(c, dict) else c for c in used] or None
        config = None if filters is None or is_text else filters(old.dtype)
        if config:
            options["filters"] = [v3_codec(config) if isinstance(config, dict) else config]
        if serializer and not is_text:
            found = serializer(old.dtype)
            if found:
                options["serializer"] = found
        if "shards" in options:
            options["chunks"] = tuple(5 if i == 0 else n for i, n in enumerate(old.shape))
            options["shards"] = tuple(15 if i == 0 else n for i, n in enumerate(old.shape))
        return options if all(old.shape) else None
    return make


def v2(filters=None, behind=(), **more):
    def make(name, old):
        is_text = old.dtype.kind not in "fiub"
        if not all(old.shape):
            return None
        # Whose bytes are whole elements; those of text are of any number.
        used = [c for c in behind if c["id"] != "shuffle" or old.dtype.itemsize % 4 == 0 and not is_text]
        *inner, last = [numcodecs.get_codec(dict(c)) for c in used] or [None]
        options = {"compressors": last, **more}
        config = None if filters is None or is_text else filters(old.dtype)
        before = ([numcodecs.get_codec(dict(config))] if config else []) + inner
        if is_text:
            before = [numcodecs.VLenUTF8()] + inner
        if before:
            options["filters"] = before
        return options
    return make


def patch(path, change):
    """Changes the metadata of every array."""
    for file in [*path.rglob("zarr.json"), *path.rglob(".zarray")]:
        metadata = json.loads(file.read_text())
        if metadata.get("node_type") != "group":
            change(metadata, str(file.parent.relative_to(path)))
            file.write_text(json.dumps(metadata))


def lean(metadata, name):
    """Leaves out what has a default, and gives fill values as text."""
    if metadata["zarr_format"] == 2:
        if metadata["compressor"]:
            metadata["compressor"] = {"id": metadata["compressor"]["id"]}
        metadata.pop("dimension_separator", None)
        if metadata["dtype"][1] in "fiu":
            metadata["fill_value"] = "0"
        return
    metadata.pop("storage_transformers", None)
    metadata["an_extension"] = {"must_understand": False, "of": "somebody"}
    metadata["chunk_key_encoding"] = {"name": "default"}
    if metadata["data_type"] in ("float32", "float64", "float16"):
        metadata["fill_value"] = "0.0" if name == "X" else {"float32": "0x00000000", "float64": "0x0000000000000000", "float16": "0x0000"}[metadata["data_type"]]
    elif "int" in str(metadata["data_type"]):
        metadata["fill_value"] = "0"
    for codec in metadata["codecs"]:
        if codec["name"] in ("zstd", "blosc"):
            codec["configuration"] = {}
        if codec["name"] == "bytes":
            codec.pop("configuration", None)


def main(root):
    root.mkdir(parents=True, exist_ok=True)
    matrix = {}
    for name, behind in BYTES.items():
        matrix[f"2-{name}"], matrix[f"3-{name}"] = v2(behind=behind), v3(behind=behind)
    zstd = [{"id": "zstd", "level": 1}]
    for name, filters in FILTERS.items():
        matrix[f"2-{name}"], matrix[f"3-{name}"] = v2(filters, zstd), v3(filters, zstd)
        matrix[f"3-{name}-raw"], matrix[f"2-{name}-raw"] = v3(filters), v2(filters)
        matrix[f"3-{name}-shards"] = v3(filters, zstd, shards=True)
    pcodec = numbers(lambda d: nc.PCodec() if d.itemsize > 1 else None)
    big = numbers(lambda d: zc.BytesCodec(endian="big") if d.itemsize > 1 else None)
    matrix |= {
        "3-pcodec": v3(serializer=pcodec),
        "3-pcodec-crc32": v3(serializer=pcodec, behind=[{"id": "crc32"}]),
        "3-pcodec-shards": v3(serializer=pcodec, shards=True),
        "2-pcodec": v2(behind=[{"id": "pcodec"}]),
        "3-big": v3(serializer=big, behind=[zc.GzipCodec()]),
        "3-big-bitround": v3(FILTERS["bitround"], zstd, big),
        "3-shards-bz2": v3(behind=BYTES["bz2"], shards=True),
        "3-shards-lz4-crc32": v3(behind=[{"id": "lz4"}, {"id": "crc32"}], shards=True),
        "3-native": v3(behind=[zc.BloscCodec(typesize=4, cname="lz4"), zc.Crc32cCodec(), zc.ZstdCodec()]),
        "3-transpose": lambda name, old: {**v3(behind=zstd)(name, old), "filters": [zc.TransposeCodec(order=(1, 0))]} if old.ndim == 2 else None,
        "2-fortran": lambda name, old: {**v2(FILTERS["delta"], zstd)(name, old), "order": "F"} if old.ndim == 2 else None,
        "2-slash": v2(behind=zstd, chunk_key_encoding={"name": "v2", "separator": "/"}),
        "3-dot": v3(behind=zstd, chunk_key_encoding={"name": "default", "separator": "."}),
        "3-v2keys": v3(behind=zstd, chunk_key_encoding={"name": "v2", "separator": "."}),
    }
    matrix |= {"2-lean": v2(behind=[{"id": "blosc"}]), "3-lean": v3(behind=[zc.BloscCodec(typesize=4), zc.ZstdCodec()])}
    # A sparse X differs by its integers alone: a part of the codecs shows that.
    sparse = {"2-lz4", "3-lz4", "2-lzma", "3-bz2", "2-delta", "3-delta", "3-delta-wide", "3-astype-shards", "3-pcodec", "3-shards-lz4-crc32", "3-lean", "2-lean"}
    for version in [2, 3]:
        for layout in ["dense", "csr"]:
            base = root / f"base-{layout}-{version}.zarr"
            with ad.settings.override(zarr_write_format=version):
                table(layout == "csr").write_zarr(base)
            unconsolidated(base)
            names = [name for name in matrix if name.startswith(str(version)) and (layout == "dense" or name in sparse)]
            # In one event loop: a call of zarr's for each array hands over between threads many times.
            asyncio.run(write_all(base, {root / f"{layout}-{name}.zarr": matrix[name] for name in names}))


def unconsolidated(path):
    """Consolidated metadata would go on telling of the arrays as they were."""
    (path / ".zmetadata").unlink(missing_ok=True)
    if (path / "zarr.json").exists():
        metadata = json.loads((path / "zarr.json").read_text())
        metadata.pop("consolidated_metadata", None)
        (path / "zarr.json").write_text(json.dumps(metadata))


async def write_all(base, stores):
    arrays = await arrays_of(base)
    for path, make in stores.items():
        shutil.copytree(base, path)
        try:
            await recode(path, arrays, make)
            if path.stem.endswith("lean"):
                patch(path, lean)
        except Exception as error:
            print(f"left out: {path.name}: {type(error).__name__}: {str(error)[:100]}")
            path.rename(path.with_name(f"left-out-{path.name}"))


main(pathlib.Path(sys.argv[1]))
