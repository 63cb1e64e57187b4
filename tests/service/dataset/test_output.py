from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from service.dataset.items import DatasetError
from service.dataset.output import Finished, Part, opened_output
from tests.service.dataset.datasets import rows

RUN = {"model_name": "a", "top_k": 5}
TABLE = pa.table({"name": ["a", "b"]})


def test_parts_that_were_written_are_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "answers"
    with opened_output(folder, RUN) as output:
        output.write(Part(0, 0), TABLE, {"corrupt_image": 1}, 100, last=False)
        output.write(Part(0, 1), TABLE.slice(1), {}, 10, last=True)
        output.write(Part(12, 3), TABLE, {}, 1, last=False)
        told = output.tally
    with opened_output(folder, RUN) as again:
        assert again.finished == {0: Finished({0, 1}, 1), 12: Finished({3}, None)}
        assert again.tally == told
    assert (told.images, told.errors, told.macs) == (5, {"corrupt_image": 1}, 111)
    assert [row["name"] for row in rows(folder)] == ["a", "b", "b", "a", "b"]


def test_folder_of_another_run_is_refused_and_the_difference_told(tmp_path: Path) -> None:
    with opened_output(tmp_path, RUN):
        pass
    with (
        pytest.raises(DatasetError, match="was begun with another top k: 5, now 6"),
        opened_output(tmp_path, RUN | {"top_k": 6}),
    ):
        pass
    with opened_output(tmp_path, RUN):
        pass


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="has other files"), opened_output(tmp_path, RUN):
        pass
    with (
        pytest.raises(DatasetError, match=r"cannot be written to: (Not a directory|File exists)"),
        opened_output(tmp_path / "thesis.txt", RUN),
    ):
        pass


def test_folder_is_one_processs_at_a_time(tmp_path: Path) -> None:
    with (
        opened_output(tmp_path, RUN),
        pytest.raises(DatasetError, match="another process is writing"),
        opened_output(tmp_path, RUN),
    ):
        pass


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-_run.json").write_text("{")
    with opened_output(tmp_path, RUN):
        (tmp_path / ".unfinished-part-00000-00000.parquet").write_bytes(b"half")
    with opened_output(tmp_path, RUN) as output:
        assert output.finished == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_lock", "_run.json"]


@pytest.mark.parametrize("content", [b"", b"no Parquet"])
def test_damaged_part_is_told_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    with opened_output(tmp_path, RUN) as output:
        output.write(Part(0, 0), TABLE, {}, 0, last=True)
    (tmp_path / "part-00000-00000.parquet").write_bytes(content)
    with (
        pytest.raises(DatasetError, match=r"is damaged.*delete it to have it made again"),
        opened_output(tmp_path, RUN),
    ):
        pass


def test_part_of_another_run_is_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with opened_output(tmp_path / name, RUN | {"input": name}) as output:
            output.write(Part(0, 0), TABLE, {}, 0, last=True)
    (tmp_path / "one" / "part-00000-00000.parquet").rename(tmp_path / "other" / "part-00000-00001.parquet")
    with (
        pytest.raises(DatasetError, match="was made with another model, options or input"),
        opened_output(tmp_path / "other", RUN | {"input": "other"}),
    ):
        pass


def test_disk_that_takes_no_more_is_an_error(tmp_path: Path) -> None:
    with opened_output(tmp_path, RUN) as output:
        (tmp_path / ".unfinished-part-00000-00000.parquet").mkdir()
        with pytest.raises(DatasetError, match="cannot be written to"):
            output.write(Part(0, 0), TABLE, {}, 0, last=True)
        assert output.tally.images == 0


@pytest.mark.parametrize("content", ["null", "3"])
def test_record_that_tells_of_no_run_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "_run.json").write_text(content)
    with pytest.raises(DatasetError, match=r"_run\.json cannot be read"), opened_output(tmp_path, RUN):
        pass


def test_folder_that_cannot_be_begun_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-_run.json").mkdir()
    with pytest.raises(DatasetError, match="cannot be used"), opened_output(tmp_path, RUN):
        pass


def test_file_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("_lock", "thesis.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(DatasetError, match="has other files"), opened_output(tmp_path, RUN):
        pass
    assert (tmp_path / "_lock").read_text() == "mine"
