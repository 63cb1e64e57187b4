"""Measure the budgets of an artifact that was exported without: python -m export.add_budgets DIR --images DATA

Only the manifest changes. The images must be some that training did not see: those that were held out of it, or others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from artifact.manifest import ONNX_NAME, ArtifactError, read_manifest, verified_file, write_manifest
from export.budgets import FEWEST_IMAGES, measure_budgets
from export.parity import ParityError, onnx_runner
from models.answers import Images
from models.bad_images import readable
from models.command_line import add_bad_images, interrupted
from models.examples import DataError
from models.exported import read_held_out
from models.hold_out import held_out_indices
from models.sources import open_examples


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = _arguments(argv)
    folder: Path = arguments.artifact
    try:
        manifest = read_manifest(folder)
        path = verified_file(folder, manifest, ONNX_NAME)
        examples = readable(open_examples(arguments.images), manifest.preprocessing, arguments.bad_images)
        if examples.labels != manifest.labels:
            raise DataError(f"the classes of {arguments.images} are not the network's")
        if arguments.all:
            indices = np.arange(len(examples))
        else:
            told = read_held_out(folder, manifest)
            indices = held_out_indices(told, arguments.held_out, examples, manifest.name)
        if len(indices) < FEWEST_IMAGES:
            raise DataError(f"budgets need {FEWEST_IMAGES} images at least, not {len(indices)}")
        curve = measure_budgets(onnx_runner(path), manifest.gating, Images(examples, indices, manifest.preprocessing))
        if curve is None:
            raise ArtifactError(f"{manifest.name} has no gates, and so one budget only")
        write_manifest(folder, manifest.model_copy(update={"budgets": curve}))
    except (ArtifactError, DataError, ParityError, OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted("the artifact is as it was")
    for row in curve.rows:
        print(
            f"gate offset {row.gate_offset:g}: {row.mac_share:.1%} of the multiply-accumulates "
            f"({row.mac_share_p95:.1%} at the 95th percentile), {row.accuracy.value:.2%} right, "
            f"{row.same_as_full:.1%} as the whole network"
        )
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.add_budgets", description="Measure the budgets of an artifact that has none."
    )
    parser.add_argument("artifact", type=Path, metavar="DIR", help="folder of the artifact")
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DATA", help="class folders, a tar of them, or CIFAR-10's batches"
    )
    add_bad_images(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--held-out",
        type=int,
        metavar="N",
        help="take the N that training on these images held out (default: those the artifact tells, else as training "
        "does)",
    )
    which.add_argument("--all", action="store_true", help="take all of them: training saw none")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
