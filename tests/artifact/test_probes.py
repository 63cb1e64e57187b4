from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ALWAYS, NEVER, PROBES_NAME, ArtifactError, Manifest, file_digest
from artifact.preprocessing import Float32Array
from artifact.probes import Probes, forced_agreement, probe_count, read_probes, run_forced, write_probes
from tests.gatings import gating_of_gates
from tests.runtimes import echo_manifest

# Of the echo manifest's model: images of 2 x 2 pixels, three classes, two gates.
Arrays = dict[str, np.ndarray]
OLD = {"images": (5, 3, 2, 2), "logits": (5, 3), "margins": (5, 2)}
_GATING = gating_of_gates(2)
SHAPES = OLD | {"forced_logits": (3, 4, 3), "forced_margins": (3, 4, 2)}


def _arrays(shapes: dict[str, tuple[int, ...]] = SHAPES) -> Arrays:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _manifest_of(folder: Path) -> Manifest:
    """The echo model's manifest, listing the probes that lie in the folder."""
    return echo_manifest().model_copy(update={"files": {PROBES_NAME: file_digest(folder / PROBES_NAME)}})


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def probes() -> Probes:
    arrays = _arrays()
    return Probes(*(arrays[name] for name in OLD), (arrays["forced_logits"], arrays["forced_margins"]))


def test_probes_come_back_as_they_were_written(tmp_path: Path, probes: Probes) -> None:
    write_probes(tmp_path, probes)
    read = read_probes(tmp_path, _manifest_of(tmp_path))
    assert len(read) == 5
    for name in ("images", "logits", "margins"):
        np.testing.assert_array_equal(getattr(read, name), getattr(probes, name))
        assert getattr(read, name).dtype == np.float32
    assert read.forced is not None
    assert probes.forced is not None
    for one, other in zip(read.forced, probes.forced, strict=True):
        np.testing.assert_array_equal(one, other)


def test_probes_of_an_earlier_export_have_no_answers_with_forced_gates(tmp_path: Path) -> None:
    earlier = Probes(**_arrays(OLD))
    write_probes(tmp_path, earlier)
    assert earlier.forced is None
    assert read_probes(tmp_path, _manifest_of(tmp_path)).forced is None


def test_missing_and_unlisted_probes_are_refused(tmp_path: Path, probes: Probes) -> None:
    write_probes(tmp_path, probes)
    manifest = _manifest_of(tmp_path)
    with pytest.raises(ArtifactError, match=r"has no probes\.npz"):
        read_probes(tmp_path, echo_manifest())
    (tmp_path / PROBES_NAME).unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        read_probes(tmp_path, manifest)


def test_changed_probes_are_refused(tmp_path: Path, probes: Probes) -> None:
    write_probes(tmp_path, probes)
    manifest = _manifest_of(tmp_path)
    data = bytearray((tmp_path / PROBES_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / PROBES_NAME).write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        read_probes(tmp_path, manifest)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no probes", id="text"),
        pytest.param(_npz(**_arrays())[:-100], id="cut off"),
        pytest.param(_npz(**_arrays())[:40] + b"\0" * 40 + _npz(**_arrays())[80:], id="broken inside"),
        pytest.param(_npy(_arrays()["images"]), id="a single array"),
        pytest.param(_npz(images=_arrays()["images"], logits=_arrays()["logits"]), id="without margins"),
        pytest.param(_npz(**_arrays() | {"margins": np.array([None] * 5)}), id="pickled"),
        pytest.param(_npz(**_arrays(OLD), forced_logits=_arrays()["forced_logits"]), id="half of the forced answers"),
    ],
)
def test_file_that_holds_no_probes_is_refused_though_its_digest_is_right(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PROBES_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match="holds no probes"):
        read_probes(tmp_path, _manifest_of(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: {"images": np.zeros((5, 3, 4, 4), np.float32)}, id="of another size"),
        pytest.param(lambda arrays: {"logits": arrays["logits"][:, :2]}, id="with fewer classes"),
        pytest.param(lambda arrays: {"margins": arrays["margins"][:, :1]}, id="with fewer gates"),
        pytest.param(lambda arrays: {"logits": arrays["logits"][:4]}, id="with an answer too few"),
        pytest.param(
            lambda arrays: {name: array[:0] for name, array in arrays.items() if name in OLD}, id="none at all"
        ),
        pytest.param(lambda arrays: {"images": arrays["images"].astype(np.float64)}, id="in float64"),
        pytest.param(lambda arrays: {"margins": arrays["margins"].astype(np.float16)}, id="in float16"),
        pytest.param(lambda arrays: {"forced_logits": arrays["forced_logits"][:2]}, id="with a forced batch too few"),
        pytest.param(lambda arrays: {"forced_margins": arrays["forced_margins"][..., :1]}, id="forced, fewer gates"),
        pytest.param(lambda _: {"images": np.float32(0)}, id="a number for images"),
        pytest.param(lambda arrays: dict.fromkeys(arrays, np.float32(0)), id="numbers alone"),
    ],
)
def test_probes_of_another_model_are_refused(tmp_path: Path, change: Callable[[Arrays], Arrays]) -> None:
    (tmp_path / PROBES_NAME).write_bytes(_npz(**_arrays() | change(_arrays())))
    with pytest.raises(ArtifactError, match="of another model"):
        read_probes(tmp_path, _manifest_of(tmp_path))


@pytest.mark.parametrize(
    ("images", "side", "kept"), [(1, 32, 1), (12, 32, 12), (1000, 32, 64), (64, 224, 6), (2, 2000, 1)]
)
def test_as_many_probes_are_kept_as_stay_small_but_one_at_least(images: int, side: int, kept: int) -> None:
    shape = (images, 3, side, side)
    assert probe_count(np.broadcast_to(np.float32(0), shape)) == kept


def test_answers_that_were_kept_agree_and_others_do_not(probes: Probes) -> None:
    agreement = probes.agreement((probes.logits, probes.margins), _GATING)
    assert (agreement.problems, agreement.images, agreement.equal_gates) == ([], 5, 1)
    assert probes.agreement((probes.logits + np.float32(0.1), probes.margins), _GATING).problems
    assert probes.agreement((probes.logits, -probes.margins), _GATING).equal_gates < 1


def _echo(images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
    """A network of one gate whose logits are the image's first value, and whether that gate is forced."""
    values = images[:, 0, 0, 0]
    return np.stack([values, np.sign(offsets)], axis=1), values[:, None]


@pytest.mark.parametrize(("count", "values"), [(6, [0, 1, 2, 3]), (4, [0, 1, 2, 3]), (3, [0, 1, 2, 0]), (1, [0] * 4)])
def test_first_images_are_run_with_gates_open_closed_and_by_turns(count: int, values: list[float]) -> None:
    images = np.zeros((count, 3, 2, 2), np.float32) + np.arange(count, dtype=np.float32)[:, None, None, None]
    offsets_seen: list[list[float]] = []

    def run(images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        offsets_seen.append(offsets.tolist())
        return _echo(images, offsets)

    logits, margins = run_forced(run, images)
    assert offsets_seen == [[ALWAYS] * 4, [NEVER] * 4, [ALWAYS, NEVER] * 2]
    assert logits[..., 0].tolist() == margins[..., 0].tolist() == [values] * 3
    assert logits[..., 1].tolist() == [[1] * 4, [-1] * 4, [1, -1] * 2]


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_difference_in_any_batch_with_forced_gates_is_found(probes: Probes, batch: int) -> None:
    assert probes.forced is not None
    logits, margins = probes.forced
    assert forced_agreement(probes.forced, probes.forced, _GATING).problems == []
    assert forced_agreement(probes.forced, probes.forced, _GATING).images == 12
    wrong = logits.copy()
    wrong[batch, 3] += 0.1
    assert len(forced_agreement(probes.forced, (wrong, margins), _GATING).problems) == 1


def test_gates_of_probes_are_compared_at_the_models_threshold(probes: Probes) -> None:
    raised = Probes(probes.images, probes.logits, np.full_like(probes.margins, 2.0))
    answers = raised.logits, np.full_like(probes.margins, 1.0)
    assert raised.agreement(answers, _GATING).different_gates == 0
    assert raised.agreement(answers, replace(_GATING, gate_threshold=1.5)).different_gates == 5
