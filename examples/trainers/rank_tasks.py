"""Ranks without a launcher that sets variables: the tasks of Dask or of Ray each mount their part and read it.

usage: rank_tasks.py SHUFFLEFS dask|ray RANKS STORE...

With `dask.distributed.Client(ADDRESS)` or `ray.init(ADDRESS)` the tasks run on a cluster; all of its nodes must see the
stores. A task that is run twice, because a worker was lost, reads the same batches.
"""
import subprocess
import sys

# The command of a task on its mount, instead of a trainer: prints the numbers of its rows.
READ = """
import glob, sys
import numpy as np
for path in sorted(glob.glob(sys.argv[1] + "/epoch-0000/*.npz")):
    print(*np.load(path)["row"])
"""


def train(binary, rank, ranks, stores):
    command = [binary, "run", "--rank", f"{rank}/{ranks}", *stores, "--", sys.executable, "-c", READ, "{}"]
    return [int(row) for row in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def main():
    binary, cluster, ranks, *stores = sys.argv[1:]
    ranks = int(ranks)
    if cluster == "dask":
        from dask.distributed import Client, LocalCluster

        # Processes: each rank as on a separate node.
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local, Client(local) as client:
            tasks = [client.submit(train, binary, rank, ranks, stores, pure=False) for rank in range(ranks)]
            parts = client.gather(tasks)
    else:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        task = ray.remote(num_cpus=1)(train)
        parts = ray.get([task.remote(binary, rank, ranks, stores) for rank in range(ranks)])
        ray.shutdown()
    rows = sorted(row for part in parts for row in part)
    assert all(parts) and rows == list(range(len(rows))), "not each row once"
    print(f"{cluster}: {len(rows)} rows, each once, in {ranks} ranks of {sorted(len(part) for part in parts)}")


if __name__ == "__main__":
    main()
