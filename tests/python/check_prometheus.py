"""Statistics in Prometheus' text format, read by Prometheus' own parser, equal those of stats.json.

usage: check_prometheus.py MOUNT ROWS BYTES     (what was served so far)
"""

import json
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

place = Path(sys.argv[1], ".shufflefs")
families = text_string_to_metric_families((place / "stats.prom").read_text())
samples = {sample.name + sample.labels.get("store", ""): sample.value for family in families for sample in family.samples}
wanted = {}
for group, values in json.loads((place / "stats.json").read_text()).items():
    for name, value in values.items() if isinstance(values, dict) else [(None, values)]:
        if isinstance(value, dict):
            wanted |= {f"shufflefs_{group}_{figure}{name}": number for figure, number in value.items()}
            continue
        wanted["_".join(filter(None, ["shufflefs", group, name]))] = value
assert samples.keys() == wanted.keys(), samples.keys() ^ wanted.keys()
# Time goes on between the two.
different = {name for name in wanted if samples[name] != wanted[name]} - {"shufflefs_uptime_seconds"}
assert not different, different
assert samples["shufflefs_served_rows"] == int(sys.argv[2]), samples
assert samples["shufflefs_served_bytes"] == int(sys.argv[3]), samples
latency = lambda name: samples[f"shufflefs_latency_microseconds_{name}"]
assert 0 <= latency("read_p50") <= latency("read_p99"), samples
# The first file waited for its fetch.
assert 0 <= latency("first_byte_p50") <= latency("first_byte_p99") and latency("first_byte_p99") > 0, samples
