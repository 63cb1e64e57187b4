"""Everything about the CUDA engine that only a GPU can tell, in one command that goes on where it was ended.

    python -m bench.gpu [--minutes 9] [--out FOLDER] [--data CIFAR10]
    python -m bench.gpu --estimate

Needed: Linux, an NVIDIA driver from 580 on, and `pip install '.[serve,gpu]'`. Nothing is fetched from a network, and no
C compiler is needed. Optional: PyTorch with CUDA (cuDNN and `torch.compile` as rivals, which without it are left out;
and with `.[train]` the 50-layer artifact that is served), TensorRT, compute-sanitizer, nvidia-smi.

The parts, in their order: the machine and its ceilings; whether each plan is right in each precision; the time of plans
beside ungated networks; the service over HTTP; a sanitizer over a run of each plan; rivals that take minutes to get
ready. The result of each is a file in FOLDER as soon as it is there, and a part that has one is not run again. A part
that may not be done in time is not begun, and told. Remove a file to measure its part anew.

`--estimate` needs no GPU: it prints a roofline of the plans' launches for a card like an H200, see `estimate`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.gpu.estimate import Card, estimate
from bench.gpu.figures import estimated, told
from bench.gpu.measurements import PARTS, Setting, measured
from bench.gpu.parts import in_process, results, run_parts, write_result
from bench.report import print_result
from models.config import preset

_ROOT = Path(__file__).resolve().parent.parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_NETWORKS = ("convnet-aig-50-imagenet", "convnet-aig-110-cifar10")
_BATCHES, _SHARES = (1, 8, 32, 128), (1.0, 0.8, 0.6, 0.4)
# Of the time given, what is kept for the tables.
_SPARE_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if everything was measured and every aim holds."""
    began = time.monotonic()
    arguments = _arguments(argv)
    setting = Setting(arguments.model, arguments.out, arguments.data)
    if arguments.part:
        write_result(arguments.out, arguments.part, measured(arguments.part, setting))
        return 0
    if arguments.estimate:
        rows = [row for name in _NETWORKS for row in estimate(preset(name), _BATCHES, _SHARES, Card())]
        print("Estimated, not run on a GPU.", estimated(rows), sep="\n\n")
        return print_result(True, {"benchmark": "gpu", "estimate": True, "card": vars(Card()), "rows": rows})
    options = ["--out", str(arguments.out), "--model", str(arguments.model)]
    if arguments.data:
        options += ["--data", str(arguments.data)]
    left = 60 * arguments.minutes - _SPARE_S - (time.monotonic() - began)
    missing = run_parts(PARTS, arguments.out, left, partial(in_process, options))
    found = results(arguments.out, PARTS)
    text, missed = told(found, missing)
    print(text)
    for problem in missed:
        print("missed:", problem)
    ok = not missed and not missing
    return print_result(ok, {"benchmark": "gpu", "missed": missed, "not_measured": missing, "results": found})


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Is the CUDA engine right, and fast?")
    parser.add_argument("--minutes", type=float, default=9.0, help="in all (default: %(default)g)")
    parser.add_argument(
        "--out", type=Path, default=_ROOT / ".bench" / "gpu", help="folder of the results (default: .bench/gpu)"
    )
    parser.add_argument("--data", type=Path, help="CIFAR-10 images to compare on (default: generated ones alone)")
    parser.add_argument("--model", type=Path, default=_SHIPPED, help="an artifact (default: the shipped one)")
    parser.add_argument("--estimate", action="store_true", help="print a roofline instead; needs no GPU")
    parser.add_argument("--part", help="measure that part alone, in this process")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
