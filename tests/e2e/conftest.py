from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import Visitor, chromium, visiting
from tests.e2e.process import ServerProcess


@pytest.fixture(scope="session")
def server(artifact: Path) -> Iterator[ServerProcess]:
    """A server that tests share; they leave nothing behind but counts."""
    with ServerProcess(artifact, "--workers", "2") as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one module: while it runs, its event loop keeps other tests from running theirs."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def visitor(browser: Browser, server: ServerProcess) -> Iterator[Visitor]:
    """Someone at a page of the shared server, who sees to it that nothing goes elsewhere and no script fails."""
    with visiting(browser, server.url) as arrived:
        yield arrived
