"""Readers of one batch file, with only numpy."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a ``.safetensors`` batch of a mount, by name.

    Sparse X: ``data`` (nnz,), ``indices`` (nnz,), ``indptr`` (rows + 1,) and ``shape`` (2,); dense X: ``X`` (rows, genes).
    ``row`` (rows,) has row numbers over all stores. ``obs/COLUMN`` (rows,) has values; of a categorical column codes, -1 if
    missing; of a text column str. Names of further matrices begin with their path: ``layers/NAME/data``, ``obsm/NAME``.
    The arrays can be written to; they share one buffer, filled by one read.

    Raises OSError: ESTALE if the store has changed since it was mounted, EIO if the data of this batch are damaged.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        buffer = np.empty(size, np.uint8)
        view = memoryview(buffer)
        at = 0
        while at < size:
            count = file.readinto(view[at:])
            if not count:
                raise OSError(f"{os.fspath(path)}: ends at byte {at} of {size}")
            at += count
    begin = 8 + int(buffer[:8].view("<u8")[0])
    header = json.loads(bytes(view[8:begin]))
    metadata = header.pop("__metadata__", {})
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        array = buffer[begin + first : begin + end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        arrays[name] = _text(array) if name.startswith("obs/") and array.ndim == 2 else array
    for name, value in metadata.items():
        if name == "shape" or name.endswith("/shape"):
            if name != "shape" or "indptr" in arrays:
                arrays[name] = np.asarray(json.loads(value), np.int64)
    return arrays


def _text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows of UTF-8 bytes, filled with zeros, as str."""
    width = array.shape[1]
    if not len(array) or not width:
        return np.zeros(len(array), "U1")
    return np.char.decode(np.ascontiguousarray(array).view(f"S{width}").reshape(-1), "utf-8")


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an ``.npz`` batch, by the same names; slower than ``read_safetensors``."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def read_npy(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """X of an ``.npy`` batch, dense: ``{"X": (rows, genes)}``."""
    return {"X": np.load(path, allow_pickle=False)}


READERS = {"safetensors": read_safetensors, "npz": read_npz, "npy": read_npy}
