"""BMPs whose header says by masks which bits of a pixel are which colour: the masks that Pillow does not know.

Pillow's reader takes eleven sets of masks, and of those of 16 bits none has an alpha. This is a reader beside it.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

_BLOCK_PIXELS = 1_000_000
_BITFIELDS, _ALPHA_BITFIELDS = 3, 6  # BI_BITFIELDS, BI_ALPHABITFIELDS
# Masks of red, green, blue and alpha that are left to Pillow, by bits a pixel.
_USUAL = {
    16: [(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)],
    32: [(0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0)],
}


class MaskedBmpFile(ImageFile.ImageFile):
    """A BMP of 16 or 32 bits a pixel with masks of its own; (H, W, 4) after loading."""

    format = "BMP"
    format_description = "BMP with masks"

    def _open(self) -> None:
        assert self.fp is not None
        head = self.fp.read(70)
        if len(head) < 66 or head[:2] != b"BM":
            raise SyntaxError("no BMP")
        start, size, width, height, _, bits, compression = struct.unpack_from("<I IiiHHI", head, 10)
        if size < 40 or compression not in (_BITFIELDS, _ALPHA_BITFIELDS) or bits not in (16, 32) or width <= 0:
            raise SyntaxError("no BMP of masks")
        # The alpha mask came with headers of 56 bytes; before, with a compression of its own.
        has_alpha = len(head) == 70 and (size >= 56 or compression == _ALPHA_BITFIELDS)
        masks = struct.unpack_from("<4I" if has_alpha else "<3I", head, 54) + (() if has_alpha else (0,))
        if masks in _USUAL[bits] or not all(masks[:3]):
            raise SyntaxError("a BMP of usual masks")
        self._size = width, abs(height)
        self._mode = "RGBA"
        tile = ("masked_bmp", (0, 0, *self.size), start, (bits, masks, height > 0))
        self.tile = [tile]  # type: ignore[list-item]  # Pillow has no public name for its type, which is a tuple


class _MaskedBmpDecoder(ImageFile.PyDecoder):
    """From the pixels of the file to RGBA; an alpha that is 0 everywhere is none, as browsers have it."""

    _pulls_fd = True

    def decode(self, _: object) -> tuple[int, int]:
        bits, masks, bottom_up = self.args
        width, height = self.state.xsize, self.state.ysize
        stride = (width * bits // 8 + 3) // 4 * 4
        assert self.fd is not None
        data = self.fd.read(stride * height)
        if len(data) < stride * height:
            raise ValueError("pixels are missing")
        rows = np.frombuffer(data, np.uint8).reshape(height, stride)[:, : width * bits // 8]
        pixels = np.empty((height, width, 4), np.uint8)
        block = max(1, _BLOCK_PIXELS // width)
        for top in range(0, height, block):
            packed = np.ascontiguousarray(rows[top : top + block]).view(f"<u{bits // 8}")
            for channel, mask in enumerate(masks):
                pixels[top : top + block, :, channel] = _channel(packed, mask) if mask else 255
        if not pixels[..., 3].any():
            pixels[..., 3] = 255
        self.set_as_raw((pixels[::-1] if bottom_up else pixels).tobytes(), "RGBA")
        return -1, 0


def _channel(packed: npt.NDArray[np.unsignedinteger], mask: int) -> npt.NDArray[np.uint8]:
    """What the bits of a mask hold, scaled to 8 bits."""
    lowest = mask & -mask
    most = mask // lowest
    scaled: npt.NDArray[np.uint8] = np.rint((packed & mask) // lowest * (255 / most)).astype(np.uint8)
    return scaled


Image.register_open("BMP with masks", MaskedBmpFile, lambda prefix: prefix.startswith(b"BM"))
Image.register_decoder("masked_bmp", _MaskedBmpDecoder)
