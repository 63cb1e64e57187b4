"""The slider along the model's budgets on the page."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Route, expect

from tests.budgets import budgeted_copy
from tests.e2e.browser import Visitor, executed, path_of, visiting
from tests.e2e.process import ServerProcess
from tests.image_files import encoded
from tests.runtimes import PATIENCE_S

_OFFSETS = (-1e4, -1.5, -1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0, 1e4)
_PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def budgeted(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(budgeted_copy(artifact, tmp_path_factory.mktemp("budgeted") / "1", _OFFSETS)) as started:
        yield started


@pytest.fixture
def guest(browser: Browser, budgeted: ServerProcess) -> Iterator[Visitor]:
    """Someone at the page of a model with budgets."""
    with visiting(browser, budgeted.url) as arrived:
        yield arrived


@pytest.fixture
def asked(guest: Visitor) -> list[str]:
    """The query of every request that the page makes to classify."""
    queries: list[str] = []
    guest.page.on(
        "request", lambda sent: queries.append(sent.url.partition("classify")[2]) if "classify" in sent.url else None
    )
    return queries


@dataclass(frozen=True)
class Told:
    """What the service itself answers to a picture.

    Attributes:
        picture: one whose prediction is not the same with every budget.
        queries: that ask for the budgets, from the least to the full path.
        answers: to them.
    """

    picture: bytes
    queries: list[str]
    answers: list[dict[str, Any]]

    @property
    def as_trained(self) -> int:
        (place,) = [place for place, answer in enumerate(self.answers) if answer["compute"]["gate_offset"] == 0]
        return place

    @property
    def changed(self) -> list[bool]:
        best = [answer["predictions"][0]["label"] for answer in self.answers]
        return [label != best[-1] for label in best]

    def path(self, place: int) -> list[bool]:
        return path_of(self.answers[place]["inference_graph"]["blocks"])


@pytest.fixture(scope="module")
def told(budgeted: ServerProcess, pictures: list[bytes]) -> Told:
    with budgeted.client() as client:
        shares = [row["mac_share"] for row in client.get("/model").json()["budgets"]]
        queries = [f"?budget={min(1, math.ceil(share * 1e4) / 1e4):g}" for share in shares]

        def answers(picture: bytes) -> list[dict[str, Any]]:
            return [client.post(f"/classify{query}", content=picture, headers=_PNG).json() for query in queries]

        known = (Told(picture, queries, answers(picture)) for picture in pictures)
        found = next(it for it in known if any(it.changed) and it.path(0) != it.path(it.as_trained) != it.path(-1))
    assert [answer["compute"]["gate_offset"] for answer in found.answers] == list(_OFFSETS)
    return found


def _slider(card: Locator) -> Locator:
    return card.get_by_role("slider", name="Budget")


def _move(slider: Locator, *places: int) -> None:
    """As a pointer does that is dragged from place to place, but without the touch that starts marking."""
    slider.evaluate(
        """(slider, places) => {
            for (const place of places) {
                slider.value = place;
                slider.dispatchEvent(new Event("input", {bubbles: true}));
            }
        }""",
        places,
    )


def _await_path(card: Locator, path: list[bool]) -> None:
    for block, ran in zip(card.locator(".path .block").all(), path, strict=True):
        expect(block).to_contain_class("executed" if ran else "skipped")
    assert executed(card) == path


def _changing(change: Callable[[dict[str, Any]], None]) -> Callable[[Route], None]:
    def handle(route: Route) -> None:
        response = route.fetch()
        answer = response.json()
        change(answer)
        route.fulfill(response=response, body=json.dumps(answer))

    return handle


def test_model_without_budgets_has_no_slider(visitor: Visitor, pictures: list[bytes]) -> None:
    (card,) = visitor.visit(pictures[0])
    expect(card.locator(".budget")).to_have_count(0)


def test_slider_stands_where_the_network_was_trained(guest: Visitor, asked: list[str], told: Told) -> None:
    (card,) = guest.visit(told.picture)
    expect(_slider(card)).to_have_value(str(told.as_trained))
    assert asked == [""]
    assert executed(card) == told.path(told.as_trained)


def test_moved_slider_shows_what_the_service_answers_with_that_budget(
    guest: Visitor, asked: list[str], told: Told
) -> None:
    (card,) = guest.visit(told.picture)
    _move(_slider(card), 0)
    _await_path(card, told.path(0))
    assert asked == ["", told.queries[0]]
    answer = told.answers[0]
    labels = [guess["label"] for guess in answer["predictions"]]
    assert card.locator(".predictions .label").all_text_contents() == labels
    expect(card.locator(".state")).to_contain_text(
        f"{answer['layers']['executed']} of {answer['layers']['total']} blocks"
    )
    expect(card.locator(".state")).to_contain_text(f"{answer['compute']['ratio']:.0%} of the compute")


def test_touched_slider_marks_where_the_prediction_changes_and_asks_nothing_twice(
    guest: Visitor, asked: list[str], told: Told
) -> None:
    (card,) = guest.visit(told.picture)
    _slider(card).focus()
    expect(card.locator(".tick.changed")).to_have_count(sum(told.changed))
    expect(card.locator(".key")).to_contain_text(
        f"With every block it says {told.answers[-1]['predictions'][0]['label']}"
    )
    kinds = card.locator(".tick").evaluate_all("ticks => ticks.map(tick => tick.classList.contains('changed'))")
    assert kinds == told.changed
    for place in (*range(len(_OFFSETS)), told.as_trained):
        _move(_slider(card), place)
        _await_path(card, told.path(place))
    others = [query for place, query in enumerate(told.queries) if place != told.as_trained]
    assert sorted(asked) == sorted(["", *others])


def test_slider_is_moved_with_the_keyboard_and_tells_what_a_budget_gives(guest: Visitor, told: Told) -> None:
    (card,) = guest.visit(told.picture)
    slider = _slider(card)
    slider.focus()
    guest.page.keyboard.press("Home")
    _await_path(card, told.path(0))
    guest.page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("1")
    _await_path(card, told.path(1))
    guest.page.keyboard.press("End")
    _await_path(card, told.path(-1))
    expect(slider).to_have_attribute(
        "aria-valuetext", "100% of the compute on average, 90.0% right on images nobody trained on"
    )
    expect(slider).to_be_focused()


def _await(guest: Visitor, condition: Callable[[], bool]) -> None:
    """Let the page go on until something is so."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "it never came about"
        guest.page.wait_for_timeout(20)


def test_no_more_than_two_are_asked_at_a_time_and_none_for_a_card_that_was_removed(
    guest: Visitor, asked: list[str], told: Told
) -> None:
    (card,) = guest.visit(told.picture)
    held: list[Route] = []
    guest.page.route("**/classify?*", lambda route: held.append(route))
    _slider(card).focus()
    _await(guest, lambda: len(held) == 2)
    guest.page.wait_for_timeout(300)
    assert len(held) == 2
    card.get_by_role("button", name="Remove").click()
    for route in held:
        route.abort()
    guest.page.wait_for_timeout(300)
    assert len(asked) == 3


def test_busy_service_is_not_asked_for_more_than_what_was_chosen(guest: Visitor, asked: list[str], told: Told) -> None:
    (card,) = guest.visit(told.picture)
    body = '{"error": {"type": "overloaded", "message": "the queue is full"}}'
    guest.page.route(
        "**/classify?*", lambda route: route.fulfill(status=429, body=body, content_type="application/json")
    )
    _slider(card).focus()
    _await(guest, lambda: len(asked) > 1)
    guest.page.wait_for_timeout(500)
    assert len(asked) in (2, 3)
    assert executed(card) == told.path(told.as_trained)
    expect(card).to_have_attribute("data-state", "answered")
    guest.page.unroute("**/classify?*")
    _move(_slider(card), 0)
    _await_path(card, told.path(0))


def test_failed_budget_is_told_and_can_be_tried_again_or_left(guest: Visitor, told: Told) -> None:
    (card,) = guest.visit(told.picture)
    guest.page.route("**/classify?*", lambda route: route.abort())
    _move(_slider(card), 0)
    expect(card.locator(".state")).to_have_text("The service cannot be reached")
    _move(_slider(card), told.as_trained)
    _await_path(card, told.path(told.as_trained))
    _move(_slider(card), 0)
    expect(card.locator(".state")).to_have_text("The service cannot be reached")
    guest.page.unroute("**/classify?*")
    card.get_by_role("button", name="Try again").click()
    _await_path(card, told.path(0))


def test_large_file_is_sent_for_the_chosen_budget_only(guest: Visitor, asked: list[str], told: Told) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    (card,) = guest.visit(encoded(noise, "PNG"))
    slider = _slider(card)
    slider.focus()
    _move(slider, 3, 2, 1, 0)  # it does not rest on the way
    _await(guest, lambda: len(asked) > 1)
    guest.page.wait_for_timeout(300)
    assert asked == ["", told.queries[0]]


def test_answer_of_less_than_was_asked_for_is_shown_but_not_kept(guest: Visitor, asked: list[str], told: Told) -> None:
    (card,) = guest.visit(told.picture)
    guest.page.route("**/classify?*", _changing(lambda answer: answer["compute"].update(degraded=True)))
    for place in (0, told.as_trained, 0):
        _move(_slider(card), place)
        _await_path(card, told.path(place))
    assert asked == ["", told.queries[0], told.queries[0]]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_slider_fits_and_axe_finds_nothing_to_object_to(
    browser: Browser, budgeted: ServerProcess, told: Told, width: int, scheme: str
) -> None:
    with visiting(browser, budgeted.url, viewport={"width": width, "height": 900}, color_scheme=scheme) as guest:
        (card,) = guest.visit(told.picture)
        _slider(card).focus()
        expect(card.locator(".tick.changed")).to_have_count(sum(told.changed))
        guest.keep_screenshot(f"budget-{width}-{scheme}")
        assert guest.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        results = Axe().run(guest.page)
        assert results.violations_count == 0, results.generate_report()
