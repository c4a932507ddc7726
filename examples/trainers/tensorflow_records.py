#!/usr/bin/env python3
"""An epoch by TensorFlow's TFRecordDataset: tensorflow_records.py EPOCH_DIRECTORY STORE.h5ad LABEL_COLUMN

Each record is a `tf.train.Example`, whose checksums TensorFlow checks. Each row comes once, with the values that anndata reads from the store.
"""
import os
import sys
import time

import anndata
import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

directory, store, column = sys.argv[1:]
want = anndata.read_h5ad(store)
paths = [os.path.join(directory, f"{name.split('.')[0]}.tfrecord") for name in sorted(os.listdir(directory))]
features = {
    "row": tf.io.FixedLenFeature([], tf.int64),
    "genes": tf.io.RaggedFeature(tf.int64),
    "expressions": tf.io.RaggedFeature(tf.float32),
    column: tf.io.FixedLenFeature([], tf.string),
}
epoch = tf.data.TFRecordDataset(paths).batch(64).map(lambda records: tf.io.parse_example(records, features))
start, seen = time.monotonic(), []
for batch in epoch:
    rows = batch["row"].numpy()
    x = np.zeros((len(rows), want.n_vars), "float32")
    for i in range(len(rows)):
        x[i, batch["genes"][i].numpy()] = batch["expressions"][i].numpy()
    assert np.array_equal(x, want.X[rows].toarray()), "values differ from the store's"
    labels = [label.decode() for label in batch[column].numpy()]
    assert labels == list(want.obs[column].iloc[rows].astype(object)), "labels differ from the store's"
    seen.extend(rows.tolist())
seconds = time.monotonic() - start
assert sorted(seen) == list(range(want.n_obs)) and seen != sorted(seen), "an epoch has each row once, shuffled"
print(f"{len(seen)} rows, {len(seen) / seconds:.0f} rows/s")
