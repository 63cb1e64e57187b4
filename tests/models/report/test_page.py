from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

from matplotlib.figure import Figure

from models.palette import DEEP_BLUE, GREY, VERMILION
from models.report.page import render_page
from models.report.section import Chart, Gallery, Section, Table, Thumbnail
from models.report.svg import inline_svg


class Elements(HTMLParser):
    """Every element with its attributes, and whether each was closed."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "use", "rect", "image"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def external_references(page: str) -> list[str]:
    """Whatever a browser would fetch to show the page: everything but links that are followed by hand."""
    references = []
    for tag, attributes in Elements(page).seen:
        for name, value in attributes.items():
            if name in ("src", "srcset", "href", "xlink:href", "data", "poster") and tag != "a":
                references.append(value)
    references += re.findall(r"url\(([^)]*)\)", page) + re.findall(r"@import\s+(\S+)", page)
    return [reference for reference in references if not reference.startswith(("data:", "#"))]


def _chart() -> Chart:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], color=DEEP_BLUE, label="a <line>")
    axes.axhline(0.5, color=GREY)
    axes.axhline(0.7, color="white")
    axes.axhline(0.9, color=VERMILION)
    axes.text(0.5, 0.5, "letters", color="white")
    axes.imshow([[0.0, 1.0]])
    return Chart(figure, 'Falls & "rises"', wide=True)


def _section(key: str, source: str | None = "data:image/webp;base64,AAAA") -> Section:
    thumbnail = Thumbnail(source, "cat/1.png", ((True, False), (True,)), "2 blocks, right", True)
    return Section(
        key=key,
        question=f"What of {key}?",
        findings=("Accuracy is 90% & <more>.", "Second finding."),
        figures={},
        method="By counting.",
        missing=("Give the checkpoint.",),
        charts=(_chart(), _chart()),
        tables=(Table(("block", "rate"), (("first", "10%"),), "All rates"),),
        galleries=(Gallery("Images", ("easy", "hard"), (("cat", (thumbnail,), (thumbnail,)),)),),
    )


def _page() -> str:
    return render_page("net<work>", "a few images", [("90%", "right")], [_section("one"), _section("two")])


def test_page_needs_nothing_but_itself() -> None:
    page = _page()
    assert external_references(page) == []
    assert "<script" not in page
    assert external_references(page.replace('src="data:', 'src="https://x/')) != []  # the check itself can fail


def test_page_says_what_the_sections_say() -> None:
    page = _page()
    for text in (
        "net&lt;work&gt;",
        "a few images",
        "What of two?",
        "Accuracy is 90% &amp; &lt;more&gt;.",
        "Second finding.",
        "Not computed. Give the checkpoint.",
        "By counting.",
        "All rates",
        "2 blocks, right",
        "Falls &amp; &#34;rises&#34;",
    ):
        assert text in page
    assert '<a href="#one">' in page
    assert page.count("<figure") == 4


def test_every_element_is_closed_and_every_name_is_unique() -> None:
    elements = Elements(_page())
    assert elements.open == []
    names = Counter(attributes["id"] for _, attributes in elements.seen if "id" in attributes)
    assert [name for name, count in names.items() if count > 1] == []
    linked = {attributes["href"][1:] for _, attributes in elements.seen if attributes.get("href", "").startswith("#")}
    assert linked <= names.keys()


def test_page_is_readable_in_the_dark_and_on_a_phone() -> None:
    page = _page()
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport" content="width=device-width' in page


def test_charts_take_the_colours_of_the_page() -> None:
    svg = inline_svg(_chart().figure, "key", "what it shows")
    assert "var(--blue)" in svg
    assert "var(--muted)" in svg
    assert "stroke: var(--paper)" in svg
    assert VERMILION in svg
    assert "fill: #ffffff" in svg  # letters on a dark cell
    assert DEEP_BLUE not in svg
    assert "#000000" not in svg
    assert ">letters</text>" in svg


def test_chart_is_the_same_in_every_run() -> None:
    assert inline_svg(_chart().figure, "key", "x") == inline_svg(_chart().figure, "key", "x")


def test_path_is_drawn_with_a_row_for_each_stage() -> None:
    page = _page()
    ran, skipped = re.search(
        r'class="ran" d="([^"]*)"/><path class="skipped" d="([^"]*)"', page.split("<h3>")[1]
    ).groups()
    assert re.findall(r"M(\d+) (\d+)", ran) == [("1", "1"), ("1", "10")]
    assert re.findall(r"M(\d+) (\d+)", skipped) == [("10", "1")]


def test_page_without_images_names_them() -> None:
    shown = render_page("net", "", [], [_section("one")])
    named = render_page("net", "", [], [_section("one", source=None)])
    assert "image/webp" in shown
    assert "image/webp" not in named
    assert ">cat/1.png<" in named
