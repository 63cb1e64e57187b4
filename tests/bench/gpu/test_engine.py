"""What the benchmark does with a device, with Triton's interpreter in its place, at the smallest sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.gpu.correctness import problems, prove, random_pixels
from bench.gpu.machine import ceilings, described
from bench.gpu.measurements import labelled
from bench.gpu.networks import phased_images
from bench.gpu.rivals import Missing, torch_network
from bench.gpu.speed import measure
from bench.gpu.turns import Contender
from service.engine.runtimes.cuda.network import Network
from tests.conftest import MakeFolders
from tests.networks import small_config
from tests.service.engine.runtimes.artifacts import exported_shape
from tests.service.engine.runtimes.cuda.interpreter import InterpretedDevice, interpreted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the interpreter takes its time on a busy machine

_WIDE = {"stage_widths": (16, 32, 64), "target_rates": (0.5,) * 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_shape(tmp_path_factory.getbasetemp(), "all gated").folder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_each_plan_is_proven_and_compared(model: Path, precision: str) -> None:
    device = InterpretedDevice()
    told = prove(model, device, interpreted, precision, {"random images": random_pixels(6, 16)}, largest=4)  # type: ignore[arg-type]
    assert problems(told) == []
    assert set(told) == {"lists", "images"}
    for plan in told.values():
        assert plan["random images"]["images"] == 6
        assert plan["random images"]["equal_predictions"] == 1
    assert {"convolve", "run_images"} <= {function for function, _ in device.launches}
    assert not device.pinned


def test_wrong_answers_are_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = InterpretedDevice.run

    def wrong(self: InterpretedDevice, graph: list, stream: object) -> None:  # type: ignore[type-arg]
        run(self, [call for call in graph if call.function.function != "classify"], stream)

    monkeypatch.setattr(InterpretedDevice, "run", wrong)
    told = prove(model, InterpretedDevice(), interpreted, "fp32", {"random images": random_pixels(2, 16)}, largest=2)
    assert told["images"]["problem"] is None
    assert told["lists"]["problem"]
    assert len(problems(told)) == 3


def test_plans_are_timed_at_every_share_beside_the_rivals_that_there_are() -> None:
    def rival(network: Network, images: np.ndarray) -> Contender:
        run, given = torch_network(network, images, "cpu")
        return Contender(lambda: run(given), lambda: None)

    def missing(network: Network, images: np.ndarray) -> Contender:  # noqa: ARG001
        raise Missing("it is not there")

    def failing(network: Network, images: np.ndarray) -> Contender:  # noqa: ARG001
        raise RuntimeError("it fails")

    rivals = {"torch": rival, "another": missing, "a third": failing}
    config = small_config(**_WIDE)
    told = measure(config, 3, InterpretedDevice(), interpreted, rivals, shares=(1.0, 0.4), rounds=1)
    assert [(row["plan"], row["asked"]) for row in told["gated"]] == [
        (plan, share) for plan in ("lists", "images") for share in (1.0, 0.4)
    ]
    for row in told["gated"]:
        assert row["finite"]
        assert row["open"] == pytest.approx(row["asked"], abs=0.15)
        assert row["in_line"] > 0
    assert told["gated"][0]["open"] == 1
    assert told["gated"][0]["mac_ratio"] > told["gated"][1]["mac_ratio"]
    # Both plans open the same gates of the same images.
    assert told["gated"][1]["open"] == told["gated"][3]["open"]
    assert list(told["ungated"]) == ["torch"]
    assert told["left_out"] == {"another": "it is not there", "a third": "RuntimeError: it fails"}


def test_plan_with_all_gates_open_is_the_rivals_network() -> None:
    from bench.gpu.planned import Planned
    from bench.gpu.speed import plans

    config, device, images = small_config(**_WIDE), InterpretedDevice(), phased_images(2, 16)
    for _, network, plan in plans(config, "fp32", 2, device.shared_bytes, device.processors):
        run, given = torch_network(network, images, "cpu")
        planned = Planned(device, plan, len(config.labels), network.gates, interpreted, 2)
        planned.give(images, np.ones(2, np.float32))
        planned.enqueue()
        planned.wait()
        np.testing.assert_allclose(planned.answers()[0], run(given).numpy(), atol=1e-3)


def test_ceilings_are_measured_by_the_engines_own_kernels() -> None:
    found = ceilings(InterpretedDevice(), interpreted, copy_bytes=1 << 16, side=64)
    assert set(found) >= {"copy_gb_s", "kernel_in_graph_us", "graph_launch_and_wait_us", "own_fp16_tflops"}
    assert all(value > 0 for value in found.values())
    assert "triton" in described()["versions"]


def test_images_of_a_folder_come_as_the_model_takes_them(
    model: Path, tmp_path: Path, make_class_folders: MakeFolders
) -> None:
    pixels = labelled(make_class_folders(tmp_path / "data", ("ant", "bee"), 3, side=20), model)
    assert pixels.shape == (6, 16, 16, 3)
    assert pixels.dtype == np.uint8
