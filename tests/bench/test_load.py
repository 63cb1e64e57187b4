from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import numpy as np
import pytest

from bench.load import closed_loop, main, open_loop
from bench.load_result import Result
from bench.load_run import poisson_arrivals
from tests.bench.scripted_server import answer, scripted_server

_HEADERS = {"Content-Type": "image/png"}
_BODIES = [b"first", b"second", b"third"]
_REFUSAL = answer(b"{}", "429 Too Many Requests", "Retry-After: 1", "Connection: close")


async def _accept(_number: int, _body: bytes) -> bytes:
    return answer()


async def _echo_in_chunks(_number: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


async def _never(_number: int, _body: bytes) -> bytes:
    await asyncio.sleep(60)
    return b""


def _unused_url() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"


def _result(scheduled_s: list[float], latency_s: list[float], status: list[int], **others: object) -> Result:
    fields = {
        "scheduled_s": np.array(scheduled_s),
        "sent_s": np.array(scheduled_s),
        "latency_s": np.array(latency_s),
        "status": np.array(status),
        "retry_after": np.zeros(len(status), bool),
        "lag_s": np.zeros(len(status)),
        "seconds": 1.0,
        "cpu_s": 0.0,
    }
    return Result(**fields | others)


def test_closed_loop_sends_the_bodies_in_turn() -> None:
    with scripted_server(_accept) as server:
        result = closed_loop(server.url, _BODIES, _HEADERS, 1, 1.0, 0.3, 5)
    assert server.bodies[:4] == [b"first", b"second", b"third", b"first"]
    assert len(server.bodies) == len(result.status)
    assert set(result.status) == {200}
    assert result.images_per_s > 0
    assert (result.scheduled_s < 0).any()  # those of the warm-up, which no figure counts
    assert sum(result.counts.values()) == (result.scheduled_s >= 0).sum()


def test_closed_loop_has_as_many_requests_on_their_way_as_clients() -> None:
    running, most = 0, 0

    async def count(_number: int, _body: bytes) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return answer()

    with scripted_server(count) as server:
        closed_loop(server.url, _BODIES, _HEADERS, 4, 1.0, 0.0, 5)
    assert most == 4


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(answer(b"{}", "200 OK", "Connection: close"), id="announced"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", id="as the end of the answer"),
    ],
)
def test_server_may_close_the_connection_after_each_answer(raw: bytes) -> None:
    async def close(_number: int, _body: bytes) -> bytes:
        return raw

    with scripted_server(close) as server:
        result = closed_loop(server.url, _BODIES, _HEADERS, 2, 1.0, 0.0, 5)
    assert set(result.status) == {200}
    assert len(result.status) > 2


def test_answers_of_the_sample_are_checked_whole() -> None:
    seen = []

    def right(index: int, body: bytes) -> bool:
        seen.append((index, body))
        return index != 1

    with scripted_server(_echo_in_chunks) as server:
        result = closed_loop(server.url, _BODIES, _HEADERS, 2, 1.0, 0.0, 5, right, check_every=2)
    assert result.checked == len(seen) == -(-len(result.status) // 2)
    assert all(_BODIES[index] == body for index, body in seen)
    assert result.wrong == sum(index == 1 for index, _ in seen) > 0


def test_refusal_that_comes_before_the_body_was_read_counts_as_one() -> None:
    async def refuse(_number: int, _body: bytes) -> bytes:
        return _REFUSAL

    with scripted_server(refuse, reads_bodies=False) as server:
        result = closed_loop(server.url, [bytes(200_000)], _HEADERS, 2, 1.0, 0.0, 5)
    assert set(result.counts) == {429}
    assert result.refusals_with_retry_after == 1.0
    assert result.images_per_s == 0


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="before its start"),
        pytest.param(answer(b"{}", "200 OK", "Connection: close")[:-1], id="within its body"),
    ],
)
def test_connection_lost_before_the_end_of_the_answer_is_a_failure(raw: bytes) -> None:
    async def cut_off(number: int, _body: bytes) -> bytes:
        return answer() if number % 2 else raw

    with scripted_server(cut_off) as server:
        result = open_loop(server.url, _BODIES, _HEADERS, 100, 0.2, 0.0, 5, seed=0)
    assert set(result.status) == {0, 200}


def test_nobody_listening_is_a_failure_of_each_request() -> None:
    closed = closed_loop(_unused_url(), _BODIES, _HEADERS, 2, 1.0, 0.0, 5)
    opened = open_loop(_unused_url(), _BODIES, _HEADERS, 100, 0.1, 0.0, 5, seed=0)
    for result in (closed, opened):
        assert set(result.counts) == {0}
        assert np.isnan(result.sent_s).all()
        assert result.percentiles_ms()["p50"] is None


def test_request_without_an_answer_fails_when_its_time_is_up() -> None:
    with scripted_server(_never) as server:
        closed = closed_loop(server.url, _BODIES, _HEADERS, 2, 0.1, 0.0, 0.2)
        opened = open_loop(server.url, _BODIES, _HEADERS, 50, 0.1, 0.0, 0.2, seed=0)
    for result in (closed, opened):
        assert set(result.status) == {0}
        assert (result.latency_s >= 0.2).all()


def test_open_loop_does_not_wait_for_answers_and_counts_from_the_arrival() -> None:
    everyone = 20
    arrived = asyncio.Event()

    async def wait_for_all(number: int, _body: bytes) -> bytes:
        if number == everyone - 1:
            arrived.set()
        await arrived.wait()
        return answer()

    with scripted_server(wait_for_all) as server:
        result = open_loop(server.url, _BODIES, _HEADERS, 200, 0.2, 0.0, 10, seed=0)
    assert len(result.status) >= everyone
    assert set(result.status) == {200}
    assert (result.latency_s[:everyone] >= result.scheduled_s[everyone - 1] - result.scheduled_s[:everyone]).all()
    assert (result.lag_s >= 0).all()
    assert (result.sent_s >= result.scheduled_s).all()


def test_arrivals_are_a_poisson_process_that_the_seed_repeats() -> None:
    arrivals_s = poisson_arrivals(100, 200, seed=5)
    np.testing.assert_array_equal(arrivals_s, poisson_arrivals(100, 200, seed=5))
    gaps_s = np.diff(arrivals_s)
    assert gaps_s.min() >= 0
    assert gaps_s.mean() == pytest.approx(0.01, rel=0.03)
    # Exponential: their deviation is their mean, and a share of 1/e is longer than that.
    assert gaps_s.std() == pytest.approx(0.01, rel=0.03)
    assert (gaps_s > 0.01).mean() == pytest.approx(np.exp(-1), abs=0.01)


def test_throughput_counts_answers_within_the_window_and_latency_arrivals_within_it() -> None:
    result = _result([-0.1, 0.1, 0.2, 0.9, 0.95], [0.2, 0.1, 0.3, 0.4, 0.01], [200, 200, 200, 200, 429])
    assert result.images_per_s == 3
    assert result.goodput(0.15) == 1
    assert result.goodput(0.25) == 2
    assert result.percentiles_ms()["p50"] == pytest.approx(300)
    assert result.counts == {200: 3, 429: 1}


def test_refusals_have_percentiles_of_their_own() -> None:
    result = _result([0.1, 0.2, 0.3], [0.5, 0.01, 0.02], [200, 429, 429], retry_after=np.array([False, True, False]))
    assert result.refusals_with_retry_after == 0.5
    assert result.percentiles_ms(429)["p50"] == pytest.approx(15)


def test_result_without_any_request_is_still_json() -> None:
    assert json.loads(json.dumps(_result([], [], []).summary()))["images_per_s"] == 0


def test_url_of_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        closed_loop("ftp://127.0.0.1/", _BODIES, _HEADERS, 1, 0.1, 0.0, 1)


@pytest.mark.parametrize("load", [("--clients", "2"), ("--rate", "100")])
def test_command_ends_with_a_line_of_json(
    load: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"an image")
    with scripted_server(_accept) as server:
        code = main([server.url, "--images", str(tmp_path), *load, "--seconds", "0.2", "--warmup", "0"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    assert told["ok"]
    assert list(told["counts"]) == ["200"]
    assert set(server.bodies) == {b"an image"}
