"""A Ray cluster on this machine, whose nodes come and go as the lines on its standard input say.

python cluster.py DASHBOARD_PORT METRICS_PORT HEAD_CPUS

A line says where it is when it is ready. `add NAME` and `kill NAME` are answered with a line when that is done. The
cluster ends with its standard input.
"""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster

SMALL = {"object_store_memory": 100 * 2**20}


def main() -> None:
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": int(sys.argv[1])}
    agent = {"metrics_export_port": int(sys.argv[2])}
    head = {"num_cpus": int(sys.argv[3]), "resources": {"front": 4}}
    cluster = Cluster(initialize_head=True, head_node_args={**head, **SMALL, **dashboard, **agent})
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="WARNING")
        print(f"ready {cluster.address}", flush=True)
        nodes: dict[str, Any] = {}
        for line in sys.stdin:
            word, name = line.split()
            if word == "add":
                nodes[name] = cluster.add_node(num_cpus=1, resources={"engines": 1}, **SMALL)
            else:
                cluster.remove_node(nodes.pop(name), allow_graceful=False)
            print("done", flush=True)
        ray.shutdown()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
