"""Train a network.

    python -m models.train --preset convnet-aig-38-cifar10 --data PATH --out DIR

Started again with the same arguments after Ctrl-C or a kill, it goes on from the last checkpoint and ends where the
uninterrupted run would have ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from artifact.manifest import file_digest
from models.checkpoint import Checkpoint, CheckpointError, load
from models.command_line import interrupted
from models.config import ModelConfig, preset
from models.data import Dataset, default_workers, load_pixels
from models.device import fast_precision, usable_device, use_sound_gradients
from models.distortion import Distortion
from models.examples import DataError
from models.hold_out import split
from models.opening import open_source
from models.pretrained import stride_note
from models.processes import Processes, joined
from models.resnet import AdaptiveResNet
from models.sources import open_examples
from models.start import warm_start
from models.teacher import Teacher
from models.trainer import CHECKPOINT_NAME, Trainer
from models.training_arguments import recipe_of, training_arguments


def _config(arguments: argparse.Namespace, labels: tuple[str, ...]) -> tuple[ModelConfig, Checkpoint | None]:
    """The network to train, and what it starts from."""
    config, source = preset(arguments.preset).with_labels(labels), None
    if arguments.image_size is not None:
        config = config.with_image_size(arguments.image_size)
    if arguments.target_rate is not None:
        rates = tuple(arguments.target_rate)
        config = config.with_target_rates(rates if len(rates) > 1 else rates[0])
    if arguments.plain:
        config = config.without_gates()
    position = arguments.bottleneck_stride
    if arguments.source:
        source = open_source(arguments.source, config, position)
        if note := stride_note(source):
            print(note, file=sys.stderr)
        assert isinstance(source.config, ModelConfig)
        config, position = config.with_normalisation_of(source.config), source.config.bottleneck_stride
    elif arguments.fresh_gates:
        raise ValueError("--fresh-gates is for gates of other weights: add --from")
    if position is not None:
        config = config.with_bottleneck_stride(position)
    return config.model_copy(update={"name": arguments.name or config.name}), source


def _teacher(path: Path | None, config: ModelConfig, device: torch.device) -> Teacher | None:
    """The network to learn from.

    Raises:
        CheckpointError: it cannot be read, is a cascade, or answers with other classes.
    """
    if path is None:
        return None
    checkpoint = load(path)
    network = checkpoint.network()
    if not isinstance(network, AdaptiveResNet):
        raise CheckpointError(f"{path} is a cascade, and no teacher")
    if checkpoint.config.labels != config.labels:
        raise CheckpointError(f"{path} has other classes than the data, and is no teacher for it")
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(network, file_digest(path))


def _summary(trainer: Trainer) -> Iterator[str]:
    """What is about to be trained, on what, and how long."""
    config, training, validation = trainer.network.config, trainer.training, trainer.validation
    counts = np.bincount(training.examples.classes[training.indices], minlength=len(config.labels))
    weights = sum(parameter.numel() for parameter in trainer.network.parameters())
    gates = len(trainer.network.gated_blocks)
    yield (
        f"network     {config.name}: {config.block_count} blocks, {gates} of them with a gate, "
        f"{weights / 1e6:.1f} million weights"
    )
    yield (
        f"classes     {len(config.labels)}, of {counts.min():,} to {counts.max():,} images each "
        f"({config.labels[int(counts.argmin())]}, {config.labels[int(counts.argmax())]})"
    )
    yield f"images      {len(training):,} to train on and {len(validation):,} held out"
    yield f"input       {config.input_size} pixels a side"
    yield f"augmented   {training.augmentation}"
    yield f"device      {trainer.device}, {trainer.recipe.precision}"
    yield f"steps       {trainer.recipe.epochs} epochs of {trainer.steps_per_epoch:,}, from step {trainer.step:,}"


def _trainer(arguments: argparse.Namespace, processes: Processes, device: torch.device) -> Trainer:
    """The run that the command line asks for, where it stands."""
    use_sound_gradients(device)
    precision = fast_precision(device) if arguments.precision == "auto" else arguments.precision
    examples = open_examples(arguments.data)
    config, source = _config(arguments, examples.labels)
    torch.manual_seed(arguments.seed)
    network = AdaptiveResNet(config).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    init_digest = None
    if source is not None:
        print(f"from {arguments.source.name}: {warm_start(network, source, arguments.fresh_gates)}")
        init_digest = file_digest(arguments.source)
    examples, pixels = load_pixels(examples, config.preprocessing, arguments.bad_images)
    train_indices, held_out = split(examples, arguments.held_out)
    recipe = recipe_of(arguments, config, precision, len(train_indices), len(held_out))
    distortion = Distortion(recipe.color_jitter, recipe.rand_augment)
    distortion.check()
    workers = arguments.workers
    if workers is None:
        workers = default_workers(config.preprocessing, processes.here)
    training, validation = (
        Dataset(examples, indices, config.preprocessing, pixels, distortion, workers, pinned=device.type == "cuda")
        for indices in (train_indices, held_out)
    )
    teacher = _teacher(arguments.teacher, config, device)
    trainer = Trainer(
        network,
        recipe,
        training,
        validation,
        arguments.out,
        init_digest=init_digest,
        teacher=teacher,
        processes=processes,
    )
    path: Path = arguments.out / CHECKPOINT_NAME
    if path.exists():
        trainer.resume(load(path))
    return trainer


def _train(arguments: argparse.Namespace, processes: Processes, device: torch.device) -> None:
    """Train from where the run stands to its end; nothing of it stays in memory."""
    trainer = _trainer(arguments, processes, device)
    if trainer.finished:
        print("the training was finished already")
        return
    for line in _summary(trainer):
        print(line)
    trainer.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = training_arguments(argv)
    path: Path = arguments.out / CHECKPOINT_NAME
    try:
        with joined(arguments.device) as (processes, device), _telling(processes.leads):
            _train(arguments, processes, usable_device(device))
            print(f"the network is in {path}")
    except ValidationError as error:
        print("error:", "; ".join(": ".join([*map(str, p["loc"]), p["msg"]]) for p in error.errors()), file=sys.stderr)
        return 1
    except (DataError, CheckpointError, ValueError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = "goes on from the last checkpoint" if path.exists() else "starts again, as there is no checkpoint yet"
        return interrupted(f"the same command {goes_on}")
    return 0


@contextmanager
def _telling(leads: bool) -> Iterator[None]:
    """What is printed is told once, by the process that leads."""
    with Path(os.devnull).open("w") as nowhere, nullcontext() if leads else redirect_stdout(nowhere):
        yield


if __name__ == "__main__":
    sys.exit(main())
