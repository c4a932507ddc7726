#!/usr/bin/env python3
"""obs columns and matrices of unusual kinds: makes stores of them, and compares mounts with the values that were written.

Usage: check_columns.py make DIRECTORY          writes the stores below; beside each `NAME.pkl`, what anndata holds or would
       check_columns.py check MOUNT PICKLE...   every row of epoch 0 in .npz, .safetensors, .h5ad and .tsv, against the pickles
       check_columns.py array MOUNT FILE.npy TENSOR    a matrix of every batch, dense, against an array
       check_columns.py reports MOUNT EXPECTED NAME    an epoch against `expected.json` of ../shared/reports
"""
import csv
import json
import pathlib
import pickle
import sys
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import scipy.sparse as sp
import zarr

warnings.simplefilter("ignore")
ROWS, GENES = 50, 6


def base(rng, columns=(), dense=False):
    """An AnnData with one categorical, and the columns."""
    x = sp.random(ROWS, GENES, 0.4, format="csr", random_state=rng, dtype="float32")
    obs = pd.DataFrame({"ct": pd.Categorical.from_codes(rng.integers(0, 3, ROWS), list("abc")), **dict(columns)},
                       index=[f"c{i}" for i in range(ROWS)])
    return ad.AnnData(x.toarray() if dense else x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))


def order(group, names):
    group.attrs["column-order"] = np.array(["ct", *names], dtype=h5py.string_dtype())


def bits(parent, name, values):
    """A bit field, as Julia and PyTables write booleans."""
    dataset = h5py.h5d.create(parent.id, name.encode(), h5py.h5t.STD_B8LE, h5py.h5s.create_simple(values.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values, "uint8"), mtype=h5py.h5t.STD_B8LE)


def enum(names, base):
    return h5py.enum_dtype(names, basetype=base)


def enums(path, rng):
    """Booleans of other writers, and enums that are not booleans."""
    a = base(rng)
    flags = rng.integers(0, 2, ROWS)
    three = rng.integers(0, 3, ROWS)
    want = {"ct": a.obs["ct"]}
    logical = pd.array([None if v == 2 else bool(v) for v in three], dtype="boolean")
    a.layers["flags"] = rng.integers(0, 2, (ROWS, GENES)).astype(bool)
    a.layers["plain"] = rng.integers(0, 2, (ROWS, GENES)).astype(bool)
    a.obs["nullable"] = pd.array([None if v == 2 else int(v) for v in three], dtype="Int64")
    a.write_h5ad(path)
    with h5py.File(path, "r+") as f:
        obs = f["obs"]
        for name, names, kind in [
            ("i2", {"FALSE": 0, "TRUE": 1}, "i2"), ("i8", {"FALSE": 0, "TRUE": 1}, "i8"), ("u4", {"FALSE": 0, "TRUE": 1}, "u4"),
            ("big", {"FALSE": 0, "TRUE": 1}, ">i4"), ("lower", {"false": 0, "true": 1}, "u1"), ("mixed", {"True": 1, "False": 0}, "i4"),
            ("minus", {"FALSE": 0, "TRUE": -1}, "i1"), ("full", {"FALSE": 0, "TRUE": 255}, "u1"),
        ]:
            values = np.where(flags, names.get("TRUE", names.get("true", names.get("True"))), 0)
            obs.create_dataset(name, data=values.astype(kind), dtype=enum(names, kind), **({"compression": "gzip", "chunks": (7,)} if name != "u4" else {}))
            want[name] = flags.astype(bool)
        for name, na, kind in [("r", 2, "i1"), ("rhdf5", 255, "u1"), ("wide", -(2**31), "i4")]:
            obs.create_dataset(name, data=np.where(three == 2, na, three).astype(kind), dtype=enum({"FALSE": 0, "TRUE": 1, "NA": na}, kind))
            want[name] = logical
        bits(obs, "bits", flags)
        want["bits"] = flags.astype("uint8")
        obs.create_dataset("phase", data=(three * 10).astype("i2"), dtype=enum({"G1": 0, "S": 10, "G2M": 20}, "i2"))
        want["phase"] = (three * 10).astype("int16")
        # A mask of bits, codes that are an enum.
        mask = obs["nullable/mask"][...]
        del obs["nullable/mask"]
        bits(obs["nullable"], "mask", mask.astype("uint8"))
        codes = obs["ct/codes"][...]
        del obs["ct/codes"]
        obs.create_dataset("ct/codes", data=codes, dtype=enum({"a": 0, "b": 1, "c": 2}, "i1"))
        want["nullable"] = a.obs["nullable"]
        order(obs, [name for name in want if name != "ct"])
        for layer, kind in [("flags", "i4"), ("plain", "u1")]:
            values = f[f"layers/{layer}"][...]
            del f[f"layers/{layer}"]
            f["layers"].create_dataset(layer, data=values.astype(kind), dtype=enum({"FALSE": 0, "TRUE": 1}, kind), chunks=(7, 4), compression="gzip")
            f[f"layers/{layer}"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    a.obs = pd.DataFrame(want, index=a.obs_names)
    return a


def records(path, rng):
    """obs as an array of records, as R and old programs write tables: logicals among the fields."""
    a = base(rng)
    three, flags = rng.integers(0, 3, ROWS), rng.integers(0, 2, ROWS)
    a.write_h5ad(path)
    fields = {
        "index": (np.array(a.obs_names, "S4"), "S4"), "n": (rng.integers(0, 99, ROWS), "i4"),
        "r": (np.where(three == 2, -(2**31), three), enum({"FALSE": 0, "TRUE": 1, "NA": -(2**31)}, "i4")),
        "small": (three, enum({"FALSE": 0, "TRUE": 1, "NA": 2}, "u1")), "two": (flags, enum({"FALSE": 0, "TRUE": 1}, ">i2")),
        "plain": (flags, enum({"FALSE": 0, "TRUE": 1}, "i1")), "phase": (three * 10, enum({"G1": 0, "S": 10, "G2M": 20}, "i2")),
    }
    table = np.zeros(ROWS, [(name, dtype) for name, (_, dtype) in fields.items()])
    for name, (values, _) in fields.items():
        table[name] = values
    with h5py.File(path, "r+") as f:
        del f["obs"]
        f.create_dataset("obs", data=table)
    logical = pd.array([None if v == 2 else bool(v) for v in three], dtype="boolean")
    want = {"n": table["n"], "r": logical, "small": logical, "two": flags.astype(bool), "plain": flags.astype(bool), "phase": (three * 10).astype("int16")}
    a.obs = pd.DataFrame(want, index=a.obs_names)
    return a


NAMES = ["a/b", "a_b", "a%2Fb", "x" * 300, "x" * 299 + "y", "new\nline", "tab\there", "row", "mask", "Ab", "ab", "back\\slash", "a/b/c", "é/ü", ".hidden", "quote\"d", "m"]


def names(path, rng):
    """Names that files cannot have, or that equal another name once escaped."""
    columns = {}
    for i, name in enumerate(NAMES):
        labels = [f"{name[:5]!r} {i} {label}" for label in "pqr"]
        columns[name] = pd.Categorical.from_codes(rng.integers(-1, 3, ROWS), labels)
    columns["m"] = pd.array(rng.integers(0, 9, ROWS), dtype="Int64")
    columns["m"][3] = None
    a = base(rng, columns)
    a.layers["l/1"] = a.X * 2
    a.layers["l_1"] = a.X * 3
    a.write_h5ad(path)
    return a


def times(path, rng):
    a = base(rng)
    seconds = rng.integers(-(10**9), 2 * 10**9, ROWS).astype("M8[s]")
    seconds[4] = "NaT"
    fine = seconds.astype("M8[ns]") + rng.integers(0, 10**9, ROWS).astype("m8[ns]")
    durations = (fine - np.datetime64("1990-01-01T00:00:00", "ns")).astype("m8[us]")
    columns = {"ns": fine, "s": seconds, "ms": fine.astype("M8[ms]"), "day": seconds.astype("M8[D]"), "us": durations, "tds": durations.astype("m8[s]")}
    if path.suffix == ".h5ad":
        a.write_h5ad(path)
        # Big-endian, and in multiples of seconds: chunked, contiguous, and in the object header.
        odd = {"big": (">M8[s]", {"chunks": (9,)}), "25s": ("<M8[25s]", {"chunks": (9,), "compression": "gzip"}), "big 90s": (">m8[90s]", {}), "7s": ("<M8[7s]", {})}
        stored = {name: (durations if "m8" in dtype else seconds).astype(dtype) for name, (dtype, _) in odd.items()}
        with h5py.File(path, "r+") as f:
            for name, values in columns.items():
                f["obs"].create_dataset(name, data=values.astype(h5py.opaque_dtype(values.dtype)), chunks=(9,), compression="gzip")
            for name, values in stored.items():
                f["obs"].create_dataset(name, data=values.astype(h5py.opaque_dtype(values.dtype)), **odd[name][1])
            columns |= {name: values.astype(f"{values.dtype.kind}8[s]") for name, values in stored.items()}
            f["obs"].create_dataset("complex", data=np.arange(ROWS) + 1j)
            f["obs"].create_dataset("table", data=np.zeros((ROWS, 2)))
            f["obs"].create_dataset("records", data=np.zeros(ROWS, dtype=[("a", "i4"), ("b", "f4")]))
            f["obs"].create_dataset("odd unit", data=np.zeros(ROWS, "M8[ps]").astype(h5py.opaque_dtype("M8[ps]")))
            f["obs"].create_group("nothing")
            order(f["obs"], [*columns, "complex", "table", "records", "odd unit", "nothing"])
    else:
        with ad.settings.override(zarr_write_format=2 if ".v2" in path.name else 3):
            a.write_zarr(path)
        obs = zarr.open_group(str(path), mode="r+", use_consolidated=False)["obs"]
        for name, values in columns.items():
            obs.create_array(name, data=values, chunks=(9,))
        obs.create_array("complex", data=np.arange(ROWS) + 1j)
        obs.attrs["column-order"] = ["ct", *columns, "complex"]
        zarr.consolidate_metadata(str(path))
    a.obs = pd.DataFrame({"ct": a.obs["ct"], **{name: pd.Series(values, index=a.obs_names) for name, values in columns.items()}}, index=a.obs_names)
    a.uns["units"] = {name: np.datetime_data(values.dtype)[0] for name, values in columns.items()}
    a.uns["ticks"] = {name: values.astype("int64") for name, values in columns.items()}
    return a


def matrices(path, rng):
    """X and a layer of three axes, obsm as tables."""
    a = base(rng, {"f": rng.random(ROWS)}, dense=True)
    a.obsm["frame"] = pd.DataFrame({
        "u": rng.random(ROWS).astype("float32"), "name": pd.Categorical(rng.choice(list("xy"), ROWS)), "n": rng.integers(0, 9, ROWS).astype("int16"),
        "flag": rng.random(ROWS) < 0.5, "maybe": pd.array([None if i % 7 == 0 else i for i in range(ROWS)], dtype="Int32")}, index=a.obs_names)
    a.obsm["alone"] = pd.DataFrame({"i": rng.integers(0, 99, ROWS).astype("int32"), "j": rng.integers(0, 99, ROWS).astype("int32")}, index=a.obs_names)
    a.obsm["labels"] = pd.DataFrame({"name": pd.Categorical(rng.choice(list("xy"), ROWS))}, index=a.obs_names)
    cube = rng.random((ROWS, GENES, 3)).astype("float32")
    write = a.write_h5ad if path.suffix == ".h5ad" else a.write_zarr
    write(path)
    root = h5py.File(path, "r+") if path.suffix == ".h5ad" else zarr.open_group(str(path), mode="r+", use_consolidated=False)
    del root["X"]
    for name, values in [("X", cube), ("layers/cube", cube * 2)]:
        chunks = (7, 4, 2)
        made = root.create_dataset(name, data=values, chunks=chunks) if path.suffix == ".h5ad" else root.create_array(name, data=values, chunks=chunks)
        made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    if path.suffix == ".h5ad":
        root.close()
    else:
        zarr.consolidate_metadata(str(path))
    a.uns["cube"] = cube
    return a


def labels(path, rng):
    """Labels and texts that readers interpret as missing by default."""
    values = np.array(["NA", "nan", "None", "null", "N/A", "\"q", "a\tb", "-", "#NAME?"], dtype=object)
    columns = {"label": pd.Categorical(rng.choice(values, ROWS), categories=list(values)), "f": np.where(rng.random(ROWS) < 0.3, np.nan, rng.random(ROWS)),
               "n": pd.array([None if i % 5 == 0 else i for i in range(ROWS)], dtype="Int64")}
    a = base(rng, columns)
    a.write_h5ad(path)
    return a


def with_genes(rng, names, dense=False, dtype="float32"):
    x = sp.random(ROWS, len(names), 0.5, format="csr", random_state=rng, dtype="float32")
    x.data = np.ceil(x.data * 9).astype(dtype)
    x = sp.csr_matrix((x.data.astype(dtype), x.indices, x.indptr), shape=x.shape)
    return ad.AnnData(x.toarray() if dense else x, obs=pd.DataFrame(index=[f"c{i}" for i in range(ROWS)]), var=pd.DataFrame(index=list(names)))


def columns_of(adata, names, matrix=None, absent=0.0):
    """The matrix with these genes, `absent` for genes that it lacks."""
    x = dense(adata.X if matrix is None else matrix).astype("float64")
    place = {name: i for i, name in enumerate(adata.var_names)}
    return np.column_stack([x[:, place[name]] if name in place else np.full(len(x), absent) for name in names])


def several(directory):
    """Stores that differ in genes, kinds and elements; and `NAME.npy`, the values of their collection."""
    rng = np.random.default_rng(99)
    save = lambda name, array, dtype="float32": np.save(directory / f"{name}.npy", array.astype(dtype))
    # Elements that only one store has.
    a, b = with_genes(rng, "abcd"), with_genes(rng, "cbde")
    a.layers["counts"], a.layers["smooth"] = a.X * 2, dense(a.X) + np.float32(0.5)
    a.layers["whole"] = dense(a.X).astype("int16")
    a.obsm["X_pca"] = rng.random((ROWS, 3)).astype("float32")
    a.raw = with_genes(rng, "xyz")
    b.layers["other"] = b.X
    a.write_h5ad(directory / "with.h5ad"), b.write_h5ad(directory / "without.h5ad")
    genes = list("abcde")
    nothing = np.full((ROWS, 5), np.nan)
    save("outer", np.vstack([columns_of(a, genes), columns_of(b, genes)]))
    save("counts", np.vstack([columns_of(a, genes) * 2, np.zeros((ROWS, 5))]))
    smooth = columns_of(a, genes, a.layers["smooth"], np.nan)
    save("smooth", np.vstack([smooth, nothing]))
    save("smooth-turned", np.vstack([nothing, smooth])[:, [genes.index(g) for g in "cbdea"]])
    save("whole", np.vstack([columns_of(a, genes, a.layers["whole"], np.nan), nothing]), "float64")
    save("pca", np.vstack([a.obsm["X_pca"], np.full((ROWS, 3), np.nan)]))
    save("raw", np.vstack([dense(a.raw.X), np.zeros((ROWS, 3))]))
    # One sparse, one dense.
    c = with_genes(rng, "dcba", dense=True)
    c.write_h5ad(directory / "dense.h5ad")
    save("mixed", np.vstack([columns_of(a, "abcd"), columns_of(c, "abcd")]))
    save("mixed-outer", np.vstack([columns_of(b, "cbdea"), columns_of(c, "cbdea", absent=np.nan)]))
    # Spellings.
    ids = [f"ENSG0000000000{i}" for i in range(5)]
    v1 = with_genes(rng, [f"{name}.{i + 1}" for i, name in enumerate(ids)])
    v2 = with_genes(rng, [f"{name}.{i + 7}" for i, name in reversed(list(enumerate(ids)))])
    v1.var["symbol"] = ["Tp53", "Actb", "Gapdh", "Sox2", "Myc"]
    v1.var["kind"] = pd.Categorical(["k0", "k1", "k2", "k3", "k4"])
    v2.var["symbol"] = [{"0": "Tp53", "1": "Actb", "2": "Gapdh", "3": "Sox2", "4": "Myc"}[name.split(".")[0][-1]] for name in v2.var_names]
    v1.write_h5ad(directory / "v1.h5ad"), v2.write_h5ad(directory / "v2.h5ad")
    save("versions", np.vstack([dense(v1.X), dense(v2.X)[:, ::-1]]))
    up, down = with_genes(rng, ["TP53", "ACTB", "MYC"]), with_genes(rng, ["Myc", "Tp53", "Actb"])
    up.write_h5ad(directory / "upper.h5ad"), down.write_h5ad(directory / "lower.h5ad")
    save("case", np.vstack([dense(up.X), columns_of(down, ["Tp53", "Actb", "Myc"])]))
    twice = with_genes(rng, ["ENSG00000000000.1", "ENSG00000000000.2", *[f"{name}.1" for name in ids[1:]]])
    twice.write_h5ad(directory / "ambiguous.h5ad")
    # A vocabulary.
    words = ["z1", "c", "a", "z2", "e"]
    (directory / "vocabulary.txt").write_text("\n".join(words))
    save("vocabulary", np.vstack([columns_of(a, words), columns_of(b, words)]))
    save("vocabulary-dense", columns_of(c, words))
    symbols = ["Myc", "none", "Tp53"]
    place = list(v1.var["symbol"])
    save("symbols", np.column_stack([dense(v1.X)[:, place.index(s)] if s in place else np.zeros(ROWS) for s in symbols]))


STORES = {"enums.h5ad": enums, "records.h5ad": records, "names.h5ad": names, "times.h5ad": times, "times.v2.zarr": times, "times.v3.zarr": times,
          "matrices.h5ad": matrices, "matrices.zarr": matrices, "labels.h5ad": labels}


# ---------------------------------------------------------------- comparison

def rows_of(mount):
    """The batches of epoch 0, and their rows."""
    for path in sorted((mount / "epoch-0000").iterdir()):
        with np.load(path.with_suffix(".npz")) as f:
            yield path, f["row"], {name: f[name] for name in f.files}


def same(got, want, what):
    """Equal with missing values at the same places."""
    got, want = pd.array(list(got), dtype=object), pd.array(list(want), dtype=object)
    assert len(got) == len(want), what
    for i, (a, b) in enumerate(zip(got, want)):
        if pd.isna(b):
            assert pd.isna(a) or a == "", f"{what}: row {i}: {a!r}, not missing"
        else:
            assert a == b or str(a) == str(b), f"{what}: row {i}: {a!r}, not {b!r}"


def column(mount, told, tensors, series, rows, what):
    """One column of one batch as tensors."""
    key = told["names"]["npz"]
    assert told["names"]["safetensors"] == key
    values, want = tensors[key], series.iloc[rows]
    mask = tensors.get(f"{key}/mask")
    if told["kind"] == "categorical":
        file = (mount / told["categories_file"]).read_text().split("\n")[:-1]
        labels = [json.loads(f'"{line}"') if "\\" in line else line for line in file]
        assert labels == [str(c) for c in series.cat.categories], f"{what}: {labels}"
        return same([None if code < 0 else labels[code] for code in values], want.astype(object).where(want.notna(), None), what)
    if told["kind"] in ("datetime", "timedelta"):
        letter = "M" if told["kind"] == "datetime" else "m"
        assert values.dtype == np.int64 and mask is None
        return same(pd.Series(values.view(f"{letter}8[{told['unit']}]")), want.astype(f"{letter}8[s]" if told["unit"] == "D" else want.dtype), what)
    assert (mask is not None) == pd.api.types.is_extension_array_dtype(series.dtype), f"{what}: mask"
    if mask is not None:
        assert values.dtype == series.dtype.numpy_dtype, f"{what}: {values.dtype}, not {series.dtype}"
        return same([None if m else v for v, m in zip(values, mask)], want, what)
    assert values.dtype == series.dtype, f"{what}: {values.dtype}, not {series.dtype}"
    np.testing.assert_array_equal(values, want.to_numpy(), what)


def columns(mount, obs, exact_dtypes=True):
    told = json.loads((mount / "dataset.json").read_text())["columns"]
    assert [c["name"] for c in told] == list(obs.columns), f"{[c['name'] for c in told]}, not {list(obs.columns)}"
    seen = []
    for path, rows, npz in rows_of(mount):
        tensors = safetensors.numpy.load_file(path.with_suffix(".safetensors"))
        adata = ad.read_h5ad(path.with_suffix(".h5ad"))
        # As described in the mount's README.txt.
        tsv = pd.read_csv(path.with_suffix(".tsv"), sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False, na_values=[""])
        assert list(adata.obs.columns) == [c["names"]["h5ad"] for c in told]
        assert list(tsv.columns) == ["row"] + [c["names"]["tsv"] for c in told], list(tsv.columns)
        with pa.memory_map(str(path.with_suffix(".arrow"))) as file:
            records = {"arrow": pa.ipc.open_file(file).read_all(), "parquet": pq.read_table(path.with_suffix(".parquet"))}
            records = {format: {name: table[name].to_pylist() for name in table.column_names} for format, table in records.items()}
        for c in told:
            what, series = f"{path.name}: {c['name'][:20]}", obs[c["name"]]
            column(mount, c, npz, series, rows, what)
            column(mount, c, tensors, series, rows, f"{what}: safetensors")
            here, want = adata.obs[c["names"]["h5ad"]], series.iloc[rows]
            if isinstance(series.dtype, pd.CategoricalDtype):
                assert list(here.cat.categories) == [str(v) for v in series.cat.categories], what
            else:
                assert here.dtype == (want.astype("M8[s]" if want.dtype.kind == "M" else "m8[s]").dtype if c.get("unit") == "D" else want.dtype), f"{what}: {here.dtype}, not {want.dtype}"
            same(here, want, f"{what}: h5ad")
            for format, table in records.items():
                got = table[c["names"][format]]
                if c.get("unit") == "D":  # as text, there
                    got = [None if v is None else pd.Timestamp(v) for v in got]
                elif c["kind"] == "timedelta" and format == "parquet":  # as numbers
                    got = [None if v is None else pd.Timedelta(v, c["unit"]) for v in got]
                same(got, want, f"{what}: {format}")
            text = tsv[c["names"]["tsv"]]
            if c["kind"] == "datetime":
                text = pd.to_datetime(text, format="ISO8601")
                same(text.astype(want.dtype), want, f"{what}: tsv")
            elif c["kind"] == "timedelta":
                same(pd.to_timedelta(text).astype(want.dtype), want, f"{what}: tsv")
            elif c["kind"] == "categorical":
                escaped = [None if pd.isna(v) else str(v).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") for v in want]
                same(text, escaped, f"{what}: tsv")
            elif c["kind"] == "number" and not c["nullable"]:
                # pandas' default parser is sometimes wrong in the last bit.
                np.testing.assert_allclose(text.to_numpy(want.dtype), want.to_numpy(), 1e-13, err_msg=what)
            else:
                same([None if pd.isna(v) else float(v) if c["kind"] == "number" else v for v in text],
                     [None if pd.isna(v) else float(v) if c["kind"] == "number" else bool(v) for v in want], f"{what}: tsv")
        seen.extend(rows.tolist())
    assert sorted(seen) == list(range(len(obs))), "rows"


def dense(matrix):
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


def tensor(tensors, name, top):
    """A matrix of a batch as a dense array."""
    prefix = "" if top else f"{name}/"
    if f"{prefix}indptr" not in tensors:
        return tensors["X" if top else name]
    shape = (len(tensors["row"]), tensors["shape" if top else f"{name}/shape"][1])
    return sp.csr_matrix((tensors[f"{prefix}data"], tensors[f"{prefix}indices"], tensors[f"{prefix}indptr"]), shape=shape).toarray()


def matrix(mount, element, want, name=None):
    """An element of the epoch, by .npz, against an array."""
    for path, rows, npz in rows_of(mount):
        got = tensor(npz, name or element, element is None)
        assert got.shape == (len(rows), *want.shape[1:]), f"{element}: {got.shape}"
        assert got.dtype == want.dtype, f"{element}: {got.dtype}, not {want.dtype}"
        np.testing.assert_array_equal(got, want[rows], f"{path.name}: {element}")


def reports(mount, expected, name):
    want = json.loads(pathlib.Path(expected).read_text())[name]
    x = np.array(want["X"], want["dtype"]).reshape(want["shape"])
    matrix(mount, None, x)
    told = {c["name"]: c for c in json.loads((mount / "dataset.json").read_text())["columns"]}
    for key, one in want["obs"].items():
        if one["values"] == [None] * len(one["values"]):
            continue  # `a` of `a/b`: no column
        values = one["values"]
        if name.startswith("r_logical") and key == "lg":
            values = [None if v == 2 else bool(v) for v in values]  # R's missing
        dtype = {"category": "category", "Int64": "Int64", "boolean": "boolean"}.get(one["dtype"])
        series = pd.Series(values, dtype=dtype or ("boolean" if None in values and dtype is None and key == "lg" else one["dtype"]))
        for path, rows, npz in rows_of(mount):
            column(mount, told[key], npz, series, rows, f"{name}: {key}")


def main():
    command, *arguments = sys.argv[1:]
    if command == "make":
        directory = pathlib.Path(arguments[0])
        for i, (name, make) in enumerate(STORES.items()):
            adata = make(directory / name, np.random.default_rng(i))
            (directory / f"{name}.pkl").write_bytes(pickle.dumps(adata))
        several(directory)
    elif command == "check":
        mount = pathlib.Path(arguments[0])
        parts = [pickle.loads(pathlib.Path(path).read_bytes()) for path in arguments[1:]]
        obs = parts[0].obs if len(parts) == 1 else pd.concat([part.obs for part in parts])
        columns(mount, obs)
    elif command == "array":
        mount, path, name = pathlib.Path(arguments[0]), arguments[1], arguments[2]
        matrix(mount, None if name == "X" else name, np.load(path), name)
    elif command == "genes":
        mount, a = pathlib.Path(arguments[0]), pickle.loads(pathlib.Path(arguments[1]).read_bytes())
        matrix(mount, None, a.uns["cube"][:, [int(i) for i in arguments[2:]]], "X")
    elif command == "readme":
        # The call in README.txt reads every label and number.
        mount, a = pathlib.Path(arguments[0]), pickle.loads(pathlib.Path(arguments[2]).read_bytes())
        for path, rows, _ in rows_of(mount):
            table = eval(arguments[1], {"pd": pd, "path": path.with_suffix(".tsv")})
            assert table["f"].dtype == "float64" and table["n"].dtype.kind in "if", table.dtypes
            for name in ("label", "f", "n"):
                want = a.obs[name].iloc[rows]
                if name == "label":
                    want = [str(v).replace("\t", "\\t") for v in want]
                    same(["" if pd.isna(v) else v for v in table[name]], want, name)
                else:
                    assert (table[name].isna().to_numpy() == want.isna().to_numpy()).all(), name
    elif command == "labels":
        # Enums that are named with --obs are categoricals of their names.
        mount, store = pathlib.Path(arguments[0]), pickle.loads(pathlib.Path(arguments[1]).read_bytes())
        phase = pd.Series(pd.Categorical.from_codes(store.obs["phase"] // 10, ["G1", "S", "G2M"]), index=store.obs_names)
        columns(mount, pd.DataFrame({"phase": phase, "r": store.obs["r"]}))
    elif command == "matrix":
        mount, path, element, name = pathlib.Path(arguments[0]), pathlib.Path(arguments[1]), arguments[2], arguments[3]
        a = pickle.loads(path.read_bytes())
        if element in ("X", "layers/cube") and "cube" in a.uns:
            want = a.uns["cube"] * np.float32(1 if element == "X" else 2)
        else:
            head, _, key = element.partition("/")
            want = a.X if element == "X" else getattr(a, head)[key]
            if isinstance(want, pd.DataFrame):
                want = want.drop(columns=[c for c in want if isinstance(want[c].dtype, pd.CategoricalDtype)])
                told = next(e for e in json.loads((mount / "dataset.json").read_text())["with"] if e["element"] == element)
                assert told["columns"] == list(want.columns), told
                if any(pd.api.types.is_extension_array_dtype(t) for t in want.dtypes):
                    want = want.astype({c: "float64" for c in want if pd.api.types.is_extension_array_dtype(want[c].dtype)})
                # pandas makes objects of booleans among numbers.
                want = want.to_numpy(np.result_type(*[t for t in want.dtypes]))
            want = dense(want)
        matrix(mount, None if name == "X" else element, want, name)
    else:
        reports(pathlib.Path(arguments[0]), *arguments[1:])


if __name__ == "__main__":
    main()
