from __future__ import annotations

from pathlib import Path

import llvmlite.binding as llvm
import pytest

from service.engine.runtimes.compiled.__main__ import main
from service.engine.runtimes.compiled.processor import MachineCode, compiled_code
from tests.service.engine.runtimes.artifacts import exported_shape


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_shape(tmp_path_factory.getbasetemp(), "imagenet stem, bottlenecks").folder


def test_every_function_is_written_to_a_file_of_its_own(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert main([str(model), str(folder)]) == 0
    whole = (folder / "module.ll").read_text()
    functions = {each.name: str(each) for each in llvm.parse_assembly(whole).functions if not each.is_declaration}
    assert len(functions) > 5
    assert {path.stem for path in folder.glob("*.ll")} == {"module", *functions}
    for name in functions:
        head, definition = (folder / f"{name}.ll").read_text().split("\n", 1)
        assert definition in whole
        assert f'define void @"{name}"(' in definition
        expected = "the whole network" if name == "classify" else ("Convolution(kernel=", "MaxPool(kernel=")
        assert head.removeprefix("; ").startswith(expected)
    assert any("MaxPool" in path.read_text() for path in folder.glob("kernel*.ll"))


def test_what_is_written_is_what_is_run(model: Path, tmp_path: Path) -> None:
    assert main([str(model), str(tmp_path)]) == 0
    whole = (tmp_path / "module.ll").read_text()
    assert MachineCode(compiled_code(whole)).address("classify")
    labels = [line.removesuffix(":") for line in (tmp_path / "module.s").read_text().splitlines() if line.endswith(":")]
    assert {"classify", "kernel0"} <= set(labels)


def test_model_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: no artifact in ")
    assert not (tmp_path / "out").exists()


def test_precision_that_the_processor_or_the_model_lacks_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), str(tmp_path / "out"), "--precision", "int8"]) == 1
    assert "error: " in capsys.readouterr().err
