from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.e2e.browser import Visitor, change_model, executed, path_of
from tests.e2e.process import ROOT, ServerProcess
from tests.image_files import hollow_png

# A file in a DataTransfer, as a browser makes one for what is pasted or dropped.
_TRANSFER = """([data, kind]) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
    transfer.items.add(new File([bytes], "given.png", {type: "image/png"}));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
        : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
    document.querySelector("h1").dispatchEvent(event);
}"""


@pytest.fixture
def ask(server: ServerProcess) -> Any:
    """What the service itself answers to a picture."""

    def classify(data: bytes) -> dict[str, Any]:
        with server.client() as client:
            answer: dict[str, Any] = client.post(
                "/classify", content=data, headers={"content-type": "image/png"}
            ).json()
        return answer

    return classify


def _labels(card: Locator) -> list[str]:
    return card.locator(".predictions .label").all_text_contents()


def test_chosen_picture_gets_the_prediction_and_path_that_the_service_answers(
    visitor: Visitor, pictures: list[bytes], ask: Any
) -> None:
    (card,) = visitor.visit(pictures[0])
    answer = ask(pictures[0])
    assert _labels(card) == [guess["label"] for guess in answer["predictions"]]
    assert executed(card) == path_of(answer["inference_graph"]["blocks"])
    counted = f"{answer['layers']['executed']} of {answer['layers']['total']} blocks executed"
    expect(card.locator(".state")).to_contain_text(counted)
    expect(card.locator(".state")).to_contain_text(f"{answer['compute']['ratio']:.0%} of the compute")
    first = answer["predictions"][0]
    expect(card.locator(".amount").first).to_have_text(f"{first['probability']:.1%}")


def test_path_runs_through_executed_blocks_and_around_skipped_ones(
    visitor: Visitor, pictures: list[bytes], ask: Any
) -> None:
    (card,) = visitor.visit(pictures[1])
    outline = card.locator(".taken").get_attribute("d")
    assert outline is not None
    # A straight line of one pitch through a block, a curve around it.
    drawn = [piece == "h" for piece in re.findall("[hC]", outline)]
    assert drawn == path_of(ask(pictures[1])["inference_graph"]["blocks"])
    assert outline.count("M") == 1


def test_block_tells_its_gate_when_it_is_pointed_at(visitor: Visitor, pictures: list[bytes], ask: Any) -> None:
    (card,) = visitor.visit(pictures[0])
    block = ask(pictures[0])["inference_graph"]["blocks"][1]
    tip = card.locator(".tip")
    expect(tip).to_be_hidden()
    card.locator(".block").nth(1).hover()
    expect(tip).to_contain_text(f"Stage 1, block 2: {'executed' if block['executed'] else 'skipped'}")
    expect(tip).to_contain_text(f"gate probability {block['gate_probability']:.1%}")
    card.locator(".block").first.hover()
    expect(tip).to_contain_text("no gate: always runs")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_pasted_or_dropped_picture_is_classified(visitor: Visitor, pictures: list[bytes], ask: Any, way: str) -> None:
    visitor.open()
    visitor.page.evaluate(_TRANSFER, [base64.b64encode(pictures[2]).decode(), way])
    (card,) = visitor.answered(1)
    assert _labels(card) == [guess["label"] for guess in ask(pictures[2])["predictions"]]


def test_every_sample_of_what_the_model_knows_is_offered_and_answered(visitor: Visitor) -> None:
    names = [path.stem for path in (ROOT / "service/ui/static/samples").iterdir()]
    change_model(visitor, lambda model: model.update(labels=[*sorted(names), "bird", "deer"]))
    visitor.open()
    samples = visitor.page.get_by_role("button", name="Sample:")
    assert samples.count() == len(names)
    for number in range(len(names)):
        samples.nth(number).click()
    visitor.answered(len(names))


def test_samples_of_what_the_model_does_not_know_are_not_offered(visitor: Visitor) -> None:
    visitor.open()
    expect(visitor.page.get_by_role("button", name="Sample:")).to_have_count(1)  # it knows cats
    change_model(visitor, lambda model: model.update(labels=["ant", "bee"]))
    visitor.open()
    expect(visitor.page.locator("#samples")).to_be_hidden()


def test_several_pictures_stand_in_their_order_and_the_newest_first(visitor: Visitor, pictures: list[bytes]) -> None:
    visitor.visit(*pictures[:3])
    visitor.send(pictures[3], name="later.png")
    cards = visitor.answered(4)
    names = [card.get_attribute("aria-label") for card in cards]
    assert names == ["later.png", "picture 0.png", "picture 1.png", "picture 2.png"]


def test_last_two_pictures_are_compared_and_the_blocks_marked_that_differ(
    visitor: Visitor, pictures: list[bytes], ask: Any
) -> None:
    paths = [path_of(ask(data)["inference_graph"]["blocks"]) for data in pictures]
    other = next(number for number, path in enumerate(paths) if path != paths[0])
    visitor.visit(pictures[0])
    expect(visitor.page.locator("#comparison")).to_be_hidden()
    visitor.send(pictures[other], name="other.png")
    visitor.answered(2)
    halves = visitor.page.locator(".half")
    assert [executed(half) for half in halves.all()] == [paths[0], paths[other]]
    differing = sum(one != another for one, another in zip(paths[0], paths[other], strict=True))
    assert [half.locator(".mark").count() for half in halves.all()] == [differing, differing]
    expect(visitor.page.locator("#comparison > header")).to_contain_text(f"differ in {differing} of 5 blocks")


def test_visitor_picks_which_two_are_compared(visitor: Visitor, pictures: list[bytes]) -> None:
    cards = visitor.visit(*pictures[:3])
    for card in cards:
        if (button := card.get_by_role("button", name="Compare", pressed=True)).count():
            button.click()
    expect(visitor.page.locator("#comparison")).to_be_hidden()
    for number in (0, 2):
        cards[number].get_by_role("button", name="Compare").click()
    visitor.send(pictures[3], name="later.png")  # what was picked stays
    visitor.answered(4)
    compared = [half.get_attribute("aria-label") for half in visitor.page.locator(".half").all()]
    assert compared == ["picture 0.png", "picture 2.png"]


def test_removed_pictures_leave_the_page(visitor: Visitor, pictures: list[bytes]) -> None:
    visitor.visit(*pictures[:3])
    visitor.page.get_by_role("button", name="Remove picture 1.png").click()
    assert visitor.page.locator(".card").count() == 2
    visitor.page.get_by_role("button", name="Remove all").click()
    expect(visitor.page.locator("#answers")).to_be_hidden()
    expect(visitor.page.locator("#comparison")).to_be_hidden()


@pytest.mark.parametrize(
    ("data", "kind", "type_", "title"),
    [
        (b"", "image/png", "empty_image", "The file is empty"),
        (b"no picture", "image/png", "not_an_image", "The service cannot read this as a picture"),
        (b"no picture", "text/plain", "unsupported_media_type", "This is not a picture"),
        (hollow_png(9000, 9000), "image/png", "too_many_pixels", "The picture has too many pixels"),
        (hollow_png(40, 40), "image/png", "corrupt_image", "The picture is damaged"),
    ],
)
def test_refused_file_is_told_why_beside_those_that_are_answered(
    visitor: Visitor, pictures: list[bytes], data: bytes, kind: str, type_: str, title: str
) -> None:
    visitor.open()
    visitor.send(data, kind=kind)
    visitor.send(pictures[0])
    visitor.answered(1)
    card = visitor.page.locator(".card[data-state=failed]")
    expect(card.locator(".state")).to_have_text(title)
    assert type_ not in card.inner_text()  # that is for programs
    expect(card.get_by_role("button", name="Try again")).to_have_count(0)  # the same file would fare the same


def test_failure_that_may_pass_can_be_tried_again(visitor: Visitor, pictures: list[bytes]) -> None:
    visitor.open()
    visitor.page.route("**/classify", lambda route: route.abort())
    visitor.send(pictures[0])
    card = visitor.page.locator(".card")
    expect(card.locator(".state")).to_have_text("The service cannot be reached")
    visitor.page.unroute("**/classify")
    card.get_by_role("button", name="Try again").click()
    visitor.answered(1)


def test_busy_service_is_asked_again_no_sooner_than_it_wants(visitor: Visitor, pictures: list[bytes]) -> None:
    asked: list[str] = []

    def refuse_twice(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 2:
            route.continue_()
            return
        body = '{"error": {"type": "overloaded", "message": "the queue is full"}}'
        route.fulfill(status=429, headers={"Retry-After": "7"}, content_type="application/json", body=body)

    visitor.page.clock.install()
    visitor.open()
    visitor.page.route("**/classify", refuse_twice)
    visitor.send(pictures[0])
    for refusals in (1, 2):
        expect(visitor.page.locator(".card .state")).to_contain_text("busy; asking again in")
        visitor.page.clock.run_for(6500)
        assert len(asked) == refusals
        visitor.page.clock.run_for(3000)
    visitor.answered(1)
    assert len(asked) == 3
