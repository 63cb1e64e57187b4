"""Bodies of requests for inference: a description of tensors, and the raw bytes of those that do not stand in it."""

from __future__ import annotations

from collections.abc import Callable

from service.classify.json_text import MOST_BYTES, JsonText
from service.classify.uploads import Upload
from service.protocol.json_form import read_request
from service.protocol.request import Inference, InferenceRequest, Limits
from service.protocol.tensors import LENGTH_BYTES, Pieces, invalid

Ask = Callable[[InferenceRequest], Inference]
"""Makes of a description what a model can be asked."""


class RawBody:
    """The raw bytes that follow a description which is known already.

    Args:
        inference: that they are for.
    """

    def __init__(self, inference: Inference) -> None:
        self.inference = inference
        self.most_bytes = inference.request.raw_bytes
        self._raw = Pieces()

    def take(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._raw.put(piece)

    def uploads(self) -> list[Upload]:
        """The images."""
        return self.inference.uploads(self._raw)


class JsonBody:
    """A description in JSON, and perhaps raw bytes: it is refused as soon as it is known to be wrong.

    Args:
        ask: makes of the description what a model can be asked.
        limits: of the service.
        side: of the network's input, in pixels.
        json_bytes: of the description; None where all of the body is that.

    Attributes:
        wants_binary: which outputs are wanted as raw bytes, None for all; known when the description is there.

    Raises:
        ApiError: there cannot be a description of that length.
    """

    def __init__(self, ask: Ask, limits: Limits, side: int, json_bytes: int | None) -> None:
        if json_bytes is not None and json_bytes > MOST_BYTES:
            raise invalid(f"the header says that {json_bytes} bytes of the body are JSON; at most {MOST_BYTES} may be")
        image_bytes = max(LENGTH_BYTES + limits.most_image_bytes, 12 * side * side)
        self.most_bytes = MOST_BYTES if json_bytes is None else json_bytes + limits.most_images * (image_bytes + 4)
        self.wants_binary: frozenset[str] | None = None
        self._ask = ask
        self._most_images = limits.most_images
        self._json = JsonText()
        self._json_left = json_bytes
        self._raw: RawBody | None = None

    @property
    def inference(self) -> Inference:
        """What is asked.

        Raises:
            ApiError: the description has not come to its end.
        """
        return self._described.inference

    def take(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._json_left is None:
            self._json.take(piece)
            return
        if self._raw is None:
            self._json.take(piece[: self._json_left])
            piece, self._json_left = piece[self._json_left :], max(0, self._json_left - len(piece))
            if not self._json_left:
                self._begin_raw()
        if self._raw and piece:
            self._raw.take(piece)

    def uploads(self) -> list[Upload]:
        """The images."""
        if self._json_left is None:
            self._begin_raw()
        return self._described.uploads()

    @property
    def _described(self) -> RawBody:
        if self._raw is None:
            raise invalid("the body ends before the JSON that its header tells of")
        return self._raw

    def _begin_raw(self) -> None:
        request, self.wants_binary = read_request(self._json.value(), self._most_images)
        self._raw = RawBody(self._ask(request))
