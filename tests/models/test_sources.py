from __future__ import annotations

import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact.colour_profiles import SRGB_CHROMATICITIES, matrix_profile
from artifact.preprocessing import Preprocessing
from models.examples import DataError, Examples
from models.sources import open_examples
from service.images.decoding import ImageDecoder
from tests.conftest import MakeFolders
from tests.image_files import chunk, encoded, photograph
from tests.raw_files import profile_chunk, raw_png

LABELS = ("cat", "dog", "eel")


@pytest.fixture
def folder(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "images", LABELS, each=4, side=8)


def _pixels(examples: Examples) -> np.ndarray:
    return np.stack([np.asarray(examples.image(index)) for index in range(len(examples))])


def _assert_same(first: Examples, second: Examples) -> None:
    assert first.labels == second.labels
    assert list(first.names) == list(second.names)
    assert first.classes.tolist() == second.classes.tolist()
    assert np.array_equal(_pixels(first), _pixels(second))


def test_class_of_an_image_is_the_name_of_its_folder(folder: Path) -> None:
    examples = open_examples(folder)
    assert examples.labels == LABELS
    assert examples.classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert examples.names[5] == "dog/001.png"
    assert np.array_equal(np.asarray(examples.image(5)), np.asarray(Image.open(folder / "dog" / "001.png")))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("prefix", [".", "train"])
def test_folder_and_tar_of_it_give_the_same_examples(folder: Path, tmp_path: Path, mode: str, prefix: str) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, prefix)
    _assert_same(open_examples(path), open_examples(folder))


def test_all_formats_are_loaded_before_threads_open_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(Image, "init", lambda: loaded.append("all"))
    open_examples(folder)
    assert loaded == ["all"]


def test_class_folders_may_lie_in_a_folder_of_their_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "above").mkdir()
    folder.rename(tmp_path / "above" / "train")
    assert open_examples(tmp_path / "above").names[0] == "cat/000.png"


@pytest.mark.parametrize("tarred", [True, False])
@pytest.mark.parametrize("above", ["", "images"])
def test_images_in_a_val_folder_are_for_validation(folder: Path, tmp_path: Path, tarred: bool, above: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder, data / above / "train")
    shutil.copytree(folder / "dog", data / above / "val" / "dog")
    if tarred:
        with tarfile.open(tmp_path / "data.tar", "w") as archive:
            archive.add(data, ".")
        data = tmp_path / "data.tar"
    examples = open_examples(data)
    assert examples.labels == LABELS
    assert examples.validation is not None
    assert [examples.names[index] for index in np.flatnonzero(examples.validation)] == [
        f"val/dog/{number:03d}.png" for number in range(4)
    ]
    assert examples.names[0] == "train/cat/000.png"
    assert examples.classes[examples.validation].tolist() == [1] * 4
    assert open_examples(folder).validation is None


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val", "test"), ("train", "more/val"), ("a", "val")])
def test_class_folders_in_other_folders_must_not_be_mixed(folder: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        shutil.copytree(folder, tmp_path / "data" / name)
    with pytest.raises(DataError, match=r"in several folders .*: name one of them, or call two train and val"):
        open_examples(tmp_path / "data")


def test_class_that_is_for_validation_only_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data" / "val")
    shutil.copytree(folder / "cat", tmp_path / "data" / "train" / "cat")
    with pytest.raises(DataError, match=r"holds classes in val only \(dog, eel\)"):
        open_examples(tmp_path / "data")


def test_order_does_not_depend_on_the_order_in_which_files_were_written(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "backwards.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.add(file, file.relative_to(folder))
    _assert_same(open_examples(path), open_examples(folder))


def test_other_files_are_left_alone(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("not an image")
    assert len(open_examples(folder)) == 12


HIDDEN = (
    "cat/._000.png",
    "cat/.ipynb_checkpoints/000-checkpoint.png",
    ".ipynb_checkpoints/000-checkpoint.png",
    ".cache/deep/down/000.png",
    "dog/.../000.png",
    "__MACOSX/cat/._000.png",
    "__MACOSX/cat/000.png",
    "cat/__MACOSX/000.png",
)


def _add_hidden(folder: Path) -> None:
    """Images where none is looked for; each would be a class of its own, or make two folders of class folders."""
    for name in HIDDEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "cat" / "000.png", folder / name)


@pytest.mark.parametrize("prefix", [None, ".", "./train", "train", "../train", "/train"])
def test_what_is_hidden_at_any_depth_is_left_out(folder: Path, tmp_path: Path, prefix: str | None) -> None:
    before = open_examples(folder)
    digest = before.digest()
    _add_hidden(folder)
    path = folder
    if prefix is not None:
        path = tmp_path / "images.tar"
        with tarfile.open(path, "w") as archive:
            for file in folder.rglob("*.png"):
                member = archive.gettarinfo(file)
                member.name = f"{prefix}/{file.relative_to(folder)}"
                with file.open("rb") as content:
                    archive.addfile(member, content)
    _assert_same(open_examples(path), before)
    assert open_examples(path).digest() == digest


def test_folder_that_is_hidden_itself_can_be_named(folder: Path, tmp_path: Path) -> None:
    hidden = tmp_path / ".hidden" / "__MACOSX"
    hidden.parent.mkdir()
    folder.rename(hidden)
    assert len(open_examples(hidden)) == 12


def test_hidden_batches_in_a_tar_are_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / ".old").mkdir()
    (folder / ".old" / "data_batch_1.bin").write_bytes(b"damaged")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(folder, "images")
    _assert_same(open_examples(tmp_path / "images.tar"), open_examples(folder))


def test_only_hidden_images_are_none(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / ".hidden")
    with pytest.raises(DataError, match=r"no images in class folders .* hidden"):
        open_examples(tmp_path)


def test_links_to_images_are_followed_and_links_to_folders_are_not(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "linked.png").symlink_to(folder / "dog" / "000.png")
    (folder / "cat" / ".linked.png").symlink_to(folder / "dog" / "000.png")
    (folder / "cat" / "round").symlink_to(folder)
    (folder / "fox").symlink_to(folder / "dog")
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link"):
        examples = open_examples(path)
        assert examples.labels == LABELS
        assert len(examples) == 13
        assert np.array_equal(np.asarray(examples.image(4)), np.asarray(Image.open(folder / "dog" / "000.png")))


def test_link_that_leads_nowhere_is_an_image_that_cannot_be_read(folder: Path) -> None:
    (folder / "cat" / "lost.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"cannot decode .*/cat/lost\.png: .*No such file"):
        open_examples(folder).image(4)


def test_folder_with_the_name_of_an_image_is_a_folder(folder: Path) -> None:
    (folder / "cat" / "odd.png").mkdir()
    assert len(open_examples(folder)) == 12


def test_folder_that_cannot_be_listed_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def forbidden(path: str) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(PermissionError, match="dog"):
        open_examples(folder)


def test_missing_data_says_what_is_taken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*folder or tar"):
        open_examples(tmp_path / "nowhere")


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_examples(tmp_path)


def test_images_outside_class_folders_are_refused(folder: Path) -> None:
    (folder / "cat" / "000.png").rename(folder / "stray.png")
    with pytest.raises(DataError, match="outside any class folder"):
        open_examples(folder)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(b"PK\3\4" * 100)
    with pytest.raises(DataError, match="neither"):
        open_examples(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_truncated_tar_is_refused(folder: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, ".")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(DataError):
        open_examples(path)


def test_image_that_cannot_be_decoded_is_named(folder: Path) -> None:
    damaged = folder / "cat" / "002.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    examples = open_examples(folder)
    examples.image(1)
    with pytest.raises(DataError, match=re.escape(f"cannot decode {damaged}: ")):
        examples.image(2)


@pytest.mark.parametrize(("prefix", "where"), [(".", "cat/002.png"), ("./train", "train/cat/002.png")])
def test_image_in_a_tar_is_named_with_the_path_of_the_tar(
    folder: Path, tmp_path: Path, prefix: str, where: str
) -> None:
    (folder / "cat" / "002.png").write_bytes(b"damaged")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(folder, prefix)
    with pytest.raises(DataError, match=re.escape(f"cannot decode {tmp_path}/images.tar/{where}: ")):
        open_examples(tmp_path / "images.tar").image(2)


@pytest.mark.parametrize(("suffix", "format_"), [("avif", "AVIF"), ("heic", "HEIF"), ("tif", "TIFF"), ("ppm", "PPM")])
def test_images_of_all_formats_are_read_upright_in_rgb(tmp_path: Path, suffix: str, format_: str) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / f"1.{suffix}").write_bytes(encoded(photograph(20, 12).convert("L"), format_))
    image = open_examples(tmp_path).image(0)
    assert (image.mode, image.size) == ("RGB", (20, 12))


def test_colours_are_read_as_the_service_reads_them(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    profile = matrix_profile(SRGB_CHROMATICITIES, 1.8)
    file = raw_png(
        np.asarray(photograph(8, 8)).astype(np.int64), 8, 2, profile_chunk(profile), chunk(b"pHYs", b"damaged")
    )
    (tmp_path / "cat" / "1.png").write_bytes(file)
    preprocessing = Preprocessing(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1))
    trained = open_examples(tmp_path).fitted(0, preprocessing)
    served = ImageDecoder(preprocessing, 10**6, 10**6).decode(file)
    assert np.array_equal(preprocessing.normalise(trained), served)
    assert not np.array_equal(trained, np.asarray(photograph(8, 8)))
