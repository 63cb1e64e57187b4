"""The page for everyone: any screen, light and dark, keyboard, screen readers, and those who want no motion."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.e2e.browser import Visitor, change_model, executed, visiting
from tests.e2e.process import ServerProcess

_PAPER = {"light": "rgb(250, 249, 246)", "dark": "rgb(18, 19, 22)"}


def _background(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return colour


def _overflow(page: Page) -> float:
    """By how much anything on the page is wider than the page."""
    wider: float = page.evaluate("""() => {
        const right = (element) => element.getBoundingClientRect().right;
        return Math.max(...[...document.querySelectorAll("body *")].map(right)) - right(document.body);
    }""")
    return wider


def _serve_deep_network(visitor: Visitor, stages: tuple[int, ...]) -> list[bool]:
    """Let the page believe in a network of so many blocks a stage; the path of its answers."""
    model: dict[str, Any] = {"profile": None}
    names = [(stage, block) for stage, count in enumerate(stages, 1) for block in range(1, count + 1)]
    blocks = [
        {"name": f"stage{stage}_block{block}", "stage": stage, "gated": block > 1, "macs": 1000}
        for stage, block in names
    ]
    model["blocks"] = [{**block, "shortcut_macs": 0, "gate_macs": 1} for block in blocks]
    path = [not block["gated"] or number % 3 > 0 for number, block in enumerate(blocks)]
    runs = [
        {**block, "executed": ran, "margin": 1.0 if ran else -1.0, "gate_probability": 0.73 if ran else 0.27}
        for block, ran in zip(blocks, path, strict=True)
    ]
    answer = {
        "predictions": [{"label": "ant", "index": 0, "probability": 0.9}],
        "inference_graph": {"blocks": runs, "edges": []},
        "layers": {"executed": sum(path), "skipped": len(path) - sum(path), "total": len(path), "skipped_names": []},
        "compute": {"macs": 700, "total_macs": 1000, "ratio": 0.7},
        "timing_ms": {"decode": 0.1, "queue": 0.1, "inference": 2.0, "total": 2.2},
    }
    change_model(visitor, lambda served: served.update(model))
    _answer(visitor, "**/classify", answer)
    return path


def _answer(visitor: Visitor, address: str, body: dict[str, Any]) -> None:
    def fulfil(route: Route) -> None:
        route.fulfill(content_type="application/json", body=json.dumps(body))

    visitor.page.route(address, fulfil)


def _boxes(parts: Locator) -> list[dict[str, float]]:
    boxes: list[dict[str, float]] = parts.evaluate_all(
        "parts => parts.map(part => part.getBoundingClientRect().toJSON())"
    )
    return boxes


def _animations(card: Locator) -> int:
    """How many parts of a card's network move or have moved, once its path is drawn."""
    card.locator(".taken").wait_for(state="attached")
    count: int = card.locator(".network").evaluate("network => network.getAnimations({subtree: true}).length")
    return count


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize(
    "stages", [(6, 6, 6), (18, 18, 18), (3, 8, 36, 3)], ids=["38 layers", "110 layers", "152 layers"]
)
def test_network_of_any_depth_fits_any_screen(
    browser: Browser, server: ServerProcess, pictures: list[bytes], stages: tuple[int, ...], width: int
) -> None:
    with visiting(browser, server.url, viewport={"width": width, "height": 900}) as visitor:
        path = _serve_deep_network(visitor, stages)
        (card,) = visitor.visit(pictures[0])
        visitor.keep_screenshot(f"{sum(stages)}-blocks-{width}")
        assert executed(card) == path
        assert _overflow(visitor.page) <= 0
        frame, parts = _boxes(card)[0], _boxes(card.locator(".path .block .reach"))
        assert all(frame["left"] <= part["left"] and part["right"] <= frame["right"] for part in parts)
        # Large enough to be pointed at with a finger, and none over another: WCAG 2.2, 2.5.8.
        assert all(part["width"] >= 24 and part["height"] >= 24 for part in parts)
        places = {(round(part["left"]), round(part["top"])) for part in parts}
        assert len(places) == len(parts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_object_to(
    browser: Browser, server: ServerProcess, pictures: list[bytes], scheme: str
) -> None:
    with visiting(browser, server.url, color_scheme=scheme) as visitor:
        visitor.open()
        visitor.send(b"no picture", *pictures[:2])
        visitor.answered(2)
        visitor.keep_screenshot(f"page-{scheme}")
        results = Axe().run(visitor.page)
        assert results.violations_count == 0, results.generate_report()


def test_colours_follow_the_system_until_the_visitor_chooses(browser: Browser, server: ServerProcess) -> None:
    with visiting(browser, server.url, color_scheme="dark") as visitor:
        visitor.open()
        assert _background(visitor.page) == _PAPER["dark"]
        visitor.page.get_by_text("Light", exact=True).click()
        assert _background(visitor.page) == _PAPER["light"]
        visitor.open()  # remembered
        assert _background(visitor.page) == _PAPER["light"]
        expect(visitor.page.get_by_role("radio", name="Light")).to_be_checked()
        visitor.page.get_by_text("Auto", exact=True).click()
        assert _background(visitor.page) == _PAPER["dark"]


def test_everything_is_done_with_the_keyboard_alone(visitor: Visitor, pictures: list[bytes]) -> None:
    visitor.open()
    page = visitor.page

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if re.match(name, page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent")):
                return
        raise AssertionError(f"the Tab key never came to {name}")

    tab_to("Choose images")
    # What Enter opens from here is the browser's own, and headless it does not always tell of it.
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": pictures[n]} for n in range(3)]
    page.locator("input[type=file]").set_input_files(files)
    cards = visitor.answered(3)
    page.get_by_role("button", name="Remove all").focus()
    tab_to("Stage 1, block 1")
    tip = cards[0].locator(".tip")
    expect(tip).to_contain_text("Stage 1, block 1")
    page.keyboard.press("ArrowRight")
    expect(tip).to_contain_text("Stage 1, block 2")
    page.keyboard.press("End")
    expect(tip).to_contain_text("Stage 3, block 1")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    tab_to("Compare")  # one stop for the whole network: the next is the card's button
    pressed = page.evaluate("document.activeElement.ariaPressed")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.ariaPressed") != pressed
    tab_to("Remove 0.png")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(2)
    expect(page.get_by_role("button", name="Remove 1.png")).to_be_focused()  # not lost with the card


def test_answers_are_announced(visitor: Visitor, pictures: list[bytes]) -> None:
    (card,) = visitor.visit(pictures[0])
    best = card.locator(".label").first.text_content()
    expect(visitor.page.get_by_role("status").filter(has_text="blocks executed")).to_contain_text(
        f"picture 0.png: {best}"
    )


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_path_is_drawn_in_motion_only_where_motion_is_welcome(
    browser: Browser, server: ServerProcess, pictures: list[bytes], motion: str, moves: bool
) -> None:
    with visiting(browser, server.url, reduced_motion=motion) as visitor:
        (card,) = visitor.visit(pictures[0])
        assert (_animations(card) > 0) == moves


def test_path_of_an_answer_before_the_first_drawing_is_drawn_in_motion_once(
    browser: Browser, server: ServerProcess, pictures: list[bytes]
) -> None:
    with visiting(browser, server.url, reduced_motion="no-preference") as visitor:
        visitor.page.add_init_script("""
            window.held = [];
            const observe = ResizeObserver.prototype.observe;
            ResizeObserver.prototype.observe = function (element) { held.push(() => observe.call(this, element)); };
        """)
        (card,) = visitor.visit(pictures[0])
        expect(card.locator(".taken")).to_have_count(0)  # its width is not known yet
        visitor.page.evaluate("held.forEach(observe => observe())")
        assert _animations(card) > 0
        card.locator("svg").evaluate("drawing => drawing.classList.add('first')")
        visitor.page.set_viewport_size({"width": 700, "height": 900})
        expect(card.locator("svg.first")).to_have_count(0)  # drawn again
        assert _animations(card) == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_moves_when_the_answer_comes(visitor: Visitor, pictures: list[bytes], width: int) -> None:
    held: list[Route] = []
    visitor.page.set_viewport_size({"width": width, "height": 900})
    visitor.open()
    visitor.page.route("**/classify", lambda route: held.append(route))
    visitor.send(pictures[0])
    visitor.page.wait_for_function("document.querySelectorAll('.card .block').length === 5")
    visitor.page.wait_for_timeout(50)  # two frames: the drawing is fitted to its place
    before = _boxes(visitor.page.locator(".card, .card .network, .card .picture, #live"))
    held[0].continue_()
    visitor.answered(1)
    assert _boxes(visitor.page.locator(".card, .card .network, .card .picture, #live")) == before
