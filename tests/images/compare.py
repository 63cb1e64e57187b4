"""The network's input of every image of a folder, beside what another decoder makes of it.

python -m tests.images.compare FOLDER [--side 224]

Both are fitted alike, so that what differs is the decoding: what the file says of depth, colours, transparency and
orientation, and the decoding of large JPEGs at a reduced size. Exit status 1 if any file differs by more than the
tolerance, or is read by one alone. Of 145 photographs, 21 of them with profiles, none does.

Not every difference is a mistake here: ImageMagick 6 heeds no orientation of PNG and WebP, no profile of AVIF and HEIC,
no gamma of PNG but 1, no alpha mask of BMP, and no sign of 8 and 32 bits. `tests/images/test_generated.py` holds all
these against the formulas of the standards.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from artifact.image_files import open_image
from artifact.preprocessing import Preprocessing
from tests.images.other_decoders import CannotDecode, Decoder, other_decoder

# Levels of 255, on average and at the 99th percentile: what a JPEG's reduced decoding may change.
MOST_ON_AVERAGE, MOST_AT_99 = 1.0, 3.0


@dataclass(frozen=True)
class Difference:
    """How one file came out.

    Attributes:
        path: of the file.
        on_average: mean difference of a value, in levels of 255.
        at_99: the 99th percentile of it.
        problem: why there is nothing to compare.
    """

    path: Path
    on_average: float = 0
    at_99: float = 0
    problem: str | None = None

    @property
    def is_tolerable(self) -> bool:
        """Whether both show the same."""
        return self.problem is None and self.on_average <= MOST_ON_AVERAGE and self.at_99 <= MOST_AT_99

    def __str__(self) -> str:
        return self.problem or f"{self.on_average:.2f} levels on average, {self.at_99:.0f} at the 99th percentile"


def compare(path: Path, decoder: Decoder, preprocessing: Preprocessing) -> Difference | None:
    """How far the two are apart on one file; None where neither can read it."""
    ours = theirs = None
    try:
        ours = preprocessing.fit(open_image(path.read_bytes())).astype(int)
    except Exception as error:  # Pillow's decoders raise many types
        refusal = f"refused here: {error}"
    try:
        theirs = preprocessing.fit(Image.fromarray(decoder(path))).astype(int)
    except CannotDecode as error:
        if ours is not None:
            return Difference(path, problem=f"read here alone; there: {error}")
    if theirs is None:
        return None
    if ours is None:
        return Difference(path, problem=refusal)
    apart = np.abs(ours - theirs)
    return Difference(path, float(apart.mean()), float(np.percentile(apart, 99)))


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the images of a folder and list what differs; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare decoded images with those of another decoder.")
    parser.add_argument("folder", type=Path, help="of images, and of folders of them")
    parser.add_argument("--side", type=int, default=224, help="of the network's input, in pixels (default: 224)")
    arguments = parser.parse_args(argv)
    decoder = other_decoder()
    if decoder is None:
        print("neither ImageMagick nor libvips is installed: apt-get install imagemagick", file=sys.stderr)
        return 2
    side = arguments.side
    preprocessing = Preprocessing(resize=side * 8 // 7, crop=side, mean=(0, 0, 0), std=(1, 1, 1))
    files = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    compared = [found for path in files if (found := compare(path, decoder, preprocessing))]
    differing = [one for one in compared if not one.is_tolerable]
    for one in differing:
        print(f"{one.path}: {one}")
    print(f"{len(compared)} images, {len(differing)} differ, {len(files) - len(compared)} files that neither reads")
    return int(bool(differing) or not compared)


if __name__ == "__main__":
    sys.exit(main())
