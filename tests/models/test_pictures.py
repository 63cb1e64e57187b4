from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from models.evaluation import Evaluation
from models.pictures import draw_compute_spread, draw_execution_rates, shown_classes, write_pictures
from tests.guesses import guessed

pytestmark = pytest.mark.slow


def _evaluation(images: int, classes: int, blocks: int) -> Evaluation:
    """A random evaluation in which classes with a higher index cost more."""
    random = np.random.default_rng(0)
    true = np.arange(images) % classes
    executed = random.random((images, blocks)) < (0.2 + 0.6 * true / classes)[:, None]
    return Evaluation(
        labels=tuple(f"class {index}" for index in range(classes)),
        block_names=tuple(
            f"stage{1 + 2 * index // blocks}_block{1 + index % (blocks // 2)}" for index in range(blocks)
        ),
        classes=true,
        guesses=guessed(random.integers(0, classes, images), true),
        executed=executed,
        margins=np.zeros((images, blocks), np.float32),
        mac_share=0.1 + 0.9 * executed.mean(axis=1),
    )


@pytest.mark.parametrize(("images", "classes", "blocks"), [(400, 10, 10), (1, 2, 2), (240, 120, 54)])
def test_pictures_are_written_whatever_the_network_and_the_data(
    tmp_path: Path, images: int, classes: int, blocks: int
) -> None:
    paths = write_pictures(_evaluation(images, classes, blocks), tmp_path / "new" / "folder", "network")
    assert [path.name for path in paths] == ["execution-rates.png", "compute-spread.png", "confusions.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) > 300


def test_pictures_of_a_network_that_spends_the_same_on_every_image(tmp_path: Path) -> None:
    evaluation = _evaluation(50, 5, 4)
    evaluation.executed[:] = True
    evaluation.mac_share[:] = 1.0
    assert len(write_pictures(evaluation, tmp_path, "plain")) == 3


def test_heat_map_shows_every_class_from_least_to_most_compute() -> None:
    evaluation = _evaluation(400, 10, 10)
    axes = draw_execution_rates(evaluation, "network").axes[0]
    order = np.argsort(evaluation.class_mac_shares)
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"class {index}" for index in order]
    np.testing.assert_array_equal(axes.images[0].get_array(), evaluation.class_rates[order])
    assert len(axes.texts) == 100  # a value in every cell


def test_heat_map_of_many_classes_shows_the_ends_and_says_so() -> None:
    evaluation = _evaluation(1200, 60, 10)
    axes = draw_execution_rates(evaluation, "network").axes[0]
    shares = evaluation.class_mac_shares
    shown = shown_classes(evaluation)
    assert len(shown) == len(axes.get_yticklabels()) == 40
    assert shares[shown[:20]].max() <= np.delete(shares, shown).min()
    assert shares[shown[20:]].min() >= np.delete(shares, shown).max()
    assert "20 classes with the least and the 20 with the most compute, of 60" in axes.get_title()


def test_class_without_images_is_not_shown() -> None:
    evaluation = _evaluation(40, 4, 4)
    evaluation.classes[evaluation.classes == 2] = 1
    assert set(shown_classes(evaluation)) == {0, 1, 3}


def test_spread_counts_every_image_and_hides_the_accuracy_of_small_bins() -> None:
    evaluation = _evaluation(100, 2, 4)
    evaluation.mac_share[:] = [0.5] * 60 + [0.75] * 21 + [0.9] * 19
    evaluation.guesses.ranks[:] = [1] * 30 + [0] * 70
    bars, accuracy = draw_compute_spread(evaluation, "network").axes
    heights = [int(bar.get_height()) for bar in bars.patches if bar.get_height()]
    assert heights == [60, 21, 19]
    assert accuracy.lines[0].get_ydata().tolist() == [0.5, 1.0]
    for bar, share in zip([bar for bar in bars.patches if bar.get_height()], (0.5, 0.75, 0.9), strict=True):
        assert bar.get_x() - 0.01 < share < bar.get_x() + bar.get_width() + 0.01


def test_drawing_leaves_the_global_state_of_matplotlib_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    write_pictures(_evaluation(40, 4, 4), tmp_path, "network")
    assert dict(matplotlib.rcParams) == before
