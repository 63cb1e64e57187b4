from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from artifact.preprocessing import Preprocessing
from models.checkpoint import Checkpoint, load, save
from models.config import PRESETS, ModelConfig, preset
from models.data import Batch, Dataset
from models.hold_out import HeldOut, split
from models.recipe import Recipe
from models.resnet import AdaptiveResNet
from models.sources import open_examples
from models.train import main
from models.trainer import CHECKPOINT_NAME
from tests.conftest import MakeFolders
from tests.models.conftest import MakeConfig, metrics, same_tensors, torchvision_weights
from tests.networks import checkpoint_of

pytestmark = pytest.mark.slow

PRESET = "convnet-aig-20-cifar10"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "data", ("cat", "dog"), each=16)


def _arguments(data: Path, out: Path, *more: str) -> list[str]:
    settings = ["--preset", PRESET, "--data", str(data), "--out", str(out), "--precision", "fp32"]
    return [*settings, "--batch-size", "4", "--held-out", "4", "--lr", "0.05", "--device", "cpu", *more]


def test_command_trains_a_network_for_the_classes_of_the_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_arguments(data, tmp_path / "run", "--epochs", "1", "--target-rate", "0.8")) == 0
    checkpoint = load(tmp_path / "run" / CHECKPOINT_NAME)
    assert checkpoint.config == preset(PRESET).with_labels(("cat", "dog")).with_target_rates(0.8)
    assert checkpoint.training["recipe"]["held_out"] == 4
    examples = open_examples(data)
    assert checkpoint.held_out == HeldOut.of(examples, split(examples, 4)[1])
    assert capsys.readouterr().out.splitlines()[-1].endswith(CHECKPOINT_NAME)


def test_images_in_the_val_folder_are_held_out(
    data: Path, tmp_path: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts").mkdir()
    data.rename(tmp_path / "parts" / "train")
    make_class_folders(tmp_path / "parts" / "val", ("cat", "dog"), each=3)
    arguments = _arguments(tmp_path / "parts", tmp_path / "run", "--epochs", "1")
    assert main(arguments) == 1
    assert "which is held out: leave out --held-out" in capsys.readouterr().err
    given = arguments.index("--held-out")
    assert main(arguments[:given] + arguments[given + 2 :]) == 0
    held_out = load(tmp_path / "run" / CHECKPOINT_NAME).held_out
    assert held_out is not None
    examples = open_examples(tmp_path / "parts")
    assert [examples.names[index] for index in held_out.among(examples)] == [
        f"val/{label}/{number:03d}.png" for label in ("cat", "dog") for number in range(3)
    ]


def test_command_starts_from_a_plain_network(data: Path, tmp_path: Path) -> None:
    assert main(_arguments(data, tmp_path / "plain", "--epochs", "1", "--plain")) == 0
    plain = tmp_path / "plain" / CHECKPOINT_NAME
    assert load(plain).config.name == f"{PRESET}-plain"
    assert main(_arguments(data, tmp_path / "gated", "--epochs", "1", "--from", str(plain))) == 0


def test_command_starts_from_weights_that_others_saved(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, out = AdaptiveResNet(preset(PRESET).without_gates()), tmp_path / "run" / CHECKPOINT_NAME
    torch.save({"state_dict": torchvision_weights(theirs)}, tmp_path / "theirs.pth")
    # A rate at which nothing is learned shows what it started from.
    more = ["--epochs", "1", "--lr", "1e-30", "--from", str(tmp_path / "theirs.pth")]
    assert main(_arguments(data, out.parent, *more)) == 0
    taken = len(theirs.state_dict()) - 2
    told = f"from theirs.pth: {taken} tensors taken; made new: the classifier (2 classes), 9 gates; left over: the clas"
    assert capsys.readouterr().out.startswith(told)
    trained = load(out).weights
    for name, tensor in theirs.named_parameters():
        same = trained[name].shape == tensor.shape and torch.allclose(trained[name], tensor, rtol=0, atol=1e-20)
        assert same is not name.startswith("classifier."), name


def test_strides_and_normalisation_are_those_of_the_weights(
    data: Path, tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(block="bottleneck")
    monkeypatch.setitem(PRESETS, "small", config)
    brighter = Preprocessing(resize=32, crop=32, mean=(0.3, 0.3, 0.3), std=(0.2, 0.2, 0.2))
    theirs = AdaptiveResNet(config.without_gates().with_bottleneck_stride("1x1").with_preprocessing(brighter))
    save(tmp_path / "theirs.safetensors", checkpoint_of(theirs))
    more = ["--epochs", "1", "--preset", "small", "--from", str(tmp_path / "theirs.safetensors")]
    assert main(_arguments(data, tmp_path / "run", *more)) == 0
    trained = load(tmp_path / "run" / CHECKPOINT_NAME).config
    assert (trained.bottleneck_stride, trained.preprocessing.mean, trained.preprocessing.std) == (
        "1x1",
        brighter.mean,
        brighter.std,
    )
    assert trained.preprocessing.crop == config.preprocessing.crop


def test_command_learns_from_the_network_without_gates(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_arguments(data, tmp_path / "plain", "--epochs", "1", "--plain")) == 0
    plain = str(tmp_path / "plain" / CHECKPOINT_NAME)
    more = ["--from", plain, "--teacher", plain, "--backbone-lr", "0.1", "--ema", "0.9", "--frozen-norms"]
    capsys.readouterr()
    named = ["--name", "pets", "--image-size", "24", "--patience", "1"]
    assert main(_arguments(data, tmp_path / "gated", "--epochs", "1", *more, *named)) == 0
    told = capsys.readouterr().out
    assert "network     pets: 9 blocks, 9 of them with a gate, " in told
    assert "classes     2, of 14 to 14 images each (cat, cat)" in told
    assert "images      28 to train on and 4 held out" in told
    checkpoint = load(tmp_path / "gated" / CHECKPOINT_NAME)
    assert (checkpoint.config.name, checkpoint.config.preprocessing.crop) == ("pets", 24)
    recipe = Recipe.model_validate(checkpoint.training["recipe"])
    assert (recipe.distillation, recipe.backbone_lr, recipe.ema_decay, recipe.frozen_norms) == (0.5, 0.1, 0.9, True)


def test_teacher_of_other_classes_is_refused(
    data: Path, tmp_path: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "teacher.safetensors", checkpoint_of(AdaptiveResNet(make_config())))
    assert main(_arguments(data, tmp_path / "run", "--teacher", str(tmp_path / "teacher.safetensors"))) == 1
    assert "has other classes than the data, and is no teacher for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--teacher", "nothing.safetensors"], "there is no checkpoint"),
        (["--distillation", "0.5"], "a teacher needs a share of the loss"),
        (["--fresh-gates"], "--fresh-gates is for gates of other weights: add --from"),
        (["--bottleneck-stride", "1x1"], "has basic blocks"),
        (["--preset", "resnet-50"], "unknown preset 'resnet-50'"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--held-out", "1000"], "cannot hold out 1000"),
        (["--batch-size", "100"], "do not fill one batch"),
        (["--epochs", "0"], "epochs: Input should be greater than 0"),
        (["--target-rate", "0.5", "0.5"], "2 target rates for 9 blocks"),
        (["--from", "nothing.safetensors"], "there is no checkpoint"),
    ],
)
def test_wrong_argument_gives_one_line_and_status_1(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(_arguments(data, tmp_path / "run", *more)) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "run" / CHECKPOINT_NAME).exists()


def test_finished_run_says_that_it_was_finished(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = _arguments(data, tmp_path / "run", "--epochs", "1")
    assert main(arguments) == 0
    assert "finished already" not in capsys.readouterr().out
    files = sorted((tmp_path / "run").iterdir())
    assert main(arguments) == 0
    path = tmp_path / "run" / CHECKPOINT_NAME
    assert capsys.readouterr().out == f"the training was finished already\nthe network is in {path}\n"
    assert sorted((tmp_path / "run").iterdir()) == files


def test_run_from_another_checkpoint_or_on_other_images_is_refused(
    data: Path, tmp_path: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = [tmp_path / name / CHECKPOINT_NAME for name in ("first", "second")]
    for seed, path in enumerate(plain):
        assert main(_arguments(data, path.parent, "--epochs", "1", "--plain", "--seed", str(seed))) == 0
    others = make_class_folders(tmp_path / "others", ("cat", "dog"), each=16)
    (others / "dog" / "000.png").rename(others / "dog" / "100.png")
    out = tmp_path / "run"
    assert main(_arguments(data, out, "--epochs", "1", "--from", str(plain[0]))) == 0
    before = (out / CHECKPOINT_NAME).read_bytes()
    for images, more, message in (
        (data, ["--from", str(plain[1])], "began with another --from"),
        (data, [], "began with another --from"),
        (others, ["--from", str(plain[0])], "was on other data"),
    ):
        capsys.readouterr()
        assert main(_arguments(images, out, "--epochs", "1", *more)) == 1
        assert capsys.readouterr().err == f"error: the run in the output folder {message}; choose another --out\n"
    assert (out / CHECKPOINT_NAME).read_bytes() == before


def test_image_that_cannot_be_read_stops_the_training_before_it_begins(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "cat" / "003.png").write_bytes(b"damaged")
    assert main(_arguments(data, tmp_path / "run", "--epochs", "1")) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot decode {data}/cat/003.png: ")
    assert "--bad-images skip leaves it out" in error
    assert not (tmp_path / "run").exists()


def test_run_that_leaves_out_images_is_the_run_without_them_and_goes_on_only_without_the_same(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, image = tmp_path / "run", data / "cat" / "003.png"
    whole = image.read_bytes()
    image.write_bytes(b"damaged")
    skipping = _arguments(data, out, "--epochs", "1", "--bad-images", "skip")
    assert main(skipping) == 0
    told = f"note: 1 of 32 images cannot be read and are left out:\n  {image}\n"
    assert capsys.readouterr().err.startswith(told)
    assert main(skipping) == 0
    assert capsys.readouterr().out.startswith("the training was finished already")
    image.write_bytes(whole)
    assert main(skipping) == 1
    assert "was on other data" in capsys.readouterr().err
    image.unlink()
    assert main(skipping) == 1
    assert "was on other data" in capsys.readouterr().err
    assert main(_arguments(data, tmp_path / "removed", "--epochs", "1")) == 0
    first, second = (load(run / CHECKPOINT_NAME).weights for run in (out, tmp_path / "removed"))
    assert same_tensors(first, second)


def test_class_without_an_image_that_can_be_read_is_an_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in (data / "dog").iterdir():
        image.write_bytes(b"damaged")
    assert main(_arguments(data, tmp_path / "run", "--bad-images", "skip")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == ("error: 1 of the classes have no image that can be read (dog)")


def test_ctrl_c_says_in_one_line_how_the_run_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled = Dataset.shuffled

    def interrupted_at(step: int) -> None:
        def fatal(
            dataset: Dataset, batch_size: int, seed: int, epoch: int, first: int, share: slice
        ) -> Iterator[Batch]:
            begun = epoch * dataset.batches(batch_size) + first
            for number, batch in enumerate(shuffled(dataset, batch_size, seed, epoch, first, share), begun):
                if number == step:
                    raise KeyboardInterrupt
                yield batch

        monkeypatch.setattr(Dataset, "shuffled", fatal)

    for step, told in (
        (3, "the same command starts again, as there is no checkpoint yet"),
        (8, "the same command goes on from the last checkpoint"),
    ):
        interrupted_at(step)
        assert main(_arguments(data, tmp_path / "run", "--epochs", "2")) == 130
        assert capsys.readouterr().err == f"interrupted: {told}\n"
    interrupted_at(-1)
    assert main(_arguments(data, tmp_path / "run", "--epochs", "2")) == 0
    assert load(tmp_path / "run" / CHECKPOINT_NAME).training["step"] == 14


def test_target_rates_of_a_network_without_gates_are_a_usage_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(_arguments(data, tmp_path / "run", "--plain", "--target-rate", "0.5"))
    assert "not allowed with argument --plain" in capsys.readouterr().err


def test_other_recipe_in_the_folder_of_a_run_is_refused(
    data: Path, tmp_path: Path, config: ModelConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    save(out / CHECKPOINT_NAME, Checkpoint(config, AdaptiveResNet(config).state_dict()))
    assert main(_arguments(data, out)) == 1
    assert "choose another --out" in capsys.readouterr().err


def _start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "models.train", *_arguments(data, out, "--epochs", "6")]
    # One thread, as in this process: with more, sums may be taken in another order.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=ROOT)


def test_process_killed_outright_and_started_again_ends_where_it_would_have(data: Path, tmp_path: Path) -> None:
    killed = _start(data, tmp_path / "killed")
    checkpoint = tmp_path / "killed" / CHECKPOINT_NAME
    while not checkpoint.exists():
        assert killed.poll() is None, killed.communicate()[1].decode()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert 7 <= load(checkpoint).training["step"] < 42

    resumed = _start(data, tmp_path / "killed")
    assert main(_arguments(data, tmp_path / "whole", "--epochs", "6")) == 0
    errors = resumed.communicate()[1]
    assert resumed.returncode == 0, errors.decode()
    first, second = load(tmp_path / "whole" / CHECKPOINT_NAME), load(checkpoint)
    assert first.training["step"] == second.training["step"] == 42
    assert same_tensors(first.weights, second.weights)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "killed")
