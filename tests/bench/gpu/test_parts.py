from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.gpu.__main__ import main
from bench.gpu.measurements import PARTS
from bench.gpu.parts import Part, PartFailed, in_process, results, run_parts, write_result

_PARTS = (Part("first", 10), Part("second", 50), Part("third", 10))


class Machine:
    """Takes as long as it is told for every part, by a clock of its own."""

    def __init__(self, folder: Path, takes_s: float, failing: str = "") -> None:
        self.now, self.ran = 100.0, list[str]()
        self._folder, self._takes_s, self._failing = folder, takes_s, failing

    def execute(self, part: Part, limit_s: float) -> None:
        assert limit_s >= part.seconds
        self.ran.append(part.name)
        self.now += self._takes_s
        if part.name == self._failing:
            raise PartFailed("it failed")
        write_result(self._folder, part.name, {"at": self.now})

    def measure(self, seconds: float) -> dict[str, str]:
        return run_parts(_PARTS, self._folder, seconds, self.execute, lambda: self.now)


def test_part_that_would_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path, takes_s=10)
    missing = machine.measure(55)
    assert machine.ran == ["first", "third"]
    assert missing == {"second": "not begun: 45 s were left, and it may take 50 s"}


def test_second_run_takes_up_what_the_first_left(tmp_path: Path) -> None:
    Machine(tmp_path, takes_s=10).measure(55)
    before = (tmp_path / "first.json").read_text()
    machine = Machine(tmp_path, takes_s=10)
    assert machine.measure(55) == {}
    assert machine.ran == ["second"]
    assert (tmp_path / "first.json").read_text() == before
    assert list(results(tmp_path, _PARTS)) == ["first", "second", "third"]


def test_part_that_failed_ends_no_other_and_is_tried_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path, takes_s=1, failing="first")
    assert machine.measure(100) == {"first": "it failed"}
    assert machine.ran == ["first", "second", "third"]
    assert Machine(tmp_path, takes_s=1).measure(100) == {}


def test_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_result(tmp_path, "first", {"no JSON": object()})
    assert results(tmp_path, _PARTS) == {}
    write_result(tmp_path, "first", {"of": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["first.json"]


def test_parts_have_names_that_are_files_and_none_twice() -> None:
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
    assert not any("/" in name for name in names)


@pytest.mark.slow
def test_part_without_a_gpu_fails_with_its_reason_and_in_time(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"^exit status 1: .*CUDA device 0 cannot be used"):
        in_process(["--out", str(tmp_path)], Part("machine", 1), 100.0)
    with pytest.raises(PartFailed, match="not done after 0 s"):
        in_process(["--out", str(tmp_path)], Part("machine", 1), 0.1)


def test_command_tells_what_was_measured_before_and_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(tmp_path, "sanitizer memcheck lists", {"errors": 3, "exit_status": 1, "told": ""})
    assert main(["--minutes", "0", "--out", str(tmp_path)]) == 1
    *text, last = capsys.readouterr().out.splitlines()
    assert "missed: sanitizer memcheck lists: 3 errors" in text
    told = json.loads(last)
    assert not told["ok"]
    assert len(told["not_measured"]) == len(PARTS) - 1
