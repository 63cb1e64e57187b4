from __future__ import annotations

import json
import os
import re
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

pytestmark = pytest.mark.slow

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
    text, empty = tmp_path / "text.png", tmp_path / "empty"
    text.write_text("no image")
    empty.mkdir()
    bad = [tmp_path / "missing.png", empty, text]
    mixed = [path for pair in zip(bad, files, strict=True) for path in pair]
    assert main(["classify", "--model", str(artifact), *map(str, mixed)]) == 1
    printed = capsys.readouterr()
    assert all(f"{path}: " in printed.out for path in files)
    missing, folder, not_an_image, count = [line for line in printed.err.splitlines() if line]
    assert missing == f"{bad[0]}: No such file or directory"
    assert folder == f"{empty}: no files in this folder"
    assert not_an_image.startswith(f"{text}: the file is in none of these formats")
    assert count == "3 of 6 could not be classified"


def test_folder_is_classified_in_the_order_of_its_paths_but_for_what_is_hidden(
    artifact: Path, pictures: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [tmp_path / name for name in ("a/z.png", "b.png", "c/d/e.png", "f")]
    for path in [*reversed(wanted), tmp_path / ".hidden.png", tmp_path / ".folder/g.png"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[0])
    (tmp_path / "c" / "round").symlink_to(tmp_path)
    assert main(["classify", "--model", str(artifact), str(tmp_path)]) == 0
    drawn = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert drawn == [str(path) for path in wanted]


def test_json_is_an_item_of_a_batch_a_line(
    artifact: Path, files: list[Path], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    files[1].write_text("no image")
    assert main(["classify", "--json", "--top-k", "1", "--model", str(artifact), *map(str, files), "nowhere"]) == 1
    printed = capsys.readouterr()
    told = [json.loads(line) for line in printed.out.splitlines()]
    answered = server.classify_batch([path.read_bytes() for path in files], "?top_k=1").json()["results"]
    for path, item, expected in zip(files, told, answered, strict=False):
        assert item.keys() == expected.keys()
        assert (item["filename"], item["error"]) == (str(path), expected["error"])
        if expected["answer"]:
            assert item["answer"].keys() == expected["answer"].keys()
            assert [len(each["answer"]["predictions"]) for each in (item, expected)] == [1, 1]
            for part in ("compute", "layers", "model"):
                assert item["answer"][part] == expected["answer"][part]
    assert told[3]["error"] == {"type": "unreadable", "message": "No such file or directory"}
    assert "2 of 4 could not be classified" in printed.err


def test_so_many_predictions_are_drawn_as_are_asked_for(
    artifact: Path, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for count in ("1", "2"):
        assert main(["classify", "--model", str(artifact), "--top-k", count, str(files[0])]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(files[0]))]
        assert line.count("%") == int(count)


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_number_of_predictions_that_cannot_be_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["classify", f"--top-k={count}", "a.png"])
    assert f"argument --top-k: '{count}' is not a whole number above 0" in capsys.readouterr().err


def test_classify_has_no_settings_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["classify", "--help"])
    told = capsys.readouterr().out
    assert "--model MODEL" in told
    assert "--top-k N" in told
    assert "--port" not in told
    with pytest.raises(SystemExit):
        main(["classify", "--port", "80", "a.png"])


def test_command_that_does_not_exist_is_told_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["clasify", "a.png"])
    assert re.search("'clasify'.*serve.*classify.*key", capsys.readouterr().err)


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
