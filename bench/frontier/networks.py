"""The networks of the frontier: trained with one recipe, then exported, each step done once and gone on with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from artifact.budgets import BudgetCurve
from artifact.manifest import MANIFEST_NAME, ONNX_NAME, file_digest, read_manifest, write_manifest
from artifact.preprocessing import Float32Array, Preprocessing
from bench.serving import Offer
from export.artifact_writer import write_artifact
from export.budgets import measure_budgets
from export.parity import eager_runner, onnx_runner
from models.answers import Images
from models.checkpoint import load, save
from models.combine import combined, limits
from models.examples import Examples
from models.hold_out import split
from models.trainer import CHECKPOINT_NAME

_ROOT = Path(__file__).resolve().parent.parent.parent
_PLAIN, _DECIDING, _SEEDS = (8, 14, 20, 26, 32, 38, 56), (14, 20, 26, 38), (0, 1, 2)
_GATED_DEPTH = 38
# Budgets that a gated network is trained for alone, by the target rate that costs them, and those of the one for all.
_RATES = {"40%": 0.38, "60%": 0.59, "80%": 0.795}
_BUDGETS = "0.35:1.0"
_CALIBRATION_IMAGES, _VERIFIED_IMAGES = 1000, 64
_BATCH = 250
ALL_BUDGETS = "all budgets"
"""What a network was trained for that may be asked for any."""
SHARES = {f"{share:.0%}": share for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)}
"""Of the compute, at which gated networks are compared, by their names."""


@dataclass(frozen=True)
class Training:
    """One run of the trainer.

    Attributes:
        name: of its folder.
        depth: layers of the network.
        gated: whether it has gates.
        epochs: of this run.
        seed: of this run.
        init: name of the run whose network it starts from; None where the weights are random.
        trained_for: budget of a gated network, or that it has all of them; empty for the preset's target rate.
        options: of the trainer, besides.
    """

    name: str
    depth: int
    gated: bool
    epochs: int
    seed: int
    init: str | None = None
    trained_for: str = ""
    options: tuple[str, ...] = ()

    def command(self, data: Path, runs: Path) -> list[str]:
        """What trains it, or goes on where it stands."""
        told = ["--preset", f"convnet-aig-{self.depth}-cifar10", "--data", str(data), "--out", str(runs / self.name)]
        told += ["--epochs", str(self.epochs), "--seed", str(self.seed)]
        if self.init:
            told += ["--from", str(runs / self.init / CHECKPOINT_NAME)]
        return [sys.executable, "-m", "models.train", *told, *self.options, *([] if self.gated else ["--plain"])]


def trainings(epochs: int) -> list[Training]:
    """All runs, those that decide first; whatever a network starts from, it sees each image `epochs` times in all."""
    half = epochs // 2
    begun = Training(f"plain-{_GATED_DEPTH}-half-s0", _GATED_DEPTH, False, half, 0)

    def tuned(name: str, trained_for: str, *options: str) -> Training:
        of = f"{name}-s0"
        return Training(of, _GATED_DEPTH, True, epochs - half, 0, begun.name, trained_for, options)

    gated = [
        begun,
        tuned(f"budgets-{_GATED_DEPTH}", ALL_BUDGETS, "--budgets", _BUDGETS),
        *(
            tuned(f"gated-{_GATED_DEPTH}-at{budget.rstrip('%')}", budget, "--target-rate", str(rate))
            for budget, rate in _RATES.items()
        ),
        tuned(f"gated-{_GATED_DEPTH}", ""),
    ]
    first = [Training(f"plain-{depth}-s0", depth, False, epochs, 0) for depth in _PLAIN]
    others = [
        Training(f"plain-{depth}-s{seed}", depth, False, epochs, seed) for seed in _SEEDS[1:] for depth in _DECIDING
    ]
    return [*first, *gated, *others]


def train(data: Path, runs: Path, epochs: int) -> None:
    """Train what is not trained yet: many hours.

    Raises:
        subprocess.CalledProcessError: a run failed; it has said why.
    """
    for training in tqdm(trainings(epochs), desc="training", unit="network"):
        runs.mkdir(parents=True, exist_ok=True)
        subprocess.run(training.command(data, runs), cwd=_ROOT, check=True)


def finished(training: Training, runs: Path) -> bool:
    """Whether a run has taken its last step."""
    path = runs / training.name / CHECKPOINT_NAME
    if not path.exists():
        return False
    told = load(path).training
    return bool(told["step"] == training.epochs * told["steps_per_epoch"] and len(told["history"]) == training.epochs)


@dataclass(frozen=True)
class Entry:
    """A network of the frontier.

    Attributes:
        kind: "plain", "gated" or "cascade".
        depths: layers of its network, or of its networks.
        seed: that it was trained with.
        folder: of its artifact.
        offsets: gate offsets to run it with, by what they stand for.
        trained_for: see `Training`.
    """

    kind: str
    depths: tuple[int, ...]
    seed: int
    folder: Path
    offsets: dict[str, float]
    trained_for: str = ""

    @property
    def name(self) -> str:
        """Such as "plain 20", "gated 38 for 60%" or "14 then 26"."""
        if self.kind == "cascade":
            return " then ".join(map(str, self.depths))
        return f"{self.kind} {self.depths[0]}{f' for {self.trained_for}' if self.trained_for else ''}"

    @property
    def offers(self) -> list[Offer]:
        """How the service runs it: at each budget if it was trained for all of them, else as it was exported."""
        if self.trained_for != ALL_BUDGETS:
            return [Offer(self.name, next(iter(self.offsets)), self.folder)]
        return [Offer(self.name, name, self.folder, share) for name, share in SHARES.items() if name in self.offsets]


class Exporter:
    """Makes artifacts, int8 graphs included, of what was trained, under the folder of the runs.

    Args:
        examples: that the networks were trained on.
        runs: where they are.
    """

    def __init__(self, examples: Examples, runs: Path) -> None:
        self._examples, self._runs = examples, runs

    def entry(self, training: Training) -> Entry:
        """A single network; a gated one with offsets for several shares of the compute, and as it was trained."""
        folder = self._runs / training.name / "exported"
        self._export(self._runs / training.name / CHECKPOINT_NAME, folder)
        if not training.gated:
            return Entry("plain", (training.depth,), training.seed, folder, {"": 0.0})
        curve = self._curve(folder)
        offsets = {name: row.gate_offset for name, share in SHARES.items() if (row := curve.within(share))}
        offsets = {"as trained": 0.0, **offsets}
        return Entry("gated", (training.depth,), training.seed, folder, offsets, training.trained_for)

    def _curve(self, folder: Path) -> BudgetCurve:
        """What a gated network does at other budgets, measured once."""
        manifest = read_manifest(folder)
        if manifest.budgets is None:
            _, held_out = split(self._examples, None)
            images = Images(self._examples, held_out, manifest.preprocessing)
            curve = measure_budgets(onnx_runner(folder / ONNX_NAME), manifest.gating, images)
            manifest = manifest.model_copy(update={"budgets": curve})
            write_manifest(folder, manifest)
        assert manifest.budgets is not None
        return manifest.budgets

    def cascade(self, members: Sequence[Training], logits: Sequence[Float32Array], shares: Sequence[float]) -> Entry:
        """Two networks, run so that the second is asked for each of these shares of the images; the first is exported.

        Args:
            logits: of each of them for the images that were held out of training, (N, classes).
        """
        name = "-then-".join(training.name for training in members)
        above = {share: limits(logits, [share])[0] for share in shares}
        base = above[shares[0]]
        checkpoints = [load(self._runs / training.name / CHECKPOINT_NAME) for training in members]
        path = self._runs / f"{name}-{shares[0]:g}" / CHECKPOINT_NAME
        path.parent.mkdir(exist_ok=True)
        save(path, combined(checkpoints, name, [base]))
        folder = path.parent / "exported"
        self._export(path, folder)
        offsets = {f"{share:.0%}": limit - base for share, limit in above.items()}
        return Entry("cascade", tuple(each.depth for each in members), members[0].seed, folder, offsets)

    def logits(self, training: Training, images: Float32Array) -> Float32Array:
        """What a trained network says of images (N, 3, H, W)."""
        run = eager_runner(load(self._runs / training.name / CHECKPOINT_NAME).network())
        batches = range(0, len(images), _BATCH)
        return np.concatenate([run(images[at : at + _BATCH], np.zeros(1, np.float32))[0] for at in batches])

    def _export(self, path: Path, folder: Path) -> None:
        if (folder / MANIFEST_NAME).exists():
            return
        checkpoint, (training, held_out) = load(path), split(self._examples, None)
        verified, calibration = (
            self._spread(checkpoint.config.preprocessing, *chosen)
            for chosen in ((held_out, _VERIFIED_IMAGES), (training, _CALIBRATION_IMAGES))
        )
        write_artifact(checkpoint, file_digest(path), folder, verified, calibration_images=calibration)

    def _spread(self, preprocessing: Preprocessing, indices: np.ndarray, count: int) -> Float32Array:
        images = Images(self._examples, indices, preprocessing)
        return preprocessing.normalise(images.pixels(images.spread(count)))
