"""The page of a service with several models, and what it tells of each."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Route, expect

from tests.e2e.browser import Visitor, change_model, visiting
from tests.e2e.process import ServerProcess
from tests.runtimes import wait_until

_LETTERS = ["a", "b", "c", "d", "e", "f"]


def _add_model(visitor: Visitor) -> list[str]:
    """Let the page believe in a second model, which names letters; the addresses it is asked at."""
    asked: list[str] = []

    def list_both(route: Route) -> None:
        response = route.fetch()
        (small,) = response.json()["models"]
        letters = {**small, "name": "letters", "version": "7", "default": False}
        route.fulfill(response=response, json={"models": [small, letters]})

    def answer(route: Route) -> None:
        asked.append(route.request.url.removeprefix(visitor.url))
        response = route.fetch(url=route.request.url.replace("letters/versions/7", "small/versions/1"))
        told = response.json()
        told.update({"name": "letters", "version": "7", "labels": _LETTERS} if "labels" in told else {})
        for guess in told.get("predictions", []):
            guess["label"] = _LETTERS[guess["index"]]
        route.fulfill(response=response, json=told)

    visitor.page.route("**/models", list_both)
    visitor.page.route("**/models/letters/versions/7**", answer)
    return asked


@pytest.fixture
def asked(visitor: Visitor) -> list[str]:
    return _add_model(visitor)


def _chooser(visitor: Visitor) -> Locator:
    return visitor.page.get_by_role("combobox", name="Model")


def _names(cards: list[Locator]) -> list[str | None]:
    return [card.get_attribute("aria-label") for card in cards]


def test_one_model_is_named_and_not_chosen(visitor: Visitor) -> None:
    visitor.open()
    expect(visitor.page.locator("#model-name")).to_have_text("small 1")
    expect(_chooser(visitor)).to_have_count(0)


def test_pictures_on_the_page_are_run_again_by_the_model_that_is_chosen(
    visitor: Visitor, asked: list[str], pictures: list[bytes]
) -> None:
    before = _names(visitor.visit(*pictures[:3]))
    _chooser(visitor).focus()
    _chooser(visitor).select_option("letters 7")
    expect(visitor.page.locator(".card .label").first).to_have_text(re.compile("^[a-f]$"))
    cards = visitor.answered(3)
    assert _names(cards) == before
    for label in visitor.page.locator(".label").all_text_contents():
        assert label in _LETTERS
    assert asked.count("/models/letters/versions/7/classify") == 3
    expect(visitor.page.locator("#knowledge")).to_contain_text("6 kinds of things")
    expect(_chooser(visitor)).to_be_focused()


def test_chosen_model_is_kept_in_the_address(visitor: Visitor, asked: list[str], pictures: list[bytes]) -> None:
    visitor.open()
    _chooser(visitor).select_option("letters 7")
    expect(visitor.page.locator("#live .served")).to_contain_text("letters, version 7")
    assert visitor.page.url.endswith("/?model=letters/7")
    visitor.page.reload()
    expect(visitor.page.locator("#live .served")).to_contain_text("letters, version 7")
    expect(_chooser(visitor).locator("option:checked")).to_have_text("letters 7")
    visitor.send(pictures[0])
    visitor.answered(1)
    assert asked[-1] == "/models/letters/versions/7/classify"


def test_model_in_the_address_that_is_not_there_is_told_and_the_default_asked(visitor: Visitor) -> None:
    visitor.page.goto(f"{visitor.url}/?model=gone/1")
    expect(visitor.page.locator("#notice")).to_have_text("There is no model gone/1 here. The pictures go to small 1.")


def test_model_that_cannot_be_asked_leaves_the_one_before(visitor: Visitor, asked: list[str]) -> None:
    visitor.open()
    visitor.page.unroute("**/models/letters/versions/7**")  # so the service knows nothing of it
    _chooser(visitor).select_option("letters 7")
    expect(visitor.page.locator("#notice")).to_contain_text("letters 7 cannot be asked. The model is no longer there")
    expect(_chooser(visitor).locator("option:checked")).to_have_text("small 1")
    assert asked == []


def test_metrics_of_other_models_are_left_out(visitor: Visitor) -> None:
    visitor.open()
    told = visitor.page.evaluate("""async () => {
        const { Exposition } = await import("/ui/scripts/exposition.js");
        const text = 'n{model="one",version="1"} 1\\nn{model="one",version="2"} 2\\nn{model="two",version="1"} 4\\nn 8';
        return new Exposition(text, { model: "one", version: "1" }).sum("n");
    }""")
    assert told == 9


def test_everything_that_a_small_model_knows_is_named_beside_its_predictions(
    visitor: Visitor, pictures: list[bytes]
) -> None:
    (card,) = visitor.visit(pictures[0])
    expect(card.locator(".knows")).to_have_text("Knows only 6 kinds of things: ant, bee, cat, dog, elk, fox")
    kinds = visitor.page.get_by_role("list", name="Kinds of things").get_by_role("listitem")
    assert kinds.all_text_contents() == ["ant", "bee", "cat", "dog", "elk", "fox"]


def test_names_of_many_classes_are_searched(visitor: Visitor) -> None:
    labels = [f"thing {number}" for number in range(1000)]
    change_model(visitor, lambda model: model.update(labels=labels))
    visitor.open()
    names = visitor.page.get_by_role("list", name="Kinds of things")
    expect(names).to_have_css("overflow-y", "auto")
    visitor.page.get_by_role("searchbox", name="Does it know …?").fill("THING 99")
    expect(visitor.page.locator(".search").get_by_role("status")).to_have_text("11 of 1,000")
    assert names.locator("li:visible").all_text_contents() == ["thing 99", *labels[990:]]


def test_picture_is_shown_as_small_as_the_network_sees_it(visitor: Visitor) -> None:
    half_red = """async () => {
        const canvas = new OffscreenCanvas(320, 160);
        const context = canvas.getContext("2d");
        context.fillStyle = "blue"; context.fillRect(0, 0, 320, 160);
        context.fillStyle = "red"; context.fillRect(80, 0, 80, 160);
        const data = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
        return Array.from(data);
    }"""
    visitor.open()
    visitor.send(bytes(visitor.page.evaluate(half_red)))
    (card,) = visitor.answered(1)
    expect(card.locator(".shrunk")).to_have_text(re.compile("^What it sees: 16.16 pixels$"))
    canvas = card.get_by_role("img", name="picture 0.png as the network sees it")
    pixels = """canvas => {
        const context = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        return [2, 13].map(x => [...context.getImageData(x, 8, 1, 1).data]);
    }"""
    wait_until(lambda: canvas.evaluate(pixels) == [[255, 0, 0, 255], [0, 0, 255, 255]])  # its middle


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_page_with_a_choice_of_models_fits_and_axe_finds_nothing_to_object_to(
    browser: Browser, server: ServerProcess, width: int, scheme: Any
) -> None:
    with visiting(browser, server.url, viewport={"width": width, "height": 844}, color_scheme=scheme) as visitor:
        _add_model(visitor)
        change_model(visitor, lambda model: model.update(labels=[f"thing {number}" for number in range(1000)]))
        visitor.open()
        visitor.keep_screenshot(f"models-{width}-{scheme}")
        assert visitor.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        results = Axe().run(visitor.page)
        assert results.violations_count == 0, results.generate_report()
