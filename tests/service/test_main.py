from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifact.manifest import ONNX_NAME
from service.__main__ import main
from service.classify.drawing import LEGEND
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.conftest import Outcome
from tests.service.server import Server

LIBRARIES = ("torch", "onnx", "safetensors", "models", "export")


@pytest.fixture
def files(tmp_path: Path, pictures: list[bytes]) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, data in zip(paths, pictures, strict=False):
        path.write_bytes(data)
    return paths


def test_classify_draws_every_image(
    artifact: Path, files: list[Path], pictures: list[bytes], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", "--model", str(artifact), *map(str, files)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    legend, *drawings = printed.out.strip().split("\n\n")
    assert legend == LEGEND
    for path, data, drawing in zip(files, pictures, drawings, strict=False):
        answer = server.classify(data).json()
        best, executed = answer["predictions"][0], answer["layers"]["executed"]
        assert drawing.startswith(f"{path}: {best['label']} {best['probability']:.1%}   ")
        assert f"  {executed} of 5 blocks executed, {answer['compute']['ratio']:.0%} of 0.4 million" in drawing
        boxes = "".join(char for char in drawing if char in "■□▣")
        runs = answer["inference_graph"]["blocks"]
        assert boxes == "".join("▣" if not run["gated"] else "■" if run["executed"] else "□" for run in runs)
    assert len(drawings) == 3


def test_image_that_cannot_be_classified_keeps_the_others_from_nothing(
    artifact: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    bad = [tmp_path / "missing.png", tmp_path, text]
    mixed = [path for pair in zip(bad, files, strict=True) for path in pair]
    assert main(["classify", "--model", str(artifact), *map(str, mixed)]) == 1
    printed = capsys.readouterr()
    assert all(f"{path}: " in printed.out for path in files)
    missing, folder, not_an_image = [line for line in printed.err.splitlines() if line]
    assert missing == f"{bad[0]}: No such file or directory"
    assert folder == f"{tmp_path}: Is a directory"
    assert not_an_image.startswith(f"{text}: this is not an image")


def test_runtimes_draw_the_same(artifact: Path, files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    drawn = []
    for runtime in ("onnx", "compiled", "torchscript"):
        assert main(["classify", "--model", str(artifact), "--runtime", runtime, *map(str, files)]) == 0
        lines = capsys.readouterr().out.splitlines()
        drawn.append([line.rsplit(",", 1)[0] for line in lines])  # without the time
    assert drawn[0] == drawn[1] == drawn[2]


def test_image_the_model_fails_on_keeps_the_others_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{grey}.png" for grey in (51, 102, 153)]
    for path in paths:
        path.write_bytes(solid(int(path.stem)))
    runtime = EchoRuntime(poison=[np.float32(102) * (np.float32(1) / np.float32(255))])
    monkeypatch.setattr("service.images.workers.open_runtime", lambda *_: runtime)
    assert main(["classify", *map(str, paths)]) == 1
    printed = capsys.readouterr()
    assert [f"{path}: class 0" in printed.out for path in paths] == [True, False, True]
    (line,) = [line for line in printed.err.splitlines() if line.startswith(f"{paths[1]}: ")]
    assert "could not be run" in line


@pytest.mark.parametrize("command", ["serve", "classify"])
def test_missing_model_is_one_line_of_error(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    images = ["a.png"] if command == "classify" else []
    assert main([command, *images, "--model", str(tmp_path / "nowhere")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    label, message = line.split(maxsplit=1)
    assert label == ("ERROR:" if command == "serve" else "error:")  # a server logs it
    assert message.startswith("no artifact in")


def test_damaged_model_is_one_line_of_error(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    (copy / ONNX_NAME).write_bytes(b"damaged")
    assert main(["--port", "0", "--model", str(copy)]) == 1  # serving is what it does when no command is named
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ERROR:")]
    assert "is damaged" in line


def test_damaged_manifest_is_one_line_of_error(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    (copy / "manifest.json").write_text('{"format": 99}')
    assert main(["--model", str(copy)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not a valid manifest" in line


def test_classify_without_images_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["classify"])
    assert caught.value.code == 2
    assert "IMAGE" in capsys.readouterr().err


def test_serving_needs_none_of_what_training_needs(artifact: Path, files: list[Path]) -> None:
    program = f"""
import sys
for name in {LIBRARIES!r}:
    sys.modules[name] = None
from service.__main__ import main
from service.engine.runtimes.tuning import BatchPolicy
from service.engine.runtimes.tuning import Tuning
sys.exit(main({["classify", "--model", str(artifact), str(files[0])]!r}))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert f"{files[0]}: " in finished.stdout


def test_command_and_server_agree_with_the_model(
    files: list[Path], artifact: Path, outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["classify", "--model", str(artifact), str(files[0])])
    executed = outcome(files[0].read_bytes())[2]
    assert f"  {executed.sum()} of 5 blocks executed" in capsys.readouterr().out


def _classify_apart(artifact: Path, images: list[Path], stdout: int, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service", "classify", "--model", str(artifact), *map(str, images)]
    return subprocess.Popen(command, env=os.environ | environment, stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.parametrize("times", [1, 100], ids=["at the end", "before the end"])
def test_reader_who_leaves_ends_it_quietly(artifact: Path, files: list[Path], times: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with _classify_apart(artifact, files * times, writing) as process:
        os.close(writing)
        assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 1


def test_what_the_output_cannot_show_is_replaced(artifact: Path, files: list[Path]) -> None:
    named = files[0].rename(files[0].with_name("caf\xe9.png"))
    with _classify_apart(artifact, [named], subprocess.PIPE, PYTHONIOENCODING="ascii") as process:
        told, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, b"")
    legend, _, drawing = told.decode("ascii").partition("\n\n")
    assert legend.startswith("# gate open, block executed   . gate closed")
    assert drawing.startswith(f"{named.with_name('caf?.png')}: ")
