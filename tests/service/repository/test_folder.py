from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydantic_settings import SettingsError

from artifact.manifest import ArtifactError
from service.repository import folder as module
from service.repository.folder import ModelFolder, default_model, version_order
from service.settings import Settings


@pytest.fixture
def folder(artifact: Path, tmp_path: Path) -> Path:
    """A repository with versions 2 and 10 of one model, and version 1 of another."""
    for name, version in (("small", "2"), ("small", "10"), ("another", "1")):
        place = tmp_path / name / version
        shutil.copytree(artifact, place)
        manifest = place / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": name, "version": version}))
    return tmp_path


def test_versions_are_in_the_order_of_their_numbers(folder: Path) -> None:
    assert ModelFolder(folder).versions() == [("another", "1"), ("small", "2"), ("small", "10")]


def test_versions_that_are_no_numbers_are_older_than_all_that_are() -> None:
    assert sorted(["2", "10", "beta", "1", "²", ""], key=version_order) == ["", "beta", "²", "1", "2", "10"]


def test_what_is_no_model_is_left_out(folder: Path) -> None:
    (folder / "small" / "empty").mkdir()
    (folder / "notes.txt").write_text("")
    for odd in (" small", "-x", "ä"):
        (folder / odd / "1").mkdir(parents=True)
        (folder / odd / "1" / "manifest.json").write_text("{}")
    assert len(ModelFolder(folder).versions()) == 3


def test_manifest_must_be_of_the_folders_name_and_version(folder: Path) -> None:
    (folder / "small" / "2").rename(folder / "small" / "3")
    with pytest.raises(ArtifactError, match="should have small 3, but its manifest is of small 2"):
        ModelFolder(folder).read("small", "3")


@pytest.mark.parametrize(("name", "version"), [("..", "1"), ("small", ".."), ("a/b", "1"), ("", ""), ("x" * 200, "1")])
def test_names_that_lead_elsewhere_are_none(folder: Path, name: str, version: str) -> None:
    with pytest.raises(ArtifactError, match="no model has such a name"):
        ModelFolder(folder).read(name, version)


def test_default_is_the_newest_version_of_the_first_model_or_of_the_one_that_is_set(folder: Path) -> None:
    manifests = [default_model(Settings(model_repository=folder, default_model=name))[1] for name in (None, "small")]
    assert [(each.name, each.version) for each in manifests] == [("another", "1"), ("small", "10")]


def test_default_is_among_what_other_processes_serve(folder: Path) -> None:
    settings = Settings(model_repository=folder)
    assert default_model(settings, [("small", "2"), ("another", "1")])[1].version == "2"
    for served in ([("small", "9"), ("small", "2")], [("small", "9")]):
        with pytest.raises(ArtifactError):  # another version in its place would be another model's answers
            default_model(settings, served)


def test_folder_without_the_default_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no model called nobody"):
        default_model(Settings(model_repository=folder, default_model="nobody"))
    with pytest.raises(ArtifactError, match="<name>/<version>"):
        default_model(Settings(model_repository=tmp_path / "small"))


def test_folder_cannot_be_followed_without_the_package_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"\[watch\]"):
        default_model(Settings(model_repository=folder, watch_models="on"))
