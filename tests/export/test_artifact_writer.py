from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from artifact.agreement import LOGIT_TOLERANCE, MARGIN_TOLERANCE
from artifact.manifest import (
    INT8_NAME,
    MANIFEST_NAME,
    ONNX_NAME,
    PROBES_NAME,
    TORCHSCRIPT_NAME,
    ArtifactError,
    file_digest,
    read_manifest,
    verified_file,
)
from artifact.preprocessing import Float32Array
from artifact.probes import read_probes, run_forced
from export import artifact_writer
from export.artifact_writer import write_artifact
from export.parity import ParityError, eager_runner
from models.checkpoint import CheckpointError
from models.exported import read_held_out
from models.hold_out import HELD_OUT_NAME, HeldOut
from models.macs import count_macs
from models.resnet import AdaptiveResNet
from tests.networks import SOURCE_DIGEST, checkpoint_of, confident_network, exported_int8_once, inputs, small_network

pytestmark = pytest.mark.slow


def test_artifact_holds_both_graphs_and_a_manifest_that_reads(artifact: Path) -> None:
    assert sorted(path.name for path in artifact.iterdir() if path.is_file()) == sorted(
        [MANIFEST_NAME, ONNX_NAME, TORCHSCRIPT_NAME, PROBES_NAME]
    )
    manifest = read_manifest(artifact)
    assert manifest.files == {name: file_digest(artifact / name) for name in (ONNX_NAME, TORCHSCRIPT_NAME, PROBES_NAME)}
    assert verified_file(artifact, manifest, ONNX_NAME) == artifact / ONNX_NAME
    assert manifest.source_digest == SOURCE_DIGEST


def test_probes_hold_the_trained_networks_answers_with_gates_as_trained_and_forced(
    network: AdaptiveResNet, artifact: Path
) -> None:
    probes = read_probes(artifact, read_manifest(artifact))
    run = eager_runner(network)
    assert probes.forced is not None
    expected = (*run(probes.images, np.zeros(len(probes), np.float32)), *run_forced(run, probes.images))
    for one, other in zip((probes.logits, probes.margins, *probes.forced), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_manifest_describes_the_network(network: AdaptiveResNet, artifact: Path) -> None:
    manifest = read_manifest(artifact)
    config = network.config
    assert (manifest.name, manifest.version) == ("small", "1")
    assert manifest.labels == config.labels
    assert manifest.preprocessing == config.preprocessing
    assert manifest.input_size == 16
    assert manifest.gate_threshold == 0
    assert [block.name for block in manifest.blocks] == list(network.blocks)
    assert [block.stage for block in manifest.blocks] == [1, 1, 2, 2, 3]
    assert [block.name for block in manifest.blocks if block.gated] == network.gated_blocks
    assert manifest.verification.images == 12
    assert manifest.verification.margin_tolerance == MARGIN_TOLERANCE
    assert manifest.verification.logit_tolerance == LOGIT_TOLERANCE


def test_manifest_has_the_macs_of_the_network(network: AdaptiveResNet, artifact: Path) -> None:
    manifest, macs = read_manifest(artifact), count_macs(network.config)
    assert manifest.stem_macs == macs.stem == 16 * 16 * 4 * 3 * 9
    assert manifest.classifier_macs == macs.classifier == 16 * 6
    assert (manifest.total_macs, manifest.ungated_macs) == (macs.total, macs.ungated)
    for block in manifest.blocks:
        counted = macs.blocks[block.name]
        assert (block.macs, block.shortcut_macs, block.gate_macs) == (counted.residual, counted.shortcut, counted.gate)
    # By hand, for the block that halves the image and doubles the channels.
    projecting = manifest.blocks[2]
    assert projecting.macs == 8 * 8 * 8 * (4 + 8) * 9
    assert projecting.shortcut_macs == 8 * 8 * 8 * 4
    assert projecting.gate_macs == 4 * 16 + 16 * 2


def test_manifest_opens_the_gates_that_the_network_opens(
    tmp_path: Path, network: AdaptiveResNet, images: Float32Array
) -> None:
    manifest = write_artifact(checkpoint_of(network), SOURCE_DIGEST, tmp_path / "out", images, "7", gate_threshold=0.7)
    assert read_manifest(tmp_path / "out") == manifest
    assert (manifest.version, manifest.gate_threshold) == ("7", 0.7)
    with torch.inference_mode():
        output = network(torch.from_numpy(images), -0.7)
    assert len(output.open.unique(dim=0)) > 2
    executed = manifest.executed(output.margins.numpy(), np.zeros(12, np.float32))
    assert executed[:, 0].all()  # has no gate
    assert np.array_equal(executed[:, 1:], output.open.numpy() > 0)


def test_artifact_tells_what_training_held_out(tmp_path: Path, network: AdaptiveResNet, images: Float32Array) -> None:
    told = HeldOut(data="0" * 64, indices=(1, 5, 7))
    checkpoint = replace(checkpoint_of(network), training={"held_out": told.model_dump(mode="json")})
    manifest = write_artifact(checkpoint, SOURCE_DIGEST, tmp_path / "out", images)
    assert read_held_out(tmp_path / "out", manifest) == told
    (tmp_path / "out" / HELD_OUT_NAME).write_text("{}")
    with pytest.raises(ArtifactError, match="damaged"):
        read_held_out(tmp_path / "out", manifest)


def test_artifact_of_a_network_that_does_not_tell_has_no_such_file(artifact: Path) -> None:
    assert not (artifact / HELD_OUT_NAME).exists()
    assert read_held_out(artifact, read_manifest(artifact)) is None


def test_exporting_twice_gives_the_same_onnx_file(tmp_path: Path, images: Float32Array, artifact: Path) -> None:
    again = write_artifact(checkpoint_of(small_network()), SOURCE_DIGEST, tmp_path / "again", images)
    assert again.files[ONNX_NAME] == read_manifest(artifact).files[ONNX_NAME]


def test_int8_graph_is_one_more_file_with_its_agreement(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = exported_int8_once(tmp_path_factory.getbasetemp())
    manifest = read_manifest(folder)
    assert sorted(manifest.files) == sorted([ONNX_NAME, TORCHSCRIPT_NAME, PROBES_NAME, INT8_NAME])
    assert verified_file(folder, manifest, INT8_NAME).stat().st_size < 0.8 * (folder / ONNX_NAME).stat().st_size
    assert manifest.int8 is not None
    assert (manifest.int8.images, manifest.int8.calibration_images) == (40, 100)


def test_manifest_without_an_int8_graph_says_nothing_of_it(artifact: Path) -> None:
    # As those written before there were any.
    assert "int8" not in (artifact / MANIFEST_NAME).read_text()
    assert read_manifest(artifact).int8 is None


def test_int8_graph_that_agrees_too_rarely_leaves_nothing_behind(tmp_path: Path) -> None:
    network = confident_network()
    images = inputs(network, 40)
    with pytest.raises(ParityError, match=f"{INT8_NAME} is not right"):
        # Calibrated on images so dark that all features of the others are beyond its ranges.
        write_artifact(
            checkpoint_of(network), SOURCE_DIGEST, tmp_path / "out", images, calibration_images=images[:8] * 1e-3
        )
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_never_overwritten(tmp_path: Path, network: AdaptiveResNet, images: Float32Array) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_artifact(checkpoint_of(network), SOURCE_DIGEST, out, images)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.read_text() for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("weight", "value"),
    [
        ("stem.0.weight", float("nan")),
        ("blocks.stage1_block2.gate.fc2.weight", float("inf")),
        ("classifier.weight", float("nan")),
    ],
)
def test_weight_that_is_no_number_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, images: Float32Array, weight: str, value: float
) -> None:
    network = small_network()
    network.state_dict()[weight].view(-1)[0] = value
    with pytest.raises(ParityError, match="differs by nan"):
        write_artifact(checkpoint_of(network), SOURCE_DIGEST, tmp_path / "out", images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_interruption_leaves_nothing_behind(
    tmp_path: Path,
    network: AdaptiveResNet,
    images: Float32Array,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def interrupted(_: object, path: Path) -> None:
        assert (path.parent / ONNX_NAME).exists()  # half of the artifact is there
        raise error

    monkeypatch.setattr(artifact_writer, "write_torchscript", interrupted)
    with pytest.raises(type(error)):
        write_artifact(checkpoint_of(network), SOURCE_DIGEST, tmp_path / "out", images)
    assert list(tmp_path.iterdir()) == []


def test_artifact_without_a_single_image_to_verify_on_is_refused(
    tmp_path: Path, network: AdaptiveResNet, images: Float32Array
) -> None:
    with pytest.raises((ParityError, ValueError)):
        write_artifact(checkpoint_of(network), SOURCE_DIGEST, tmp_path / "out", images[:0])
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_are_refused(tmp_path: Path, images: Float32Array) -> None:
    checkpoint = checkpoint_of(small_network())
    checkpoint.weights.pop("classifier.bias")
    with pytest.raises(CheckpointError, match="do not fit"):
        write_artifact(checkpoint, SOURCE_DIGEST, tmp_path / "out", images)
    assert list(tmp_path.iterdir()) == []
