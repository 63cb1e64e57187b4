"""A visitor of the page, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, Route, expect, sync_playwright

from tests.e2e.process import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
expect.set_options(timeout=30_000)  # a browser, a server and its workers may share few cores

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium: the one $CHROMIUM names, else one on the path, else Playwright's own; skips without any."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    # Chromium refuses its sandbox to root, as whom containers often run tests.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=flags)
        except Error as error:
            if found:
                raise
            pytest.skip(f"no Chromium: install one, or name it in CHROMIUM ({str(error).splitlines()[0]})")
        yield browser
        browser.close()


class Visitor:
    """One visitor with a page of the service open.

    Attributes:
        url: of the service.
        page: the open page.
        complaints: what must not be: requests to other origins, script errors, refusals by the policy.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.complaints: list[str] = []
        self.url = url
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self._check_origin(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        self.page.on("console", lambda message: self._check_console(message.type, message.text))

    def open(self) -> None:
        """Load the page, and wait until it knows the model."""
        self.page.goto(self.url)
        self.page.locator("#knowledge").wait_for()

    def send(self, *pictures: bytes, name: str = "picture {}.png", kind: str = "image/png") -> None:
        """Choose files."""
        files = [{"name": name.format(n), "mimeType": kind, "buffer": data} for n, data in enumerate(pictures)]
        self.page.locator("#chooser").set_input_files(files)  # type: ignore[arg-type]

    def answered(self, count: int) -> list[Locator]:
        """The cards, first to last, once so many have their answer."""
        self.page.wait_for_function(
            "count => document.querySelectorAll('.card[data-state=answered]').length === count", arg=count
        )
        return self.page.locator(".card").all()

    def visit(self, *pictures: bytes) -> list[Locator]:
        """Open the page, send pictures, and wait for their cards."""
        self.open()
        self.send(*pictures)
        return self.answered(len(pictures))

    def keep_screenshot(self, name: str) -> None:
        """Keep what the page looks like, for people."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def _check_origin(self, url: str) -> None:
        if not url.startswith((self.url, "blob:", "data:")):
            self.complaints.append(f"request to {url}")

    def _check_console(self, kind: str, text: str) -> None:
        # Chromium itself reports every answer of 400 or more; the tests make those on purpose.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.complaints.append(f"{kind}: {text}")


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visitor]:
    """A visitor with a browser context of their own, who had nothing to complain of when they leave."""
    options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
    context = browser.new_context(**options)
    visitor = Visitor(context, url)
    yield visitor
    context.close()
    assert not visitor.complaints, visitor.complaints


def change_model(visitor: Visitor, change: Callable[[dict[str, Any]], None]) -> None:
    """Let the page believe that the model is another one."""

    def handle(route: Route) -> None:
        response = route.fetch()
        model = response.json()
        change(model)
        route.fulfill(response=response, json=model)

    visitor.page.route("**/models/*/versions/*", handle)


def executed(figure: Locator) -> list[bool]:
    """Of every block of a drawn network, whether it is shown as executed."""
    kinds = figure.locator(".block").evaluate_all("blocks => blocks.map(block => [...block.classList])")
    assert all(("executed" in kind) != ("skipped" in kind) for kind in kinds)
    return ["executed" in kind for kind in kinds]


def path_of(blocks: Sequence[dict[str, Any]]) -> list[bool]:
    """The same of an answer's blocks."""
    return [block["executed"] for block in blocks]
