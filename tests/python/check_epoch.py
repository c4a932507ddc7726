#!/usr/bin/env python3
"""Reads a whole epoch of a mount with an independent client of the format and compares it with the stores as anndata reads them.

Usage: check_epoch.py MOUNT STORE... [--epoch N] [--format F] [--x ELEMENT] [--obs COL,...] [--join J] [--drop-last]
       check_epoch.py --serve     one JSON job a line on stdin, one JSON result a line on stdout

Every row exactly once; every value, dtype, label and mask equal, to the bit; codes are the collection's;
dataset.json, categories/ and var.tsv agree. Prints one line of JSON; exits 1 and names the first difference.
"""
import argparse
import csv
import functools
import json
import os
import pathlib
import re
import signal
import struct
import sys
import tarfile
import traceback
import zipfile

import numpy as np

import collection as stores

import anndata as ad  # after `collection`, which silences warnings
import crc32c
import duckdb
import h5py
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy
import scipy.sparse as sp
import tfrecord
import tfrecord.example_pb2
import webdataset

FORMATS = ["npz", "safetensors", "npy", "h5ad", "h5ad-backed", "tsv", "arrow", "parquet", "tar", "tfrecord", "tahoe.parquet", "mds", "litdata", "record.npy"]
MOST_LABELS = 4096  # a column with more is text in .arrow


class Difference(Exception):
    pass


def need(condition, message):
    if not condition:
        raise Difference(message() if callable(message) else message)


def same_bits(got, want, what):
    """Whether dtype, shape and bytes are equal: NaN equals the same NaN, -0.0 differs from 0.0."""
    got = np.asarray(got)
    want = np.asarray(want)
    need(got.dtype == want.dtype, lambda: f"{what}: dtype {got.dtype}, not {want.dtype}")
    need(got.shape == want.shape, lambda: f"{what}: shape {got.shape}, not {want.shape}")
    if np.ascontiguousarray(got).tobytes() != np.ascontiguousarray(want).tobytes():
        raw = lambda a: np.ascontiguousarray(a).reshape(-1).view(f"V{a.dtype.itemsize}")
        at = int(np.flatnonzero(raw(got) != raw(want))[0])
        place = tuple(int(i) for i in np.unravel_index(at, want.shape))
        raise Difference(f"{what}: at {place}: {got[place]!r}, not {want[place]!r}")


def unescape(text):
    return re.sub(r"\\(.)", lambda m: {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}[m[1]], text)


# ---------------------------------------------------------------- one batch, by each client

class Check:
    """One mount against its stores."""

    def __init__(self, mount, paths, x="X", obs=None, join="exact"):
        self.mount = pathlib.Path(mount)
        states = tuple(stores.state(path) for path in paths)
        self.want = load_cached(tuple(paths), states, x, join)
        if obs is None:
            obs = [c.name for c in self.want.columns.values() if c.kind != "text"]
        self.columns = [self.want.columns[name] for name in obs]
        self.x = x
        self.named = None  # what dataset.json calls the stores, where they are compared with others of the same content

    # X

    def sparse(self, rows, data, indices, indptr, what):
        values, columns, bounds = self.want.sparse_rows(rows)
        same_bits(indptr, bounds.astype(indptr.dtype), f"{what}: indptr")
        same_bits(indices, columns.astype(indices.dtype), f"{what}: indices")
        same_bits(data, values, f"{what}: data")

    def dense(self, rows, x, what):
        want = self.want.dense_rows(rows)
        if self.want.is_sparse and want.dtype.kind == "f":
            # A stored -0.0 added to the zeros of a dense row, as scipy's toarray does it, is 0.0.
            x, want = x + want.dtype.type(0), want + want.dtype.type(0)
        same_bits(x, want, f"{what}: X")

    def tensors(self, rows, get, names, what, text):
        """Members shared by .npz and .safetensors."""
        want = {"row"} | ({"data", "indices", "indptr"} if self.want.is_sparse else {"X"})
        for column in self.columns:
            want.add(f"obs/{column.name}")
            if column.mask is not None:
                want.add(f"obs/{column.name}/mask")
        need(names == want, lambda: f"{what}: members {sorted(names ^ want)} are there and not wanted, or wanted and not there")
        if self.want.is_sparse:
            for part in ("indices", "indptr"):
                need(get(part).dtype == np.int32, lambda: f"{what}: {part} is {get(part).dtype}, not int32")
            self.sparse(rows, get("data"), get("indices"), get("indptr"), what)
        else:
            self.dense(rows, get("X"), what)
        for column in self.columns:
            name = f"obs/{column.name}"
            got, values = get(name), column.values[rows]
            mask = None
            if column.mask is not None:
                mask = column.mask[rows]
                same_bits(get(f"{name}/mask").astype(bool), mask, f"{what}: {name}/mask")
            if column.kind == "text":
                got = text(got)
                values = values.astype(str)
                if mask is not None:
                    got, values = got[~mask], values[~mask]
                need(got.tolist() == values.tolist(), lambda: f"{what}: {name}: {got.tolist()} not {values.tolist()}")
                continue
            if column.kind == "boolean":
                need(got.dtype in (bool, np.uint8), lambda: f"{what}: {name}: dtype {got.dtype}")
                got = got.astype(bool)
            values = values.astype(column.dtype)
            if mask is not None:
                need(got.dtype == values.dtype and got.shape == values.shape, lambda: f"{what}: {name}: {got.dtype}{got.shape}")
                got, values = got[~mask], values[~mask]
            same_bits(got, values, f"{what}: {name}")

    def rows_of(self, values, what):
        rows = np.asarray(values)
        need(rows.dtype == np.int64 and rows.ndim == 1, lambda: f"{what}: row is {rows.dtype}{rows.shape}")
        need(len(rows) > 0 and rows.min() >= 0 and rows.max() < self.want.rows, lambda: f"{what}: rows {rows} outside 0..{self.want.rows}")
        return rows

    # formats: each returns the rows of the batch

    def npz(self, path):
        what = path.name
        with zipfile.ZipFile(path) as z:
            need(z.testzip() is None, f"{what}: a CRC is wrong")
            need(all(i.compress_type == zipfile.ZIP_STORED for i in z.infolist()), f"{what}: a member is deflated")
            need(len(z.namelist()) == len(set(z.namelist())), f"{what}: a member is there twice")
        with np.load(path, allow_pickle=False) as f:
            rows = self.rows_of(f["row"], what)
            names = set(f.files)
            if self.want.is_sparse:
                need({"shape", "format"} <= names, f"{what}: no shape or format")
                need(tuple(f["shape"]) == (len(rows), self.want.n_vars), lambda: f"{what}: shape {f['shape']}")
                need(f["format"].item() in (b"csr", "csr"), lambda: f"{what}: format {f['format']}")
                names -= {"shape", "format"}
            self.tensors(rows, lambda n: f[n], names, what, text=lambda a: a)
            for column in self.columns:
                if column.kind == "text":
                    need(f[f"obs/{column.name}"].dtype.kind == "U", f"{what}: obs/{column.name} is not <U")
        if self.want.is_sparse and self.want.x_dtype != np.float16:  # scipy has no float16
            m = sp.load_npz(path)
            need(m.format == "csr" and m.shape == (len(rows), self.want.n_vars), lambda: f"{what}: load_npz gives {m!r}")
            self.sparse(rows, m.data, m.indices, m.indptr, f"{what} by load_npz")
        return rows

    def safetensors(self, path):
        what = path.name
        tensors = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "numpy") as f:
            meta = f.metadata() or {}
        rows = self.rows_of(tensors["row"], what)
        number = int(re.search(r"batch-(\d+)", what)[1])
        epoch = int(re.search(r"epoch-(\d+)", str(path))[1])
        need(int(meta.get("epoch", -1)) == epoch and int(meta.get("batch", -1)) == number, lambda: f"{what}: metadata {meta}")
        if self.want.is_sparse:
            shape = [int(n) for n in re.findall(r"\d+", meta.get("shape", ""))]
            need(shape == [len(rows), self.want.n_vars], lambda: f"{what}: metadata shape {meta.get('shape')}")
            need(meta.get("format") == "csr", lambda: f"{what}: metadata format {meta.get('format')}")

        def text(raw):
            need(raw.dtype == np.uint8 and raw.ndim == 2, lambda: f"{what}: text is {raw.dtype}{raw.shape}, not U8 [n, width]")
            return np.array([bytes(line).rstrip(b"\0").decode() for line in raw], dtype=object)

        self.tensors(rows, tensors.__getitem__, set(tensors), what, text)
        return rows

    def record_npy(self, path):
        what = path.name
        record = np.load(path, allow_pickle=False)
        need(record.shape == () and record.dtype.names, lambda: f"{what}: {record.dtype}{record.shape}")
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        need(mapped.tobytes() == record.tobytes(), f"{what}: read and mmap")
        rows, names = self.rows_of(record["row"], what), set(record.dtype.names)
        need(all(mapped[name].flags.aligned for name in names), f"{what}: a field is not aligned")
        if self.want.is_sparse:
            need(record["shape"].tolist() == [len(rows), self.want.n_vars], lambda: f"{what}: shape {record['shape']}")
            names -= {"shape"}
        self.tensors(rows, record.__getitem__, names, what, text=lambda a: a)
        return rows

    def npy(self, path):
        x = np.load(path, mmap_mode="r", allow_pickle=False)
        need(isinstance(x, np.memmap) and x.flags.c_contiguous, lambda: f"{path.name}: {type(x)} in another order than C")
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as f:
            rows = self.rows_of(f["row"], path.name)
        self.dense(rows, x, path.name)
        same_bits(np.load(path), np.array(x), f"{path.name}: read and mmap")
        return rows

    def h5ad(self, path, backed=None):
        what = f"{path.name}{' backed' if backed else ''}"
        adata = ad.read_h5ad(path, backed=backed)
        try:
            rows = self.rows_of(np.array([int(name) for name in adata.obs_names], dtype="int64"), what)
            need([str(r) for r in rows] == list(adata.obs_names), f"{what}: obs_names are not the row numbers")
            need(list(adata.var_names) == self.want.genes, f"{what}: var_names differ")
            x = adata.X
            if backed:
                x = x.to_memory() if self.want.is_sparse else x[...]
            if self.want.is_sparse:
                need(sp.issparse(x) and x.format == "csr", lambda: f"{what}: X is {type(x)}")
                need(x.shape == (len(rows), self.want.n_vars), lambda: f"{what}: X has shape {x.shape}")
                self.sparse(rows, x.data, x.indices, x.indptr, what)
            else:
                self.dense(rows, x, what)
            names = [c.name for c in self.columns]
            need(list(adata.obs.columns) == names, lambda: f"{what}: obs columns {list(adata.obs.columns)}, not {names}")
            for column in self.columns:
                self.h5ad_column(adata.obs[column.name], column, rows, what)
        finally:
            if backed:
                adata.file.close()
        return rows

    def h5ad_column(self, series, column, rows, what):
        what = f"{what}: obs/{column.name}"
        got = stores.column_of(column.name, series)
        need(got is not None and got.kind == column.kind, lambda: f"{what}: {series.dtype}, not {column.kind}")
        values = column.values[rows]
        if column.kind == "categorical":
            need(got.categories == column.categories, lambda: f"{what}: categories {got.categories}, not {column.categories}")
            need(got.ordered == column.ordered, f"{what}: ordered is {got.ordered}")
            same_bits(got.values, values.astype("int64"), what)
            return
        if column.mask is not None:
            need(got.mask is not None, f"{what}: not nullable")
            mask = column.mask[rows]
            same_bits(got.mask, mask, f"{what}: mask")
            need(got.values.dtype == values.dtype, lambda: f"{what}: {got.values.dtype}, not {values.dtype}")
            need(got.values[~mask].tolist() == values[~mask].tolist(), lambda: f"{what}: {got.values} not {values}")
        elif column.kind == "text":
            need(got.values.tolist() == values.tolist(), lambda: f"{what}: {got.values} not {values}")
        else:
            same_bits(got.values, values, what)

    def h5ad_backed(self, path):
        return self.h5ad(path, backed="r")

    def tsv(self, path):
        what = path.name
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, na_filter=False,
                            quoting=csv.QUOTE_NONE, lineterminator="\n", encoding="utf-8")
        names = ["row"] + [c.name for c in self.columns]
        need([unescape(n) for n in table.columns] == names, lambda: f"{what}: columns {list(table.columns)}, not {names}")
        rows = self.rows_of(table["row"].to_numpy().astype("int64"), what)
        for at, column in enumerate(self.columns, start=1):
            got = [unescape(text) for text in table.iloc[:, at]]
            values = column.values[rows]
            for row, text, value, missing in zip(rows, got, values, column.mask[rows] if column.mask is not None else [False] * len(rows)):
                place = lambda: f"{what}: row {row}, {column.name}: {text!r}, not {value!r}"
                if missing or (column.kind == "categorical" and value < 0):
                    need(text == "", place)
                elif column.kind == "categorical":
                    need(text == column.categories[value], lambda: f"{what}: row {row}, {column.name}: {text!r}, not {column.categories[value]!r}")
                elif column.kind == "boolean":
                    need(text == str(bool(value)), place)
                elif column.kind == "text":
                    need(text == value, place)
                elif values.dtype.kind == "f":
                    if np.isnan(value):
                        need(text.lower() in ("", "nan"), place)
                    else:
                        need(values.dtype.type(text) == value and len(digits(text)) <= len(digits(repr(value.item() if values.dtype == np.float64 else str(value)))), place)
                else:
                    need(text == str(value), place)
        return rows

    # rows as records: .arrow, .parquet

    def arrow(self, path):
        what = path.name
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            need(reader.num_record_batches == 1, lambda: f"{what}: {reader.num_record_batches} record batches")
            before = pa.total_allocated_bytes()
            batch = reader.get_batch(0)
            batch.validate(full=True)
            need(pa.total_allocated_bytes() - before < 4096, f"{what}: its columns are copied")
            buffers = [b for column in batch.columns for b in column.buffers() if b is not None]
            need(all(b.address % 64 == 0 for b in buffers), f"{what}: a buffer is not aligned")
            table = pa.Table.from_batches([batch])
            rows = self.records(table, what, dictionaries=True)
            if self.want.x_dtype != np.float16:
                self.records(pl.read_ipc(path).to_arrow(), f"{what} by polars", None)
                pd.testing.assert_frame_equal(pd.read_feather(path), table.to_pandas())
            return rows

    def records(self, table, what, dictionaries):
        """One record for each row, in any column order; `dictionaries`: whether labels have codes, None if the reader changes types."""
        want = self.want
        matrix = {"genes", "expressions"} if want.is_sparse else {"X"}
        names = {c.name: f"obs/{c.name}" if c.name in matrix else c.name for c in self.columns}
        expected = {"row"} | matrix | set(names.values())
        need(set(table.column_names) == expected, lambda: f"{what}: columns {sorted(set(table.column_names) ^ expected)}")
        get = lambda name: pa.concat_arrays(table[name].chunks) if table[name].num_chunks != 1 else table[name].chunk(0)
        rows = self.rows_of(get("row").to_numpy(), what)
        number = lambda values: values.to_numpy(zero_copy_only=False)
        if want.is_sparse:
            genes, expressions = get("genes"), get("expressions")
            bounds = lambda lists: np.concatenate([[0], np.cumsum(number(pc.list_value_length(lists)))]).astype("int64")
            same_bits(bounds(genes), bounds(expressions), f"{what}: lengths of genes and expressions")
            data = number(expressions.flatten())
            data = data.astype(bool) if want.x_dtype == bool else data
            self.sparse(rows, data, number(genes.flatten()), bounds(genes), what)
        else:
            x = get("X")
            while pa.types.is_list(x.type) or pa.types.is_large_list(x.type) or pa.types.is_fixed_size_list(x.type):
                x = x.flatten()
            x = number(x)
            x = x.astype(bool) if want.x_dtype == bool else x
            self.dense(rows, x.reshape((len(rows),) + want.x.shape[1:]), what)
        for column in self.columns:
            self.record_column(get(names[column.name]), column, rows, dictionaries, f"{what}: {column.name}")
        return rows

    def record_column(self, got, column, rows, dictionaries, what):
        values = column.values[rows]
        missing = values < 0 if column.kind == "categorical" else column.mask[rows] if column.mask is not None else np.zeros(len(rows), bool)
        need(got.is_null().to_numpy(zero_copy_only=False).tolist() == missing.tolist(), lambda: f"{what}: other values are missing")
        if column.kind == "categorical":
            if dictionaries and len(column.categories) <= MOST_LABELS:
                need(got.dictionary.to_pylist() == column.categories, lambda: f"{what}: {got.dictionary}, not {column.categories}")
                need(got.type.ordered == column.ordered, lambda: f"{what}: ordered is {got.type.ordered}")
                same_bits(got.indices.fill_null(-1).to_numpy(), values.astype(column.dtype), what)
            labels = [None if code < 0 else column.categories[code] for code in values]
            need(got.to_pylist() == labels, lambda: f"{what}: {got.to_pylist()}, not {labels}")
        elif column.kind in ("text", "boolean"):
            need(got.drop_null().to_pylist() == values[~missing].tolist(), lambda: f"{what}: {got}, not {values}")
        else:
            same_bits(got.drop_null().to_numpy(zero_copy_only=False), values[~missing], what)

    def parquet(self, path):
        what = path.name
        file = pq.ParquetFile(path)
        for i in range(file.metadata.num_columns):
            column = file.metadata.row_group(0).column(i)
            need(column.compression == "UNCOMPRESSED", lambda: f"{what}: {column.path_in_schema} is compressed")
        table = pq.read_table(path)
        table.validate(full=True)
        rows = self.records(table, what, dictionaries=False)
        self.records(pl.read_parquet(path).to_arrow(), f"{what} by polars", None)
        if self.want.x_dtype != np.float16:  # DuckDB has no half floats
            found = duckdb.read_parquet(str(path)).to_arrow_table()
            for i, name in enumerate(found.column_names):
                if table.schema.field(name).type == pa.float16():  # widened there
                    found = found.set_column(i, name, pa.array(found[name].to_numpy().astype("float16"), mask=found[name].is_null().to_numpy()))
            self.records(found, f"{what} by DuckDB", None)
        pd.testing.assert_frame_equal(pd.read_parquet(path), table.to_pandas())
        return rows

    def tahoe_parquet(self, path):
        """Tahoe-100M's schema: a class token before each row's genes, tokens for genes, labels as strings."""
        what = path.name
        table = pq.read_table(path)
        with np.load(path.parent / (what.split(".")[0] + ".npz"), allow_pickle=False) as f:
            rows = self.rows_of(f["row"], what)
        names = {c.name: f"obs/{c.name}" if c.name in ("genes", "expressions") else c.name for c in self.columns}
        need(table.column_names == ["genes", "expressions"] + [names[c.name] for c in self.columns], lambda: f"{what}: {table.column_names}")
        genes, expressions = (pa.concat_arrays(table[name].chunks) for name in ("genes", "expressions"))
        need((genes.type.value_type, expressions.type.value_type) == (pa.int64(), pa.float32()), lambda: f"{what}: {genes.type}, {expressions.type}")
        genes, expressions = ([row.values.to_numpy() for row in lists] for lists in (genes, expressions))
        need(all(row[0] == 1 for row in genes) and all(row[0] == -2 for row in expressions), f"{what}: a row does not begin with 1 and -2")
        expressions = [row[1:].astype(self.want.x_dtype) for row in expressions]
        self.row_arrays(rows, [[row[1:] - 3 for row in genes], expressions], what)
        for column in self.columns:
            self.record_column(pa.concat_arrays(table[names[column.name]].chunks), column, rows, False, f"{what}: {column.name}")
        return rows

    def tar(self, path):
        what = path.name
        samples = list(webdataset.WebDataset([str(path)], shardshuffle=False, empty_check=False).decode())
        matrix = ["genes.npy", "expressions.npy"] if self.want.is_sparse else ["x.npy"]  # webdataset takes names in lower case
        names = {"row"} | {c.name for c in self.columns}
        for sample in samples:
            members = {name for name in sample if not name.startswith("__")}
            need(members == set(matrix) | {"json"}, lambda: f"{what}: members {members}")
            need(set(sample["json"]) == names, lambda: f"{what}: json has {set(sample['json']) ^ names}")
        need(len({sample["__key__"] for sample in samples}) == len(samples), f"{what}: two samples have one key")
        rows = self.rows_of(np.array([sample["json"]["row"] for sample in samples], dtype="int64"), what)
        self.row_arrays(rows, [[sample[name] for sample in samples] for name in matrix], what)
        with tarfile.open(path) as tar:
            need(len(tar.getnames()) == len(samples) * (len(matrix) + 1), f"{what}: {len(tar.getnames())} members")
            need(all(member.isfile() and member.mode == 0o444 for member in tar), f"{what}: a member is no plain file")
        for column in self.columns:
            self.row_values([sample["json"][column.name] for sample in samples], column, rows, f"{what}: {column.name}")
        return rows

    def row_arrays(self, rows, arrays, what):
        """Arrays of each row: genes and expressions, or dense rows."""
        if not self.want.is_sparse:
            return self.dense(rows, np.stack(arrays[0]), what)
        genes, expressions = arrays
        lengths = [len(row) for row in genes]
        need(lengths == [len(row) for row in expressions], f"{what}: other numbers of genes and expressions")
        self.sparse(rows, np.concatenate(expressions), np.concatenate(genes), np.concatenate([[0], np.cumsum(lengths)]).astype("int64"), what)

    def row_values(self, got, column, rows, what):
        """Values of one column as Python objects; None if missing."""
        values = column.values[rows]
        for row, value, want, missing in zip(rows, got, values, column.mask[rows] if column.mask is not None else [False] * len(rows)):
            place = lambda: f"{what}: row {row}: {value!r}, not {want!r}"
            if missing or (column.kind == "categorical" and want < 0):
                need(value is None, place)
            elif column.kind == "categorical":
                need(value == column.categories[want], place)
            elif values.dtype.kind == "f":
                number = values.dtype.type(np.nan if value is None else value)
                need(number == want or (np.isnan(number) and np.isnan(want)), place)
            else:
                need(value == want, place)

    def tfrecord(self, path):
        what = path.name
        raw = path.read_bytes()
        masked = lambda data: (((crc := crc32c.crc32c(data)) >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        at, examples = 0, []
        while at < len(raw):
            n, crc = struct.unpack_from("<QI", raw, at)
            data = raw[at + 12:at + 12 + n]
            need(crc == masked(raw[at:at + 8]) and struct.unpack_from("<I", raw, at + 12 + n)[0] == masked(data), f"{what}: a checksum is wrong")
            example = tfrecord.example_pb2.Example()
            example.ParseFromString(data)
            examples.append(example.features.feature)
            at += 16 + n
        matrix = ["genes", "expressions"] if self.want.is_sparse else ["X"]
        names = {c.name: f"obs/{c.name}" if c.name in matrix else c.name for c in self.columns}
        rows = self.rows_of(np.array([e["row"].int64_list.value[0] for e in examples], dtype="int64"), what)
        arrays = [[np.array(e[name].float_list.value, "float32").astype(self.want.x_dtype) for e in examples] for name in matrix[-1:]]
        if self.want.is_sparse:
            arrays.insert(0, [np.array(e["genes"].int64_list.value, "int64") for e in examples])
        self.row_arrays(rows, arrays, what)
        for column in self.columns:
            lists = [e[names[column.name]] if names[column.name] in e else None for e in examples]
            values = [None if f is None else (list(f.int64_list.value) + list(f.float_list.value) + [v.decode() for v in f.bytes_list.value])[0] for f in lists]
            if column.values.dtype.kind == "f":
                column = stores.Column(column.name, column.kind, column.values.astype("float32"), mask=column.mask)
            elif column.values.dtype == np.uint64 and column.kind == "number":
                values = [v if v is None else int(v) for v in values]
            self.row_values(values, column, rows, f"{what}: {column.name}")
        described = {name: "int" if name in ("row", "genes") else "float" for name in ["row"] + matrix}
        again = list(tfrecord.tfrecord_loader(str(path), None, described))
        need([int(r["row"][0]) for r in again] == rows.tolist(), f"{what}: tfrecord_loader gives other rows")
        return rows

    def mds(self, path):
        number = int(re.search(r"batch-(\d+)", path.name)[1])
        index = json.loads((path.parent.with_suffix(".mds") / "index.json").read_text())
        need(index["version"] == 2, f"{path.name}: version {index['version']}")
        shard = index["shards"][number]
        names, encodings, told = shard["column_names"], shard["column_encodings"], shard["raw_data"]
        wanted = {"column_sizes": [None] * len(names), "compression": None, "format": "mds", "hashes": [], "version": 2, "zip_data": None}
        need({key: shard[key] for key in wanted} == wanted, lambda: f"{path.name}: {shard}")
        return self.shard(path, told["basename"], (shard["samples"], told["bytes"]), names, encodings)

    def litdata(self, path):
        number = int(re.search(r"batch-(\d+)", path.name)[1])
        index = json.loads((path.parent.with_suffix(".litdata") / "index.json").read_text())
        config, chunk = index["config"], index["chunks"][number]
        version, spec = json.loads(config["data_spec"])
        need(version == 1 and spec["type"] == "builtins.dict", lambda: f"{path.name}: {spec}")
        size = chunk["chunk_bytes"] + 4 * (chunk["chunk_size"] + 2)
        return self.shard(path, chunk["filename"], (chunk["chunk_size"], size), json.loads(spec["context"]), config["data_format"])

    def shard(self, path, file, described, names, encodings):
        """The samples of a shard: their number, offsets, lengths of columns, and columns decoded by their encoding."""
        what, kind = path.name, path.suffix[1:]
        raw = path.read_bytes()
        need((path.parent.with_suffix(path.suffix) / file).read_bytes() == raw, f"{what}: {file} has other bytes")
        count = int(np.frombuffer(raw, "<u4", 1)[0])
        need((count, len(raw)) == described, lambda: f"{what}: {count} samples in {len(raw)} bytes, but {described} in index.json")
        places = np.frombuffer(raw, "<u4", count + 1, 4).tolist()
        need(places[-1] == len(raw), f"{what}: the last sample ends at {places[-1]}")
        samples = []
        for begin, end in zip(places, places[1:]):
            lengths, at, sample = np.frombuffer(raw, "<u4", len(names), begin).tolist(), begin + 4 * len(names), {}
            for name, encoding, length in zip(names, encodings, lengths):
                sample[name] = shard_value(encoding, raw[at:at + length])
                at += length
            need(at == end, f"{what}: a sample ends at {at}, not {end}")
            samples.append(sample)
        matrix = ["genes", "expressions"] if self.want.is_sparse else ["X"]
        masks = {f"{c.name}/mask" for c in self.columns if c.mask is not None and c.kind != "categorical"}
        need(set(names) == {"row"} | set(matrix) | {c.name for c in self.columns} | masks, lambda: f"{what}: columns {names}")
        rows = self.rows_of(np.array([sample["row"] for sample in samples], dtype="int64"), what)
        self.row_arrays(rows, [[sample[name].astype(self.want.x_dtype if name != "genes" else "int64") for sample in samples] for name in matrix], what)
        for column in self.columns:
            values = [sample[column.name] for sample in samples]
            if f"{column.name}/mask" in masks:
                values = [None if sample[f"{column.name}/mask"] else value for sample, value in zip(samples, values)]
            elif column.kind == "categorical":
                values = [None if row < 0 else value for row, value in zip(column.values[rows], values)]
            if kind == "litdata" and column.values.dtype == np.uint64 and column.kind == "number":
                values = [v if v is None else int(v) for v in values]
            self.row_values(values, column, rows, f"{what}: {column.name}")
        return rows

    # the whole epoch and its documents

    def epoch(self, number, kind, drop_last=False):
        """The documents, then the batches; each reports its first difference."""
        wrong = []
        for part in (self.dataset, lambda: self.batches(number, kind, drop_last)):
            try:
                result = part()
            except Difference as difference:
                wrong.append(str(difference))
        need(not wrong, lambda: "; ".join(wrong))
        return result

    def batches(self, number, kind, drop_last):
        description = json.loads((self.mount / "dataset.json").read_text())
        directory = self.mount / f"epoch-{number:04d}"
        extension = kind.split("-")[0]
        listed = listing(directory)
        size = description["batch_size"]
        count = self.want.rows // size if drop_last else -(-self.want.rows // size)
        need(len(listed) == count == description["batches"],
             lambda: f"{directory.name}: {len(listed)} batches listed, {description['batches']} in dataset.json, {count} expected")
        need([name.split(".")[0] for name in listed] == [f"batch-{i:06d}" for i in range(count)], lambda: f"{directory.name}: names {listed[:3]}...")
        seen = []
        for i, name in enumerate(listed):
            path = directory / (name.split(".")[0] + "." + extension)
            before = path.stat().st_size
            rows = getattr(self, re.sub("[-.]", "_", kind))(path)
            data = path.read_bytes()
            need(before == len(data) == path.stat().st_size, lambda: f"{path.name}: st_size {before}, but {len(data)} bytes")
            full = len(rows) == size or (i == count - 1 and not drop_last)
            need(full and len(rows) <= size, lambda: f"{path.name}: {len(rows)} rows in a batch of {size}")
            seen.append(rows)
        seen = np.concatenate(seen)
        unique, times = np.unique(seen, return_counts=True)
        need((times == 1).all(), lambda: f"rows {unique[times > 1][:5]} appear more than once")
        if not drop_last:
            need(len(unique) == self.want.rows, lambda: f"rows {np.setdiff1d(np.arange(self.want.rows), unique)[:5]} never appear")
        return {"rows": len(seen), "batches": count, "first": [int(r) for r in seen[:4]]}

    def dataset(self):
        want = self.want
        d = json.loads((self.mount / "dataset.json").read_text())
        eq = lambda what, got, expected: need(got == expected, f"dataset.json: {what} is {got}, not {expected}")
        eq("stores", [s["rows"] for s in d["stores"]], want.sizes)
        eq("store paths", [os.path.basename(s["path"].rstrip("/")) for s in d["stores"]], self.named or [os.path.basename(p) for p in want.paths])
        eq("rows", d["rows"], want.rows)
        eq("genes", d["genes"] if isinstance(d["genes"], int) else len(d["genes"]), want.n_vars)
        eq("x", {k: d["x"][k] for k in ("element", "kind", "dtype")},
           {"element": self.x, "kind": "csr" if want.is_sparse else "dense", "dtype": want.x_dtype.name})
        eq("columns", [c["name"] for c in d["columns"]], [c.name for c in self.columns])
        for got, column in zip(d["columns"], self.columns):
            eq(f"kind of {column.name}", got["kind"], column.kind)
            if column.kind != "text":
                eq(f"dtype of {column.name}", got["dtype"], column.dtype.name)
            if column.kind == "categorical":
                eq(f"categories of {column.name}", got["categories"], len(column.categories))
                eq(f"ordered of {column.name}", got["ordered"], column.ordered)
                self.labels(column)
            else:
                eq(f"nullable of {column.name}", bool(got.get("nullable")), column.mask is not None)
        # At most all blocks can be mixed.
        k = min(d["batch_size"] * d["fetch_factor"] / d["block_size"], d["blocks"])
        need(abs(d["k"] - k) <= 1, f"dataset.json: k is {d['k']}, but {k} by its definition")
        need("seed" in d and "options" in d, "dataset.json: no seed or options")
        need((self.mount / "README.txt").read_text().strip(), "README.txt is empty")
        lines = (self.mount / "var.tsv").read_text().split("\n")
        need(lines.pop() == "", "var.tsv does not end with a newline")
        genes = [line.split("\t") for line in lines]
        if len(genes) == want.n_vars + 1:
            genes.pop(0)  # a header
        need([[g[0], unescape(g[1])] for g in genes] == [[str(i), name] for i, name in enumerate(want.genes)], "var.tsv differs")

    def labels(self, column):
        lines = (self.mount / "categories" / f"{column.name}.txt").read_text().split("\n")
        need(lines.pop() == "", f"categories/{column.name}.txt does not end with a newline")
        need([unescape(line) for line in lines] == column.categories, f"categories/{column.name}.txt: {lines}, not {column.categories}")


def served(mount, number):
    """The matrix of an epoch as one CSR or dense array in row order, by the npz batches."""
    parts, order = [], []
    for path in sorted((pathlib.Path(mount) / f"epoch-{number:04d}").iterdir()):
        with np.load(path.with_suffix(".npz")) as f:
            order.append(f["row"])
            if "indptr" in f:
                parts.append(sp.csr_matrix((f["data"], f["indices"], f["indptr"]), shape=tuple(f["shape"])))
            else:
                parts.append(f["X"])
    order = np.argsort(np.concatenate(order))
    return (sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts))[order]


def independent(mount, number, expected, want):
    """Compares the served matrix with what independent tools found in the store (`expected.json`)."""
    x = served(mount, number)
    stored = x.data if sp.issparse(x) else x
    close = lambda got, told: np.isclose(float(got), told, rtol=1e-5, atol=1e-6, equal_nan=True)
    # Values that are not numbers may or may not be included.
    rows = lambda sum: np.asarray(x.sum(axis=1) if sp.issparse(x) else sum(x.astype("float64"), axis=1)).reshape(-1)
    row = lambda row, value: any(close(rows(sum)[int(row)], value) for sum in (np.sum, np.nansum))
    checks = {
        "shape": lambda told: list(x.shape) == told,
        "dtype": lambda told: x.dtype.name == told,
        "nnz_stored": lambda told: x.nnz == told if sp.issparse(x) else True,
        "sum": lambda told: close(np.nansum(stored.astype("float64")), told) or close(stored.astype("float64").sum(), told),
        "empty_rows": lambda told: not sp.issparse(x) or int((np.diff(x.indptr) == 0).sum()) == told,
        "row_sums": lambda told: all(row(*item) for item in told.items()),
        "var": lambda told: not want.genes or [want.genes[0], want.genes[-1]] == told,
    }
    for what, check in checks.items():
        if expected.get(what) is not None:
            need(check(expected[what]), lambda: f"expected.json: {what} is {expected[what]}, served was something else")


LITDATA_DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64", "complex128", "bool"]


def shard_value(encoding, data):
    """A value of MosaicML's MDS or of LitData, decoded by their type names."""
    kind, _, rest = encoding.partition(":")
    if kind == "str":
        return data.decode()
    if kind == "no_header_numpy":
        return np.frombuffer(data, LITDATA_DTYPES[int(rest)])
    if kind == "numpy":
        dtype, axes = struct.unpack_from("<II", data)
        return np.frombuffer(data[8 + 4 * axes:], LITDATA_DTYPES[dtype]).reshape(struct.unpack_from(f"<{axes}I", data, 8))
    if kind == "ndarray":
        dtype, _, shape = rest.partition(":")
        if shape:
            return np.frombuffer(data, dtype).reshape([int(axis) for axis in shape.split(",")])
        axes, width = data[0] >> 2, 1 << (data[0] & 3)
        shape = [int.from_bytes(data[1 + width * i:1 + width * (i + 1)], "little") for i in range(axes)]
        return np.frombuffer(data[1 + width * axes:], dtype).reshape(shape)
    value, = np.frombuffer(data, {"int": "int64", "float": "float64"}.get(kind, kind))
    return value


def listing(directory):
    return sorted(os.listdir(directory))


def digits(text):
    """The significant digits of a decimal number: what `shortest` counts, in any notation."""
    return re.sub(r"[eE].*|[^0-9]", "", text).strip("0")


@functools.lru_cache(maxsize=4)
def load_cached(paths, states, x, join):
    return stores.load(paths, x, join)


def run(job):
    check = Check(job["mount"], job["stores"], job.get("x") or "X", job.get("obs"), job.get("join") or "exact")
    check.named = job.get("named")
    result = check.epoch(job.get("epoch", 0), job.get("format", "npz"), job.get("drop_last", False))
    if job.get("expected"):
        independent(job["mount"], job.get("epoch", 0), job["expected"], check.want)
    return {"ok": True, **result}


def answer(job):
    try:
        return run(job)
    except Difference as difference:
        return {"ok": False, "error": str(difference)}
    except Exception as error:
        return {"ok": False, "error": f"{type(error).__name__}: {error}; {traceback.format_exc(limit=-4)}"}


def main():
    if sys.argv[1:] == ["--serve"]:
        for line in sys.stdin:
            # A job that hangs is killed: the waiting test sees the end of output.
            signal.alarm(300)
            result = answer(json.loads(line))
            signal.alarm(0)
            print(json.dumps(result), flush=True)
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mount")
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--epoch", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS, default="npz")
    parser.add_argument("--x", default="X")
    parser.add_argument("--join", choices=["exact", "inner", "outer"], default="exact")
    parser.add_argument("--obs", type=lambda text: text.split(","))
    parser.add_argument("--drop-last", action="store_true")
    result = answer(vars(parser.parse_args()))
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
