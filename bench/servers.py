"""This service beside other serving frameworks: the same model.onnx, images, cores and load.

    python -m bench.servers

Every server gets a closed loop of 1, 4, 16 and 64 clients, which finds its capacity, then an open loop of random
arrivals at several multiples of that. Servers take turns in every round. Goodput counts answers within three times the
server's own unloaded p99. Each peer is installed in an environment of its own, as its documentation says is best.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from artifact.manifest import read_manifest
from bench.comparison import CLIENTS, LOADS, Case, Comparison
from bench.images import probe_jpegs
from bench.in_process import InProcess
from bench.load import Check, Result, closed_loop, open_loop
from bench.networks import build_artifact
from bench.peer_servers import PEERS, SERVICE, Peer, Server, ServerError, install, running
from bench.report import print_result
from service.engine.runtimes.onnx import OnnxRuntime

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT = 8400
_TIMEOUT_S = 10.0
_PRESET, _OPEN_SHARE = "convnet-aig-110-cifar10", 0.45


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all servers; exit status 0 if every target holds."""
    arguments = _arguments(argv)
    model = arguments.model or build_artifact(
        _PRESET, _ROOT / ".bench" / "networks" / f"{_PRESET}-{_OPEN_SHARE:.0%}-open", open_share=_OPEN_SHARE
    )
    files = probe_jpegs(_SHIPPED)
    reference = InProcess(OnnxRuntime(model, read_manifest(model), "cpu"), files)
    predictions = [reference.prediction(index) for index in range(len(files))]
    peers = [peer for peer in (SERVICE, *PEERS) if not arguments.only or peer.name in arguments.only]
    installed = []
    for peer in peers:
        try:
            install(peer, tqdm.write)
            installed.append(peer)
        except ServerError as error:
            tqdm.write(f"left out: {error}")
    comparison = Comparison(SERVICE.name)
    seconds = arguments.seconds
    for measured_round in range(arguments.rounds):
        for peer in tqdm(installed, desc=f"round {measured_round + 1} of {arguments.rounds}", unit="server"):
            try:
                with running(peer, model, _PORT) as server:
                    _measure(comparison, peer, server, files, predictions, seconds)
            except ServerError as error:
                tqdm.write(f"left out of this round: {error}")
    print(comparison.tables())
    comparison.draw(arguments.charts, f"{read_manifest(model).name}, about {_OPEN_SHARE:.0%} of the gates open")
    missed = comparison.problems()
    for problem in missed:
        print("missed:", problem)
    return print_result(not missed, {"benchmark": "servers", "missed": missed, **comparison.as_json()})


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.servers", description="Compare serving frameworks.")
    parser.add_argument("--model", type=Path, help="folder of an artifact (default: a random 110-layer network)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement (default: %(default)g)")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="a server; may be given several times (default: all)"
    )
    parser.add_argument(
        "--charts", type=Path, default=_ROOT / "docs", help="folder of the results' pictures (default: docs)"
    )
    return parser.parse_args(argv)


def _measure(
    comparison: Comparison,
    peer: Peer,
    server: Server,
    files: Sequence[bytes],
    predictions: Sequence[int],
    seconds: float,
) -> None:
    """All loads on one server, in one round."""

    def right(index: int, body: bytes) -> bool:
        return bool(server.parse(body)["predictions"][0]["index"] == predictions[index])

    _closed(server, files, 16, seconds, None)  # until every worker of it is up and warm
    for clients in CLIENTS:
        comparison.add(Case(peer.name, "clients", clients), _closed(server, files, clients, seconds, right))
    comparison.note_memory(peer.name, server.resident_bytes())
    capacity = comparison.capacity(peer.name)
    for load in LOADS:
        result = open_loop(
            server.url, files, server.headers, load * capacity, seconds, 1.0, _TIMEOUT_S, seed=0, check=right
        )
        comparison.add(Case(peer.name, "load", load), result)
        time.sleep(1)  # for what it still has queued


def _closed(server: Server, files: Sequence[bytes], clients: int, seconds: float, check: Check | None) -> Result:
    return closed_loop(server.url, files, server.headers, clients, seconds, 0.5, _TIMEOUT_S, check)


if __name__ == "__main__":
    sys.exit(main())
