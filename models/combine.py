"""Make a cascade of trained networks: each later one is asked for a share of the images, those least sure so far.

    python -m models.combine SMALL LARGE --share 0.2 --data PATH --out DIR

What makes an image unsure, and how the networks answer together, is told in `artifact.cascade`. The limits are found on
images that were held out of training, as networks are surer of what they know; no label is looked at for that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from tqdm import tqdm

from artifact.cascade import distance, together
from artifact.preprocessing import Float32Array
from models.answers import Images, answer, logits_of
from models.bad_images import readable
from models.checkpoint import Checkpoint, CheckpointError, load, save
from models.classifier import TrainedClassifier
from models.command_line import add_bad_images, interrupted
from models.config import CascadeConfig, ModelConfig
from models.device import default_device, usable_device
from models.examples import DataError, Examples
from models.hold_out import known_among
from models.sources import open_examples
from models.trainer import CHECKPOINT_NAME


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = _arguments(argv)
    out: Path = arguments.out / CHECKPOINT_NAME
    try:
        if out.exists():
            raise CheckpointError(f"{out} exists: choose another --out")
        members = [load(path) for path in arguments.networks]
        examples = open_examples(arguments.data)
        examples = readable(examples, members[0].config.preprocessing, arguments.bad_images)
        images = Images(examples, _held_out(members, examples), members[0].config.preprocessing)
        device = usable_device(arguments.device)
        logits = [_logits(TrainedClassifier(member, device), images) for member in members]
        checkpoint = combined(members, arguments.name, limits(logits, arguments.share))
        _report(members, logits, images, TrainedClassifier(checkpoint, device))
        out.parent.mkdir(parents=True, exist_ok=True)
        save(out, checkpoint)
    except ValidationError as error:
        print("error:", "; ".join(problem["msg"] for problem in error.errors()), file=sys.stderr)
        return 1
    except (CheckpointError, DataError, ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted("there is no cascade")
    print(f"the cascade is in {out}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.combine", description="Make a cascade of trained networks.")
    parser.add_argument(
        "networks", type=Path, nargs="+", metavar="CHECKPOINT", help="trained networks, in the order they are asked"
    )
    parser.add_argument("--data", required=True, type=Path, help="what they were trained on")
    add_bad_images(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder of the cascade's checkpoint")
    parser.add_argument(
        "--share",
        required=True,
        type=float,
        nargs="+",
        help="of all images, for which each network but the first is asked, such as 0.2",
    )
    parser.add_argument("--name", default="cascade", help="of the cascade (default: %(default)s)")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if len(arguments.networks) < 2 or len(arguments.share) != len(arguments.networks) - 1:
        parser.error("give at least two networks, and a --share for each but the first")
    return arguments


def _held_out(members: Sequence[Checkpoint], examples: Examples) -> np.ndarray:
    """Indices of the images that the training of all networks held out, (N,).

    Raises:
        CheckpointError: they do not tell, or held out others or none.
        DataError: the examples are not those of the training.
    """
    told = members[0].held_out
    if not told or any(member.held_out != told for member in members):
        raise CheckpointError("the networks must be trained on the same data with the same images held out")
    return known_among(told, examples, members[0].config.name)


def _logits(classifier: TrainedClassifier, images: Images) -> Float32Array:
    """Logits (N, classes) of all images."""
    with tqdm(desc=classifier.structure.name, total=len(images), unit="image", leave=False, disable=None) as bar:
        return logits_of(classifier, images, bar.update)


def limits(logits: Sequence[Float32Array], shares: Sequence[float]) -> tuple[float, ...]:
    """`sure_above` of each network but the first, so that it is asked for its share of the images.

    Args:
        logits: (N, classes) of each network.
        shares: of all N images, falling, as a network is asked only where the one before it was.

    Raises:
        ValueError: the shares do not fall from 1 to 0, or a network would be asked for no image or for all that come.
    """
    if any(not 0 < share < before for before, share in zip((1.0, *shares), shares, strict=False)):
        raise ValueError("each share must be above 0 and below the one before it, the first below 1")
    so_far, asked, found = logits[0].copy(), np.arange(len(logits[0])), []
    for number, (more, share) in enumerate(zip(logits[1:], shares, strict=True), 1):
        distances = distance(so_far[asked])
        order, count = np.argsort(distances), round(share * len(logits[0]))
        if not 0 < count < len(order):
            raise ValueError(f"{len(logits[0])} images are too few for a share of {share:g}")
        found.append(float(distances[order[count - 1 : count + 1]].mean()))
        asked = asked[order[:count]]
        so_far[asked] = together(so_far[asked], number, more[asked])
    return tuple(found)


def combined(members: Sequence[Checkpoint], name: str, sure_above: Sequence[float]) -> Checkpoint:
    """The checkpoint of a cascade.

    Raises:
        CheckpointError: one of the members is a cascade itself.
        ValidationError: they have other labels or preprocessing than each other.
    """
    configs = [member.config for member in members if isinstance(member.config, ModelConfig)]
    if len(configs) != len(members):
        raise CheckpointError("a cascade is made of single networks, not of cascades")
    config = CascadeConfig(name=name, networks=tuple(configs), sure_above=tuple(sure_above))
    weights = {
        f"networks.{position}.{weight}": tensor
        for position, member in enumerate(members)
        for weight, tensor in member.weights.items()
    }
    first = members[0].training
    return Checkpoint(config, weights, {name: first[name] for name in ("held_out", "origin") if name in first})


def _report(
    members: Sequence[Checkpoint], logits: Sequence[Float32Array], images: Images, cascade: TrainedClassifier
) -> None:
    with (
        torch.inference_mode(),
        tqdm(desc="cascade", total=len(images), unit="image", leave=False, disable=None) as bar,
    ):
        evaluation = answer(cascade, images, progress=bar.update).evaluation
    print(f"on {len(images)} images that were held out of training:")
    for member, each in zip(members, logits, strict=True):
        print(f"  {member.config.name}: {(each.argmax(axis=1) == images.classes).mean():.2%} right")
    spent = evaluation.mac_share.mean() * cascade.structure.ungated_macs
    print(f"  cascade: {evaluation.accuracy:.2%} right with {spent / 1e6:.1f} million MACs an image, mean")


if __name__ == "__main__":
    sys.exit(main())
