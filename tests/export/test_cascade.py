from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from artifact.manifest import INT8_NAME, MANIFEST_NAME, ONNX_NAME, read_manifest, verified_file
from export.artifact_writer import write_artifact
from export.parity import ParityError, check_control_flow, verify
from tests.cascades import cascade, cascade_checkpoint, exported_cascade, exported_int8_cascade
from tests.export import tampering
from tests.networks import SOURCE_DIGEST, inputs


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.mark.parametrize("networks", [2, 3])
def test_files_decide_and_answer_as_the_cascade(root: Path, networks: int) -> None:
    folder, manifest = exported_cascade(root, networks)
    assert manifest.verification.gates_compared > 400
    assert manifest.verification.largest_logit_difference < 1e-4
    # Again with other images: which go through the export's own comparison of every scenario.
    network = cascade(networks)
    assert verify(network, folder, inputs(network.networks[0], 16, seed=9)).images == 16


def test_each_network_is_an_artifact_of_its_own(root: Path) -> None:
    folder, manifest = exported_cascade(root, 3)
    assert [member.folder for member in manifest.members] == ["network1", "network2", "network3"]
    assert [member.sure_above for member in manifest.members] == [None, 1.5, 0.7]
    for member, config in zip(manifest.members, cascade().config.networks, strict=True):
        own = read_manifest(verified_file(folder, manifest, f"{member.folder}/{MANIFEST_NAME}").parent)
        assert (own.name, own.version, own.members) == (config.name, manifest.version, ())
        assert verified_file(folder / member.folder, own, ONNX_NAME)


def test_profile_tells_how_often_each_network_is_asked(root: Path) -> None:
    _, manifest = exported_cascade(root, 3)
    assert manifest.profile is not None
    rates = dict(zip((block.name for block in manifest.blocks), manifest.profile.rates, strict=True))
    assert 0 < rates["network3"] < rates["network2"] < 1
    assert rates["stage4_block1"] == rates["network2"]  # it has no gate of its own
    assert rates["stage4_block2"] < rates["network2"]
    assert manifest.expected_macs is not None
    assert manifest.expected_macs < manifest.total_macs


def test_int8_graphs_are_those_of_the_networks(root: Path) -> None:
    folder, manifest = exported_int8_cascade(root)
    assert manifest.int8 is not None
    assert manifest.int8.calibration_images == 100
    assert INT8_NAME not in manifest.files
    assert all((folder / member.folder / INT8_NAME).is_file() for member in manifest.members)


def test_network_that_computes_what_it_should_skip_is_refused(root: Path, tmp_path: Path) -> None:
    folder, _ = exported_cascade(root, 2)
    for path in folder.glob("model.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = onnx.load(tmp_path / ONNX_NAME)
    branching = next(node for node in model.graph.node if node.name == "network2/all_logits")
    executed = tampering.branch(branching, "then_branch")
    skipped = tampering.branch(branching, "else_branch")
    skipped.node.append(next(node for node in executed.node if node.name.endswith("/stem/0")))
    skipped.node[-1].name = skipped.node[-1].output[0] = "wasted"
    skipped.node[-1].input[0] = "images"
    onnx.save(model, tmp_path / ONNX_NAME)
    network = cascade(2)
    # The answers are right, so only counting can tell.
    with pytest.raises(ParityError, match=r"spends \d+ MACs with all gates closed"):
        check_control_flow(network, tmp_path, inputs(network.networks[0], 1))


@pytest.mark.parametrize(
    ("weight", "complaint"), [("network2.sure_above", "decide differently"), ("log_2", "a logit differs")]
)
def test_other_rule_than_the_cascades_is_refused(root: Path, tmp_path: Path, weight: str, complaint: str) -> None:
    folder, _ = exported_cascade(root, 2)
    for path in folder.glob("model.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = onnx.load(tmp_path / ONNX_NAME)
    tampering.change_weight(model.graph, weight, lambda value: value + np.float32(0.5))
    onnx.save(model, tmp_path / ONNX_NAME)
    network = cascade(2)
    with pytest.raises(ParityError, match=complaint):
        verify(network, tmp_path, inputs(network.networks[0], 40))


def test_threshold_is_that_of_every_gate(tmp_path: Path) -> None:
    checkpoint = cascade_checkpoint(2)
    images = inputs(cascade(2).networks[0], 16)
    manifest = write_artifact(checkpoint, SOURCE_DIGEST, tmp_path / "out", images, gate_threshold=0.3)
    assert manifest.gate_threshold == 0.3
    assert read_manifest(tmp_path / "out" / "network2").gate_threshold == 0.3


def test_nothing_is_left_of_a_cascade_that_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ParityError("made to fail")

    monkeypatch.setattr("export.onnx_graph.add_cascade", fail)
    with pytest.raises(ParityError, match="made to fail"):
        write_artifact(cascade_checkpoint(2), SOURCE_DIGEST, tmp_path / "out", inputs(cascade(2).networks[0], 8))
    assert list(tmp_path.iterdir()) == []
