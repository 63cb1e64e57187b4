"""Memory of the largest images there may be, each decoded in a process of its own whose peak is its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import artifact.formats  # noqa: F401  # with it HEIC can be written
from artifact.colour_profiles import SRGB_CHROMATICITIES, matrix_profile
from tests.e2e.process import ROOT
from tests.image_files import encoded

pytestmark = pytest.mark.slow

SIDE = 3000
LYING = Image.Exif()
LYING[0x0112] = 6
# Prints by how much a decoding raises the largest memory the process ever had, in bytes. What `resource` tells would
# not do: it counts the process that started this one.
MEASURE = """
import re, sys
from pathlib import Path
from artifact.preprocessing import Preprocessing
from service.images.decoding import ImageDecoder

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

decoder = ImageDecoder(Preprocessing(resize=32, crop=32, mean=(0, 0, 0), std=(1, 1, 1)), 10**8, 10**8)
small, large = (Path(name).read_bytes() for name in sys.argv[1:])
decoder.decode(small)
before = peak()
decoder.decode(large)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the peak otherwise")
@pytest.mark.parametrize(
    ("mode", "format_", "parameters", "bytes_per_pixel"),
    [
        ("1", "PNG", {}, 7),
        ("P", "PNG", {"transparency": 0}, 7),
        ("RGBA", "PNG", {}, 10),
        ("RGBA", "PNG", {"exif": LYING}, 14),
        ("I;16", "PNG", {}, 8),
        ("F", "TIFF", {"compression": "tiff_adobe_deflate"}, 10),
        ("RGBA", "WEBP", {"lossless": True}, 18),
        ("RGBA", "AVIF", {"speed": 10}, 13),
        ("RGBA", "HEIF", {}, 10),
        ("RGBA", "PNG", {"icc_profile": matrix_profile(SRGB_CHROMATICITIES, 1.8)}, 10),
        ("RGB", "JPEG", {"progressive": True}, 5),
    ],
)
def test_image_takes_no_more_memory_than_the_documentation_tells(
    tmp_path: Path, mode: str, format_: str, parameters: dict[str, object], bytes_per_pixel: float
) -> None:
    files = [tmp_path / "small", tmp_path / "large"]
    for file, side in zip(files, (64, SIDE), strict=True):
        file.write_bytes(encoded(Image.new(mode, (side, side)), format_, **parameters))
    command = [sys.executable, "-c", MEASURE, *map(str, files)]
    measured = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    # What a strip needs beside is the same for an image of any size.
    assert int(measured.stdout) < bytes_per_pixel * SIDE**2 + 30_000_000
