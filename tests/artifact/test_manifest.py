from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from pydantic import ValidationError

from artifact.manifest import (
    MANIFEST_NAME,
    ONNX_NAME,
    ArtifactError,
    Block,
    ExecutionProfile,
    Manifest,
    Verification,
    file_digest,
    read_manifest,
    verified_file,
    write_manifest,
)
from artifact.preprocessing import Preprocessing

MakeManifest = Callable[..., Manifest]

BLOCKS = (
    Block(name="stage1_block1", stage=1, gated=True, macs=100, shortcut_macs=0, gate_macs=3),
    Block(name="stage1_block2", stage=1, gated=False, macs=200, shortcut_macs=0, gate_macs=0),
    Block(name="stage2_block1", stage=2, gated=True, macs=400, shortcut_macs=50, gate_macs=4),
)


@pytest.fixture
def make_manifest() -> MakeManifest:
    """A manifest of a network with a gate on its first and its last block, with any field changed."""

    def make(**changes: object) -> Manifest:
        fields: dict[str, object] = {
            "name": "small",
            "version": "1",
            "labels": ("cat", "dog"),
            "preprocessing": Preprocessing(resize=36, crop=32, mean=(0.5,) * 3, std=(0.25,) * 3),
            "input_size": 32,
            "blocks": BLOCKS,
            "stem_macs": 1000,
            "classifier_macs": 10,
            "total_macs": 1767,
            "ungated_macs": 1760,
            "files": {ONNX_NAME: "0" * 64},
            "source_digest": "1" * 64,
            "verification": Verification(
                images=16,
                margin_tolerance=1e-4,
                logit_tolerance=1e-3,
                gates_compared=32,
                gates_within_tolerance=0,
                largest_margin_difference=1e-6,
                largest_logit_difference=1e-6,
            ),
        }
        return Manifest.model_validate(fields | changes)

    return make


@pytest.fixture
def manifest(make_manifest: MakeManifest) -> Manifest:
    return make_manifest()


def test_manifest_comes_back_as_it_was_written(tmp_path: Path, make_manifest: MakeManifest) -> None:
    manifest = make_manifest(gate_threshold=0.1, labels=("Käfer", "日本"))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_profile_comes_back_as_it_was_written(tmp_path: Path, make_manifest: MakeManifest) -> None:
    manifest = make_manifest(profile=ExecutionProfile(images=300, rates=(0.1, 1.0, 2 / 3)))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path).profile == ExecutionProfile(images=300, rates=(0.1, 1.0, 2 / 3))


def test_manifest_from_before_there_were_profiles_reads(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(tmp_path, manifest)
    assert "profile" not in (tmp_path / MANIFEST_NAME).read_text()
    assert read_manifest(tmp_path).profile is None
    assert read_manifest(tmp_path).expected_macs is None


def test_profile_tells_the_macs_to_expect(make_manifest: MakeManifest) -> None:
    manifest = make_manifest(profile=ExecutionProfile(images=300, rates=(0.25, 1.0, 0.5)))
    assert manifest.expected_macs == 1767 - 75 - 200


@pytest.mark.parametrize(
    ("rates", "complaint"),
    [
        ((0.5, 1.0), "another number of blocks"),
        ((0.5, 1.0, 0.5, 0.5), "another number of blocks"),
        ((0.5, 0.9, 0.5), "always runs"),
        ((0.5, 1.0, 1.5), "less than or equal to 1"),
        ((-0.1, 1.0, 0.5), "greater than or equal to 0"),
        ((float("nan"), 1.0, 0.5), "finite number"),
    ],
)
def test_profile_of_another_network_is_refused(
    make_manifest: MakeManifest, rates: tuple[float, ...], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        make_manifest(profile={"images": 300, "rates": rates})


def test_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtifactError, match="no artifact in"):
            read_manifest(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe", b"[1]"])
def test_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match="not a valid manifest"):
        read_manifest(tmp_path)


def test_manifest_of_a_later_format_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    content = manifest.model_dump_json().replace('"format":1', '"format":2')
    assert '"format":2' in content
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(ArtifactError, match="format"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"total_macs": 1768},
        {"ungated_macs": 1761},
        {"stem_macs": 999},
        {"blocks": BLOCKS[:2]},
        {"blocks": (*BLOCKS[:2], BLOCKS[2].model_copy(update={"macs": 401}))},
    ],
)
def test_macs_that_do_not_add_up_are_refused(make_manifest: MakeManifest, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="do not add up"):
        make_manifest(**wrong)


def test_two_blocks_of_the_same_name_are_refused(make_manifest: MakeManifest) -> None:
    twin = BLOCKS[2].model_copy(update={"name": "stage1_block1"})
    with pytest.raises(ValidationError, match="same name"):
        make_manifest(blocks=(*BLOCKS[:2], twin))


def _cascade(**changes: object) -> dict[str, object]:
    """What makes a cascade of the blocks: the second stands for the beginning of a network."""
    network = BLOCKS[1].model_copy(update={"kind": "network", "gated": True})
    last = BLOCKS[2].model_copy(update={"within": network.name})
    members = [{"folder": "network1"}, {"folder": "network2", "sure_above": 1.5}]
    return {"blocks": (BLOCKS[0], network, last), "members": members} | changes


def test_cascade_comes_back_as_it_was_written(tmp_path: Path, make_manifest: MakeManifest) -> None:
    manifest = make_manifest(**_cascade(), profile={"images": 300, "rates": (1.0, 0.2, 0.1)})
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert manifest.networks_of_gates == [-1, -1, 1]
    assert manifest.expected_macs == pytest.approx(1767 - 0.8 * (200 + 50 + 4) - 0.9 * 400)


def test_networks_that_do_not_fit_the_blocks_are_refused(make_manifest: MakeManifest) -> None:
    first, network, last = cast(tuple[Block, ...], _cascade()["blocks"])
    members = cast(list[object], _cascade()["members"])
    outside = last.model_copy(update={"within": None})
    with pytest.raises(
        ValidationError, match="stage2_block1 is within None, but follows the beginning of stage1_block2"
    ):
        make_manifest(**_cascade(blocks=(first, network, outside)))
    with pytest.raises(ValidationError, match="no gate decides about it"):
        make_manifest(**_cascade(blocks=(first, network.model_copy(update={"gated": False}), last)))
    for unsure in ([members[0], {"folder": "network2"}], [{"folder": "network1", "sure_above": 1.0}, members[1]]):
        with pytest.raises(ValidationError, match="sure_above is of each network but the first"):
            make_manifest(**_cascade(members=unsure))
    with pytest.raises(ValidationError, match="networks begin among the blocks"):
        make_manifest(members=members[:1])
    for wrong in ([], members[:1], members * 2):
        with pytest.raises(ValidationError, match="networks begin among the blocks"):
            make_manifest(**_cascade(members=wrong))
    with pytest.raises(ValidationError, match="match pattern"):
        make_manifest(**_cascade(members=[members[0], {"folder": "../network2", "sure_above": 1.0}]))


def test_input_size_must_be_that_of_the_preprocessing(make_manifest: MakeManifest) -> None:
    with pytest.raises(ValidationError, match="input_size"):
        make_manifest(input_size=64)


@pytest.mark.parametrize("wrong", [{"name": "../escape"}, {"version": "a/b"}, {"name": ""}, {"labels": ("cat",)}])
def test_names_that_cannot_be_a_path_are_refused(make_manifest: MakeManifest, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make_manifest(**wrong)


def test_file_is_found_when_its_digest_is_right(tmp_path: Path, make_manifest: MakeManifest) -> None:
    (tmp_path / ONNX_NAME).write_bytes(b"graph")
    manifest = make_manifest(files={ONNX_NAME: file_digest(tmp_path / ONNX_NAME)})
    assert verified_file(tmp_path, manifest, ONNX_NAME) == tmp_path / ONNX_NAME


def test_digest_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_file_with_another_content_is_refused(tmp_path: Path, make_manifest: MakeManifest) -> None:
    (tmp_path / ONNX_NAME).write_bytes(b"graph")
    manifest = make_manifest(files={ONNX_NAME: file_digest(tmp_path / ONNX_NAME)})
    (tmp_path / ONNX_NAME).write_bytes(b"grape")
    with pytest.raises(ArtifactError, match="damaged"):
        verified_file(tmp_path, manifest, ONNX_NAME)


def test_missing_and_unlisted_files_are_refused(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        verified_file(tmp_path, manifest, ONNX_NAME)
    (tmp_path / "model.ts").touch()
    with pytest.raises(ArtifactError, match=r"has no model\.ts"):
        verified_file(tmp_path, manifest, "model.ts")


def test_blocks_without_a_gate_are_always_executed(manifest: Manifest) -> None:
    assert manifest.gated_indices == [0, 2]
    margins = np.array([[1, -1], [-1, 1], [-1, -1]], np.float32)
    executed = manifest.executed(margins, np.zeros(3, np.float32))
    assert executed.tolist() == [[True, True, False], [False, True, True], [False, True, False]]


def test_offset_of_each_image_is_added_to_its_margins(manifest: Manifest) -> None:
    margins = np.array([[0.5, -0.5]] * 3, np.float32)
    executed = manifest.executed(margins, np.array([0, 1, -1], np.float32))
    assert executed[:, [0, 2]].tolist() == [[True, False], [True, True], [False, False]]


def test_margin_at_the_threshold_is_closed(make_manifest: MakeManifest) -> None:
    # 0.1 is no float32: compared in float64 the nearest float32 would lie above it and open the gate.
    manifest = make_manifest(gate_threshold=0.1)
    at, above = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    assert float(at) > 0.1
    executed = manifest.executed(np.array([[at, above]], np.float32), np.zeros(1, np.float32))
    assert executed.tolist() == [[False, True, True]]


def test_decision_is_taken_on_the_float32_sum(make_manifest: MakeManifest) -> None:
    # With more digits the sum would lie above the threshold.
    manifest = make_manifest(gate_threshold=1.0)
    executed = manifest.executed(np.ones((1, 2), np.float32), np.array([1e-9], np.float32))
    assert executed.tolist() == [[False, True, False]]


def test_spent_macs_are_those_of_what_was_executed(manifest: Manifest) -> None:
    executed = np.array([[True, True, True], [False, True, True], [False, True, False]])
    assert manifest.spent_macs(executed).tolist() == [1767, 1667, 1267]


def test_batch_of_no_images_is_nothing(manifest: Manifest) -> None:
    executed = manifest.executed(np.empty((0, 2), np.float32), np.empty(0, np.float32))
    assert executed.shape == (0, 3)
    assert manifest.spent_macs(executed).shape == (0,)


def test_error_tells_what_was_probably_meant(artifact: Path, tmp_path: Path) -> None:
    version = shutil.copytree(artifact, tmp_path / "repository" / "net" / "1")
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint.safetensors").touch()
    for path, remedy in (
        (version.parent, f"there is one below it; name {version}"),
        (version.parent.parent, f"there is one below it; name {version}"),
        (version / "model.onnx", f"it is a file of one; name the folder {version}"),
        (run, "it is a checkpoint; export it first"),
        (run / "checkpoint.safetensors", "it is a checkpoint; export it first"),
        (tmp_path / "nowhere", "there is no such folder"),
        (tmp_path, "No such file or directory"),
    ):
        with pytest.raises(ArtifactError, match=re.escape(f"no artifact in {path}: {remedy}")):
            read_manifest(path)
    other = shutil.copytree(version, version.with_name("2"))
    with pytest.raises(ArtifactError, match=re.escape(f"there is 2 of them below it; name {version} or {other}")):
        read_manifest(version.parent)


def test_equal_manifests_stay_equal_when_they_were_used(make_manifest: MakeManifest) -> None:
    one, other = make_manifest(), make_manifest()
    for each in (one, other):
        each.executed(np.zeros((1, 2), np.float32), np.zeros(1, np.float32))
    assert one == other
    assert one != make_manifest(gate_threshold=0.5)


def test_manifest_of_the_first_release_still_opens() -> None:
    text = (Path(__file__).parent / "manifest_of_the_first_release.json").read_text(encoding="utf-8")
    manifest = Manifest.model_validate_json(text)
    assert (manifest.format, manifest.name, len(manifest.blocks)) == (1, "convnet-aig-38-cifar10", 18)
    assert (manifest.int8, manifest.budgets, manifest.members) == (None, None, ())


def test_manifest_of_another_format_is_refused_by_name(make_manifest: MakeManifest) -> None:
    with pytest.raises(ValidationError, match="format"):
        make_manifest(format=2)
