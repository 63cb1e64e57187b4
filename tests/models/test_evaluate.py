from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.bad_images import readable
from models.checkpoint import Checkpoint, load, save
from models.classifier import TrainedClassifier
from models.config import preset
from models.data import Dataset, load_pixels
from models.evaluate import main
from models.evaluation import Evaluation, evaluate
from models.hold_out import HeldOut, split
from models.resnet import AdaptiveResNet
from models.sources import open_examples
from tests.conftest import MakeFolders
from tests.hold_out import told_held_out
from tests.models.conftest import MakeNetwork, published_weights
from tests.networks import checkpoint_of, colour_fields, confident_network

pytestmark = pytest.mark.slow

LABELS = ("cat", "dog", "eel")


@pytest.fixture
def data(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "data", LABELS, each=10, side=16)


@pytest.fixture
def network(make_network: MakeNetwork) -> AdaptiveResNet:
    return make_network(labels=LABELS)


@pytest.fixture
def checkpoint(tmp_path: Path, network: AdaptiveResNet) -> Path:
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.parent.mkdir()
    save(path, Checkpoint(network.config, network.state_dict()))
    return path


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    """The last line of stdout as JSON, and all of stdout."""
    assert main(list(map(str, arguments))) == 0
    output = capsys.readouterr().out
    return json.loads(output.splitlines()[-1]), output


def test_last_line_is_the_evaluation_of_the_held_out_images(
    checkpoint: Path, data: Path, network: AdaptiveResNet, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, _ = _run(capsys, checkpoint, "--data", data, "--held-out", 9)
    examples, preprocessing = open_examples(data), network.config.preprocessing
    _, held_out = split(examples, 9)
    dataset = Dataset(examples, held_out, preprocessing, load_pixels(examples, preprocessing)[1])
    context = {"checkpoint": "checkpoint.safetensors", "split": "held-out", "gate_offset": 0.0}
    assert summary.pop("images_per_second") > 0
    assert summary == context | json.loads(json.dumps(evaluate(network, dataset).summary()))
    assert summary["images"] == 9


def _tell_held_out(path: Path, data: Path, count: int) -> None:
    """Have the checkpoint tell that its training held out so many images."""
    save(path, replace(load(path), training=told_held_out(data, count)))


def test_images_are_evaluated_that_training_held_out(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell_held_out(checkpoint, data, 12)
    for more in ([], ["--held-out", "12"]):
        summary, _ = _run(capsys, checkpoint, "--data", data, *more)
        assert (summary["images"], summary["split"]) == (12, "held-out")
    assert main([str(checkpoint), "--data", str(data), "--held-out", "9"]) == 1
    _assert_one_line(capsys, "training of small held out 12 images, not 9: leave out --held-out, or give --all")
    assert _run(capsys, checkpoint, "--data", data, "--all")[0]["images"] == 30


def test_network_whose_training_held_out_nothing_is_evaluated_on_all_images(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell_held_out(checkpoint, data, 0)
    for more in ([], ["--held-out", "9"]):
        assert main([str(checkpoint), "--data", str(data), *more]) == 1
        _assert_one_line(capsys, "the training of small held out no images: give --all")
    assert _run(capsys, checkpoint, "--data", data, "--all")[0]["images"] == 30


def test_network_that_does_not_tell_is_evaluated_on_what_training_would_hold_out(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(capsys, checkpoint, "--data", data)[0]["images"] == 6
    assert main([str(checkpoint), "--data", str(data), "--held-out", "60"]) == 1
    _assert_one_line(capsys, "cannot hold out 60 of 30 images and leave some of each class: give another")


def test_all_images_are_evaluated_when_asked_for(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, _ = _run(capsys, checkpoint, "--data", data, "--all", "--batch-size", 7)
    assert summary["images"] == 30
    assert summary["split"] == "all"


def test_gate_offset_changes_what_is_executed(checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed, _ = _run(capsys, checkpoint, "--data", data, "--all", "--gate-offset=-1e9")
    opened, _ = _run(capsys, checkpoint, "--data", data, "--all", "--gate-offset=1e9")
    assert closed["executed_share"] == 0
    assert opened["executed_share"] == 1
    assert opened["gate_offset"] == 1e9


def test_people_read_about_the_whole_every_block_and_every_class(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, output = _run(capsys, checkpoint, "--data", data, "--all")
    low, high = summary["accuracy_interval"]
    assert f"accuracy            {summary['accuracy']:.2%}, with 95% confidence {low:.1%} to {high:.1%}" in output
    assert f"calibration error   {summary['expected_calibration_error']:.1%}; " in output
    confused = summary["confusions"][0]
    assert f"{confused['images']:6}  {confused['class']} taken for {confused['predicted']}\n" in output
    assert f"mean share of MACs  {summary['mac_share']:.1%}" in output
    for name, rate in summary["execution_rates"].items():
        assert f"{name}  {rate:>14.1%}" in output
    for label, figures in summary["classes"].items():
        (line,) = [line for line in output.splitlines() if line.startswith(label)]
        cells = [f"{100 * rate:.0f}" for rate in figures["execution_rates"].values()]
        assert line.split() == [label, "10", *["too", "few", "to", "say"], f"{figures['mac_share']:.1%}", *cells]


def test_of_a_few_images_nothing_is_concluded(checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary, output = _run(capsys, checkpoint, "--data", data, "--held-out", 9)
    right = round(9 * summary["accuracy"])
    assert f"accuracy            {right} of 9 images: too few to say\n" in output
    assert "calibration error" not in output


def test_precision_and_recall_are_told_of_classes_with_enough_images(
    checkpoint: Path, tmp_path: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_class_folders(tmp_path / "more", ("cat", "dog", "eel"), each=25, side=16)
    summary, output = _run(capsys, checkpoint, "--data", data, "--all")
    for label, figures in summary["classes"].items():
        (line,) = [line for line in output.splitlines() if line.startswith(label)]
        told = [figures[name] for name in ("precision", "recall", "f1")]
        assert line.split()[1:5] == ["25", *("none" if value is None else f"{value:.1%}" for value in told)]


def test_rates_of_many_blocks_are_told_in_tenths(
    make_network: MakeNetwork, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = make_network(labels=LABELS, stage_blocks=(8, 8, 8), target_rates=(1.0,) * 23 + (0.5,))
    save(tmp_path / "deep.safetensors", Checkpoint(deep.config, deep.state_dict()))
    _, output = _run(capsys, tmp_path / "deep.safetensors", "--data", data, "--all", "--gate-offset=-1e9")
    (line,) = [line for line in output.splitlines() if line.startswith("cat")]
    assert line.endswith("******** ******** *******0")


def test_calibrated_checkpoint_is_written_where_it_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, data = confident_network(), tmp_path / "data"
    pixels = colour_fields(280)
    predicted = network(torch.from_numpy(network.config.preprocessing.normalise(pixels))).logits.argmax(dim=1)
    for number, image in enumerate(pixels):  # it is right about three of four
        folder = data / network.config.labels[(int(predicted[number]) + (number % 4 == 0)) % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    checkpoint, out = tmp_path / "checkpoint.safetensors", tmp_path / "calibrated.safetensors"
    save(checkpoint, checkpoint_of(network))
    summary, output = _run(capsys, checkpoint, "--data", data, "--all", "--calibrate", out)
    assert f"\ntemperature {summary['temperature']:.3f}: the calibration error goes from" in output
    assert summary["calibrated_error"] < summary["expected_calibration_error"]
    ratio = load(checkpoint).weights["classifier.weight"] / load(out).weights["classifier.weight"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, summary["temperature"]))
    assert load(out).training == {"temperature": summary["temperature"]}
    assert main([str(checkpoint), "--data", str(data), "--all", "--calibrate", str(out)]) == 1
    _assert_one_line(capsys, f"{out} exists: choose another --calibrate")


def test_pictures_lie_beside_the_checkpoint_or_where_they_are_wanted(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["compute-spread.png", "confusions.png", "execution-rates.png"]
    _run(capsys, checkpoint, "--data", data, "--all")
    assert sorted(path.name for path in (checkpoint.parent / "evaluation").iterdir()) == names
    _, output = _run(capsys, checkpoint, "--data", data, "--all", "--out", tmp_path / "wanted")
    for name in names:
        assert (tmp_path / "wanted" / name).is_file()
        assert str(tmp_path / "wanted" / name) in output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--held-out", "3000"], "cannot hold out 3000"),
        (["--held-out", "0"], "--held-out must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--preset", "resnet-50"], "unknown preset"),
        (["--preset", "convnet-aig-20-cifar10"], "leave out --preset"),
    ],
)
def test_wrong_argument_gives_one_line_and_status_1(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([str(checkpoint), "--data", str(data), *more]) == 1
    _assert_one_line(capsys, message)


@pytest.mark.parametrize("offset", ["nan", "inf", "-inf"])
def test_gate_offset_must_be_finite(
    checkpoint: Path, data: Path, offset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(checkpoint), "--data", str(data), "--all", f"--gate-offset={offset}"])
    assert f"argument --gate-offset: '{offset}' is not a finite number" in capsys.readouterr().err


@pytest.mark.parametrize("weight", ["classifier.bias", "blocks.stage1_block1.gate.fc2.bias"])
def test_network_with_weights_that_are_no_numbers_gives_one_line(
    network: AdaptiveResNet, checkpoint: Path, data: Path, weight: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network.state_dict()[weight][0] = float("nan")
    save(checkpoint, Checkpoint(network.config, network.state_dict()))
    assert main([str(checkpoint), "--data", str(data), "--all"]) == 1
    _assert_one_line(capsys, "small answers to cat/000.png with logits or margins that are not finite")


def test_json_has_no_figure_that_is_no_number(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = Evaluation.summary
    monkeypatch.setattr(Evaluation, "summary", lambda evaluation: summary(evaluation) | {"mac_share": float("nan")})
    assert main([str(checkpoint), "--data", str(data), "--all"]) == 1
    output = capsys.readouterr()
    assert "NaN" not in output.out
    assert output.err.startswith("error: ")


def test_ctrl_c_gives_one_line(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainedClassifier, "run", interrupted)
    assert main([str(checkpoint), "--data", str(data), "--all"]) == 130
    assert capsys.readouterr() == ("", "interrupted: the evaluation is not finished\n")


def _assert_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_missing_checkpoint_gives_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.safetensors"), "--data", str(data)]) == 1
    _assert_one_line(capsys, "there is no checkpoint")


def test_image_that_cannot_be_decoded_gives_one_line(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "dog" / "004.png").write_bytes(b"not an image")
    assert main([str(checkpoint), "--data", str(data), "--all"]) == 1
    _assert_one_line(capsys, f"cannot decode {data}/dog/004.png: ")


def test_images_that_cannot_be_read_are_left_out_before_others_are_held_out(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (checkpoint, "--data", data, "--held-out", 9, "--bad-images", "skip")
    (data / "dog" / "000.png").write_bytes(b"not an image")
    summary, _ = _run(capsys, *arguments)
    (data / "dog" / "000.png").unlink()
    without, _ = _run(capsys, *arguments)
    for figures in (summary, without):
        del figures["images_per_second"]
    assert summary == without
    assert _run(capsys, checkpoint, "--data", data, "--all", "--bad-images", "skip")[0]["images"] == 29


def test_held_out_images_of_other_data_than_that_of_the_training_are_not_known(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "dog" / "000.png").write_bytes(b"not an image")
    examples = readable(open_examples(data), load(checkpoint).config.preprocessing, "skip")
    capsys.readouterr()
    training = {"held_out": HeldOut.of(examples, split(examples, 9)[1]).model_dump()}
    save(checkpoint, replace(load(checkpoint), training=training))
    assert _run(capsys, checkpoint, "--data", data, "--bad-images", "skip")[0]["images"] == 9
    assert main([str(checkpoint), "--data", str(data)]) == 1
    _assert_one_line(capsys, "small was trained on other images")
    (data / "dog" / "000.png").unlink()
    assert _run(capsys, checkpoint, "--data", data, "--all")[0]["images"] == 29


def test_data_with_other_classes_is_refused(checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "eel").rename(data / "fox")
    assert main([str(checkpoint), "--data", str(data), "--all"]) == 1
    _assert_one_line(capsys, "the data's classes are cat, dog, fox; those of checkpoint.safetensors are cat, dog, eel")


def test_published_checkpoint_needs_the_name_of_its_network(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": {}}, path)
    assert main([str(path), "--data", str(data), "--all"]) == 1
    _assert_one_line(capsys, "add --preset")


def test_published_checkpoint_is_evaluated(
    tmp_path: Path,
    make_class_folders: MakeFolders,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = preset("convnet-aig-20-cifar10")
    data = make_class_folders(tmp_path / "cifar", config.labels, each=2)
    path = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": published_weights(AdaptiveResNet(config))}, path)
    summary, output = _run(capsys, path, "--data", data, "--all", "--preset", config.name)
    assert summary["images"] == 20
    assert summary["checkpoint"] == "model_best.pth.tar"
    assert "convnet-aig-20-cifar10, all images of cifar" in output
