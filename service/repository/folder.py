"""A folder of models: `<name>/<version>/`, each version an artifact whose manifest has that name and version."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic_settings import SettingsError

from artifact.manifest import MANIFEST_NAME, ArtifactError, Manifest, read_manifest, verified_file
from service.settings import Settings

# What can stand in a path, a label and a line of a log as it is.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ModelFolder:
    """What is there now; it is looked at anew each time.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def versions(self) -> list[tuple[str, str]]:
        """Name and version of every model, in order; what has no manifest, or no plain name, is left out."""
        found = (path.relative_to(self.path).parts[:2] for path in self.path.glob(f"*/*/{MANIFEST_NAME}"))
        return sorted(
            ((name, version) for name, version in found if _NAME.fullmatch(name) and _NAME.fullmatch(version)),
            key=lambda model: (model[0], version_order(model[1])),
        )

    def stamp(self, name: str, version: str) -> int:
        """Changes with the files of a version."""
        files = ((file, file.stat(follow_symlinks=False)) for file in (self.path / name / version).rglob("*"))
        return hash(frozenset((file, told.st_mtime_ns, told.st_ctime_ns, told.st_size) for file, told in files))

    def read(self, name: str, version: str) -> tuple[Path, Manifest]:
        """Where a version is, and its manifest.

        Raises:
            ArtifactError: there is none, it is damaged, or it is of another name or version than its folders say.
        """
        if not (_NAME.fullmatch(name) and _NAME.fullmatch(version)):
            raise ArtifactError("no model has such a name or version")
        folder = self.path / name / version
        manifest = read_manifest(folder)
        if (manifest.name, manifest.version) != (name, version):
            raise ArtifactError(
                f"{folder} should have {name} {version}, but its manifest is of {manifest.name} {manifest.version}"
            )
        return folder, manifest

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether the files of a version are what this manifest says; takes a while."""
        try:
            folder, found = self.read(manifest.name, manifest.version)
            for name in manifest.files:
                verified_file(folder, manifest, name)
        except ArtifactError:
            return False
        return found == manifest


def version_order(version: str) -> tuple[int, str]:
    """Sorts versions: whole numbers by their size, before all of them what is none."""
    return (int(version), "") if version.isascii() and version.isdecimal() else (-1, version)


def default_model(settings: Settings, served: Sequence[tuple[str, str]] | None = None) -> tuple[Path, Manifest]:
    """The model that answers where a request names none.

    Args:
        settings: of the service.
        served: what other processes of it serve, first of all a version of their default model: it is the newest of
            these, whatever else is in the folder by now. None where there are no others.

    Raises:
        ArtifactError: there is none, or it is damaged.
        SettingsError: the folder is to be followed, and the package for that is not installed.
    """
    if settings.watch_models == "on" and find_spec("watchfiles") is None:
        raise SettingsError("watch_models needs a package of its own: pip install '.[watch]'")
    if settings.model_repository is None:
        return settings.model, read_manifest(settings.model)
    folder = ModelFolder(settings.model_repository)
    there = folder.versions() if served is None else served
    name = settings.default_model or next((name for name, _ in there), None)
    version = max((version for found, version in there if found == name), key=version_order, default=None)
    if name is None or version is None:
        wanted = "" if name is None else f" called {name}"
        raise ArtifactError(f"there is no model{wanted} in {folder.path}, which should have <name>/<version>/ folders")
    return folder.read(name, version)
