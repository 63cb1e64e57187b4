"""The shipped model with each plan in each precision gives its own answers."""

from __future__ import annotations

import numpy as np
import pytest

from artifact.agreement import Agreement
from bench.gpu.correctness import random_pixels
from service.engine.runtimes.base import Model
from service.engine.runtimes.cuda.runtime import CudaRuntime
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.proof import Proof

pytestmark = pytest.mark.timeout(600)  # the first of a precision compiles


def _problem(agreement: Agreement, runtime: CudaRuntime) -> str | None:
    if runtime.precision == "fp32":
        return next(iter(agreement.problems), None)
    return agreement.low_precision_problem()


def test_runtime_proves_itself(runtime: CudaRuntime, model: Model) -> None:
    assert Proof(model).problem(runtime) is None


def test_images_get_the_answers_of_the_portable_graph(runtime: CudaRuntime, model: Model) -> None:
    pixels, agreement = random_pixels(200, model.manifest.input_size), Agreement()
    images, offsets = model.manifest.preprocessing.normalise(pixels), np.zeros(200, np.float32)
    expected = OnnxRuntime(model.folder, model.manifest, "cpu").run(images, offsets)
    for given in (images, pixels):  # more than the largest batch; the device normalises what are pixels
        agreement.compare("images", expected, runtime.run(given, offsets), offsets, model.manifest.gating)
    assert _problem(agreement, runtime) is None


@pytest.mark.parametrize("count", [1, 3, 16, 100])
def test_each_image_of_a_batch_has_its_own_offset(runtime: CudaRuntime, model: Model, count: int) -> None:
    images = np.resize(Proof(model).probes.images, (count, 3, model.manifest.input_size, model.manifest.input_size))
    offsets = np.resize(np.array([0, 1e4, -1e4, 0.5], np.float32), count)
    logits, margins = runtime.run(images, offsets)
    agreement = Agreement()
    portable = OnnxRuntime(model.folder, model.manifest, "cpu")
    agreement.compare("batch", portable.run(images, offsets), (logits, margins), offsets, model.manifest.gating)
    # Forced gates turn more predictions in few bits, see `service.engine.runtimes.proof`.
    problem = agreement.low_precision_problem(0.75) if runtime.precision != "fp32" else _problem(agreement, runtime)
    assert problem is None
    again, _ = runtime.run(images, offsets)
    np.testing.assert_allclose(again, logits, atol=1e-5 * np.abs(logits).max())
