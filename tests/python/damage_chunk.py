"""Damages a store in place: damage_chunk.py STORE ELEMENT [--values]

The middle chunk of an element gets bytes that its filter cannot decode; with --values all its values change (the file keeps its
layout if it is uncompressed or if the new chunks fit).
"""
import sys

import h5py

path, element = sys.argv[1:3]
if "--values" in sys.argv:
    with h5py.File(path, "r+") as file:
        file[element][:] = file[element][:] + 1
else:
    with h5py.File(path, "r") as file:
        data = file[element]
        chunk = data.id.get_chunk_info(data.id.get_num_chunks() // 2)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(b"\xff" * min(64, chunk.size // 2))
