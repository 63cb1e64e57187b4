"""What do several models cost one server, and does memory go back when models go?

    python -m bench.several_models [--rounds 5] [--reloads 100]

The same server with two models: images a second where one of them is asked for, and where both are at the same time.
Then one of them is loaded again and again while the other answers, and the memory of all processes is told.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import httpx
from tqdm import tqdm

from bench.chaos.service_process import ServiceProcess, wait_until
from bench.load import closed_loop
from bench.report import print_result, table

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT, _CLIENTS, _WARMUP_S, _TIMEOUT_S = 8450, 16, 1.0, 10.0
_NAMES = ("one", "two")
# Least images a second with two models, of those with one; most memory after all reloads, of that after the tenth.
_LEAST_SUM, _MOST_MEMORY = 0.95, 1.05


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if every target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.several_models", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=_SHIPPED, help="served under two names (default: the shipped one)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement (default: %(default)g)")
    parser.add_argument("--reloads", type=int, default=100, help="of one model (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        repository = _repository(arguments.model, Path(folder) / "models")
        socket = Path(folder) / "admin.sock"
        flags = ["--model-repository", str(repository), "--admin-socket", str(socket)]
        service = ServiceProcess(arguments.model, _PORT, Path(folder) / "cache", Path(folder) / "log", flags)
        try:
            service.wait_until_it_listens(120)
            with httpx.Client(base_url=f"http://127.0.0.1:{_PORT}", trust_env=False) as client:
                wait_until(lambda: client.get("/readyz").status_code == 200, 120)
            rates = _rates(arguments.rounds, arguments.seconds)
            memory, lost = _reloaded(service, socket, arguments.reloads)
        finally:
            service.terminate()
            if service.exit_status(30) is None:
                service.kill()
    print(table(["models asked for", "images/s"], [[name, f"{median(each):.0f}"] for name, each in rates.items()]))
    share = median(both / one for both, one in zip(rates["both"], rates["one"], strict=True))
    print(f"both together, of one alone: {share:.3f}")
    print(table(["reloads", "MB of all processes"], [[str(at), f"{size / 1e6:.0f}"] for at, size in memory.items()]))
    grown = memory[arguments.reloads] / memory[min(10, arguments.reloads)]
    ok = share >= _LEAST_SUM and grown <= _MOST_MEMORY and not lost
    told = {"images_per_s": rates, "both_of_one": share, "memory_bytes": memory, "grown": grown, "lost": lost}
    return print_result(ok, {"benchmark": "several_models", "model": arguments.model.parent.name, **told})


def _repository(model: Path, repository: Path) -> Path:
    """A folder that has the model under two names."""
    for name in _NAMES:
        place = repository / name / "1"
        shutil.copytree(model, place)
        manifest = place / "manifest.json"
        manifest.write_text(manifest.read_text().replace(f'"name": "{model.parent.name}"', f'"name": "{name}"', 1))
    return repository


def _rates(rounds: int, seconds: float) -> dict[str, list[float]]:
    """Images a second of each round, where one model is asked for, and where both are."""
    rates: dict[str, list[float]] = {"one": [], "both": []}
    for _ in tqdm(range(rounds), desc="rounds"):
        rates["one"].append(_rate("one", _CLIENTS, seconds))
        with ThreadPoolExecutor(len(_NAMES)) as loads:
            rates["both"].append(sum(loads.map(lambda name: _rate(name, _CLIENTS // 2, seconds), _NAMES)))
    return rates


def _rate(name: str, clients: int, seconds: float) -> float:
    url = f"http://127.0.0.1:{_PORT}/models/{name}/classify?graph=none"
    headers = {"Content-Type": "image/webp"}
    result = closed_loop(url, _images(), headers, clients, seconds, _WARMUP_S, _TIMEOUT_S)
    return result.images_per_s


def _images() -> list[bytes]:
    return [path.read_bytes() for path in sorted((_ROOT / "service/ui/static/samples").glob("*.webp"))]


def _reloaded(service: ServiceProcess, socket: Path, times: int) -> tuple[dict[int, int], int]:
    """Memory of all processes by the number of reloads, and how many requests to the other model failed meanwhile."""
    memory, failed = {0: service.footprint().resident_bytes}, 0
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=120) as admin:
        for number in tqdm(range(1, times + 1), desc="reloads"):
            admin.post("/models/two/load").raise_for_status()
            failed += admin.post("/models/one/classify", content=_images()[0]).status_code != 200
            if number % 10 == 0 or number == times:
                memory[number] = service.footprint().resident_bytes
    return memory, failed


if __name__ == "__main__":
    sys.exit(main())
