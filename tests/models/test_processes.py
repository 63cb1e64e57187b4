"""One run on two processes, as torchrun starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from models.checkpoint import Checkpoint, load
from models.config import preset
from models.data import Dataset, load_pixels
from models.sources import open_examples
from models.train import main
from models.trainer import BEST_NAME, CHECKPOINT_NAME
from tests.conftest import MakeFolders
from tests.models.conftest import metrics, same_tensors
from tests.runtimes import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PRESET = "convnet-aig-8-cifar10"
_ENVIRONMENT = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def data(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "data", ("cat", "dog"), each=20)


def _arguments(data: Path, out: Path, *more: str) -> list[str]:
    settings = ["--preset", PRESET, "--data", str(data), "--out", str(out), "--precision", "fp32", "--device", "cpu"]
    return [*settings, "--batch-size", "8", "--held-out", "8", "--lr", "0.05", "--epochs", "2", *more]


# Trains, and tells the names of the threads that are left.
_TELLING_THREADS = """
import sys
from pathlib import Path
from models.train import main
status = main(sys.argv[1:])
print("left:", *((thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()), flush=True)
sys.exit(status)
"""


def _command(arguments: list[str], program: Sequence[str] = ("-m", "models.train")) -> list[str]:
    # By its address, since a machine that runs tests need not know its own name.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    return [*torchrun, "--nproc-per-node", "2", "--no-python", sys.executable, *program, *arguments]


def _on_two(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True, timeout=110, check=False)


def _trained(arguments: list[str]) -> Checkpoint:
    return load(Path(arguments[arguments.index("--out") + 1]) / CHECKPOINT_NAME)


def test_two_processes_take_the_steps_of_one(data: Path, tmp_path: Path) -> None:
    # Without gates, whose noise is of each process, and with norms that see no batch.
    more = ["--plain", "--frozen-norms", "--ema", "0.9"]
    alone, together = (_arguments(data, tmp_path / name, *more) for name in ("alone", "together"))
    assert main(alone) == 0
    finished = _on_two(_command(together))
    assert finished.returncode == 0, finished.stderr
    one, two = _trained(alone), _trained(together)
    assert one.weights.keys() == two.weights.keys()
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, rtol=1e-3, atol=1e-5)
    assert not torch.equal(one.weights["stem.0.weight"], torch.zeros_like(one.weights["stem.0.weight"]))
    assert [row["validation_accuracy"] for row in one.training["history"]] == [
        row["validation_accuracy"] for row in two.training["history"]
    ]
    assert finished.stdout.count("the network is in") == finished.stdout.count("epoch=2 ") == 1
    assert (tmp_path / "together" / BEST_NAME).exists()


@pytest.mark.timeout(240)
def test_killed_run_of_two_processes_ends_where_it_would_have(data: Path, tmp_path: Path) -> None:
    whole, killed = (_arguments(data, tmp_path / name, "--epochs", "3") for name in ("whole", "killed"))
    assert _on_two(_command(whole)).returncode == 0
    path = tmp_path / "killed" / CHECKPOINT_NAME
    with subprocess.Popen(
        _command(killed), cwd=ROOT, env=_ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        wait_until(path.exists)
        os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: _orphans(tmp_path / "killed") == [])
    begun = len(load(path).training["history"])
    assert _on_two(_command(killed)).returncode == 0
    assert same_tensors(_trained(killed).weights, _trained(whole).weights)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert begun < 3, "the run was killed too late to show anything"


def test_no_thread_of_the_group_outlives_the_training(data: Path, tmp_path: Path) -> None:
    finished = _on_two(_command(_arguments(data, tmp_path / "out"), program=("-c", _TELLING_THREADS)))
    assert finished.returncode == 0, finished.stderr
    threads = re.findall(r"^left:(.*)$", finished.stdout, re.MULTILINE)
    assert len(threads) == 2
    assert not [line for line in threads if "gloo" in line]


def _orphans(out: Path) -> list[int]:
    """Processes that still train to a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(out).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
                os.kill(found[-1], signal.SIGKILL)
    return found


def test_share_of_a_batch_is_what_one_process_would_see(data: Path) -> None:
    examples, preprocessing = open_examples(data), preset(PRESET).preprocessing
    examples, pixels = load_pixels(examples, preprocessing)
    dataset = Dataset(examples, torch.arange(len(examples)).numpy(), preprocessing, pixels)
    whole = next(iter(dataset.shuffled(8, seed=0, epoch=1)))
    for rank in (0, 1):
        share = next(iter(dataset.shuffled(8, seed=0, epoch=1, share=slice(rank, None, 2))))
        assert torch.equal(share.images, whole.images[rank::2])
        assert torch.equal(share.classes, whole.classes[rank::2])
