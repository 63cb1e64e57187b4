"""The page of a service that asks for API keys."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Request, expect

from tests.e2e.browser import Visitor, visiting
from tests.e2e.process import ServerProcess

_KEY, _PLAIN_KEY = "opens-everything", "opens-no-metrics"


@pytest.fixture(scope="module")
def locked(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a key that opens everything and one that opens no metrics."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (_KEY, _PLAIN_KEY)]
    keys.write_text('[keys.owner]\nsha256 = "{}"\nmetrics = true\n[keys.plain]\nsha256 = "{}"\n'.format(*digests))
    with ServerProcess(artifact, "--workers", "1", "--api-keys", str(keys)) as started:
        yield started


@pytest.fixture
def guest(browser: Browser, locked: ServerProcess) -> Iterator[Visitor]:
    with visiting(browser, locked.url) as arrived:
        arrived.page.goto(locked.url)
        yield arrived


def _field(guest: Visitor) -> Locator:
    return guest.page.get_by_label("This service asks for an API key")


def _enter(guest: Visitor, key: str) -> None:
    _field(guest).fill(key)
    guest.page.keyboard.press("Enter")


def test_key_opens_all_that_the_page_asks_for_and_stands_in_no_address(guest: Visitor, pictures: list[bytes]) -> None:
    sent: list[Request] = []
    guest.page.on("request", lambda request: sent.append(request))
    expect(_field(guest)).to_be_focused()
    _enter(guest, _KEY)
    expect(_field(guest)).to_be_hidden()
    guest.send(pictures[0])
    guest.answered(1)
    expect(guest.page.locator("[data-figure=images] strong")).to_have_text(re.compile(r"^\d+$"))
    calls = [request for request in sent if request.url.partition("?")[0].endswith(("models", "classify", "metrics"))]
    assert {request.headers.get("authorization") for request in calls} == {f"Bearer {_KEY}"}
    assert not [request.url for request in sent if _KEY in request.url]
    assert _KEY not in guest.page.url


def test_wrong_key_is_told_at_the_field_and_another_can_be_entered(guest: Visitor) -> None:
    for _ in range(2):
        _enter(guest, "wrong")
        message = guest.page.get_by_role("alert")
        expect(message).to_contain_text("does not know this key")
        expect(_field(guest)).to_have_attribute("aria-invalid", "true")
        expect(_field(guest)).to_be_focused()
    _enter(guest, _KEY)
    expect(_field(guest)).to_be_hidden()
    expect(guest.page.locator("#model-name")).to_have_text("small 1")


def test_key_is_kept_for_the_tab_and_no_longer(guest: Visitor, browser: Browser, locked: ServerProcess) -> None:
    _enter(guest, _KEY)
    expect(_field(guest)).to_be_hidden()
    guest.page.reload()
    expect(guest.page.locator("#knowledge")).to_be_visible()
    expect(_field(guest)).to_be_hidden()
    assert guest.page.evaluate("[Object.keys(localStorage).length, document.cookie]") == [0, ""]
    with visiting(browser, locked.url) as other:
        other.page.goto(locked.url)
        expect(_field(other)).to_be_visible()


def test_key_can_be_changed_and_one_without_metrics_still_classifies(guest: Visitor, pictures: list[bytes]) -> None:
    _enter(guest, _KEY)
    guest.page.get_by_role("button", name="API key", exact=True).click()
    _enter(guest, _PLAIN_KEY)
    expect(guest.page.locator("#live .notice")).to_contain_text("does not show its figures here", timeout=10_000)
    guest.send(pictures[0])
    guest.answered(1)
    expect(_field(guest)).to_be_hidden()


def test_pictures_wait_for_a_key_that_is_no_longer_good_to_be_replaced(guest: Visitor, pictures: list[bytes]) -> None:
    _enter(guest, _KEY)
    expect(_field(guest)).to_be_hidden()
    body = '{"error": {"type": "unauthorized", "message": "there is no such API key"}}'
    guest.page.route(
        "**/classify", lambda route: route.fulfill(status=401, body=body, content_type="application/json"), times=1
    )
    guest.send(pictures[0])
    expect(guest.page.get_by_role("alert")).to_contain_text("does not know this key")
    expect(guest.page.locator(".card")).to_have_attribute("data-state", "waiting")
    _enter(guest, _PLAIN_KEY)
    guest.answered(1)


@pytest.mark.parametrize("width", [390, 1280])
def test_form_for_the_key_fits_and_axe_finds_nothing_to_object_to(guest: Visitor, width: int) -> None:
    guest.page.set_viewport_size({"width": width, "height": 844})
    _enter(guest, "wrong")
    expect(guest.page.get_by_role("alert")).not_to_be_empty()
    guest.keep_screenshot(f"key-{width}")
    assert guest.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    results = Axe().run(guest.page)
    assert results.violations_count == 0, results.generate_report()
