from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from docs.hooks.tables import error_types
from tests.e2e.browser import Visitor, change_model
from tests.e2e.process import ServerProcess


def _tile(visitor: Visitor, name: str) -> str:
    return visitor.page.locator(f"[data-figure={name}] strong").inner_text()


def _percent(share: float) -> str:
    """As the page tells it: small ones with a decimal."""
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def _wait_for_tile(visitor: Visitor, name: str, value: str) -> None:
    expect(visitor.page.locator(f"[data-figure={name}] strong")).to_have_text(value, timeout=10_000)


def test_panel_shows_what_the_metrics_say(visitor: Visitor, server: ServerProcess, pictures: list[bytes]) -> None:
    visitor.visit(*pictures[:4])
    images = server.metric("aig_images_total", outcome="ok")
    _wait_for_tile(visitor, "images", f"{images:.0f}")
    skipped = server.metric("aig_skip_ratio_sum") / server.metric("aig_skip_ratio_count")
    assert _tile(visitor, "skipped") == _percent(skipped)
    assert re.fullmatch(r"[\d.]+ m?s", _tile(visitor, "median"))
    rate = server.metric("aig_block_executed_total", block="stage1_block2", stage="1") / images
    bar = visitor.page.locator(".rates .block").nth(1)
    expect(bar).to_have_attribute(
        "aria-label", re.compile(f"^Stage 1, block 2, ran for {_percent(rate)} of the images")
    )
    filled, whole = (bar.locator(part).evaluate("bar => bar.height.baseVal.value") for part in (".rate", ".track"))
    assert filled / whole == pytest.approx(rate, abs=1e-3)


def test_rates_and_quantiles_are_of_the_last_minute(visitor: Visitor) -> None:
    visitor.open()
    told = visitor.page.evaluate("""async () => {
        const { Exposition } = await import("/ui/scripts/exposition.js");
        const { Readings } = await import("/ui/scripts/readings.js");
        const readings = new Readings();
        const at = (images, fast, slow) => new Exposition([
            `aig_images_total{outcome="ok"} ${images}`,
            `aig_images_total{outcome="overloaded"} 9`,
            `aig_request_seconds_bucket{route="/classify",le="0.001"} ${fast}`,
            `aig_request_seconds_bucket{route="/classify",le="0.01"} ${fast + slow}`,
            `aig_request_seconds_bucket{route="/classify",le="+Inf"} ${fast + slow}`,
            `aig_request_seconds_bucket{route="/metrics",le="+Inf"} 1000`,
        ].join("\\n"));
        const [before, after] = [at(100, 100, 0), at(200, 100, 100)];
        return [readings.add(before, 0), readings.add(after, 5), readings.add(after, 90)];
    }""")
    assert [reading["imagesPerSecond"] for reading in told] == [0, 20, 0]
    assert [reading["medianMs"] for reading in told] == pytest.approx([0.5, 5.5, 1])
    assert [reading["latencyIsRecent"] for reading in told] == [False, True, False]
    assert told[0]["refused"] == 9


def test_quantile_is_that_of_prometheus(visitor: Visitor) -> None:
    visitor.open()
    told = visitor.page.evaluate("""async () => {
        const { quantile } = await import("/ui/scripts/exposition.js");
        const histogram = new Map([[1, 0], [2, 10], [4, 20], [Infinity, 40]]);
        return [0.125, 0.25, 0.375, 0.99].map((share) => quantile(histogram, share)).concat(quantile(new Map(), 0.5));
    }""")
    assert told == [1.5, 2, 3, 4, None]


def test_kept_back_metrics_are_told_and_pictures_classified_all_the_same(
    visitor: Visitor, pictures: list[bytes]
) -> None:
    visitor.page.route("**/metrics", lambda route: route.fulfill(status=403, body="forbidden"))
    visitor.visit(pictures[0])
    expect(visitor.page.locator("#live .notice")).to_contain_text("does not show its figures here")


def test_rates_at_export_are_drawn_where_gates_decide(visitor: Visitor) -> None:
    profile = {"images": 1234, "rates": [1.0, 0.25, 0.5, 0.5, 0.5]}
    change_model(visitor, lambda model: model.update(profile=profile))
    visitor.open()
    expect(visitor.page.locator("#live .legend")).to_contain_text("when the model was exported, of 1,234 images")
    bars = visitor.page.locator(".rates .block")
    expect(bars.nth(1)).to_have_attribute("aria-label", re.compile("25% when it was exported"))
    ticks = bars.locator(".expected").evaluate_all("ticks => ticks.map(tick => tick.hasAttribute('hidden'))")
    assert ticks == [True, False, False, False, False]
    raised = bars.nth(1).locator(".expected").evaluate("tick => -tick.transform.baseVal[0].matrix.f")
    assert raised == 0.25 * bars.nth(1).locator(".track").evaluate("track => track.height.baseVal.value")


def test_page_waits_for_a_service_that_is_not_there_yet(visitor: Visitor) -> None:
    asked: list[Route] = []

    def fail_once(route: Route) -> None:
        asked.append(route)
        route.abort() if len(asked) == 1 else route.continue_()

    visitor.page.clock.install()
    visitor.page.route("**/models", fail_once)
    visitor.page.goto(visitor.url)
    expect(visitor.page.locator("#notice")).to_contain_text("cannot be reached")
    visitor.page.clock.run_for(4000)
    expect(visitor.page.locator("#notice")).to_be_hidden()
    expect(visitor.page.locator("#model-name")).to_have_text("small 1")


# The page does not wait for answers that it gave up, sends no JSON and no tensors, and does not change models.
NEVER_SEEN = {"client_gone", "front_end_missing", "invalid_inference_request", "invalid_tensor", "json_too_large"} | {
    *("model_failed", "model_in_use", "no_repository", "not_ready"),
}


def test_every_error_type_of_the_api_is_told_in_words_of_its_own(visitor: Visitor) -> None:
    types = error_types().keys() - NEVER_SEEN
    assert len(types) >= 28
    visitor.open()
    told = visitor.page.evaluate(
        """async (types) => {
            const { Problem } = await import("/ui/scripts/problems.js");
            return types.map((type) => Object.values(new Problem(type, "").explanation).slice(0, 2));
        }""",
        [*types, "a type of the future"],
    )
    *known, other = [title for title, _ in told]
    assert other not in known
    assert len(set(known)) == len(known)
    for words in told:  # for a person: no error types, no fields, no statuses
        assert not re.search(r"_|\d|HTTP|parameter|field|request", " ".join(words)), words
        assert all(words)
