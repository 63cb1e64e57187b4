from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch

from artifact.preprocessing import Preprocessing
from models.data import Dataset, load_pixels
from models.distortion import Distortion
from models.sources import open_examples
from tests.conftest import MakeFolders

DISTORTIONS = [Distortion(color_jitter=0.4), Distortion(rand_augment=9), Distortion(0.2, 15)]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def _needs_torchvision() -> None:
    try:
        Distortion(color_jitter=0.1).check()
    except ValueError as error:
        pytest.skip(str(error))


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    nothing = Distortion()
    nothing.check()
    assert not nothing
    assert str(nothing) == ""


def test_what_is_done_is_told() -> None:
    assert str(Distortion(0.4, 9)) == ", RandAugment of magnitude 9, colours changed by up to 40%"


def test_without_torchvision_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def lacking(name: str, *arguments: object) -> object:
        if name.startswith("torchvision"):
            raise ImportError("no torchvision")
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ValueError, match=r"need torchvision .*convnet-aig-serving\[augment\].*no torchvision"):
        Distortion(rand_augment=9).check()


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=str)
def test_distorted_image_depends_on_the_seed_alone(distortion: Distortion, image: np.ndarray) -> None:
    _needs_torchvision()
    state = torch.get_rng_state()
    first = [distortion.of(image, seed) for seed in range(20)]
    torch.manual_seed(5)
    assert all(np.array_equal(distortion.of(image, seed), each) for seed, each in enumerate(first))
    torch.set_rng_state(state)
    distortion.of(image, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(np.unique([each.tobytes() for each in first])) > 10
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in first)


def test_jitter_changes_no_more_than_it_says() -> None:
    _needs_torchvision()
    grey = np.full((8, 8, 3), 100, np.uint8)
    levels = np.array([Distortion(color_jitter=0.2).of(grey, seed).mean() for seed in range(200)])
    assert 79 <= levels.min() < 90
    assert 110 < levels.max() <= 121


@pytest.mark.parametrize("side", [16, 72])
def test_images_of_training_are_distorted_and_those_that_judge_are_not(
    tmp_path: Path, make_class_folders: MakeFolders, side: int
) -> None:
    _needs_torchvision()
    examples = open_examples(make_class_folders(tmp_path, ("a", "b"), each=4, side=90))
    preprocessing = Preprocessing(resize=side, crop=side, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    plain, distorted = (
        Dataset(examples, np.arange(8), preprocessing, load_pixels(examples, preprocessing)[1], each)
        for each in (Distortion(), Distortion(rand_augment=9))
    )
    assert torch.equal(next(plain.ordered(8)).images, next(distorted.ordered(8)).images)
    whole = next(distorted.shuffled(8, seed=0, epoch=0)).images
    assert not torch.equal(next(plain.shuffled(8, seed=0, epoch=0)).images, whole)
    assert torch.equal(next(distorted.shuffled(8, seed=0, epoch=0)).images, whole)
    half = next(distorted.shuffled(8, seed=0, epoch=0, share=slice(1, None, 2))).images
    assert torch.equal(half, whole[1::2])
