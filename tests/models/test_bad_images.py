from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from artifact.preprocessing import Preprocessing
from models.bad_images import find_bad, readable
from models.examples import DataError, Examples
from models.sources import open_examples
from tests.conftest import MakeFolders

PREPROCESSING = Preprocessing(resize=80, crop=72, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LABELS = ("cat", "dog")


@pytest.fixture
def folder(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "images", LABELS, each=30, side=8)


def _damage(folder: Path, *names: str) -> list[str]:
    """Cut the files of these names short, and return their paths."""
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:60])
    return [str(folder / name) for name in names]


def _fitted(examples: Examples) -> np.ndarray:
    return np.stack([examples.fitted(index, PREPROCESSING) for index in range(len(examples))])


def test_images_that_cannot_be_read_are_named_counted_and_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = open_examples(folder)
    expected = np.delete(_fitted(whole), [3, 31], axis=0)
    damaged = _damage(folder, "cat/003.png", "dog/001.png")
    examples = readable(open_examples(folder), PREPROCESSING, "skip")
    assert examples.labels == LABELS
    assert list(examples.left_out) == ["cat/003.png", "dog/001.png"]
    assert list(examples.names) == [name for name in whole.names if name not in examples.left_out]
    assert examples.classes.tolist() == [0] * 29 + [1] * 29
    assert np.array_equal(_fitted(examples), expected)
    assert examples.path(3) == str(folder / "cat" / "004.png")
    lines = ["note: 2 of 60 images cannot be read and are left out:", *(f"  {path}" for path in damaged)]
    assert capsys.readouterr() == ("", "\n".join(lines) + "\n")


def test_at_most_twenty_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = _damage(folder, *(f"dog/{number:03d}.png" for number in range(5, 28)))
    assert len(readable(open_examples(folder), PREPROCESSING, "skip")) == 37
    first, *named, last = capsys.readouterr().err.splitlines()
    assert first.startswith("note: 23 of 60 images")
    assert named == [f"  {path}" for path in damaged[:20]]
    assert last == "  and 3 more"


def test_class_that_loses_all_its_images_is_an_error(folder: Path) -> None:
    _damage(folder, *(f"cat/{number:03d}.png" for number in range(30)))
    with pytest.raises(DataError, match=r"1 of the classes have no image that can be read \(cat\)"):
        readable(open_examples(folder), PREPROCESSING, "skip")


def test_where_all_can_be_read_nothing_is_said_or_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = open_examples(folder)
    assert readable(examples, PREPROCESSING, "skip") is examples
    assert capsys.readouterr() == ("", "")


def test_with_stop_nothing_is_decoded_before_it_is_asked_for(folder: Path) -> None:
    (damaged,) = _damage(folder, "cat/003.png")
    examples = readable(open_examples(folder), PREPROCESSING, "stop")
    assert len(examples) == 60
    with pytest.raises(DataError, match=f"cannot decode {damaged}: .*--bad-images skip"):
        examples.fitted(3, PREPROCESSING)


def test_every_image_is_decoded_once_on_several_threads() -> None:
    count, seen, threads = 1000, [], set()
    met = threading.Barrier(2)

    def decode(index: int) -> None:
        if index in (0, 999):
            met.wait(10)
        seen.append(index)
        threads.add(threading.get_ident())

    examples = Examples(LABELS, np.arange(count) % 2, [str(index) for index in range(count)], lambda _: None)
    assert find_bad(examples, decode, "skip") == []
    assert sorted(seen) == list(range(count))
    assert len(threads) > 1


def test_first_that_cannot_be_read_stops_and_is_the_one_named(folder: Path) -> None:
    (first, _) = _damage(folder, "cat/003.png", "dog/001.png")
    examples = open_examples(folder)
    with pytest.raises(DataError, match=f"cannot decode {first}: "):
        find_bad(examples, examples.image, "stop")


def test_mistake_is_not_taken_for_an_image_that_cannot_be_read(folder: Path) -> None:
    def decode(_: int) -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        find_bad(open_examples(folder), decode, "skip")


def test_what_is_left_out_is_part_of_what_identifies_the_data(folder: Path) -> None:
    whole = open_examples(folder).digest()
    kept = folder.parent / "kept"
    _damage(folder, "cat/003.png")
    skipped = readable(open_examples(folder), PREPROCESSING, "skip").digest()
    folder.rename(kept)
    assert readable(open_examples(kept), PREPROCESSING, "skip").digest() == skipped
    (kept / "cat" / "003.png").unlink()
    removed = readable(open_examples(kept), PREPROCESSING, "skip").digest()
    assert len({whole, skipped, removed}) == 3


def test_digest_of_data_without_bad_images_is_that_of_earlier_checkpoints() -> None:
    examples = Examples(LABELS, np.array([0, 1]), ["cat/0.png", "dog/0.png"], lambda _: None)
    # sha256 of ["cat/0.png", "dog/0.png", [0, 1]]
    assert examples.digest() == "58a121885417b92d1df69899b95815ee38cc166421fad7dec628da1cd17ee7f2"
