"""Image files out of an HTTP request, multipart or raw, never keeping more bytes than allowed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message

from service.errors import ApiError, ClientGone
from service.images import EmptyImage, ImageTooLarge
from service.memory import Share

# Room for the part headers and boundaries of a multipart body, per file.
_MULTIPART_OVERHEAD = 4096
# Parts of a form that are read before it is refused. Far above what is allowed, so that the error can name the limit.
_MOST_PARTS = 1000
# What clients send a file as when they do not know better; curl --data-binary says it is a form.
_UNTYPED = {"", "application/octet-stream", "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Upload:
    """One image file as it was sent."""

    filename: str | None
    data: bytes


async def read_image(request: Request, max_bytes: int, held: Share) -> Upload:
    """The one image of a request: the multipart field `file`, or the raw body.

    Args:
        request: not read yet.
        max_bytes: of an image.
        held: takes account of what is read.

    Raises:
        ApiError: the content type is no image, or the form is not as documented.
        ImageTooLarge, EmptyImage: the body is.
        Overloaded: other requests hold too much memory.
        ClientGone: the client left while sending.
    """
    if is_form(request.headers.get("content-type", "")):
        uploads = await _read_form(request, "file", max_bytes, 1, held)
        return uploads[0]
    data = await _limited(request, max_bytes, held).body()
    if not data:
        raise EmptyImage("the request has no body; send an image")
    return Upload(None, data)


async def read_images(request: Request, max_bytes: int, max_images: int, held: Share) -> list[Upload]:
    """The images of a multipart request, in the order of its `files` fields.

    Args:
        request: not read yet.
        max_bytes: of an image.
        max_images: of the request.
        held: takes account of what is read.

    Raises:
        ApiError: the request is not multipart, has no or too many files, or fields of another name.
        ImageTooLarge: the files together have more bytes than that many images may.
        Overloaded: other requests hold too much memory.
        ClientGone: the client left while sending.
    """
    if _media_type(request.headers.get("content-type", "")) != "multipart/form-data":
        raise ApiError(415, "unsupported_media_type", "send the images as multipart/form-data, in fields named files")
    return await _read_form(request, "files", max_bytes, max_images, held)


def is_form(content_type: str) -> bool:
    """Whether a body that should hold one image is a form with it, and not the image itself.

    Raises:
        ApiError: it is neither.
    """
    media_type = _media_type(content_type)
    if media_type == "multipart/form-data":
        return True
    if not media_type.startswith("image/") and media_type not in _UNTYPED:
        raise ApiError(415, "unsupported_media_type", f"send an image or multipart/form-data, not {media_type}")
    return False


def most_bytes(form: bool, max_bytes: int, max_images: int = 1) -> int:
    """How long a body may be."""
    return max_images * (max_bytes + _MULTIPART_OVERHEAD) if form else max_bytes


@lru_cache(maxsize=256)
def _media_type(content_type: str) -> str:
    value, _ = parse_options_header(content_type)
    return value.decode("latin-1").lower()


async def _read_form(request: Request, field: str, max_bytes: int, max_images: int, held: Share) -> list[Upload]:
    limited = _limited(request, most_bytes(True, max_bytes, max_images), held)
    async with aclosing(limited.stream()) as stream:
        return await parse_form(limited.headers, stream, field, max_images)


async def parse_form(
    headers: Headers, stream: AsyncGenerator[bytes, None], field: str, max_images: int
) -> list[Upload]:
    """The images in a form.

    Args:
        headers: of its request.
        stream: its body.
        field: what every part of it must be named.
        max_images: most that it may have.

    Raises:
        ApiError: it is malformed, or not as documented.
    """
    try:
        most = max(_MOST_PARTS, max_images + 1)
        form = await _FormParser(headers, stream, max_files=most, max_fields=_MOST_PARTS).parse()
    except MultiPartException as error:
        raise ApiError(400, "malformed_request", error.message) from error
    try:
        items = form.multi_items()
        if unknown := [name for name, _ in items if name != field]:
            raise ApiError(422, "unknown_field", f"there is no form field {unknown[0]!r}; send {field!r}")
        files = [value for _, value in items if isinstance(value, UploadFile)]
        if not items:
            raise ApiError(422, "missing_file", f"the form has no field {field!r}")
        if len(files) != len(items):
            raise ApiError(422, "not_a_file", f"the form field {field!r} must be a file")
        if len(files) > max_images:
            raise ApiError(422, "too_many_images", f"this route takes at most {max_images} in one request")
        return [Upload(file.filename, await file.read()) for file in files]
    finally:
        await form.close()


class _FormParser(MultiPartParser):
    """Starlette's, which would take a form that ends in the middle of a file for one without that file.

    Each part may have 8 headers of 4 KiB, and what is not a file 1 MiB, as the libraries have it.
    """

    has_ended = False

    def on_end(self) -> None:
        """Called at the closing boundary."""
        self.has_ended = True

    async def parse(self) -> FormData:
        """The form.

        Raises:
            MultiPartException: it is malformed or not complete.
        """
        form = await super().parse()
        if self.has_ended:
            return form
        for file in self._files_to_close_on_error:
            file.close()
        raise MultiPartException("The form ends before its closing boundary.")


def _limited(request: Request, max_bytes: int, held: Share) -> Request:
    """The request, with a `receive` that stops a body of more than `max_bytes` and tells when its client has left.

    Raises:
        ImageTooLarge: its head says that the body is.
    """
    max_bytes = min(max_bytes, held.capacity)
    too_large = f"the body has more than {max_bytes} bytes"
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise ImageTooLarge(too_large)
    received = 0

    async def receive_within_limit() -> Message:
        nonlocal received
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        size = len(message.get("body", b""))
        received += size
        if received > max_bytes:
            raise ImageTooLarge(too_large)
        held.take(size)
        return message

    return Request(request.scope, receive_within_limit)
