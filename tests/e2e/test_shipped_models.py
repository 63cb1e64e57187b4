"""Every model that ships with the project opens and classifies."""

from __future__ import annotations

import numpy as np
import pytest

from artifact.manifest import file_digest, read_manifest, verified_file
from service.classify.budgets import AS_TRAINED
from service.classify.graph import describe
from service.engine.runtimes.selection import open_runtime
from service.engine.workers.local import LocalWorker
from service.images.decoding import ImageDecoder
from service.settings import Settings
from tests.e2e.process import ROOT
from tests.image_files import encoded, photograph
from tests.service.engine.workers.processes import job

SHIPPED = sorted(path.parent for path in (ROOT / "model_repository").glob("*/*/manifest.json"))


def test_a_model_ships_with_the_project_and_is_the_one_served_by_default() -> None:
    assert SHIPPED
    assert ROOT / Settings.model_fields["model"].default in SHIPPED


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: "/".join(folder.parts[-2:]))
def test_shipped_model_is_whole_and_classifies(folder: object) -> None:
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.version) == folder.parts[-2:]
    assert {name: file_digest(verified_file(folder, manifest, name)) for name in manifest.files} == manifest.files
    assert manifest.verification.gates_compared > 0
    assert manifest.profile is not None
    runtime = open_runtime(folder, device="cpu")
    decoder = ImageDecoder(manifest.preprocessing, max_bytes=10**7, max_pixels=10**7)
    worker = LocalWorker(runtime, decoder.decode)
    pictures = [encoded(photograph(300, 200, seed), "JPEG") for seed in range(4)]
    (answers,) = zip(*(worker.work([job(data)]) for data in pictures), strict=True)
    images = np.stack([decoder.decode(data) for data in pictures])
    other = open_runtime(folder, "torchscript", "cpu").run(images, np.zeros(4, np.float32))
    # Tolerances are relative to the largest number where that is above 1.
    allowed = manifest.verification.logit_tolerance, manifest.verification.margin_tolerance
    atol = [tolerance * np.abs(part).max(initial=1) for tolerance, part in zip(allowed, other, strict=True)]
    for answer, logits, margins in zip(answers, *other, strict=True):
        np.testing.assert_allclose(answer.logits, logits, rtol=0, atol=atol[0])
        np.testing.assert_allclose(answer.margins, margins, rtol=0, atol=atol[1])
        described = describe(manifest, answer, AS_TRAINED, top_k=len(manifest.labels), graph="full", total_s=0.0)
        assert sum(guess.probability for guess in described.predictions) == pytest.approx(1)
        assert 0 < described.compute.ratio <= 1
