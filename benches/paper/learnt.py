"""What is learnt in one epoch of ordered data, by how rows are drawn: `scripts/paper learnt`.

The data are ordered as Tahoe-100M is: plates one after the other, in a plate the wells of one drug each, in a well cells of all lines.
A cell's log expression is that of its line, plus its drug's effect, plus its plate's offset, plus noise; a fifth of the rows is held out at random.
A linear model and a perceptron with one hidden layer (128) learn drug and line at once (two heads), Adam, batches of 64, one epoch;
the reader is numpy on the files of a mount. Five seeds: each another epoch and another initialisation.
"""
import sys
import time

import numpy as np

from common import OUT, files, interval, keep, made, mounted, plot

CELLS, GENES, PLATES, DRUGS, LINES, WELLS = 100_000, 200, 10, 40, 20, 16
SEEDS, BATCH = 5, 64
KS = [1, 4, 16, 64, 256, 1024]


def store(path):
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    base = rng.normal(-0.5, 1.0, GENES)
    line_effect = rng.normal(0, 0.6, (LINES, GENES)) * (rng.random((LINES, GENES)) < 0.3)
    drug_effect = rng.normal(0, 0.9, (DRUGS, GENES)) * (rng.random((DRUGS, GENES)) < 0.12)
    plate_effect = rng.normal(0, 0.15, (PLATES, GENES))
    plate = np.repeat(np.arange(PLATES), CELLS // PLATES)
    drug = np.concatenate([np.repeat(rng.choice(DRUGS, WELLS, replace=False), CELLS // PLATES // WELLS) for _ in range(PLATES)])
    # Lines are not equally frequent.
    line = rng.choice(LINES, CELLS, p=rng.dirichlet(np.full(LINES, 3.0)))
    blocks = []
    for start in range(0, CELLS, 10_000):
        at = slice(start, start + 10_000)
        mean = np.exp(base + line_effect[line[at]] + drug_effect[drug[at]] + plate_effect[plate[at]] + rng.normal(0, 0.3, (10_000, GENES)))
        blocks.append(sp.csr_matrix(np.log1p(rng.poisson(mean)).astype("f4")))
    names = lambda kind, codes, count: pd.Categorical.from_codes(codes, [f"{kind}{i}" for i in range(count)])
    obs = pd.DataFrame({"plate": names("plate", plate, PLATES), "drug": names("drug", drug, DRUGS), "line": names("line", line, LINES)},
                       index=[str(i) for i in range(CELLS)])
    ad.AnnData(sp.vstack(blocks, format="csr"), obs=obs).write_h5ad(path)


def load(path):
    with np.load(path) as file:
        rows = len(file["row"])
        x = np.zeros((rows, GENES), "f4")
        x[np.repeat(np.arange(rows), np.diff(file["indptr"])), file["indices"]] = file["data"]
        return x, file["obs/drug"].astype("i8"), file["obs/line"].astype("i8")


class Model:
    """One or two layers and two heads of logits; Adam."""

    def __init__(self, hidden, seed):
        rng = np.random.default_rng(seed)
        last = hidden or GENES
        self.hidden, shapes = hidden, ([(GENES, hidden), (hidden,)] if hidden else []) + [(last, DRUGS), (DRUGS,), (last, LINES), (LINES,)]
        self.parameters = [rng.normal(0, shape[0] ** -0.5, shape).astype("f4") if len(shape) == 2 else np.zeros(shape, "f4") for shape in shapes]
        self.first, self.second = ([np.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.step, self.rate = 0, 2e-3 if hidden else 5e-3

    def forward(self, x):
        inner = np.maximum(x @ self.parameters[0] + self.parameters[1], 0) if self.hidden else x
        w, b, v, c = self.parameters[-4:]
        return inner, inner @ w + b, inner @ v + c

    def learn(self, x, drug, line):
        inner, logits, others = self.forward(x)
        gradients, back = [], 0
        for scores, label, weights in [(logits, drug, self.parameters[-4]), (others, line, self.parameters[-2])]:
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(x)), label] -= 1
            p /= len(x)
            gradients += [inner.T @ p, p.sum(0)]
            if self.hidden:
                back = back + p @ weights.T
        if self.hidden:
            back = back * (inner > 0)
            gradients = [x.T @ back, back.sum(0)] + gradients
        self.step += 1
        scale = self.rate * (1 - 0.999**self.step) ** 0.5 / (1 - 0.9**self.step)
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            p -= scale * m / (np.sqrt(v) + 1e-8)

    def scores(self, x, drug, line):
        _, logits, others = self.forward(x)
        told = {}
        for name, scores, label, count in [("drug", logits, drug, DRUGS), ("line", others, line, LINES)]:
            top = scores.max(1, keepdims=True)
            told[f"{name} loss"] = float((np.log(np.exp(scores - top).sum(1)) + top[:, 0] - scores[np.arange(len(x)), label]).mean())
            guess, f1 = scores.argmax(1), []
            for i in range(count):
                right = ((guess == i) & (label == i)).sum()
                f1.append(2 * right / max((guess == i).sum() + (label == i).sum(), 1))
            told[f"{name} F1"] = float(np.mean(f1))
        return told


def settings():
    split = ["--split", "train=0.8,test=0.2", "--batch-size", BATCH, "--obs", "drug,line"]
    yield "streaming", [*split, "--order", "sequential"]
    for k in KS:
        block = 16 if k >= 4 else 64
        yield f"k={k}", [*split, "--block-size", block, "--fetch-factor", k * block // BATCH]
    yield "default", split
    yield "perfect", [*split, "--order", "random", "--fetch-factor", CELLS // BATCH]
    yield "weighted (--balance line)", [*split, "--balance", "line", "--block-size", 16, "--fetch-factor", 256]
    yield "one drug a batch (--class-batches drug)", [*split, "--class-batches", "drug", "--block-size", 16, "--fetch-factor", 256]


def main():
    cells = made("ordered.h5ad", store)
    test, results, speeds = None, {}, {}
    for name, options in settings():
        with mounted([cells], *options) as place:
            if test is None:
                parts = [load(path) for path in files(place / "test/epoch-0000", "npz")]
                test = [np.concatenate(column) for column in zip(*parts)]
            for seed in range(SEEDS):
                models = {"linear": Model(0, seed), "perceptron": Model(128, seed)}
                # Read in advance, so that the seconds in the JSON are only those of reading.
                paths, start = files(place / f"train/epoch-{seed:04d}", "npz"), time.perf_counter()
                batches = [load(path) for path in paths]
                speeds.setdefault(name, []).append(sum(len(b[0]) for b in batches) / (time.perf_counter() - start))
                for batch in batches:
                    for model in models.values():
                        model.learn(*batch)
                for kind, model in models.items():
                    results.setdefault(name, {}).setdefault(kind, []).append(model.scores(*test))
        print(name, {kind: {key: round(interval([one[key] for one in ran])[0], 3) for key in ran[0]} for kind, ran in results[name].items()}, file=sys.stderr, flush=True)
    columns = [(kind, key) for kind in ("linear", "perceptron") for key in ("drug F1", "drug loss", "line F1", "line loss")]
    rows, lines = [], {}
    for name, of in results.items():
        cells_ = []
        for kind, key in columns:
            mean, half = interval([one[key] for one in of[kind]])
            cells_.append(f"{mean:.3f} ± {half:.3f}")
            if key.endswith("F1"):
                lines.setdefault(f"{kind}, {key.split()[0]}", []).append((name.split(" (")[0].replace("one drug a batch", "by drug"), mean, half))
        rows.append([name, *cells_])
    keep("learnt", {"results": results, "rows_per_second": speeds, "cells": CELLS, "genes": GENES},
         ["rows drawn", *(f"{kind}: {key}" for kind, key in columns)], rows)
    ticks = [name.split(" (")[0].replace("one drug a batch", "by drug") for name in results]
    plot("learnt", "macro-F1 on held-out cells after one epoch (95 % intervals of 5 seeds)", "how rows are drawn", "macro-F1", ticks,
         list(lines.items()), y_max=1.0)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    main()
