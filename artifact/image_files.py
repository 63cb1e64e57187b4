"""Opening image files, in training and serving alike, with what their decoders get wrong put right.

Nothing is decoded here, so that an image's size can be judged first.
"""

from __future__ import annotations

import io
from collections.abc import Collection

from PIL import Image, UnidentifiedImageError

import artifact.masked_bmp  # noqa: F401  # a reader that Pillow finds by itself
from artifact.colour_labels import label_colours
from artifact.formats import format_of, plugins, unsupported_kind
from artifact.png_chunks import without_damaged_chunks, without_trailing_chunks
from artifact.tiff_samples import mend, unsupported_tiff


class UnsupportedFile(ValueError):  # noqa: N818 (a state, told as one)
    """The file may be sound, but it cannot be read, or not read right; the message says what it is."""


class DamagedFile(ValueError):  # noqa: N818 (likewise)
    """The file begins like an image, but its header cannot be read."""


def open_image(data: bytes, formats: Collection[str] | None = None) -> Image.Image:
    """Open an image file; it is decoded when it is needed.

    Args:
        data: the whole file.
        formats: those that may be read, of `artifact.formats.FORMATS`; by default whatever Pillow reads.

    Raises:
        UnidentifiedImageError: the signature is none that is known.
        UnsupportedFile: it is in a format that may not be read, or of a kind that cannot be.
        DamagedFile: its header is damaged.
        Image.DecompressionBombError: it has absurdly many pixels. Pillow warns of fewer, which may be an error too.
    """
    name = format_of(data)
    if name is None:
        if formats is None:
            return Image.open(io.BytesIO(data))
        raise UnidentifiedImageError("no signature that is known")
    if formats is not None and name not in formats:
        raise UnsupportedFile(f"this is {'an' if name == 'AVIF' else 'a'} {name}")
    try:
        image = _open_png(data) if name == "PNG" else _open(data, name)
        unreadable = mend(image) or label_colours(image, data, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception as error:  # Pillow's readers raise many types on hostile input
        kind = unsupported_tiff(data) if name == "TIFF" else unsupported_kind(name, data)
        if kind:
            raise UnsupportedFile(f"this is {kind}") from error
        raise DamagedFile("the image's header is damaged") from error
    if unreadable:
        raise UnsupportedFile(f"this is {unreadable}")
    return image


def _open(data: bytes, name: str) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=plugins(name))


def _open_png(data: bytes) -> Image.Image:
    data = without_trailing_chunks(data)
    try:
        image = _open(data, "PNG")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        image = _open(without_damaged_chunks(data), "PNG")
    _tell_transparency_in_8_bits(image, depth=data[24])  # of the header, IHDR
    return image


def _tell_transparency_in_8_bits(image: Image.Image, depth: int) -> None:
    """Scale the transparent colour of a PNG, which Pillow tells in samples of the file, as Pillow scales its pixels."""
    transparency = image.info.get("transparency")
    if image.mode == "L" and isinstance(transparency, int):
        most = 2**depth - 1
        image.info["transparency"] = (transparency & most) * 255 // most
    elif image.mode == "RGB" and isinstance(transparency, tuple):
        image.info["transparency"] = tuple(sample >> 8 if depth == 16 else sample & 255 for sample in transparency)
