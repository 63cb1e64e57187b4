"""A look at a message before it is read, which holds up the event loop: millions of empty fields take a second.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from service.protocol.tensors import invalid

_MOST_FIELDS = 128
# Of all but raw_input_contents, which are read in no time. What can be hidden in so many bytes takes some 40 ms.
_MOST_BYTES = 1_048_576
_RAW = 7 << 3 | 2  # the tag of raw_input_contents
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


def require_quickly_read(message: bytes) -> None:
    """Return if a message can be read in no time.

    Raises:
        ApiError: it cannot, or is none.
    """
    at = fields = described = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _LENGTH:
            length, at = _varint(message, at)
            at += length
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in {_FIXED32, _FIXED64}:
            at += 4 if kind == _FIXED32 else 8
        else:
            raise _no_message()
        fields += 1
        described += 0 if tag == _RAW else at - begin
        if fields > _MOST_FIELDS:
            raise invalid(f"a message may have at most {_MOST_FIELDS} fields")
        if described > _MOST_BYTES:
            said = f"a message may have at most {_MOST_BYTES} bytes besides its raw_input_contents"
            raise invalid(f"{said}; send large tensors in these")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it."""
    value = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise _no_message()


def _no_message() -> Exception:
    return invalid("the message cannot be read")
