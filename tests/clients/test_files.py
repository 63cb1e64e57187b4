"""Streams of files: in order, a few at a time, and none lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from convnet_aig_client.files import ahead
from tests.clients.conftest import MakeClient, url_of
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.http_server import http_serving


def files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(solid(number))
    return paths


def test_a_few_items_are_taken_ahead() -> None:
    taken: list[int] = []
    items = ahead((taken.append(number) or number for number in range(6)), 3)
    assert next(items) == 0
    assert taken == [0, 1, 2]
    assert list(items) == [1, 2, 3, 4, 5]


def test_at_least_one_item_is_taken(make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match="at"):
        next(make_client("http://127.0.0.1:1").classify_files(["a.png"], concurrency=0))


def test_files_are_answered_in_order_whatever_becomes_of_some(make_client: MakeClient, tmp_path: Path) -> None:
    paths = files(tmp_path, 30)
    paths[7].write_bytes(b"no image")
    paths[11].unlink()
    with http_serving(EchoRuntime()) as server:
        told = list(make_client(url_of(server)).classify_files(paths, concurrency=4, top_k=1, graph="none"))
    assert [each.path for each in told] == paths
    assert [place for place, each in enumerate(told) if each.error] == [7, 11]
    assert isinstance(told[11].error, FileNotFoundError)
    assert all(each.answer for place, each in enumerate(told) if place not in {7, 11})


def test_no_more_files_are_taken_than_may_be_in_progress(make_client: MakeClient, tmp_path: Path) -> None:
    runtime, paths = EchoRuntime(), files(tmp_path, 12)
    taken: list[Path] = []

    def noted() -> Iterator[Path]:
        for path in paths:
            taken.append(path)
            yield path

    with http_serving(runtime) as server:
        stream = make_client(url_of(server)).classify_files(noted(), concurrency=3)
        next(stream)
        assert len(taken) == 3
        next(stream)
        assert len(taken) == 4
        stream.close()
    assert len(taken) == 4


def test_option_that_does_not_exist_ends_the_stream(make_client: MakeClient, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="topk"):
        list(make_client("http://127.0.0.1:1").classify_files(files(tmp_path, 2), topk=1))
