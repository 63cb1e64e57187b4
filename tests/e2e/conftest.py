from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import Visitor, chromium, visiting
from tests.e2e.process import ServerProcess
from tests.e2e.stack import Stack, obstacle


@pytest.fixture(scope="session")
def server(artifact: Path) -> Iterator[ServerProcess]:
    """A server that tests share; they leave nothing behind but counts."""
    with ServerProcess(artifact, "--workers", "2") as started:
        yield started


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The containers, built from the working tree but not started; removed in the end, whatever happened."""
    if problem := obstacle():
        pytest.skip(f"not run: {problem}")
    with Stack(tmp_path_factory.mktemp("stack")) as built:
        yield built


@pytest.fixture
def running(stack: Stack) -> Stack:
    """The containers, running and ready."""
    stack.up()
    return stack


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
