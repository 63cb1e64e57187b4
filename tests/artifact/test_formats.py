from __future__ import annotations

import subprocess
import sys

import pytest

from artifact.formats import FORMATS, READABLE_FORMATS, USUAL_FORMATS, format_of, plugins, unsupported_kind
from tests.e2e.process import ROOT
from tests.image_files import encoded, photograph

IMAGE = photograph(20, 12)


@pytest.mark.parametrize("name", FORMATS)
def test_file_is_known_by_its_signature(name: str) -> None:
    data = encoded(IMAGE, plugins(name)[-1])
    assert format_of(data) == name
    assert format_of(data[:40]) == name


@pytest.mark.parametrize(
    "data", [b"", b"text", b"BM" + b"W is no bitmap but a car", b"RIFF1234WAVE", b"\0\0\0\x18ftypmp42"]
)
def test_other_bytes_are_of_no_format(data: bytes) -> None:
    assert format_of(data + bytes(40)) is None


@pytest.mark.parametrize(("brand", "name"), [(b"avif", "AVIF"), (b"avis", "AVIF"), (b"heic", "HEIC"), (b"mp42", None)])
def test_brand_that_a_file_conforms_to_tells_its_format(brand: bytes, name: str | None) -> None:
    assert format_of(b"\0\0\0\x1cftypabcd\0\0\0\0isom" + brand + b"miaf") == name


def test_usual_formats_are_all_but_tiff_where_everything_is_installed() -> None:
    assert READABLE_FORMATS == FORMATS
    assert set(FORMATS) - set(USUAL_FORMATS) == {"TIFF"}


def test_heic_is_quietly_left_out_where_its_package_is_missing() -> None:
    code = """
import sys
sys.modules["pillow_heif"] = None
from artifact.formats import READABLE_FORMATS
from service.settings import Settings
print(",".join(READABLE_FORMATS), ",".join(Settings().formats))
try:
    Settings(formats="PNG,HEIC")
except ValueError as error:
    print(error.errors()[0]["msg"])
"""
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed, refusal = printed.splitlines()
    assert listed == "JPEG,PNG,WEBP,AVIF,GIF,BMP,TIFF JPEG,PNG,WEBP,AVIF,GIF,BMP"
    assert refusal.startswith("Input should be without HEIC")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the threads of a process otherwise")
@pytest.mark.parametrize("name", ["AVIF", "HEIC"])
def test_decoder_starts_no_threads(name: str) -> None:
    data = encoded(photograph(900, 700), plugins(name)[-1])
    code = """
import os, sys
from artifact.image_files import open_image
image = open_image(sys.stdin.buffer.read())
image.load()
assert image.size == (900, 700)
print(len(os.listdir("/proc/self/task")))
"""
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input=data, capture_output=True, env=environment)
    assert (run.returncode, run.stdout.strip()) == (0, b"1"), run.stderr


def _with_frame(marker: int, bits: int = 8, components: int = 3) -> bytes:
    """A JPEG whose frame header says this."""
    data = bytearray(encoded(IMAGE, "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 1], data[start + 4], data[start + 9] = marker, bits, components
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (_with_frame(0xC1, 12), "a JPEG of 12 bits a sample"),
        (_with_frame(0xC3), "a lossless JPEG"),
        (_with_frame(0xC5), "a hierarchical JPEG"),
        (_with_frame(0xC0, components=2), "a JPEG of 2 components"),
        (_with_frame(0xC0), None),
        (_with_frame(0xC0, 77), None),
        (encoded(IMAGE, "JPEG")[:20], None),
    ],
)
def test_jpeg_that_cannot_be_read_is_told_by_its_frame(data: bytes, kind: str | None) -> None:
    assert unsupported_kind("JPEG", data) == kind


@pytest.mark.parametrize(
    ("bits", "compression", "kind"),
    [(2, 0, "a BMP of 2 bits a pixel"), (24, 4, "a BMP of compression 4"), (24, 0, None), (77, 0, None)],
)
def test_bmp_that_cannot_be_read_is_told_by_its_header(bits: int, compression: int, kind: str | None) -> None:
    data = bytearray(encoded(IMAGE, "BMP"))
    data[28], data[30] = bits, compression
    assert unsupported_kind("BMP", bytes(data)) == kind
