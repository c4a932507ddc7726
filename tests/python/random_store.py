"""Writes a store whose values no compressor makes smaller: random_store.py STORE ROWS"""
import sys

import anndata
import numpy as np

path, rows = sys.argv[1], int(sys.argv[2])
bits = np.random.default_rng(0).integers(0, 1 << 23, (rows, 256), dtype="u4") | 0x3F800000
anndata.AnnData(bits.view("f4")).write_h5ad(path)
