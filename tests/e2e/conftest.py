from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.e2e.process import ServerProcess
from tests.image_files import pngs
from tests.networks import exported_once


@pytest.fixture(autouse=True, scope="session")
def _single_thread() -> Iterator[None]:
    """One thread: no fight for cores with the server."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small network's artifact; nobody may write to it."""
    return exported_once(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Twenty PNGs; among them the small network takes at least five paths."""
    return pngs(20)


@pytest.fixture(scope="session")
def server(artifact: Path) -> Iterator[ServerProcess]:
    """A server that tests share; they leave nothing behind but counts."""
    with ServerProcess(artifact, "--workers", "2") as started:
        yield started
