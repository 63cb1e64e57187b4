"""Clients that send all they have before they read anything."""

from __future__ import annotations

import pytest

from tests.hostile.bystander import nobody_is_harmed
from tests.hostile.victim import Victim
from tests.hostile.wire import chunked, connect, post, read_to_end, request, statuses

_LARGE = bytes(8_000_000)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("target", "kind", "status"),
    [
        ("/classify", "text/plain", 415),
        ("/classify/batch", "image/png", 415),
        ("/nothing", "image/png", 404),
        ("/healthz", "image/png", 405),
        ("/classify?no=such", "image/png", 422),
        ("/classify", "multipart/form-data; boundary=b", 400),
    ],
)
def test_refusal_reaches_who_sends_everything_first(
    victim: Victim, version: str, target: str, kind: str, status: int
) -> None:
    head_of_form = b"--b\r\n: \r\n" if status == 400 else b""
    asked = post(head_of_form + _LARGE, target=target, kind=kind, version=version)
    with nobody_is_harmed(victim):
        for _ in range(20):
            with connect(victim.port) as connection:
                connection.sendall(asked)
                assert statuses(read_to_end(connection)) == [status]


def test_refusal_reaches_who_sends_chunks_or_too_much(victim: Victim) -> None:
    with nobody_is_harmed(victim):
        for _ in range(5):
            for asked, status in (
                (request("POST /nothing HTTP/1.1", "host: a", "transfer-encoding: chunked", body=chunked(_LARGE)), 404),
                (post(bytes(25_000_000)), 413),
                (request("GET /healthz HTTP/1.1", "host: a", "content-length: 8000000", body=_LARGE), 200),
            ):
                with connect(victim.port) as connection:
                    connection.sendall(asked)
                    assert statuses(read_to_end(connection)) == [status]
