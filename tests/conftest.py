"""What tests of every part share: random numbers, images, and the exported small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.device import use_sound_gradients
from tests.image_files import pngs
from tests.networks import exported_once

MakeFolders = Callable[..., Path]

# The markers of pyproject.toml that all tests of a folder have, or all that use a fixture.
_OF_FOLDER = {
    "e2e": "slow",
    "fuzz": "fuzz",
    "gpu": "gpu",
    "hostile": "slow",
    "service/engine/runtimes": "slow",
    "service/engine/workers": "slow",
}
_OF_FIXTURE = {"browser": "browser", "stack": "docker"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests whose folder or fixtures tell that they are not fast."""
    for item in items:
        folders = [folder.as_posix() for folder in item.path.relative_to(Path(__file__).parent).parents]
        marks = [*map(_OF_FOLDER.get, folders), *map(_OF_FIXTURE.get, getattr(item, "fixturenames", ()))]
        for name in filter(None, marks):
            item.add_marker(name)


@pytest.fixture(autouse=True, scope="session")
def _single_thread() -> Iterator[None]:
    """One thread: sums in the same order wherever tests run, and no fight for cores with servers under test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    use_sound_gradients(torch.device("cpu"))
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What services make for this machine must not land beside the models of the repository."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small network's artifact; nobody may write to it."""
    return exported_once(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Twenty PNGs; among them the small network takes at least five paths."""
    return pngs(20)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def make_class_folders() -> MakeFolders:
    """Writes `each` PNGs of side x side pixels into a folder for every label; each class has its own colours."""

    def make(root: Path, labels: Sequence[str], each: int, side: int = 32, seed: int = 0) -> Path:
        random = np.random.default_rng(seed)
        for label in labels:
            (root / label).mkdir(parents=True)
            colour = random.uniform(60, 195, 3)
            for number in range(each):
                pixels = np.clip(random.normal(colour, 30, (side, side, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / label / f"{number:03d}.png")
        return root

    return make
