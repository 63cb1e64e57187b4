from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.answers import Images, answer, cross_entropy, run_over
from models.classifier import TrainedClassifier
from models.examples import DataError, Examples
from models.exported import ExportedClassifier
from tests.networks import checkpoint_of, colour_fields, small_config, small_network
from tests.runtimes import wait_until


@pytest.fixture
def images() -> Images:
    """Forty colour fields, of which the small network makes at least five paths; every second is chosen."""
    pixels = colour_fields(80)
    names = [f"ant/{index:02d}.png" for index in range(80)]
    examples = Examples(small_config().labels, np.arange(80) % 6, names, lambda index: Image.fromarray(pixels[index]))
    return Images(examples, np.arange(0, 80, 2), small_config().preprocessing)


@pytest.fixture
def trained() -> TrainedClassifier:
    return TrainedClassifier(checkpoint_of(small_network()), torch.device("cpu"), batch_size=7)


def test_artifact_answers_as_its_checkpoint_does(images: Images, trained: TrainedClassifier, artifact: Path) -> None:
    first, second = answer(trained, images), answer(ExportedClassifier(artifact), images)
    assert np.array_equal(first.evaluation.guesses.predicted, second.evaluation.guesses.predicted)
    assert np.array_equal(first.evaluation.executed, second.evaluation.executed)
    np.testing.assert_allclose(first.evaluation.margins, second.evaluation.margins, atol=1e-4)
    np.testing.assert_allclose(first.evaluation.mac_share, second.evaluation.mac_share)
    np.testing.assert_allclose(first.losses, second.losses, atol=1e-4)
    assert len(np.unique(first.evaluation.executed, axis=0)) >= 5


def test_answers_are_about_the_chosen_images_in_order(images: Images, trained: TrainedClassifier) -> None:
    evaluation = answer(trained, images).evaluation
    assert evaluation.classes.tolist() == [index % 6 for index in range(0, 80, 2)]
    logits, margins = trained.run(images.pixels(np.array([39, 3])))
    assert evaluation.guesses.predicted[[39, 3]].tolist() == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(evaluation.margins[[39, 3]], margins, atol=1e-5)
    assert images.name(39) == "ant/78.png"


def test_offset_shifts_decisions_and_not_margins_before_them(images: Images, artifact: Path) -> None:
    classifier = ExportedClassifier(artifact)
    plain, closed = answer(classifier, images).evaluation, answer(classifier, images, -1e9).evaluation
    assert closed.executed[:, 0].all()
    assert not closed.executed[:, 1:].any()
    np.testing.assert_allclose(closed.margins[:, 0], plain.margins[:, 0], atol=1e-5)


def test_results_keep_their_order_whichever_thread_is_first(images: Images) -> None:
    seen = []

    def work(positions: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        if positions[0] == 0:  # the first batch is the last to be done
            wait_until(lambda: len(seen) == 4)
        seen.append(positions[0])
        return positions, pixels.mean(axis=(1, 2, 3))

    progress: list[int] = []
    positions, means = run_over(images, np.arange(40), work, batch_size=9, workers=4, progress=progress.append)
    assert positions.tolist() == list(range(40))
    np.testing.assert_allclose(means, images.pixels(np.arange(40)).mean(axis=(1, 2, 3)))
    assert seen[-1] == 0
    assert sorted(progress) == [4, 9, 9, 9, 9]


def test_image_that_cannot_be_decoded_ends_the_work_of_all_threads(images: Images) -> None:
    def broken(index: int) -> Image.Image:
        raise OSError(f"image {index} is broken")

    examples = Examples(images.examples.labels, images.examples.classes, images.examples.names, broken)
    with pytest.raises(DataError, match=r"cannot decode ant/\d\d\.png"):
        run_over(Images(examples, images.indices, images.preprocessing), np.arange(40), lambda *_: (), 1, workers=3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evaluate")]


def test_sample_is_spread_evenly(images: Images) -> None:
    assert images.spread(4).tolist() == [0, 10, 20, 30]
    assert images.spread(1000).tolist() == list(range(40))


def test_cross_entropy_is_that_of_torch_and_never_overflows(rng: np.random.Generator) -> None:
    logits, classes = rng.normal(0, 5, (20, 6)).astype(np.float32), rng.integers(0, 6, 20)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(classes), reduction="none")
    np.testing.assert_allclose(cross_entropy(logits, classes), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert cross_entropy(np.array([[1e4, 0.0]], np.float32), np.array([1])) == pytest.approx([1e4])
