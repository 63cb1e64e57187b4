"""What the page shows before any picture, and how it explains what it draws."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, expect

from tests.e2e.browser import Visitor, change_model, visiting
from tests.e2e.process import ServerProcess

_PROFILE = {"images": 1234, "rates": [1.0, 0.25, 0.5, 0.75, 0.5]}
# By class in the drawings and the chart, what the legends call it.
_MARKS = {
    ".executed.gated .body": "block that ran",
    ".skipped.gated .body": "block that was skipped",
    ".executed.ungated .core": "block without a gate",
    ".executed .gate": "gate open",
    ".skipped .gate": "gate closed",
    ".threshold": "probability of the gate, which opens above the line",
    ".taken": "the path of the picture",
    ".also": "shortcut, added to what the block computes",
    ".projection": "shortcut that computes",
    ".end": "first and last layer, which always run",
    ".mark": "differs between two pictures",
    ".gated .rate": "share of the images it ran for",
    ".ungated .rate": "the same of a block without a gate",
    ".expected": "share when the model was exported",
}


def _meaning(visitor: Visitor, mark: str) -> Locator:
    """The line of a legend that shows a mark."""
    return visitor.page.locator(".legend li").filter(has=visitor.page.locator(mark))


def _visit_with_two_that_differ(visitor: Visitor, pictures: list[bytes]) -> None:
    visitor.visit(pictures[0])
    for number, picture in enumerate(pictures[1:], 2):
        visitor.send(picture)
        visitor.answered(number)
        if visitor.page.locator(".half .mark").count():
            return
    raise AssertionError("all take the same path")


def test_before_any_picture_the_blocks_are_drawn_with_how_often_they_ran_at_export(visitor: Visitor) -> None:
    change_model(visitor, lambda model: model.update(profile=_PROFILE))
    visitor.open()
    overview = visitor.page.get_by_role("region", name="The 5 blocks of the network")
    expect(overview).to_contain_text("on average 3.0 of them ran, for 1,234 images when the model was exported")
    shares = overview.locator(".block text").all_text_contents()
    assert shares == ["100%", "25%", "50%", "75%", "50%"]
    lines = overview.locator(".canvas .flow").evaluate_all(
        "lines => lines.map(line => line.style.getPropertyValue('--share'))"
    )
    assert lines == ["1", "1", "0.25", "0.75", "0.5", "0.5", "0.75", "0.25", "0.5", "0.5"]
    label = overview.locator(".block").nth(1).get_attribute("aria-label")
    assert label is not None
    assert label.startswith("Stage 1, block 2, ran for 25% of the images at export")


def test_blocks_make_room_for_pictures_and_come_back_after_them(visitor: Visitor, pictures: list[bytes]) -> None:
    visitor.visit(pictures[0])
    expect(visitor.page.locator("#overview")).to_be_hidden()
    expect(visitor.page.locator("#reading")).to_be_visible()
    visitor.page.get_by_role("button", name="Remove all").click()
    expect(visitor.page.locator("#overview")).to_be_visible()
    expect(visitor.page.locator("#reading")).to_be_hidden()


def test_model_without_measured_rates_has_its_blocks_drawn_all_the_same(visitor: Visitor) -> None:
    change_model(visitor, lambda model: model.update(profile=None))
    visitor.open()
    expect(visitor.page.locator("#overview .block")).to_have_count(5)
    expect(_meaning(visitor, ".expected")).to_have_count(0)


def test_every_mark_has_its_line_in_a_legend(visitor: Visitor, pictures: list[bytes]) -> None:
    _visit_with_two_that_differ(visitor, pictures)
    drawn = visitor.page.locator(":is(.card, .half, .rates:not(.legend)) svg")
    for mark, meaning in _MARKS.items():
        expect(_meaning(visitor, mark).filter(has_text=meaning)).not_to_have_count(0)
        assert drawn.locator(mark).count() > 0, mark
    expect(visitor.page.locator("#reading .hint")).to_contain_text("Above 0 the gate is open")


@pytest.mark.parametrize("width", [390, 1280])
def test_frames_of_blocks_that_differ_are_drawn_whole(visitor: Visitor, pictures: list[bytes], width: int) -> None:
    visitor.page.set_viewport_size({"width": width, "height": 900})
    _visit_with_two_that_differ(visitor, pictures)
    outside = visitor.page.locator(".half svg").evaluate_all("""drawings => drawings.flatMap(drawing => {
        const room = drawing.getBoundingClientRect();
        return [...drawing.querySelectorAll(".mark")].map(mark => mark.getBoundingClientRect()).filter(
            (box) => box.bottom + 0.5 > room.bottom || box.top - 0.5 < room.top || box.right + 0.5 > room.right);
    })""")
    assert outside == []


def test_nothing_moves_while_the_page_is_loaded(browser: Browser, server: ServerProcess) -> None:
    for width in (390, 1280):
        with visiting(browser, server.url, viewport={"width": width, "height": 844}) as visitor:
            visitor.page.add_init_script("""
                window.shift = 0;
                new PerformanceObserver((list) => list.getEntries().forEach((entry) => (shift += entry.value)))
                    .observe({ type: "layout-shift", buffered: true });
            """)
            visitor.open()
            visitor.page.wait_for_timeout(300)
            assert visitor.page.evaluate("shift") < 0.02


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_before_any_picture_fits_and_axe_finds_nothing_to_object_to(
    browser: Browser, server: ServerProcess, width: int, scheme: Any
) -> None:
    with visiting(browser, server.url, viewport={"width": width, "height": 844}, color_scheme=scheme) as visitor:
        visitor.open()
        visitor.keep_screenshot(f"empty-{width}-{scheme}")
        assert visitor.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        results = Axe().run(visitor.page)
        assert results.violations_count == 0, results.generate_report()


# A browser that zooms a window of 1280 pixels to 200% tells the page of 640.
@pytest.mark.parametrize(("width", "letters"), [(390, "200%"), (640, "100%")])
def test_page_fits_with_letters_of_twice_the_size(
    browser: Browser, server: ServerProcess, pictures: list[bytes], width: int, letters: str
) -> None:
    with visiting(browser, server.url, viewport={"width": width, "height": 844}) as visitor:
        visitor.visit(*pictures[:2])
        visitor.page.evaluate("letters => { document.documentElement.style.fontSize = letters; }", letters)
        visitor.keep_screenshot(f"large-{width}")
        cut = visitor.page.evaluate("""() => {
            const right = document.documentElement.clientWidth;
            const texts = [...document.querySelectorAll(":is(p, li, h1, h2, dt, .tile, label, button, summary)")];
            const cut = (text) => text.scrollWidth > text.clientWidth + 1 || text.getBoundingClientRect().right > right;
            return texts.filter((text) => text.checkVisibility() && !text.closest(".unseen, .theme") && cut(text))
                .map((text) => text.textContent);
        }""")
        assert cut == []
