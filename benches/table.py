"""The table, one JSON file a row, and a plot of a run of scripts/bench.

usage: table.py DIRECTORY      (which holds results.jsonl)
"""
import collections, json, os, sys

# Target ratios: (row, side) -> minimum.
TARGETS = {
    ("raw", "safetensors"): 8, ("raw", "drain"): 12, ("gzip", "safetensors"): 8,
    ("annbatch-64", "safetensors"): 2, ("annbatch-64", "drain"): 3,
    ("annbatch-4096", "safetensors"): 1.4, ("annbatch-4096", "drain"): 3,
    ("npz256", "npz"): 1.3, ("npz256", "record.npy"): 1, ("zarr-3.7", "safetensors"): 2.5, ("zarr-3.46", "safetensors"): 1,
    ("jobs", "two jobs"): 1.7, ("slow-annbatch", "drain"): 10, ("dense-64", "npy"): 2, ("dense-4096", "npy"): 2,
}

directory = sys.argv[1]
rows = collections.OrderedDict()
for line in open(os.path.join(directory, "results.jsonl")):
    result = json.loads(line)
    rows.setdefault(result["row"], []).append(result)

lines = ["| row | side | rows/s | entropy | ratio to the peer | target | ratio to the floor |", "| --- | --- | --- | --- | --- | --- | --- |"]
bars = []
for row, sides in rows.items():
    with open(os.path.join(directory, f"{row}.json"), "w") as file:
        json.dump(sides, file, indent=1)
    peer = next((side["sps"] for side in sides if side["side"] == "peer"), None)
    floor = next((side["sps"] for side in sides if side["side"] == "floor"), None)
    for side in sides:
        # Some sides have a note after a comma.
        name = side["side"]
        kind = name.split(",")[0]
        if "first_ms" in side:
            lines.append(f"| {row} | | first batch after {side['first_ms']:.0f} ms | | | 150 ms | |")
        elif "rss_mb" in side:
            beyond = f", {side['beyond_mb']:.0f} MB beyond the budget" if "beyond_mb" in side else ""
            lines.append(f"| {row} | {name} | peak RSS {side['rss_mb']:.0f} MB{beyond} | | | | |")
        elif "sps" not in side:
            figures = ", ".join(f"{key} {value:.3g}" for key, value in side.items() if isinstance(value, (int, float)))
            lines.append(f"| {row} | {name} | {figures} | | | | |")
        else:
            ratio = f"{side['sps'] / peer:.2f}x" if peer and name not in ("peer", "floor") else ""
            target = f"{TARGETS[row, kind]}x" if (row, kind) in TARGETS else ""
            to_floor = f"{side['sps'] / floor:.2f}" if floor and kind == "drain" else ""
            entropy = f"{side['ent_mean']:.2f}" if side.get("ent_mean") else ""
            who = side.get("name", "") if name == "peer" else name
            lines.append(f"| {row} | {who} | {side['sps']:,.0f} | {entropy} | {ratio} | {target} | {to_floor} |")
            bars.append((f"{row} {name}", side["sps"], name))
table = "\n".join(lines)
print(table)
open(os.path.join(directory, "table.md"), "w").write(table + "\n")

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

colours = {"peer": "#999999", "floor": "#dddddd"}
figure, axes = plt.subplots(figsize=(8, 0.25 * len(bars) + 1))
axes.barh([name for name, _, _ in bars][::-1], [speed / 1000 for _, speed, _ in bars][::-1],
          color=[colours.get(side, "#2a6f97") for _, _, side in bars][::-1])
axes.set_xlabel("thousand rows a second")
figure.tight_layout()
figure.savefig(os.path.join(directory, "rates.svg"))
