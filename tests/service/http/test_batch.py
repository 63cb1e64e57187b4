from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from service.classify.schemas import BatchClassification, BatchItem
from tests.image_files import encoded, hollow_png, photograph
from tests.service.server import Server


def _items(server: Server, files: list[bytes], query: str = "") -> list[BatchItem]:
    response = server.classify_batch(files, query)
    assert response.status_code == 200, response.text
    return TypeAdapter(BatchClassification).validate_python(response.json(), extra="forbid").results


def _item(answer: object) -> BatchItem:
    return TypeAdapter(BatchItem).validate_python({"filename": None, "answer": answer})


def _alike(one: BatchItem, other: BatchItem) -> bool:
    """Whether two answers are equal but for their times."""
    assert one.answer is not None
    assert other.answer is not None
    assert (one.answer.layers, one.answer.compute) == (other.answer.layers, other.answer.compute)
    assert one.answer.model == other.answer.model
    # Sums of a batch may be rounded otherwise than those of one image.
    for mine, theirs in zip(one.answer.predictions, other.answer.predictions, strict=True):
        assert (mine.label, mine.index) == (theirs.label, theirs.index)
        assert mine.probability == pytest.approx(theirs.probability, rel=1e-4)
    assert one.answer.inference_graph is not None
    assert other.answer.inference_graph is not None
    assert one.answer.inference_graph.edges == other.answer.inference_graph.edges
    margins = [[run["margin"] for run in item.answer.inference_graph.blocks if run["gated"]] for item in (one, other)]
    return margins[0] == pytest.approx(margins[1], abs=1e-5)


def test_image_gets_the_answer_in_a_batch_that_it_gets_alone(server: Server, pictures: list[bytes]) -> None:
    for start in (0, 3, 6, 9):
        together = _items(server, pictures[start : start + 3])
        for item, data in zip(together, pictures[start : start + 3], strict=True):
            alone = server.classify(data)
            assert _alike(item, _item(alone.json()))


def test_answers_come_in_the_order_of_the_files_with_their_names(server: Server, pictures: list[bytes]) -> None:
    forwards, backwards = _items(server, pictures[:3]), _items(server, pictures[2::-1])
    assert [item.filename for item in forwards] == ["0.png", "1.png", "2.png"]
    assert all(_alike(*pair) for pair in zip(forwards, backwards[::-1], strict=True))


def test_bad_image_costs_its_neighbours_nothing(server: Server, pictures: list[bytes]) -> None:
    jpeg = encoded(photograph(50, 40), "JPEG")
    alone = _items(server, pictures[:1])[0]
    for bad, type_ in [
        (b"", "empty_image"),
        (b"some text", "not_an_image"),
        (jpeg[: len(jpeg) // 2], "corrupt_image"),
        (hollow_png(50_000, 50_000), "too_many_pixels"),
        (bytes(8001), "image_too_large"),
    ]:
        first, second, third = _items(server, [pictures[0], bad, pictures[0]])
        assert _alike(first, alone)
        assert (second.filename, second.answer) == ("1.png", None)
        assert second.error is not None
        assert (second.error.type, bool(second.error.message)) == (type_, True)
        assert _alike(third, alone)


def test_batch_of_bad_images_is_answered_one_by_one(server: Server) -> None:
    items = _items(server, [b"", b"text"])
    assert [item.error.type for item in items if item.error] == ["empty_image", "not_an_image"]


def test_parameters_count_for_every_image(server: Server, pictures: list[bytes]) -> None:
    for item in _items(server, pictures[:2], "?top_k=2&graph=summary"):
        assert item.answer is not None
        assert len(item.answer.predictions) == 2
        assert item.answer.inference_graph is None
        assert item.answer.layers is not None


@pytest.mark.parametrize("name", ["ünïcode 🐈.png", "../../etc/passwd", "", 'quote".png'])
def test_any_file_name_is_told_back(server: Server, pictures: list[bytes], name: str) -> None:
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.replace('"', '\\"').encode()
        + b'"\r\n\r\n'
        + pictures[0]
        + b"\r\n--edge--\r\n"
    )
    kind = {"content-type": "multipart/form-data; boundary=edge"}
    response = server.post("/classify/batch", content=body, headers=kind)
    assert response.status_code == 200, response.text
    (item,) = response.json()["results"]
    assert item["filename"] == name
    assert item["error"] is None


def test_one_image_is_a_batch_too(server: Server, pictures: list[bytes]) -> None:
    assert len(_items(server, pictures[:1])) == 1
