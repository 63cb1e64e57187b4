"""The image files of one request, put together from the pieces of its body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from service.classify.budgets import budget_in
from service.classify.json_text import MOST_BYTES, JsonText, decoded_base64
from service.errors import ApiError
from service.images.decoding import EmptyImage

# Room for the headers and boundaries of a form, for each of its files.
_BYTES_AROUND_A_FILE = 4096
# RFC 7578 has three headers for a part; RFC 2046, section 5.1.1, at most 70 letters for a boundary.
_MOST_HEADERS, _LONGEST_HEADER, _LONGEST_BOUNDARY = 8, 4096, 70
_BUDGET, _LONGEST_BUDGET = "budget", 32
_IMAGE = "image"
# What clients send a file as when they do not know better. Amazon S3 says binary/octet-stream, and
# curl --data-binary says that it is a form.
_UNTYPED = {"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Upload:
    """One image as it was sent.

    Attributes:
        data: the image file, or what the network takes of an image.
        budget: that came with it, if any did.
        is_tensor: whether `data` is no file; see `service.engine.job.ImageJob`.
        gate_offset: that came with it, if any did; it goes before every budget.
        may_degrade: whether it may have less compute where the service has too much to do, as far as it says itself.
    """

    filename: str | None
    data: bytes
    budget: float | None = None
    is_tensor: bool = False
    gate_offset: float | None = None
    may_degrade: bool = True


class Body(Protocol):
    """A body of which not all has come yet.

    Attributes:
        most_bytes: it may have.
    """

    most_bytes: int

    def take(self, piece: bytes, /) -> None:
        """Take the next bytes, some 64 KiB at most: it takes them in one step.

        Raises:
            ApiError: a form is malformed, or not as documented.
        """

    def uploads(self) -> list[Upload]:
        """The files, when all of the body has been taken.

        Raises:
            ApiError: a form has not come to its end, or has no file.
            EmptyImage: there are no bytes.
        """


class RawImage:
    """A body that is an image file.

    Args:
        most_bytes: it may have.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._pieces: list[bytes] = []

    def take(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._pieces.append(piece)

    def uploads(self) -> list[Upload]:
        """The file."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if not data:
            raise EmptyImage("the request has no body; send an image")
        return [Upload(None, data)]


class JsonImage:
    """A body that is JSON: `{"image": "..."}`, the image file in base64.

    Args:
        most_image_bytes: the file may have.
    """

    def __init__(self, most_image_bytes: int) -> None:
        self.most_bytes = min(MOST_BYTES, 2 * most_image_bytes + _BYTES_AROUND_A_FILE)  # base64 may be escaped a little
        self._json = JsonText()

    def take(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._json.take(piece)

    def uploads(self) -> list[Upload]:
        """The file."""
        said = self._json.value()
        if not isinstance(said, dict):
            raise ApiError(400, "malformed_request", "the JSON must be an object")
        if unknown := sorted(said.keys() - {_IMAGE}):
            raise ApiError(422, "unknown_field", f"there is no field {unknown[0][:80]!r}; send {_IMAGE!r}")
        if _IMAGE not in said:
            raise ApiError(422, "missing_file", f"the JSON has no field {_IMAGE!r}")
        return [Upload(None, decoded_base64(said[_IMAGE], f"the field {_IMAGE!r}"))]


class ImageForm:
    """A body that is a multipart form (RFC 7578) with image files. It is refused as soon as it is known to be wrong.

    It may have fields named `budget` too: one for all of its files, or one for each.

    Args:
        boundary: between its parts.
        field: name of every part.
        most_images: it may have.
        most_image_bytes: each of them may have, or all together as many as all may have.

    Raises:
        ApiError: there is no such boundary.
    """

    def __init__(self, boundary: str, field: str, most_images: int, most_image_bytes: int) -> None:
        if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
            raise _malformed(f"its boundary needs 1 to {_LONGEST_BOUNDARY} characters")
        self.most_bytes = most_images * (most_image_bytes + _BYTES_AROUND_A_FILE)
        self._field = field
        self._most_images = most_images
        self._parts: list[tuple[str, list[bytes]]] = []
        self._budgets: list[bytes] = []
        self._in_budget = False
        try:
            # Part headers are UTF-8, whatever charset a form names.
            self._parser = PushMultipartParser(
                boundary.encode("latin-1"), max_header_count=_MOST_HEADERS, max_header_size=_LONGEST_HEADER
            )
        except MultipartError as error:
            raise _malformed(str(error)) from error

    def take(self, piece: bytes) -> None:
        """Take the next bytes."""
        try:
            for event in self._parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is not None:
                    self._append(event)
        except MultipartError as error:
            raise _malformed(str(error)) from error

    def uploads(self) -> list[Upload]:
        """The files, in the order of their parts."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed("it ends before its closing boundary") from error
        if not self._parts:
            raise ApiError(422, "missing_file", f"the form has no field {self._field!r}")
        uploads = []
        for (filename, pieces), budget in zip(self._parts, self._budget_of_each(), strict=True):
            uploads.append(Upload(filename, b"".join(pieces), budget))
            pieces.clear()  # lest there be two of everything
        return uploads

    def _budget_of_each(self) -> list[float | None]:
        budgets = [budget_in(text.decode("latin-1"), f"the form field {_BUDGET!r}") for text in self._budgets]
        if len(budgets) not in {0, 1, len(self._parts)}:
            said = f"the form has {len(budgets)} fields {_BUDGET!r} for {len(self._parts)} files"
            raise ApiError(422, "invalid_parameter", f"{said}, not one, or one for each")
        if len(budgets) > 1:
            return [*budgets]
        return [budgets[0] if budgets else None] * len(self._parts)

    def _append(self, piece: bytes) -> None:
        if not self._in_budget:
            self._parts[-1][1].append(piece)
            return
        self._budgets[-1] += piece
        if len(self._budgets[-1]) > _LONGEST_BUDGET:
            raise ApiError(
                422, "invalid_parameter", f"the form field {_BUDGET!r} has more than {_LONGEST_BUDGET} bytes"
            )

    def _begin(self, part: MultipartSegment) -> None:
        if not part.name:
            raise _malformed("a part has no name")
        self._in_budget = part.name == _BUDGET
        if self._in_budget:
            if len(self._budgets) == self._most_images:
                said = f"this route takes at most {self._most_images} fields {_BUDGET!r} in one request"
                raise ApiError(422, "invalid_parameter", said)
            self._budgets.append(b"")
            return
        if part.name != self._field:
            raise ApiError(422, "unknown_field", f"there is no form field {part.name!r}; send {self._field!r}")
        if part.filename is None:
            raise ApiError(422, "not_a_file", f"the form field {self._field!r} must be a file")
        if len(self._parts) == self._most_images:
            raise ApiError(422, "too_many_images", f"this route takes at most {self._most_images} in one request")
        self._parts.append((part.filename, []))


def one_image(content_type: str, max_bytes: int) -> Body:
    """The body of a request with one image: a form with the field `file`, JSON, or the image itself.

    Raises:
        ApiError: the content type is none of these.
    """
    media_type, options = parse_options_header(content_type)
    if media_type == "multipart/form-data":
        return ImageForm(options.get("boundary", ""), "file", 1, max_bytes)
    if media_type == "application/json":
        return JsonImage(max_bytes)
    if not media_type.startswith("image/") and media_type not in _UNTYPED:
        raise ApiError(415, "unsupported_media_type", f"send an image, multipart/form-data or JSON, not {media_type}")
    return RawImage(max_bytes)


def several_images(content_type: str, max_bytes: int, max_images: int) -> Body:
    """The body of a request with several images: a form with fields named `files`.

    Raises:
        ApiError: the content type is another.
    """
    media_type, options = parse_options_header(content_type)
    if media_type != "multipart/form-data":
        raise ApiError(415, "unsupported_media_type", "send the images as multipart/form-data, in fields named files")
    return ImageForm(options.get("boundary", ""), "files", max_images, max_bytes)


def _malformed(why: str) -> ApiError:
    return ApiError(400, "malformed_request", f"the form cannot be read: {why}")
