from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import models.data
from artifact.preprocessing import Preprocessing
from models.config import ModelConfig
from models.data import Dataset, default_workers, load_pixels
from models.examples import DataError, Examples
from models.sources import open_examples
from tests.conftest import MakeFolders
from tests.models.conftest import MakeDataset


def _shuffled(dataset: Dataset, **changes: int) -> list[torch.Tensor]:
    settings = {"batch_size": 8, "seed": 0, "epoch": 0} | changes
    return [batch.images for batch in dataset.shuffled(**settings)]


class _RecordingPixels:
    """Remembers which images were augmented, which of them mirrored, and the first random number of each batch."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.mirrored: list[bool] = []
        self.drawn: list[float] = []

    def fitted(self, indices: np.ndarray) -> np.ndarray:
        raise AssertionError(f"images {indices} are for training, and augmented")

    augmentation = "none"

    def augmented(
        self, indices: np.ndarray, mirrored: np.ndarray, random: np.random.Generator, share: slice
    ) -> np.ndarray:
        assert share == slice(None)
        self.seen.extend(indices.tolist())
        self.mirrored.extend(mirrored.tolist())
        self.drawn.append(random.random())
        return np.zeros((len(indices), 16, 16, 3), np.uint8)


def _equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_ordered_batches_are_what_the_service_would_see(
    examples: Examples, make_dataset: MakeDataset, config: ModelConfig
) -> None:
    batches = list(make_dataset(np.array([7, 3, 5])).ordered(2))
    assert [len(batch.images) for batch in batches] == [2, 1]
    assert torch.cat([batch.classes for batch in batches]).tolist() == [1, 1, 1]
    expected = [config.preprocessing.normalise(config.preprocessing.fit(examples.image(index))) for index in (7, 3, 5)]
    assert np.array_equal(torch.cat([batch.images for batch in batches]).numpy(), np.stack(expected))


def test_shuffled_batches_have_every_image_at_most_once(examples: Examples, config: ModelConfig) -> None:
    pixels = _RecordingPixels()
    dataset = Dataset(examples, np.arange(10, 60), config.preprocessing, pixels)
    batches = list(dataset.shuffled(8, seed=0, epoch=0))
    seen = pixels.seen
    assert len(batches) == dataset.batches(8) == 6
    assert len(set(seen)) == 48
    assert set(seen) <= set(range(10, 60))
    assert seen != sorted(seen)
    assert torch.cat([batch.classes for batch in batches]).tolist() == examples.classes[seen].tolist()


def test_every_step_of_every_epoch_is_augmented_in_its_own_way(examples: Examples, config: ModelConfig) -> None:
    pixels = _RecordingPixels()
    dataset = Dataset(examples, np.arange(60), config.preprocessing, pixels)
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        list(dataset.shuffled(8, seed, epoch))
    assert len(pixels.drawn) == len(set(pixels.drawn)) == 3 * 7


def test_augmentation_depends_on_seed_epoch_and_step_alone(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    first = _shuffled(dataset)
    np.random.seed(99)  # global randomness must have no influence
    torch.manual_seed(99)
    assert _equal(_shuffled(make_dataset()), first)
    assert not _equal(_shuffled(dataset, seed=1), first)
    assert not _equal(_shuffled(dataset, epoch=1), first)


def test_epoch_can_be_entered_at_any_step(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    assert _equal(_shuffled(dataset, first=5), _shuffled(dataset)[5:])
    assert _shuffled(dataset, first=7) == []


def test_image_is_mirrored_in_every_second_epoch(examples: Examples, config: ModelConfig) -> None:
    pixels = _RecordingPixels()
    dataset = Dataset(examples, np.arange(60), config.preprocessing, pixels)
    for epoch in range(4):
        list(dataset.shuffled(60, seed=5, epoch=epoch))
    views = np.array(pixels.mirrored).reshape(4, 60)
    by_image = np.take_along_axis(views, np.argsort(np.array(pixels.seen).reshape(4, 60), axis=1), axis=1)
    assert (by_image[0] != by_image[1]).all()
    assert (by_image[:2] == by_image[2:]).all()
    assert 15 < by_image[0].sum() < 45


def test_augmented_image_is_a_crop_of_the_padded_image_mirrored_where_asked(
    examples: Examples, config: ModelConfig, rng: np.random.Generator
) -> None:
    _, pixels = load_pixels(examples, config.preprocessing)
    chosen = np.arange(60)
    mirrored = chosen % 3 == 0
    padded = np.pad(pixels.fitted(chosen), ((0, 0), (4, 4), (4, 4), (0, 0)))
    found = []
    for index, image in enumerate(pixels.augmented(chosen, mirrored, rng)):
        windows = np.lib.stride_tricks.sliding_window_view(padded[index], (16, 16), (0, 1)).transpose(0, 1, 3, 4, 2)
        for flipped, candidate in enumerate((image, image[:, ::-1])):
            found += [(flipped, *place) for place in np.argwhere((windows == candidate).all(axis=(2, 3, 4)))]
    assert len(found) == 60
    flips, rows, columns = np.array(found).T
    assert (flips == mirrored).all()
    assert set(rows) == set(columns) == set(range(9))


@pytest.fixture
def large(tmp_path: Path, make_class_folders: MakeFolders) -> tuple[Examples, Preprocessing]:
    """Images too large to be kept decoded."""
    folder = make_class_folders(tmp_path / "large", ("a", "b"), each=3, side=90)
    preprocessing = Preprocessing(resize=80, crop=72, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return open_examples(folder), preprocessing


def test_large_images_are_fitted_like_small_ones(large: tuple[Examples, Preprocessing]) -> None:
    examples, preprocessing = large
    fitted = load_pixels(examples, preprocessing)[1].fitted(np.array([4, 0]))
    assert np.array_equal(fitted, np.stack([preprocessing.fit(examples.image(index)) for index in (4, 0)]))


def test_image_that_cannot_be_read_stops_at_once_where_all_are_decoded_and_else_when_it_is_reached(
    large: tuple[Examples, Preprocessing], tmp_path: Path, config: ModelConfig
) -> None:
    (tmp_path / "large" / "a" / "001.png").write_bytes(b"damaged")
    examples, preprocessing = large
    with pytest.raises(DataError, match="a/001"):
        load_pixels(examples, config.preprocessing)
    same, pixels = load_pixels(examples, preprocessing)
    assert same is examples
    for workers in (0, 2):
        dataset = Dataset(examples, np.arange(6), preprocessing, pixels, workers=workers)
        with pytest.raises(DataError, match=r"^cannot decode .*a/001\.png: [^\n]*$"):
            list(dataset.ordered(2))
        with pytest.raises(DataError, match=r"^cannot decode .*a/001\.png: [^\n]*$"):
            list(dataset.shuffled(2, seed=0, epoch=0))
    pixels.fitted(np.array([0, 2]))
    with pytest.raises(DataError, match="a/001"):
        pixels.fitted(np.array([0, 1]))
    with pytest.raises(DataError, match="a/001"):
        pixels.augmented(np.array([0, 1]), np.array([True, False]), np.random.default_rng(0))


@pytest.mark.parametrize("side", [16, 72])
def test_pixels_are_those_of_the_images_that_can_be_read(
    large: tuple[Examples, Preprocessing], tmp_path: Path, side: int
) -> None:
    preprocessing = large[1].model_copy(update={"resize": side, "crop": side})
    expected = np.stack([large[0].fitted(index, preprocessing) for index in (0, 2, 3, 4)])
    for name in ("a/001.png", "b/002.png"):
        (tmp_path / "large" / name).write_bytes(b"damaged")
    examples, pixels = load_pixels(large[0], preprocessing, "skip")
    assert list(examples.names) == ["a/000.png", "a/002.png", "b/000.png", "b/001.png"]
    assert np.array_equal(pixels.fitted(np.arange(4)), expected)
    assert pixels.augmented(np.arange(4), np.zeros(4, bool), np.random.default_rng(0)).shape == (4, side, side, 3)


def test_small_images_are_decoded_once(examples: Examples, config: ModelConfig) -> None:
    opened = []

    def note(index: int) -> Image.Image:
        opened.append(index)
        return examples.image(index)

    noting = Examples(examples.labels, examples.classes, examples.names, note)
    for _ in range(2):
        _, pixels = load_pixels(noting, config.preprocessing, "skip")
        pixels.fitted(np.arange(60))
        assert sorted(opened) == list(range(60))
        opened.clear()


def test_image_with_pixels_that_are_no_numbers_is_named_when_it_is_augmented(
    large: tuple[Examples, Preprocessing], tmp_path: Path
) -> None:
    Image.fromarray(np.full((90, 90), np.nan, np.float32)).save(tmp_path / "large" / "a" / "000.tiff")
    examples = open_examples(tmp_path / "large")
    _, pixels = load_pixels(examples, large[1])
    with pytest.raises(DataError, match=r"cannot decode .*a/000\.tiff"):
        pixels.augmented(np.array([1]), np.array([False]), np.random.default_rng(0))


def test_workers_give_the_same_batches(large: tuple[Examples, Preprocessing]) -> None:
    examples, preprocessing = large
    _, pixels = load_pixels(examples, preprocessing)
    alone, ahead = (
        Dataset(examples, np.array([5, 0, 3, 1, 2]), preprocessing, pixels, workers=count) for count in (0, 2)
    )
    state = torch.get_rng_state()
    for name, settings in (("ordered", (2,)), ("shuffled", (2, 0, 1)), ("shuffled", (2, 0, 1, 1, slice(1, None, 2)))):
        here, there = (list(getattr(each, name)(*settings)) for each in (alone, ahead))
        assert _equal([batch.images for batch in here], [batch.images for batch in there])
        assert _equal([batch.classes for batch in here], [batch.classes for batch in there])
        assert there[0].images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_are_for_images_that_are_decoded_again_and_again(
    config: ModelConfig, large: tuple[Examples, Preprocessing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.data, "usable_cores", lambda: 4)
    monkeypatch.setattr(models.data.sys, "platform", "linux")
    assert default_workers(config.preprocessing) == 0
    assert default_workers(large[1]) == 3
    assert default_workers(large[1], processes=2) == 1
    assert default_workers(large[1], processes=8) == 0
    monkeypatch.setattr(models.data, "usable_cores", lambda: 128)
    assert default_workers(large[1]) == 8
    monkeypatch.setattr(models.data.sys, "platform", "darwin")
    assert default_workers(large[1]) == 0


@pytest.mark.parametrize(("side", "decoded"), [(2000, 500), (1100, 550), (999, 999), (300, 300)])
def test_photograph_is_decoded_at_a_scale_that_is_enough(tmp_path: Path, side: int, decoded: int) -> None:
    for label, level in (("a", 60), ("b", 190)):
        (tmp_path / label).mkdir()
        Image.new("RGB", (side, 2 * side), (level, 0, 0)).save(tmp_path / label / "0.jpg")
    examples = open_examples(tmp_path)
    image = examples.image(1, shorter_side=500)
    assert image.size == (decoded, 2 * decoded)
    assert abs(int(np.asarray(image)[0, 0, 0]) - 190) < 3
    assert examples.image(1).size == (side, 2 * side)


def test_crop_has_at_least_as_many_pixels_as_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        Image.effect_noise((1600, 1200), 80).convert("RGB").save(tmp_path / label / "0.jpg")
    sizes = []
    image = Examples.image

    def noted(examples: Examples, index: int, shorter_side: int | None = None) -> Image.Image:
        decoded = image(examples, index, shorter_side)
        sizes.append(decoded.size)
        return decoded

    monkeypatch.setattr(Examples, "image", noted)
    preprocessing = Preprocessing(resize=80, crop=72, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    _, pixels = load_pixels(open_examples(tmp_path), preprocessing)
    pixels.augmented(np.zeros(2, int), np.zeros(2, bool), np.random.default_rng(0))
    assert sizes == [(400, 300)] * 2
    smallest_box = 0.08 * 400 * 300
    assert (smallest_box * 3 / 4) ** 0.5 >= 72


def test_large_images_are_augmented_repeatably(large: tuple[Examples, Preprocessing]) -> None:
    examples, preprocessing = large
    chosen = np.array([0, 0, 0, 0, 5])
    _, pixels = load_pixels(examples, preprocessing)
    mirrored = np.zeros(5, bool)
    first = pixels.augmented(chosen, mirrored, np.random.default_rng(3))
    assert first.shape == (5, 72, 72, 3)
    assert np.array_equal(pixels.augmented(chosen, mirrored, np.random.default_rng(3)), first)
    assert not np.array_equal(pixels.augmented(chosen, mirrored, np.random.default_rng(4)), first)
    assert len(np.unique(first[:4], axis=0)) == 4
    assert np.array_equal(pixels.augmented(chosen, ~mirrored, np.random.default_rng(3)), first[:, :, ::-1])
