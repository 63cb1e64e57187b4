"""Export a checkpoint: python -m export CHECKPOINT --out DIR"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from artifact.manifest import Manifest, file_digest
from artifact.preprocessing import Float32Array, Preprocessing
from export.artifact_writer import write_artifact
from export.budgets import FEWEST_IMAGES
from export.parity import ParityError
from models.answers import Images
from models.bad_images import readable
from models.checkpoint import Checkpoint, CheckpointError
from models.command_line import add_bad_images, add_told, finite, interrupted, told_of
from models.examples import DataError, Examples
from models.hold_out import split
from models.opening import open_checkpoint
from models.pretrained import stride_note
from models.sources import open_examples
from models.structure import Structure

_BATCH = 50


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = _arguments(argv)
    path: Path = arguments.checkpoint
    try:
        if min(arguments.count, arguments.calibration_count, arguments.profile_count) < 1:
            raise ValueError("--count, --calibration-count and --profile-count must be at least 1 image")
        if arguments.int8 and not arguments.images:
            raise ValueError("--int8 needs real images to calibrate on: give --images")
        checkpoint = open_checkpoint(path, told_of(arguments))
        if note := stride_note(checkpoint):
            print(note, file=sys.stderr)
        preprocessing = checkpoint.config.preprocessing
        calibration_images: Float32Array | None = None
        profile_batches: Iterable[Float32Array] = ()
        unseen: Images | None = None
        if arguments.images:
            examples = readable(open_examples(arguments.images), preprocessing, arguments.bad_images)
            held_out = _held_out(arguments, checkpoint, examples)
            unseen = _unseen(arguments, checkpoint, examples, held_out)
            images = _real_images(examples, _spread(np.arange(len(examples)), arguments.count), preprocessing)
            # The network knows the others, where any were held out.
            profiled = _spread(held_out if len(held_out) else np.arange(len(examples)), arguments.profile_count)
            starts = range(0, len(profiled), _BATCH)
            profile_batches = (_real_images(examples, profiled[i : i + _BATCH], preprocessing) for i in starts)
            if arguments.int8:
                calibration_images = _calibration_images(arguments, checkpoint, examples, images)
        else:
            print("note: verifying on generated images; give --images to verify on real ones", file=sys.stderr)
            images = _generated_images(preprocessing, arguments.count)
        print(f"exporting {checkpoint.config.name} and comparing it with the checkpoint on {len(images)} images ...")
        manifest = write_artifact(
            checkpoint,
            file_digest(path),
            arguments.out,
            images,
            arguments.version,
            arguments.gate_threshold,
            generated_images=arguments.images is None,
            calibration_images=calibration_images,
            profile_batches=profile_batches,
            unseen=unseen,
        )
    except (CheckpointError, DataError, ParityError, OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted("nothing was exported")
    _report(manifest, arguments.out)
    return 0


def _report(manifest: Manifest, out: Path) -> None:
    """Print what the export proved and measured."""
    proof = manifest.verification
    print(
        f"verified: {proof.gates_compared} gate decisions equal ({proof.gates_within_tolerance} more lay within "
        f"{proof.margin_tolerance:g} of the threshold), largest difference of a margin "
        f"{proof.largest_margin_difference:.1e}, of a logit {proof.largest_logit_difference:.1e}"
    )
    if int8 := manifest.int8:
        print(
            f"int8, calibrated on {int8.calibration_images} images: {int8.gates_equal:.1%} of the gate decisions and "
            f"{int8.predictions_equal:.1%} of the predictions are equal on the {int8.images} compared, which are others"
        )
    if profile := manifest.profile:
        print(f"profile: {np.mean(profile.rates):.1%} of the blocks ran for an image, over {profile.images} images")
    if curve := manifest.budgets:
        least, full = curve.rows[0], curve.rows[-1]
        print(
            f"budgets: {len(curve.rows)} from {least.mac_share:.1%} of the multiply-accumulates "
            f"({least.accuracy.value:.1%} right) to all of them ({full.accuracy.value:.1%}), on {curve.images} images "
            "that training did not see"
        )
    print(f"{manifest.name} version {manifest.version} is in {out}")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export", description="Export a checkpoint to an artifact.")
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="file of a trained network (runs/k/checkpoint.safetensors), or with --preset weights that others saved",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the artifact; must not exist yet")
    parser.add_argument("--version", default="1", help="version of the model (default: 1)")
    parser.add_argument("--images", type=Path, help="to verify on: class folders or a tar of them (default: generated)")
    parser.add_argument("--count", type=int, default=64, help="how many of them, spread evenly (default: 64)")
    parser.add_argument("--int8", action="store_true", help="also write an int8 graph for CPUs (default: none)")
    parser.add_argument(
        "--calibration-images", type=Path, metavar="DATA", help="to calibrate it on (default: others of --images)"
    )
    parser.add_argument(
        "--calibration-count", type=int, default=1000, metavar="N", help="how many, spread evenly (default: 1000)"
    )
    parser.add_argument(
        "--held-out",
        type=int,
        metavar="N",
        help="of a checkpoint that does not tell which images its training held out, how many: none of these are "
        "calibrated on, and no others profiled and measured on (default: 0, or those in the val folder)",
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        metavar="DATA",
        help="other images that training did not see, such as a test set, to measure budgets on (default: those held "
        "out)",
    )
    parser.add_argument(
        "--profile-count",
        type=int,
        default=5000,
        metavar="N",
        help="how many images, spread evenly, to count on how often each block runs (default: 5000)",
    )
    add_bad_images(parser)
    parser.add_argument("--gate-threshold", type=finite, default=0.0, help="open gates above this margin (default: 0)")
    add_told(parser)
    return parser.parse_args(argv)


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """`count` of the indices, spread evenly, or all of them if they are fewer."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, count).round().astype(int))]


def _real_images(examples: Examples, indices: np.ndarray, preprocessing: Preprocessing) -> Float32Array:
    """The images of the examples at `indices`, (N, 3, H, W)."""
    return np.stack([preprocessing.normalise(examples.fitted(int(index), preprocessing)) for index in indices])


def _held_out(arguments: argparse.Namespace, checkpoint: Checkpoint, examples: Examples) -> np.ndarray:
    """Indices of those of the images that training did not see, as far as that is known.

    Raises:
        ValueError: the user says how many, though the checkpoint tells which, or they cannot be so many.
    """
    if checkpoint.held_out is not None:
        if arguments.held_out is not None:
            raise ValueError("the checkpoint tells which images its training held out: leave out --held-out")
        return checkpoint.held_out.among(examples)
    if examples.validation is None and not arguments.held_out:
        return np.arange(0)
    return split(examples, arguments.held_out)[1]


def _unseen(
    arguments: argparse.Namespace, checkpoint: Checkpoint, examples: Examples, indices: np.ndarray
) -> Images | None:
    """Images to measure budgets on; none where it is not known which of them training did not see.

    Raises:
        DataError: they are of other classes than the network's.
    """
    preprocessing = checkpoint.config.preprocessing
    if not Structure.of_config(checkpoint.config).gated.size:  # it has one budget only
        return None
    if arguments.unseen:
        examples = readable(open_examples(arguments.unseen), preprocessing, arguments.bad_images)
        indices = np.arange(len(examples))
    if len(indices) < FEWEST_IMAGES:
        print(f"no budgets without {FEWEST_IMAGES} images that training did not see: see --unseen")
        return None
    if examples.labels != checkpoint.config.labels:
        if arguments.unseen:
            raise DataError(f"the classes of {arguments.unseen} are not the network's")
        print("no budgets, as the images' classes are not the network's")
        return None
    return Images(examples, indices, preprocessing)


def _calibration_images(
    arguments: argparse.Namespace, checkpoint: Checkpoint, examples: Examples, verified: Float32Array
) -> Float32Array:
    """Images to calibrate on, (N, 3, H, W), without the verified ones: agreement is told on images new to the graph."""
    preprocessing = checkpoint.config.preprocessing
    if arguments.calibration_images:
        examples = readable(open_examples(arguments.calibration_images), preprocessing, arguments.bad_images)
    training = np.setdiff1d(np.arange(len(examples)), _held_out(arguments, checkpoint, examples))
    images = _real_images(examples, _spread(training, arguments.calibration_count), preprocessing)
    known = {image.tobytes() for image in verified}
    others = [image for image in images if image.tobytes() not in known]
    if not others:
        raise ValueError("every image to calibrate on is one to verify on: give more --images or a smaller --count")
    return np.stack(others)


def _generated_images(preprocessing: Preprocessing, count: int) -> Float32Array:
    """`count` smooth colour fields of many contrasts, (N, 3, H, W), so that gates see inputs that differ."""
    random = np.random.default_rng(0)
    side = preprocessing.crop
    coarse = random.integers(0, 256, (count, 4, 4, 3)) * random.random((count, 1, 1, 1))
    pixels = coarse.repeat(-(-side // 4), axis=1).repeat(-(-side // 4), axis=2)[:, :side, :side]
    return preprocessing.normalise(pixels.astype(np.uint8))


if __name__ == "__main__":
    sys.exit(main())
