"""Say what a network does on a set of images: its accuracy, what it executes, and what that costs.

    python -m models.evaluate CHECKPOINT --data PATH
    python -m models.evaluate [CHECKPOINT] --artifact DIR --data PATH [--ungated NETWORK] --report DIR

A checkpoint runs in PyTorch, an artifact in ONNX Runtime. With both, the artifact is evaluated, and the checkpoint,
which must be the one it was exported from, gives what needs gradients. Figures for people come first; the last line on
stdout is the same as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from artifact.manifest import ArtifactError
from models.answers import Answers, Images, answer, logits_of
from models.bad_images import readable
from models.calibration import calibrated, fit
from models.checkpoint import CheckpointError, save
from models.classifier import Classifier, TrainedClassifier
from models.command_line import add_bad_images, add_told, finite, interrupted, told_of
from models.config import ModelConfig
from models.device import default_device, usable_device, use_sound_gradients
from models.evaluation_text import report_lines
from models.examples import DataError, Examples
from models.exported import ExportedClassifier
from models.hold_out import HeldOut, held_out_indices
from models.opening import open_checkpoint, open_either, open_exported, open_trained, require_source, require_ungated
from models.pictures import write_pictures
from models.report.report import write_report
from models.report.subject import Subject, groups_of
from models.sources import open_examples

_SAMPLE = 5000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = _arguments(argv)
    try:
        return _run(arguments)
    except (DataError, CheckpointError, ArtifactError, ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted("the evaluation is not finished")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description="Evaluate a gated residual network.")
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        help="file of a trained network (runs/k/checkpoint.safetensors), or with --preset weights that others saved",
    )
    parser.add_argument(
        "--artifact", type=Path, metavar="DIR", help="an exported network, which runs in ONNX Runtime (default: none)"
    )
    parser.add_argument("--data", required=True, type=Path, help="class folders, a tar of them, or CIFAR-10's batches")
    add_bad_images(parser)
    add_told(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--held-out",
        type=int,
        metavar="N",
        help="images held out of training, if the network does not tell them (default: as training does)",
    )
    which.add_argument("--all", action="store_true", help="every image (default: only those held out of training)")
    parser.add_argument(
        "--batch-size", type=int, help="images run together (default: 256 in PyTorch, 16 a thread in ONNX Runtime)"
    )
    parser.add_argument(
        "--gate-offset", type=finite, default=0.0, help="added to every margin: below 0 skips more (default: 0)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the pictures (default: evaluation/ beside CHECKPOINT)"
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="write CHECKPOINT there with its logits divided by the temperature that fits these images best: its "
        "probabilities can be believed then (default: none)",
    )
    parser.add_argument("--device", default=default_device(), help="of PyTorch, cpu or cuda (default: %(default)s)")
    report = parser.add_argument_group("report", "a page on what the gates learned, instead of the pictures")
    report.add_argument(
        "--report", type=Path, metavar="DIR", help="where to write index.html and report.json (default: no report)"
    )
    report.add_argument(
        "--ungated",
        type=Path,
        metavar="NETWORK",
        help="without gates, to compare: checkpoint or artifact (default: none)",
    )
    report.add_argument(
        "--groups", type=Path, metavar="FILE", help="groups of classes to compare, as JSON (default: none)"
    )
    report.add_argument(
        "--without-images",
        action="store_true",
        help="tell the images' names instead, for a page that is passed on where the data may not be (default: show)",
    )
    report.add_argument(
        "--sample",
        type=int,
        default=_SAMPLE,
        metavar="N",
        help="images that are changed and attacked (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if arguments.checkpoint is None and arguments.artifact is None:
        parser.error("name a CHECKPOINT, an --artifact, or both")
    if arguments.checkpoint is None and arguments.preset is not None:
        parser.error("--preset is for a CHECKPOINT that others saved")
    if arguments.calibrate is not None and (arguments.checkpoint is None or arguments.artifact is not None):
        parser.error("--calibrate is for a CHECKPOINT, from which an artifact is made")
    if arguments.report is None and (arguments.ungated or arguments.groups):
        parser.error("--ungated and --groups are for a --report")
    return arguments


class _Networks(NamedTuple):
    """What is evaluated, and the same network in PyTorch, where its checkpoint was given."""

    classifier: Classifier
    trained: TrainedClassifier | None


def _run(arguments: argparse.Namespace) -> int:
    _require_positive(arguments, "batch_size", "held_out", "sample")
    if arguments.calibrate is not None and arguments.calibrate.exists():
        raise CheckpointError(f"{arguments.calibrate} exists: choose another --calibrate")
    examples = open_examples(arguments.data)
    networks = _open(arguments, examples)
    examples = readable(examples, networks.classifier.structure.preprocessing, arguments.bad_images)
    subject = _subject(arguments, networks, examples)
    started = time.perf_counter()
    with tqdm(desc="evaluating", total=len(subject.images), unit="image", leave=False, disable=None) as bar:
        answers = answer(subject.classifier, subject.images, subject.gate_offset, bar.update)
    images_per_second = round(len(subject.images) / (time.perf_counter() - started), 1)
    print(f"{networks.classifier.structure.name}, {subject.context}\n")
    for line in report_lines(answers.evaluation):
        print(line)
    print(f"\n{images_per_second:,.0f} images a second, decoding included")
    written = _write(arguments, subject, answers) | _calibrate(arguments, networks, subject.images)
    source = {"checkpoint": arguments.checkpoint.name} if arguments.checkpoint else {}
    if isinstance(networks.classifier, ExportedClassifier):
        manifest = networks.classifier.manifest
        source["artifact"] = f"{manifest.name}/{manifest.version}"
    source |= {"split": _split_name(arguments), "gate_offset": arguments.gate_offset}
    figures = source | answers.evaluation.summary() | {"images_per_second": images_per_second} | written
    print(json.dumps(figures, allow_nan=False))
    return 0


def _require_positive(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")


def _open(arguments: argparse.Namespace, examples: Examples) -> _Networks:
    device = usable_device(arguments.device)
    if arguments.report:  # of which the attack needs gradients
        use_sound_gradients(device)
    trained = None
    if arguments.checkpoint is not None:
        batch_size = None if arguments.artifact else arguments.batch_size
        trained = open_trained(arguments.checkpoint, examples.labels, device, told_of(arguments), batch_size)
    if arguments.artifact is None:
        assert trained is not None  # the command line asks for one of the two
        return _Networks(trained, trained)
    exported = open_exported(arguments.artifact, examples.labels, arguments.batch_size)
    if trained is not None:
        require_source(exported, arguments.checkpoint)
    return _Networks(exported, trained)


def _subject(arguments: argparse.Namespace, networks: _Networks, examples: Examples) -> Subject:
    structure = networks.classifier.structure
    ungated = None
    if arguments.ungated is not None:
        ungated = open_either(arguments.ungated, examples.labels, usable_device(arguments.device))
        require_ungated(ungated, networks.classifier)
    indices = np.arange(len(examples)) if arguments.all else _held_out(arguments, networks, ungated, examples)
    images = Images(examples, indices, structure.preprocessing)
    return Subject(
        classifier=networks.classifier,
        images=images,
        sample=images.spread(arguments.sample),
        trained=networks.trained,
        ungated=ungated,
        groups=groups_of(structure.labels, arguments.groups),
        gate_offset=arguments.gate_offset,
        shows_images=not arguments.without_images,
        context=(
            f"{_split_name(arguments)} images of {arguments.data.resolve().name}, "
            f"gate offset {arguments.gate_offset:g}, run in {networks.classifier.runtime}"
        ),
    )


def _held_out(
    arguments: argparse.Namespace, networks: _Networks, ungated: Classifier | None, examples: Examples
) -> np.ndarray:
    """The images held out of training, (N,): those that the network tells, so that none was trained on.

    Raises:
        DataError: the examples are not those of the training.
        ValueError: others are asked for, there are none, or the network to compare with was trained on some.
    """
    told, name = networks.classifier.held_out, networks.classifier.structure.name
    if told is None and networks.trained is not None:  # an artifact of an earlier version beside its checkpoint
        told = networks.trained.held_out
    found = held_out_indices(told, arguments.held_out, examples, name)
    other = ungated.held_out if ungated is not None else None
    if other is not None and other != HeldOut.of(examples, found):
        raise ValueError(f"the training of {arguments.ungated.name} held out others than that of {name}: give --all")
    return found


def _split_name(arguments: argparse.Namespace) -> str:
    return "all" if arguments.all else "held-out"


def _calibrate(arguments: argparse.Namespace, networks: _Networks, images: Images) -> dict[str, Any]:
    """Write a calibrated checkpoint where one is asked for, and say what changed.

    Raises:
        CheckpointError: the network is a cascade.
        ValueError: the images are too few, or suit no temperature.
    """
    out: Path | None = arguments.calibrate
    if out is None:
        return {}
    checkpoint = open_checkpoint(arguments.checkpoint, told_of(arguments))
    with tqdm(desc="calibrating", total=len(images), unit="image", leave=False, disable=None) as bar:
        found = fit(logits_of(networks.classifier, images, bar.update), images.classes)
    labels = networks.classifier.structure.labels
    config = checkpoint.config.with_labels(labels) if isinstance(checkpoint.config, ModelConfig) else checkpoint.config
    save(out, calibrated(replace(checkpoint, config=config), found.temperature))
    print(
        f"\ntemperature {found.temperature:.3f}: the calibration error goes from {found.before:.1%} to "
        f"{found.after:.1%} (of each half of the images, with the temperature of the other half)\n{out}"
    )
    return {"temperature": found.temperature, "calibrated_error": found.after, "calibrated": str(out)}


def _write(arguments: argparse.Namespace, subject: Subject, answers: Answers) -> dict[str, str]:
    """Write the report, or the pictures, or both where both are asked for, and say where."""
    folder = arguments.out
    if folder is None and arguments.report is None and arguments.checkpoint is not None:
        folder = arguments.checkpoint.parent / "evaluation"
    if folder is not None:
        print("\npictures:", *write_pictures(answers.evaluation, folder, subject.classifier.structure.name), sep="\n  ")
    if arguments.report is None:
        return {}
    page = write_report(subject, answers, arguments.report)
    print(f"\nreport: {page}")
    return {"report": str(page)}


if __name__ == "__main__":
    sys.exit(main())
