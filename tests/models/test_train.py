from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.checkpoint import Checkpoint, load, save
from models.config import ModelConfig, preset
from models.data import Batch, Dataset
from models.resnet import AdaptiveResNet
from models.train import main
from models.trainer import CHECKPOINT_NAME
from tests.conftest import MakeFolders
from tests.models.conftest import metrics, same_tensors

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
    assert capsys.readouterr().out.splitlines()[-1].endswith(CHECKPOINT_NAME)


def test_command_starts_from_a_plain_network(data: Path, tmp_path: Path) -> None:
    assert main(_arguments(data, tmp_path / "plain", "--epochs", "1", "--plain")) == 0
    plain = tmp_path / "plain" / CHECKPOINT_NAME
    assert load(plain).config.name == f"{PRESET}-plain"
    assert main(_arguments(data, tmp_path / "gated", "--epochs", "1", "--init", str(plain))) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--preset", "resnet-50"], "unknown preset 'resnet-50'"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--held-out", "1000"], "cannot hold out 1000"),
        (["--batch-size", "100"], "do not fill one batch"),
        (["--epochs", "0"], "epochs: Input should be greater than 0"),
        (["--target-rate", "0.5", "0.5"], "2 target rates for 9 blocks"),
        (["--init", "nothing.safetensors"], "there is no checkpoint"),
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
    assert main(_arguments(data, out, "--epochs", "1", "--init", str(plain[0]))) == 0
    before = (out / CHECKPOINT_NAME).read_bytes()
    for images, more, message in (
        (data, ["--init", str(plain[1])], "began with another --init"),
        (data, [], "began with another --init"),
        (others, ["--init", str(plain[0])], "was on other data"),
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
        def fatal(dataset: Dataset, batch_size: int, seed: int, epoch: int, first: int) -> Iterator[Batch]:
            begun = epoch * dataset.batches(batch_size) + first
            for number, batch in enumerate(shuffled(dataset, batch_size, seed, epoch, first), begun):
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
