"""The report from the command line, end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifact.manifest import file_digest
from export.artifact_writer import write_artifact
from models.checkpoint import load, save
from models.evaluate import main
from tests.conftest import MakeFolders
from tests.hold_out import told_held_out
from tests.models.report.test_page import Elements, external_references
from tests.networks import checkpoint_of, inputs, small_network

pytestmark = pytest.mark.slow

SECTIONS = ["accuracy", "blocks", "classes", "depth", "stability", "robustness", "nearness"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of a gated and an ungated network, and the artifact of the gated one."""
    root = tmp_path_factory.mktemp("networks")
    gated, plain = small_network(), small_network(target_rates=(1.0,) * 5, name="plain")
    save(root / "gated.safetensors", checkpoint_of(gated))
    save(root / "plain.safetensors", checkpoint_of(plain))
    digest = file_digest(root / "gated.safetensors")
    write_artifact(checkpoint_of(gated), digest, root / "artifact", inputs(gated, 12))
    return root


@pytest.fixture
def data(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "data", small_network().config.labels, each=25, side=16)


def _report(capsys: pytest.CaptureFixture[str], out: Path, *arguments: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last line of stdout and report.json."""
    assert main([*map(str, arguments), "--report", str(out)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    return json.loads(last), json.loads((out / "report.json").read_text())


def test_artifact_with_everything_gives_every_section(
    networks: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (
        networks / "gated.safetensors",
        "--artifact",
        networks / "artifact",
        "--ungated",
        networks / "plain.safetensors",
    )
    groups = tmp_path / "groups.json"
    groups.write_text('{"insects": ["ant", "bee"], "others": ["cat", "dog", "elk", "fox"]}')
    out = tmp_path / "new" / "report"
    last, figures = _report(capsys, out, *both, "--data", data, "--all", "--groups", groups, "--sample", 30)
    assert last["report"] == str(out / "index.html")
    assert last["artifact"] == "small/1"
    assert last["accuracy"] == figures["accuracy"]["accuracy"]["value"]
    assert last["images"] == figures["accuracy"]["images"] == 150
    assert figures["robustness"]["images"] == figures["stability"]["images"] == 30
    assert len(figures["robustness"]["gated_minus_ungated"]) == 5
    assert set(figures["classes"]["groups"]) == {"insects", "others"}
    assert [figures[key]["missing"] for key in SECTIONS] == [[]] * 7
    rates = {name: block["execution_rate"] for name, block in figures["blocks"]["blocks"].items()}
    assert rates == last["execution_rates"]
    page = (out / "index.html").read_text()
    assert external_references(page) == []
    assert Elements(page).open == []
    for key in SECTIONS:
        assert figures[key]["question"] in page
    assert str(tmp_path) not in page + (out / "report.json").read_text()
    assert not (networks / "evaluation").exists()


def test_artifact_alone_says_what_a_checkpoint_would_add(
    networks: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, figures = _report(
        capsys, tmp_path / "out", "--artifact", networks / "artifact", "--data", data, "--held-out", 60
    )
    assert len(figures["accuracy"]["missing"]) == 2
    assert "give the checkpoint" in figures["robustness"]["missing"][0]
    assert "Not computed." in (tmp_path / "out" / "index.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "report.json"]


def test_checkpoint_and_artifact_give_the_same_figures(
    networks: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = ("--artifact", networks / "artifact", "--data", data, "--all")
    _, first = _report(capsys, tmp_path / "first", *exported)
    _, second = _report(capsys, tmp_path / "second", networks / "gated.safetensors", "--data", data, "--all")
    for key in ("classes", "blocks"):
        assert first[key] == second[key]
    for name in ("accuracy", "mac_share"):
        assert first["accuracy"][name] == pytest.approx(second["accuracy"][name])


def test_network_without_gates_can_be_reported_on(
    networks: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, figures = _report(capsys, tmp_path / "out", networks / "plain.safetensors", "--data", data, "--held-out", 30)
    assert "None of the 5 blocks has a gate" in figures["blocks"]["findings"][0]
    assert figures["accuracy"]["budgets"] == []


def test_neither_checkpoint_nor_artifact_is_a_usage_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(data)])
    assert "name a CHECKPOINT, an --artifact, or both" in capsys.readouterr().err


def test_preset_of_an_artifact_is_a_usage_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--artifact", "exported", "--data", str(data), "--preset", "convnet-aig-20-cifar10"])
    assert "--preset is for a CHECKPOINT that others saved" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--ungated", "--groups"])
def test_options_of_the_report_need_the_report(data: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["net.safetensors", "--data", str(data), option, "x"])
    assert "are for a --report" in capsys.readouterr().err


def test_checkpoint_of_another_network_is_refused(
    networks: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [networks / "plain.safetensors", "--artifact", networks / "artifact", "--data", data, "--all"]
    assert main(list(map(str, arguments))) == 1
    assert "small was not exported from plain.safetensors" in capsys.readouterr().err


def test_network_with_gates_is_not_taken_for_one_without(
    networks: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--artifact", networks / "artifact", "--data", data, "--all", "--report", tmp_path / "out"]
    assert main([*map(str, arguments), "--ungated", str(networks / "gated.safetensors")]) == 1
    assert capsys.readouterr().err == "error: small has gates: --ungated takes a network without any\n"
    assert not (tmp_path / "out").exists()


def test_networks_are_compared_on_images_held_out_of_both_trainings(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rate, held_out in (("gated", 0.5, 60), ("plain", 1.0, 30)):
        checkpoint = checkpoint_of(small_network(target_rates=(rate,) * 5))
        save(tmp_path / f"{name}.safetensors", replace(checkpoint, training=told_held_out(data, held_out)))
    gated, plain = tmp_path / "gated.safetensors", tmp_path / "plain.safetensors"
    write_artifact(load(gated), file_digest(gated), tmp_path / "artifact", inputs(small_network(), 12))
    report = ["--data", str(data), "--report", str(tmp_path / "out"), "--ungated", str(plain)]
    for network in ([str(gated)], [str(gated), "--artifact", str(tmp_path / "artifact")]):
        assert main([*network, *report]) == 1
        message = "error: the training of plain.safetensors held out others than that of small: give --all\n"
        assert capsys.readouterr().err == message
    _, figures = _report(capsys, tmp_path / "out", "--artifact", tmp_path / "artifact", *report[:2])
    assert figures["accuracy"]["images"] == 60


def test_artifact_is_evaluated_with_as_many_images_as_its_checkpoint_tells(
    networks: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "told.safetensors"
    save(checkpoint, replace(load(networks / "gated.safetensors"), training=told_held_out(data, 60)))
    write_artifact(load(checkpoint), file_digest(checkpoint), tmp_path / "artifact", inputs(small_network(), 12))
    assert main([str(checkpoint), "--artifact", str(tmp_path / "artifact"), "--data", str(data)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 60


def test_artifact_is_evaluated_without_a_report(networks: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--artifact", str(networks / "artifact"), "--data", str(data), "--all"]) == 0
    output = capsys.readouterr().out
    last = json.loads(output.splitlines()[-1])
    assert last["images"] == 150
    assert last["images_per_second"] > 0
    assert "pictures" not in output
    assert "checkpoint" not in last
