from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from bench.chaos.pictures import Gallery, Picture
from service.classify.budgets import AS_TRAINED
from service.classify.graph import describe
from service.engine.runtimes.selection import open_runtime
from service.engine.workers.local import LocalWorker
from service.images.decoding import ImageDecoder
from tests.service.engine.workers.processes import job


@pytest.fixture(scope="module")
def gallery(artifact: Path, pictures: list[bytes]) -> Gallery:
    return Gallery(artifact, pictures)


def _told(artifact: Path, picture: Picture) -> Any:
    """What the service would say."""
    runtime = open_runtime(artifact, "onnx", "cpu")
    decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)
    (answer,) = LocalWorker(runtime, decoder.decode).work([job(picture.data)])
    described = describe(runtime.manifest, answer, AS_TRAINED, top_k=1000, graph="full", total_s=0.0)  # type: ignore[arg-type]
    return orjson.loads(orjson.dumps(asdict(described)))


def test_right_answers_are_right(gallery: Gallery, artifact: Path) -> None:
    assert len(gallery.pictures) >= 10
    for picture in gallery.pictures:
        assert gallery.problem(picture, _told(artifact, picture)) is None


def test_answer_to_another_picture_is_always_found(gallery: Gallery, artifact: Path) -> None:
    answers = [_told(artifact, picture) for picture in gallery.pictures]
    for row, picture in enumerate(gallery.pictures):
        for other, answer in enumerate(answers):
            assert (gallery.problem(picture, answer) is None) is (row == other)


def _another_model(told: Any) -> None:
    told["model"]["version"] = "2"


def _another_path(told: Any) -> None:
    told["inference_graph"]["blocks"][-1]["executed"] ^= True


def _another_cost(told: Any) -> None:
    told["compute"]["macs"] += 1


def _another_order(told: Any) -> None:
    told["predictions"].reverse()


def _another_chance(told: Any) -> None:
    told["predictions"][0]["probability"] += 0.01


def _fewer_classes(told: Any) -> None:
    told["predictions"].pop()


def _no_number(told: Any) -> None:
    told["predictions"][0]["probability"] = None


@pytest.mark.parametrize(
    "change",
    [
        _another_model,
        _another_path,
        _another_cost,
        _another_order,
        _another_chance,
        _fewer_classes,
        _no_number,
        dict.clear,
    ],
)
def test_answer_that_is_wrong_in_one_way_is_found(
    gallery: Gallery, artifact: Path, change: Callable[[Any], None]
) -> None:
    picture = gallery.pictures[0]
    told = copy.deepcopy(_told(artifact, picture))
    change(told)
    assert gallery.problem(picture, told) is not None


def test_pictures_with_like_answers_are_kept_once(artifact: Path, pictures: list[bytes]) -> None:
    once, twice = Gallery(artifact, pictures), Gallery(artifact, [*pictures, *pictures])
    assert len(once.pictures) == len(twice.pictures)


def test_no_gate_of_a_picture_is_too_close_to_call(gallery: Gallery, artifact: Path) -> None:
    runtime = open_runtime(artifact, "onnx", "cpu")
    decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)
    for picture in gallery.pictures:
        _, margins = runtime.run(decoder.decode(picture.data)[None], np.zeros(1, np.float32))
        assert np.abs(margins).min() >= 0.01
