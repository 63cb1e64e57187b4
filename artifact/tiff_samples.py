"""TIFFs whose samples the decoder reads wrong, or tells too little of: what they are, and the range of their values."""

from __future__ import annotations

import io

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

_TAG = ExifTags.Base
# Values of SampleFormat (TIFF 6.0, section 19) and of PhotometricInterpretation.
_SIGNED, _FLOAT = 2, 3
_WHITE_IS_ZERO, _YCBCR = 0, 6
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB"}
_BIG_ENDIAN = b"MM"


def sample_range(image: Image.Image) -> tuple[float, float] | None:
    """The values of black and of white where a TIFF has grey of more than 8 bits; None of other images.

    Floats have no range of their own: it is (0, 1), or (1, 0) where white is 0.
    """
    if not isinstance(image, TiffImageFile) or image.mode not in ("I", "I;16", "I;16B", "F"):
        return None
    bits, form = _bits(image.tag_v2)[0], _form(image.tag_v2)
    if form == _FLOAT:
        black, white = 0, 1
    elif form == _SIGNED:
        black, white = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    else:
        black, white = 0, 2**bits - 1
    return (white, black) if image.tag_v2.get(_TAG.PhotometricInterpretation) == _WHITE_IS_ZERO else (black, white)


def is_signed(image: Image.Image) -> bool:
    """Whether the samples of a TIFF are signed: of 8 bits the decoder gives them as if they were not."""
    return isinstance(image, TiffImageFile) and _form(image.tag_v2) == _SIGNED


def mend(image: Image.Image) -> str | None:
    """Have a TIFF that is open, but not loaded, read right; say what it is where that cannot be done.

    The decoder takes planes of 16 bits for planes of 8 where they are not compressed, and knows no planes of grey and
    alpha; with compression it mixes up these and the byte order of samples that are signed or floats.
    """
    if not isinstance(image, TiffImageFile):
        return None
    tags = image.tag_v2
    photometric, deep, raw = tags.get(_TAG.PhotometricInterpretation), _bits(tags)[0] > 8, _is_raw(tags)
    planes = tags.get(_TAG.PlanarConfiguration) == 2 and tags.get(_TAG.SamplesPerPixel, 1) > 1
    if planes and raw and deep and image.mode in ("RGB", "RGBA"):
        return _mend_planes(image)
    wrong = (
        (planes and raw and deep and image.mode not in ("I", "I;16", "I;16B"))
        or (planes and image.mode in ("LA", "La"))
        or (planes and raw and not {_raw_mode(tile.args) for tile in image.tile} <= set("RGBACMYKL"))
        or (not raw and deep and tags.prefix == _BIG_ENDIAN and _form(tags) in (_SIGNED, _FLOAT))
        or (photometric == _YCBCR and raw and tags.get(_TAG.YCbCrSubSampling, (2, 2)) != (1, 1))
    )
    return _kind(tags) if wrong else None


def _mend_planes(image: TiffImageFile) -> str | None:
    """Tell the decoder of the depth of planes: of "R", which it takes for 8 bits, that it is "R;16L"."""
    suffix = ";16B" if image.tag_v2.prefix == _BIG_ENDIAN else ";16L"
    planes = []
    for tile in image.tile:
        if not isinstance(tile.args, tuple) or tile.args[0] not in ("R", "G", "B", "A"):
            return _kind(image.tag_v2)
        planes.append(tile._replace(args=(tile.args[0] + suffix, *tile.args[1:])))
    image.tile = planes
    return None


def _raw_mode(arguments: object) -> object:
    """What the decoder of one part is told that its samples are."""
    return arguments[0] if isinstance(arguments, tuple) else arguments


def unsupported_tiff(data: bytes) -> str | None:
    """What a TIFF is that the decoder has refused; None if its directory cannot be read either."""
    try:
        tags = ImageFileDirectory_v2(data[:16] if data[2:4] in (b"+\0", b"\0+") else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        if not {_TAG.ImageWidth, _TAG.ImageLength, _TAG.BitsPerSample} <= set(tags):
            return None
        return _kind(tags)
    except Exception:  # it raises many types
        return None


def _kind(tags: ImageFileDirectory_v2) -> str:
    """Such as "a TIFF of CMYK with 4 planes of 16 bits, uncompressed"."""
    form = {_SIGNED: "signed ", _FLOAT: "floating-point "}.get(_form(tags), "")
    colours = _COLOURS.get(tags.get(_TAG.PhotometricInterpretation, 0), "unknown colours")
    layout = "planes" if tags.get(_TAG.PlanarConfiguration) == 2 else "samples"
    samples = f"{tags.get(_TAG.SamplesPerPixel, 1)} {form}{layout} of {_bits(tags)[0]} bits"
    order = "big-endian " if tags.prefix == _BIG_ENDIAN else ""
    compression = "uncompressed" if _is_raw(tags) else f"compression {tags.get(_TAG.Compression)}"
    return f"a {order}TIFF of {colours} with {samples}, {compression}"


def _bits(tags: ImageFileDirectory_v2) -> tuple[int, ...]:
    bits = tags.get(_TAG.BitsPerSample, (1,))
    return bits if isinstance(bits, tuple) else (bits,)


def _form(tags: ImageFileDirectory_v2) -> int:
    form = tags.get(_TAG.SampleFormat, (1,))
    return int(form[0] if isinstance(form, tuple) else form)


def _is_raw(tags: ImageFileDirectory_v2) -> bool:
    return bool(tags.get(_TAG.Compression, 1) == 1)
