"""The JavaScript functions of the page about clients, in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.clients.conftest import url_of
from tests.clients.test_snippets import ADDRESS, BLOCKS
from tests.e2e.browser import chromium, visiting
from tests.service.http_server import RunningServer

FUNCTIONS = "\n".join(
    function
    for language, text in BLOCKS
    if language == "js"
    for function in re.findall(r"^async function .*?^}$", text, re.MULTILINE | re.DOTALL)
)
PROGRAM = """async (images) => {
  FUNCTIONS
  const files = images.map((bytes, number) => new File([new Uint8Array(bytes)], `${number}`));
  const answers = [await classify(files[0]), ...(await classifyBatch(files, [0.4, 1])).map((each) => each.answer)];
  return answers.map((answer) => answer.predictions[0].label);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


def test_functions_of_the_page_work_in_a_browser(browser: Browser, shipped: RunningServer, photographs: Path) -> None:
    images = [list((photographs / name).read_bytes()) for name in ("cat.jpg", "ship.png")]
    program = PROGRAM.replace("FUNCTIONS", FUNCTIONS.replace(ADDRESS, url_of(shipped)))
    with visiting(browser, url_of(shipped)) as visitor:
        visitor.open()
        assert visitor.page.evaluate(program, images) == ["cat", "cat", "ship"]
