from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess


@pytest.fixture(scope="session")
def server(artifact: Path) -> Iterator[ServerProcess]:
    """A server that tests share; they leave nothing behind but counts."""
    with ServerProcess(artifact, "--workers", "2") as started:
        yield started
