"""Artifacts of networks of many shapes, and how far a runtime's answers may be from the portable graph's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from artifact.agreement import Agreement, LogitsAndMargins
from artifact.manifest import INT8_NAME, ONNX_NAME, Manifest, file_digest, read_manifest, write_manifest
from artifact.preprocessing import Float32Array
from export import artifact_writer
from export.calibration import calibrate
from export.inference import InferenceNetwork
from export.int8_graph import write_int8
from models.resnet import AdaptiveResNet
from service.engine.runtimes.base import Runtime
from service.engine.runtimes.onnx import OnnxRuntime
from tests.networks import SIDE, SOURCE_DIGEST, checkpoint_of, inputs, small_network
from tests.runtimes import echo_manifest

HALF = 0.5
WIDE = {"stage_widths": (16, 32, 64)}
ALL_GATED = {"target_rates": (HALF,) * 5}
PLAIN = {"target_rates": (1.0,) * 5}
IMAGENET = {"stem": "imagenet", "stage_blocks": (2, 1), "target_rates": (HALF,) * 3}

# Every layer's channels are a multiple of 16, as many as the widest vectors have lanes.
BLOCKABLE: dict[str, dict[str, object]] = {
    "first without a gate": WIDE,
    "all gated": WIDE | ALL_GATED,
    "ungated in between": WIDE | {"target_rates": (HALF, 1.0, 1.0, HALF, HALF)},
    "last without a gate": WIDE | {"target_rates": (HALF, HALF, HALF, HALF, 1.0)},
    "only the last gated": WIDE | {"target_rates": (1.0, 1.0, 1.0, 1.0, HALF)},
    "stages of one width": {"stage_widths": (16, 16, 16)},
    "bottlenecks": {"block": "bottleneck", "stage_widths": (16, 16, 32)},
    "imagenet stem, bottlenecks": IMAGENET | {"block": "bottleneck", "stage_widths": (16, 32)},
    "stride in 1x1": IMAGENET | {"block": "bottleneck", "stage_widths": (16, 32), "bottleneck_stride": "1x1"},
    "imagenet stem, basic": IMAGENET | {"stage_widths": (16, 32)},
    "a single block": {"stage_blocks": (1,), "stage_widths": (16,), "target_rates": (HALF,)},
    "small gates": WIDE | {"gate_hidden": 3},
}
# Widths that fill no whole number of vectors.
OTHERS: dict[str, dict[str, object]] = {
    "widths 4, 8, 16": {},
    "widths 8, 24, 40": {"stage_widths": (8, 24, 40)},
    "widths 16, 24, 32": {"stage_widths": (16, 24, 32)},
    "widths 4, 16, 8": {"stage_widths": (4, 16, 8)},
    "narrow bottlenecks": {"block": "bottleneck"},
    "narrow with imagenet stem": IMAGENET | {"block": "bottleneck", "stage_widths": (4, 24)},
    "narrow, ungated around a gate": IMAGENET | {"stage_widths": (8, 24), "target_rates": (1.0, HALF, 1.0)},
    "plain": PLAIN,
    "wide and plain": WIDE | PLAIN,
}
SHAPES = BLOCKABLE | OTHERS
# For the compiled network in fewer bits. The last two stages are of a single pixel, and of more channels than are
# computed together.
SINGLE_PIXEL = IMAGENET | {
    "stage_blocks": (1,) * 5,
    "stage_widths": (16, 16, 16, 144, 144),
    "target_rates": (HALF,) * 5,
}
LOW_PRECISION = BLOCKABLE | {"projection of a single pixel": SINGLE_PIXEL}
NARROW = {"widths 8, 16, 32": {"stage_widths": (8, 16, 32)}}

OFFSETS: tuple[float, ...] = (0.0, 0.3, -0.3, 1.0, -1.0, 1e4, -1e4)


def export(network: AdaptiveResNet, folder: Path, gate_threshold: float = 0.0) -> Path:
    """The artifact of a network with 12 probes, without TorchScript and the proof of the export, which take longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact_writer, "verify", lambda *_: echo_manifest().verification)
        patch.setattr(artifact_writer, "write_torchscript", lambda _, path: path.write_bytes(b""))
        artifact_writer.write_artifact(
            checkpoint_of(network), SOURCE_DIGEST, folder, inputs(network, 12), gate_threshold=gate_threshold
        )
    return folder


class Exported(NamedTuple):
    """A network, its artifact, and the portable graph of it, opened."""

    network: AdaptiveResNet
    folder: Path
    manifest: Manifest
    portable: OnnxRuntime

    @classmethod
    def opened(cls, network: AdaptiveResNet, folder: Path) -> Exported:
        manifest = read_manifest(folder)
        return cls(network, folder, manifest, OnnxRuntime(folder, manifest, "cpu"))


def exported_shape(root: Path, shape: str, gate_threshold: float = 0.0) -> Exported:
    """The network of a shape, exported under `root` by the first who asks; nobody may write to it."""
    return _exported_once(root, shape, gate_threshold)


@cache
def _exported_once(root: Path, shape: str, gate_threshold: float) -> Exported:
    network = small_network(**SHAPES[shape])
    return Exported.opened(network, export(network, root / f"{shape} at {gate_threshold}", gate_threshold))


@cache
def exported_in_8_bits(root: Path, shape: str) -> Exported:
    """The network of a shape with its int8 graph, exported by the first who asks; nobody may write to it."""
    # Of two classes, whose predictions 8 bits do not turn.
    network = small_network(seed=3, labels=("ant", "bee"), **(LOW_PRECISION | NARROW)[shape])
    folder = export(network, root / f"{shape} in 8 bits")
    exported = Exported.opened(network, folder)
    inference, names = InferenceNetwork(network, 0.0), list(network.blocks)
    quantisations = calibrate(inference, names, inputs(network, 100, seed=5))
    write_int8(inference, names, SIDE, quantisations, folder / INT8_NAME)
    files = exported.manifest.files | {INT8_NAME: file_digest(folder / INT8_NAME)}
    write_manifest(folder, exported.manifest.model_copy(update={"files": files}))
    return Exported.opened(network, folder)


def assert_like_portable(runtime: Runtime, exported: Exported, tolerance: float = 1e-4) -> None:
    """The runtime's answers are the portable graph's, with every kind of offset, in batches and mixed."""
    images = inputs(exported.network, 8)
    agreement, paths = Agreement(), set()
    for name, offsets in _scenarios():
        expected = exported.portable.run(images, offsets)
        actual = runtime.run(images, offsets)
        assert actual[0].dtype == actual[1].dtype == np.float32
        agreement.compare(name, expected, actual, offsets, exported.manifest.gating)
        paths |= {tuple(path) for path in exported.manifest.executed(actual[1], offsets).tolist()}
    assert agreement.problems == []
    assert max(agreement.margin_difference, agreement.logit_difference) < tolerance
    assert agreement.same_path >= 0.9 * agreement.images == 0.9 * 8 * (len(OFFSETS) + 1)
    gates = len(exported.manifest.gated_indices)
    assert len(paths) >= min(4, 2**gates)


def _scenarios() -> Iterator[tuple[str, Float32Array]]:
    for offset in OFFSETS:
        yield f"offset {offset}", np.full(8, offset, np.float32)
    yield "mixed offsets", np.array([0, 0.5, -0.5, 2, -2, 1e4, -1e4, 0], np.float32)


def assert_same(actual: LogitsAndMargins, expected: LogitsAndMargins) -> None:
    """Bit for bit."""
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_margin_at_the_threshold_is_closed(open_artifact: Callable[[Path, Manifest], Runtime], root: Path) -> None:
    """A gate opens above its threshold, not at it; and the runtime runs what `Manifest.executed` tells."""
    network = small_network(**SHAPES["a single block"])
    image, zero, never = inputs(network, 1), np.zeros(1, np.float32), np.full(1, -1e4, np.float32)

    def opened(threshold: float) -> Runtime:
        folder = export(network, root / f"at {threshold}", threshold)
        return open_artifact(folder, read_manifest(folder))

    skipped, margins = opened(0.0).run(image, never)
    margin = margins[0, 0]
    for threshold, is_open in ((margin, False), (np.nextafter(margin, -np.inf, dtype=np.float32), True)):
        runtime = opened(float(threshold))
        logits, margins = runtime.run(image, zero)
        assert margins[0, 0] == margin
        assert runtime.manifest.executed(margins, zero).tolist() == [[is_open]]
        assert np.array_equal(logits, skipped) is not is_open


def assert_threads_get_their_own_answers(runtime: Runtime, exported: Exported) -> None:
    """Images from several threads at once get the answers they get alone."""
    images = inputs(exported.network, 12)
    offsets = np.resize(np.array([0, 1e4, -1e4, 0.5], np.float32), 12)
    alone = [runtime.run(images[row : row + 1], offsets[row : row + 1]) for row in range(12)]
    assert len(np.unique(np.concatenate([logits for logits, _ in alone]), axis=0)) == 12

    def run(turn: int) -> None:
        row = turn % 12
        assert_same(runtime.run(images[row : row + 1], offsets[row : row + 1]), alone[row])

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(run, range(120)))) == 120


def assert_batches_are_their_images(runtime: Runtime, exported: Exported) -> None:
    """An image gets the same answer in a batch and alone, with its own offset."""
    images = inputs(exported.network, 5)
    offsets = np.array([0, 1e4, -1e4, 0.7, -0.7], np.float32)
    alone = [runtime.run(images[row : row + 1], offsets[row : row + 1]) for row in range(5)]
    logits, margins = (np.concatenate(outputs) for outputs in zip(*alone, strict=True))
    assert_same(runtime.run(images, offsets), (logits, margins))


def with_one_bit_changed(exported: Exported, folder: Path) -> Path:
    """A copy of the artifact, inside `folder`, whose ONNX file is damaged."""
    copy = shutil.copytree(exported.folder, folder / "copy")
    data = bytearray((copy / ONNX_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / ONNX_NAME).write_bytes(data)
    return copy


def with_no_model(exported: Exported, folder: Path) -> Manifest:
    """Make `folder` an artifact whose ONNX file is none, though it has the digest that its manifest tells."""
    (folder / ONNX_NAME).write_bytes(b"no model")
    return exported.manifest.model_copy(update={"files": {ONNX_NAME: file_digest(folder / ONNX_NAME)}})
