#!/usr/bin/env python3
"""One rank of a job that is killed in mid-epoch, or that continues with the remaining batches.

    elastic_rank.py MOUNT OUT STEPS    reads STEPS batches of its rank, says so, and waits to be killed
    elastic_rank.py MOUNT OUT PLAN     reads its files of what `plan --resume` printed (rank, tab, path)

Rows go to OUT/seen-WORLD-RANK, after each batch.
"""
import os
import pathlib
import sys
import time

import numpy as np

mount, out, what = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if what.isdigit():
    files = sorted((mount / f"rank-{rank}-of-{world}/epoch-0000").iterdir())[: int(what)]
else:
    lines = (line.split("\t") for line in pathlib.Path(what).read_text().splitlines())
    files = [mount / path for number, path in lines if int(number) == rank]
with open(out / f"seen-{world}-{rank}", "w") as seen:
    for file in files:
        seen.writelines(f"{row}\n" for row in np.load(file)["row"])
        seen.flush()
if what.isdigit():
    (out / f"stopped-{rank}").touch()
    time.sleep(600)
