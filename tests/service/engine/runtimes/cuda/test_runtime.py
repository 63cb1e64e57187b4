from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from artifact.agreement import Agreement
from artifact.manifest import read_manifest
from artifact.probes import read_probes
from models.config import preset
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import DeviceRuntime, Model, Precision
from service.engine.runtimes.cuda.runtime import CudaRuntime, MakePlans, batch_sizes, make_plans
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.proof import Proof
from tests.networks import inputs, small_network
from tests.service.engine.runtimes.artifacts import (
    BLOCKABLE,
    HALF,
    IMAGENET,
    OTHERS,
    Exported,
    assert_margin_at_the_threshold_is_closed,
    export,
    exported_shape,
)
from tests.service.engine.runtimes.cuda.interpreter import GRAPH_BYTES, InterpretedDevice, interpreted, lists

SHIPPED = Path("model_repository/convnet-aig-38-cifar10/1")

pytestmark = pytest.mark.timeout(600)  # the interpreter takes its time


def images_alone(*arguments: object) -> list[object]:
    """The plan of one program an image, alone."""
    return list(make_plans(*arguments))[1:]  # type: ignore[arg-type]


def opened(
    folder: Path,
    precision: Precision = "fp32",
    largest: int = 8,
    make: MakePlans = lists,
    device: InterpretedDevice | None = None,
) -> CudaRuntime:
    manifest = read_manifest(folder)
    model = Model(folder, manifest, MachineCache([], manifest))
    return CudaRuntime(model, device or InterpretedDevice(), precision, interpreted, largest, make)


def shape(tmp_path_factory: pytest.TempPathFactory, name: str, threshold: float = 0.0) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), name, threshold)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shape(tmp_path_factory, "all gated")


def assert_agrees(runtime: CudaRuntime, exported: Exported) -> None:
    """With gates as they fall, some forced, and offsets that differ by image."""
    images, agreement = inputs(exported.network, 4), Agreement()
    for offsets in ([0.0] * 4, [1e4, -1e4, 0.3, -0.3]):
        given = np.array(offsets, np.float32)
        expected, found = exported.portable.run(images, given), runtime.run(images, given)
        agreement.compare(str(offsets), expected, found, given, exported.manifest.gating)
    assert agreement.problems == []
    assert max(agreement.margin_difference, agreement.logit_difference) < 1e-4
    assert agreement.same_path == agreement.images


@pytest.mark.parametrize("name", BLOCKABLE)
def test_lists_give_the_answers_of_the_portable_graph(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    exported = shape(tmp_path_factory, name)
    assert_agrees(opened(exported.folder, largest=4), exported)


@pytest.mark.parametrize("name", ["all gated", "first without a gate", "ungated in between", "small gates"])
def test_one_program_an_image_gives_the_answers_of_the_portable_graph(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    exported = shape(tmp_path_factory, name)
    assert_agrees(opened(exported.folder, largest=4, make=images_alone), exported)  # type: ignore[arg-type]


def test_50_layers_give_the_answers_of_the_portable_graph(tmp_path: Path) -> None:
    """At reduced size: as many blocks of each stage, with fewer channels, of smaller images."""
    blocks = preset("convnet-aig-50-imagenet").stage_blocks
    shape = {"stage_blocks": blocks, "stage_widths": (16, 16, 32, 32), "target_rates": (HALF,) * sum(blocks)}
    network = small_network(**IMAGENET | {"block": "bottleneck"} | shape)
    exported = Exported.opened(network, export(network, tmp_path / "50"))
    assert len(exported.manifest.gated_indices) == 16
    assert_agrees(opened(exported.folder, largest=4), exported)


@pytest.mark.parametrize("make", [lists, images_alone], ids=["lists", "images"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_shipped_network_takes_the_paths_of_its_probes(precision: Precision, make: MakePlans) -> None:
    runtime = opened(SHIPPED, precision, 2, make)
    probes = read_probes(SHIPPED, runtime.manifest)
    logits, margins = runtime.run(probes.images[:2], np.zeros(2, np.float32))
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    np.testing.assert_allclose(margins, probes.margins[:2], atol=tolerance)
    np.testing.assert_allclose(logits, probes.logits[:2], atol=tolerance)


def test_it_proves_itself_as_every_runtime_does(gated: Exported) -> None:
    model = Model(gated.folder, gated.manifest, MachineCache([], gated.manifest))
    assert Proof(model).problem(opened(gated.folder, largest=4)) is None


@pytest.mark.parametrize("make", [lists, images_alone], ids=["lists", "images"])
def test_batches_are_their_images(gated: Exported, make: MakePlans) -> None:
    runtime = opened(gated.folder, largest=4, make=make)
    images, offsets = inputs(gated.network, 3), np.array([0, 1e4, -1e4], np.float32)
    alone = [runtime.run(images[row : row + 1], offsets[row : row + 1]) for row in range(3)]
    for together, parts in zip(runtime.run(images, offsets), zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(together, np.concatenate(parts), atol=1e-5)


def test_margin_at_the_threshold_is_closed(tmp_path: Path) -> None:
    assert_margin_at_the_threshold_is_closed(lambda folder, _: opened(folder), tmp_path)


def test_pixels_give_what_normalised_images_give(gated: Exported) -> None:
    side = gated.manifest.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), np.uint8)
    offsets = np.linspace(-1, 1, 5, dtype=np.float32)
    runtime = opened(gated.folder)
    for found, expected in zip(
        runtime.run(pixels, offsets), runtime.run(gated.manifest.preprocessing.normalise(pixels), offsets), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batch_lies_in_several_places_and_more_than_the_largest_is_cut(gated: Exported) -> None:
    runtime = opened(gated.folder, largest=4)
    assert isinstance(runtime, DeviceRuntime)
    images, offsets = inputs(gated.network, 10), np.linspace(-1, 1, 10, dtype=np.float32)
    expected, _ = gated.portable.run(images, offsets)
    np.testing.assert_allclose(runtime.run(images, offsets)[0], expected, atol=1e-4)
    logits, _ = runtime.run_parts([images[:1], images[1:4]], offsets[:4])
    np.testing.assert_allclose(logits, expected[:4], atol=1e-4)


def test_only_programs_for_the_next_batch_size_are_launched(gated: Exported) -> None:
    device = InterpretedDevice()
    runtime = opened(gated.folder, largest=8, device=device)
    images = inputs(gated.network, 8)
    launches = []
    for count in (1, 2, 3, 8):
        device.launches.clear()
        runtime.run(images[:count], np.zeros(count, np.float32))
        launches.append(sum(programs for name, programs in device.launches if name == "decide"))
    assert launches == [5 * size for size in (1, 2, 4, 8)]


def test_two_threads_get_their_own_answers(gated: Exported) -> None:
    runtime = opened(gated.folder, largest=1)
    images, offsets = inputs(gated.network, 4), np.array([0, 1e4, -1e4, 0], np.float32)
    expected, _ = gated.portable.run(images, offsets)

    def run(row: int) -> None:
        logits, _ = runtime.run(images[row : row + 1], offsets[row : row + 1])
        np.testing.assert_allclose(logits, expected[row : row + 1], atol=1e-4)

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(run, [*range(4)] * 2))) == 8


@pytest.mark.parametrize("name", ["widths 8, 24, 40", "widths 16, 24, 32", "narrow bottlenecks"])
def test_channels_that_fill_no_tiles_are_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert name in OTHERS
    with pytest.raises(RuntimeUnavailable, match="which is no power of two from 16"):
        opened(shape(tmp_path_factory, name).folder)


def _needed(exported: Exported, largest: int) -> int:
    device = InterpretedDevice()
    before = device.left
    opened(exported.folder, largest=largest, device=device)
    return before - device.left


def test_too_little_memory_halves_the_largest_batch(gated: Exported, caplog: pytest.LogCaptureFixture) -> None:
    device = InterpretedDevice(_needed(gated, 8) - 1)
    runtime = opened(gated.folder, largest=8, device=device)
    assert runtime.largest == 4
    assert "too little memory: batches are of 4 images at most" in caplog.text
    images, offsets = inputs(gated.network, 8), np.zeros(8, np.float32)
    np.testing.assert_allclose(runtime.run(images, offsets)[0], gated.portable.run(images, offsets)[0], atol=1e-4)


def test_memory_that_ends_at_any_stage_halves_the_largest_batch_and_leaves_nothing_behind(gated: Exported) -> None:
    needed, least = _needed(gated, 4), _needed(gated, 1)
    # Of 4 images: constants, features, a slot's memory, and graphs, which are made last.
    for lacking in (1, GRAPH_BYTES + 1, needed // 10, needed // 4, needed // 2):
        device = InterpretedDevice(max(least, needed - lacking))
        memory = device.left
        runtime = opened(gated.folder, largest=4, device=device)
        assert runtime.largest < 4
        assert device.graphs == len(batch_sizes(runtime.largest))
        runtime.close()
        assert (device.left, device.allocated, device.pinned, device.graphs) == (memory, {}, {}, 0)


def test_batch_that_kernels_cannot_count_is_halved(gated: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = gated.manifest.input_size**2 * gated.network.config.stage_widths[0]
    monkeypatch.setattr("service.engine.runtimes.cuda.list_plan._MOST_VALUES", 5 * stem)
    assert opened(gated.folder, largest=8).largest == 4


@pytest.mark.parametrize("images", [0, 3])
def test_parts_that_are_no_batch_are_refused(gated: Exported, images: int) -> None:
    runtime = opened(gated.folder, largest=2)
    with pytest.raises(ValueError, match="are no batch of 1 to 2"):
        runtime.run_parts([inputs(gated.network, images)], np.zeros(images, np.float32))
    with pytest.raises(ValueError, match=r"\[2\] images with 1 offsets"):
        runtime.run_parts([inputs(gated.network, 2)], np.zeros(1, np.float32))


def test_largest_batch_need_be_no_power_of_two(gated: Exported) -> None:
    assert batch_sizes(6) == [1, 2, 4, 6]
    runtime, images = opened(gated.folder, largest=3), inputs(gated.network, 7)
    offsets = np.zeros(7, np.float32)
    np.testing.assert_allclose(runtime.run(images, offsets)[0], gated.portable.run(images, offsets)[0], atol=1e-4)


def test_where_no_image_fits_it_says_so_and_keeps_nothing(gated: Exported) -> None:
    device = InterpretedDevice(1000)
    with pytest.raises(RuntimeUnavailable, match="not even one image fits"):
        opened(gated.folder, device=device)
    assert (device.left, device.allocated, device.pinned) == (1000, {}, {})


def test_closing_gives_all_memory_back(gated: Exported) -> None:
    device = InterpretedDevice()
    before = device.left
    runtime = opened(gated.folder, device=device)
    assert device.left < before
    runtime.close()
    assert (device.left, device.allocated, device.pinned) == (before, {}, {})


def test_the_faster_plan_serves_each_batch_size(gated: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: Callable[[CudaRuntime, list[object], int], float] = lambda _, graph, batch: (  # noqa: E731
        1.0 if (len(graph) > 2) == (batch < 4) else 2.0
    )
    monkeypatch.setattr(CudaRuntime, "_seconds", seconds)
    device = InterpretedDevice()
    runtime = opened(gated.folder, make=make_plans, device=device)
    assert device.graphs == 4  # those of the slower plan are forgotten
    images = inputs(gated.network, 8)
    for count, kernel in ((1, "convolve"), (8, "run_images")):
        device.launches.clear()
        runtime.run(images[:count], np.zeros(count, np.float32))
        assert kernel in {name for name, _ in device.launches}
        assert len({name for name, _ in device.launches} & {"convolve", "run_images"}) == 1


def test_kernels_are_not_compiled_again(gated: Exported, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asked: list[int] = []

    def compiled(kernels: object, architecture: int) -> dict[object, object]:
        asked.append(architecture)
        return interpreted(kernels, architecture)  # type: ignore[arg-type,return-value]

    model = Model(gated.folder, gated.manifest, MachineCache([], gated.manifest))
    CudaRuntime(model, InterpretedDevice(), "fp32", compiled, 2, lists)  # type: ignore[arg-type]
    assert asked == [90]
