from __future__ import annotations

import pytest

from service.errors import ApiError
from service.grpc.open_inference_pb2 import ModelInferRequest
from service.grpc.wire import require_quickly_read
from tests.service.grpc.calling import asking, files


def test_messages_as_clients_send_them_are_let_through() -> None:
    require_quickly_read(b"")
    require_quickly_read(asking(bytes(5_000_000), bytes(3), inputs=[files(1)] * 2, id="mine").SerializeToString())


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\x2a\x00" * 129, "at most 128 fields"),
        (b"\x3a\x00" * 129, "at most 128 fields"),
        (b"\x22\x02\x0a\x00" * 129, "at most 128 fields"),
        (asking(id="x" * 1_048_577).SerializeToString(), "at most 1048576 bytes besides"),
        (ModelInferRequest(inputs=[files(2**31)] * 16, id="x" * 1_048_500).SerializeToString(), "besides"),
        (b"\x0b", "cannot be read"),
        (b"\xff" * 20, "cannot be read"),
        (b"\x80", "cannot be read"),
        (b"\x0a", "cannot be read"),
    ],
)
def test_messages_that_take_long_to_read_are_refused(message: bytes, said: str) -> None:
    with pytest.raises(ApiError, match=said):
        require_quickly_read(message)
