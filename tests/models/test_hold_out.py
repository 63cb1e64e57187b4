from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models.examples import DataError, Examples
from models.hold_out import HeldOut, default_held_out, held_out_indices, known_among, split


def _examples(sizes: Sequence[int]) -> Examples:
    """As many images of each class, mixed."""
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    labels = tuple(f"class {index}" for index in range(len(sizes)))
    names = [f"{label}/{index}.png" for index, label in enumerate(classes)]
    return Examples(labels, classes, names, lambda _: Image.new("RGB", (4, 4)))


def test_split_is_the_same_every_time_and_has_every_image_once(examples: Examples) -> None:
    training, held_out = split(examples, 10)
    again = split(examples, 10)
    assert np.array_equal(training, again[0])
    assert np.array_equal(held_out, again[1])
    assert sorted([*training, *held_out]) == list(range(60))


def test_split_spreads_the_held_out_images_over_each_class(examples: Examples) -> None:
    _, held_out = split(examples, 10)
    assert held_out.tolist() == [0, 1, 12, 13, 24, 25, 36, 37, 48, 49]


@pytest.mark.parametrize(
    ("sizes", "held_out", "expected"),
    [
        ((30, 30), 10, [5, 5]),
        ((30, 30), 11, [6, 5]),
        ((500, 400, 100), 100, [50, 40, 10]),
        ((506, 718, 511, 559, 638), 500, [86, 123, 87, 95, 109]),
        ((1000, 1, 2, 3), 100, [100, 0, 0, 0]),
        ((30, 30), 50, [25, 25]),
        ((10, 4, 1), 6, [4, 2, 0]),  # a small class keeps most of its images
    ],
)
def test_each_class_gives_its_share(sizes: Sequence[int], held_out: int, expected: list[int]) -> None:
    examples = _examples(sizes)
    training, validation = split(examples, held_out)
    assert np.bincount(examples.classes[validation], minlength=len(sizes)).tolist() == expected
    assert len(training) == sum(sizes) - sum(expected)


def test_class_without_images_gives_none() -> None:
    examples = replace(_examples((10, 10)), labels=("class 0", "class 1", "class 2"))
    assert np.bincount(examples.classes[split(examples, 4)[1]]).tolist() == [2, 2]


def test_split_may_hold_out_nothing(examples: Examples) -> None:
    training, held_out = split(examples, 0)
    assert len(training) == 60
    assert held_out.tolist() == []


@pytest.mark.parametrize(("images", "count"), [(10, 2), (240, 48), (2_932, 500), (50_000, 5_000), (1_281_167, 10_000)])
def test_so_many_are_held_out_unless_another_number_is_given(images: int, count: int) -> None:
    assert default_held_out(images) == count
    assert len(split(_examples((images // 2, images // 2)), None)[1]) == count


@pytest.mark.parametrize("held_out", [-1, 59, 60, 1000])
def test_split_that_leaves_a_class_empty_is_refused(examples: Examples, held_out: int) -> None:
    with pytest.raises(ValueError, match=r"cannot hold out .* images.*: give another --held-out"):
        split(examples, held_out)
    with pytest.raises(ValueError, match=r"cannot hold out .*: do without"):
        split(examples, held_out, "do without")


def test_folder_for_validation_is_what_is_held_out(examples: Examples) -> None:
    own = replace(examples, validation=np.arange(60) % 7 == 0)
    training, held_out = split(own, None)
    assert held_out.tolist() == list(range(0, 60, 7))
    assert sorted([*training, *held_out]) == list(range(60))
    assert own.without([0, 1]).validation.tolist() == own.validation[2:].tolist()
    with pytest.raises(ValueError, match="leave out --held-out"):
        split(own, 10)


def test_held_out_images_are_known_where_the_data_is_the_same(examples: Examples) -> None:
    _, indices = split(examples, 10)
    told = HeldOut.of(examples, indices)
    assert len(told) == 10
    assert told.among(examples).tolist() == known_among(told, examples, "small").tolist() == indices.tolist()
    for others in (examples.without([3]), replace(examples, names=[*examples.names[:-1], "other"])):
        assert told.among(others).tolist() == []
        with pytest.raises(DataError, match="small was trained on other images than these"):
            known_among(told, others, "small")


def test_what_is_told_goes_before_what_is_asked_for(examples: Examples) -> None:
    told = HeldOut.of(examples, np.array([1, 2, 3]))
    for asked in (None, 3):
        assert held_out_indices(told, asked, examples, "small").tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="training of small held out 3 images, not 4"):
        held_out_indices(told, 4, examples, "small")
    with pytest.raises(ValueError, match="training of small held out no images: give --all"):
        held_out_indices(HeldOut(data=examples.digest(), indices=()), 4, examples, "small")
    assert held_out_indices(None, 10, examples, "small").tolist() == split(examples, 10)[1].tolist()
