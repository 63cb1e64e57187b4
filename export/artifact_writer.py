"""Writes a whole artifact, or nothing: the files appear under their final name only after they were verified."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from artifact.agreement import Run
from artifact.budgets import BudgetCurve
from artifact.cascade import run_cascade
from artifact.manifest import (
    INT8_NAME,
    MANIFEST_NAME,
    ONNX_NAME,
    TORCHSCRIPT_NAME,
    ExecutionProfile,
    Int8Agreement,
    Manifest,
    Member,
    Verification,
    file_digest,
    write_manifest,
)
from artifact.preprocessing import Float32Array
from artifact.probes import Probes, probe_count, run_forced, write_probes
from export.budgets import measure_budgets
from export.calibration import calibrate
from export.inference import InferenceCascade, InferenceNetwork, inference_form
from export.int8_graph import write_int8
from export.int8_parity import check_skipping, int8_runner, verify_int8
from export.onnx_graph import write_onnx
from export.parity import eager_runner, gating_of, onnx_runner, verify
from export.profile import measure_profile
from export.torchscript import write_torchscript
from models.answers import Images
from models.cascade import Network
from models.checkpoint import Checkpoint
from models.config import CascadeConfig, ModelConfig
from models.hold_out import HELD_OUT_NAME
from models.macs import count_macs
from models.resnet import AdaptiveResNet
from models.structure import Structure, blocks_of, network_name


def write_artifact(
    checkpoint: Checkpoint,
    source_digest: str,
    out: Path,
    images: Float32Array,
    version: str = "1",
    gate_threshold: float = 0.0,
    generated_images: bool = False,
    calibration_images: Float32Array | None = None,
    profile_batches: Iterable[Float32Array] = (),
    unseen: Images | None = None,
) -> Manifest:
    """Export a checkpoint to the folder `out`, which must not exist yet.

    Args:
        checkpoint: the trained network.
        source_digest: SHA-256 of the checkpoint's file.
        images: (N, 3, H, W) preprocessed images to verify the export on; some become its probes.
        version: of the model.
        gate_threshold: a gate is open where its margin is above it.
        generated_images: whether the images were generated, which the manifest tells.
        calibration_images: (M, 3, H, W) others to calibrate an int8 graph on; without them there is none.
        profile_batches: real images, (N, 3, H, W) each, to count on how often each block runs.
        unseen: images that training did not see, to measure budgets on; without them there are none.

    Raises:
        FileExistsError: `out` exists.
        ParityError: the exported files do not do what the network does; nothing is left behind.
        CheckpointError: the weights do not fit the config.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; an artifact is never overwritten: choose another folder or version")
    network = checkpoint.network()
    inference = inference_form(network, gate_threshold)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for number, each in enumerate(checkpoint.networks(), 1):
            write_artifact(
                each,
                source_digest,
                unfinished / network_name(number),
                images,
                version,
                gate_threshold,
                generated_images,
                calibration_images,
            )
        write_onnx(inference, _residual_blocks(checkpoint.config), checkpoint.config.input_size, unfinished / ONNX_NAME)
        write_torchscript(inference, unfinished / TORCHSCRIPT_NAME)
        verification = verify(network, unfinished, images, gate_threshold)
        verification = verification.model_copy(update={"generated_images": generated_images})
        if checkpoint.held_out is not None:
            (unfinished / HELD_OUT_NAME).write_text(checkpoint.held_out.model_dump_json())
        write_probes(unfinished, _probes(network, images, gate_threshold))
        int8 = None
        if calibration_images is not None:
            int8 = _write_int8(network, inference, unfinished, images, calibration_images, gate_threshold)
        files = {str(path.relative_to(unfinished)): file_digest(path) for path in sorted(_own_files(unfinished))}
        profile = measure_profile(network, profile_batches, gate_threshold)
        budgets = _budgets(network, unfinished, unseen, gate_threshold) if unseen else None
        manifest = _manifest(
            checkpoint.config, version, gate_threshold, files, source_digest, verification, int8, profile, budgets
        )
        write_manifest(unfinished, manifest)
        unfinished.chmod(0o755)  # mkdtemp makes it private
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return manifest


def _residual_blocks(config: ModelConfig | CascadeConfig) -> list[str]:
    return [block.name for block in blocks_of(config) if block.kind == "residual"]


def _own_files(folder: Path) -> Iterator[Path]:
    """The files in it, and of each network of a cascade the manifest, which vouches for the others."""
    for path in folder.iterdir():
        yield path / MANIFEST_NAME if path.is_dir() else path


def _write_int8(
    network: Network,
    inference: InferenceNetwork | InferenceCascade,
    folder: Path,
    images: Float32Array,
    calibration_images: Float32Array,
    gate_threshold: float,
) -> Int8Agreement:
    """Write the int8 graph to the folder and prove it on `images`, which are not among those it is calibrated on.

    A cascade has none of its own: its networks have, which run in turn.
    """
    if isinstance(inference, InferenceCascade):
        paths = [folder / network_name(number) / INT8_NAME for number, _ in enumerate(inference.networks, 1)]
        networks, sure_above = [int8_runner(path) for path in paths], inference.sure_above[1:]
        run: Run = partial(run_cascade, networks, inference.gates, sure_above, gate_threshold)
    else:
        assert isinstance(network, AdaptiveResNet)
        names, path = _residual_blocks(network.config), folder / INT8_NAME
        write_int8(inference, names, network.config.input_size, calibrate(inference, names, calibration_images), path)
        check_skipping(network, path, images[:1])
        run = int8_runner(path)
    return verify_int8(network, run, images, len(calibration_images), gate_threshold)


def _probes(network: Network, images: Float32Array, gate_threshold: float) -> Probes:
    """Some of the images, spread evenly over them, with the network's own answers."""
    chosen = images[np.linspace(0, len(images) - 1, probe_count(images)).round().astype(int)]
    run = eager_runner(network, gate_threshold)
    logits, margins = run(chosen, np.zeros(len(chosen), np.float32))
    return Probes(chosen, logits, margins, run_forced(run, chosen))


def _budgets(network: Network, folder: Path, unseen: Images, gate_threshold: float) -> BudgetCurve | None:
    return measure_budgets(onnx_runner(folder / ONNX_NAME), gating_of(network, gate_threshold), unseen)


def _manifest(
    config: ModelConfig | CascadeConfig,
    version: str,
    gate_threshold: float,
    files: dict[str, str],
    source_digest: str,
    verification: Verification,
    int8: Int8Agreement | None,
    profile: ExecutionProfile | None,
    budgets: BudgetCurve | None,
) -> Manifest:
    blocks, structure = blocks_of(config), Structure.of_config(config)
    members = []
    if isinstance(config, CascadeConfig):
        names = [network_name(number) for number, _ in enumerate(config.networks, 1)]
        members = [
            Member(folder=names[0]),
            *(Member(folder=name, sure_above=sure) for name, sure in zip(names[1:], config.sure_above, strict=True)),
        ]
    macs = count_macs(config.networks[0] if isinstance(config, CascadeConfig) else config)
    return Manifest(
        name=config.name,
        version=version,
        labels=config.labels,
        preprocessing=config.preprocessing,
        input_size=config.input_size,
        blocks=blocks,
        gate_threshold=gate_threshold,
        stem_macs=macs.stem,
        classifier_macs=macs.classifier,
        total_macs=structure.total_macs,
        ungated_macs=structure.ungated_macs,
        files=files,
        source_digest=source_digest,
        verification=verification,
        int8=int8,
        profile=profile,
        budgets=budgets,
        members=tuple(members),
    )
