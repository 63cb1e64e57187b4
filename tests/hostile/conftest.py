from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.bystander import nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.wire import ALIVE, connect


@pytest.fixture(scope="session")
def victim(artifact: Path) -> Iterator[Victim]:
    """A server with default settings that tests share; all of them have to leave it as it was."""
    with Victim(artifact, "--workers", "1") as started:
        with nobody_is_harmed(started, most_mb_meanwhile=1000), connect(started.port) as connection:
            connection.sendall(ALIVE)  # the first requests make what is kept for all later ones
        yield started
