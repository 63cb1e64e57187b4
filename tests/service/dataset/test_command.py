"""Whole datasets through the engine, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from artifact.manifest import MANIFEST_NAME, file_digest, read_manifest
from service.__main__ import main
from tests.image_files import hollow_png
from tests.service.conftest import Outcome
from tests.service.dataset.datasets import rows, write_files, write_parquet, write_tar

pytestmark = pytest.mark.slow

Run = Callable[..., int]


@pytest.fixture
def run(artifact: Path, tmp_path: Path) -> Run:
    """Classifies inputs into `tmp_path / "out"`, with two threads as workers; returns the exit status."""

    def classify(*arguments: object, out: str = "out") -> int:
        *inputs, flags = arguments if isinstance(arguments[-1], list) else (*arguments, [])
        how = ["--isolation", "thread", "--runtime", "onnx", "--workers", "2", "--max-batch", "4"]
        paths = [*map(str, inputs), str(tmp_path / out)]
        return main(["classify-dataset", *paths, "--model", str(artifact), *how, *flags])

    return classify


def named(pictures: Sequence[bytes], count: int) -> list[tuple[str, bytes]]:
    return [(f"{number:04d}.png", pictures[number % len(pictures)]) for number in range(count)]


def as_folder(where: Path, files: list[tuple[str, bytes]]) -> Path:
    return write_files(where / "images", dict(files))


def as_list(where: Path, files: list[tuple[str, bytes]]) -> Path:
    write_files(where / "listed", dict(files))
    (where / "list.txt").write_text("".join(f"listed/{name}\n" for name, _ in files))
    return where / "list.txt"


def as_shards(where: Path, files: list[tuple[str, bytes]]) -> Path:
    (where / "shards").mkdir()
    for number, start in enumerate(range(0, len(files), 37)):
        write_tar(where / "shards" / f"{number}.tar", files[start : start + 37])
    return where / "shards"


def as_parquet(where: Path, files: list[tuple[str, bytes]]) -> Path:
    images = [{"bytes": data, "path": name} for name, data in files]
    return write_parquet(where / "a.parquet", {"image": images}, 16)


@pytest.mark.parametrize("make", [as_folder, as_list, as_shards, as_parquet])
def test_every_image_of_a_dataset_has_the_answer_of_the_model(
    make: Callable[[Path, list[tuple[str, bytes]]], Path],
    run: Run,
    tmp_path: Path,
    artifact: Path,
    pictures: list[bytes],
    outcome: Outcome,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = named(pictures, 100)
    assert run(make(tmp_path, files), ["--rows-per-part", "16", "--top-k", "2"]) == 0
    told, manifest = rows(tmp_path / "out"), read_manifest(artifact)
    assert [row["name"].rpartition("/")[2] for row in told] == [name for name, _ in files]
    for row, (_, data) in zip(told, files, strict=True):
        logits, margins, executed = outcome(data)
        best = np.argsort(-logits)[:2]
        assert row["top_labels"] == [manifest.labels[index] for index in best]
        assert row["label"] == row["top_labels"][0]
        assert row["probability"] == pytest.approx(float(np.exp(logits).max() / np.exp(logits).sum()), abs=1e-5)
        assert row["path"] == "".join("01"[int(ran)] for ran in executed)
        assert row["macs"] == manifest.spent_macs(executed[None])[0]
        assert row["margins"] == pytest.approx(margins, abs=1e-4)
        assert row["error"] is None
    share = np.mean([row["macs"] for row in told]) / manifest.total_macs
    printed = capsys.readouterr().err
    assert "100 images, 0 with errors" in printed
    assert f"multiply-accumulates: {share:.1%}" in printed


def test_parts_tell_the_model_and_the_budget(run: Run, tmp_path: Path, artifact: Path, pictures: list[bytes]) -> None:
    shards = as_shards(tmp_path, named(pictures, 3))
    assert run(shards, ["--gate-offset", "-0.5"]) == 0
    metadata = pq.read_schema(next((tmp_path / "out").glob("part-*"))).metadata
    manifest = read_manifest(artifact)
    told = {
        "model_name": manifest.name,
        "model_version": manifest.version,
        "manifest_sha256": file_digest(artifact / MANIFEST_NAME),
        "gate_offset": "-0.5",
        "blocks": " ".join(block.name for block in manifest.blocks),
    }
    assert {name: metadata[name.encode()].decode() for name in told} == told
    assert json.loads((tmp_path / "out" / "_run.json").read_text())["gate_offset"] == "-0.5"


def test_gate_offset_decides_what_runs(run: Run, tmp_path: Path, artifact: Path, pictures: list[bytes]) -> None:
    shards, manifest = as_shards(tmp_path, named(pictures, 20)), read_manifest(artifact)
    assert run(shards, ["--gate-offset", "1e4"], out="all") == run(shards, ["--gate-offset=-1e4"], out="few") == 0
    few = "".join("01"[not block.gated] for block in manifest.blocks)
    assert {row["path"] for row in rows(tmp_path / "all")} == {"1" * len(manifest.blocks)}
    assert {row["path"] for row in rows(tmp_path / "few")} == {few}


def test_budget_that_the_model_has_not_is_refused(
    run: Run, tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(as_shards(tmp_path, named(pictures, 1)), ["--budget", "0.0001"]) == 1
    assert capsys.readouterr().err.startswith("error: --budget: this model ")
    assert not (tmp_path / "out").exists()


def test_bad_images_are_rows_with_an_error_and_spoil_nothing(
    run: Run, tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "0002.png": (b"", "empty_image"),
        "0005.png": (b"no image", "not_an_image"),
        "0007.png": (pictures[0][:60], "corrupt_image"),
        "0011.png": (hollow_png(20_000, 20_000), "too_many_pixels"),
        "0012.png": (bytes(9000), "image_too_large"),
    }
    files = [(name, bad.get(name, (data,))[0]) for name, data in named(pictures, 20)]
    shards = as_shards(tmp_path, files)
    (shards / "9.tar").write_bytes(b"no shard")
    assert run(shards, ["--max-bytes", "8000", "--rows-per-part", "6"]) == 0
    told = {row["name"]: row for row in rows(tmp_path / "out")}
    errors = {name: row["error"]["type"] for name, row in told.items() if row["error"]}
    assert errors == {name: type_ for name, (_, type_) in bad.items()} | {"9.tar": "corrupt_shard"}
    assert len(told) == 21
    assert "21 images, 6 with errors (" in capsys.readouterr().err
    assert "8000 bytes" in told["0012.png"]["error"]["message"]


def test_names_that_occur_twice_are_told_apart_by_their_source_and_row(
    run: Run, tmp_path: Path, pictures: list[bytes]
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / "in" / name, [("same.png", pictures[0]), ("same.png", pictures[1])])
    assert run(tmp_path / "in") == 0
    told = rows(tmp_path / "out")
    assert [(row["source"], row["row"]) for row in told] == [
        (name, row) for name in ("a.tar", "b.tar") for row in (0, 1)
    ]
    assert {row["name"] for row in told} == {"same.png"}


def test_rows_as_they_were_done_are_the_same_rows(run: Run, tmp_path: Path, pictures: list[bytes]) -> None:
    shards = as_shards(tmp_path, named(pictures, 100))
    assert run(shards, out="input") == run(shards, ["--order", "completion"], out="completion") == 0
    by_name = [sorted(rows(tmp_path / order), key=lambda row: row["name"]) for order in ("input", "completion")]
    for one, other in zip(*by_name, strict=True):
        assert (one["name"], one["label"], one["path"]) == (other["name"], other["label"], other["path"])


def test_empty_input_gives_answers_without_rows(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 0
    assert "label" in ds.dataset(tmp_path / "out").schema.names
    assert rows(tmp_path / "out") == []
    assert "0 images, 0 with errors" in capsys.readouterr().err


def test_finished_dataset_is_not_classified_again(
    run: Run, tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    shards = as_shards(tmp_path, named(pictures, 50))
    assert run(shards) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert run(shards) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")} == before
    assert "has 50 images already" in capsys.readouterr().err


def test_other_options_model_or_input_do_not_mix_with_what_there_is(
    run: Run, tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    shards = as_shards(tmp_path, named(pictures, 5))
    assert run(shards) == 0
    cases = {
        "another top k: 5, now 1": ["--top-k", "1"],
        "another gate offset: 0, now 1": ["--gate-offset", "1"],
        "another order: input, now completion": ["--order", "completion"],
        "another rows per part: 4096, now 7": ["--rows-per-part", "7"],
        "another max bytes: 20000000, now 5": ["--max-bytes", "5"],
        "another model name: ": ["--model", "model_repository/convnet-aig-38-cifar10/1"],
    }
    for told, flags in cases.items():
        assert run(shards, flags) == 1
        assert told in capsys.readouterr().err
    write_tar(shards / "more.tar", named(pictures, 1))
    assert run(shards) == 1
    assert "begun with another input: " in capsys.readouterr().err
    assert len(rows(tmp_path / "out")) == 5


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--budget", "0"], "'0' is not above 0 and at most 1"),
        (["--budget", "nan"], "'nan' is not a number"),
        (["--gate-offset", "inf"], "'inf' is not a number"),
        (["--budget", "0.5", "--gate-offset", "1"], "not allowed with argument"),
        (["--rows-per-part", "0"], "is not a whole number above 0"),
        (["--rows-per-part", "1000000000"], "is more than 1,000,000"),
        (["--order", "random"], "invalid choice"),
        (["--port", "80"], "unrecognized arguments"),
    ],
)
def test_options_that_cannot_be_are_refused(
    flags: list[str], told: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("in", flags)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "flags", "extras"),
    [("pyarrow", [], "offline"), ("ray", ["--ray", "auto"], "offline,ray"), ("tqdm", ["--ray", "auto"], "offline,ray")],
)
def test_package_that_is_missing_is_named(
    package: str,
    flags: list[str],
    extras: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("service.__main__.find_spec", lambda name: None if name == package else name)
    assert run("in", flags) == 1
    assert capsys.readouterr().err == f"error: classify-dataset needs {package}: pip install '.[{extras}]'\n"
