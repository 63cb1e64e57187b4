"""What files say of their colours and Pillow does not tell: code points of ITU-T H.273, and a BMP's profile."""

from __future__ import annotations

import re
import struct

from PIL import Image

# Among the properties of an AVIF (ISO/IEC 23008-12, section 6.5.5), and as a chunk of a PNG (third edition, 11.3.2.6).
_AVIF_LABEL = re.compile(rb"colrnclx(..)(..)", re.DOTALL)
_PNG_LABEL = re.compile(rb"\x00\x00\x00\x04cICP(.)(.)", re.DOTALL)
_HEAD_BYTES = 10_000
_UNSPECIFIED = 2
# Transfer characteristics that say how bright a pixel is, rather than how bright beside others.
_HDR = {16: "PQ", 18: "HLG"}
# A header of version 5, and in it "MBED", for a profile that is in the file.
_BMP_HEADER_5, _EMBEDDED = struct.pack("<I", 124), b"DEBM"


def label_colours(image: Image.Image, data: bytes, name: str) -> str | None:
    """Add to an image's `info` what its file says of its colours: `primaries`, a number, or `icc_profile`.

    Returns:
        What it is, such as "a PNG in HDR (PQ)", where eight bits of sRGB cannot show it; else None.
    """
    if name == "BMP":
        _add_bmp_profile(image, data)
    primaries, transfer = _code_points(image, data, name)
    image.info["primaries"] = primaries
    if name == "PNG" and transfer != _UNSPECIFIED:  # for readers that do not know code points there may be more
        for other in ("icc_profile", "srgb", "gamma"):
            image.info.pop(other, None)
    if transfer in _HDR and "icc_profile" not in image.info:
        return f"{'an' if name == 'AVIF' else 'a'} {name} in HDR ({_HDR[transfer]})"
    return None


def _code_points(image: Image.Image, data: bytes, name: str) -> tuple[int, int]:
    """Colour primaries and transfer characteristics."""
    if name == "HEIC" and (told := image.info.get("nclx_profile")):
        return int(told["color_primaries"]), int(told["transfer_characteristics"])
    label = {"AVIF": _AVIF_LABEL, "PNG": _PNG_LABEL}.get(name)
    if label is None or not (found := label.search(data, 0, _HEAD_BYTES)):
        return _UNSPECIFIED, _UNSPECIFIED
    return int.from_bytes(found[1], "big"), int.from_bytes(found[2], "big")


def _add_bmp_profile(image: Image.Image, data: bytes) -> None:
    if data[14:18] == _BMP_HEADER_5 and data[70:74] == _EMBEDDED and len(data) >= 138:
        offset, size = struct.unpack_from("<II", data, 126)
        image.info["icc_profile"] = data[14 + offset : 14 + offset + size]
